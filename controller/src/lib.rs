//! The fleet controller of xdpgate: one desired state for many nodes. docs/fleet.md tells the whole.
#![deny(unsafe_code)]

pub mod args;
pub mod client;
mod commands;
pub mod config;
pub mod content;
pub mod core;
pub mod domain;
pub mod feed;
pub mod rollout;
pub mod store;

use std::process::ExitCode;

use args::{Cli, Command};

/// Runs the program with this process's arguments.
pub fn main() -> ExitCode {
    let done = xdpgate_service::parse().map(|cli: Cli| match cli.command {
        Command::Serve(_) | Command::Backup(_) | Command::Restore(_) => todo!(),
        Command::Check(args) => commands::check(&args),
        Command::Config(command) => commands::config(&command),
    });
    match done {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(failure)) | Err(failure) => failure.report(),
    }
}
