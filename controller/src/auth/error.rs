//! Why something about users, tokens or certificates is refused.

use std::time::Duration;

use crate::store::{CommitError, StoreError};

/// Why a call is refused. Its text is one line, for the caller, and has no secret in it.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum AuthError {
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// There is one of that name already.
    #[error("{0}")]
    AlreadyExists(String),
    /// It was changed meanwhile, or is not as the caller expects.
    #[error("{0}")]
    Conflict(String),
    /// A value that cannot be.
    #[error("{field}: {detail}")]
    Invalid {
        /// Where.
        field: String,
        /// What is wrong, and the mend.
        detail: String,
    },
    /// The name, the password, the session or the token is not right; which of them is not said.
    #[error("{0}")]
    Credentials(&'static str),
    /// The caller is known, but may not.
    #[error("{0}")]
    Forbidden(String),
    /// Too many attempts.
    #[error("too many attempts: try again in {} s", .0.as_secs().max(1))]
    Throttled(Duration),
    /// Too many at once.
    #[error("busy with other logins: try again in a second")]
    Busy,
    /// The store does not answer.
    #[error("{0}")]
    Unavailable(String),
    /// What is stored is not what was written, or a key cannot be used.
    #[error("{0}")]
    Damaged(String),
}

impl AuthError {
    /// A value that cannot be.
    pub(crate) fn invalid(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Invalid {
            field: field.into(),
            detail: detail.into(),
        }
    }
}

impl From<StoreError> for AuthError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Damaged(_) => Self::Damaged(error.to_string()),
            _ => Self::Unavailable(error.to_string()),
        }
    }
}

impl From<CommitError> for AuthError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Conflict(_) => {
                Self::Conflict("it was changed meanwhile: read it again".to_owned())
            }
            CommitError::Store(error) => error.into(),
            _ => Self::Unavailable(error.to_string()),
        }
    }
}
