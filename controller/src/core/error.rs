//! Why a command was refused.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::store::{CommitError, StoreError};

/// What sort of refusal it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// There is no such thing.
    NotFound,
    /// A thing of this name is there.
    AlreadyExists,
    /// It is not at the version that was expected, or changed all the time; or an idempotency key served for another request.
    Conflict,
    /// What is asked for cannot be.
    Invalid,
    /// Something else names it.
    InUse,
    /// It is larger than what is taken.
    TooLarge,
    /// The store does not answer; later it may.
    Unavailable,
}

/// Why a command was refused, in one line with the field and the mend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandError {
    /// What sort of refusal it is.
    pub kind: ErrorKind,
    /// The thing that it is about, as `policy/web/rule/block` or `set/bad`; empty if none.
    pub object: String,
    /// The field, as `match.src`; empty if it is about the whole.
    pub field: String,
    /// What is wrong.
    pub reason: String,
    /// What to do about it; may be empty.
    pub mend: String,
    /// The version that the thing has, where another one was expected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
}

impl CommandError {
    /// A refusal.
    pub fn new(kind: ErrorKind, object: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            kind,
            object: object.into(),
            field: String::new(),
            reason: reason.into(),
            mend: String::new(),
            version: None,
        }
    }

    /// Names the field.
    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.field = field.into();
        self
    }

    /// Says what to do about it.
    pub fn mend(mut self, mend: impl Into<String>) -> Self {
        self.mend = mend.into();
        self
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in [&self.object, &self.field] {
            if !part.is_empty() {
                write!(f, "{part}: ")?;
            }
        }
        f.write_str(&self.reason)?;
        if !self.mend.is_empty() {
            write!(f, "; {}", self.mend)?;
        }
        Ok(())
    }
}

impl std::error::Error for CommandError {}

impl From<StoreError> for CommandError {
    fn from(error: StoreError) -> Self {
        let kind = match error {
            StoreError::TooLarge(_) => ErrorKind::TooLarge,
            _ => ErrorKind::Unavailable,
        };
        Self::new(kind, "", error.to_string())
    }
}

impl From<CommitError> for CommandError {
    fn from(error: CommitError) -> Self {
        let kind = match error {
            CommitError::Store(error) => return error.into(),
            CommitError::TooLarge(_) => ErrorKind::TooLarge,
            CommitError::Conflict(_) => ErrorKind::Conflict,
            _ => ErrorKind::Unavailable,
        };
        Self::new(kind, "", error.to_string())
    }
}
