//! `xdpgate completions` and `man`: for packages, and for who has none.

use std::path::PathBuf;

use clap::{Args, CommandFactory};
use xdpgate_service::shell::{self, Shell};

use super::args::Cli;
use super::out::print;
use crate::Failure;
use crate::agent;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  xdpgate completions bash > /etc/bash_completion.d/xdpgate
  xdpgate completions zsh > /usr/local/share/zsh/site-functions/_xdpgate
  xdpgate completions bash --of xdpgated")]
pub(super) struct Completions {
    /// The shell
    #[arg(value_enum)]
    pub shell: Shell,
    /// Of which program
    #[arg(long, value_name = "PROGRAM", default_value = "xdpgate")]
    #[arg(value_parser = ["xdpgate", "xdpgated"])]
    pub of: String,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Pages of xdpgate are written to man1 below the directory, those of xdpgated to man8.

Examples:
  xdpgate man /usr/local/share/man
  man xdpgate-policy-apply
  man 8 xdpgated")]
pub(super) struct Man {
    /// The directory that holds man1 and man8; what is not there is made
    pub dir: PathBuf,
}

pub(super) fn completions(args: &Completions) -> Result<(), Failure> {
    let command = match args.of.as_str() {
        "xdpgated" => agent::command(),
        _ => Cli::command(),
    };
    print(&shell::completions(command, args.shell))
}

pub(super) fn man(args: &Man) -> Result<(), Failure> {
    shell::pages(Cli::command(), "1", &args.dir)?;
    shell::pages(agent::command(), "8", &args.dir)
}
