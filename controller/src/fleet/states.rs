//! What is sent so that a node comes to have what it shall have: a delta if what it has is known and not much
//! differs, else a snapshot. Each is made once and shared by all nodes that need it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use prost::Message;
use tokio::sync::Semaphore;
use xdpgate::Policy;
use xdpgate::policy::PolicyHash;
use xdpgate_api::fleet::v1::{self, from_controller::Message as Down};

use super::cache::Cache;

use super::frame::Frame;
use super::past::{Past, Rebuilt};
use super::sign::{self, Signer};
use super::snapshot::{Chunks, Snapshot};
use super::wire;
use super::{Desired, Sizes};
use crate::domain::diff::between;

/// A delta up to this many bytes is sent without a look at the snapshot.
const SMALL_DELTA: usize = 32 << 10;
/// None is larger than this, so that it fits into a message.
const LARGEST_DELTA: usize = 2 << 20;
/// A delta is not more than one in so many of the snapshot's bytes.
const SHARE: usize = 3;

/// A state on its way to a node.
#[derive(Debug, Clone)]
pub(super) struct Outgoing {
    pub frame: Frame,
    /// What the node may fetch; `None` for a delta.
    pub snapshot: Option<Arc<Snapshot>>,
}

/// A state by all that is said of it, and what it starts from.
type FrameKey = (Option<PolicyHash>, PolicyHash, u64, i32);
type Changes = Option<Arc<Vec<v1::Change>>>;

/// All that is made of states.
pub(super) struct States {
    epoch: String,
    rebuilt: Rebuilt,
    signer: Option<Arc<dyn Signer>>,
    signatures: Cache<(PolicyHash, u64, i32), Arc<v1::State>>,
    bases: Mutex<Bases>,
    changes: Cache<(PolicyHash, PolicyHash), Changes>,
    frames: Cache<FrameKey, Outgoing>,
    snapshots: Cache<PolicyHash, Arc<Snapshot>>,
    last: Mutex<Option<Arc<Snapshot>>>,
    chunks: Chunks,
    /// So that a fleet of many profiles does not take all threads at once.
    work: Semaphore,
}

/// Policies that nodes may have, so that a delta can start from them.
struct Bases {
    /// The newest last.
    policies: VecDeque<(PolicyHash, Arc<Policy>, usize)>,
    weight: usize,
    most: usize,
}

impl Bases {
    fn get(&self, hash: &PolicyHash) -> Option<Arc<Policy>> {
        let found = self.policies.iter().rfind(|base| base.0 == *hash)?;
        Some(found.1.clone())
    }

    fn put(&mut self, hash: PolicyHash, policy: &Arc<Policy>) {
        if let Some(place) = self.policies.iter().rposition(|base| base.0 == hash) {
            // Most often it is the newest, and nothing moves.
            if let Some(base) = self.policies.remove(place) {
                self.policies.push_back(base);
            }
            return;
        }
        // Some hundred bytes for a rule; what they share with others counts as their own.
        let entries: usize = policy.sets().values().map(|set| set.len()).sum();
        let weight = 1024 + 512 * policy.rules().len() + 8 * entries;
        self.policies.push_back((hash, policy.clone(), weight));
        self.weight += weight;
        while self.weight > self.most && self.policies.len() > 2 {
            let oldest = self.policies.pop_front();
            self.weight -= oldest.map_or(0, |base| base.2);
        }
    }
}

impl States {
    pub(super) fn new(
        epoch: &str,
        past: Option<Arc<dyn Past>>,
        signer: Option<Arc<dyn Signer>>,
        sizes: &Sizes,
    ) -> Self {
        let of_changes = |changes: &Changes| {
            let changes = changes.iter().flat_map(|changes| changes.iter());
            64 + changes
                .map(|change| 64 + 2 * change.encoded_len())
                .sum::<usize>()
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            epoch: epoch.to_owned(),
            rebuilt: Rebuilt::new(past),
            signer,
            signatures: Cache::new(1 << 18, |_| 256),
            bases: Mutex::new(Bases {
                policies: VecDeque::new(),
                weight: 0,
                most: sizes.bases,
            }),
            changes: Cache::new(sizes.deltas / 2, of_changes),
            frames: Cache::new(sizes.deltas / 2, |out| out.frame.weight()),
            snapshots: Cache::new(sizes.snapshots, |snapshot| snapshot.weight()),
            last: Mutex::new(None),
            chunks: Chunks::default(),
            work: Semaphore::new(threads),
        }
    }

    /// The store whose states these are.
    pub(super) fn epoch(&self) -> &str {
        &self.epoch
    }

    /// The public key by which nodes check states; empty without one.
    pub(super) fn public_key(&self) -> Vec<u8> {
        let key = self.signer.as_ref().map(|signer| signer.public_key());
        key.map(Vec::from).unwrap_or_default()
    }

    /// Remembers a policy that a node is to have: what comes after it may start from it.
    pub(super) fn remember(&self, desired: &Desired) {
        self.keep(desired.hash, &desired.policy);
    }

    fn keep(&self, hash: PolicyHash, policy: &Arc<Policy>) {
        let mut bases = self.bases.lock().unwrap_or_else(PoisonError::into_inner);
        bases.put(hash, policy);
    }

    fn base(&self, hash: &PolicyHash) -> Option<Arc<Policy>> {
        self.bases
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(hash)
    }

    /// Whether a delta can start from what a node has, which it had first by the transaction `sequence`.
    async fn knows(self: &Arc<Self>, base: PolicyHash, sequence: u64, desired: &Desired) -> bool {
        if base == desired.hash || self.base(&base).is_some() {
            return true;
        }
        let states = self.clone();
        let keep = move |hash, policy| states.keep(hash, &Arc::new(policy));
        self.rebuilt.get(desired, sequence, keep).await == Some(base)
    }

    /// What brings a node that has `base`, by its hash and number, to `desired`; without a base a snapshot.
    pub(super) async fn outgoing(
        self: Arc<Self>,
        base: Option<(PolicyHash, u64)>,
        desired: Arc<Desired>,
        mode: i32,
    ) -> Outgoing {
        let base = match base {
            Some((hash, sequence)) if self.knows(hash, sequence, &desired).await => Some(hash),
            _ => None,
        };
        let key = (base, desired.hash, desired.sequence, mode);
        let states = self.clone();
        let make = move || async move { states.make(base, desired, mode).await };
        self.frames.get(key, make).await
    }

    /// What sets the mode of a node that keeps its own policy.
    pub(super) async fn mode(self: Arc<Self>, hash: PolicyHash, mode: i32) -> Outgoing {
        let states = self.clone();
        let make = move || async move {
            let to = states.state(hash, 0, mode).await;
            Outgoing {
                frame: frame(Down::Delta(v1::Delta {
                    to: Some(v1::State::clone(&to)),
                    from_hash: hash.as_bytes().to_vec(),
                    changes: Vec::new(),
                })),
                snapshot: None,
            }
        };
        self.frames.get((Some(hash), hash, 0, mode), make).await
    }

    async fn make(
        self: Arc<Self>,
        base: Option<PolicyHash>,
        desired: Arc<Desired>,
        mode: i32,
    ) -> Outgoing {
        let to = self.state(desired.hash, desired.sequence, mode).await;
        if let Some(base) = base
            && let Some(delta) = self.delta(base, &desired, &to).await
        {
            return Outgoing {
                frame: delta,
                snapshot: None,
            };
        }
        let snapshot = self.snapshot(&desired).await;
        let states = self.clone();
        self.off_thread(move || {
            let message = snapshot.message(v1::State::clone(&to));
            drop(states);
            Outgoing {
                frame: frame(Down::Snapshot(message)),
                snapshot: Some(snapshot),
            }
        })
        .await
    }

    /// Signed once, however many nodes get it.
    async fn state(&self, hash: PolicyHash, sequence: u64, mode: i32) -> Arc<v1::State> {
        let mut state = v1::State {
            epoch: self.epoch.clone(),
            sequence,
            hash: hash.as_bytes().to_vec(),
            mode,
            signature: Vec::new(),
        };
        let signer = self.signer.clone();
        let make = move || async move {
            sign::sign(&mut state, signer.as_deref());
            Arc::new(state)
        };
        self.signatures.get((hash, sequence, mode), make).await
    }

    async fn delta(
        self: &Arc<Self>,
        from: PolicyHash,
        desired: &Arc<Desired>,
        to: &Arc<v1::State>,
    ) -> Option<Frame> {
        let changes = if from == desired.hash {
            Arc::default()
        } else {
            let base = self.base(&from)?;
            let (states, to) = (self.clone(), desired.policy.clone());
            let make = move || async move {
                let states = states;
                let made = move || wire::changes(&between(&base, &to)).map(Arc::new);
                states.off_thread(made).await
            };
            self.changes.get((from, desired.hash), make).await?
        };
        let size: usize = changes.iter().map(|change| 4 + change.encoded_len()).sum();
        if size > LARGEST_DELTA
            || size > SMALL_DELTA && size > self.snapshot(desired).await.bytes() / SHARE
        {
            return None;
        }
        let to = to.clone();
        let message = move || {
            frame(Down::Delta(v1::Delta {
                to: Some(v1::State::clone(&to)),
                from_hash: from.as_bytes().to_vec(),
                changes: Vec::clone(&changes),
            }))
        };
        Some(self.off_thread(message).await)
    }

    async fn snapshot(self: &Arc<Self>, desired: &Arc<Desired>) -> Arc<Snapshot> {
        let (states, policy) = (self.clone(), desired.policy.clone());
        let make = move || async move {
            let work = states.clone();
            let made = move || {
                let last = || work.last.lock().unwrap_or_else(PoisonError::into_inner);
                let before = last().clone();
                let made = Arc::new(Snapshot::new(&policy, before.as_deref(), &work.chunks));
                *last() = Some(made.clone());
                made
            };
            states.off_thread(made).await
        };
        self.snapshots.get(desired.hash, make).await
    }

    /// Runs what takes long on a thread of its own.
    async fn off_thread<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        // It is never closed.
        let _turn = self.work.acquire().await;
        match tokio::task::spawn_blocking(work).await {
            Ok(value) => value,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is being shut down, and with it who asked.
                Err(_) => std::future::pending().await,
            },
        }
    }

    /// How many deltas and snapshots were computed.
    pub(super) fn made(&self) -> (u64, u64) {
        (self.changes.made(), self.snapshots.made())
    }
}

fn frame(message: Down) -> Frame {
    Frame::new(&v1::FromController {
        message: Some(message),
    })
}
