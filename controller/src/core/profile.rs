//! Profiles: which policies a node has, by the groups that it belongs to.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::view::Things;
use crate::domain::{Group, Labels, Mode, Name, NodeId, NodeRecord, PolicyState};
use crate::rollout::{Reached, Rollout};

/// What decides about the state of a node. Nodes of one profile have the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Profile {
    /// The policies, each with the version that a rollout gives the node; `None`: the newest.
    pub policies: Vec<(Name, Option<u64>)>,
    /// The mode by the groups.
    pub mode: Option<Mode>,
}

/// A rollout in force: it decides which version of its policy a node has.
#[derive(Debug, Clone)]
pub struct Hold {
    /// The policy as nodes have it that are not reached.
    pub from: Arc<PolicyState>,
    /// The policy as the others have it.
    pub to: Arc<PolicyState>,
    /// Which are reached.
    pub reached: Reached,
}

/// The profiles of all nodes.
#[derive(Debug, Clone, Default)]
pub(super) struct Profiles {
    pub(super) of_node: Arc<HashMap<NodeId, Arc<Profile>>>,
    /// How many nodes have it.
    pub(super) nodes: BTreeMap<Arc<Profile>, usize>,
}

/// The version that a rollout gives a node with these labels; `None`: there is none, so it has the newest.
pub fn held_version(holds: &[Hold], policy: &Name, node: &NodeId, labels: &Labels) -> Option<u64> {
    let hold = holds.iter().find(|hold| hold.from.name == *policy)?;
    Some(hold.reached.version(node.as_str(), labels))
}

/// What the rollouts of these do, those in force only. `find` knows versions of policies.
pub(super) fn holds(
    rollouts: &Things<Rollout>,
    find: impl Fn(&str, u64) -> Option<Arc<PolicyState>>,
) -> Vec<Hold> {
    let in_force = rollouts.values().filter(|rollout| rollout.in_force);
    let holds = in_force.filter_map(|rollout| {
        Some(Hold {
            from: find(&rollout.policy, rollout.from)?,
            to: find(&rollout.policy, rollout.to)?,
            reached: Reached::new(Arc::clone(rollout)),
        })
    });
    holds.collect()
}

/// Groups in the order in which they count.
pub(super) fn ranked(groups: &Things<Group>) -> Vec<&Arc<Group>> {
    let mut ranked: Vec<_> = groups.values().collect();
    ranked.sort_by(|a, b| (a.rank, &a.name).cmp(&(b.rank, &b.name)));
    ranked
}

/// The profile of a node with these labels.
pub(super) fn profile(
    ranked: &[&Arc<Group>],
    holds: &[Hold],
    node: &NodeId,
    labels: &Labels,
) -> Profile {
    let mut profile = Profile::default();
    for group in ranked.iter().filter(|group| group.selector.holds(labels)) {
        profile.mode = profile.mode.or(group.mode);
        for policy in &group.policies {
            if !profile.policies.iter().any(|(name, _)| name == policy) {
                let held = held_version(holds, policy, node, labels);
                profile.policies.push((policy.clone(), held));
            }
        }
    }
    profile
}

impl Profiles {
    /// Of all nodes.
    pub(super) fn of_all(
        groups: &Things<Group>,
        holds: &[Hold],
        nodes: &Things<NodeRecord>,
    ) -> Self {
        let mut profiles = Self::default();
        let ranked = ranked(groups);
        for (id, node) in nodes.iter() {
            profiles.put(id, profile(&ranked, holds, id, &node.labels()));
        }
        profiles
    }

    /// With the profile of one node.
    pub(super) fn put(&mut self, node: &NodeId, profile: Profile) {
        self.remove(node);
        let shared = match self.nodes.get_key_value(&profile) {
            Some((shared, _)) => Arc::clone(shared),
            None => Arc::new(profile),
        };
        *self.nodes.entry(Arc::clone(&shared)).or_default() += 1;
        Arc::make_mut(&mut self.of_node).insert(node.clone(), shared);
    }

    /// Without one node.
    pub(super) fn remove(&mut self, node: &NodeId) {
        let Some(profile) = Arc::make_mut(&mut self.of_node).remove(node) else {
            return;
        };
        if let Some(count) = self.nodes.get_mut(&profile) {
            *count -= 1;
            if *count == 0 {
                self.nodes.remove(&profile);
            }
        }
    }
}
