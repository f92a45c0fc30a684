//! Labels of nodes.

use std::collections::BTreeMap;

/// Names and values.
pub type Labels = BTreeMap<String, String>;

/// How many labels a node may have, from itself and from operators each.
const MAX_LABELS: usize = 64;

/// Why labels were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelsError {
    /// A name or value is not what one may be.
    #[error(
        "label {0:?}: names are 1 to 64 of a-z A-Z 0-9 . _ - /, values 0 to 64 of a-z A-Z 0-9 . _ -"
    )]
    Label(String),
    /// There are too many.
    #[error("{0} labels: at most {MAX_LABELS} are allowed")]
    TooMany(usize),
}

/// Whether these can be labels of a node.
///
/// # Errors
/// A name or value has a character that it may not have, or there are more than 64.
pub fn check_labels(labels: &Labels) -> Result<(), LabelsError> {
    if labels.len() > MAX_LABELS {
        return Err(LabelsError::TooMany(labels.len()));
    }
    match labels
        .iter()
        .find(|(name, value)| !is_name(name) || !is_value(value))
    {
        Some((name, value)) => Err(LabelsError::Label(format!("{name}={value}"))),
        None => Ok(()),
    }
}

pub(super) fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|b| is_part(b) || b == b'/')
}

pub(super) fn is_value(value: &str) -> bool {
    value.len() <= 64 && value.bytes().all(is_part)
}

fn is_part(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"._-".contains(&b)
}
