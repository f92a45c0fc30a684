//! What a policy would change: the pure difference of two policies, in words.

use std::collections::BTreeMap;
use std::fmt;

use crate::policy::{AddressSet, Policy, RuleId, SetName, Verdict};

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
        })
        .collect();
    for (name, set) in new {
        let (kind, (added, removed)) = match old.get(name) {
            None => (SetChangeKind::Added, (set.len(), 0)),
            Some(before) if before == set => continue,
            Some(before) => (SetChangeKind::Changed, entry_changes(before, set)),
        };
        changes.push(SetChange {
            name: name.clone(),
            kind,
            added,
            removed,
        });
    }
    changes.sort_by(|a, b| a.name.cmp(&b.name));
    changes
}

/// How many entries only the new set has, and how many only the old one.
fn entry_changes(old: &AddressSet, new: &AddressSet) -> (usize, usize) {
    let common = common(&old.v4_hosts, &new.v4_hosts)
        + common(&old.v4_prefixes, &new.v4_prefixes)
        + common(&old.v6_hosts, &new.v6_hosts)
        + common(&old.v6_prefixes, &new.v6_prefixes);
    (new.len() - common, old.len() - common)
}

/// How many values two sorted slices without repeats have in common.
fn common<T: Ord>(mut a: &[T], mut b: &[T]) -> usize {
    let mut count = 0;
    while let (Some((x, rest_a)), Some((y, rest_b))) = (a.split_first(), b.split_first()) {
        count += usize::from(x == y);
        (a, b) = match x.cmp(y) {
            std::cmp::Ordering::Less => (rest_a, b),
            std::cmp::Ordering::Equal => (rest_a, rest_b),
            std::cmp::Ordering::Greater => (a, rest_b),
        };
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
        } = self;
        match kind {
            SetChangeKind::Added => write!(f, "set {name} added: {}", entries(*added)),
            SetChangeKind::Removed => write!(f, "set {name} removed: {}", entries(*removed)),
            SetChangeKind::Changed if added + removed == 0 => {
                write!(f, "set {name} changed: other counters")
            }
            SetChangeKind::Changed => {
                write!(
                    f,
                    "set {name} changed: {} added, {removed} removed",
                    entries(*added)
                )
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
}
