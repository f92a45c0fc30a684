//! What controllers tell each other about a rollout, and what comes of it together.
//!
//! Each one looks at the nodes of its own sessions and keeps one small record, `rollout-status/ROLLOUT/CONTROLLER`, while the
//! rollout runs. A record that has not changed for a while, by the clock of who reads it, is of a controller that is
//! gone: what it saw does not count any more, but the nodes that it watched are asked for by name.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

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

    /// What this controller, whose record may be older than `own`, and all others saw together.
    ///
    /// `before` is what this controller had written down before it was started. `lost_after` is how long a node may be away.
    pub(super) fn together(
        &self,
        me: &str,
        own: &Status,
        before: Option<(&Status, Duration)>,
        rollout: &Rollout,
        times: (Instant, Duration, Duration),
    ) -> Together {
        let (now, expire, lost_after) = times;
        let mut observed = own.observed.clone();
        let mut waits = None;
        let mut away: BTreeMap<&NodeId, u64> = BTreeMap::new();
        let mut unnamed = own.missing_nodes.saturating_sub(own.missing.len() as u64);
        let mut found: BTreeSet<&NodeId> = own.here.iter().collect();
        found.extend(own.watched.iter().map(|w| &w.node));
        let mut miss = |node, seconds: u64| {
            let longest = away.entry(node).or_default();
            *longest = seconds.max(*longest);
        };
        own.missing.iter().for_each(|m| miss(&m.node, m.seconds));
        if let Some((status, age)) = before {
            for watched in &status.watched {
                miss(&watched.node, age.as_secs());
            }
        }
        for (name, heard) in self.0.iter().filter(|(name, _)| *name != me) {
            let (status, age) = (&heard.status, now.duration_since(heard.at));
            if age >= expire {
                // Nodes that it watched have that long to come to another one.
                let since = (age - expire).as_secs();
                status.watched.iter().for_each(|w| miss(&w.node, since));
                continue;
            }
            observed.merge(&status.observed);
            found.extend(status.here.iter());
            found.extend(status.watched.iter().map(|w| &w.node));
            status.missing.iter().for_each(|m| miss(&m.node, m.seconds));
            unnamed += status.missing_nodes.saturating_sub(status.missing.len() as u64);
            if (status.stage, status.version) != (rollout.stage, rollout.version) {
                waits = Some(format!("controller {name} has not looked at this stage yet"));
            }
        }
        away.retain(|node, _| !found.contains(node));
        let (lost, soon): (Vec<_>, Vec<_>) = away
            .into_iter()
            .partition(|(_, seconds)| *seconds >= lost_after.as_secs());
        observed.lost = Seen {
            count: lost.len() as u64 + unnamed,
            example: lost
                .first()
                .map(|(node, seconds)| format!("{node}: its link is gone for {seconds} s")),
        };
        observed.pending += soon.len() as u64;
        Together { observed, waits }
    }
}
