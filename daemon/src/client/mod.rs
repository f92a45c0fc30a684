//! The command-line client `xdpgate`.
//!
//! A command, its arguments and what it prints are in one file each; `remote` talks to the daemon,
//! `json` and `out` print.

mod args;
mod bans;
mod capture;
mod change;
mod connect;
mod convert;
mod diff;
mod duration;
mod entries;
mod eval;
mod events;
mod failsafe;
mod fleet;
mod import;
mod interfaces;
mod json;
mod mode;
mod names;
mod out;
mod pins;
mod policy;
mod remote;
mod rules;
mod sets;
mod shell;
mod status;
mod top;
mod units;

use std::process::ExitCode;

use xdpgate_service::table;

use crate::Failure;
use crate::libbpf;
use args::{Cli, Command};

/// Runs the client with this process's arguments.
pub fn main() -> ExitCode {
    libbpf::print_nothing();
    match xdpgate_service::parse().and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    cli.color.set();
    match cli.command {
        Command::Status(args) => status::status(&args),
        Command::System(args) => status::system(&args),
        Command::Stats(args) => status::stats(&args),
        Command::Top(args) => top::run(&args),
        Command::Events(args) => events::run(&args),
        Command::Interfaces(args) => interfaces::list(&args),
        Command::Attach(args) => interfaces::attach(&args),
        Command::Detach(args) => interfaces::detach(&args),
        Command::Preflight(args) => interfaces::preflight(&args),
        Command::Fleet(command) => fleet::run(&command),
        Command::Policy(command) => policy::run(&command),
        Command::Rule(command) => rules::run(&command),
        Command::Rules(args) => rules::list(&args),
        Command::Set(command) => sets::run(&command),
        Command::Entries(args) => entries::run(&args),
        Command::Ban(args) => bans::ban(&args),
        Command::Unban(args) => bans::unban(&args),
        Command::Bans(args) => bans::list(&args),
        Command::Enforce(args) => mode::enforce(&args),
        Command::DryRun(args) => mode::dry_run(&args),
        Command::PanicOff(args) => mode::panic_off(&args),
        Command::Confirm(args) => policy::confirm(&args),
        Command::Reload(args) => mode::reload(&args),
        Command::Stop(args) => mode::stop(&args),
        Command::Eval(args) => eval::run(&args),
        Command::Load(args) => pins::load(&args),
        Command::Unload(args) => pins::unload(&args),
        Command::Completions(args) => shell::completions(&args),
        Command::Man(args) => shell::man(&args),
    }
}
