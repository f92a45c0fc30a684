//! A policy from code.

use super::address::{AddressMatch, SetName};
use super::error::PolicyError;
use super::rule::Rule;
use super::set::AddressSet;
use super::validate::{Fault, validate};
use super::{Failsafe, Policy, Verdict};

/// Builds a [`Policy`]; [`PolicyBuilder::build`] validates it.
///
/// ```
/// use xdpgate::policy::{Action, AddressItem, AddressMatch, Rule, RuleId};
/// use xdpgate::{Policy, Verdict};
///
/// let mut rule = Rule::new(RuleId::new("block-bad").unwrap(), 10, Action::Drop);
/// rule.matches.src = Some(AddressMatch {
///     negated: false,
///     items: vec![AddressItem::Prefix("203.0.113.0/24".parse()?)],
/// });
/// let policy = Policy::builder().default_verdict(Verdict::Pass).rule(rule).build()?;
/// assert_eq!(policy.rules().len(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct PolicyBuilder {
    pub(super) default: Verdict,
    pub(super) malformed: Verdict,
    pub(super) failsafe: Failsafe,
    pub(super) sets: Vec<(SetName, AddressSet)>,
    pub(super) rules: Vec<Rule>,
}

impl Policy {
    /// Starts an empty policy: everything passes, the failsafe is on, no sets, no rules.
    pub fn builder() -> PolicyBuilder {
        PolicyBuilder::default()
    }

    /// A builder that holds what this policy holds, to make a changed policy from.
    pub fn to_builder(&self) -> PolicyBuilder {
        PolicyBuilder {
            default: self.default,
            malformed: self.malformed,
            failsafe: self.failsafe.clone(),
            sets: self
                .sets
                .iter()
                .map(|(n, s)| (n.clone(), s.clone()))
                .collect(),
            rules: self.rules.clone(),
        }
    }
}

impl PolicyBuilder {
    /// The verdict when no rule decides; `pass` unless set.
    pub fn default_verdict(mut self, verdict: Verdict) -> Self {
        self.default = verdict;
        self
    }

    /// The verdict for frames that cannot be parsed far enough; `pass` unless set.
    pub fn malformed(mut self, verdict: Verdict) -> Self {
        self.malformed = verdict;
        self
    }

    /// The management traffic that passes before any rule; on, with no `ssh_from`, unless set.
    pub fn failsafe(mut self, failsafe: Failsafe) -> Self {
        self.failsafe = failsafe;
        self
    }

    /// Adds an address set.
    pub fn set(mut self, name: SetName, set: AddressSet) -> Self {
        self.sets.push((name, set));
        self
    }

    /// Adds a rule; the order of calls does not matter, `priority` and `id` decide.
    pub fn rule(mut self, rule: Rule) -> Self {
        self.rules.push(rule);
        self
    }

    /// Validates, and puts everything in canonical order: rules as they are evaluated, addresses
    /// and interfaces sorted and without repeats.
    ///
    /// # Errors
    /// What the policy format refuses, this does: an id or set that is there twice, a set that is
    /// empty or not there, values out of range, rules that no packet can match.
    pub fn build(self) -> Result<Policy, PolicyError> {
        self.check().map_err(|fault| fault.error)
    }

    /// [`PolicyBuilder::build`] with the place of the fault, for what knows the positions.
    pub(super) fn check(mut self) -> Result<Policy, Fault> {
        sort(&mut self.failsafe.ssh_from);
        self.rules.iter_mut().for_each(canonical_rule);
        validate(&self)?;
        Ok(self.arrange())
    }

    /// The policy of valid parts, which are in canonical order but for the order of the rules.
    pub(super) fn arrange(mut self) -> Policy {
        self.rules
            .sort_by(|a, b| (a.priority, &a.id).cmp(&(b.priority, &b.id)));
        Policy {
            default: self.default,
            malformed: self.malformed,
            failsafe: self.failsafe,
            sets: self.sets.into_iter().collect(),
            rules: self.rules,
        }
    }
}

/// Addresses and interfaces sorted and without repeats.
pub(super) fn canonical_rule(rule: &mut Rule) {
    sort(&mut rule.interfaces);
    let addresses = [&mut rule.matches.src, &mut rule.matches.dst];
    for AddressMatch { items, .. } in addresses.into_iter().flatten() {
        sort(items);
    }
}

fn sort<T: Ord>(items: &mut Vec<T>) {
    items.sort_unstable();
    items.dedup();
}
