//! Live events: one ring that all streams read, so that who comes back gets what it missed.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::FleetView;
use crate::core::Core;
use crate::feed::Feeds;

/// So many events are kept.
const KEPT: usize = 4_096;

/// An event with its number.
pub(super) type Numbered = (u64, Arc<Value>);

/// The ring.
#[derive(Debug)]
pub(super) struct Hub {
    shared: Arc<Shared>,
    streams: usize,
    per_user: usize,
    open: Arc<Mutex<HashMap<String, usize>>>,
    followers: Mutex<Vec<AbortHandle>>,
}

#[derive(Debug)]
struct Shared {
    ring: Mutex<VecDeque<Numbered>>,
    /// The number of the last event.
    last: watch::Sender<u64>,
}

/// A stream that counts, until it is dropped.
#[derive(Debug)]
pub(super) struct Listening {
    user: String,
    open: Arc<Mutex<HashMap<String, usize>>>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.user) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.user);
            }
        }
    }
}

/// What comes next for a reader.
#[derive(Debug)]
pub(super) struct Next {
    /// Whether events were missed that are not kept any more.
    pub(super) lost: bool,
    /// What came after the one that the reader had last.
    pub(super) events: Vec<Numbered>,
}

impl Hub {
    /// Follows the fleet and the view.
    pub(super) fn start(
        core: &Core,
        fleet: &Arc<dyn FleetView>,
        streams: usize,
        per_user: usize,
    ) -> Self {
        let shared = Arc::new(Shared {
            ring: Mutex::default(),
            last: watch::Sender::new(0),
        });
        let (of_fleet, mut events) = (Arc::clone(&shared), fleet.events());
        let fleet = tokio::spawn(async move {
            while let Some(event) = events.next().await {
                of_fleet.push(event);
            }
        });
        let (of_view, mut views) = (Arc::clone(&shared), core.watch());
        let view = tokio::spawn(async move {
            while views.changed().await.is_ok() {
                let revision = views.borrow_and_update().revision().0;
                of_view.push(json!({ "event": "change", "revision": revision }));
            }
        });
        Self {
            shared,
            streams,
            per_user,
            open: Arc::default(),
            followers: Mutex::new(vec![fleet.abort_handle(), view.abort_handle()]),
        }
    }

    /// Follows the feeds too.
    pub(super) fn follow(&self, feeds: &Feeds) {
        let (shared, mut events) = (Arc::clone(&self.shared), feeds.events());
        let follower = tokio::spawn(async move {
            loop {
                let event = match events.recv().await {
                    Ok(event) => serde_json::to_value(event).unwrap_or_default(),
                    Err(RecvError::Lagged(events)) => json!({ "lost": events }),
                    Err(RecvError::Closed) => return,
                };
                shared.push(kind("feed", event));
            }
        });
        let mut all = self
            .followers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        all.push(follower.abort_handle());
    }

    /// Tells all streams.
    pub(super) fn push(&self, event: Value) {
        self.shared.push(event);
    }

    /// A place for one more stream of a user.
    pub(super) fn listen(&self, user: &str) -> Option<Listening> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = open.values().sum();
        let mine = open.get(user).copied().unwrap_or(0);
        if all >= self.streams || mine >= self.per_user {
            return None;
        }
        open.insert(user.to_owned(), mine + 1);
        Some(Listening {
            user: user.to_owned(),
            open: Arc::clone(&self.open),
        })
    }

    /// The number of the last event.
    pub(super) fn last(&self) -> u64 {
        *self.shared.last.borrow()
    }

    /// Tells of new numbers.
    pub(super) fn watch(&self) -> watch::Receiver<u64> {
        self.shared.last.subscribe()
    }

    /// What came after an event.
    pub(super) fn after(&self, number: u64) -> Next {
        let ring = self
            .shared
            .ring
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let first = ring.front().map_or(1, |(number, _)| *number);
        let start = ring.partition_point(|(other, _)| *other <= number);
        Next {
            lost: number + 1 < first,
            events: ring.range(start..).cloned().collect(),
        }
    }
}

fn kind(kind: &str, mut event: Value) -> Value {
    event["event"] = kind.into();
    event
}

impl Drop for Hub {
    fn drop(&mut self) {
        let followers = self.followers.get_mut();
        for follower in followers.unwrap_or_else(PoisonError::into_inner) {
            follower.abort();
        }
    }
}

impl Shared {
    fn push(&self, event: Value) {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let number = ring.back().map_or(1, |(number, _)| number + 1);
        if ring.len() >= KEPT {
            ring.pop_front();
        }
        ring.push_back((number, Arc::new(event)));
        drop(ring);
        self.last.send_replace(number);
    }
}
