//! What happens while interfaces are watched, for those who listen.

use std::iter::FusedIterator;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::super::attach::Attachment;
use super::super::error::AttachError;
use super::super::events::NextError;
use super::super::firewall::lock;
use super::super::ifindex::IfIndex;
use super::decide::SkipReason;
use super::reconcile::DetachReason;

/// Something that auto-attach did, or saw.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum AutoEvent {
    /// An interface was attached.
    Attached {
        /// What the kernel did.
        attachment: Attachment,
        /// Since the message that told of the interface was read.
        took: Duration,
    },
    /// An interface was detached.
    Detached {
        /// What was attached.
        attachment: Attachment,
        /// Why.
        why: DetachReason,
    },
    /// An interface is to be attached and was not. It is tried again when something of it changes,
    /// and at the next scan.
    Failed {
        /// The interface.
        ifindex: IfIndex,
        /// Its name.
        interface: String,
        /// Why not.
        error: Arc<AttachError>,
    },
    /// An interface is there that is not to be attached, or the reason for that changed.
    Skipped {
        /// The interface.
        ifindex: IfIndex,
        /// Its name.
        interface: String,
        /// Why not.
        reason: SkipReason,
    },
    /// An attached interface has another name. It keeps its counters.
    Renamed {
        /// The interface.
        ifindex: IfIndex,
        /// The name that it had.
        from: String,
        /// The name that it has.
        to: String,
    },
    /// All interfaces were looked at anew, and something had been missed or was missing.
    Resynced {
        /// Why they were looked at.
        why: Resync,
    },
}

/// Why all interfaces were looked at anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Resync {
    /// The kernel told more than the receive buffer holds, and messages were lost.
    Overrun,
    /// It was time: see [`AutoAttachOptions::rescan_every`](crate::AutoAttachOptions::rescan_every).
    Timer,
}

/// Events of auto-attach as they happen: an iterator that waits for the next one.
///
/// It ends when the watching does, after the events that are waiting. What was done before it was
/// opened is in [`AutoAttach::interfaces`](crate::AutoAttach::interfaces).
#[derive(Debug)]
pub struct AutoEvents {
    queue: Receiver<AutoEvent>,
    lost: Arc<AtomicU64>,
}

impl AutoEvents {
    /// The next event, if it comes within a time.
    ///
    /// # Errors
    /// It did not, or no event will ever come.
    pub fn next_timeout(&mut self, timeout: Duration) -> Result<AutoEvent, NextError> {
        self.queue.recv_timeout(timeout).map_err(|e| match e {
            RecvTimeoutError::Timeout => NextError::Timeout,
            RecvTimeoutError::Disconnected => NextError::Ended,
        })
    }

    /// How many events were lost to this stream, because 4,096 were waiting when they came.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Iterator for AutoEvents {
    type Item = AutoEvent;

    fn next(&mut self) -> Option<AutoEvent> {
        self.queue.recv().ok()
    }
}

impl FusedIterator for AutoEvents {}

/// Events that wait in one stream.
const QUEUE: usize = 4096;

/// Those who listen.
#[derive(Debug, Default)]
pub(super) struct Listeners(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    listeners: Vec<(SyncSender<AutoEvent>, Arc<AtomicU64>)>,
    ended: bool,
}

impl Listeners {
    pub(super) fn subscribe(&self) -> AutoEvents {
        let (sender, queue) = sync_channel(QUEUE);
        let lost = Arc::new(AtomicU64::new(0));
        let mut state = lock(&self.0);
        if !state.ended {
            state.listeners.push((sender, Arc::clone(&lost)));
        }
        AutoEvents { queue, lost }
    }

    pub(super) fn send(&self, event: &AutoEvent) {
        lock(&self.0)
            .listeners
            .retain(|(sender, lost)| match sender.try_send(event.clone()) {
                Ok(()) => true,
                Err(TrySendError::Full(_)) => {
                    lost.fetch_add(1, Ordering::Relaxed);
                    true
                }
                Err(TrySendError::Disconnected(_)) => false,
            });
    }

    /// Ends all streams, and those to come.
    pub(super) fn end(&self) {
        *lock(&self.0) = State {
            listeners: Vec::new(),
            ended: true,
        };
    }
}
