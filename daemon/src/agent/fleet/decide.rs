//! What a node decides, without doing any of it.

use std::time::Duration;

use ed25519_dalek::{Signature, VerifyingKey};
use serde::{Deserialize, Serialize};
use xdpgate::policy::PolicyHash;
use xdpgate_api::fleet::signed_bytes;
use xdpgate_api::fleet::v1::{State, result::Reason};

use super::files::Identity;
use super::token::JoinToken;

/// Why a state is not put in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub reason: Reason,
    pub error: String,
}

impl Refusal {
    pub(super) fn new(reason: Reason, error: impl ToString) -> Self {
        let error = error.to_string();
        Self { reason, error }
    }
}

/// The states that a node has had.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Held {
    pub version: u32,
    /// The last one that was put in force.
    pub state: Option<HeldState>,
    /// Of former stores, the epoch and the last sequence: an old state of theirs does not come back.
    pub past: Vec<(String, u64)>,
}

/// A state that was put in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct HeldState {
    pub epoch: String,
    pub sequence: u64,
    /// In hexadecimal digits.
    pub hash: String,
    pub mode: i32,
    pub time: jiff_text::Text,
}

/// A time as text.
pub(super) mod jiff_text {
    use jiff::Timestamp;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(in crate::agent::fleet) struct Text(pub Timestamp);

    impl Serialize for Text {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_str(&self.0)
        }
    }

    impl<'de> Deserialize<'de> for Text {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let text = String::deserialize(deserializer)?;
            text.parse().map(Text).map_err(D::Error::custom)
        }
    }
}

/// Former stores that are remembered: one is made anew after a disaster.
const MOST_PAST: usize = 16;

impl Held {
    /// After a state was put in force.
    pub(super) fn after(&self, state: &State, now: jiff::Timestamp) -> Self {
        let mut past = self.past.clone();
        past.retain(|(epoch, _)| *epoch != state.epoch);
        if let Some(before) = self.state.as_ref().filter(|s| s.epoch != state.epoch) {
            past.retain(|(epoch, _)| *epoch != before.epoch);
            past.push((before.epoch.clone(), before.sequence));
            past.drain(..past.len().saturating_sub(MOST_PAST));
        }
        Self {
            version: 1,
            state: Some(HeldState {
                epoch: state.epoch.clone(),
                sequence: state.sequence,
                hash: hex(&state.hash),
                mode: state.mode,
                time: jiff_text::Text(now),
            }),
            past,
        }
    }

    /// The last state, as the controller knows it.
    pub(super) fn message(&self) -> Option<State> {
        let state = self.state.as_ref()?;
        Some(State {
            epoch: state.epoch.clone(),
            sequence: state.sequence,
            hash: unhex(&state.hash).unwrap_or_default(),
            mode: state.mode,
            signature: Vec::new(),
        })
    }

    /// Whether a state may be put in force: it is signed by whom the node trusts, if it trusts somebody, and is
    /// not older than one that it has had. Gives the hash that has to come of it.
    pub(super) fn check(
        &self,
        state: &State,
        trusted: Option<&VerifyingKey>,
    ) -> Result<PolicyHash, Refusal> {
        if let Some(key) = trusted {
            check_signature(state, key)?;
        }
        let hash: Result<[u8; 32], _> = state.hash.as_slice().try_into();
        let hash = hash.map_err(|_| Refusal::new(Reason::Hash, "hash: it has not 32 bytes"))?;
        let current = self.state.as_ref().map(|s| (&s.epoch, s.sequence));
        let mut had = self
            .past
            .iter()
            .map(|(epoch, last)| (epoch, *last))
            .chain(current);
        match had.find(|(epoch, last)| **epoch == state.epoch && state.sequence < *last) {
            Some((_, last)) => Err(Refusal::new(
                Reason::Stale,
                format!(
                    "sequence: {} is older than {last}, which this node has had of the same store: send the \
                     state of now",
                    state.sequence
                ),
            )),
            None => Ok(hash.into()),
        }
    }
}

fn check_signature(state: &State, key: &VerifyingKey) -> Result<(), Refusal> {
    let refused = |error: &str| Err(Refusal::new(Reason::Signature, error));
    if state.signature.is_empty() {
        return refused(
            "signature: there is none, and this node takes only signed states: sign them",
        );
    }
    let signature = Signature::from_slice(&state.signature);
    let verified = signature.and_then(|s| key.verify_strict(&signed_bytes(state), &s));
    match verified {
        Ok(()) => Ok(()),
        Err(_) => refused(
            "signature: it is not by the key that this node trusts: sign with that one, or set \
             fleet.trusted_key at the node",
        ),
    }
}

/// How long to wait before the next attempt: any time up to a bound that doubles with each (full jitter).
/// `chance` is from 0 to 1.
pub(super) fn wait(attempt: u32, first: Duration, most: Duration, chance: f64) -> Duration {
    let bound = first.saturating_mul(1 << attempt.min(16)).min(most);
    bound.mul_f64(chance.clamp(0.0, 1.0))
}

/// When a certificate of this validity is to be renewed, in seconds since 1970: after two thirds of its time, and
/// up to a twelfth later, so that a fleet that joined together does not renew together.
pub(super) fn renew_at((from, until): (i64, i64), chance: f64) -> i64 {
    let life = until.saturating_sub(from).max(0) as f64;
    from.saturating_add((life * (2.0 / 3.0 + chance.clamp(0.0, 1.0) / 12.0)) as i64)
}

/// What a node does to come to its fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// Joins, as the member that it was if it was one.
    Join { former: Option<String> },
    /// Connects with its certificate.
    Dial,
    /// Nothing until somebody acts.
    Wait(String),
}

/// `refused`: a controller did not take its certificate the last time. A token serves once, so one that was used is
/// none.
pub(super) fn next(
    identity: Option<&Identity>,
    token: Option<&JoinToken>,
    now: i64,
    refused: bool,
) -> Next {
    let Some(identity) = identity else {
        return match token {
            Some(_) => Next::Join { former: None },
            None => Next::Wait(
                "it is not a member of the fleet yet: make a join token at the controller, and set \
                 fleet.token_file"
                    .to_owned(),
            ),
        };
    };
    let validity = identity.validity();
    let has_expired = !validity.as_ref().is_ok_and(|(_, until)| now < *until);
    let unused = token.filter(|token| token.digest() != identity.token);
    if let Some(token) = unused {
        let authorities = identity.authorities().unwrap_or_default();
        if !authorities.iter().any(|authority| token.is_of(authority)) {
            return Next::Join { former: None };
        }
        if has_expired || refused {
            return Next::Join {
                former: Some(identity.node_id.clone()),
            };
        }
    }
    match validity {
        _ if !has_expired => Next::Dial,
        Ok((_, until)) => Next::Wait(format!(
            "its certificate has expired on {}: make a join token for node {} at the controller, and set \
             fleet.token_file",
            jiff::Timestamp::from_second(until).unwrap_or_default(),
            identity.node_id
        )),
        Err(reason) => Next::Wait(format!(
            "its certificate cannot be read: {reason}; join again with a new token"
        )),
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2);
    digits
        .map(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok())
        .collect()
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
