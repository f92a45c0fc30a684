//! What commands make of a view. Pure: nothing is read or written.

mod check;
mod groups;
mod nodes;
mod policies;
mod rollouts;
mod rules;
mod sets;

pub use policies::MAX_RULES;
pub use sets::MAX_ENTRIES;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::effective::Effectives;
use super::records::Kind;
use super::{Command, CommandError, Effect, EffectKind, ErrorKind, Options, View};
use crate::domain::{Group, Mode, Name, NodeRecord, PolicyState, SetState, Touch};
use crate::rollout::{NamedPlan, Rollout};
use policies::PolicyDraft;

/// How often commands that turn out to be at fault are left out, with `partial`, before all are refused.
const ROUNDS: usize = 20;

/// What a draft is made on.
pub(super) struct Ground<'a> {
    pub(super) view: &'a View,
    pub(super) past: &'a Past,
    pub(super) now: Timestamp,
    pub(super) touch: Touch,
}

/// What the view does not have: what was before.
#[derive(Debug, Default)]
pub(super) struct Past {
    /// The last version of things that are not there.
    pub(super) last: BTreeMap<(Kind, Name), u64>,
    pub(super) policies: BTreeMap<(Name, u64), PolicyState>,
    pub(super) sets: BTreeMap<(Name, u64), SetState>,
}

/// What commands came to.
#[derive(Debug, Default)]
pub(super) struct Drafted {
    pub(super) policies: BTreeMap<Name, Option<Arc<PolicyState>>>,
    pub(super) sets: BTreeMap<Name, Option<Arc<SetState>>>,
    pub(super) groups: BTreeMap<Name, Option<Arc<Group>>>,
    pub(super) nodes: BTreeMap<Name, Option<Arc<NodeRecord>>>,
    pub(super) rollouts: BTreeMap<Name, Option<Arc<Rollout>>>,
    pub(super) plans: BTreeMap<Name, Option<Arc<NamedPlan>>>,
    pub(super) mode: Option<Option<Mode>>,
    /// What was changed, in words.
    pub(super) words: BTreeMap<(Kind, Name), Vec<String>>,
    pub(super) effects: Vec<Result<Effect, CommandError>>,
    /// Whether it changes what any node shall have, or could.
    pub(super) changes_state: bool,
    /// The view that comes of it.
    pub(super) after: View,
}

/// A draft while commands are made.
struct Draft<'a> {
    ground: &'a Ground<'a>,
    policies: BTreeMap<Name, PolicyDraft>,
    sets: BTreeMap<Name, Option<SetState>>,
    groups: BTreeMap<Name, Option<Group>>,
    nodes: BTreeMap<Name, Option<NodeRecord>>,
    rollouts: BTreeMap<Name, Option<Rollout>>,
    plans: BTreeMap<Name, Option<NamedPlan>>,
    mode: Option<Option<Mode>>,
    words: BTreeMap<(Kind, Name), Vec<String>>,
}

type Made = Result<EffectKind, CommandError>;

/// Makes commands, and has the library look at what every node would get.
pub(super) fn draft(
    ground: &Ground<'_>,
    commands: &[Command],
    options: &Options,
    effectives: &Effectives,
) -> Result<Drafted, CommandError> {
    check::expected(ground.view, commands, options)?;
    let mut refused: Vec<Option<CommandError>> = vec![None; commands.len()];
    for _ in 0..ROUNDS {
        let mut draft = Draft::new(ground);
        let mut made = Vec::with_capacity(commands.len());
        for (command, refused) in commands.iter().zip(&mut refused) {
            let result = match refused.take() {
                Some(error) => Err(error),
                None => draft.make(command),
            };
            if let Err(error) = &result {
                if !options.partial {
                    return Err(error.clone());
                }
                *refused = Some(error.clone());
            }
            made.push(result);
        }
        let mut drafted = draft.finish(commands, made);
        let faults = drafted.faults(ground.view, commands, effectives);
        if faults.is_empty() {
            return Ok(drafted);
        }
        for fault in faults {
            let culprit = check::culprit(&fault, commands, &refused);
            match culprit.filter(|_| options.partial) {
                Some(culprit) => refused[culprit] = Some(fault),
                None => return Err(fault),
            }
        }
    }
    let reason = "too many of these changes do not fit together";
    Err(CommandError::new(ErrorKind::Invalid, "", reason).mend("make them in smaller batches"))
}

impl<'a> Draft<'a> {
    fn new(ground: &'a Ground<'a>) -> Self {
        Self {
            ground,
            policies: BTreeMap::new(),
            sets: BTreeMap::new(),
            groups: BTreeMap::new(),
            nodes: BTreeMap::new(),
            rollouts: BTreeMap::new(),
            plans: BTreeMap::new(),
            mode: None,
            words: BTreeMap::new(),
        }
    }

    fn make(&mut self, command: &Command) -> Made {
        let made = match command {
            Command::CreatePolicy { policy, content } => self.put_policy(policy, content, true),
            Command::PutPolicy { policy, content } => self.put_policy(policy, content, false),
            Command::PatchPolicy { policy, patch } => self.patch_policy(policy, patch),
            Command::DeletePolicy { policy } => self.delete_policy(policy),
            Command::RevertPolicy { policy, version } => self.revert_policy(policy, *version),
            Command::CreateRule { policy, rule } => self.put_rule(policy, rule, true),
            Command::PutRule { policy, rule } => self.put_rule(policy, rule, false),
            Command::PatchRule {
                policy,
                rule,
                patch,
            } => self.patch_rule(policy, rule, patch),
            Command::EnableRule {
                policy,
                rule,
                enabled,
            } => self.enable_rule(policy, rule, *enabled),
            Command::DeleteRule { policy, rule } => self.delete_rule(policy, rule),
            Command::CreateSet { set, content } => self.put_set(set, content, true),
            Command::PutSet { set, content } => self.put_set(set, content, false),
            Command::PatchSet { set, patch } => self.patch_set(set, patch),
            Command::AddEntries { set, entries } => self.add_entries(set, entries),
            Command::RemoveEntries { set, entries } => self.remove_entries(set, entries),
            Command::DeleteSet { set } => self.delete_set(set),
            Command::RevertSet { set, version } => self.revert_set(set, *version),
            Command::CreateGroup { group, content } => self.put_group(group, content, true),
            Command::PutGroup { group, content } => self.put_group(group, content, false),
            Command::DeleteGroup { group } => self.delete_group(group),
            Command::RegisterNode {
                node,
                name,
                own_labels,
            } => self.register_node(node, name, own_labels),
            Command::PatchNode { node, patch } => self.patch_node(node, patch),
            Command::DeleteNode { node } => self.delete_node(node),
            Command::SetFleetMode { mode } => Ok(self.set_mode(*mode)),
            Command::StartRollout {
                rollout,
                policy,
                plan,
            } => self.start_rollout(rollout, policy, plan),
            Command::ChangeRollout { rollout, change } => self.change_rollout(rollout, change),
            Command::ReleasePolicy { policy } => self.release_policy(policy),
            Command::PutRolloutPlan { plan, content } => self.put_plan(plan, content),
            Command::DeleteRolloutPlan { plan } => self.delete_plan(plan),
        }?;
        if made != EffectKind::Unchanged {
            self.released_by(command)?;
        }
        if made != EffectKind::Unchanged
            && let Some(owner) = command.owner()
        {
            let words = command.words(made);
            self.words.entry(owner).or_default().push(words);
        }
        Ok(made)
    }

    fn set_mode(&mut self, mode: Option<Mode>) -> EffectKind {
        let before = self.mode.unwrap_or(self.ground.view.mode);
        self.mode = Some(mode);
        if before == mode {
            return EffectKind::Unchanged;
        }
        if mode == Some(Mode::DryRun) {
            self.pause_all();
        }
        EffectKind::Replaced
    }

    /// The version that a new thing gets: it goes on where one of this name ended.
    fn first_version(&self, kind: Kind, name: &Name) -> u64 {
        let last = self.ground.past.last.get(&(kind, name.clone()));
        last.copied().unwrap_or(0) + 1
    }

    fn finish(self, commands: &[Command], made: Vec<Made>) -> Drafted {
        let view = self.ground.view;
        let mut drafted = Drafted {
            mode: self.mode.filter(|mode| *mode != view.mode),
            words: self.words,
            ..Drafted::default()
        };
        for (name, policy) in self.policies {
            let before = view.policies.get(&name);
            if let Some(after) = policy.finish(before, &self.ground.touch) {
                drafted.policies.insert(name, after.map(Arc::new));
            }
        }
        drafted.sets = changed(self.sets, &view.sets, sets::finish);
        drafted.groups = changed(self.groups, &view.groups, groups::finish);
        drafted.nodes = changed(self.nodes, &view.nodes, nodes::finish);
        drafted.rollouts = changed(self.rollouts, &view.rollouts, |rollout, _| Some(rollout));
        drafted.plans = changed(self.plans, &view.plans, rollouts::finish_plan);
        drafted.settle_effects(view, commands, made);
        drafted
    }
}

/// What is not as it was: `finish` gives it its version, if it differs from before.
fn changed<T>(
    drafts: BTreeMap<Name, Option<T>>,
    before: &BTreeMap<Name, Arc<T>>,
    finish: impl Fn(T, Option<&T>) -> Option<T>,
) -> BTreeMap<Name, Option<Arc<T>>> {
    let all = drafts.into_iter().filter_map(|(name, draft)| {
        let before = before.get(&name).map(AsRef::as_ref);
        match draft {
            Some(draft) => Some((name, Some(Arc::new(finish(draft, before)?)))),
            None => before.is_some().then_some((name, None)),
        }
    });
    all.collect()
}

impl Drafted {
    /// Whether nothing is changed at all.
    pub(super) fn is_empty(&self) -> bool {
        self.policies.is_empty()
            && self.sets.is_empty()
            && self.groups.is_empty()
            && self.nodes.is_empty()
            && self.rollouts.is_empty()
            && self.plans.is_empty()
            && self.mode.is_none()
    }

    /// Gives each effect the version that came of it.
    fn settle_effects(&mut self, view: &View, commands: &[Command], made: Vec<Made>) {
        let effects = commands.iter().zip(made).map(|(command, made)| {
            let kind = made?;
            let version = match command.owner() {
                Some((Kind::Policy, name)) => {
                    version(&self.policies, view.policies(), &name, |p| p.version)
                }
                Some((Kind::Set, name)) => version(&self.sets, view.sets(), &name, |s| s.version),
                Some((Kind::Group, name)) => {
                    version(&self.groups, view.groups(), &name, |g| g.version)
                }
                Some((Kind::Node, name)) => {
                    version(&self.nodes, view.nodes(), &name, |n| n.version)
                }
                Some((Kind::Rollout, name)) => {
                    version(&self.rollouts, view.rollouts(), &name, |r| r.version)
                }
                Some((Kind::Plan, name)) => {
                    version(&self.plans, view.rollout_plans(), &name, |p| p.version)
                }
                None => 0,
            };
            Ok(Effect {
                object: command.object(),
                kind,
                version,
            })
        });
        self.effects = effects.collect();
    }
}

/// The version of a thing: as drafted, or as it was.
fn version<T>(
    drafted: &BTreeMap<Name, Option<Arc<T>>>,
    before: &BTreeMap<Name, Arc<T>>,
    name: &Name,
    of: impl Fn(&T) -> u64,
) -> u64 {
    let before = before.get(name).map_or(0, |thing| of(thing));
    match drafted.get(name) {
        Some(Some(after)) => of(after),
        // That it is gone is a version too.
        Some(None) => before + 1,
        None => before,
    }
}

fn not_found(object: String, kind: &str) -> CommandError {
    CommandError::new(
        ErrorKind::NotFound,
        object,
        format!("there is no such {kind}"),
    )
}

fn already_there(object: String, kind: &str) -> CommandError {
    let reason = format!("a {kind} of this name is there");
    CommandError::new(ErrorKind::AlreadyExists, object, reason)
        .mend("put it, to replace what is there")
}

fn invalid(object: String, field: &str, reason: impl Into<String>) -> CommandError {
    CommandError::new(ErrorKind::Invalid, object, reason).field(field)
}
