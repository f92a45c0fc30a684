//! What is kept of what was: so many versions of each policy and set, and the audit log for a time.

use jiff::Timestamp;

use super::audit;
use super::records::Kind;
use super::{CommandError, Core, View};
use crate::domain::Name;
use crate::store::{CommitError, Key, MAX_OPERATIONS, Transaction};

/// Transactions of one thing, or of the audit log, that one call makes at most: the next one goes on.
const MOST: usize = 50;

impl Core {
    /// Deletes the oldest versions of policies and sets, so that of each the last `keep` are left, and those that a rollout in force
    /// names. Returns how many went. Their chunks go with the next sweep.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn forget_versions(&self, keep: u64) -> Result<u64, CommandError> {
        let view = self.view();
        let policies = view.policies.values();
        let policies = policies.map(|policy| (Kind::Policy, policy.name.clone(), policy.version));
        let sets = view.sets.values();
        let sets = sets.map(|set| (Kind::Set, set.name.clone(), set.version));
        let mut gone = 0;
        for (kind, name, version) in policies.chain(sets) {
            let first = (version + 1).saturating_sub(keep.max(1)).max(1);
            let first = match kind {
                Kind::Policy => first.min(needed(&view, &name).unwrap_or(first)),
                _ => first,
            };
            if first > 1 {
                gone += self.forget_before(kind, &name, first).await?;
            }
        }
        Ok(gone)
    }

    async fn forget_before(
        &self,
        kind: Kind,
        name: &Name,
        first: u64,
    ) -> Result<u64, CommandError> {
        let mut gone = 0;
        for _ in 0..MOST {
            let key = kind.floor_key(name);
            let record = self.0.store.get(&key).await?;
            let from = floor(record.as_ref().map(|record| &record.value[..]));
            let to = first.min(from + MAX_OPERATIONS as u64 - 2);
            if from >= to {
                break;
            }
            let versions = (from..to).map(|version| (kind.version_key(name, version), None));
            let value = to.to_string().into_bytes();
            let transaction = Transaction {
                expect: vec![(key.clone(), record.map(|record| record.revision))],
                write: versions.chain([(key, Some(value.into()))]).collect(),
            };
            match self.0.store.commit(transaction).await {
                Ok(_) => gone += to - from,
                // Another controller does the same, or it is read again what became of it.
                Err(CommitError::Conflict(_) | CommitError::Unknown(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(gone)
    }

    /// The first version of a thing that is kept.
    pub(super) async fn first_version(&self, kind: Kind, name: &Name) -> Result<u64, CommandError> {
        let record = self.0.store.get(&kind.floor_key(name)).await?;
        Ok(floor(record.as_ref().map(|record| &record.value[..])))
    }

    /// Deletes the entries of the audit log that are older. Returns how many went.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn forget_audit(&self, before: Timestamp) -> Result<u64, CommandError> {
        let end = audit::begin_of(before);
        let mut gone = 0;
        for _ in 0..MOST {
            let store = &self.0.store;
            let page = store.list(audit::PREFIX, None, MAX_OPERATIONS, None);
            let keys = page.await?.records.into_iter().map(|(key, _)| key);
            let old: Vec<Key> = keys.filter(|key| key.as_str() < end.as_str()).collect();
            let many = old.len();
            let transaction = Transaction {
                expect: Vec::new(),
                write: old.into_iter().map(|key| (key, None)).collect(),
            };
            if many > 0 {
                match store.commit(transaction).await {
                    Ok(_) => gone += many as u64,
                    Err(CommitError::Unknown(_)) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            if many < MAX_OPERATIONS {
                break;
            }
        }
        Ok(gone)
    }
}

/// What the record says; without one all are kept.
fn floor(record: Option<&[u8]>) -> u64 {
    let text = record.and_then(|value| std::str::from_utf8(value).ok());
    text.and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// The first version of a policy that a rollout in force names.
fn needed(view: &View, policy: &Name) -> Option<u64> {
    let rollouts = view.rollouts.values();
    let of_it = rollouts.filter(|one| one.in_force && one.policy == policy.as_str());
    of_it.map(|one| one.from.min(one.to)).min()
}
