//! What a policy must hold to, whether it came from text or from code.

mod family;
mod rule;

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::ops::ControlFlow;

use jiff::Timestamp;

use super::address::{Prefix, SetName};
use super::builder::PolicyBuilder;
use super::error::{PolicyError, PolicyErrorKind};
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

/// Checks all that can be wrong with a policy; every field is already of its own type. The first
/// fault.
pub(super) fn validate(policy: &PolicyBuilder) -> Result<(), Fault> {
    match find_faults(policy, ControlFlow::Break) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(fault) => Err(fault),
    }
}

/// All that is wrong with a policy. Where it is a set, rules that name it may be found wrong as well.
pub(super) fn faults(policy: &PolicyBuilder) -> Vec<Fault> {
    let mut faults = Vec::new();
    let all = |fault| {
        faults.push(fault);
        ControlFlow::<Infallible>::Continue(())
    };
    match find_faults(policy, all) {
        ControlFlow::Continue(()) => faults,
        ControlFlow::Break(never) => match never {},
    }
}

fn find_faults<B>(
    policy: &PolicyBuilder,
    mut found: impl FnMut(Fault) -> ControlFlow<B>,
) -> ControlFlow<B> {
    if let Err(error) = check_failsafe(&policy.failsafe) {
        found(Fault {
            place: Place::Policy,
            item: None,
            error,
        })?;
    }
    let mut sets = Sets::new();
    for (i, (name, set)) in policy.sets.iter().enumerate() {
        if let Err(error) = check_set(name, set, &mut sets) {
            found(Fault {
                place: Place::Set(i),
                item: None,
                error: error.about(name),
            })?;
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
            found(Fault {
                place: Place::Rule(i),
                item: Some(item).filter(|item| !item.is_empty()),
                error: error.about(&rule.id),
            })?;
        }
    }
    ControlFlow::Continue(())
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
    if sets.insert(name, Coverage::new(set)).is_some() {
        return Err(PolicyError::new(
            PolicyErrorKind::Duplicate,
            "another set has this name",
        ));
    }
    if set.is_empty() {
        return Err(
            PolicyError::new(PolicyErrorKind::InvalidValue, "the set has no entry")
                .mend("give it entries or leave it out"),
        );
    }
    check_expiries(set.expiring())
}

/// Whether entries of a set expire at times that can be.
pub(super) fn check_expiries(
    entries: impl IntoIterator<Item = (Prefix, Timestamp)>,
) -> Result<(), PolicyError> {
    let too_early = |(_, expires): &(Prefix, Timestamp)| *expires < Timestamp::UNIX_EPOCH;
    match entries.into_iter().find(too_early) {
        None => Ok(()),
        Some((prefix, _)) => {
            let reason = format!("{prefix} expires before 1970");
            Err(PolicyError::new(PolicyErrorKind::InvalidValue, reason).in_field("entries"))
        }
    }
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
