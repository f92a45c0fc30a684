//! What controllers tell each other about a rollout, and what comes of it together.
//!
//! Each one looks at the nodes of its own sessions and keeps one small record, `rollout-status/ROLLOUT/CONTROLLER`, while the
//! rollout runs. A record that has not changed for a while, by the clock of who reads it, is of a controller that is
//! gone: what it saw does not count any more, but the nodes that it watched are asked for by name.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::tracker::Tracker;
use super::{Observed, Rollout, Seen};
use crate::domain::NodeId;
use crate::store::Revision;

/// So many nodes are named in each list of a record.
pub(super) const MAX_LISTED: usize = 256;

/// What one controller saw.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Status {
    /// Counts up, so that the record changes while the controller is there.
    pub beat: u64,
    /// The version of the record of the rollout that it looked at, and the stage.
    pub version: u64,
    pub stage: usize,
    /// Without those that are lost or were never there.
    pub observed: Observed,
    /// Nodes that had it, or were to get it, and whose link is gone.
    pub missing: Vec<Missing>,
    /// How many these are.
    pub missing_nodes: u64,
    /// Nodes that others miss and that are here.
    pub here: Vec<NodeId>,
    /// The first ones of those that it watches.
    pub watched: Vec<Watched>,
}

/// A node whose link is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Missing {
    pub node: NodeId,
    /// For how long.
    pub seconds: u64,
}

/// A node that was reached and is there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Watched {
    pub node: NodeId,
    /// The share of frames that it dropped before it was reached.
    pub before: f32,
}

/// The records of all controllers about one rollout, as one of them knows them.
#[derive(Debug, Default)]
pub(super) struct Statuses(BTreeMap<String, Heard>);

#[derive(Debug)]
struct Heard {
    revision: Revision,
    /// When this revision was seen first.
    at: Instant,
    status: Status,
}

/// The time, and how long things may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    pub(super) now: Instant,
    /// A record that does not change for so long is of a controller that is gone.
    pub(super) expire: Duration,
    /// Nodes of a controller that is gone have so long to come to another one.
    pub(super) settle: Duration,
    /// A node that is away for so long is lost.
    pub(super) lost_after: Duration,
}

/// What all controllers saw together.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Together {
    pub(super) observed: Observed,
    /// What else is to be waited for before the next stage.
    pub(super) waits: Option<String>,
}

impl Statuses {
    /// Takes in what the store has; what is not among it is forgotten.
    pub(super) fn hear(&mut self, records: Vec<(String, Revision, Status)>, now: Instant) {
        let mut heard = BTreeMap::new();
        for (controller, revision, status) in records {
            let at = match self.0.get(&controller) {
                Some(before) if before.revision == revision => before.at,
                _ => now,
            };
            let one = Heard {
                revision,
                at,
                status,
            };
            heard.insert(controller, one);
        }
        self.0 = heard;
    }

    /// Nodes that some controller but this one misses, or watched before it went.
    pub(super) fn asked(&self, me: &str, now: Instant, expire: Duration) -> BTreeSet<NodeId> {
        let mut asked = BTreeSet::new();
        for (_, heard) in self.0.iter().filter(|(name, _)| *name != me) {
            asked.extend(heard.status.missing.iter().map(|m| m.node.clone()));
            if now.duration_since(heard.at) >= expire {
                asked.extend(heard.status.watched.iter().map(|w| w.node.clone()));
            }
        }
        asked
    }

    /// The shares of drops that were written down, of nodes before they were reached.
    pub(super) fn shares(&self) -> HashMap<NodeId, f32> {
        let all = self.0.values().flat_map(|heard| &heard.status.watched);
        all.map(|w| (w.node.clone(), w.before)).collect()
    }

    /// What this controller and all others saw together. `own` is newer than the record of this one. Only nodes that
    /// `counts` names can be lost.
    pub(super) fn together(
        &self,
        me: &str,
        own: &Status,
        rollout: &Rollout,
        times: &Times,
        counts: impl Fn(&NodeId) -> bool,
    ) -> Together {
        let mut observed = own.observed.clone();
        let mut waits = None;
        let mut away: BTreeMap<&NodeId, u64> = BTreeMap::new();
        let mut unnamed = own.unnamed();
        let mut found: BTreeSet<&NodeId> = own.found().collect();
        let mut miss = |node, seconds: u64| {
            let longest = away.entry(node).or_default();
            *longest = seconds.max(*longest);
        };
        own.missing.iter().for_each(|m| miss(&m.node, m.seconds));
        for (name, heard) in self.0.iter().filter(|(name, _)| *name != me) {
            let (status, age) = (&heard.status, times.now.duration_since(heard.at));
            if age >= times.expire {
                // Nodes that it watched have that long to come to another one.
                let since = age.saturating_sub(times.expire + times.settle).as_secs();
                let watched = status.watched.iter().map(|w| &w.node);
                let missing = status.missing.iter().map(|m| &m.node);
                watched.chain(missing).for_each(|node| miss(node, since));
                continue;
            }
            observed.merge(&status.observed);
            found.extend(status.found());
            status.missing.iter().for_each(|m| miss(&m.node, m.seconds));
            unnamed += status.unnamed();
            if (status.stage, status.version) != (rollout.stage, rollout.version) {
                waits = Some(format!(
                    "controller {name} has not looked at this stage yet"
                ));
            }
        }
        away.retain(|node, _| counts(node) && !found.contains(node));
        let (lost, soon): (Vec<_>, Vec<_>) = away
            .into_iter()
            .partition(|(_, seconds)| *seconds >= times.lost_after.as_secs());
        observed.lost = Seen {
            count: lost.len() as u64,
            example: lost
                .first()
                .map(|(node, seconds)| format!("{node}: its link is gone for {seconds} s")),
        };
        observed.reached += (lost.len() + soon.len()) as u64 + unnamed;
        // Those that are not named may be at another controller: they hold the stage up.
        observed.pending += soon.len() as u64 + unnamed;
        Together { observed, waits }
    }
}

impl Statuses {
    /// Adds nodes that this controller watched before it was started anew and that have not come back: they are missing
    /// since it looks.
    pub(super) fn returning(&self, me: &str, own: &mut Status, tracker: &Tracker, times: &Times) {
        let Some(heard) = self.0.get(me) else {
            return;
        };
        let before = &heard.status;
        let looked = times.now.duration_since(tracker.began);
        let seconds = looked.saturating_sub(times.settle).as_secs();
        let nodes = before.watched.iter().map(|w| &w.node);
        let nodes = nodes.chain(before.missing.iter().map(|m| &m.node));
        for node in nodes.filter(|node| !tracker.knows(node)) {
            if own.missing.len() < MAX_LISTED && !own.missing.iter().any(|m| m.node == *node) {
                own.missing_nodes += 1;
                own.missing.push(Missing {
                    node: node.clone(),
                    seconds,
                });
            }
        }
        own.missing.sort_by(|a, b| a.node.cmp(&b.node));
    }
}

impl Status {
    /// Whether it says the same, but for how long nodes are missing.
    pub(super) fn says(&self, other: &Self) -> bool {
        let without_times = |status: &Self| {
            let mut status = status.clone();
            status.beat = 0;
            status.missing.iter_mut().for_each(|m| m.seconds = 0);
            status
        };
        without_times(self) == without_times(other)
    }

    /// How many nodes are missing that are not named.
    fn unnamed(&self) -> u64 {
        self.missing_nodes.saturating_sub(self.missing.len() as u64)
    }

    /// Nodes that are there for sure.
    fn found(&self) -> impl Iterator<Item = &NodeId> {
        let watched = self.watched.iter().map(|watched| &watched.node);
        self.here.iter().chain(watched)
    }
}
