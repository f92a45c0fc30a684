//! What a node shall have.

use std::sync::Arc;

use xdpgate::Policy;
use xdpgate::policy::PolicyHash;

use crate::domain::{Mode, Name};

/// What all nodes of one profile shall have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desired {
    /// The number of the newest change to what nodes shall have, of any node: see [`View::sequence`](super::View::sequence). It
    /// grows also where hash and mode stay, and then there is nothing to send.
    pub sequence: u64,
    /// The canonical hash of the policy.
    pub hash: PolicyHash,
    /// The effective policy; the same `Arc` for all profiles and views in which it is equal.
    pub policy: Arc<Policy>,
    /// The mode; `None`: as the node has it.
    pub mode: Option<Mode>,
    /// The policies that it was made of, in the order of the profile, each with its version.
    pub policies: Vec<(Name, u64)>,
}
