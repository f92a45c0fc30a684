//! What a policy would change: the pure difference of two policies, in words.

use std::collections::BTreeMap;
use std::fmt;

use crate::policy::{AddressSet, Expiring, Policy, RuleId, SetName, Verdict};

/// What would change if a policy took the place of another. Its `Display` says it in words.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Plan {
    /// Rules that only the new policy has, in evaluation order.
    pub added: Vec<RuleId>,
    /// Rules that only the old policy has.
    pub removed: Vec<RuleId>,
    /// Rules that both have and that differ in anything.
    pub changed: Vec<RuleId>,
    /// Address sets that differ, by name.
    pub sets: Vec<SetChange>,
    /// The default verdict, old and new.
    pub default: Option<(Verdict, Verdict)>,
    /// The verdict on malformed frames, old and new.
    pub malformed: Option<(Verdict, Verdict)>,
    /// Whether the failsafe differs.
    pub failsafe: bool,
    /// How large the new image would be; `None` if the policy was not compiled.
    pub image_bytes: Option<usize>,
}

/// How an address set would change.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SetChange {
    /// The set.
    pub name: SetName,
    /// Whether both policies have it, or which one.
    pub kind: SetChangeKind,
    /// How many entries come.
    pub added: usize,
    /// How many entries go.
    pub removed: usize,
    /// How many entries stay but expire at another time, or come to expire, or no longer do.
    pub expiries: usize,
}

/// What becomes of an address set as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SetChangeKind {
    /// Only the new policy has it.
    Added,
    /// Only the old policy has it.
    Removed,
    /// Both have it.
    Changed,
}

impl Plan {
    /// The difference from one policy to the next; without an old one, from the empty policy.
    pub fn between(old: Option<&Policy>, new: &Policy) -> Self {
        let empty = Policy::builder()
            .build()
            .expect("the empty policy is valid");
        let old = old.unwrap_or(&empty);
        let before: BTreeMap<_, _> = old.rules().iter().map(|r| (&r.id, r)).collect();
        let after: BTreeMap<_, _> = new.rules().iter().map(|r| (&r.id, r)).collect();
        let ids = |policy: &Policy, which: &dyn Fn(&RuleId) -> bool| -> Vec<RuleId> {
            policy
                .rules()
                .iter()
                .map(|r| &r.id)
                .filter(|id| which(id))
                .cloned()
                .collect()
        };
        let differs = |id: &RuleId| before.get(id).is_some_and(|rule| *rule != after[id]);
        let verdicts = |old, new| (old != new).then_some((old, new));
        Self {
            added: ids(new, &|id| !before.contains_key(id)),
            removed: ids(old, &|id| !after.contains_key(id)),
            changed: ids(new, &differs),
            sets: set_changes(old.sets(), new.sets()),
            default: verdicts(old.default_verdict(), new.default_verdict()),
            malformed: verdicts(old.malformed(), new.malformed()),
            failsafe: old.failsafe() != new.failsafe(),
            image_bytes: None,
        }
    }

    /// Whether the two policies say the same.
    pub fn is_empty(&self) -> bool {
        *self
            == Self {
                image_bytes: self.image_bytes,
                ..Self::default()
            }
    }
}

fn set_changes(
    old: &BTreeMap<SetName, AddressSet>,
    new: &BTreeMap<SetName, AddressSet>,
) -> Vec<SetChange> {
    let mut changes: Vec<SetChange> = old
        .iter()
        .filter(|(name, _)| !new.contains_key(*name))
        .map(|(name, set)| SetChange {
            name: name.clone(),
            kind: SetChangeKind::Removed,
            added: 0,
            removed: set.len(),
            expiries: 0,
        })
        .collect();
    for (name, set) in new {
        let (kind, (added, removed, expiries)) = match old.get(name) {
            None => (SetChangeKind::Added, (set.len(), 0, 0)),
            Some(before) if before == set => continue,
            Some(before) => (SetChangeKind::Changed, entry_changes(before, set)),
        };
        changes.push(SetChange {
            name: name.clone(),
            kind,
            added,
            removed,
            expiries,
        });
    }
    changes.sort_by(|a, b| a.name.cmp(&b.name));
    changes
}

/// How many entries only the new set has, how many only the old one, and how many both have with
/// another expiry.
fn entry_changes(old: &AddressSet, new: &AddressSet) -> (usize, usize, usize) {
    let (old_v4, new_v4) = (FamilyEntries::v4(old), FamilyEntries::v4(new));
    let (old_v6, new_v6) = (FamilyEntries::v6(old), FamilyEntries::v6(new));
    let (common_v4, expiries_v4) = old_v4.common(&new_v4);
    let (common_v6, expiries_v6) = old_v6.common(&new_v6);
    let common = common_v4 + common_v6;
    let expiries = expiries_v4 + expiries_v6;
    (new.len() - common, old.len() - common, expiries)
}

/// The entries of one family in a set, by kind.
struct FamilyEntries<'a, A> {
    width: u8,
    hosts: &'a [A],
    prefixes: &'a [(A, u8)],
    expiring: &'a [Expiring<A>],
}

impl<'a> FamilyEntries<'a, u32> {
    fn v4(set: &'a AddressSet) -> Self {
        Self {
            width: 32,
            hosts: &set.v4_hosts,
            prefixes: &set.v4_prefixes,
            expiring: set.v4_expiring(),
        }
    }
}

impl<'a> FamilyEntries<'a, u128> {
    fn v6(set: &'a AddressSet) -> Self {
        Self {
            width: 128,
            hosts: &set.v6_hosts,
            prefixes: &set.v6_prefixes,
            expiring: set.v6_expiring(),
        }
    }
}

impl<A: Copy + Ord> FamilyEntries<'_, A> {
    /// How many entries both have, and how many of these with another expiry.
    fn common(&self, other: &Self) -> (usize, usize) {
        let lasting = common(self.hosts.iter(), other.hosts.iter())
            + common(self.prefixes.iter(), other.prefixes.iter());
        let moved = self.turned_expiring(other) + other.turned_expiring(self);
        let expiring = common(self.expiring_keys(), other.expiring_keys());
        let same = common(self.expiring.iter(), other.expiring.iter());
        (lasting + moved + expiring, moved + expiring - same)
    }

    /// How many entries last here and expire in `other`.
    fn turned_expiring(&self, other: &Self) -> usize {
        let hosts = self.hosts.iter().map(|a| (*a, self.width));
        common(hosts, other.expiring_keys())
            + common(self.prefixes.iter().copied(), other.expiring_keys())
    }

    fn expiring_keys(&self) -> impl Iterator<Item = (A, u8)> {
        self.expiring.iter().map(|(a, len, _)| (*a, *len))
    }
}

/// How many values two sorted sequences without repeats have in common.
fn common<T: Ord>(a: impl Iterator<Item = T>, b: impl Iterator<Item = T>) -> usize {
    let (mut a, mut b) = (a.peekable(), b.peekable());
    let mut count = 0;
    while let (Some(x), Some(y)) = (a.peek(), b.peek()) {
        let order = x.cmp(y);
        count += usize::from(order.is_eq());
        if order.is_le() {
            a.next();
        }
        if order.is_ge() {
            b.next();
        }
    }
    count
}

/// More ids than these are counted, not named.
const NAMED: usize = 8;

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("no changes");
        }
        let mut lines = Vec::new();
        for (ids, what) in [
            (&self.added, "added"),
            (&self.removed, "removed"),
            (&self.changed, "changed"),
        ] {
            if !ids.is_empty() {
                lines.push(format!(
                    "{} {what}: {}",
                    counted(ids.len(), "rule"),
                    named(ids)
                ));
            }
        }
        lines.extend(self.sets.iter().map(ToString::to_string));
        if let Some((old, new)) = self.default {
            lines.push(format!("default: {old} -> {new}"));
        }
        if let Some((old, new)) = self.malformed {
            lines.push(format!("malformed: {old} -> {new}"));
        }
        if self.failsafe {
            lines.push("failsafe changed".to_owned());
        }
        if let Some(bytes) = self.image_bytes {
            lines.push(format!("image: {bytes} bytes"));
        }
        f.write_str(&lines.join("\n"))
    }
}

impl fmt::Display for SetChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            kind,
            added,
            removed,
            expiries,
        } = self;
        match kind {
            SetChangeKind::Added => write!(f, "set {name} added: {}", entries(*added)),
            SetChangeKind::Removed => write!(f, "set {name} removed: {}", entries(*removed)),
            SetChangeKind::Changed => {
                let mut parts = Vec::new();
                if added + removed > 0 {
                    parts.push(format!("{} added, {removed} removed", entries(*added)));
                }
                if *expiries > 0 {
                    parts.push(format!("{} with another expiry", entries(*expiries)));
                }
                if parts.is_empty() {
                    parts.push("other counters".to_owned());
                }
                write!(f, "set {name} changed: {}", parts.join(", "))
            }
        }
    }
}

fn counted(n: usize, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

fn entries(n: usize) -> String {
    format!("{n} {}", if n == 1 { "entry" } else { "entries" })
}

fn named(ids: &[RuleId]) -> String {
    let mut names: Vec<&str> = ids.iter().take(NAMED).map(RuleId::as_str).collect();
    let more = format!("{} more", ids.len().saturating_sub(NAMED));
    if ids.len() > NAMED {
        names.push(&more);
    }
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(text: &str) -> Policy {
        Policy::from_yaml(text).unwrap()
    }

    #[test]
    fn a_plan_says_what_changes() {
        let old = policy(
            "version: 1\nsets: { bad: { entries: [203.0.113.7, 203.0.113.8] } }\nrules:\n\
             - { id: a, match: { src: '@bad' }, action: drop }\n\
             - { id: b, match: { src: 192.0.2.0/24 }, action: drop }\n",
        );
        let new = policy(
            "version: 1\ndefault: drop\nsets: { bad: { entries: [203.0.113.8, 2001:db8::/32] } }\n\
             rules:\n- { id: a, match: { src: '@bad' }, action: pass }\n\
             - { id: c, match: { dst: 192.0.2.0/24 }, action: drop }\n",
        );
        assert_eq!(
            Plan::between(Some(&old), &new).to_string(),
            "1 rule added: c\n1 rule removed: b\n1 rule changed: a\n\
             set bad changed: 1 entry added, 1 removed\ndefault: pass -> drop"
        );
        assert_eq!(Plan::between(Some(&old), &old).to_string(), "no changes");
        assert!(
            Plan::between(None, &old)
                .to_string()
                .starts_with("2 rules added: a, b\n")
        );
    }

    #[test]
    fn many_rules_are_counted() {
        let rules: String = (0..11)
            .map(|n| format!("- {{ id: r{n:02}, action: drop }}\n"))
            .collect();
        let new = policy(&format!("version: 1\nrules:\n{rules}"));
        let text = Plan::between(None, &new).to_string();
        assert!(text.starts_with("11 rules added: r00, r01, "), "{text}");
        assert!(text.ends_with("r07, 3 more"), "{text}");
    }

    /// What a set of these entries would change for one of those.
    fn set_plan(old: &str, new: &str) -> String {
        let with = |entries| {
            policy(&format!(
                "version: 1\nsets: {{ bad: {{ entries: [{entries}] }} }}"
            ))
        };
        Plan::between(Some(&with(old)), &with(new)).to_string()
    }

    #[test]
    fn another_expiry_changes_a_set() {
        let until = |entry: &str, year: u32| {
            format!("{{ entry: \"{entry}\", expires: {year}-01-01T00:00:00Z }}")
        };
        for entry in [
            "203.0.113.7",
            "203.0.113.0/24",
            "2001:db8::1",
            "2001:db8::/32",
        ] {
            let lasting = format!("\"{entry}\"");
            let (old, new) = (until(entry, 2030), until(entry, 2031));
            let changed = "set bad changed: 1 entry with another expiry";
            assert_eq!(set_plan(&old, &new), changed);
            assert_eq!(set_plan(&old, &lasting), changed);
            assert_eq!(set_plan(&lasting, &new), changed);
            assert_eq!(set_plan(&old, &old), "no changes");
            assert_eq!(set_plan(&old, &format!("{lasting}, {old}")), changed);
        }
        let entries = ["192.0.2.1", "192.0.2.2", "192.0.2.3"];
        let [a, b, c] = entries.map(|e| until(e, 2030));
        assert_eq!(
            set_plan(
                &format!("{a}, {b}, 192.0.2.4"),
                &format!("192.0.2.2, {c}, {}, 192.0.2.4", until("192.0.2.9", 2030)),
            ),
            "set bad changed: 2 entries added, 1 removed, 1 entry with another expiry"
        );
        assert_eq!(
            set_plan(&format!("{a}, {b}, {c}"), &format!("{a}, {b}")),
            "set bad changed: 0 entries added, 1 removed"
        );
    }

    #[test]
    fn rules_out_of_force_are_compared_like_others() {
        let with = |rest: &str| {
            let rule = format!("{{ id: r, action: drop{rest} }}");
            policy(&format!("version: 1\nrules: [{rule}]"))
        };
        let plan = |old: &str, new: &str| Plan::between(Some(&with(old)), &with(new)).to_string();
        let past = ", expires: 1970-01-01T00:00:00Z";
        let last = ", expires: 9999-12-30T22:00:00.999999999Z";
        for (old, new) in [
            ("", ", enabled: false"),
            ("", past),
            (past, last),
            (last, ""),
        ] {
            assert_eq!(plan(old, new), "1 rule changed: r", "{old} -> {new}");
        }
        for same in [", enabled: false", past, last] {
            assert_eq!(plan(same, same), "no changes", "{same}");
        }
        assert_eq!(
            Plan::between(None, &with(", enabled: false")).to_string(),
            "1 rule added: r"
        );
    }
}
