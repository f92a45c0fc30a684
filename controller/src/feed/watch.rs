//! What is said of feeds to who watches: events, and metrics.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::broadcast;

use super::{Feed, FeedHealth, FeedStatus, Feeds, Outcome};
use crate::domain::Name;
use crate::metrics::{FEED_ENTRIES, FEED_GOOD, FEED_STALE};

/// How each feed was when it was looked at last.
pub(super) type Seen = BTreeMap<Name, FeedHealth>;

/// News of a feed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FeedEvent {
    /// When.
    pub at: Timestamp,
    /// The feed.
    pub feed: Name,
    /// The set, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub set: Option<Name>,
    /// What happened.
    pub what: What,
    /// More of it.
    pub detail: serde_json::Value,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// A set has a new version. Told by the controller that made it.
    Replaced,
    /// What came was not taken, for another reason than before. Told by the controller that read it.
    Refused,
    /// Nothing could be read, for another reason than before. Told by the controller that tried.
    Failed,
    /// It is stale. Told by every controller.
    Stale,
    /// All is as it should be again. Told by every controller.
    Recovered,
}

impl From<Outcome> for What {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Replaced => Self::Replaced,
            Outcome::Unchanged | Outcome::NotModified => Self::Recovered,
            Outcome::Refused => Self::Refused,
            Outcome::Failed => Self::Failed,
        }
    }
}

impl Feeds {
    /// News of feeds from now on. Who is too slow is told how many it missed.
    pub fn events(&self) -> broadcast::Receiver<FeedEvent> {
        self.0.events.subscribe()
    }

    pub(super) fn publish(
        &self,
        feed: &Name,
        set: Option<&Name>,
        what: What,
        at: Timestamp,
        detail: serde_json::Value,
    ) {
        // Nobody may listen.
        let _ = self.0.events.send(FeedEvent {
            at,
            feed: feed.clone(),
            set: set.cloned(),
            what,
            detail,
        });
    }

    /// Looks how all feeds are: sets the metrics, and tells what became stale or good again.
    pub(super) fn observe(&self, all: &[(Feed, FeedStatus)], now: Timestamp) {
        let mut news = Vec::new();
        let mut seen = self.0.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, health) in seen.iter() {
            if *health == FeedHealth::Stale && !all.iter().any(|(feed, _)| feed.name == *name) {
                stale(name, false);
            }
        }
        let mut now_seen = Seen::new();
        for (feed, status) in all {
            let health = status.health(&feed.content, feed.updated.at, now);
            stale(&feed.name, health == FeedHealth::Stale);
            for (set, state) in &status.sets {
                if let Some(good) = &state.last_good {
                    measure(&feed.name, set, good.at, good.entries);
                }
            }
            let before = seen.get(&feed.name).copied();
            if health == FeedHealth::Stale && before != Some(FeedHealth::Stale) {
                news.push((feed, What::Stale));
            }
            let was_bad = matches!(before, Some(FeedHealth::Stale | FeedHealth::Failing));
            if health == FeedHealth::Good && was_bad {
                news.push((feed, What::Recovered));
            }
            now_seen.insert(feed.name.clone(), health);
        }
        *seen = now_seen;
        drop(seen);
        for (feed, what) in news {
            let name = &feed.name;
            match what {
                What::Stale => {
                    let age = feed.content.max_age();
                    log::warn!("feed {name} is stale: nothing good came for more than {age} s");
                }
                _ => log::info!("feed {name} is good again"),
            }
            self.publish(name, None, what, now, serde_json::json!({}));
        }
    }
}

fn stale(feed: &Name, is: bool) {
    metrics::gauge!(FEED_STALE, "feed" => feed.to_string()).set(if is { 1.0 } else { 0.0 });
}

#[allow(clippy::cast_precision_loss, reason = "a metric")]
fn measure(feed: &Name, set: &Name, at: Timestamp, entries: u64) {
    let labels = [("feed", feed.to_string()), ("set", set.to_string())];
    metrics::gauge!(FEED_GOOD, &labels).set(at.as_second() as f64);
    metrics::gauge!(FEED_ENTRIES, &labels).set(entries as f64);
}
