//! How a feed is doing: what it brought last, and what became of the last try.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::fetch::Validator;
use super::record::FeedContent;
use crate::domain::Name;
use crate::store::Digest;

/// Where they are.
pub(super) const PREFIX: &str = "feed-status/";

/// How long a run may go on without a word in the store, in seconds: then another controller begins a run of its own.
pub(super) const CLAIM: i64 = 600;
/// Seconds until it is tried again after the first failure; twice as long after each that follows.
const BACK_OFF: u64 = 30;
/// The longest such time, in seconds, for a feed that is run more often.
const MAX_BACK_OFF: u64 = 900;
/// The longest time for which a server may put off, in seconds.
const MAX_RETRY_AFTER: u64 = 24 * 3600;

/// How a feed is doing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct FeedStatus {
    /// Not before this it is run again.
    pub next: Timestamp,
    /// How many runs failed since the last one that did not.
    pub failures: u32,
    /// Who runs it now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claim: Option<Claim>,
    /// When it was run last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ran: Option<Timestamp>,
    /// Why the last run could not even begin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The sets that it fills.
    pub sets: BTreeMap<Name, SetStatus>,
}

/// A run that goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The controller.
    pub by: String,
    /// Made up for this run.
    pub run: u64,
    /// After this it counts as broken off.
    pub until: Timestamp,
}

/// How one set of a feed is doing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SetStatus {
    /// What is in the set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_good: Option<LastGood>,
    /// What became of the last run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_try: Option<LastTry>,
    /// Somebody said that what was refused is right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accept: Option<Accept>,
}

/// What a feed brought that was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastGood {
    /// When it was seen last, also if nothing was new.
    pub at: Timestamp,
    /// How many entries.
    pub entries: u64,
    /// SHA-256 over them.
    pub digest: Digest,
    /// The version of the set that has them.
    pub set_version: u64,
    /// The version of the feed that brought them.
    pub feed_version: u64,
    /// What the servers said of each place.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub validators: BTreeMap<String, Validator>,
}

/// A run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastTry {
    /// When.
    pub at: Timestamp,
    /// What became of it.
    pub outcome: Outcome,
    /// Why it was not taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How many entries were there to take, if it was a list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entries: Option<u64>,
    /// Whether it would have been taken but for how much it differs: then it can be accepted.
    #[serde(default)]
    pub acceptable: bool,
}

/// What became of a run.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The set has a new version.
    Replaced,
    /// It brought what the set has.
    Unchanged,
    /// The server said that nothing changed.
    NotModified,
    /// What it brought was not taken.
    Refused,
    /// Nothing could be read.
    Failed,
}

/// A word that what was refused is right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accept {
    /// Whose.
    pub by: String,
    /// When.
    pub at: Timestamp,
    /// How many entries it had.
    pub entries: u64,
}

/// How a feed is, in a word; the worst of its sets.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum FeedHealth {
    /// It is switched off.
    Disabled,
    /// All is as it should be.
    Good,
    /// It was not run yet.
    New,
    /// The last run brought nothing that was taken; what is in the set is recent enough.
    Failing,
    /// For longer than `max_age` nothing came that was taken.
    Stale,
}

impl Outcome {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Replaced => "replaced",
            Self::Unchanged => "unchanged",
            Self::NotModified => "not_modified",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }

    /// Whether the set has what the feed has.
    pub fn is_good(self) -> bool {
        matches!(self, Self::Replaced | Self::Unchanged | Self::NotModified)
    }
}

impl FeedStatus {
    /// Whether a run of this feed may begin.
    pub fn is_due(&self, now: Timestamp) -> bool {
        self.next <= now && self.claim.as_ref().is_none_or(|claim| claim.until <= now)
    }

    /// How it is. `created` is when the feed was made or changed last.
    pub fn health(&self, feed: &FeedContent, created: Timestamp, now: Timestamp) -> FeedHealth {
        if !feed.enabled {
            return FeedHealth::Disabled;
        }
        let age = |at: Timestamp| now.as_second().saturating_sub(at.as_second());
        let is_old = |at: Timestamp| age(at) > i64::try_from(feed.max_age()).unwrap_or(i64::MAX);
        let of_set = |set: &SetStatus| match (&set.last_good, &set.last_try) {
            (Some(good), _) if is_old(good.at) => FeedHealth::Stale,
            (None, _) if is_old(created) => FeedHealth::Stale,
            (_, Some(last)) if !last.outcome.is_good() => FeedHealth::Failing,
            (None, _) => FeedHealth::New,
            (Some(_), _) => FeedHealth::Good,
        };
        let none = match &self.error {
            _ if self.sets.is_empty() && is_old(created) => FeedHealth::Stale,
            Some(_) => FeedHealth::Failing,
            None if self.sets.is_empty() => FeedHealth::New,
            None => FeedHealth::Good,
        };
        self.sets.values().map(of_set).fold(none, FeedHealth::max)
    }
}

/// Seconds until the next run. `random` is 0 up to 1, so that not all feeds of all controllers run at the same time.
pub(super) fn pause(every: u64, failures: u32, retry_after: Option<u64>, random: f64) -> u64 {
    let (least, width) = match failures {
        0 => (every - every / 10, every / 5),
        _ => {
            let doubled = BACK_OFF.saturating_mul(1 << (failures - 1).min(20));
            let most = doubled.min(every.max(MAX_BACK_OFF));
            (most / 2, most / 2)
        }
    };
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss
    )]
    let pause = least + (width as f64 * random) as u64;
    pause.max(retry_after.unwrap_or(0).min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::Source;

    #[test]
    fn r117_failures_are_tried_again_less_and_less_often() {
        let pauses =
            |random| [0, 1, 2, 3, 10, 40].map(|failures| pause(3600, failures, None, random));
        assert_eq!(pauses(0.0), [3240, 15, 30, 60, 1800, 1800]);
        assert_eq!(pauses(1.0), [3960, 30, 60, 120, 3600, 3600]);
        assert_eq!(pause(60, 40, None, 1.0), 900, "less often than it is run");
        assert_eq!(
            pause(60, 1, Some(7200), 0.0),
            7200,
            "the server asked for it"
        );
        assert_eq!(pause(60, 1, Some(u64::MAX), 0.0), 24 * 3600);
    }

    #[test]
    fn r117_what_is_old_is_stale_whatever_the_last_run_said() {
        let feed = FeedContent {
            every: 100,
            ..FeedContent::new(Source::Kubernetes {})
        };
        let at = |second| Timestamp::from_second(second).unwrap();
        let good = |second| LastGood {
            at: at(second),
            entries: 1,
            digest: Digest::of(b""),
            set_version: 1,
            feed_version: 1,
            validators: BTreeMap::new(),
        };
        let tried = |outcome| LastTry {
            at: at(0),
            outcome,
            error: None,
            entries: None,
            acceptable: false,
        };
        let status = |last_good: Option<LastGood>, last_try: Option<LastTry>| {
            let set = SetStatus {
                last_good,
                last_try,
                accept: None,
            };
            let sets = [(Name::new("a").unwrap(), set)].into();
            FeedStatus {
                sets,
                ..FeedStatus::default()
            }
        };
        let health = |status: &FeedStatus, now| status.health(&feed, at(0), at(now));
        let new = FeedStatus::default();
        assert_eq!(health(&new, 300), FeedHealth::New);
        assert_eq!(health(&new, 301), FeedHealth::Stale);
        let fine = status(Some(good(1000)), Some(tried(Outcome::NotModified)));
        assert_eq!(health(&fine, 1300), FeedHealth::Good);
        assert_eq!(health(&fine, 1301), FeedHealth::Stale);
        let refused = status(Some(good(1000)), Some(tried(Outcome::Refused)));
        assert_eq!(health(&refused, 1300), FeedHealth::Failing);
        assert_eq!(health(&refused, 1301), FeedHealth::Stale);
        let never = status(None, Some(tried(Outcome::Failed)));
        assert_eq!(health(&never, 300), FeedHealth::Failing);
        assert_eq!(health(&never, 301), FeedHealth::Stale);
        let off = FeedContent {
            enabled: false,
            ..feed.clone()
        };
        assert_eq!(never.health(&off, at(0), at(301)), FeedHealth::Disabled);
    }
}
