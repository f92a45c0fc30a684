//! `xdpgate completions` and `man`: for packages, and for who has none.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, Command, CommandFactory};
use clap_complete::Shell;

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
    let mut command = match args.of.as_str() {
        "xdpgated" => agent::command(),
        _ => Cli::command(),
    };
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, args.of.as_str(), &mut script);
    print(&String::from_utf8_lossy(&script))
}

pub(super) fn man(args: &Man) -> Result<(), Failure> {
    let write = |program: Command, section: &str| {
        let dir = args.dir.join(format!("man{section}"));
        let mut program = program.disable_help_subcommand(true);
        program.build();
        fs::create_dir_all(&dir)
            .and_then(|()| pages(program, section, &dir))
            .map_err(|e| Failure::operation(format!("{}: {e}", dir.display())))
    };
    write(Cli::command(), "1")?;
    write(agent::command(), "8")
}

/// A page for the command and for each below it.
fn pages(command: Command, section: &str, dir: &Path) -> io::Result<()> {
    for below in command.get_subcommands().filter(|c| !c.is_hide_set()) {
        pages(below.clone(), section, dir)?;
    }
    let page = clap_mangen::Man::new(command).section(section);
    page.generate_to(dir).map(drop)
}
