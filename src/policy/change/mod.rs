//! Changes to a policy: rules and entries of sets that come and go, a list of them at a time.
//!
//! [`Policy::change`] makes a new policy of an old one and touches nothing; with feature `kernel`
//! `Firewall::transact` puts it in force in the same step.

mod draft;
mod error;

use jiff::Timestamp;

use super::address::{Prefix, SetName};
use super::rule::{Rule, RuleId};
use super::set::AddressSet;
use super::{Failsafe, Policy, Verdict};
use draft::Draft;
pub use error::{ChangeError, ChangeErrorKind, ChangeErrors};

/// One change to a policy.
///
/// All but `Create...` may be repeated: the second time they succeed and change nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// Adds a rule. An error if there is one with its id.
    CreateRule(Rule),
    /// Adds a rule, or puts it in the place of the one with its id, which keeps its counters.
    PutRule(Rule),
    /// Takes out the rule with this id, if there is one.
    RemoveRule(RuleId),
    /// Adds an address set. An error if there is one of this name.
    CreateSet(SetName, AddressSet),
    /// Adds an address set, or replaces the one of this name.
    PutSet(SetName, AddressSet),
    /// Takes out an address set, if there is one. An error as long as a rule names it.
    RemoveSet(SetName),
    /// Adds entries to a set, each with the time from which on it is not in the set, or `None` if it
    /// never expires. What the set has already lasts as long as the longer of both. An error if
    /// there is no such set.
    AddEntries(SetName, Vec<(Prefix, Option<Timestamp>)>),
    /// Takes those of these entries out of a set that it has, whenever they expire. Only the very
    /// prefix is taken out, not what lies within. An error if there is no such set, or nothing is left.
    RemoveEntries(SetName, Vec<Prefix>),
    /// Switches a rule on or off. An error if there is no rule with this id.
    EnableRule(RuleId, bool),
    /// Changes the verdict when no rule decides.
    DefaultVerdict(Verdict),
    /// Changes the verdict for frames that cannot be parsed far enough.
    Malformed(Verdict),
    /// Changes the management traffic that passes before any rule. An error if it is on without an SSH
    /// prefix while there are some: that takes [`Change::FailsafeWithoutSsh`].
    Failsafe(Failsafe),
    /// Switches the failsafe on without SSH: prefixes that were there are out.
    FailsafeWithoutSsh,
}

/// What happens to the other changes of a list if one of them is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Atomicity {
    /// They are not made either.
    #[default]
    AllOrNothing,
    /// They are made. Still all that are made take effect at once.
    Partial,
}

/// What a change did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Effect {
    /// The rule or set is new.
    Created,
    /// The rule or set is another than before; or the policy's own value is.
    Replaced,
    /// The rule or set is gone.
    Removed,
    /// So many entries of the set came, last longer, or went.
    Entries(usize),
    /// Everything was like this before.
    Unchanged,
}

/// A changed policy.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Changed {
    /// What came of it.
    pub policy: Policy,
    /// What each change did, in their order. There are no errors if all or nothing was asked for.
    pub effects: Vec<Result<Effect, ChangeError>>,
}

impl Policy {
    /// The policy that comes of these changes, made one after the other. Rules may name sets that a
    /// later change brings: what counts is the end.
    ///
    /// ```
    /// use xdpgate::Policy;
    /// use xdpgate::policy::{Atomicity, Change, ChangeErrorKind, Effect, SetName};
    ///
    /// let policy = Policy::from_yaml("
    /// version: 1
    /// sets: { bad: { entries: [203.0.113.7] } }
    /// rules: [ { id: block, match: { src: '@bad' }, action: drop } ]
    /// ")?;
    /// let bad = SetName::new("bad").unwrap();
    /// let more = Change::AddEntries(bad.clone(), vec![("198.51.100.0/24".parse()?, None)]);
    /// let changed = policy.change(&[more], Atomicity::AllOrNothing)?;
    /// assert_eq!(changed.effects, [Ok(Effect::Entries(1))]);
    ///
    /// let errors = policy.change(&[Change::RemoveSet(bad)], Atomicity::AllOrNothing).unwrap_err();
    /// assert_eq!(errors.iter().next().unwrap().kind(), ChangeErrorKind::InUse);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// With [`Atomicity::AllOrNothing`] every change that cannot be made: what it asks for is there
    /// already or is not there, or the policy would not be valid. With [`Atomicity::Partial`] these
    /// are in [`Changed::effects`].
    pub fn change(
        &self,
        changes: &[Change],
        atomicity: Atomicity,
    ) -> Result<Changed, ChangeErrors> {
        let mut refused: Vec<Option<ChangeError>> = vec![None; changes.len()];
        let mut retried = false;
        loop {
            let mut draft = Draft::new(self);
            let mut effects = Vec::with_capacity(changes.len());
            for (index, (change, refusal)) in changes.iter().zip(&refused).enumerate() {
                effects.push(match refusal {
                    Some(error) => Err(error.clone()),
                    None => draft.make(index, change),
                });
            }
            let policy = match draft.finish() {
                Ok(policy) => policy,
                Err(faults) => {
                    // Without those that are at fault; it ends, because each round leaves out more.
                    for fault in faults {
                        refused[fault.index()].get_or_insert(fault);
                    }
                    continue;
                }
            };
            // Rules that did not fit to what has been left out since may fit to what is there.
            let left_out = |is_it: fn(&Change) -> bool| {
                let mut all = changes.iter().zip(&refused);
                all.any(|(change, refusal)| refusal.is_some() && is_it(change))
            };
            if !retried && left_out(puts_rule) && left_out(|change| !puts_rule(change)) {
                retried = true;
                for (_, refusal) in changes
                    .iter()
                    .zip(&mut refused)
                    .filter(|(c, _)| puts_rule(c))
                {
                    *refusal = None;
                }
                continue;
            }
            let errors: Vec<ChangeError> = effects.iter().filter_map(|e| e.clone().err()).collect();
            if atomicity == Atomicity::AllOrNothing && !errors.is_empty() {
                return Err(ChangeErrors::new(errors));
            }
            return Ok(Changed { policy, effects });
        }
    }
}

fn puts_rule(change: &Change) -> bool {
    matches!(
        change,
        Change::CreateRule(_) | Change::PutRule(_) | Change::EnableRule(..)
    )
}
