//! From the messages of the API to the library's types. What is wrong is said with its field.

use std::time::Duration;

use jiff::Timestamp;
use xdpgate::policy::{
    AddressSet, AddressSetBuilder, Change, EntryCounters, Failsafe, Family, Prefix, Rule, RuleId,
    SetName, Verdict,
};
use xdpgate::{self as lib};
use xdpgate_api::v1;

use crate::agent::fault::{self, Fault};

/// A field that is wrong: its path and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::agent) struct Wrong {
    pub path: String,
    pub what: String,
}

impl Wrong {
    pub(in crate::agent) fn new(path: impl Into<String>, what: impl ToString) -> Self {
        Self {
            path: path.into(),
            what: what.to_string(),
        }
    }
}

impl From<Wrong> for Fault {
    fn from(wrong: Wrong) -> Self {
        Self::field(wrong.path, wrong.what)
    }
}

impl From<Wrong> for tonic::Status {
    fn from(wrong: Wrong) -> Self {
        Fault::from(wrong).into()
    }
}

/// An address or prefix.
pub(in crate::agent) fn prefix(path: &str, text: &str) -> Result<Prefix, Wrong> {
    let parsed = text.parse();
    parsed.map_err(|e| Wrong::new(path, fault::prefix(&e)))
}

/// The name of a set.
pub(in crate::agent) fn set_name(path: &str, name: &str) -> Result<SetName, Wrong> {
    let wrong = || {
        let what = format!("{name:?} is not the name of a set: 1 to 64 of a-z A-Z 0-9 . _ -");
        Wrong::new(path, what)
    };
    SetName::new(name).ok_or_else(wrong)
}

fn rule_id(path: &str, id: &str) -> Result<RuleId, Wrong> {
    let wrong = || {
        let what = format!("{id:?} is not the id of a rule: 1 to 64 of a-z A-Z 0-9 . _ -");
        Wrong::new(path, what)
    };
    RuleId::new(id).ok_or_else(wrong)
}

/// A length of time that is more than nothing, and not above `most`.
pub(in crate::agent) fn duration(
    path: &str,
    duration: &prost_types::Duration,
    least: Duration,
    most: Duration,
) -> Result<Duration, Wrong> {
    let parsed = Duration::try_from(*duration).ok();
    parsed
        .filter(|d| (least..=most).contains(d))
        .ok_or_else(|| {
            let what = format!(
                "{}s is out of range: it must be {least:?} to {} s",
                seconds(duration),
                most.as_secs()
            );
            Wrong::new(path, what)
        })
}

fn seconds(duration: &prost_types::Duration) -> f64 {
    duration.seconds as f64 + f64::from(duration.nanos) / 1e9
}

fn timestamp(path: &str, at: &prost_types::Timestamp) -> Result<Timestamp, Wrong> {
    let what = || format!("{} s and {} ns is no time", at.seconds, at.nanos);
    if !(0..1_000_000_000).contains(&at.nanos) {
        return Err(Wrong::new(path, what()));
    }
    Timestamp::new(at.seconds, at.nanos).map_err(|_| Wrong::new(path, what()))
}

/// An entry of a set, and when it expires.
fn entry(path: &str, entry: &v1::SetEntry) -> Result<(Prefix, Option<Timestamp>), Wrong> {
    let parsed = entry.prefix.parse::<Prefix>();
    let prefix = parsed.map_err(|e| Wrong::new(format!("{path}.prefix"), fault::prefix(&e)))?;
    let expires = entry.expires.as_ref();
    let expires = expires.map(|at| timestamp(&format!("{path}.expires"), at));
    Ok((prefix, expires.transpose()?))
}

/// Adds the entries of a part of an import.
pub(in crate::agent) fn add_entries(
    builder: &mut AddressSetBuilder,
    part: &v1::SetEntries,
) -> Result<(), Wrong> {
    for (index, given) in part.entries.iter().enumerate() {
        let (prefix, expires) = entry(&format!("entries.entries[{index}]"), given)?;
        builder.push(prefix, expires);
    }
    for (path, family, packed) in [
        ("entries.packed_ipv4", Family::Ipv4, &part.packed_ipv4),
        ("entries.packed_ipv6", Family::Ipv6, &part.packed_ipv6),
    ] {
        builder
            .push_packed(family, packed)
            .map_err(|e| Wrong::new(path, e))?;
    }
    Ok(())
}

pub(in crate::agent) fn counters(count_entries: bool) -> EntryCounters {
    match count_entries {
        true => EntryCounters::Entry,
        false => EntryCounters::None,
    }
}

/// The name of the alternative of a change, as in the message.
pub(in crate::agent) fn change_name(change: &v1::Change) -> &'static str {
    use v1::change::Change as Is;
    match &change.change {
        Some(Is::CreateRule(_)) => "create_rule",
        Some(Is::PutRule(_)) => "put_rule",
        Some(Is::RemoveRule(_)) => "remove_rule",
        Some(Is::CreateSet(_)) => "create_set",
        Some(Is::PutSet(_)) => "put_set",
        Some(Is::RemoveSet(_)) => "remove_set",
        Some(Is::AddEntries(_)) => "add_entries",
        Some(Is::RemoveEntries(_)) => "remove_entries",
        Some(Is::DefaultVerdict(_)) => "default_verdict",
        Some(Is::Malformed(_)) => "malformed",
        Some(Is::EnableRule(_)) => "enable_rule",
        Some(Is::Failsafe(_)) => "failsafe",
        None => "change",
    }
}

/// A change; `path` is that of its alternative.
pub(in crate::agent) fn change(path: &str, change: &v1::Change) -> Result<Change, Wrong> {
    use v1::change::Change as Is;
    let Some(change) = &change.change else {
        let what = "no change of a kind that this version knows: set one, or upgrade xdpgated";
        return Err(Wrong::new(path, what));
    };
    Ok(match change {
        Is::CreateRule(text) => Change::CreateRule(rule(path, text)?),
        Is::PutRule(text) => Change::PutRule(rule(path, text)?),
        Is::RemoveRule(id) => Change::RemoveRule(rule_id(path, id)?),
        Is::CreateSet(set) => {
            let (name, set) = address_set(path, set)?;
            Change::CreateSet(name, set)
        }
        Is::PutSet(set) => {
            let (name, set) = address_set(path, set)?;
            Change::PutSet(name, set)
        }
        Is::RemoveSet(name) => Change::RemoveSet(set_name(path, name)?),
        Is::AddEntries(set) => {
            let (name, entries) = entries(path, set)?;
            Change::AddEntries(name, entries)
        }
        Is::RemoveEntries(set) => {
            let (name, entries) = entries(path, set)?;
            Change::RemoveEntries(name, entries.into_iter().map(|(p, _)| p).collect())
        }
        Is::DefaultVerdict(verdict) => Change::DefaultVerdict(parse_verdict(path, *verdict)?),
        Is::Malformed(verdict) => Change::Malformed(parse_verdict(path, *verdict)?),
        Is::EnableRule(rule) => {
            Change::EnableRule(rule_id(&format!("{path}.id"), &rule.id)?, rule.enabled)
        }
        Is::Failsafe(given) => failsafe(path, given)?,
    })
}

fn failsafe(path: &str, given: &v1::Failsafe) -> Result<Change, Wrong> {
    let place = |index: usize| format!("{path}.ssh_from[{index}]");
    if given.none && !given.ssh_from.is_empty() {
        let what = "with none nothing passes before the rules: leave one of both out";
        return Err(Wrong::new(place(0), what));
    }
    if given.no_ssh {
        if given.none || !given.ssh_from.is_empty() {
            let what = "not with none or ssh_from: leave one of them out";
            return Err(Wrong::new(format!("{path}.no_ssh"), what));
        }
        return Ok(Change::FailsafeWithoutSsh);
    }
    let ssh_from = given.ssh_from.iter().enumerate();
    let ssh_from = ssh_from.map(|(index, text)| prefix(&place(index), text));
    Ok(Change::Failsafe(Failsafe {
        enabled: !given.none,
        ssh_from: ssh_from.collect::<Result<_, _>>()?,
    }))
}

fn rule(path: &str, text: &str) -> Result<Rule, Wrong> {
    Rule::from_yaml(text).map_err(|error| {
        let path = match error.field() {
            Some(field) => format!("{path}.{field}"),
            None => path.to_owned(),
        };
        Wrong::new(path, fault::description(&error))
    })
}

fn parse_verdict(path: &str, verdict: i32) -> Result<Verdict, Wrong> {
    match v1::Verdict::try_from(verdict) {
        Ok(v1::Verdict::Pass) => Ok(lib::Verdict::Pass),
        Ok(v1::Verdict::Drop) => Ok(lib::Verdict::Drop),
        _ => Err(Wrong::new(path, "it must be VERDICT_PASS or VERDICT_DROP")),
    }
}

fn address_set(path: &str, set: &v1::AddressSet) -> Result<(SetName, AddressSet), Wrong> {
    let (name, entries) = entries_of(path, set)?;
    let set = AddressSet::from_entries(entries).with_counters(counters(set.count_entries));
    Ok((name, set))
}

/// Entries that come or go.
fn entries(path: &str, set: &v1::AddressSet) -> Result<Entries, Wrong> {
    if set.count_entries {
        let what = "only where a set is made: put the set, to make it count";
        return Err(Wrong::new(format!("{path}.count_entries"), what));
    }
    entries_of(path, set)
}

type Entries = (SetName, Vec<(Prefix, Option<Timestamp>)>);

fn entries_of(path: &str, set: &v1::AddressSet) -> Result<Entries, Wrong> {
    let name = set_name(&format!("{path}.name"), &set.name)?;
    let parsed = set
        .entries
        .iter()
        .enumerate()
        .map(|(index, given)| entry(&format!("{path}.entries[{index}]"), given));
    Ok((name, parsed.collect::<Result<_, _>>()?))
}

/// Which frames a ban is about.
pub(in crate::agent) fn ban_scope(scope: v1::BanScope) -> lib::BanScope {
    match scope {
        v1::BanScope::Unspecified | v1::BanScope::Source => lib::BanScope::Source,
        v1::BanScope::Destination => lib::BanScope::Destination,
        v1::BanScope::Both => lib::BanScope::Both,
    }
}

/// An enumeration's value that this version knows.
pub(in crate::agent) fn known<E: TryFrom<i32>>(path: &str, value: i32) -> Result<E, Wrong> {
    E::try_from(value).map_err(|_| {
        let what = format!("{value} is no value that this version knows: see the .proto file");
        Wrong::new(path, what)
    })
}
