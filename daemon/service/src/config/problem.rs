//! What is wrong in a configuration, and where.

use std::fmt;
use std::path::PathBuf;

use crate::failure::Failure;

/// A value that its section does not take, by the key from the root: `interfaces.include[1]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// The key.
    pub key: String,
    /// What is wrong, and the mend where it is not obvious.
    pub reason: String,
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A line of the file.
    File(PathBuf, usize),
    /// A variable of the environment.
    Environment(String),
    /// A flag of the command line.
    Flag(&'static str),
}

/// Something that is wrong, with all that is needed to find it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where it was said, if it is known.
    pub source: Option<Source>,
    /// Empty if the file is no TOML at that place.
    pub key: String,
    /// What is wrong, and the mend.
    pub reason: String,
}

impl Invalid {
    /// A key and what is wrong with it.
    pub fn new(key: impl Into<String>, reason: impl fmt::Display) -> Self {
        Self {
            key: key.into(),
            reason: reason.to_string(),
        }
    }
}

impl Invalid {
    /// Of a reason that begins with its key.
    pub fn named(reason: &str) -> Self {
        let (key, reason) = reason.split_once(": ").unwrap_or(("", reason));
        Self::new(key, reason)
    }
}

impl Problem {
    /// What a part of the daemon does not take: its reason begins with the key, or is of the section.
    pub fn of(section: &str, reason: &str) -> Self {
        let invalid = Invalid::named(reason);
        let (key, reason) = match invalid.key.starts_with(section) {
            true => (invalid.key, invalid.reason),
            false => (section.to_owned(), reason.to_owned()),
        };
        Self {
            source: None,
            key,
            reason,
        }
    }

    /// All of them as one failure.
    pub fn failure(problems: &[Self]) -> Failure {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        Failure::Input(lines.join("\n"))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) => f.write_str(name),
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(source) = &self.source {
            write!(f, "{source}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.reason)
    }
}
