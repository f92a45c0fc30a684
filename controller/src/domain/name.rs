//! Names of things.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use xdpgate::policy::SetName;

/// The name of a policy, set, group or the like: `[a-zA-Z0-9._-]{1,64}`, but not `.` or `..`, which mean other things in paths.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// The identity of a node: a [`Name`] that the controller made up when the node joined.
pub type NodeId = Name;

/// Why a text is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a name: names are 1 to 64 of a-z A-Z 0-9 . _ -, and not . or ..")]
pub struct NameError(String);

impl Name {
    /// A name.
    ///
    /// # Errors
    /// It is empty, longer than 64, `.` or `..`, or has another character.
    pub fn new(name: impl Into<String>) -> Result<Self, NameError> {
        let name = name.into();
        let ok = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        let is_path = matches!(&*name, "." | "..");
        if (1..=64).contains(&name.len()) && name.bytes().all(ok) && !is_path {
            Ok(Self(name))
        } else {
            let shown: String = name.chars().take(80).collect();
            Err(NameError(shown))
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// As the name of a set in a policy, which has the same characters.
    pub fn to_set_name(&self) -> SetName {
        SetName::new(&self.0).expect("both allow the same characters")
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        Self::new(name)
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;

    fn try_from(name: String) -> Result<Self, NameError> {
        Self::new(name)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}
