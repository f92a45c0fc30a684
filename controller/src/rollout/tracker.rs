//! What one controller saw of the nodes of its own sessions while a rollout runs.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;

use super::status::{MAX_LISTED, Missing, Status, Watched};
use super::{Gates, Observed, Rollout};
use crate::domain::{NodeId, NodeRecord};

/// Drops are judged anew after this time, so that a jump that comes late is not lost in what was before.
const WINDOW: Duration = Duration::from_secs(60);

/// What a controller sees of a node that has a session with it, or had one.
#[derive(Debug, Clone, PartialEq)]
pub struct Sight {
    /// Which node.
    pub node: NodeId,
    /// Whether its link is there.
    pub online: bool,
    /// The version of the policy in the state that `answer` is about.
    pub version: Option<u64>,
    /// What became of that state.
    pub answer: Answer,
    /// What it says is broken.
    pub broken: Option<String>,
    /// Frames that it judged since its daemon began to count.
    pub frames: u64,
    /// How many of them it dropped, or would have without dry run.
    pub dropped: u64,
}

/// What became of a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It is in force.
    Applied,
    /// It has not been answered.
    Pending,
    /// It was refused, and why.
    Refused(String),
}

/// Who knows the nodes of this controller's sessions.
pub trait Observer: Send + Sync + 'static {
    /// All nodes that have a session here or had one, as they are now, with what became of their state of a policy. Those
    /// that have not the policy may be left out.
    fn sights(&self, policy: &str) -> Vec<Sight>;
}

/// What is remembered of a node.
#[derive(Debug, Clone)]
struct Tracked {
    reached: bool,
    /// Its link was there when it was reached, or came later.
    there: bool,
    missing: Option<Instant>,
    was_broken: bool,
    /// The share of frames that it dropped before it was reached.
    before: f32,
    /// Frames and drops from which the next share is made, and since when.
    mark: Option<(u64, u64, Instant)>,
    dropping: Option<f32>,
}

/// What this controller saw of a rollout.
#[derive(Debug)]
pub(super) struct Tracker {
    nodes: HashMap<NodeId, Tracked>,
    /// When it looked for the first time.
    pub(super) began: Instant,
}

/// What a look at the nodes needs.
pub(super) struct Glance<'a> {
    pub(super) rollout: &'a Rollout,
    /// Nodes that have the new version as their version.
    pub(super) reached: &'a HashSet<NodeId>,
    pub(super) records: &'a BTreeMap<NodeId, std::sync::Arc<NodeRecord>>,
    /// Nodes that other controllers miss.
    pub(super) asked: &'a BTreeSet<NodeId>,
    /// Shares of drops before they were reached, of nodes that another one watched, or this one before it was started anew.
    pub(super) shares: &'a HashMap<NodeId, f32>,
    pub(super) now: Instant,
}

impl Tracker {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            nodes: HashMap::new(),
            began: now,
        }
    }

    /// Whether it has seen a node.
    pub(super) fn knows(&self, node: &NodeId) -> bool {
        self.nodes.contains_key(node)
    }

    /// Takes in how the nodes are now.
    pub(super) fn look(&mut self, sights: Vec<Sight>, look: &Glance<'_>) -> Status {
        let mut status = Status {
            version: look.rollout.version,
            stage: look.rollout.stage,
            ..Status::default()
        };
        for sight in sights {
            let Some(record) = look.records.get(&sight.node).filter(|node| !node.revoked) else {
                self.nodes.remove(&sight.node);
                continue;
            };
            if sight.online && look.asked.contains(&sight.node) {
                status.here.push(sight.node.clone());
            }
            if !self.nodes.contains_key(&sight.node) {
                let tracked = Tracked::first(&sight, look);
                self.nodes.insert(sight.node.clone(), tracked);
            }
            let Some(tracked) = self.nodes.get_mut(&sight.node) else {
                continue;
            };
            if !look.reached.contains(&sight.node) {
                tracked.not_reached(&sight, &look.rollout.gates, look.now);
                continue;
            }
            if !tracked.reached {
                tracked.reached = true;
                tracked.mark = None;
                tracked.there = sight.online;
            }
            if sight.online {
                tracked.there = true;
                tracked.missing = None;
                status.observed.reached += 1;
                tracked.reached_and_here(&sight, look, &mut status.observed);
                if status.watched.len() < MAX_LISTED {
                    status.watched.push(Watched {
                        node: sight.node,
                        before: tracked.before,
                    });
                }
            } else if record.maintenance {
                // Nobody is alarmed; it is as if it had not been there.
                tracked.there = false;
                tracked.missing = None;
            } else if tracked.there {
                let since = *tracked.missing.get_or_insert(look.now);
                status.missing_nodes += 1;
                if status.missing.len() < MAX_LISTED {
                    status.missing.push(Missing {
                        node: sight.node,
                        seconds: look.now.duration_since(since).as_secs(),
                    });
                }
            }
        }
        status.missing.sort_by(|a, b| a.node.cmp(&b.node));
        status.watched.sort_by(|a, b| a.node.cmp(&b.node));
        status.here.sort();
        status
    }
}

impl Tracked {
    fn first(sight: &Sight, look: &Glance<'_>) -> Self {
        let has_it = sight.version == Some(look.rollout.to) && sight.answer == Answer::Applied;
        let known = look.shares.get(&sight.node).copied();
        Self {
            reached: false,
            there: sight.online,
            missing: None,
            // What was broken before it could have it is not its fault.
            was_broken: sight.broken.is_some() && !has_it,
            before: known.unwrap_or_else(|| share(sight.frames, sight.dropped)),
            mark: None,
            dropping: None,
        }
    }

    fn not_reached(&mut self, sight: &Sight, gates: &Gates, now: Instant) {
        self.reached = false;
        self.missing = None;
        self.dropping = None;
        if !sight.online {
            return;
        }
        self.was_broken = sight.broken.is_some();
        if let Some(now_share) = self.share_since(sight, gates, now) {
            self.before = now_share;
            self.mark = Some((sight.frames, sight.dropped, now));
        }
    }

    fn reached_and_here(&mut self, sight: &Sight, look: &Glance<'_>, observed: &mut Observed) {
        let node = &sight.node;
        match &sight.answer {
            _ if sight.version != Some(look.rollout.to) => observed.pending += 1,
            Answer::Pending => observed.pending += 1,
            Answer::Refused(reason) => observed.refused.add(|| format!("{node}: {reason}")),
            Answer::Applied => {
                observed.applied += 1;
                self.drops(sight, look);
            }
        }
        if let Some(broken) = &sight.broken
            && !self.was_broken
        {
            observed.unhealthy.add(|| format!("{node}: {broken}"));
        }
        if let Some(share) = self.dropping {
            let (before, now) = (self.before * 100.0, share * 100.0);
            observed
                .dropping
                .add(|| format!("{node} drops {now:.1} % of its frames, {before:.1} % before"));
        }
    }

    fn drops(&mut self, sight: &Sight, look: &Glance<'_>) {
        let gates = &look.rollout.gates;
        let Some(now_share) = self.share_since(sight, gates, look.now) else {
            return;
        };
        let too_much = gates.drops_too_much(f64::from(self.before), f64::from(now_share));
        self.dropping = too_much.then_some(now_share);
        if let Some((_, _, since)) = self.mark
            && look.now.duration_since(since) >= WINDOW
        {
            self.mark = Some((sight.frames, sight.dropped, look.now));
        }
    }

    /// The share of drops since the mark, once there are frames enough; without a mark it sets one.
    fn share_since(&mut self, sight: &Sight, gates: &Gates, now: Instant) -> Option<f32> {
        match self.mark {
            // Counters that went back belong to a daemon that was started anew.
            Some((frames, dropped, _)) if sight.frames >= frames && sight.dropped >= dropped => {
                let frames = sight.frames - frames;
                let enough = frames > 0 && frames >= gates.drop_ratio_frames;
                enough.then(|| share(frames, sight.dropped - dropped))
            }
            _ => {
                self.mark = Some((sight.frames, sight.dropped, now));
                None
            }
        }
    }
}

fn share(frames: u64, dropped: u64) -> f32 {
    match frames {
        0 => 0.0,
        frames => (dropped as f64 / frames as f64) as f32,
    }
}
