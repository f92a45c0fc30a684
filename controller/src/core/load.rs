//! Records into a view.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use xdpgate::policy::EntryCounters;

use super::contents::{load_entries, load_rules};
use super::profile::{Hold, holds};
use super::records::{Kind, MODE, ModeRecord, PolicyRecord, SEQUENCE, SetRecord, decode};
use super::view::Things;
use super::{OpenError, View};
use crate::content::{Content, ContentError, Contents};
use crate::domain::{Name, PolicyState, SetState};
use crate::store::{Key, Revision, Store, StoreError};

/// What views are made of; all other records are of no concern here.
const PREFIXES: [&str; 7] = [
    "policy/",
    "set/",
    "group/",
    "node/",
    "rollout/",
    "rollout-plan/",
    "setting/",
];
/// How many records are read at a time.
const PAGE: usize = 1000;

/// Records that changed, each with the transaction that did it.
pub(super) type Changes = BTreeMap<Key, (Option<Bytes>, Revision)>;

/// Whether a record is part of views.
pub(super) fn is_of_views(key: &Key) -> bool {
    PREFIXES
        .iter()
        .any(|prefix| key.as_str().starts_with(prefix))
}

/// All records of one revision that differ from a view.
pub(super) async fn list(
    store: &Arc<dyn Store>,
    view: &View,
) -> Result<(Changes, Revision), StoreError> {
    let mut changes = Changes::new();
    let mut at = None;
    let mut there = BTreeSet::new();
    for prefix in PREFIXES {
        let mut after: Option<Key> = None;
        loop {
            let page = store.list(prefix, after.as_ref(), PAGE, at).await?;
            at = Some(page.revision);
            after = page.records.last().map(|(key, _)| key.clone());
            for (key, record) in page.records {
                if let Some(thing) = Kind::of(&key) {
                    let known = view.heads.revisions.get(&thing) == Some(&record.revision);
                    there.insert(thing);
                    if known {
                        continue;
                    }
                }
                changes.insert(key, (Some(record.value), record.revision));
            }
            if !page.more {
                break;
            }
        }
    }
    let at = at.unwrap_or_default();
    for thing in view
        .heads
        .revisions
        .keys()
        .filter(|thing| !there.contains(thing))
    {
        changes.insert(thing.0.key(&thing.1), (None, at));
    }
    Ok((changes, at))
}

/// Why a view cannot be brought up to date.
#[derive(Debug)]
pub(super) enum LoadError {
    /// The store does not give what records name; later it may.
    Store(StoreError),
    /// A record is not what this version understands.
    Record(OpenError),
}

impl From<ContentError> for LoadError {
    fn from(error: ContentError) -> Self {
        Self::Store(match error {
            ContentError::Store(error) => error,
            error => StoreError::Damaged(error.to_string()),
        })
    }
}

/// The view after changes, but for what [`View::settle`] makes; and which nodes changed.
pub(super) async fn apply(
    store: &Arc<dyn Store>,
    contents: &Contents,
    view: &View,
    changes: Changes,
    revision: Revision,
) -> Result<(View, BTreeSet<Name>), LoadError> {
    let mut after = view.clone();
    after.revision = revision;
    let mut nodes = BTreeSet::new();
    for (key, (value, at)) in changes {
        let wrong = |reason: String| {
            let key = key.as_str().to_owned();
            LoadError::Record(OpenError::Record { key, reason })
        };
        if key.as_str() == SEQUENCE {
            after.sequence = at;
        } else if key.as_str() == MODE {
            let record: Option<ModeRecord> =
                value.as_ref().map(decode).transpose().map_err(wrong)?;
            after.mode = record.and_then(|record| record.mode);
        }
        let Some((kind, name)) = Kind::of(&key) else {
            continue;
        };
        let content = match kind {
            Kind::Policy => {
                let record: Option<PolicyRecord> =
                    value.as_ref().map(decode).transpose().map_err(wrong)?;
                let content = record.as_ref().map(|record| record.rules);
                let policy = match record {
                    Some(record) => Some(policy(contents, view, &name, record).await?),
                    None => None,
                };
                put(&mut after.policies, &name, policy);
                content
            }
            Kind::Set => {
                let record: Option<SetRecord> =
                    value.as_ref().map(decode).transpose().map_err(wrong)?;
                let content = record.as_ref().map(|record| record.entries);
                let set = match record {
                    Some(record) => Some(set(contents, view, &name, record).await?),
                    None => None,
                };
                put(&mut after.sets, &name, set);
                content
            }
            Kind::Group => {
                let group = value.as_ref().map(decode).transpose().map_err(wrong)?;
                put(&mut after.groups, &name, group);
                None
            }
            Kind::Node => {
                let node = value.as_ref().map(decode).transpose().map_err(wrong)?;
                put(&mut after.nodes, &name, node);
                nodes.insert(name.clone());
                None
            }
            Kind::Rollout => {
                let rollout = value.as_ref().map(decode).transpose().map_err(wrong)?;
                put(&mut after.rollouts, &name, rollout);
                None
            }
            Kind::Plan => {
                let plan = value.as_ref().map(decode).transpose().map_err(wrong)?;
                put(&mut after.plans, &name, plan);
                None
            }
        };
        let thing = (kind, name);
        if kind == Kind::Policy || kind == Kind::Set {
            let all = Arc::make_mut(&mut after.heads.contents);
            match content {
                Some(content) => all.insert(thing.clone(), content),
                None => all.remove(&thing),
            };
        }
        let all = Arc::make_mut(&mut after.heads.revisions);
        match value {
            Some(_) => all.insert(thing, at),
            None => all.remove(&thing),
        };
    }
    if !Arc::ptr_eq(&after.rollouts, &view.rollouts) {
        after.holds = Arc::new(held(store, contents, view, &after).await?);
    }
    Ok((after, nodes))
}

/// What the rollouts of a view do; versions of policies that neither this view nor the one before has are read.
async fn held(
    store: &Arc<dyn Store>,
    contents: &Contents,
    before: &View,
    after: &View,
) -> Result<Vec<Hold>, LoadError> {
    let mut read: Vec<Arc<PolicyState>> = Vec::new();
    let known = |policy: &str, version| {
        let before = || before.policy_version(policy, version);
        after.policy_version(policy, version).or_else(before)
    };
    for rollout in after.rollouts.values().filter(|rollout| rollout.in_force) {
        for version in [rollout.from, rollout.to] {
            let (policy, Ok(name)) = (rollout.policy.as_str(), Name::new(&rollout.policy)) else {
                continue;
            };
            if known(policy, version).is_some() {
                continue;
            }
            let key = Kind::Policy.version_key(&name, version);
            let record = store.get(&key).await.map_err(LoadError::Store)?;
            let wrong = |reason: String| {
                let key = key.as_str().to_owned();
                LoadError::Record(OpenError::Record { key, reason })
            };
            let missing = || wrong(format!("rollout {} needs it and it is gone", rollout.id));
            let record = decode(&record.ok_or_else(missing)?.value).map_err(wrong)?;
            read.push(Arc::new(
                self::policy(contents, after, &name, record).await?,
            ));
        }
    }
    let find = |policy: &str, version| {
        let read = || {
            let mut read = read.iter();
            read.find(|state| state.name.as_str() == policy && state.version == version)
        };
        known(policy, version).or_else(|| read().cloned())
    };
    Ok(holds(&after.rollouts, find))
}

fn put<T>(things: &mut Things<T>, name: &Name, thing: Option<T>) {
    let things = Arc::make_mut(things);
    match thing {
        Some(thing) => things.insert(name.clone(), Arc::new(thing)),
        None => things.remove(name),
    };
}

impl View {
    /// The rules or entries of a thing, where they are kept.
    pub(super) fn content(&self, kind: Kind, name: &Name) -> Option<&Content> {
        self.heads.contents.get(&(kind, name.clone()))
    }
}

/// A policy of its record, read by what differs from the view.
pub(super) async fn policy(
    contents: &Contents,
    view: &View,
    name: &Name,
    record: PolicyRecord,
) -> Result<PolicyState, ContentError> {
    let old = view.policies.get(name).map(|policy| &policy.rules);
    let old = view.content(Kind::Policy, name).zip(old);
    Ok(PolicyState {
        name: name.clone(),
        version: record.version,
        comment: record.comment,
        settings: record.settings,
        rules: load_rules(contents, old, &record.rules).await?,
        created: record.created,
        updated: record.updated,
    })
}

/// A set of its record, likewise.
pub(super) async fn set(
    contents: &Contents,
    view: &View,
    name: &Name,
    record: SetRecord,
) -> Result<SetState, ContentError> {
    let counters = match record.count_entries {
        true => EntryCounters::Entry,
        false => EntryCounters::None,
    };
    let old = view.sets.get(name).map(|set| &set.entries);
    let old = view.content(Kind::Set, name).zip(old);
    Ok(SetState {
        name: name.clone(),
        version: record.version,
        comment: record.comment,
        default_expiry: record.default_expiry,
        entries: load_entries(contents, old, &record.entries, counters).await?,
        created: record.created,
        updated: record.updated,
    })
}
