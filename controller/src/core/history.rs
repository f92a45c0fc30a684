//! Versions of policies and sets: what was, who changed it, and what differs.

use std::fmt;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};
use xdpgate::policy::{Prefix, Rule, RuleId};

use super::draft::Past;
use super::load;
use super::records::{Kind, PolicyRecord, SetRecord, decode};
use super::{Command, CommandError, Core, ErrorKind, View};
use crate::content::ContentError;
use crate::domain::{Name, PolicyState, SetState, Settings, Touch, diff};

/// One version of a policy or set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VersionInfo {
    /// Its number.
    pub version: u64,
    /// Who made it, when and why.
    #[serde(flatten)]
    pub updated: Touch,
    /// What was changed, in words; the first ones of many.
    pub changed: Vec<String>,
    /// That the thing was deleted is a version too.
    pub deleted: bool,
    /// How many rules or entries it has.
    pub count: u64,
}

/// What differs between two versions of a policy. Its `Display` says it in words, a line each.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct PolicyDiff {
    /// What differs of the settings: the name, and the values as JSON.
    pub settings: Vec<FieldDiff>,
    /// Rules that came.
    pub added: Vec<String>,
    /// Rules that went.
    pub removed: Vec<String>,
    /// Rules that are another.
    pub changed: Vec<RuleDiff>,
}

/// What differs of a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RuleDiff {
    /// Its id.
    pub id: String,
    /// The fields.
    pub fields: Vec<FieldDiff>,
}

/// A field, as it was and as it is; null where it was absent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldDiff {
    /// Its name, dotted.
    pub field: String,
    /// As it was.
    pub from: Value,
    /// As it is.
    pub to: Value,
}

/// What differs between two versions of a set. Its `Display` says how much.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SetDiff {
    /// Entries that came, with their expiry; those that expire at another time, too.
    pub added: Vec<(Prefix, Option<Timestamp>)>,
    /// Entries that went; those that expire at another time, too.
    pub removed: Vec<Prefix>,
}

impl Core {
    /// Versions of a policy, the newest first, before a version (absent: from the last one on).
    ///
    /// # Errors
    /// There never was one of this name, or the store does not answer.
    pub async fn policy_versions(
        &self,
        policy: &Name,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<VersionInfo>, CommandError> {
        let mut versions = Vec::new();
        for version in self.numbers(Kind::Policy, policy, before, limit).await? {
            let record: PolicyRecord = self.version(Kind::Policy, policy, version).await?;
            versions.push(VersionInfo {
                version,
                updated: record.updated,
                changed: record.changed,
                deleted: record.deleted,
                count: record.rules.count,
            });
        }
        Ok(versions)
    }

    /// Versions of a set, likewise.
    ///
    /// # Errors
    /// Likewise.
    pub async fn set_versions(
        &self,
        set: &Name,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<VersionInfo>, CommandError> {
        let mut versions = Vec::new();
        for version in self.numbers(Kind::Set, set, before, limit).await? {
            let record: SetRecord = self.version(Kind::Set, set, version).await?;
            versions.push(VersionInfo {
                version,
                updated: record.updated,
                changed: record.changed,
                deleted: record.deleted,
                count: record.entries.count,
            });
        }
        Ok(versions)
    }

    /// A policy as it was in a version.
    ///
    /// # Errors
    /// There is no such version, or the store does not answer.
    pub async fn policy_at(
        &self,
        policy: &Name,
        version: u64,
    ) -> Result<PolicyState, CommandError> {
        let record = self.version(Kind::Policy, policy, version).await?;
        let state = load::policy(&self.0.contents, &self.view(), policy, record).await;
        state.map_err(unreadable)
    }

    /// A set as it was in a version.
    ///
    /// # Errors
    /// Likewise.
    pub async fn set_at(&self, set: &Name, version: u64) -> Result<SetState, CommandError> {
        let record = self.version(Kind::Set, set, version).await?;
        let state = load::set(&self.0.contents, &self.view(), set, record).await;
        state.map_err(unreadable)
    }

    /// What differs between two versions of a policy.
    ///
    /// # Errors
    /// Likewise.
    pub async fn policy_diff(
        &self,
        policy: &Name,
        from: u64,
        to: u64,
    ) -> Result<PolicyDiff, CommandError> {
        let from = self.policy_at(policy, from).await?;
        Ok(PolicyDiff::between(
            &from,
            &self.policy_at(policy, to).await?,
        ))
    }

    /// What differs between two versions of a set.
    ///
    /// # Errors
    /// Likewise.
    pub async fn set_diff(&self, set: &Name, from: u64, to: u64) -> Result<SetDiff, CommandError> {
        let (from, to) = (self.set_at(set, from).await?, self.set_at(set, to).await?);
        let (removed, added) = diff::entries(&from.entries, &to.entries);
        Ok(SetDiff { added, removed })
    }

    /// Which version of a policy touched a rule last.
    ///
    /// # Errors
    /// There is no such rule, or the store does not answer.
    pub async fn blame(&self, policy: &Name, rule: &RuleId) -> Result<VersionInfo, CommandError> {
        let view = self.view();
        let state = view
            .policies
            .get(policy)
            .and_then(|policy| policy.rules.get(rule.as_str()));
        let Some(state) = state else {
            let object = format!("policy/{policy}/rule/{rule}");
            return Err(CommandError::new(
                ErrorKind::NotFound,
                object,
                "there is no such rule",
            ));
        };
        let versions = self
            .policy_versions(policy, Some(state.version + 1), 1)
            .await?;
        versions
            .into_iter()
            .next()
            .ok_or_else(|| no_version(Kind::Policy, policy, state.version))
    }

    /// What commands need that is not in the view.
    pub(super) async fn past(
        &self,
        view: &View,
        commands: &[Command],
    ) -> Result<Past, CommandError> {
        let mut past = Past::default();
        for command in commands {
            match command {
                Command::RevertPolicy { policy, version } => {
                    let state = self.policy_at(policy, *version).await?;
                    past.policies.insert((policy.clone(), *version), state);
                }
                Command::RevertSet { set, version } => {
                    let state = self.set_at(set, *version).await?;
                    past.sets.insert((set.clone(), *version), state);
                }
                _ => {}
            }
            let Some((kind, name)) = command.owner() else {
                continue;
            };
            let is_new = match kind {
                Kind::Policy => !view.policies.contains_key(&name),
                Kind::Set => !view.sets.contains_key(&name),
                Kind::Group | Kind::Node | Kind::Rollout | Kind::Plan => false,
            };
            if is_new && !past.last.contains_key(&(kind, name.clone())) {
                let last = self.last_version(kind, &name).await?;
                past.last.insert((kind, name), last);
            }
        }
        Ok(past)
    }

    /// The numbers of versions, the newest first.
    async fn numbers(
        &self,
        kind: Kind,
        name: &Name,
        before: Option<u64>,
        limit: usize,
    ) -> Result<impl Iterator<Item = u64> + use<>, CommandError> {
        let last = self.last_version(kind, name).await?;
        if last == 0 {
            let object = format!("{}/{name}", kind.word());
            return Err(CommandError::new(
                ErrorKind::NotFound,
                object,
                "there never was one",
            ));
        }
        let newest = before.map_or(last, |before| before.saturating_sub(1).min(last));
        let first = self.first_version(kind, name).await?;
        Ok((first..=newest).rev().take(limit))
    }

    /// The last version of a thing, whether it is there or not; 0 if there never was one. From the first one that is kept
    /// versions have no gaps.
    async fn last_version(&self, kind: Kind, name: &Name) -> Result<u64, CommandError> {
        let mut there = self.first_version(kind, name).await? - 1;
        let mut step = 1;
        let mut growing = true;
        while step > 0 {
            let key = kind.version_key(name, there + step);
            if self.0.store.get(&key).await?.is_some() {
                there += step;
                if growing {
                    step *= 2;
                }
            } else {
                growing = false;
                step /= 2;
            }
        }
        Ok(there)
    }

    async fn version<T: serde::de::DeserializeOwned>(
        &self,
        kind: Kind,
        name: &Name,
        version: u64,
    ) -> Result<T, CommandError> {
        let key = kind.version_key(name, version);
        let Some(record) = self.0.store.get(&key).await? else {
            let error = no_version(kind, name, version);
            return Err(match self.first_version(kind, name).await? {
                first if version > 0 && version < first => {
                    error.mend(format!("version {first} is the oldest that is kept"))
                }
                _ => error,
            });
        };
        let unreadable = |reason| CommandError::new(ErrorKind::Unavailable, key.as_str(), reason);
        decode(&record.value).map_err(unreadable)
    }
}

fn no_version(kind: Kind, name: &Name, version: u64) -> CommandError {
    let object = format!("{}/{name}", kind.word());
    let reason = format!("there is no version {version}");
    CommandError::new(ErrorKind::NotFound, object, reason).field("version")
}

pub(super) fn unreadable(error: ContentError) -> CommandError {
    match error {
        ContentError::Store(error) => error.into(),
        error => CommandError::new(ErrorKind::Unavailable, "", error.to_string()),
    }
}

impl PolicyDiff {
    /// What differs between two states of a policy.
    pub fn between(from: &PolicyState, to: &PolicyState) -> Self {
        let mut diff = Self {
            settings: field_diffs(&settings(&from.settings), &settings(&to.settings)),
            ..Self::default()
        };
        for (old, new) in from.rules.differences(&to.rules) {
            match (old, new) {
                (None, Some(new)) => diff.added.push(new.rule.id.to_string()),
                (Some(old), None) => diff.removed.push(old.rule.id.to_string()),
                (Some(old), Some(new)) => diff.changed.push(RuleDiff {
                    id: new.rule.id.to_string(),
                    fields: field_diffs(&fields(&old.rule), &fields(&new.rule)),
                }),
                (None, None) => {}
            }
        }
        diff
    }
}

fn settings(settings: &Settings) -> Map<String, Value> {
    match serde_json::to_value(settings) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

/// The fields of a rule; those of its match by dotted names.
fn fields(rule: &Rule) -> Map<String, Value> {
    let mut fields: Map<String, Value> = serde_json::from_str(&rule.to_json()).unwrap_or_default();
    if let Some(Value::Object(matches)) = fields.remove("match") {
        fields.extend(
            matches
                .into_iter()
                .map(|(name, value)| (format!("match.{name}"), value)),
        );
    }
    fields
}

fn field_diffs(from: &Map<String, Value>, to: &Map<String, Value>) -> Vec<FieldDiff> {
    let mut names: Vec<&String> = from.keys().chain(to.keys()).collect();
    names.sort();
    names.dedup();
    let get = |map: &Map<String, Value>, name: &String| map.get(name).cloned().unwrap_or_default();
    let all = names.into_iter().map(|name| FieldDiff {
        field: name.clone(),
        from: get(from, name),
        to: get(to, name),
    });
    all.filter(|field| field.from != field.to).collect()
}

impl fmt::Display for FieldDiff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, from, to } = self;
        match (from.is_null(), to.is_null()) {
            (true, _) => write!(f, "{field}: {to}"),
            (_, true) => write!(f, "{field}: {from} taken out"),
            _ => write!(f, "{field}: {from} -> {to}"),
        }
    }
}

impl fmt::Display for PolicyDiff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for field in &self.settings {
            writeln!(f, "{field}")?;
        }
        for id in &self.removed {
            writeln!(f, "rule {id} removed")?;
        }
        for id in &self.added {
            writeln!(f, "rule {id} added")?;
        }
        for rule in &self.changed {
            let fields: Vec<String> = rule.fields.iter().map(FieldDiff::to_string).collect();
            writeln!(f, "rule {} changed: {}", rule.id, fields.join(", "))?;
        }
        Ok(())
    }
}

impl fmt::Display for SetDiff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} entries added, {} removed",
            self.added.len(),
            self.removed.len()
        )
    }
}
