//! What a draft must hold to as a whole.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use xdpgate::policy::AddressSet;

use super::{Drafted, invalid};
use crate::core::effective::{Effectives, refusal};
use crate::core::profile::{Hold, holds};
use crate::core::view::Things;
use crate::core::{Command, CommandError, ErrorKind, Options, View};
use crate::domain::{Name, PolicyState, RuleState, set_names};

/// How many of the things that stand in the way are named.
const NAMED: usize = 5;

/// Refuses if the one thing that the commands are about is not at the version that the caller expects.
pub(super) fn expected(
    view: &View,
    commands: &[Command],
    options: &Options,
) -> Result<(), CommandError> {
    let (Some(expected), Some(command)) = (options.expect, commands.first()) else {
        return Ok(());
    };
    let object = command.object();
    // What is rolled out by the same request is about the same thing.
    let starts = |command: &Command| matches!(command, Command::StartRollout { .. });
    let mut others = commands[1..].iter().filter(|command| !starts(command));
    if others.any(|command| command.object() != object) {
        let reason = "a version can be expected of one thing only";
        return Err(CommandError::new(ErrorKind::Invalid, object, reason).field("expect"));
    }
    let version = command.version_in(view);
    if version == expected {
        return Ok(());
    }
    let reason = match (version, expected) {
        (0, _) => format!("it is not there, version {expected} was expected"),
        (_, 0) => format!("it is there, at version {version}"),
        _ => format!("it is at version {version}, not at {expected}"),
    };
    let mut error = CommandError::new(ErrorKind::Conflict, object, reason);
    error.version = Some(version);
    Err(error.mend("read it again and repeat the change"))
}

/// Which command a fault is of: the last one that is about the thing at fault, or about the policy of the rule, or any.
pub(super) fn culprit(
    fault: &CommandError,
    commands: &[Command],
    refused: &[Option<CommandError>],
) -> Option<usize> {
    let made = || (0..commands.len()).rev().filter(|i| refused[*i].is_none());
    let about = |i: &usize| commands[*i].object() == fault.object;
    let around = |i: &usize| {
        let inner = fault.object.strip_prefix(&commands[*i].object());
        inner.is_some_and(|rest| rest.starts_with('/'))
    };
    made()
        .find(about)
        .or_else(|| made().find(around))
        .or_else(|| made().next())
}

impl Drafted {
    /// What is wrong with it; makes the view that comes of it on the way.
    pub(super) fn faults(
        &mut self,
        before: &View,
        commands: &[Command],
        effectives: &Effectives,
    ) -> Vec<CommandError> {
        let mut after = before.clone();
        put(&mut after.policies, &self.policies);
        put(&mut after.sets, &self.sets);
        put(&mut after.groups, &self.groups);
        put(&mut after.nodes, &self.nodes);
        put(&mut after.plans, &self.plans);
        put(&mut after.rollouts, &self.rollouts);
        if !self.rollouts.is_empty() {
            let find = |policy: &str, version| {
                let new = after.policy_version(policy, version);
                new.or_else(|| before.policy_version(policy, version))
            };
            after.holds = Arc::new(holds(&after.rollouts, find));
        }
        if let Some(mode) = self.mode {
            after.mode = mode;
        }
        let labels = |name: &Name, view: &View| view.nodes.get(name).map(|node| node.labels());
        let moved = |name: &&Name| labels(name, before) != labels(name, &after);
        let moved: BTreeSet<Name> = self.nodes.keys().filter(moved).cloned().collect();
        let others =
            self.policies.len() + self.sets.len() + self.groups.len() + self.rollouts.len();
        self.changes_state = others > 0 || self.mode.is_some() || !moved.is_empty();

        let mut faults = self.dangling(&after);
        if faults.is_empty() && commands.len() > 1 {
            faults = self.rule_faults(before, &after);
        }
        if !faults.is_empty() {
            return faults;
        }
        after.settle(before, &moved, effectives);
        let known = |profile| {
            before
                .wanted
                .get(profile)
                .is_some_and(|wanted| wanted.fault.is_some())
        };
        let new = after.wanted.iter().filter(|(profile, _)| !known(*profile));
        let faults: Vec<_> = new.filter_map(|(_, wanted)| wanted.fault.clone()).collect();
        let faults = match faults.is_empty() {
            true => self.unused_faults(&after, effectives),
            false => faults,
        };
        let faults = match faults.is_empty() {
            true => self.held_faults(&after, effectives),
            false => faults,
        };
        self.after = after;
        faults
    }

    /// Things that are named and would not be there, or would be empty.
    fn dangling(&self, after: &View) -> Vec<CommandError> {
        let mut faults = Vec::new();
        for group in self.groups.values().flatten() {
            let missing = group
                .policies
                .iter()
                .find(|name| !after.policies.contains_key(*name));
            if let Some(policy) = missing {
                let reason = format!("there is no policy {policy}");
                let error = invalid(format!("group/{}", group.name), "policies", reason);
                faults.push(error.mend("create the policy first"));
            }
        }
        for (name, _) in self.policies.iter().filter(|(_, policy)| policy.is_none()) {
            let groups = after
                .groups
                .values()
                .filter(|group| group.policies.contains(name));
            let users: Vec<String> = groups
                .map(|group| format!("group {}", group.name))
                .collect();
            faults.extend(in_use(format!("policy/{name}"), &users));
        }
        for (name, set) in &self.sets {
            if set.as_ref().is_some_and(|set| !set.entries.is_empty()) {
                continue;
            }
            // Also those that nodes have, or go back to, by a rollout.
            let held = after.holds.iter().flat_map(|hold| [&hold.from, &hold.to]);
            let users: BTreeSet<String> = after
                .policies
                .values()
                .chain(held)
                .filter(|policy| policy.rules.sets().contains(name))
                .flat_map(|policy| users_in(policy, name))
                .collect();
            let users = Vec::from_iter(users);
            let mut error = in_use(format!("set/{name}"), &users);
            if let (Some(error), Some(_)) = (&mut error, set) {
                error.reason = format!("it would have no entry, and {}", error.reason);
                error.field = "entries".to_owned();
            }
            faults.extend(error);
        }
        faults
    }

    /// What is wrong with single rules, each looked at alone: so that of a batch each command gets its own fault.
    fn rule_faults(&self, before: &View, after: &View) -> Vec<CommandError> {
        let mut faults = Vec::new();
        let mut samples = HashMap::new();
        let nothing = crate::domain::Rules::default();
        for policy in self.policies.values().flatten() {
            let old = before.policies.get(&policy.name);
            let old = old.map_or(&nothing, |policy| &policy.rules);
            let changed = old.differences(&policy.rules);
            for state in changed.into_iter().filter_map(|(_, to)| to) {
                faults.extend(rule_fault(policy, state, after, &mut samples));
            }
        }
        faults
    }

    /// What is wrong with versions that a rollout keeps from nodes: later they are to get the newest, the new one, or the one before
    /// again.
    fn held_faults(&self, after: &View, effectives: &Effectives) -> Vec<CommandError> {
        let sets_changed = !self.sets.is_empty();
        let rollouts_changed = !self.rollouts.is_empty();
        let touched = |policies: &[(Name, Option<u64>)]| {
            let mut all = policies.iter();
            policies.iter().any(|(_, version)| version.is_some())
                && (sets_changed
                    || rollouts_changed
                    || all.any(|(name, _)| self.policies.contains_key(name)))
        };
        let profiles = after.profiles.nodes.keys();
        let lists: BTreeSet<Vec<&Name>> = profiles
            .filter(|profile| touched(&profile.policies))
            .map(|profile| profile.policies.iter().map(|(name, _)| name).collect())
            .collect();
        let newest = |name: &Name| after.policies.get(name);
        let held = |name: &Name, which: fn(&Hold) -> &Arc<PolicyState>| {
            after.hold(name).map(which).or_else(|| newest(name))
        };
        type Variant<'a> = &'a dyn Fn(&Name) -> Option<Arc<PolicyState>>;
        let variants: [Variant<'_>; 3] = [
            &|name| newest(name).cloned(),
            &|name| held(name, |hold| &hold.from).cloned(),
            &|name| held(name, |hold| &hold.to).cloned(),
        ];
        let made = lists.iter().flat_map(|names| {
            variants.iter().map(|variant| {
                let states = names.iter().filter_map(|name| variant(name));
                effectives.make(states.collect(), &after.sets)
            })
        });
        made.filter_map(Result::err).collect()
    }

    /// What is wrong with policies and groups that no node has (yet).
    fn unused_faults(&self, after: &View, effectives: &Effectives) -> Vec<CommandError> {
        let profiles = after.profiles.nodes.keys();
        let used: Vec<BTreeSet<&Name>> = profiles
            .map(|profile| profile.policies.iter().map(|(name, _)| name).collect())
            .collect();
        let is_used = |names: &[Name]| {
            used.iter()
                .any(|used| names.iter().all(|name| used.contains(name)))
        };
        let touched = |name: &Name| {
            let policy = after.policies.get(name);
            let sets = policy.map(|policy| policy.rules.sets());
            self.policies.contains_key(name)
                || sets.is_some_and(|sets| self.sets.keys().any(|set| sets.contains(set)))
        };
        let groups = after.groups.values().filter(|group| {
            self.groups.contains_key(&group.name) || group.policies.iter().any(touched)
        });
        let mut lists: BTreeSet<Vec<Name>> = groups.map(|group| group.policies.clone()).collect();
        let grouped: BTreeSet<Name> = lists.iter().flatten().cloned().collect();
        let alone = after
            .policies
            .keys()
            .filter(|name| touched(name) && !grouped.contains(*name));
        lists.extend(alone.map(|name| vec![name.clone()]));
        let mut faults = Vec::new();
        for names in lists.into_iter().filter(|names| !is_used(names)) {
            let states = names.iter().filter_map(|name| after.policies.get(name));
            let made = effectives.make(states.cloned().collect(), &after.sets);
            faults.extend(made.err());
        }
        faults
    }
}

fn put<T>(things: &mut Things<T>, changes: &BTreeMap<Name, Option<Arc<T>>>) {
    if changes.is_empty() {
        return;
    }
    let things = Arc::make_mut(things);
    for (name, thing) in changes {
        match thing {
            Some(thing) => things.insert(name.clone(), Arc::clone(thing)),
            None => things.remove(name),
        };
    }
}

/// The rules of a policy that name a set.
fn users_in<'a>(policy: &'a PolicyState, set: &'a Name) -> impl Iterator<Item = String> + 'a {
    let names =
        |state: &&Arc<RuleState>| set_names(&state.rule).any(|name| name.as_str() == set.as_str());
    let rules = policy.rules.iter().filter(names);
    rules.map(|state| format!("rule {} of policy {}", state.rule.id, policy.name))
}

fn in_use(object: String, users: &[String]) -> Option<CommandError> {
    let more = users.len().checked_sub(NAMED).filter(|more| *more > 0);
    let more = more.map_or(String::new(), |more| format!(" and {more} more"));
    let verb = if users.len() == 1 { "names" } else { "name" };
    let named = users.get(..NAMED).unwrap_or(users).join(", ");
    let error = CommandError::new(ErrorKind::InUse, object, format!("{named}{more} {verb} it"));
    (!users.is_empty()).then(|| error.mend("take it out there first"))
}

/// What is wrong with a rule beside sets of the same families.
fn rule_fault(
    policy: &Arc<PolicyState>,
    state: &RuleState,
    after: &View,
    samples: &mut HashMap<Name, AddressSet>,
) -> Option<CommandError> {
    let mut builder = xdpgate::Policy::builder().rule(state.rule.clone());
    let names: BTreeSet<_> = set_names(&state.rule).collect();
    for name in names {
        let Some((known, set)) = after.sets.get_key_value(name.as_str()) else {
            continue;
        };
        let sample = samples
            .entry(known.clone())
            .or_insert_with(|| sample(&set.entries));
        builder = builder.set(name.clone(), sample.clone());
    }
    let error = builder.build().err()?;
    Some(refusal(&error, std::slice::from_ref(policy)))
}

/// One entry of each family that a set has.
fn sample(set: &AddressSet) -> AddressSet {
    let of = |family| set.iter().find(|prefix| prefix.family() == family);
    let families = [xdpgate::policy::Family::Ipv4, xdpgate::policy::Family::Ipv6];
    AddressSet::from_prefixes(families.into_iter().filter_map(of))
}
