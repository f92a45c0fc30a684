//! Records as JSON, read and changed with an audit entry.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Actor;
use super::AuthError;
use crate::core::audit::entry;
use crate::store::{Key, Revision, Store, Transaction};

/// A value and the transaction that wrote it.
#[derive(Debug, Clone)]
pub struct Stored<T> {
    /// The value.
    pub value: T,
    /// Its version, as in an ETag.
    pub revision: Revision,
}

/// How often a change is tried again when somebody else was faster.
pub(crate) const TRIES: usize = 16;

/// The key of a record; `name` has been checked, or is refused here.
pub(crate) fn key(folder: &str, name: &str) -> Result<Key, AuthError> {
    let fine = !name.contains('/');
    Key::new(format!("{folder}/{name}"))
        .filter(|_| fine)
        .ok_or_else(|| AuthError::NotFound(format!("there is no {folder} of this name")))
}

/// The record under a key.
pub(crate) async fn load<T: DeserializeOwned>(
    store: &dyn Store,
    key: &Key,
) -> Result<Option<Stored<T>>, AuthError> {
    let Some(record) = store.get(key).await? else {
        return Ok(None);
    };
    Ok(Some(Stored {
        value: decode(key, &record.value)?,
        revision: record.revision,
    }))
}

/// All records of a folder, in the order of their keys.
pub(crate) async fn all<T: DeserializeOwned>(
    store: &dyn Store,
    folder: &str,
) -> Result<Vec<(Key, Stored<T>)>, AuthError> {
    let prefix = format!("{folder}/");
    let mut out: Vec<(Key, Stored<T>)> = Vec::new();
    let mut at = None;
    loop {
        let after = out.last().map(|(key, _)| key.clone());
        let page = store.list(&prefix, after.as_ref(), 1_000, at).await?;
        at = Some(page.revision);
        for (key, record) in page.records {
            let value = decode(&key, &record.value)?;
            let revision = record.revision;
            out.push((key, Stored { value, revision }));
        }
        if !page.more {
            return Ok(out);
        }
    }
}

fn decode<T: DeserializeOwned>(key: &Key, bytes: &[u8]) -> Result<T, AuthError> {
    serde_json::from_slice(bytes)
        .map_err(|e| AuthError::Damaged(format!("the record {} is damaged: {e}", key.as_str())))
}

/// A transaction in the making.
#[derive(Debug, Default)]
pub(crate) struct Change(Transaction);

impl Change {
    /// A record that must be as it was read; absent if `None`.
    pub(crate) fn expect(mut self, key: &Key, revision: Option<Revision>) -> Self {
        self.0.expect.push((key.clone(), revision));
        self
    }

    /// What is written.
    pub(crate) fn put(mut self, key: &Key, value: &impl Serialize) -> Result<Self, AuthError> {
        let bytes = serde_json::to_vec(value).map_err(|e| AuthError::Damaged(e.to_string()))?;
        self.0.write.push((key.clone(), Some(bytes.into())));
        Ok(self)
    }

    /// What is deleted.
    pub(crate) fn delete(mut self, key: &Key) -> Self {
        self.0.write.push((key.clone(), None));
        self
    }

    /// Who changes what. The detail has no secrets.
    pub(crate) fn audit(
        mut self,
        actor: &Actor,
        action: &str,
        object: &str,
        detail: Value,
    ) -> Self {
        let (key, value) = entry(actor, action, object, detail);
        self.0.write.push((key, Some(value)));
        self
    }

    /// Makes it.
    pub(crate) async fn commit(self, store: &dyn Store) -> Result<Revision, AuthError> {
        Ok(store.commit(self.0).await?)
    }
}
