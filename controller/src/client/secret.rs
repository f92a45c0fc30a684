//! Passwords and tokens: asked for without echo, or read from files that only their owner may read.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};
use xdpgate_service::Failure;
use xdpgate_service::files::{self, Others};

/// The secret in a file.
pub(super) fn read(file: &Path) -> Result<String, Failure> {
    let wrong = |reason: &dyn std::fmt::Display| Failure::input(file.display(), reason);
    // A pipe, as of `<(...)`, has no other readers.
    let pipe = fs::metadata(file).is_ok_and(|meta| meta.file_type().is_fifo());
    let text = match pipe {
        true => fs::read_to_string(file).map_err(|e| wrong(&e))?,
        false => files::read(file, Others::MayNothing).map_err(Failure::Input)?,
    };
    let text = text.trim_end_matches(['\n', '\r']);
    if text.is_empty() || text.contains('\n') {
        return Err(wrong(&"it is to have one line"));
    }
    Ok(text.to_owned())
}

/// Asks the terminal, which does not show what is typed.
pub(super) fn ask(question: &str) -> Result<String, Failure> {
    let terminal = OpenOptions::new().read(true).write(true).open("/dev/tty");
    let mut terminal = terminal.map_err(|_| {
        Failure::input(
            "the password",
            "there is no terminal to ask: use --password-file",
        )
    })?;
    let failed = |e: &dyn std::fmt::Display| Failure::operation(format!("/dev/tty: {e}"));
    write!(terminal, "{question}: ").map_err(|e| failed(&e))?;
    let shown = tcgetattr(&terminal).map_err(|e| failed(&e))?;
    let mut hidden = shown.clone();
    hidden.local_flags.remove(LocalFlags::ECHO);
    tcsetattr(&terminal, SetArg::TCSAFLUSH, &hidden).map_err(|e| failed(&e))?;
    let line = line(&terminal);
    let restored = tcsetattr(&terminal, SetArg::TCSANOW, &shown);
    let _ = writeln!(terminal);
    restored.map_err(|e| failed(&e))?;
    let line = line.map_err(|e| failed(&e))?;
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}

fn line(terminal: &File) -> std::io::Result<String> {
    let mut line = String::new();
    BufReader::new(terminal).read_line(&mut line)?;
    Ok(line)
}
