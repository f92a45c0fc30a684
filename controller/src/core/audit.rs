//! Entries of the audit log: each is written by the transaction that makes the change.

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Actor;
use crate::domain::Role;
use crate::store::Key;

/// Where they are.
pub const PREFIX: &str = "audit/";

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When.
    pub at: Timestamp,
    /// Who.
    pub actor: String,
    /// As what.
    pub role: Role,
    /// From where: an address, or `local`.
    pub origin: String,
    /// What was done, as `policy.create`.
    pub action: String,
    /// With what, as `policy/web`.
    pub object: String,
    /// What came of it; no secret.
    pub detail: serde_json::Value,
}

/// An entry of now, to be written by the transaction that makes the change. `detail` must not have a secret in it.
pub fn entry(actor: &Actor, action: &str, object: &str, detail: serde_json::Value) -> (Key, Bytes) {
    entry_at(Timestamp::now(), actor, action, object, detail)
}

/// [`entry`], of a given time.
pub fn entry_at(
    at: Timestamp,
    actor: &Actor,
    action: &str,
    object: &str,
    detail: serde_json::Value,
) -> (Key, Bytes) {
    let entry = Entry {
        at,
        actor: actor.name.clone(),
        role: actor.role,
        origin: actor.origin.clone(),
        action: action.to_owned(),
        object: object.to_owned(),
        detail,
    };
    let key = format!("{}-{:08x}", begin_of(at), rand::random::<u32>());
    let key = Key::new(key).expect("digits and letters are a key");
    let value = serde_json::to_vec(&entry).expect("an entry has only text keys");
    (key, value.into())
}

/// What the keys of entries of a time begin with.
pub(super) fn begin_of(at: Timestamp) -> String {
    let micros = at.as_microsecond().max(0);
    format!("{PREFIX}{micros:020}")
}
