//! Why a change was not made.

use std::fmt;

use super::super::error::{PolicyError, PolicyErrorKind};

/// What sort of refusal it is, for callers that map it to a status code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ChangeErrorKind {
    /// The rule or set that was to be created is there.
    AlreadyExists,
    /// There is no such set or rule.
    NotFound,
    /// A rule names the set.
    InUse,
    /// The policy would not be valid: [`ChangeError::policy_error`] says why.
    Invalid(PolicyErrorKind),
}

/// Why one change of a list was not made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeError {
    index: usize,
    kind: ChangeErrorKind,
    error: PolicyError,
}

impl ChangeError {
    pub(super) fn new(index: usize, kind: ChangeErrorKind, error: PolicyError) -> Self {
        Self { index, kind, error }
    }

    /// The place of the change in the list, from 0 on.
    pub fn index(&self) -> usize {
        self.index
    }

    /// What sort of refusal it is.
    pub fn kind(&self) -> ChangeErrorKind {
        self.kind
    }

    /// The rule or set, the field, the reason and the mend.
    pub fn policy_error(&self) -> &PolicyError {
        &self.error
    }
}

impl fmt::Display for ChangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "change {}: {}", self.index, self.error)
    }
}

impl std::error::Error for ChangeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

/// Why a list of changes was not made: one error or more, in the order of the changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeErrors(Vec<ChangeError>);

impl ChangeErrors {
    pub(super) fn new(errors: Vec<ChangeError>) -> Self {
        debug_assert!(!errors.is_empty());
        Self(errors)
    }

    /// The errors, in the order of the changes.
    pub fn iter(&self) -> impl Iterator<Item = &ChangeError> {
        self.0.iter()
    }
}

impl fmt::Display for ChangeErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ChangeErrors {}
