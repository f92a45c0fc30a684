//! Completions and manual pages of a program, of what clap knows about it.

use std::fs;
use std::io;
use std::path::Path;

use clap::Command;
pub use clap_complete::Shell;

use crate::Failure;

/// The completion script of a program for a shell.
pub fn completions(mut program: Command, shell: Shell) -> String {
    let name = program.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut program, name, &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// Writes a page for a program and for each command below it into `manSECTION` of a directory, which is made.
///
/// # Errors
/// A file cannot be written.
pub fn pages(program: Command, section: &str, dir: &Path) -> Result<(), Failure> {
    let dir = dir.join(format!("man{section}"));
    let mut program = program.disable_help_subcommand(true);
    program.build();
    fs::create_dir_all(&dir)
        .and_then(|()| write(program, section, &dir))
        .map_err(|e| Failure::operation(format!("{}: {e}", dir.display())))
}

fn write(command: Command, section: &str, dir: &Path) -> io::Result<()> {
    for below in command.get_subcommands().filter(|c| !c.is_hide_set()) {
        write(below.clone(), section, dir)?;
    }
    let page = clap_mangen::Man::new(command).section(section);
    page.generate_to(dir).map(drop)
}
