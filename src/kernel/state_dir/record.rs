//! `state.json`: all that is saved beside the policies.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::kernel::deadline::Deadline;
use crate::kernel::enforcement::Enforcement;

/// The version of the file. Another one is not understood.
pub(in crate::kernel) const VERSION: u32 = 1;

/// The file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::kernel) struct Record {
    pub version: u32,
    /// The last generation that was given out.
    pub generation: u64,
    /// What `policy.yaml` held when this was written, for people who look: the file itself counts.
    pub policy: Option<Hash>,
    /// What was in force before; `None` if that is not known.
    pub previous: Option<PreviousRecord>,
    /// The mode that was chosen; `None` if none was, or only for a process.
    pub enforcement: Option<Enforcement>,
    /// Enforcement that nobody confirmed was taken back, and no mode was chosen since.
    #[serde(default, skip_serializing_if = "is_false")]
    pub enforcement_taken_back: bool,
    pub pending: Option<PendingRecord>,
    /// Oldest first.
    pub keys: Vec<KeyRecord>,
}

/// The policy before the present one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::kernel) struct PreviousRecord {
    /// `None` if there was no policy.
    pub file: Option<SavedFile>,
}

/// A file beside this one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::kernel) struct SavedFile {
    pub name: String,
    pub hash: Hash,
}

/// A change that is taken back unless it is confirmed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::kernel) struct PendingRecord {
    pub generation: u64,
    pub deadline: Deadline,
    pub change: PendingChange,
    /// Pass mode came because it could not be taken back.
    #[serde(default, skip_serializing_if = "is_false")]
    pub opened: bool,
}

/// What it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub(in crate::kernel) enum PendingChange {
    /// The policy in `pending.yaml`, with this hash. The one before is `policy.yaml`.
    Policy { hash: Hash },
    /// The mode is [`Enforcement::Enforce`]. It was another one.
    Enforcement { before: Enforcement },
}

/// A transaction that was made, by the name that its caller gave it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::kernel) struct KeyRecord {
    pub key: String,
    /// Of what was asked for.
    pub request: Hash,
    pub generation: u64,
    /// Nobody confirmed it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub taken_back: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_false(flag: &bool) -> bool {
    !flag
}

impl Default for Record {
    fn default() -> Self {
        Self {
            version: VERSION,
            generation: 0,
            policy: None,
            previous: None,
            enforcement: None,
            enforcement_taken_back: false,
            pending: None,
            keys: Vec::new(),
        }
    }
}

impl Record {
    /// # Errors
    /// In words: it is not JSON, of another version, or not what this version writes.
    pub(in crate::kernel) fn parse(text: &str) -> Result<Self, String> {
        /// What every version has.
        #[derive(Deserialize)]
        struct AnyVersion {
            version: u32,
        }
        let any: AnyVersion = serde_json::from_str(text).map_err(|e| e.to_string())?;
        if any.version != VERSION {
            let version = any.version;
            return Err(format!(
                "version {version} is not known, this xdpgate writes version {VERSION}"
            ));
        }
        let record: Self = serde_json::from_str(text).map_err(|e| e.to_string())?;
        let is_plain = |file: &SavedFile| !file.name.is_empty() && !file.name.contains('/');
        let file = record.previous.as_ref().and_then(|p| p.file.as_ref());
        match file.filter(|file| !is_plain(file)) {
            Some(file) => Err(format!("previous: {:?} is no name of a file", file.name)),
            None => Ok(record),
        }
    }

    pub(in crate::kernel) fn to_text(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("it has no maps");
        text.push('\n');
        text
    }
}

/// SHA-256 of a text, or of a request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::kernel) struct Hash([u8; 32]);

impl Hash {
    pub(in crate::kernel) fn of(text: impl AsRef<[u8]>) -> Self {
        Self(Sha256::digest(text).into())
    }
}

impl From<[u8; 32]> for Hash {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hash({self})")
    }
}

impl FromStr for Hash {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "a hash is 64 hexadecimal digits";
        if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(WRONG);
        }
        let mut bytes = [0; 32];
        for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| WRONG)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| WRONG)?;
        }
        Ok(Self(bytes))
    }
}

impl Serialize for Hash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        text::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::deserialize(deserializer)
    }
}

/// What is written as it is shown.
pub(in crate::kernel) mod text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(in crate::kernel) fn serialize<T: Display, S: Serializer>(
        value: &T,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(in crate::kernel) fn deserialize<'de, T: FromStr<Err: Display>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<T, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::kernel::deadline::Now;

    fn full() -> Record {
        let deadline = Deadline::new(&Now::read(), Duration::from_secs(60)).unwrap();
        Record {
            generation: u64::MAX,
            policy: Some(Hash::of("policy")),
            previous: Some(PreviousRecord {
                file: Some(SavedFile {
                    name: "previous-7.yaml".to_owned(),
                    hash: Hash::of("previous"),
                }),
            }),
            enforcement: Some(Enforcement::DryRun),
            enforcement_taken_back: true,
            pending: Some(PendingRecord {
                generation: 8,
                deadline,
                change: PendingChange::Policy {
                    hash: Hash::of("pending"),
                },
                opened: true,
            }),
            keys: vec![KeyRecord {
                key: "a \"key\"\n".to_owned(),
                request: Hash::of("request"),
                generation: 7,
                taken_back: true,
            }],
            ..Record::default()
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let mut of_mode = full();
        of_mode.pending.as_mut().unwrap().change = PendingChange::Enforcement {
            before: Enforcement::Pass,
        };
        for record in [Record::default(), full(), of_mode] {
            assert_eq!(Record::parse(&record.to_text()).unwrap(), record);
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let text = full().to_text();
        for (from, to, reason) in [
            ("\"version\": 1", "\"version\": 2", "version 2 is not known"),
            ("\"version\": 1", "\"vers\": 1", "missing field `version`"),
            ("\"keys\"", "\"kex\"", "unknown field `kex`"),
            ("previous-7.yaml", "../../etc/x", "no name of a file"),
            ("dry_run", "dry", "unknown variant `dry`"),
            ("\"wall\": \"", "\"wall\": \"x", "wall"),
            ("\"hash\": \"", "\"hash\": \"g", "64 hexadecimal digits"),
        ] {
            let wrong = text.replacen(from, to, 1);
            assert_ne!(wrong, text, "{from}");
            let said = Record::parse(&wrong).unwrap_err();
            assert!(said.contains(reason) || reason == "wall", "{said}");
        }
    }

    proptest! {
        /// Whatever is there, and wherever it was cut off or changed: an answer, and one that can be
        /// written again.
        #[test]
        fn any_text_is_answered(cut in 0usize..2000, at in 0usize..2000, byte: u8, any in ".{0,200}") {
            let mut bytes = full().to_text().into_bytes();
            bytes.truncate(cut.max(1));
            let at = at % bytes.len();
            bytes[at] = byte;
            for text in [String::from_utf8_lossy(&bytes).into_owned(), any] {
                if let Ok(record) = Record::parse(&text) {
                    prop_assert_eq!(Record::parse(&record.to_text()), Ok(record));
                }
            }
        }
    }
}
