//! The commands that need no running controller.

use std::io::{self, Write};

use xdpgate_service::Failure;
use xdpgate_service::config::{Problem, default_file, effective, json_schema};

use crate::args::{Args, ConfigCommand};
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

fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| Failure::output(&error))
}
