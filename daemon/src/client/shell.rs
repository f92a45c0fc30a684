//! `xdpgate completions` and `man`: for packages, and for who has none.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::args::Cli;
use super::out::print;
use crate::agent;
use crate::failure::Failure;

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
Examples:
  xdpgate man /usr/local/share/man/man1
  man /usr/local/share/man/man1/xdpgate-policy-apply.1")]
pub(super) struct Man {
    /// The directory; it is made if it is not there
    pub dir: PathBuf,
}

pub(super) fn completions(args: &Completions) -> Result<(), Failure> {
    let mut command = match args.of.as_str() {
        "xdpgated" => agent::command(),
        _ => Cli::command(),
    };
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, args.of.as_str(), &mut script);
    print(&String::from_utf8_lossy(&script))
}

pub(super) fn man(args: &Man) -> Result<(), Failure> {
    let write = |dir: &Path| -> io::Result<()> {
        fs::create_dir_all(dir)?;
        clap_mangen::generate_to(Cli::command().disable_help_subcommand(true), dir)?;
        clap_mangen::generate_to(agent::command(), dir)
    };
    write(&args.dir).map_err(|e| Failure::operation(format!("{}: {e}", args.dir.display())))
}
