//! What differs between two policies, as changes.

use std::collections::HashMap;

use xdpgate::Policy;
use xdpgate::policy::{AddressSet, Change, Prefix, SetName};

/// Changes that make `to` of `from`.
pub(super) fn diff(from: &Policy, to: &Policy) -> Vec<Change> {
    let mut out = Vec::new();
    if from.default_verdict() != to.default_verdict() {
        out.push(Change::DefaultVerdict(to.default_verdict()));
    }
    if from.malformed() != to.malformed() {
        out.push(Change::Malformed(to.malformed()));
    }
    if from.failsafe() != to.failsafe() {
        let failsafe = to.failsafe().clone();
        if failsafe.enabled && failsafe.ssh_from.is_empty() {
            out.push(Change::FailsafeWithoutSsh);
        } else {
            out.push(Change::Failsafe(failsafe));
        }
    }
    for (name, set) in to.sets() {
        match from.sets().get(name) {
            Some(before) if before == set => (),
            Some(before) if before.counters() == set.counters() => {
                entries(name, before, set, &mut out)
            }
            _ => out.push(Change::PutSet(name.clone(), set.clone())),
        }
    }
    let before: HashMap<_, _> = from.rules().iter().map(|rule| (&rule.id, rule)).collect();
    let after: HashMap<_, _> = to.rules().iter().map(|rule| (&rule.id, rule)).collect();
    let gone = from
        .rules()
        .iter()
        .filter(|rule| !after.contains_key(&rule.id));
    out.extend(gone.map(|rule| Change::RemoveRule(rule.id.clone())));
    let news = to
        .rules()
        .iter()
        .filter(|rule| before.get(&rule.id) != Some(rule));
    out.extend(news.map(|rule| Change::PutRule(rule.clone())));
    let gone = from
        .sets()
        .keys()
        .filter(|name| !to.sets().contains_key(*name));
    out.extend(gone.map(|name| Change::RemoveSet(name.clone())));
    out
}

fn entries(name: &SetName, before: &AddressSet, after: &AddressSet, out: &mut Vec<Change>) {
    let old: HashMap<Prefix, _> = before.entries().collect();
    let new: HashMap<Prefix, _> = after.entries().collect();
    let differs = |(prefix, expires): &(Prefix, _)| new.get(prefix) != Some(expires);
    let gone: Vec<_> = before
        .entries()
        .filter(differs)
        .map(|(prefix, _)| prefix)
        .collect();
    if gone.len() == before.len() {
        out.push(Change::PutSet(name.clone(), after.clone()));
        return;
    }
    let added: Vec<_> = after
        .entries()
        .filter(|(p, e)| old.get(p) != Some(e))
        .collect();
    if !gone.is_empty() {
        out.push(Change::RemoveEntries(name.clone(), gone));
    }
    if !added.is_empty() {
        out.push(Change::AddEntries(name.clone(), added));
    }
}
