//! All records, decoded, as of one revision.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::effective::Effectives;
use super::profile::{Hold, Profile, Profiles, profile, ranked};
use super::records::Kind;
use super::{CommandError, Desired};
use crate::content::Content;
use crate::domain::{Group, Mode, Name, NodeId, NodeRecord, PolicyState, SetState};
use crate::rollout::{NamedPlan, Rollout};
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
    pub(super) rollouts: Things<Rollout>,
    pub(super) plans: Things<NamedPlan>,
    pub(super) heads: Heads,
    pub(super) holds: Arc<Vec<Hold>>,
    pub(super) profiles: Arc<Profiles>,
    pub(super) wanted: Arc<BTreeMap<Arc<Profile>, Wanted>>,
    pub(super) work: Work,
}

/// How much was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Work {
    /// Nodes whose profile was worked out.
    pub nodes: usize,
    /// Profiles whose state was worked out.
    pub profiles: usize,
}

/// Where things are in the store.
#[derive(Debug, Clone, Default)]
pub(super) struct Heads {
    pub(super) revisions: Arc<BTreeMap<(Kind, Name), Revision>>,
    pub(super) contents: Arc<BTreeMap<(Kind, Name), Content>>,
}

/// What nodes of a profile shall have.
#[derive(Debug, Clone, Default)]
pub(super) struct Wanted {
    /// The newest that could be made.
    pub(super) good: Option<Arc<Desired>>,
    /// Why the very newest could not.
    pub(super) fault: Option<CommandError>,
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

    /// The nodes, shared with other views in which they are the same.
    pub fn all_nodes(&self) -> &Things<NodeRecord> {
        &self.nodes
    }

    /// The profile of each node, likewise.
    pub fn profiles(&self) -> &Arc<HashMap<NodeId, Arc<Profile>>> {
        &self.profiles.of_node
    }

    /// What nodes shall have, by profile.
    pub fn desired_of_profiles(&self) -> impl Iterator<Item = (&Arc<Profile>, &Arc<Desired>)> {
        let wanted = self.wanted.iter();
        wanted.filter_map(|(profile, wanted)| Some((profile, wanted.good.as_ref()?)))
    }

    /// What was looked at to make this view of the one before.
    pub fn work(&self) -> Work {
        self.work
    }

    /// The rollouts, also those that are over.
    pub fn rollouts(&self) -> &BTreeMap<Name, Arc<Rollout>> {
        &self.rollouts
    }

    /// The same, so that it can be told whether they changed.
    pub(crate) fn shared_rollouts(&self) -> &Things<Rollout> {
        &self.rollouts
    }

    /// The plans of rollouts that are kept under names.
    pub fn rollout_plans(&self) -> &BTreeMap<Name, Arc<NamedPlan>> {
        &self.plans
    }

    /// The rollout that decides which version of a policy nodes have, if one does.
    pub fn hold(&self, policy: &Name) -> Option<&Hold> {
        self.holds.iter().find(|hold| hold.from.name == *policy)
    }

    /// The version of a policy that nodes have that no rollout reaches: the newest, unless a rollout holds it back.
    pub fn released(&self, policy: &Name) -> Option<u64> {
        let newest = || self.policies.get(policy).map(|policy| policy.version);
        let held = self.hold(policy).map(|hold| hold.from.version);
        held.or_else(newest)
    }

    /// The nodes that have a policy, but for those that are shut out.
    pub fn nodes_with<'a>(
        &'a self,
        policy: &'a Name,
    ) -> impl Iterator<Item = &'a Arc<NodeRecord>> + Clone {
        let nodes = self.nodes.values().filter(|node| !node.revoked);
        nodes.filter(move |node| {
            let profile = self.profiles.of_node.get(&node.id);
            profile.is_some_and(|profile| profile.policies.iter().any(|(name, _)| name == policy))
        })
    }

    /// A version of a policy, if it is in this view.
    pub(super) fn policy_version(&self, policy: &str, version: u64) -> Option<Arc<PolicyState>> {
        let newest = self.policies.get(policy).into_iter();
        let held = self.holds.iter().flat_map(|hold| [&hold.from, &hold.to]);
        newest
            .chain(held)
            .find(|state| state.name.as_str() == policy && state.version == version)
            .cloned()
    }

    /// The mode that the kill switch puts all nodes in; `None`: it is off.
    pub fn fleet_mode(&self) -> Option<Mode> {
        self.mode
    }

    /// What a node shall have; `None` if there is no such node, or nothing could be made for it yet. It was made
    /// with the view, so this costs a look-up, and is the same `Arc` for all nodes of one profile.
    pub fn desired(&self, node: &NodeId) -> Option<Arc<Desired>> {
        let profile = self.profiles.of_node.get(node)?;
        self.wanted.get(profile)?.good.clone()
    }

    /// Why the newest state of a node could not be made, so that it stays at the one before: never by commands, which
    /// refuse what cannot be made.
    pub fn fault(&self, node: &NodeId) -> Option<&CommandError> {
        let profile = self.profiles.of_node.get(node)?;
        self.wanted.get(profile)?.fault.as_ref()
    }

    /// The profile of a node.
    pub fn profile(&self, node: &NodeId) -> Option<&Arc<Profile>> {
        self.profiles.of_node.get(node)
    }

    /// The groups that a node belongs to, in the order in which they count.
    pub fn groups_of(&self, node: &NodeId) -> Vec<Arc<Group>> {
        let Some(labels) = self.nodes.get(node).map(|node| node.labels()) else {
            return Vec::new();
        };
        let ranked = ranked(&self.groups).into_iter();
        ranked
            .filter(|group| group.selector.holds(&labels))
            .cloned()
            .collect()
    }

    /// Brings profiles and desired states up to what else is in this view, which came of `before` by changes of these nodes
    /// and of anything else. Takes as long as the changed policies take: not for async threads.
    pub(super) fn settle(
        &mut self,
        before: &Self,
        nodes: &BTreeSet<NodeId>,
        effectives: &Effectives,
    ) {
        self.work = Work::default();
        let same_groups =
            Arc::ptr_eq(&self.groups, &before.groups) && Arc::ptr_eq(&self.holds, &before.holds);
        if !same_groups {
            self.work.nodes = self.nodes.len();
            self.profiles = Arc::new(Profiles::of_all(&self.groups, &self.holds, &self.nodes));
        } else if !nodes.is_empty() {
            self.work.nodes = nodes.len();
            let ranked = ranked(&self.groups);
            let profiles = Arc::make_mut(&mut self.profiles);
            for id in nodes {
                match self.nodes.get(id) {
                    Some(node) => {
                        let profile = profile(&ranked, &self.holds, id, &node.labels());
                        if profiles.of_node.get(id).is_none_or(|old| **old != profile) {
                            profiles.put(id, profile);
                        }
                    }
                    None => profiles.remove(id),
                }
            }
        }
        let nothing_new = same_groups
            && nodes.is_empty()
            && self.sequence == before.sequence
            && self.mode == before.mode
            && Arc::ptr_eq(&self.policies, &before.policies)
            && Arc::ptr_eq(&self.sets, &before.sets);
        if nothing_new {
            return;
        }
        self.work.profiles = self.profiles.nodes.len();
        let profiles = self.profiles.nodes.keys();
        let wanted = profiles.map(|profile| {
            let last = before
                .wanted
                .get(profile)
                .and_then(|wanted| wanted.good.clone());
            let wanted = match self.make(profile, effectives) {
                Ok(desired) => Wanted {
                    good: Some(Arc::new(desired)),
                    fault: None,
                },
                Err(error) => Wanted {
                    good: last,
                    fault: Some(error),
                },
            };
            (Arc::clone(profile), wanted)
        });
        self.wanted = Arc::new(wanted.collect());
    }

    /// What nodes of a profile shall have.
    fn make(&self, profile: &Profile, effectives: &Effectives) -> Result<Desired, CommandError> {
        let policies = self.states(profile);
        let versions = policies.iter().map(|p| (p.name.clone(), p.version));
        let versions = versions.collect();
        let effective = effectives.make(policies, &self.sets)?;
        Ok(Desired {
            sequence: self.sequence.0,
            hash: effective.hash,
            policy: Arc::clone(&effective.policy),
            mode: self.mode.or(profile.mode),
            policies: versions,
        })
    }

    /// The policies of a profile, each in the version that its nodes have.
    pub(super) fn states(&self, profile: &Profile) -> Vec<Arc<PolicyState>> {
        let states = profile
            .policies
            .iter()
            .filter_map(|(name, held)| match held {
                None => self.policies.get(name).cloned(),
                Some(version) => self.policy_version(name.as_str(), *version),
            });
        states.collect()
    }
}
