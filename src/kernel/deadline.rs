//! When a change that nobody confirmed is taken back: a moment that outlives the process and the boot.

use std::fs;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// The id of this boot, another one after each.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// What the clocks say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Now {
    /// `None` if it cannot be read.
    pub boot: Option<String>,
    /// Since the boot, time asleep included: nobody can set it.
    pub since_boot: Duration,
    pub wall: Timestamp,
}

impl Now {
    pub(super) fn read() -> Self {
        let boot = fs::read_to_string(BOOT_ID).ok();
        // The clock is there since Linux 2.6.39; without one no boot is known as this one.
        let since_boot = clock_gettime(ClockId::CLOCK_BOOTTIME).ok();
        Self {
            boot: boot
                .filter(|_| since_boot.is_some())
                .map(|id| id.trim().to_owned()),
            since_boot: since_boot.map(Duration::from).unwrap_or_default(),
            wall: Timestamp::now(),
        }
    }
}

/// A deadline by two clocks: that of the boot, and the one on the wall for after a restart of the
/// machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Deadline {
    /// The boot that `since_boot_ms` counts from; empty if it was not known.
    boot: String,
    since_boot_ms: u64,
    #[serde(with = "super::state_dir::text")]
    pub wall: Timestamp,
    /// How long it was away at the beginning.
    within_ms: u64,
}

impl Deadline {
    /// `None` if it is beyond what the clocks can say.
    pub(super) fn new(now: &Now, within: Duration) -> Option<Self> {
        let wall = now.wall.checked_add(SignedDuration::try_from(within).ok()?);
        Some(Self {
            boot: now.boot.clone().unwrap_or_default(),
            since_boot_ms: milliseconds(now.since_boot.checked_add(within)?)?,
            wall: wall.ok()?,
            within_ms: milliseconds(within)?,
        })
    }

    /// How much time is left; zero if the deadline is past, or if the clocks cannot be right: then
    /// what was before comes back, which is the safe way to be wrong.
    pub(super) fn left(&self, now: &Now) -> Duration {
        let within = Duration::from_millis(self.within_ms);
        let is_this_boot = !self.boot.is_empty() && now.boot.as_deref() == Some(&self.boot);
        let left = if is_this_boot {
            Duration::from_millis(self.since_boot_ms).saturating_sub(now.since_boot)
        } else {
            let left = self.wall.duration_since(now.wall);
            Duration::try_from(left).unwrap_or_default()
        };
        // More than there ever was, and not by rounding: the clock was set back.
        if left > within + ROUNDED {
            return Duration::ZERO;
        }
        left.min(within)
    }
}

/// The most by which a deadline is later than it was asked for.
const ROUNDED: Duration = Duration::from_millis(1);

/// Rounded up: never early.
fn milliseconds(time: Duration) -> Option<u64> {
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(boot: &str, since_boot: u64, wall: i64) -> Now {
        Now {
            boot: Some(boot.to_owned()).filter(|id| !id.is_empty()),
            since_boot: Duration::from_secs(since_boot),
            wall: Timestamp::from_second(1_900_000_000 + wall).unwrap(),
        }
    }

    fn left(deadline: &Deadline, boot: &str, since_boot: u64, wall: i64) -> u64 {
        deadline.left(&now(boot, since_boot, wall)).as_secs()
    }

    #[test]
    fn r110_within_a_boot_the_wall_clock_may_jump() {
        let deadline = Deadline::new(&now("a", 100, 0), Duration::from_secs(60)).unwrap();
        assert_eq!(deadline.wall, now("a", 0, 60).wall);
        for wall in [-1_000_000, 0, 59, 61, 1_000_000] {
            assert_eq!(left(&deadline, "a", 100, wall), 60, "{wall}");
            assert_eq!(left(&deadline, "a", 130, wall), 30, "{wall}");
            assert_eq!(left(&deadline, "a", 160, wall), 0, "{wall}");
            assert_eq!(left(&deadline, "a", 9_999, wall), 0, "{wall}");
        }
        // A clock of the boot that went back is none.
        assert_eq!(left(&deadline, "a", 99, 0), 0);
    }

    #[test]
    fn r110_after_a_boot_the_wall_clock_counts_and_in_doubt_it_is_over() {
        let deadline = Deadline::new(&now("a", 100, 0), Duration::from_secs(60)).unwrap();
        assert_eq!(left(&deadline, "b", 5, 20), 40);
        assert_eq!(left(&deadline, "b", 5, 60), 0);
        assert_eq!(left(&deadline, "b", 5, 1_000_000), 0);
        // A machine without a clock that begins in the past.
        assert_eq!(left(&deadline, "b", 5, -1), 0);
        assert_eq!(left(&deadline, "b", 5, -1_000_000_000), 0);
        // No boot is known: never by the clock of a boot.
        assert_eq!(left(&deadline, "", 101, 20), 40);
        let unknown = Deadline::new(&now("", 0, 0), Duration::from_secs(60)).unwrap();
        assert_eq!(left(&unknown, "", 0, 59), 1);
        assert_eq!(left(&unknown, "", 0, 61), 0);
    }

    #[test]
    fn r110_rounding_does_not_look_like_a_clock_that_was_set_back() {
        let begun = Now {
            since_boot: Duration::from_nanos(100_000_000_001),
            ..now("a", 0, 0)
        };
        let within = Duration::from_secs(60);
        let deadline = Deadline::new(&begun, within).unwrap();
        assert_eq!(deadline.left(&begun), within);
    }

    #[test]
    fn a_deadline_that_no_clock_can_say_is_none() {
        assert_eq!(Deadline::new(&now("a", 1, 0), Duration::MAX), None);
        let short = Deadline::new(&now("a", 1, 0), Duration::from_nanos(1)).unwrap();
        assert_eq!(short.within_ms, 1);
    }
}
