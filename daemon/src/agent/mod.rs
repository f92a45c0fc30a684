//! The daemon `xdpgated`: one firewall, its interfaces, and the gRPC API over it.
//!
//! The order of a start: read configuration and policy, load the program, put the policy in force that
//! was saved, attach, open the API. When a step fails, what was done before it is undone.

mod args;
mod commands;
mod config;
mod convert;
mod fault;
mod interfaces;
mod listen;
mod notify;
mod reload;
mod serve;
mod service;
mod start;

pub use service::{FirewallService, Stop};

use std::io::Write;
use std::process::ExitCode;

use crate::failure::Failure;
use crate::{libbpf, usage};
use args::{Args, Cli, Command};
use listen::Listener;

/// Runs the daemon with this process's arguments until a signal ends it.
pub fn main() -> ExitCode {
    let done = usage::parse().map(|cli: Cli| match cli.command {
        None => run(&cli.args),
        Some(Command::Run(args)) => run(&args),
        Some(Command::Check(args)) => commands::check(&args),
        Some(Command::Config(command)) => commands::config(&command),
    });
    match done {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(failure)) | Err(failure) => failure.report(),
    }
}

fn run(args: &Args) -> Result<(), Failure> {
    log_to_stderr(args.log_level);
    libbpf::print_to_log();
    let plan = start::Plan::new(args)?;
    // Before anything is changed: another daemon may be there. It is served from later.
    let listener = Listener::bind(&plan.listen)?;
    let signals = serve::Signals::catch().map_err(Failure::operation)?;
    let started = plan.carry_out()?;
    serve::until_stopped(signals, started, listener)
}

fn log_applied(applied: &xdpgate::Applied) {
    log::info!(
        "policy generation {}: {} entries, compiled in {:.1?}, published in {:.1?}",
        applied.generation,
        applied.entries,
        applied.compile,
        applied.publish
    );
}

/// The library's own report of each step is left to `debug`: the daemon says it when all is done.
/// A filter is the beginning of a path, so `xdpgate` would stand for the daemon too.
fn log_to_stderr(level: log::LevelFilter) {
    let default = match level {
        log::LevelFilter::Info => "info,xdpgate::=warn".to_owned(),
        level => level.to_string(),
    };
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(default))
        .format(|out, record| {
            let (level, target) = (record.level(), record.target());
            let style = out.default_level_style(level);
            let now = jiff::Timestamp::now().as_millisecond();
            let now = jiff::Timestamp::from_millisecond(now).unwrap_or_default();
            writeln!(
                out,
                "{now:.3} {style}{level:<5}{style:#} {target}: {}",
                record.args()
            )
        })
        .init();
}
