//! Where events come from: the part of the seam to the kernel that is about them.

use std::fmt::Debug;
use std::io;
use std::sync::Arc;
use std::time::Instant;

/// What became of the dropped frames while somebody listened, since the firewall was loaded: each is
/// in one of the three.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct EventStats {
    /// An event was sent for them.
    pub sent: u64,
    /// A budget was spent: that of their rule or reason, or that of all events.
    pub suppressed: u64,
    /// An event was due, but the buffer to user space was full.
    pub lost: u64,
}

/// What an event takes of a budget that holds a second, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::kernel) struct Budget {
    pub rule_ns: u32,
    pub total_ns: u32,
}

/// The events of a data path.
pub(in crate::kernel) trait EventSource: Debug + Send + Sync {
    /// Samples drops by this budget from now on, or tells nothing.
    fn set_budget(&self, budget: Option<Budget>);

    /// Hands all that is sent to a sink, from a thread that lives until the answer is dropped.
    /// `None`: nothing will ever be sent.
    fn read(&self, sink: Arc<dyn Sink>) -> io::Result<Option<Box<dyn Reading>>>;

    fn stats(&self) -> EventStats;
}

/// Who is given the events.
pub(in crate::kernel) trait Sink: Send + Sync {
    /// A record as the data path wrote it.
    fn record(&self, bytes: &[u8]);
    /// All that was sent before `at` was handed over. Comes every second or more often.
    fn drained(&self, at: Instant);
}

/// A thread that hands events over; dropping it ends it, and waits for the end.
pub(in crate::kernel) trait Reading: Debug + Send + Sync {}

/// Of a firewall that drops nothing.
#[derive(Debug)]
pub(in crate::kernel) struct NoEvents;

impl EventSource for NoEvents {
    fn set_budget(&self, _: Option<Budget>) {}

    fn read(&self, _: Arc<dyn Sink>) -> io::Result<Option<Box<dyn Reading>>> {
        Ok(None)
    }

    fn stats(&self) -> EventStats {
        EventStats::default()
    }
}
