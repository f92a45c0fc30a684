//! The command-line client `xdpgate`.

mod args;
mod capture;
mod connect;
mod eval;
mod interfaces;
mod pins;
mod policy;
mod remote;
mod show;
mod table;

use std::io::{self, Write};
use std::process::ExitCode;

use serde::Serialize;

use crate::failure::Failure;
use crate::{libbpf, usage};
use args::{Cli, Command, Policy};

/// Runs the client with this process's arguments.
pub fn main() -> ExitCode {
    libbpf::print_nothing();
    match usage::parse().and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        Command::Status(remote) => remote::status(&remote),
        Command::Stats(remote) => remote::stats(&remote),
        Command::Interfaces(remote) => interfaces::list(&remote),
        Command::Attach(args) => interfaces::attach(&args),
        Command::Detach(args) => interfaces::detach(&args),
        Command::Preflight(args) => interfaces::preflight(&args),
        Command::Stop(args) => interfaces::stop(&args),
        Command::Policy(Policy::Check(args)) => policy::check(&args),
        Command::Policy(Policy::Apply(args)) => policy::apply(&args),
        Command::Policy(Policy::Get(remote)) => policy::get(&remote),
        Command::Eval(args) => eval::run(&args),
        Command::Load(args) => pins::load(&args),
        Command::Unload(args) => pins::unload(&args),
    }
}

/// Prints text on stdout.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|e| Failure::output(&e))
}

/// Prints a value on stdout as indented JSON.
fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(Failure::operation)?;
    print(&(text + "\n"))
}
