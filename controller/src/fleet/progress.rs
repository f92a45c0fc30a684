//! How far a change has come: which nodes have it in force, which refused it, which have not answered.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep, timeout_at};

use super::elsewhere::{Part, Place};
use super::stats::Delivery;
use super::{Event, Fleet, Inner, NodeId, Reason};
use crate::domain::Name;

/// It is not looked again within this time, nor within ten times what a look takes.
const PAUSE: Duration = Duration::from_millis(20);

/// Which change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scope {
    /// All that the nodes shall have as of a transaction of the store.
    Revision(u64),
    /// A version of a policy, or a later one: over the nodes that have the policy.
    Policy(Name, u64),
}

/// How far a change has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Whether this controller has seen the change yet; until then all are pending.
    pub seen: bool,
    /// How many nodes have it in force.
    pub applied: usize,
    /// Those that refused it, each with the reason and what it says.
    pub refused: Vec<(NodeId, Reason, String)>,
    /// Those that are here and have not answered.
    pub pending: Vec<NodeId>,
    /// Those that are not here. They get it when they come back.
    pub offline: Vec<NodeId>,
}

impl Progress {
    /// How many nodes it is about.
    pub fn nodes(&self) -> usize {
        self.applied + self.refused.len() + self.pending.len() + self.offline.len()
    }

    fn sort(&mut self) {
        self.refused.sort_by(|a, b| a.0.cmp(&b.0));
        self.pending.sort();
        self.offline.sort();
    }

    /// With what another controller says of other nodes.
    pub fn join(mut self, other: Self) -> Self {
        self.seen &= other.seen;
        self.applied += other.applied;
        self.refused.extend(other.refused);
        self.pending.extend(other.pending);
        self.offline.extend(other.offline);
        self.sort();
        self
    }

    /// Whether so large a share of the nodes (0 to 1) has it in force.
    pub fn reaches(&self, share: f64) -> bool {
        // 0.99 of 100 is 99, however the share is rounded.
        self.seen && self.applied as f64 + 1e-6 >= share * self.nodes() as f64
    }
}

impl Progress {
    /// Whether so large a share has it in force, or no node is left that may still answer.
    pub fn is_over(&self, share: f64) -> bool {
        self.reaches(share) || self.seen && self.pending.is_empty()
    }

    /// To be told to who listens.
    pub(crate) fn event(&self, revision: u64) -> Event {
        Event::Progress {
            revision,
            applied: self.applied,
            refused: self.refused.len(),
            pending: self.pending.len(),
            offline: self.offline.len(),
        }
    }
}

impl Fleet {
    /// How far a change has come by now.
    pub fn progress(&self, scope: &Scope) -> Progress {
        self.progress_of(scope, &Part::default())
    }

    /// How far a change has come by now at some of the nodes.
    pub fn progress_of(&self, scope: &Scope, part: &Part) -> Progress {
        self.0.progress(scope, part)
    }

    /// Waits until a share of the nodes (0 to 1) has a change in force, until none is left that may still answer, or until the
    /// time is up. A node that hangs holds nobody up for longer than that.
    pub async fn wait(&self, scope: &Scope, share: f64, within: Duration) -> Progress {
        let end = Instant::now() + within;
        let mut answers = self.0.answers.subscribe();
        let mut targets = self.0.targets.clone();
        loop {
            answers.mark_unchanged();
            targets.mark_unchanged();
            let began = Instant::now();
            let progress = self.progress(scope);
            let pause = PAUSE.max(10 * began.elapsed());
            if progress.is_over(share) {
                return progress;
            }
            let news = async {
                tokio::select! {
                    _ = answers.changed() => (),
                    _ = targets.changed() => (),
                }
                sleep(pause).await;
            };
            if timeout_at(end, news).await.is_err() {
                return self.progress(scope);
            }
        }
    }
}

impl Inner {
    pub(super) fn progress(&self, scope: &Scope, part: &Part) -> Progress {
        let targets = self.targets();
        let mut progress = Progress {
            seen: match scope {
                Scope::Revision(revision) => targets.revision >= *revision,
                Scope::Policy(name, version) => {
                    let policy = targets.view.policies().get(name);
                    policy.is_some_and(|policy| policy.version >= *version)
                }
            },
            applied: 0,
            refused: Vec::new(),
            pending: Vec::new(),
            offline: Vec::new(),
        };
        for (id, target, place) in self.nodes_of(&targets, part) {
            let desired = target.desired.map(Arc::as_ref);
            // The version of the policy that the node shall have, if it is about one.
            let version = match scope {
                Scope::Revision(_) => None,
                Scope::Policy(name, _) => {
                    let policies = desired.into_iter().flat_map(|desired| &desired.policies);
                    match policies.into_iter().find(|policy| policy.0 == *name) {
                        Some((_, version)) => Some(*version),
                        None => continue,
                    }
                }
            };
            if target.record.revoked {
                continue;
            }
            let is_newest = match scope {
                Scope::Policy(_, least) => version.is_some_and(|version| version >= *least),
                Scope::Revision(_) => true,
            };
            let node = match place {
                Place::Here(node) => node,
                Place::Silent => {
                    progress.pending.push(id.clone());
                    continue;
                }
                Place::Gone | Place::Nowhere => {
                    progress.offline.push(id.clone());
                    continue;
                }
                Place::Answered => continue,
            };
            let node = node.lock();
            let earlier = matches!(scope, Scope::Revision(r) if *r > 0 && node.confirmed >= *r);
            let delivery = Delivery::of(&node, desired);
            // Whatever changes, it keeps its own policy.
            if delivery == Delivery::Unassigned {
                continue;
            }
            match delivery {
                _ if !progress.seen || !is_newest => progress.pending.push(id.clone()),
                _ if earlier => progress.applied += 1,
                Delivery::Applied => progress.applied += 1,
                Delivery::Refused { reason, error } => {
                    progress.refused.push((id.clone(), reason, error));
                }
                Delivery::Pending { .. } => progress.pending.push(id.clone()),
                Delivery::Offline => progress.offline.push(id.clone()),
                Delivery::Unassigned => (),
            }
        }
        progress.sort();
        progress
    }
}
