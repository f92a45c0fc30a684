//! The commands that print and run nothing.

use std::io::{self, Write};

use super::access;
use super::args::{Args, ConfigCommand};
use super::config::{Config, Problem, default_file, effective, json_schema};
use super::start::read_policy;
use crate::Failure;

/// `xdpgated check`: a line for all that is wrong.
pub(super) fn check(args: &Args) -> Result<(), Failure> {
    let loaded = match args.load() {
        Ok(loaded) => loaded,
        Err(mut problems) => {
            let last = problems.pop();
            for problem in problems {
                eprintln!("error: {problem}");
            }
            return Err(Problem::failure(last.as_slice()));
        }
    };
    let config = &loaded.config;
    let policy = read_policy(config)?.map(|(_, policy)| policy);
    let endpoints = config.api.endpoints().map_err(Failure::Input)?;
    let of_reach = access::warnings(&config.api, &endpoints, policy.as_ref());
    for warning in loaded.warnings.iter().chain(&of_reach) {
        eprintln!("warning: {warning}");
    }
    print("the configuration is right\n")
}

/// `xdpgated config ...`.
pub(super) fn config(command: &ConfigCommand) -> Result<(), Failure> {
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

fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| Failure::output(&error))
}
