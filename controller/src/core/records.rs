//! Records: their keys, and what is in them.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{CommandError, Effect};
use crate::content::Content;
use crate::domain::{Mode, Name, Settings, Touch};
use crate::store::{Digest, Key};

/// Written by every transaction that changes what any node shall have, and expected by it as it was read: so what such a
/// transaction was checked against is what it is made on.
pub(super) const SEQUENCE: &str = "setting/sequence";
/// The kill switch.
pub(super) const MODE: &str = "setting/mode";

/// Where answers to requests with an idempotency key are.
pub(super) const DONE: &str = "done/";

/// What has names and records of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Policy,
    Set,
    Group,
    Node,
    Rollout,
    Plan,
}

impl Kind {
    pub(super) const ALL: [Self; 6] = [
        Self::Policy,
        Self::Set,
        Self::Group,
        Self::Node,
        Self::Rollout,
        Self::Plan,
    ];

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Set => "set",
            Self::Group => "group",
            Self::Node => "node",
            Self::Rollout => "rollout",
            Self::Plan => "rollout-plan",
        }
    }

    /// The key of its record.
    pub(super) fn key(self, name: &Name) -> Key {
        key(format!("{}/{name}", self.word()))
    }

    /// The key of one of its versions.
    pub(super) fn version_key(self, name: &Name, version: u64) -> Key {
        key(format!("{}{version:020}", self.versions(name)))
    }

    /// What the keys of its versions begin with.
    pub(super) fn versions(self, name: &Name) -> String {
        format!("{}-version/{name}/", self.word())
    }

    /// The key of the number of its first version that is kept.
    pub(super) fn floor_key(self, name: &Name) -> Key {
        key(format!("{}-floor/{name}", self.word()))
    }

    /// What a key is the record of.
    pub(super) fn of(key: &Key) -> Option<(Self, Name)> {
        let (word, name) = key.as_str().split_once('/')?;
        let kind = Self::ALL.into_iter().find(|kind| kind.word() == word)?;
        Some((kind, Name::new(name).ok()?))
    }
}

/// A policy, as it is or in a version.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct PolicyRecord {
    pub version: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    #[serde(default)]
    pub settings: Settings,
    pub rules: Content,
    pub created: Touch,
    pub updated: Touch,
    /// What was changed, in words; the first ones of many.
    #[serde(default)]
    pub changed: Vec<String>,
    /// The version that says that it is gone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleted: bool,
}

/// A set, likewise.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct SetRecord {
    pub version: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_expiry: Option<u64>,
    #[serde(default)]
    pub count_entries: bool,
    pub entries: Content,
    pub created: Touch,
    pub updated: Touch,
    #[serde(default)]
    pub changed: Vec<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleted: bool,
}

/// The kill switch.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ModeRecord {
    pub mode: Option<Mode>,
    pub updated: Touch,
}

/// The answer to a request with an idempotency key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Done {
    /// Of the request.
    pub request: String,
    pub at: jiff::Timestamp,
    pub effects: Vec<Result<Effect, CommandError>>,
}

/// Where the answer to a request with an idempotency key is.
pub(super) fn done_key(actor: &str, idempotency_key: &str) -> Key {
    let part = |text: &str| match Name::new(text) {
        Ok(name) => name.to_string(),
        Err(_) => Digest::of(text.as_bytes()).to_string(),
    };
    key(format!("{DONE}{}/{}", part(actor), part(idempotency_key)))
}

/// A key that is one by how it was made.
pub(super) fn key(text: impl Into<String>) -> Key {
    Key::new(text).expect("names, words and digits make keys")
}

pub(super) fn encode<T: Serialize>(record: &T) -> Bytes {
    serde_json::to_vec(record)
        .expect("records have only text keys")
        .into()
}

/// A record, or what is wrong with it.
pub(super) fn decode<T: DeserializeOwned>(value: &Bytes) -> Result<T, String> {
    serde_json::from_slice(value).map_err(|error| error.to_string())
}
