//! What the controller knows of one node, and what it does next about it. Nothing here waits: time is a
//! parameter, and messages are sent by the [session](super::session).

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::Instant;
use xdpgate::policy::PolicyHash;
use xdpgate_api::fleet::v1::{self, result::Outcome};
use xdpgate_api::v1 as api;

use super::counters::Beat;
use super::health::Health;
use super::session::Control;
use super::snapshot::Snapshot;
use super::state::Facts;
use super::{Desired, Mode, NodeId};

/// A refusal that may pass by itself is tried again after this, then after twice that, and so on.
const RETRY: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(600));

/// Why a node has refused a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// It did not say.
    Unspecified,
    /// It has not what the delta starts from.
    Base,
    /// The result has not the hash that was promised.
    Hash,
    /// The signature is missing, or not by the key that it trusts.
    Signature,
    /// It has had a newer one.
    Stale,
    /// The library refused the policy.
    Policy,
    /// The kernel or the disk refused it.
    Node,
    /// A chunk could not be had.
    Chunks,
}

/// What a node has in force, or shall have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Held {
    pub sequence: u64,
    pub hash: Option<PolicyHash>,
    /// A [`api::Mode`] by its number.
    pub mode: i32,
    /// The fleet has given it a policy once, out of this store.
    pub of_fleet: bool,
}

/// A state that waits for its answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    pub sequence: u64,
    pub hash: PolicyHash,
    pub mode: i32,
    pub at: Instant,
    /// Since when the controller has the change, if the node was here then.
    pub changed: Option<Instant>,
    pub is_delta: bool,
    /// It was said that no answer comes.
    pub overdue: bool,
}

impl Sent {
    pub(super) fn new(sequence: u64, hash: PolicyHash, mode: i32) -> Self {
        Self {
            sequence,
            hash,
            mode,
            at: Instant::now(),
            changed: None,
            is_delta: true,
            overdue: false,
        }
    }
}

/// A state that was refused.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    pub sequence: u64,
    pub hash: PolicyHash,
    mode: i32,
    pub reason: Reason,
    pub error: Arc<str>,
    was_delta: bool,
    again: Instant,
    after: Duration,
}

/// A session, as others reach it.
#[derive(Debug)]
pub(super) struct Link {
    /// Another one for each session.
    pub number: u64,
    pub control: mpsc::Sender<Control>,
    pub address: Option<SocketAddr>,
    pub since: jiff::Timestamp,
}

/// What a node says of itself; texts are shared with others that say the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct About {
    pub version: Arc<str>,
    pub host_name: Arc<str>,
    pub kernel: Arc<str>,
    pub machine: Arc<str>,
}

/// One node.
#[derive(Debug)]
pub(super) struct Node {
    pub id: NodeId,
    /// Fetches that are on their way.
    pub fetches: AtomicU32,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
pub(super) struct Inner {
    pub health: Health,
    /// Whether it stands in the queue of those whose heartbeats are awaited.
    pub is_awaited: bool,
    pub link: Option<Link>,
    /// The number of its newest session among those at all controllers, 0 before the first one here.
    pub claim: u64,
    /// Its session before was at another controller, and no heartbeat has come since.
    pub moved: bool,
    pub about: Option<About>,
    pub held: Held,
    /// The newest change for which it was known to have what it shall have.
    pub confirmed: u64,
    /// The mode that it was told last.
    told: i32,
    /// Whether `held` is what it acknowledged, or was found to have as it shall.
    acknowledged: bool,
    /// Nothing is assigned to it and nothing was, so it keeps its own policy.
    keeps_own: bool,
    /// Pass mode was set at the node, as its last heartbeat says.
    pub panic_off: bool,
    pub sent: Option<Sent>,
    pub refusal: Option<Refusal>,
    /// It gets a snapshot next, whatever it has.
    pub force: bool,
    /// How often it had something else in force than it acknowledged.
    pub drift: u32,
    pub drifted: bool,
    /// The last heartbeat showed another picture than what was acknowledged since: the next one tells.
    suspect: bool,
    pub draining: bool,
    /// A heartbeat has come in this session.
    pub beaten: bool,
    pub beat: Beat,
    pub offered: Option<Arc<Snapshot>>,
}

/// What is to be done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// It has what it shall have, or has refused it, or is to answer.
    Nothing,
    /// Look again then.
    At(Instant),
    /// It is sent what it shall have: as a snapshot, if no base is named.
    Send(Option<PolicyHash>),
    /// It is told the mode alone, and keeps the policy of this hash.
    Mode(PolicyHash),
}

/// What became of a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Became {
    /// With the time at which the controller had the change, if the node was here then.
    Applied(u64, Option<Instant>),
    Refused(u64, Reason, Arc<str>),
}

impl Node {
    pub(super) fn new(id: NodeId) -> Self {
        Self {
            id,
            fetches: AtomicU32::new(0),
            inner: Mutex::default(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one of so many places for a fetch, until the guard is dropped.
    pub(super) fn fetch(self: &Arc<Self>, most: u32) -> Option<Fetching> {
        let one_more = |many: u32| (many < most).then_some(many + 1);
        let taken = self
            .fetches
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more);
        taken.is_ok().then(|| Fetching(self.clone()))
    }
}

/// A place for a fetch.
#[derive(Debug)]
pub(super) struct Fetching(Arc<Node>);

impl Drop for Fetching {
    fn drop(&mut self) {
        self.0.fetches.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The number of a mode in messages.
pub(super) fn mode_number(mode: Option<Mode>) -> i32 {
    match mode {
        None => api::Mode::Unspecified,
        Some(Mode::Enforce) => api::Mode::Enforce,
        Some(Mode::DryRun) => api::Mode::DryRun,
    }
    .into()
}

/// Whether a node is in the mode that it was told, or holds pass mode until that is taken back there.
fn is_in(mode: i32, told: i32) -> bool {
    told == i32::from(api::Mode::Unspecified) || mode == told || is_pass(mode)
}

/// Only somebody at the node sets pass mode: no controller says it.
fn is_pass(mode: i32) -> bool {
    mode == i32::from(api::Mode::Pass)
}

impl Held {
    /// As a node says it to the controllers of a store.
    pub(super) fn of(held: Option<&v1::Held>, epoch: &str) -> Self {
        let Some(held) = held else {
            return Self::default();
        };
        let hash = <[u8; 32]>::try_from(held.policy_hash.as_slice());
        let of_fleet = |state: &v1::State| state.epoch == epoch && state.sequence > 0;
        Self {
            of_fleet: held.state.as_ref().is_some_and(of_fleet),
            sequence: held.state.as_ref().map_or(0, |state| state.sequence),
            hash: hash.ok().map(PolicyHash::from),
            mode: held.mode,
        }
    }
}

impl Inner {
    /// A session begins.
    pub(super) fn open(&mut self, link: Link, about: About, held: Held) -> Option<Link> {
        self.about = Some(about);
        self.held = held;
        self.told = 0;
        self.acknowledged = false;
        self.sent = None;
        self.suspect = false;
        self.draining = false;
        self.beaten = false;
        self.offered = None;
        // It may be another daemon by now.
        if let Some(refusal) = &mut self.refusal {
            refusal.again = refusal.again.min(Instant::now());
        }
        self.link.replace(link)
    }

    /// A session has ended, if it is still the one of this node.
    pub(super) fn close(&mut self, number: u64) {
        if self.is_session(number) {
            self.link = None;
            self.sent = None;
            self.offered = None;
        }
    }

    pub(super) fn is_session(&self, number: u64) -> bool {
        self.link.as_ref().is_some_and(|link| link.number == number)
    }

    /// What is to be done so that the node comes to have what it shall have.
    pub(super) fn next(&mut self, desired: &Desired, now: Instant) -> Next {
        if self.sent.is_some() {
            return Next::Nothing;
        }
        let mode = mode_number(desired.mode);
        self.keeps_own = self.keeps_own(desired);
        if self.keeps_own {
            return self.next_mode(mode, now);
        }
        if self.force {
            return Next::Send(None);
        }
        if self.has(desired) {
            self.told = mode;
            self.acknowledged = true;
            self.drifted = false;
            self.confirmed = self.confirmed.max(desired.sequence);
            return Next::Nothing;
        }
        match self.refused(desired.hash, mode) {
            None => Next::Send(self.held.hash),
            Some(refusal) => match refusal.reason {
                Reason::Base | Reason::Hash if refusal.was_delta => Next::Send(None),
                Reason::Stale if desired.sequence > refusal.sequence => Next::Send(self.held.hash),
                Reason::Stale | Reason::Policy | Reason::Signature => Next::Nothing,
                _ if now < refusal.again => Next::At(refusal.again),
                _ => Next::Send(self.held.hash.filter(|_| refusal.reason != Reason::Base)),
            },
        }
    }

    /// What is to be done about the mode of a node that keeps its own policy.
    fn next_mode(&mut self, mode: i32, now: Instant) -> Next {
        self.force = false;
        self.told = mode;
        self.acknowledged = false;
        self.drifted = false;
        let there = self.held.hash.filter(|_| !is_in(self.held.mode, mode));
        let Some(hash) = there else {
            self.refusal = None;
            return Next::Nothing;
        };
        match self.refused(hash, mode) {
            Some(refusal) if now < refusal.again => Next::At(refusal.again),
            _ => Next::Mode(hash),
        }
    }

    /// Whether the node keeps the policy that it has: nothing is assigned to it, and it was here and did not say that
    /// the fleet has given it one.
    pub(super) fn keeps_own(&self, desired: &Desired) -> bool {
        self.about.is_some() && desired.policies.is_empty() && !self.held.of_fleet
    }

    /// Whether the node has what it shall have, and knows it by the fleet.
    pub(super) fn has(&self, desired: &Desired) -> bool {
        self.held.of_fleet
            && self.held.hash == Some(desired.hash)
            && is_in(self.held.mode, mode_number(desired.mode))
    }

    /// Whether it is to be sent this: it has something else, and this is neither on its way nor refused.
    pub(super) fn wants(&self, desired: &Desired) -> bool {
        let mode = mode_number(desired.mode);
        let is_on_its_way = |sent: &Sent| sent.hash == desired.hash && sent.mode == mode;
        !self.has(desired)
            && !self.sent.as_ref().is_some_and(is_on_its_way)
            && self.refused(desired.hash, mode).is_none()
    }

    /// The refusal of this very content.
    pub(super) fn refused(&self, hash: PolicyHash, mode: i32) -> Option<&Refusal> {
        let refusal = self.refusal.as_ref();
        refusal.filter(|refusal| refusal.hash == hash && refusal.mode == mode)
    }

    /// A state is on its way.
    pub(super) fn sent(&mut self, sent: Sent, snapshot: Option<Arc<Snapshot>>) {
        self.force = false;
        self.suspect = false;
        self.sent = Some(sent);
        self.offered = snapshot;
    }

    /// The node has answered a state; `None` if that is not the one that was sent last.
    pub(super) fn answered(
        &mut self,
        result: &v1::Result,
        error: Arc<str>,
        now: Instant,
    ) -> Option<Became> {
        let state = result.state.as_ref()?;
        let is_it = |sent: &mut Sent| {
            sent.sequence == state.sequence && sent.hash.as_bytes()[..] == state.hash
        };
        let sent = self.sent.take_if(is_it)?;
        if result.outcome() == Outcome::Applied {
            let unspecified = i32::from(api::Mode::Unspecified);
            self.held = Held {
                sequence: sent.sequence,
                hash: Some(sent.hash),
                mode: if sent.mode == unspecified || is_pass(self.held.mode) {
                    self.held.mode
                } else {
                    sent.mode
                },
                of_fleet: sent.sequence > 0,
            };
            self.told = sent.mode;
            self.confirmed = self.confirmed.max(sent.sequence);
            self.acknowledged = true;
            self.refusal = None;
            self.drifted = false;
            self.offered = None;
            return Some(Became::Applied(sent.sequence, sent.changed));
        }
        let reason = Reason::of(result.reason());
        let same = |refusal: &&Refusal| refusal.hash == sent.hash && refusal.reason == reason;
        let before = self.refusal.as_ref().filter(same);
        let after = before.map_or(RETRY.0, |refusal| (2 * refusal.after).min(RETRY.1));
        self.refusal = Some(Refusal {
            sequence: sent.sequence,
            hash: sent.hash,
            mode: sent.mode,
            reason,
            error: error.clone(),
            was_delta: sent.is_delta,
            again: now + after,
            after,
        });
        Some(Became::Refused(sent.sequence, reason, error))
    }

    /// Whether a heartbeat shows something else than the node acknowledged.
    pub(super) fn drifts(&mut self, seen: Held) -> bool {
        if self.keeps_own && self.sent.is_none() {
            self.held = seen;
            return false;
        }
        // Until it has answered it may have either.
        if self.sent.is_some() || !self.acknowledged {
            return false;
        }
        let alike = seen.hash == self.held.hash && is_in(seen.mode, self.told);
        // What it has may be older than what it said last, for both are made at the same time.
        let is_old = seen.sequence != self.held.sequence && !self.suspect;
        self.suspect = !alike && is_old;
        if alike {
            self.held.mode = seen.mode;
            return false;
        }
        if is_old {
            return false;
        }
        self.held = seen;
        self.acknowledged = false;
        self.drifted = true;
        self.drift = self.drift.saturating_add(1);
        true
    }

    /// Whether a heartbeat says that pass mode was set at the node, or is taken back, where the one before did not.
    pub(super) fn turns_panic_off(&mut self, seen: Held) -> Option<bool> {
        let before = std::mem::replace(&mut self.panic_off, is_pass(seen.mode));
        (before != self.panic_off).then_some(self.panic_off)
    }

    pub(super) fn facts(&self, revoked: bool, maintenance: bool, missed: u32) -> Facts {
        Facts {
            revoked,
            maintenance,
            known: self.about.is_some(),
            offline: self.health.seen() == super::health::Seen::Offline,
            draining: self.draining,
            session: self.link.is_some(),
            beat: self.beaten,
            missed,
            drifted: self.drifted,
            refused: self.refusal.is_some(),
            unassigned: self.keeps_own,
        }
    }
}

impl Reason {
    fn of(reason: v1::result::Reason) -> Self {
        use v1::result::Reason as Is;
        match reason {
            Is::Unspecified => Self::Unspecified,
            Is::Base => Self::Base,
            Is::Hash => Self::Hash,
            Is::Signature => Self::Signature,
            Is::Stale => Self::Stale,
            Is::Policy => Self::Policy,
            Is::Node => Self::Node,
            Is::Chunks => Self::Chunks,
        }
    }
}
