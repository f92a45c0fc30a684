//! How far a change has come: which nodes have it in force, which refused it, which have not answered.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, sleep, timeout_at};

use super::stats::Delivery;
use super::{Fleet, Inner, NodeId, Reason};
use crate::domain::Name;

/// It is not looked again within this time, nor within ten times what a look takes.
const PAUSE: Duration = Duration::from_millis(20);

/// Which change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// All that the nodes shall have as of a transaction of the store.
    Revision(u64),
    /// A version of a policy, or a later one: over the nodes that have the policy.
    Policy(Name, u64),
}

/// How far a change has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
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

    /// Whether so large a share of the nodes (0 to 1) has it in force.
    pub fn reaches(&self, share: f64) -> bool {
        // 0.99 of 100 is 99, however the share is rounded.
        self.seen && self.applied as f64 + 1e-6 >= share * self.nodes() as f64
    }
}

impl Fleet {
    /// How far a change has come by now.
    pub fn progress(&self, scope: &Scope) -> Progress {
        self.0.progress(scope)
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
            if progress.reaches(share) || progress.seen && progress.pending.is_empty() {
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
    pub(super) fn progress(&self, scope: &Scope) -> Progress {
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
        for (id, target) in targets.iter() {
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
            let Some(node) = self.known(id) else {
                progress.offline.push(id.clone());
                continue;
            };
            let node = node.lock();
            let earlier = matches!(scope, Scope::Revision(r) if *r > 0 && node.confirmed >= *r);
            match Delivery::of(&node, desired) {
                _ if !progress.seen || !is_newest => progress.pending.push(id.clone()),
                _ if earlier => progress.applied += 1,
                Delivery::Applied => progress.applied += 1,
                Delivery::Refused { reason, error } => {
                    progress.refused.push((id.clone(), reason, error));
                }
                Delivery::Pending { .. } => progress.pending.push(id.clone()),
                Delivery::Offline => progress.offline.push(id.clone()),
            }
        }
        progress.refused.sort_by(|a, b| a.0.cmp(&b.0));
        progress.pending.sort();
        progress.offline.sort();
        progress
    }
}
