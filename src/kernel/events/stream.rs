//! What a listener holds.

use std::iter::FusedIterator;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use super::event::Event;
use super::hub::{Hub, SubscriberId};
use super::options::EventOptions;
use super::source::EventStats;
use crate::kernel::error::EventError;
use crate::kernel::firewall::Firewall;

/// Sampled drops as they happen: an iterator that waits for the next one.
///
/// It ends when the firewall is dropped, after the events that are waiting. Any number of streams
/// may be open; each has a queue of its own and sees every event that is sent. Drop the last one,
/// and the data path stops sending.
///
/// Events of one CPU come in the order in which it judged the frames, those of several CPUs nearly
/// so: [`Event::time`] says.
#[derive(Debug)]
pub struct EventStream {
    pub(super) queue: Receiver<Event>,
    pub(super) lost: Arc<AtomicU64>,
    pub(super) hub: Arc<Hub>,
    pub(super) id: SubscriberId,
}

/// Why there is no next event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NextError {
    /// None came in time.
    #[error("no event came in time")]
    Timeout,
    /// None will come: the firewall is gone.
    #[error("the firewall is gone, and its events with it")]
    Ended,
}

impl EventStream {
    /// The next event, if it comes within a time.
    ///
    /// # Errors
    /// It did not, or no event will ever come.
    pub fn next_timeout(&mut self, timeout: Duration) -> Result<Event, NextError> {
        self.queue.recv_timeout(timeout).map_err(|e| match e {
            RecvTimeoutError::Timeout => NextError::Timeout,
            RecvTimeoutError::Disconnected => NextError::Ended,
        })
    }

    /// How many events were lost to this stream, because its queue was full when they came. Those
    /// that never came so far are in [`Firewall::event_stats`].
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Iterator for EventStream {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        self.queue.recv().ok()
    }
}

impl FusedIterator for EventStream {}

impl Drop for EventStream {
    fn drop(&mut self) {
        self.hub.unsubscribe(self.id);
    }
}

impl Firewall {
    /// Samples of what is dropped, and of what dry run would have dropped, from now on.
    ///
    /// Frames that pass are never told. Nothing is sent while no stream is open; each that is
    /// opened raises the budgets of the data path to what it asks for, if they are lower.
    ///
    /// ```no_run
    /// use xdpgate::{EventOptions, Firewall};
    ///
    /// let firewall = Firewall::loader().load()?;
    /// for event in firewall.events(EventOptions::default())? {
    ///     let packet = event.packet();
    ///     println!("{} {} {:?} {:?}", event.time, event.reason, event.rule, packet);
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// An option is out of range, or a system call failed.
    pub fn events(&self, options: EventOptions) -> Result<EventStream, EventError> {
        self.events.subscribe(options)
    }

    /// What became of the events of this firewall.
    pub fn event_stats(&self) -> EventStats {
        self.events.stats()
    }
}
