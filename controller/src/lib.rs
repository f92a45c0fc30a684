//! The fleet controller of xdpgate: one desired state for many nodes. docs/fleet.md tells the whole.
#![deny(unsafe_code)]

pub mod args;
pub mod auth;
pub mod client;
mod commands;
pub mod config;
pub mod content;
pub mod core;
mod counts;
pub mod domain;
pub mod feed;
pub mod fleet;
pub mod http;
mod keep;
mod metrics;
mod open;
pub mod peers;
pub mod rollout;
mod serve;
pub mod store;

use std::process::ExitCode;

use args::{Cli, Command};

/// Runs the program with this process's arguments.
pub fn main() -> ExitCode {
    let done = xdpgate_service::parse().map(|cli: Cli| match cli.command {
        Command::Serve(args) => serve::run(&args),
        Command::Backup(args) => keep::backup(&args),
        Command::Restore(args) => keep::restore(&args),
        Command::Check(args) => commands::check(&args),
        Command::Config(command) => commands::config(&command),
        Command::Completions { shell } => commands::completions(shell),
        Command::Man { dir } => commands::man(&dir),
        Command::Client(command) => client::run(&cli.remote, &command),
    });
    match done {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(failure)) | Err(failure) => failure.report(),
    }
}
