//! What can be changed.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use xdpgate::policy::{AddressSet, EntryCounters, Failsafe, Prefix, Rule, RuleId};
use xdpgate::{Plan, Verdict};

use crate::domain::{Labels, Mode, Name, NodeId, PolicyContent, Role, Selector};
use crate::rollout;
use crate::store::{Key, Revision};

use super::records::Kind;
use super::{CommandError, View};

/// Who asks for a change. Whether it may is for the caller to decide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// The user or token, or the part of the controller, as `feed/ipsum`.
    pub name: String,
    /// As what.
    pub role: Role,
    /// The address that it came from, or `local`.
    pub origin: String,
}

/// How a change is made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options {
    /// The version that the one thing which is changed must have; 0: it must not be there.
    pub expect: Option<u64>,
    /// A second request with this key gets the answer of the first one, and changes nothing.
    pub idempotency_key: Option<String>,
    /// Why, for the history and the audit log.
    pub why: String,
    /// Commands that are refused do not keep the others from being made.
    pub partial: bool,
    /// Only says what would change.
    pub dry_run: bool,
    /// A record that must not have changed since it was read, beside what is changed: who acts for a thing that was deleted
    /// meanwhile changes nothing.
    pub on_behalf: Option<(Key, Revision)>,
}

/// What became of commands.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The transaction; of now if nothing had to be changed.
    pub revision: Revision,
    /// What each command did, in their order. Errors only where `partial` was asked for.
    pub effects: Vec<Result<Effect, CommandError>>,
    /// It is the answer to an earlier request with the same idempotency key.
    pub repeated: bool,
    /// What would change at the nodes, with `dry_run`.
    pub plans: Vec<ProfilePlan>,
}

/// What a command did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effect {
    /// With what, as `policy/web`, `policy/web/rule/block` or `set/bad`.
    pub object: String,
    /// What.
    #[serde(flatten)]
    pub kind: EffectKind,
    /// The version of the policy, set, group or node that came of it; of the last one, if it is gone.
    pub version: u64,
}

/// What became of a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "effect", content = "entries")]
pub enum EffectKind {
    /// It is new.
    Created,
    /// It is another than before.
    Replaced,
    /// It is gone.
    Removed,
    /// So many entries came, last longer, or went.
    Entries(u64),
    /// Everything was like this before.
    Unchanged,
}

/// What would change at the nodes of one profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfilePlan {
    /// The policies that these nodes have.
    pub policies: Vec<Name>,
    /// How many nodes these are.
    pub nodes: usize,
    /// What would change; says it in words.
    pub plan: Plan,
    /// The mode, as it was and as it would be.
    pub mode: (Option<Mode>, Option<Mode>),
}

/// What becomes of a field: stays, is cleared, or is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Patch<T> {
    /// It was not named.
    #[default]
    Keep,
    /// It was given as null.
    Clear,
    /// It was given a value.
    Set(T),
}

/// A change of a policy's settings.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SettingsPatch {
    /// The verdict when no rule decides.
    pub default: Patch<Verdict>,
    /// The verdict for frames that cannot be parsed far enough.
    pub malformed: Patch<Verdict>,
    /// Management traffic that passes before any rule.
    pub failsafe: Patch<Failsafe>,
    /// Free text.
    pub comment: Patch<String>,
}

/// What a set is made of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SetContent {
    /// The entries and the counters, made with [`xdpgate::policy::AddressSetBuilder`] where they come little by little. Those
    /// without an expiry get that of the set, if it has one.
    pub entries: Arc<AddressSet>,
    /// How many seconds an entry lasts that comes without an expiry.
    pub default_expiry: Option<u64>,
    /// Free text.
    pub comment: Option<String>,
}

/// A change of a set but for its entries.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SetPatch {
    /// Which counters its entries have; cleared: none.
    pub counters: Patch<EntryCounters>,
    /// How many seconds an entry lasts that comes without an expiry; for entries that come from now on.
    pub default_expiry: Patch<u64>,
    /// Free text.
    pub comment: Patch<String>,
}

/// What a group is made of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GroupContent {
    /// Which nodes.
    pub selector: Selector,
    /// What they have, in this order.
    pub policies: Vec<Name>,
    /// Groups of a lower rank come first, ties by name.
    pub rank: u32,
    /// The mode of its nodes.
    pub mode: Option<Mode>,
    /// Free text.
    pub comment: Option<String>,
}

/// A change of a node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodePatch {
    /// What people call it.
    pub name: Option<String>,
    /// Labels by operators: each is set, or cleared (`None`).
    pub set_labels: std::collections::BTreeMap<String, Option<String>>,
    /// All labels that the node brings.
    pub own_labels: Option<Labels>,
    /// Whether somebody works on it.
    pub maintenance: Option<bool>,
    /// Whether it is shut out.
    pub revoked: Option<bool>,
}

/// By which plan a rollout goes.
#[derive(Debug, Clone, PartialEq)]
pub enum PlanChoice {
    /// The one of this name; `default` is always there.
    Named(Name),
    /// This one.
    Given(rollout::Plan),
}

impl Default for PlanChoice {
    fn default() -> Self {
        Self::Named(Name::new("default").expect("it is a name"))
    }
}

/// One change of what the fleet shall have. Up to 1,000 are made together, as one transaction.
///
/// Those that put, delete, enable or patch may be repeated: the second time they change nothing.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "the fields say what they are")]
pub enum Command {
    /// A new policy.
    CreatePolicy {
        policy: Name,
        content: PolicyContent,
    },
    /// A policy, new or in place of the one that is there.
    PutPolicy {
        policy: Name,
        content: PolicyContent,
    },
    /// The settings of a policy.
    PatchPolicy { policy: Name, patch: SettingsPatch },
    /// No such policy any more. Refused while a group names it.
    DeletePolicy { policy: Name },
    /// A policy as it was in a version; that makes a new version. Also for one that was deleted.
    RevertPolicy { policy: Name, version: u64 },
    /// A new rule.
    CreateRule { policy: Name, rule: Rule },
    /// A rule, new or in place of the one with its id.
    PutRule { policy: Name, rule: Rule },
    /// Some fields of a rule: a JSON merge patch (RFC 7396) over its JSON. A field that is not named stays, null clears it.
    PatchRule {
        policy: Name,
        rule: RuleId,
        patch: Map<String, Value>,
    },
    /// A rule switched on or off.
    EnableRule {
        policy: Name,
        rule: RuleId,
        enabled: bool,
    },
    /// No such rule any more.
    DeleteRule { policy: Name, rule: RuleId },
    /// A new set.
    CreateSet { set: Name, content: SetContent },
    /// A set, new or in place of the one that is there.
    PutSet { set: Name, content: SetContent },
    /// A set but for its entries.
    PatchSet { set: Name, patch: SetPatch },
    /// Entries of a set, each with its expiry; without one it gets that of the set, if it has one. An entry that is there lasts as
    /// long as the longer of both.
    AddEntries {
        set: Name,
        entries: Vec<(Prefix, Option<Timestamp>)>,
    },
    /// Entries go, whenever they expire.
    RemoveEntries { set: Name, entries: Vec<Prefix> },
    /// No such set any more. Refused while a rule names it.
    DeleteSet { set: Name },
    /// A set as it was in a version; that makes a new version.
    RevertSet { set: Name, version: u64 },
    /// A new group.
    CreateGroup { group: Name, content: GroupContent },
    /// A group, new or in place of the one that is there.
    PutGroup { group: Name, content: GroupContent },
    /// No such group any more.
    DeleteGroup { group: Name },
    /// A new node, or one that comes again with the same id.
    RegisterNode {
        node: NodeId,
        name: String,
        own_labels: Labels,
    },
    /// Some fields of a node.
    PatchNode { node: NodeId, patch: NodePatch },
    /// No such node any more; its certificate is refused from then on.
    DeleteNode { node: NodeId },
    /// The kill switch: the mode of all nodes, whatever their groups say; `None` gives it back to the groups.
    SetFleetMode { mode: Option<Mode> },
    /// The newest version of a policy, which may come of commands before this one, goes to its nodes stage by stage.
    StartRollout {
        rollout: Name,
        policy: Name,
        plan: PlanChoice,
    },
    /// A rollout is paused, resumed, aborted or taken a step further.
    ChangeRollout {
        rollout: Name,
        change: rollout::Change,
    },
    /// The newest version of a policy goes to all nodes, where a rollout ended with the former one.
    ReleasePolicy { policy: Name },
    /// A plan under a name, new or in place of the one that is there; `default` is what counts where none is named.
    PutRolloutPlan { plan: Name, content: rollout::Plan },
    /// No such plan any more.
    DeleteRolloutPlan { plan: Name },
}

impl Command {
    /// What it is about, as `policy/web/rule/block`.
    pub fn object(&self) -> String {
        match self {
            Self::CreateRule { policy, rule } | Self::PutRule { policy, rule } => {
                format!("policy/{policy}/rule/{}", rule.id)
            }
            Self::PatchRule { policy, rule, .. }
            | Self::EnableRule { policy, rule, .. }
            | Self::DeleteRule { policy, rule } => format!("policy/{policy}/rule/{rule}"),
            _ => match self.owner() {
                Some((kind, name)) => format!("{}/{name}", kind.word()),
                None => "setting/mode".to_owned(),
            },
        }
    }

    /// The policy that it changes, if it changes one.
    pub fn policy(&self) -> Option<Name> {
        let owner = self.owner();
        owner.and_then(|(kind, name)| (kind == Kind::Policy).then_some(name))
    }

    /// What it is, as `rule.create`: the action of its audit entry.
    pub fn action(&self) -> &'static str {
        match self {
            Self::CreatePolicy { .. } => "policy.create",
            Self::PutPolicy { .. } => "policy.put",
            Self::PatchPolicy { .. } => "policy.patch",
            Self::DeletePolicy { .. } => "policy.delete",
            Self::RevertPolicy { .. } => "policy.revert",
            Self::CreateRule { .. } => "rule.create",
            Self::PutRule { .. } => "rule.put",
            Self::PatchRule { .. } => "rule.patch",
            Self::EnableRule { enabled: true, .. } => "rule.enable",
            Self::EnableRule { enabled: false, .. } => "rule.disable",
            Self::DeleteRule { .. } => "rule.delete",
            Self::CreateSet { .. } => "set.create",
            Self::PutSet { .. } => "set.put",
            Self::PatchSet { .. } => "set.patch",
            Self::AddEntries { .. } => "set.add",
            Self::RemoveEntries { .. } => "set.remove",
            Self::DeleteSet { .. } => "set.delete",
            Self::RevertSet { .. } => "set.revert",
            Self::CreateGroup { .. } => "group.create",
            Self::PutGroup { .. } => "group.put",
            Self::DeleteGroup { .. } => "group.delete",
            Self::RegisterNode { .. } => "node.register",
            Self::PatchNode { .. } => "node.patch",
            Self::DeleteNode { .. } => "node.delete",
            Self::SetFleetMode { .. } => "fleet.mode",
            Self::StartRollout { .. } => "rollout.start",
            Self::ChangeRollout { change, .. } => match change {
                rollout::Change::Pause => "rollout.pause",
                rollout::Change::Resume => "rollout.resume",
                rollout::Change::Abort => "rollout.abort",
                rollout::Change::Advance(..) => "rollout.advance",
                rollout::Change::Finish(..) => "rollout.finish",
                rollout::Change::RollBack(..) => "rollout.roll_back",
                rollout::Change::Release => "rollout.release",
            },
            Self::ReleasePolicy { .. } => "policy.release",
            Self::PutRolloutPlan { .. } => "rollout-plan.put",
            Self::DeleteRolloutPlan { .. } => "rollout-plan.delete",
        }
    }

    /// The thing with a record of its own that it changes; `None` for the kill switch.
    pub(super) fn owner(&self) -> Option<(Kind, Name)> {
        let (kind, name) = match self {
            Self::CreatePolicy { policy, .. }
            | Self::PutPolicy { policy, .. }
            | Self::PatchPolicy { policy, .. }
            | Self::DeletePolicy { policy }
            | Self::RevertPolicy { policy, .. }
            | Self::CreateRule { policy, .. }
            | Self::PutRule { policy, .. }
            | Self::PatchRule { policy, .. }
            | Self::EnableRule { policy, .. }
            | Self::DeleteRule { policy, .. }
            | Self::ReleasePolicy { policy } => (Kind::Policy, policy),
            Self::CreateSet { set, .. }
            | Self::PutSet { set, .. }
            | Self::PatchSet { set, .. }
            | Self::AddEntries { set, .. }
            | Self::RemoveEntries { set, .. }
            | Self::DeleteSet { set }
            | Self::RevertSet { set, .. } => (Kind::Set, set),
            Self::CreateGroup { group, .. }
            | Self::PutGroup { group, .. }
            | Self::DeleteGroup { group } => (Kind::Group, group),
            Self::RegisterNode { node, .. }
            | Self::PatchNode { node, .. }
            | Self::DeleteNode { node } => (Kind::Node, node),
            Self::StartRollout { rollout, .. } | Self::ChangeRollout { rollout, .. } => {
                (Kind::Rollout, rollout)
            }
            Self::PutRolloutPlan { plan, .. } | Self::DeleteRolloutPlan { plan } => {
                (Kind::Plan, plan)
            }
            Self::SetFleetMode { .. } => return None,
        };
        Some((kind, name.clone()))
    }

    /// The version of what it is about; of a rule the one that touched it last; 0 if it is not there.
    pub(super) fn version_in(&self, view: &View) -> u64 {
        let rule = match self {
            Self::CreateRule { rule, .. } | Self::PutRule { rule, .. } => Some(&rule.id),
            Self::PatchRule { rule, .. }
            | Self::EnableRule { rule, .. }
            | Self::DeleteRule { rule, .. } => Some(rule),
            _ => None,
        };
        let Some((kind, name)) = self.owner() else {
            return view.sequence();
        };
        let version = match (kind, rule) {
            (Kind::Policy, Some(rule)) => {
                let policy = view.policies.get(&name);
                let rule = policy.and_then(|policy| policy.rules.get(rule.as_str()));
                rule.map(|rule| rule.version)
            }
            (Kind::Policy, None) => view.policies.get(&name).map(|policy| policy.version),
            (Kind::Set, _) => view.sets.get(&name).map(|set| set.version),
            (Kind::Group, _) => view.groups.get(&name).map(|group| group.version),
            (Kind::Node, _) => view.nodes.get(&name).map(|node| node.version),
            (Kind::Rollout, _) => view.rollouts.get(&name).map(|rollout| rollout.version),
            (Kind::Plan, _) => view.plans.get(&name).map(|plan| plan.version),
        };
        version.unwrap_or(0)
    }

    /// What it did, for the history.
    pub(super) fn words(&self, made: EffectKind) -> String {
        let verb = match made {
            EffectKind::Created => "created",
            EffectKind::Removed => "deleted",
            EffectKind::Entries(_) | EffectKind::Replaced | EffectKind::Unchanged => "changed",
        };
        match self {
            Self::CreateRule { rule, .. } | Self::PutRule { rule, .. } => {
                format!("rule {} {verb}", rule.id)
            }
            Self::PatchRule { rule, patch, .. } => {
                let fields: Vec<&str> = patch.keys().map(String::as_str).collect();
                format!("rule {rule} changed: {}", fields.join(", "))
            }
            Self::EnableRule { rule, enabled, .. } => {
                format!(
                    "rule {rule} {}",
                    if *enabled { "enabled" } else { "disabled" }
                )
            }
            Self::DeleteRule { rule, .. } => format!("rule {rule} deleted"),
            Self::StartRollout { policy, .. } => format!("started for policy {policy}"),
            Self::ChangeRollout { change, .. } => match change {
                rollout::Change::Pause => "paused".to_owned(),
                rollout::Change::Resume => "resumed".to_owned(),
                rollout::Change::Abort => "aborted".to_owned(),
                rollout::Change::Advance(from, _) => format!("stage {} begins", from + 2),
                rollout::Change::Finish(..) => "done".to_owned(),
                rollout::Change::RollBack(trouble, _) => format!("rolled back: {trouble}"),
                rollout::Change::Release => "released".to_owned(),
            },
            Self::ReleasePolicy { .. } => "released to all nodes".to_owned(),
            Self::PatchPolicy { .. } => "settings changed".to_owned(),
            Self::RevertPolicy { version, .. } | Self::RevertSet { version, .. } => {
                format!("reverted to version {version}")
            }
            Self::AddEntries { entries, .. } => {
                let prefixes: Vec<Prefix> = entries.iter().take(4).map(|(p, _)| *p).collect();
                entries_words("added", made, entries.len(), &prefixes)
            }
            Self::RemoveEntries { entries, .. } => {
                let shown = &entries[..entries.len().min(4)];
                entries_words("removed", made, entries.len(), shown)
            }
            _ => verb.to_owned(),
        }
    }
}

fn entries_words(verb: &str, made: EffectKind, asked: usize, shown: &[Prefix]) -> String {
    let count = match made {
        EffectKind::Entries(count) => count,
        _ => 0,
    };
    let entries = if count == 1 { "entry" } else { "entries" };
    if asked > 3 {
        return format!("{count} {entries} {verb}");
    }
    let shown: Vec<String> = shown.iter().map(Prefix::to_string).collect();
    format!("{count} {entries} {verb}: {}", shown.join(", "))
}
