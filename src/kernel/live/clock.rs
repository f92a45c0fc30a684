//! What time it is in the ticks of the data path.

use std::io;
use std::time::Duration;

use jiff::SignedDuration;
use nix::time::{ClockId, clock_gettime};

use crate::compile::Clock;
use crate::kernel::wall::{monotonic, wall_and_monotonic};

/// A moment of the monotonic clock, and the tick (jiffy) that it is in or next to.
///
/// Ticks lag: they stand still while the CPU that counts them is held up, which in a virtual machine
/// may be long, and are made up for all at once. A tick that is taken for the one of *now* would then
/// let everything expire too early. The coarse clock goes on in the same step of the kernel
/// (`tick_do_update_jiffies64`, `kernel/time/tick-sched.c`), so a tick belongs to the coarse time
/// that is the same before and after it, however far both are behind; less than a tick lies between.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Moment {
    at: Duration,
    ticks: u64,
}

const TRIES: u32 = 10;
const LIFE: Duration = Duration::from_secs(10);

impl Moment {
    pub(super) fn read(mut ticks: impl FnMut() -> io::Result<u64>) -> io::Result<Self> {
        let mut at = coarse()?;
        let mut tries = 0;
        loop {
            let ticks = ticks()?;
            let after = coarse()?;
            tries += 1;
            if at == after || tries == TRIES {
                // If in doubt the earlier time: what expires does so later.
                return Ok(Self { at, ticks });
            }
            at = after;
        }
    }

    pub(super) fn is_old(&self) -> bool {
        since(self.at) >= LIFE
    }

    /// The tick of now, give or take one.
    pub(super) fn ticks_now(&self, tick_ns: u32) -> u64 {
        let since = since(self.at).as_nanos() / u128::from(tick_ns);
        let since = u64::try_from(since).unwrap_or(u64::MAX);
        self.ticks.saturating_add(since)
    }

    /// The moment on the wall clock. Nothing expires early by it, and at most three ticks late.
    pub(super) fn wall(&self, tick_ns: u32) -> io::Result<Clock> {
        let (wall, monotonic) = wall_and_monotonic()?;
        let since = monotonic.saturating_sub(self.at);
        let since = SignedDuration::try_from(since).map_err(io::Error::other)?;
        Ok(Clock {
            now: wall.checked_sub(since).map_err(io::Error::other)?,
            // The tick may have begun nearly a tick before the moment.
            ticks: self.ticks.saturating_add(1),
            tick_ns,
        })
    }
}

fn since(at: Duration) -> Duration {
    // That the clock cannot be read is found when a moment is.
    monotonic().unwrap_or_default().saturating_sub(at)
}

fn coarse() -> io::Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE)?.into())
}
