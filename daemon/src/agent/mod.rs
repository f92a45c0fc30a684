//! The daemon `xdpgated`: one firewall, its interfaces, and the gRPC API over it.
//!
//! The order of a start: read configuration and policy, load the program, put the policy in force that
//! was saved, attach, open the API. When a step fails, what was done before it is undone.

pub(crate) mod access;
mod args;
mod commands;
mod config;
mod convert;
mod deadline;
mod fault;
mod fleet;
mod listen;
mod look;
mod monitor;
mod notify;
mod reload;
mod serve;
mod service;
mod start;
mod stop;

#[cfg(any(fuzzing, test))]
pub use service::hostile;
pub use service::{FirewallService, Reload, Reloaded, Stop};

use std::process::ExitCode;

use clap::CommandFactory;

use crate::Failure;
use crate::libbpf;
use access::Access;
use args::{Args, Cli, Command};
use listen::Listener;
use monitor::{Monitor, Told};

/// Runs the daemon with this process's arguments until a signal ends it.
pub fn main() -> ExitCode {
    let done = xdpgate_service::parse().map(|cli: Cli| match cli.command {
        None => run(&cli.args),
        Some(Command::Run(args)) => run(&args),
        Some(Command::Check(args)) => commands::check(&args),
        Some(Command::Config(command)) => commands::config(&command),
        Some(Command::Token(command)) => command.run(),
    });
    match done {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(failure)) | Err(failure) => failure.report(),
    }
}

/// The command line of the daemon: for manual pages and completions.
pub fn command() -> clap::Command {
    Cli::command()
}

fn run(args: &Args) -> Result<(), Failure> {
    let log = xdpgate_service::logging::install(xdpgate_service::logging::Log::default());
    libbpf::print_to_log();
    let plan = start::Plan::new(args)?;
    log.set(plan.log());
    // Before anything is changed: another daemon may be there. It is served from later.
    let access = Access::new(plan.api()).map_err(|reason| match &args.config {
        Some(file) => Failure::input(file.display(), reason),
        None => Failure::Input(reason),
    })?;
    let listeners = Listener::bind_all(plan.api())?;
    let management = listen::management(&listeners, plan.api()).map_err(Failure::Input)?;
    let fleet = plan.fleet(management)?;
    let monitor = Monitor::open(plan.metrics())?;
    let signals = serve::Signals::catch().map_err(Failure::operation)?;
    let told = match monitor {
        Some(monitor) => monitor.serve(signals.runtime())?,
        None => Told::default(),
    };
    let started = plan.carry_out(fleet.management())?;
    let front = serve::Front {
        listeners,
        access,
        told,
        fleet,
    };
    serve::until_stopped(signals, started, front, log)
}

fn log_applied(applied: &xdpgate::Applied) {
    log::info!(
        generation = applied.generation.get(), entries = applied.entries,
        image_bytes = applied.image_bytes;
        "policy generation {}: {} entries, compiled in {:.1?}, published in {:.1?}",
        applied.generation,
        applied.entries,
        applied.compile,
        applied.publish
    );
}
