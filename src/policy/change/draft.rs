//! A policy while it is changed.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;

use super::super::address::{AddressItem, AddressMatch, Prefix, SetName};
use super::super::builder::{PolicyBuilder, canonical_rule};
use super::super::error::{PolicyError, PolicyErrorKind};
use super::super::rule::{Rule, RuleId};
use super::super::set::AddressSet;
use super::super::validate::{Fault, Place, check_expiries, faults};
use super::super::{Failsafe, Policy, Verdict};
use super::{Change, ChangeError, ChangeErrorKind, Effect};

/// What some changes have made of a policy, and which change touched what last.
pub(super) struct Draft<'p> {
    default: Verdict,
    malformed: Verdict,
    failsafe: Failsafe,
    failsafe_by: Option<usize>,
    sets: BTreeMap<SetName, Cow<'p, AddressSet>>,
    sets_by: HashMap<SetName, usize>,
    rules: Vec<Option<Cow<'p, Rule>>>,
    rule_places: HashMap<RuleId, usize>,
    rules_by: HashMap<RuleId, usize>,
}

impl<'p> Draft<'p> {
    pub(super) fn new(policy: &'p Policy) -> Self {
        let sets = policy.sets.iter();
        let rules = policy.rules.iter();
        Self {
            default: policy.default,
            malformed: policy.malformed,
            failsafe: policy.failsafe.clone(),
            failsafe_by: None,
            sets: sets.map(|(n, s)| (n.clone(), Cow::Borrowed(s))).collect(),
            sets_by: HashMap::new(),
            rule_places: rules.clone().map(|r| r.id.clone()).zip(0..).collect(),
            rules: rules.map(|r| Some(Cow::Borrowed(r))).collect(),
            rules_by: HashMap::new(),
        }
    }

    /// Makes one change.
    pub(super) fn make(&mut self, index: usize, change: &'p Change) -> Result<Effect, ChangeError> {
        match change {
            Change::CreateRule(rule) => self.put_rule(index, rule, true),
            Change::PutRule(rule) => self.put_rule(index, rule, false),
            Change::RemoveRule(id) => Ok(match self.rule_places.remove(id) {
                Some(place) => {
                    self.rules[place] = None;
                    Effect::Removed
                }
                None => Effect::Unchanged,
            }),
            Change::CreateSet(name, set) => self.put_set(index, name, set, true),
            Change::PutSet(name, set) => self.put_set(index, name, set, false),
            Change::RemoveSet(name) => Ok(match self.sets.remove(name) {
                Some(_) => {
                    self.sets_by.insert(name.clone(), index);
                    Effect::Removed
                }
                None => Effect::Unchanged,
            }),
            Change::AddEntries(name, entries) => {
                let expiring = entries.iter().filter_map(|(p, at)| Some((*p, (*at)?)));
                can_be(index, name, expiring)?;
                self.edit_set(index, name, |set| set.insert(entries.iter().copied()))
            }
            Change::RemoveEntries(name, entries) => {
                self.edit_set(index, name, |set| set.remove(entries.iter().copied()))
            }
            Change::EnableRule(id, enabled) => self.enable_rule(index, id, *enabled),
            Change::DefaultVerdict(verdict) => Ok(replace(&mut self.default, *verdict)),
            Change::Malformed(verdict) => Ok(replace(&mut self.malformed, *verdict)),
            Change::Failsafe(failsafe) => {
                keeps_ssh(index, &self.failsafe, failsafe)?;
                self.failsafe_by = Some(index);
                let mut failsafe = failsafe.clone();
                failsafe.ssh_from.sort_unstable();
                failsafe.ssh_from.dedup();
                Ok(replace(&mut self.failsafe, failsafe))
            }
            Change::FailsafeWithoutSsh => Ok(replace(&mut self.failsafe, Failsafe::default())),
        }
    }

    fn put_rule(&mut self, index: usize, rule: &Rule, create: bool) -> Result<Effect, ChangeError> {
        let mut rule = rule.clone();
        canonical_rule(&mut rule);
        let place = self.rule_places.get(&rule.id).copied();
        if create && place.is_some() {
            let error = already_there("a rule with this id is there").about(&rule.id);
            let kind = ChangeErrorKind::AlreadyExists;
            return Err(ChangeError::new(index, kind, error.in_field("id")));
        }
        let Some(place) = place else {
            self.rules_by.insert(rule.id.clone(), index);
            self.rule_places.insert(rule.id.clone(), self.rules.len());
            self.rules.push(Some(Cow::Owned(rule)));
            return Ok(Effect::Created);
        };
        if self.rules[place].as_deref() == Some(&rule) {
            return Ok(Effect::Unchanged);
        }
        self.rules_by.insert(rule.id.clone(), index);
        self.rules[place] = Some(Cow::Owned(rule));
        Ok(Effect::Replaced)
    }

    fn enable_rule(
        &mut self,
        index: usize,
        id: &RuleId,
        enabled: bool,
    ) -> Result<Effect, ChangeError> {
        let place = self.rule_places.get(id).copied();
        let Some(rule) = place.and_then(|place| self.rules[place].as_mut()) else {
            let error = PolicyError::new(PolicyErrorKind::UnknownRule, "there is no such rule")
                .mend("create the rule first")
                .about(id);
            return Err(ChangeError::new(index, ChangeErrorKind::NotFound, error));
        };
        if rule.enabled == enabled {
            return Ok(Effect::Unchanged);
        }
        rule.to_mut().enabled = enabled;
        self.rules_by.insert(id.clone(), index);
        Ok(Effect::Replaced)
    }

    fn put_set(
        &mut self,
        index: usize,
        name: &SetName,
        set: &'p AddressSet,
        create: bool,
    ) -> Result<Effect, ChangeError> {
        can_be(index, name, set.expiring())?;
        let effect = match self.sets.get(name) {
            Some(_) if create => {
                let error = already_there("a set of this name is there").about(name);
                let kind = ChangeErrorKind::AlreadyExists;
                return Err(ChangeError::new(index, kind, error));
            }
            Some(before) if **before == *set => return Ok(Effect::Unchanged),
            Some(_) => Effect::Replaced,
            None => Effect::Created,
        };
        self.sets.insert(name.clone(), Cow::Borrowed(set));
        self.sets_by.insert(name.clone(), index);
        Ok(effect)
    }

    fn edit_set(
        &mut self,
        index: usize,
        name: &SetName,
        edit: impl FnOnce(&mut AddressSet) -> usize,
    ) -> Result<Effect, ChangeError> {
        let Some(set) = self.sets.get_mut(name) else {
            let error = PolicyError::new(PolicyErrorKind::UnknownSet, "there is no such set")
                .mend("create the set first")
                .about(name);
            return Err(ChangeError::new(index, ChangeErrorKind::NotFound, error));
        };
        let changed = edit(set.to_mut());
        if changed == 0 {
            return Ok(Effect::Unchanged);
        }
        self.sets_by.insert(name.clone(), index);
        Ok(Effect::Entries(changed))
    }

    /// The policy, or the changes that keep it from being valid: one at the least.
    pub(super) fn finish(self) -> Result<Policy, Vec<ChangeError>> {
        let Self {
            failsafe_by,
            sets_by,
            rules_by,
            ..
        } = self;
        let builder = PolicyBuilder {
            default: self.default,
            malformed: self.malformed,
            failsafe: self.failsafe,
            sets: self
                .sets
                .into_iter()
                .map(|(name, set)| (name, set.into_owned()))
                .collect(),
            rules: self
                .rules
                .into_iter()
                .flatten()
                .map(Cow::into_owned)
                .collect(),
        };
        let faults = faults(&builder);
        if faults.is_empty() {
            return Ok(builder.arrange());
        }
        let blame = |Fault { place, error, .. }| {
            let (index, own) = match place {
                Place::Policy => (failsafe_by, true),
                Place::Set(set) => (sets_by.get(&builder.sets[set].0).copied(), true),
                Place::Rule(rule) => {
                    let rule = &builder.rules[rule];
                    match rules_by.get(&rule.id) {
                        Some(index) => (Some(*index), true),
                        None => (last_of_sets(rule, &sets_by), false),
                    }
                }
            };
            let index = index.expect("what was not touched was valid");
            if !own && error.kind() == PolicyErrorKind::UnknownSet {
                let error = error.mend("take it out of the rule first");
                return ChangeError::new(index, ChangeErrorKind::InUse, error);
            }
            invalid(index, error)
        };
        Err(faults.into_iter().map(blame).collect())
    }
}

/// The last change that touched a set which a rule names.
fn last_of_sets(rule: &Rule, sets_by: &HashMap<SetName, usize>) -> Option<usize> {
    let addresses = [&rule.matches.src, &rule.matches.dst];
    let items = addresses
        .into_iter()
        .flatten()
        .flat_map(|AddressMatch { items, .. }| items);
    let touched = items.filter_map(|item| match item {
        AddressItem::Set(name) => sets_by.get(name).copied(),
        AddressItem::Prefix(_) => None,
    });
    touched.max()
}

/// Refuses a failsafe whose list of SSH prefixes was just left out: with a default of drop "on" would shut
/// out who says it.
fn keeps_ssh(index: usize, before: &Failsafe, after: &Failsafe) -> Result<(), ChangeError> {
    if !after.enabled || !after.ssh_from.is_empty() || before.ssh_from.is_empty() {
        return Ok(());
    }
    let prefixes: Vec<String> = before.ssh_from.iter().map(Prefix::to_string).collect();
    let reason = format!("SSH from {} would be out", prefixes.join(", "));
    let error = PolicyError::new(PolicyErrorKind::MissingKey, reason)
        .mend("name the prefixes that pass, or ask for it without SSH (no_ssh)")
        .in_field("ssh_from");
    Err(invalid(index, error))
}

/// Refuses entries that no set can have.
fn can_be(
    index: usize,
    name: &SetName,
    expiring: impl IntoIterator<Item = (Prefix, Timestamp)>,
) -> Result<(), ChangeError> {
    check_expiries(expiring).map_err(|error| invalid(index, error.about(name)))
}

fn invalid(index: usize, error: PolicyError) -> ChangeError {
    ChangeError::new(index, ChangeErrorKind::Invalid(error.kind()), error)
}

fn already_there(reason: &'static str) -> PolicyError {
    PolicyError::new(PolicyErrorKind::Duplicate, reason).mend("put it, to replace what is there")
}

fn replace<T: PartialEq>(place: &mut T, value: T) -> Effect {
    if *place == value {
        return Effect::Unchanged;
    }
    *place = value;
    Effect::Replaced
}
