//! The commands that need no running controller.

use std::io::{self, Write};
use std::path::Path;

use clap::CommandFactory as _;
use xdpgate_service::Failure;
use xdpgate_service::config::{Problem, default_file, effective, json_schema};
use xdpgate_service::shell::{self, Shell};

use crate::args::{Args, Cli, ConfigCommand};
use crate::config::Config;

/// `xdpgate-controller check`: a line for all that is wrong.
pub(crate) fn check(args: &Args) -> Result<(), Failure> {
    let loaded = args
        .load()
        .map_err(|problems| Failure::Faults(problems.iter().map(Problem::to_string).collect()))?;
    for warning in &loaded.warnings {
        eprintln!("warning: {warning}");
    }
    print("the configuration is right\n")
}

/// `xdpgate-controller config ...`.
pub(crate) fn config(command: &ConfigCommand) -> Result<(), Failure> {
    match command {
        ConfigCommand::PrintDefault => print(&default_file::<Config>()),
        ConfigCommand::Schema => print(&json_schema::<Config>()),
        ConfigCommand::Show(args) => {
            let loaded = args
                .load()
                .map_err(|problems| Problem::failure(&problems))?;
            print(&effective(&loaded))
        }
    }
}

/// `xdpgate-controller completions SHELL`.
pub(crate) fn completions(shell: Shell) -> Result<(), Failure> {
    print(&shell::completions(Cli::command(), shell))
}

/// `xdpgate-controller man DIR`.
pub(crate) fn man(dir: &Path) -> Result<(), Failure> {
    shell::pages(Cli::command(), "8", dir)
}

fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| Failure::output(&error))
}
