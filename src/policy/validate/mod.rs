//! What a policy must hold to, whether it came from text or from code.

mod family;
mod rule;

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;

use super::address::{Prefix, SetName};
use super::builder::PolicyBuilder;
use super::error::{PolicyError, PolicyErrorKind};
use super::rule::Rule;
use super::set::AddressSet;
use super::{Failsafe, suggest};
use family::Coverage;

/// A refusal, and which part of the policy it is about: two rules may have the same id.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) place: Place,
    /// The text of the item at fault, where the field is a list.
    pub(super) item: Option<String>,
    pub(super) error: PolicyError,
}

/// A part of a policy.
#[derive(Debug)]
pub(super) enum Place {
    /// The policy's own keys.
    Policy,
    /// The set at this place.
    Set(usize),
    /// The rule at this place.
    Rule(usize),
}

/// The sets of a policy by name, with what is costly to find out about them.
type Sets<'a> = HashMap<&'a SetName, Coverage<'a>>;

/// A refusal of one item of a list.
struct ItemError {
    item: String,
    error: PolicyError,
}

impl From<PolicyError> for ItemError {
    fn from(error: PolicyError) -> Self {
        Self {
            item: String::new(),
            error,
        }
    }
}

/// Checks all that can be wrong with a policy; every field is already of its own type.
pub(super) fn validate(policy: &PolicyBuilder) -> Result<(), Fault> {
    if let Err(error) = check_failsafe(&policy.failsafe) {
        return Err(Fault {
            place: Place::Policy,
            item: None,
            error,
        });
    }
    let mut sets = Sets::new();
    for (i, (name, set)) in policy.sets.iter().enumerate() {
        if let Err(error) = check_set(name, set, &mut sets) {
            return Err(Fault {
                place: Place::Set(i),
                item: None,
                error: error.about(name),
            });
        }
    }
    let mut ids = HashSet::new();
    for (i, rule) in policy.rules.iter().enumerate() {
        let unique = if ids.insert(&rule.id) {
            Ok(())
        } else {
            Err(duplicate_id().into())
        };
        if let Err(ItemError { item, error }) = unique.and_then(|()| rule::check(rule, &sets)) {
            let item = Some(item).filter(|item| !item.is_empty());
            let error = error.about(&rule.id);
            return Err(Fault {
                place: Place::Rule(i),
                item,
                error,
            });
        }
    }
    Ok(())
}

/// The rules among these that cannot be in this policy. An id that is there twice, and what is wrong
/// with sets, is not looked for.
pub(super) fn rule_faults(
    policy: &PolicyBuilder,
    which: impl Fn(&Rule) -> bool,
) -> Vec<(&Rule, PolicyError)> {
    let rules: Vec<&Rule> = policy.rules.iter().filter(|rule| which(rule)).collect();
    if rules.is_empty() {
        return Vec::new();
    }
    let sets: Sets<'_> = policy
        .sets
        .iter()
        .map(|(name, set)| (name, Coverage::new(set)))
        .collect();
    let fault = |rule| match rule::check(rule, &sets) {
        Ok(()) => None,
        Err(ItemError { error, .. }) => Some((rule, error.about(&rule.id))),
    };
    rules.into_iter().filter_map(fault).collect()
}

fn duplicate_id() -> PolicyError {
    PolicyError::new(PolicyErrorKind::Duplicate, "another rule has this id")
        .mend("ids must be unique")
        .in_field("id")
}

fn check_failsafe(failsafe: &Failsafe) -> Result<(), PolicyError> {
    let count = failsafe.ssh_from.len();
    let error = if !failsafe.enabled && count > 0 {
        PolicyError::new(
            PolicyErrorKind::Contradiction,
            "prefixes are given, but the failsafe is off",
        )
    } else if count > Failsafe::MAX_SSH {
        let reason = format!(
            "{count} prefixes, but at most {} are allowed",
            Failsafe::MAX_SSH
        );
        PolicyError::new(PolicyErrorKind::Limit, reason)
            .mend("name larger prefixes, or use a pass rule with a set")
    } else {
        return Ok(());
    };
    Err(error.in_field("failsafe.ssh_from"))
}

fn check_set<'a>(
    name: &'a SetName,
    set: &'a AddressSet,
    sets: &mut Sets<'a>,
) -> Result<(), PolicyError> {
    if set.is_empty() {
        return Err(
            PolicyError::new(PolicyErrorKind::InvalidValue, "the set has no entry")
                .mend("give it entries or leave it out"),
        );
    }
    let too_early = |(_, expires): &(Prefix, Timestamp)| *expires < Timestamp::UNIX_EPOCH;
    if let Some((prefix, _)) = set.expiring().find(too_early) {
        let reason = format!("{prefix} expires before 1970");
        return Err(PolicyError::new(PolicyErrorKind::InvalidValue, reason).in_field("entries"));
    }
    if sets.insert(name, Coverage::new(set)).is_some() {
        return Err(PolicyError::new(
            PolicyErrorKind::Duplicate,
            "another set has this name",
        ));
    }
    Ok(())
}

fn unknown_set(name: &SetName, sets: &Sets<'_>) -> ItemError {
    let error = PolicyError::new(
        PolicyErrorKind::UnknownSet,
        format!("there is no set \"{name}\""),
    );
    let mend = match suggest::nearest(name.as_str(), sets.keys().map(|n| n.as_str())) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None if sets.is_empty() => "the policy has no sets".to_owned(),
        None => "define it under \"sets\"".to_owned(),
    };
    ItemError {
        item: format!("@{name}"),
        error: error.mend(mend),
    }
}
