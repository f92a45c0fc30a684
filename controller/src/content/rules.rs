//! The rules of a policy: under the id of each, its canonical JSON.

use bytes::Bytes;
use xdpgate::PolicyError;
use xdpgate::policy::Rule;

use super::Shape;

/// A rule has some 200 bytes, and most changes are of one rule.
pub const SHAPE: Shape = Shape {
    mean: 16 << 10,
    max: 128 << 10,
};

/// The key of a rule, by its id.
pub fn key(id: &str) -> Bytes {
    Bytes::copy_from_slice(id.as_bytes())
}

/// A rule as an entry.
pub fn entry(rule: &Rule) -> (Bytes, Bytes) {
    (key(rule.id.as_str()), rule.to_json().into())
}

/// The rule of an entry, by its value.
///
/// # Errors
/// It was written by a version that knows more of rules than this one.
pub fn rule(value: &[u8]) -> Result<Rule, PolicyError> {
    Rule::from_yaml(&String::from_utf8_lossy(value))
}
