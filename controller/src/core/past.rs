//! What nodes were to have after an earlier transaction, made again from versions in the store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use tokio::task::spawn_blocking;
use xdpgate::Policy;

use super::records::{Kind, PolicyRecord, SetRecord, decode};
use super::{CommandError, Core, ErrorKind, View, effective, load};
use crate::domain::Name;

/// So many versions of a policy or set are looked at, the newest first.
const BACK: usize = 16;

impl Core {
    /// The effective policy of these policies, in the order of a profile, as it was after a transaction. `None` if one of
    /// them or of their sets was not there then or is not there now, or has changed more than 15 times since. Which
    /// policies a node had then is for the caller to know, as is what its rollouts held back.
    ///
    /// # Errors
    /// The store does not answer, or they said nothing together that could be in force.
    pub async fn effective_at(
        &self,
        policies: &[Name],
        sequence: u64,
    ) -> Result<Option<Policy>, CommandError> {
        let view = self.view();
        let mut states = Vec::new();
        let mut named = BTreeSet::new();
        for name in policies {
            let newest = view.policies.get(name).map(|policy| policy.version);
            let record: Option<PolicyRecord> =
                self.at(Kind::Policy, name, newest, sequence).await?;
            let Some(record) = record.filter(|record| !record.deleted) else {
                return Ok(None);
            };
            let state = load::policy(&self.0.contents, &view, name, record).await;
            let state = state.map_err(super::history::unreadable)?;
            named.extend(state.rules.sets().iter().cloned());
            states.push(Arc::new(state));
        }
        let mut sets = BTreeMap::new();
        for name in named {
            let Some(state) = self.set_then(&view, &name, sequence).await? else {
                return Ok(None);
            };
            sets.insert(name, Arc::new(state));
        }
        let made = spawn_blocking(move || effective::build(&states, &sets)).await;
        let stopped = |error: tokio::task::JoinError| {
            CommandError::new(ErrorKind::Unavailable, "", error.to_string())
        };
        made.map_err(stopped)?.map(Some)
    }

    async fn set_then(
        &self,
        view: &View,
        name: &Name,
        sequence: u64,
    ) -> Result<Option<crate::domain::SetState>, CommandError> {
        let newest = view.sets.get(name).map(|set| set.version);
        let record: Option<SetRecord> = self.at(Kind::Set, name, newest, sequence).await?;
        let Some(record) = record.filter(|record| !record.deleted) else {
            return Ok(None);
        };
        let state = load::set(&self.0.contents, view, name, record).await;
        state.map(Some).map_err(super::history::unreadable)
    }

    /// The record of a thing as it was after a transaction.
    async fn at<T: DeserializeOwned>(
        &self,
        kind: Kind,
        name: &Name,
        newest: Option<u64>,
        sequence: u64,
    ) -> Result<Option<T>, CommandError> {
        let newest = newest.unwrap_or(0);
        for version in (1..=newest).rev().take(BACK) {
            let key = kind.version_key(name, version);
            match self.0.store.get(&key).await? {
                Some(record) if record.revision.0 <= sequence => {
                    let unreadable =
                        |reason| CommandError::new(ErrorKind::Unavailable, key.as_str(), reason);
                    return decode(&record.value).map(Some).map_err(unreadable);
                }
                Some(_) => {}
                None => break,
            }
        }
        Ok(None)
    }
}
