//! How a command fails: one line and an exit code.

use std::fmt;
use std::io;
use std::process::ExitCode;

use xdpgate::PolicyError;

/// Why a command failed. Both binaries print it as one line, `error: ...`, on stderr.
#[derive(Debug)]
#[non_exhaustive]
pub enum Failure {
    /// What was given is wrong: exit code 2.
    Input(String),
    /// Several things that were given are wrong, a line each: exit code 2.
    Faults(Vec<String>),
    /// What was compared differs, and that was printed, as by `diff`: exit code 1.
    Differs,
    /// What was given is right and yet it did not work: exit code 1.
    Operation(String),
    /// Whoever read our output has gone, as `head` does: no error.
    OutputClosed,
}

impl Failure {
    /// What was given is wrong: `subject` names it.
    pub fn input(subject: impl fmt::Display, reason: impl fmt::Display) -> Self {
        Self::Input(format!("{subject}: {reason}"))
    }

    /// An operation failed.
    pub fn operation(reason: impl fmt::Display) -> Self {
        Self::Operation(reason.to_string())
    }

    /// A policy file is at fault.
    pub fn policy(file: &std::path::Path, error: &PolicyError) -> Self {
        match error.kind() {
            // Names the file itself.
            xdpgate::policy::PolicyErrorKind::File if error.position().is_none() => {
                Self::Input(error.to_string())
            }
            _ => Self::input(file.display(), error),
        }
    }

    /// Writing to stdout failed.
    pub fn output(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::Operation(format!("stdout: {error}")),
        }
    }

    /// Prints the one line, if there is something to say, and gives the exit code.
    pub fn report(&self) -> ExitCode {
        match self {
            Self::OutputClosed => return ExitCode::SUCCESS,
            Self::Differs => {}
            Self::Faults(faults) => {
                for fault in faults {
                    eprintln!("error: {}", one_line(fault));
                }
            }
            Self::Input(_) | Self::Operation(_) => eprintln!("error: {self}"),
        }
        match self {
            Self::Input(_) | Self::Faults(_) => ExitCode::from(2),
            _ => ExitCode::from(1),
        }
    }
}

/// On one line, whatever the message holds.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&match self {
            Self::Input(message) | Self::Operation(message) => one_line(message),
            Self::Faults(faults) => one_line(&faults.join("\n")),
            Self::Differs => "they differ".to_owned(),
            Self::OutputClosed => "the output was closed".to_owned(),
        })
    }
}

fn one_line(message: &str) -> String {
    let lines = message.lines().map(str::trim).filter(|l| !l.is_empty());
    lines.collect::<Vec<_>>().join("; ")
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::Failure;

    #[test]
    fn one_line_whatever_the_message() {
        let failure = Failure::input("policy.yaml", "first\n  second\n\nthird\n");
        assert_eq!(failure.to_string(), "policy.yaml: first; second; third");
    }
}
