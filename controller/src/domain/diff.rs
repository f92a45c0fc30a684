//! What differs between two policies, as changes that make one of the other.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use xdpgate::Policy;
use xdpgate::policy::{AddressSet, Change, Failsafe, Prefix, Rule, RuleId};

/// Entries, each with its expiry.
type Entries = Vec<(Prefix, Option<Timestamp>)>;

/// Changes that make `to` of `from`: `from.change(&changes, Atomicity::AllOrNothing)` has the hash of `to`.
///
/// An entry that expires at another time goes and comes. Costs one walk over the rules of both and over the sets that
/// differ.
///
/// ```
/// use xdpgate::Policy;
/// use xdpgate::policy::Atomicity;
/// use xdpgate_controller::domain::diff;
///
/// let from = Policy::from_yaml("
/// version: 1
/// sets: { bad: { entries: [203.0.113.7, 203.0.113.8] } }
/// rules: [ { id: block, match: { src: '@bad' }, action: drop } ]
/// ")?;
/// let to = Policy::from_yaml("
/// version: 1
/// default: drop
/// sets: { bad: { entries: [203.0.113.8, 2001:db8::/32] } }
/// rules: [ { id: block, match: { src: '@bad' }, action: count } ]
/// ")?;
/// let changes = diff::between(&from, &to);
/// assert_eq!(changes.len(), 4);
/// let changed = from.change(&changes, Atomicity::AllOrNothing)?;
/// assert_eq!(changed.policy.hash(), to.hash());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn between(from: &Policy, to: &Policy) -> Vec<Change> {
    let mut changes = Vec::new();
    for (name, set) in to.sets() {
        match from.sets().get(name) {
            Some(before) if before == set => {}
            Some(before) if before.counters() == set.counters() => {
                let (gone, come) = entries(before, set);
                if gone.len() + come.len() > set.len() {
                    changes.push(Change::PutSet(name.clone(), set.clone()));
                    continue;
                }
                if !gone.is_empty() {
                    changes.push(Change::RemoveEntries(name.clone(), gone));
                }
                if !come.is_empty() {
                    changes.push(Change::AddEntries(name.clone(), come));
                }
            }
            _ => changes.push(Change::PutSet(name.clone(), set.clone())),
        }
    }
    let (gone, come) = rules(from.rules(), to.rules());
    changes.extend(gone.into_iter().map(Change::RemoveRule));
    changes.extend(come.into_iter().map(Change::PutRule));
    for name in from.sets().keys() {
        if !to.sets().contains_key(name) {
            changes.push(Change::RemoveSet(name.clone()));
        }
    }
    if from.default_verdict() != to.default_verdict() {
        changes.push(Change::DefaultVerdict(to.default_verdict()));
    }
    if from.malformed() != to.malformed() {
        changes.push(Change::Malformed(to.malformed()));
    }
    changes.extend(failsafe(from.failsafe(), to.failsafe()));
    changes
}

/// The change of the failsafe, if it differs.
pub(crate) fn failsafe(from: &Failsafe, to: &Failsafe) -> Option<Change> {
    if from == to {
        return None;
    }
    // The library takes this only by its explicit word.
    if *to == Failsafe::default() && !from.ssh_from.is_empty() {
        return Some(Change::FailsafeWithoutSsh);
    }
    Some(Change::Failsafe(to.clone()))
}

/// Which rules go, and which come or are another; both in the order of evaluation.
fn rules(from: &[Rule], to: &[Rule]) -> (Vec<RuleId>, Vec<Rule>) {
    let (mut gone, mut come) = (BTreeSet::new(), BTreeMap::new());
    let (mut a, mut b) = (from.iter().peekable(), to.iter().peekable());
    let place = |rule: &Rule| (rule.priority, rule.id.clone());
    loop {
        let order = match (a.peek(), b.peek()) {
            (None, None) => break,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(x), Some(y)) => {
                let ids = || x.id.as_str().cmp(y.id.as_str());
                x.priority.cmp(&y.priority).then_with(ids)
            }
        };
        let old = if order.is_le() { a.next() } else { None };
        let new = if order.is_ge() { b.next() } else { None };
        match (old, new) {
            (Some(old), Some(new)) if old == new => {}
            (old, new) => {
                gone.extend(old.map(|rule| rule.id.clone()));
                come.extend(new.map(|rule| (place(rule), rule.clone())));
            }
        }
    }
    // One that is at another place both went and came.
    for (_, id) in come.keys() {
        gone.remove(id);
    }
    (gone.into_iter().collect(), come.into_values().collect())
}

/// Which entries go, and which come; one that expires at another time does both.
pub fn entries(from: &AddressSet, to: &AddressSet) -> (Vec<Prefix>, Entries) {
    let (mut gone, mut come) = (Vec::new(), Vec::new());
    let (mut a, mut b) = (from.entries().peekable(), to.entries().peekable());
    loop {
        let order = match (a.peek(), b.peek()) {
            (None, None) => return (gone, come),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(x), Some(y)) => place(x).cmp(&place(y)),
        };
        let old = if order.is_le() { a.next() } else { None };
        let new = if order.is_ge() { b.next() } else { None };
        if old != new {
            gone.extend(old.map(|(prefix, _)| prefix));
            come.extend(new);
        }
    }
}

/// Where an entry comes in the order of [`AddressSet::entries`].
fn place((prefix, expires): &(Prefix, Option<Timestamp>)) -> (bool, bool, bool, u128, u8) {
    let (is_v6, bits) = match prefix.addr() {
        std::net::IpAddr::V4(a) => (false, a.to_bits().into()),
        std::net::IpAddr::V6(a) => (true, a.to_bits()),
    };
    let expires = expires.is_some();
    let after_hosts = !expires && !prefix.is_host();
    (expires, is_v6, after_hosts, bits, prefix.len())
}
