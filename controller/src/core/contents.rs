//! Rules and entries as contents: only what differs is written and read.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use xdpgate::policy::{AddressSet, AddressSetBuilder, EntryCounters, Rule, RuleId};

use crate::content::{Content, ContentError, Contents, entries, rules};
use crate::domain::{RuleState, Rules, diff};
use crate::store::StoreError;

/// Keeps rules; `old` are those that are kept already, which they came from.
pub(super) async fn save_rules(
    contents: &Contents,
    old: Option<(&Content, &Rules)>,
    new: &Rules,
) -> Result<Content, ContentError> {
    let Some((content, old)) = old else {
        let entries: Vec<_> = new.iter().map(|state| rule_entry(state)).collect();
        return contents.build(rules::SHAPE, entries).await;
    };
    let changes: BTreeMap<_, _> = old
        .differences(new)
        .into_iter()
        .filter_map(|(from, to)| {
            let key = rules::key(from.or(to)?.rule.id.as_str());
            Some((key, to.map(|to| rule_entry(to).1)))
        })
        .collect();
    if changes.is_empty() {
        return Ok(*content);
    }
    contents.edit(rules::SHAPE, content, changes).await
}

/// Reads rules; `old` are those that are known already.
pub(super) async fn load_rules(
    contents: &Contents,
    old: Option<(&Content, &Rules)>,
    new: &Content,
) -> Result<Rules, ContentError> {
    let Some((content, old)) = old else {
        let entries = contents.all(new).await?;
        let states = entries.iter().map(|(_, value)| rule_state(value));
        return Ok(Rules::new(states.collect::<Result<Vec<_>, _>>()?));
    };
    let mut all = old.clone();
    let mut changes = Vec::new();
    for difference in contents.diff(content, new).await? {
        let id = RuleId::new(&String::from_utf8_lossy(&difference.key))
            .ok_or_else(|| damaged("a key of rules is no id"))?;
        changes.push((id, difference.to.as_ref().map(rule_state).transpose()?));
    }
    all.edit(changes);
    Ok(all)
}

/// Keeps entries, likewise.
pub(super) async fn save_entries(
    contents: &Contents,
    old: Option<(&Content, &AddressSet)>,
    new: &AddressSet,
) -> Result<Content, ContentError> {
    if let Some((content, old)) = old {
        let (gone, come) = diff::entries(old, new);
        // Where most differs all of it is read and written anyway.
        if gone.len() + come.len() <= old.len() / 4 {
            let mut changes = BTreeMap::new();
            changes.extend(gone.into_iter().map(|prefix| (entries::key(prefix), None)));
            let put = |(prefix, at)| (entries::key(prefix), Some(entries::value(at)));
            changes.extend(come.into_iter().map(put));
            if changes.is_empty() {
                return Ok(*content);
            }
            return contents.edit(entries::SHAPE, content, changes).await;
        }
    }
    let mut all: Vec<(Bytes, Bytes)> = new.entries().map(|(p, at)| entries::entry(p, at)).collect();
    all.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    contents.build(entries::SHAPE, all).await
}

/// Reads entries, likewise.
pub(super) async fn load_entries(
    contents: &Contents,
    old: Option<(&Content, &Arc<AddressSet>)>,
    new: &Content,
    counters: EntryCounters,
) -> Result<Arc<AddressSet>, ContentError> {
    let Some((content, old)) = old else {
        let mut builder = AddressSetBuilder::default();
        for (key, value) in contents.all(new).await? {
            let (prefix, at) = entry(&key, &value)?;
            builder.push(prefix, at);
        }
        return Ok(Arc::new(builder.build(counters)));
    };
    let differences = contents.diff(content, new).await?;
    if differences.is_empty() && old.counters() == counters {
        return Ok(Arc::clone(old));
    }
    let (mut gone, mut come) = (Vec::new(), Vec::new());
    for difference in differences {
        let (prefix, _) = entry(&difference.key, &Bytes::new())?;
        gone.push(prefix);
        if let Some(value) = difference.to {
            come.push(entry(&difference.key, &value)?);
        }
    }
    let mut set = AddressSet::clone(old).with_counters(counters);
    set.remove(gone);
    set.insert(come);
    Ok(Arc::new(set))
}

fn entry(
    key: &Bytes,
    value: &Bytes,
) -> Result<(xdpgate::policy::Prefix, Option<jiff::Timestamp>), ContentError> {
    let prefix = entries::prefix(key).ok_or_else(|| damaged("a key of entries is no prefix"))?;
    let at = entries::expires(value).ok_or_else(|| damaged("an expiry is no time"))?;
    Ok((prefix, at))
}

/// The version that touched it, a blank, and the rule.
fn rule_entry(state: &RuleState) -> (Bytes, Bytes) {
    let value = format!("{} {}", state.version, state.rule.to_json());
    (rules::key(state.rule.id.as_str()), value.into())
}

fn rule_state(value: &Bytes) -> Result<RuleState, ContentError> {
    let text = std::str::from_utf8(value).map_err(|_| damaged("a rule is no text"))?;
    let parts = text.split_once(' ');
    let (version, rule) = parts.ok_or_else(|| damaged("a rule has no version"))?;
    Ok(RuleState {
        version: version
            .parse()
            .map_err(|_| damaged("a rule has no version"))?,
        rule: Rule::from_yaml(rule).map_err(|error| damaged(&error.to_string()))?,
    })
}

fn damaged(reason: &str) -> ContentError {
    StoreError::Damaged(reason.to_owned()).into()
}
