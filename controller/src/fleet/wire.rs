//! Changes and entries as messages, and back.

use std::net::IpAddr;

use jiff::Timestamp;
use xdpgate::policy::{
    AddressSet, AddressSetBuilder, Change, EntryCounters, Failsafe, Family, Prefix, Rule, RuleId,
    SetName, Verdict,
};
use xdpgate_api::fleet::v1 as fleet;
use xdpgate_api::v1;

use fleet::change::Change as Either;
use v1::change::Change as Is;

type Entry = (Prefix, Option<Timestamp>);

/// A message that says something which is not so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Wrong(String);

/// The changes as messages; `None` if there is one that the protocol does not have.
pub(super) fn changes(changes: &[Change]) -> Option<Vec<fleet::Change>> {
    let mut out: Vec<fleet::Change> = Vec::with_capacity(changes.len());
    let mut push = |change| {
        out.push(fleet::Change {
            change: Some(change),
        })
    };
    let mut entries: Option<fleet::Entries> = None;
    for change in changes {
        // What goes and what comes of one set is one message.
        if let (Some(open), Change::AddEntries(set, added)) = (&mut entries, change)
            && open.set == set.as_str()
            && open.add.is_none()
        {
            open.add = Some(pack(added.iter().copied()));
            continue;
        }
        if let Some(whole) = entries.take() {
            push(Either::Entries(whole));
        }
        let is = match change {
            Change::AddEntries(set, added) => {
                let add = Some(pack(added.iter().copied()));
                push(Either::Entries(fleet::Entries {
                    set: set.to_string(),
                    remove: None,
                    add,
                }));
                continue;
            }
            Change::RemoveEntries(set, gone) => {
                let remove = Some(pack(gone.iter().map(|prefix| (*prefix, None))));
                entries = Some(fleet::Entries {
                    set: set.to_string(),
                    remove,
                    add: None,
                });
                continue;
            }
            Change::CreateRule(rule) => Is::CreateRule(rule.to_json()),
            Change::PutRule(rule) => Is::PutRule(rule.to_json()),
            Change::RemoveRule(id) => Is::RemoveRule(id.to_string()),
            Change::CreateSet(name, set) | Change::PutSet(name, set) => {
                // The first entry as text, for a set is not empty; all others packed.
                let first = set.entries().take(1).map(entry).collect();
                let message = v1::AddressSet {
                    name: name.to_string(),
                    entries: first,
                    count_entries: set.counters() == EntryCounters::Entry,
                };
                push(policy(match change {
                    Change::CreateSet(..) => Is::CreateSet(message),
                    _ => Is::PutSet(message),
                }));
                if set.len() > 1 {
                    let add = Some(pack(set.entries().skip(1)));
                    let set = name.to_string();
                    push(Either::Entries(fleet::Entries {
                        set,
                        remove: None,
                        add,
                    }));
                }
                continue;
            }
            Change::RemoveSet(name) => Is::RemoveSet(name.to_string()),
            Change::EnableRule(id, enabled) => Is::EnableRule(v1::EnableRule {
                id: id.to_string(),
                enabled: *enabled,
            }),
            Change::DefaultVerdict(verdict) => Is::DefaultVerdict(verdict_number(*verdict)),
            Change::Malformed(verdict) => Is::Malformed(verdict_number(*verdict)),
            Change::Failsafe(failsafe) => Is::Failsafe(v1::Failsafe {
                none: !failsafe.enabled,
                ssh_from: failsafe.ssh_from.iter().map(Prefix::to_string).collect(),
                no_ssh: false,
            }),
            Change::FailsafeWithoutSsh => Is::Failsafe(v1::Failsafe {
                no_ssh: true,
                ..v1::Failsafe::default()
            }),
            _ => return None,
        };
        push(policy(is));
    }
    if let Some(whole) = entries {
        push(Either::Entries(whole));
    }
    Some(out)
}

fn policy(change: Is) -> Either {
    Either::Policy(v1::Change {
        change: Some(change),
    })
}

fn verdict_number(verdict: Verdict) -> i32 {
    match verdict {
        Verdict::Pass => v1::Verdict::Pass,
        Verdict::Drop => v1::Verdict::Drop,
    }
    .into()
}

fn entry((prefix, expires): Entry) -> v1::SetEntry {
    v1::SetEntry {
        prefix: prefix.to_string(),
        expires: expires.map(|at| prost_types::Timestamp {
            seconds: at.as_second(),
            nanos: at.subsec_nanosecond(),
        }),
    }
}

/// Entries as a message: packed where they do not expire.
pub(super) fn pack(entries: impl Iterator<Item = Entry>) -> v1::SetEntries {
    let mut out = v1::SetEntries::default();
    for (prefix, expires) in entries {
        match (prefix.addr(), expires) {
            (_, Some(_)) => out.entries.push(entry((prefix, expires))),
            (IpAddr::V4(address), None) => {
                out.packed_ipv4.extend(address.octets());
                out.packed_ipv4.push(prefix.len());
            }
            (IpAddr::V6(address), None) => {
                out.packed_ipv6.extend(address.octets());
                out.packed_ipv6.push(prefix.len());
            }
        }
    }
    out
}

/// Adds the entries of a message to a set.
///
/// # Errors
/// One of them is none.
pub(super) fn unpack(entries: &v1::SetEntries, into: &mut AddressSetBuilder) -> Result<(), Wrong> {
    for given in &entries.entries {
        let (prefix, expires) = read_entry(given)?;
        into.push(prefix, expires);
    }
    for (family, packed) in [
        (Family::Ipv4, &entries.packed_ipv4),
        (Family::Ipv6, &entries.packed_ipv6),
    ] {
        let pushed = into.push_packed(family, packed);
        pushed.map_err(|e| Wrong(e.to_string()))?;
    }
    Ok(())
}

fn read_entry(given: &v1::SetEntry) -> Result<Entry, Wrong> {
    let prefix = given.prefix.parse();
    let prefix = prefix.map_err(|e| Wrong(format!("{}: {e}", given.prefix)))?;
    let expires = given.expires.as_ref().map(|at| {
        let read = Timestamp::new(at.seconds, at.nanos);
        read.map_err(|e| Wrong(format!("expiry of {}: {e}", given.prefix)))
    });
    Ok((prefix, expires.transpose()?))
}

/// The changes that messages say.
///
/// # Errors
/// One of them is none that this version knows.
pub(super) fn read_changes(changes: &[fleet::Change]) -> Result<Vec<Change>, Wrong> {
    let mut out = Vec::with_capacity(changes.len());
    for change in changes {
        match &change.change {
            Some(Either::Entries(entries)) => {
                let name = set_name(&entries.set)?;
                if let Some(gone) = read_entries(entries.remove.as_ref())? {
                    out.push(Change::RemoveEntries(name.clone(), gone.iter().collect()));
                }
                if let Some(added) = read_entries(entries.add.as_ref())? {
                    out.push(Change::AddEntries(name, added.entries().collect()));
                }
            }
            Some(Either::Policy(v1::Change { change: Some(is) })) => out.push(read_change(is)?),
            _ => return Err(Wrong("a change of a kind that is not known".to_owned())),
        }
    }
    Ok(out)
}

fn read_entries(entries: Option<&v1::SetEntries>) -> Result<Option<AddressSet>, Wrong> {
    let Some(entries) = entries else {
        return Ok(None);
    };
    let mut set = AddressSetBuilder::default();
    unpack(entries, &mut set)?;
    Ok((set.pushed() > 0).then(|| set.build(EntryCounters::None)))
}

fn read_change(change: &Is) -> Result<Change, Wrong> {
    let rule = |text: &str| Rule::from_yaml(text).map_err(|e| Wrong(e.to_string()));
    let id = |id: &str| RuleId::new(id).ok_or_else(|| Wrong(format!("{id:?} is no rule id")));
    Ok(match change {
        Is::CreateRule(text) => Change::CreateRule(rule(text)?),
        Is::PutRule(text) => Change::PutRule(rule(text)?),
        Is::RemoveRule(rule) => Change::RemoveRule(id(rule)?),
        Is::CreateSet(set) => {
            let (name, set) = read_set(set)?;
            Change::CreateSet(name, set)
        }
        Is::PutSet(set) => {
            let (name, set) = read_set(set)?;
            Change::PutSet(name, set)
        }
        Is::RemoveSet(name) => Change::RemoveSet(set_name(name)?),
        Is::DefaultVerdict(verdict) => Change::DefaultVerdict(read_verdict(*verdict)?),
        Is::Malformed(verdict) => Change::Malformed(read_verdict(*verdict)?),
        Is::EnableRule(rule) => Change::EnableRule(id(&rule.id)?, rule.enabled),
        Is::Failsafe(v1::Failsafe { no_ssh: true, .. }) => Change::FailsafeWithoutSsh,
        Is::Failsafe(failsafe) => {
            let prefixes = failsafe.ssh_from.iter();
            let prefixes = prefixes.map(|p| p.parse().map_err(|e| Wrong(format!("{p}: {e}"))));
            Change::Failsafe(Failsafe {
                enabled: !failsafe.none,
                ssh_from: prefixes.collect::<Result<_, _>>()?,
            })
        }
        Is::AddEntries(_) | Is::RemoveEntries(_) => {
            return Err(Wrong(
                "entries of sets have a message of their own".to_owned(),
            ));
        }
    })
}

fn read_set(set: &v1::AddressSet) -> Result<(SetName, AddressSet), Wrong> {
    let entries = set.entries.iter().map(read_entry);
    let entries = AddressSet::from_entries(entries.collect::<Result<Vec<_>, _>>()?);
    let entries = entries.with_counters(match set.count_entries {
        true => EntryCounters::Entry,
        false => EntryCounters::None,
    });
    Ok((set_name(&set.name)?, entries))
}

fn set_name(name: &str) -> Result<SetName, Wrong> {
    SetName::new(name).ok_or_else(|| Wrong(format!("{name:?} is no name of a set")))
}

fn read_verdict(verdict: i32) -> Result<Verdict, Wrong> {
    match v1::Verdict::try_from(verdict) {
        Ok(v1::Verdict::Pass) => Ok(Verdict::Pass),
        Ok(v1::Verdict::Drop) => Ok(Verdict::Drop),
        _ => Err(Wrong(format!("{verdict} is no verdict"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xdpgate::Policy;
    use xdpgate::policy::Atomicity;

    #[test]
    fn every_change_comes_back_as_the_same_change() {
        let policy = Policy::from_yaml(
            "{ version: 1, failsafe: { ssh_from: [192.0.2.0/24] }, \
               sets: { bad: { entries: [203.0.113.7, 2001:db8::1] } }, rules: [ { id: a, action: count } ] }",
        )
        .unwrap();
        let until = Some("2030-01-01T00:00:00.123456789Z".parse().unwrap());
        let bad = SetName::new("bad").unwrap();
        let new = SetName::new("new").unwrap();
        let entries = |text: &str| {
            text.split(' ')
                .map(|p| p.parse().unwrap())
                .collect::<Vec<Prefix>>()
        };
        let set = AddressSet::from_entries([
            ("198.51.100.0/24".parse().unwrap(), until),
            ("2001:db8:1::/48".parse().unwrap(), None),
            ("198.51.100.9".parse().unwrap(), None),
        ])
        .with_counters(EntryCounters::Entry);
        let all = vec![
            Change::RemoveEntries(bad.clone(), entries("203.0.113.7")),
            Change::AddEntries(bad.clone(), vec![("203.0.113.7".parse().unwrap(), until)]),
            Change::AddEntries(bad.clone(), vec![("203.0.113.8".parse().unwrap(), None)]),
            Change::RemoveEntries(bad.clone(), entries("2001:db8::1")),
            Change::CreateSet(new.clone(), set.clone()),
            Change::PutSet(new.clone(), set.clone()),
            Change::CreateRule(
                Rule::from_yaml("{ id: b, match: { src: '@new' }, action: drop }").unwrap(),
            ),
            Change::PutRule(Rule::from_yaml("{ id: c, priority: 7, action: pass }").unwrap()),
            Change::EnableRule(RuleId::new("c").unwrap(), false),
            Change::RemoveRule(RuleId::new("a").unwrap()),
            Change::DefaultVerdict(Verdict::Drop),
            Change::Malformed(Verdict::Drop),
            Change::Failsafe(Failsafe {
                enabled: true,
                ssh_from: entries("198.51.100.0/24"),
            }),
            Change::FailsafeWithoutSsh,
            Change::RemoveSet(bad),
        ];
        // From each prefix of the list: so that no later change hides what an earlier one did.
        for many in 1..=all.len() {
            let made = policy
                .change(&all[..many], Atomicity::AllOrNothing)
                .unwrap();
            let read = read_changes(&changes(&all[..many]).unwrap()).unwrap();
            let again = policy.change(&read, Atomicity::AllOrNothing).unwrap();
            assert_eq!(
                again.policy.hash(),
                made.policy.hash(),
                "{:?}",
                all[many - 1]
            );
        }
        let entries = |change: &fleet::Change| matches!(change.change, Some(Either::Entries(_)));
        let merged = changes(&all[..3]).unwrap();
        assert_eq!(
            merged.iter().filter(|c| entries(c)).count(),
            2,
            "{merged:?}"
        );
    }
}
