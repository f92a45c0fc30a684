//! What differs between two policies, as changes that make one of the other.

use xdpgate::Policy;
use xdpgate::policy::Change;

/// Changes that make `to` of `from`: `from.change(&changes, ..)` has the hash of `to`.
pub fn between(from: &Policy, to: &Policy) -> Vec<Change> {
    let _ = (from, to);
    Vec::new()
}
