//! From wall time to the ticks in which the data path measures expiry.

use jiff::Timestamp;

/// A moment on two clocks: wall time, and the ticks of whatever judges packets.
///
/// The data path cannot see wall time; it compares ticks (jiffies in the kernel, `bpf_jiffies64`,
/// since 5.6). An expiry is turned into ticks once, when a policy is compiled, so nothing needs to run
/// when it comes. A step of the wall clock after that is not seen before the next policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// Wall time at `ticks`.
    pub now: Timestamp,
    /// Ticks at `now`.
    pub ticks: u64,
    /// Nanoseconds of a tick; not 0.
    pub tick_ns: u32,
}

impl Default for Clock {
    /// Ticks are nanoseconds since 1970: for judging by an image outside of the kernel.
    fn default() -> Self {
        Self {
            now: Timestamp::UNIX_EPOCH,
            ticks: 0,
            tick_ns: 1,
        }
    }
}

impl Clock {
    /// An expiry that never comes.
    pub(crate) const NEVER: u64 = u64::MAX;

    /// The first tick that is not before a moment. What is before the first tick there is counts as
    /// tick 0, what is too far ahead as the last but one: only what has no expiry never comes.
    pub fn ticks_at(&self, at: Timestamp) -> u64 {
        let nanoseconds = at.as_nanosecond() - self.now.as_nanosecond();
        let ticks = nanoseconds.div_euclid(i128::from(self.tick_ns))
            + i128::from(nanoseconds.rem_euclid(i128::from(self.tick_ns)) != 0);
        let ticks = i128::from(self.ticks) + ticks;
        u64::try_from(ticks.max(0)).map_or(Self::NEVER - 1, |t| t.min(Self::NEVER - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(nanoseconds: i128) -> Timestamp {
        Timestamp::from_nanosecond(nanoseconds).unwrap()
    }

    #[test]
    fn an_expiry_comes_with_the_first_tick_that_is_not_before_it() {
        let clock = Clock {
            now: at(1_000_000_000),
            ticks: 500,
            tick_ns: 4_000_000,
        };
        for (nanoseconds, ticks) in [
            (1_000_000_000, 500),
            (1_000_000_001, 501),
            (1_004_000_000, 501),
            (999_999_999, 500),
            (996_000_000, 499),
            (-9_000_000_000, 0),
        ] {
            assert_eq!(clock.ticks_at(at(nanoseconds)), ticks, "{nanoseconds}");
        }
    }

    #[test]
    fn the_end_of_time_does_not_wrap() {
        let clock = Clock {
            ticks: u64::MAX - 5,
            ..Clock::default()
        };
        assert_eq!(clock.ticks_at(Timestamp::MAX), Clock::NEVER - 1);
        assert_eq!(Clock::default().ticks_at(Timestamp::MIN), 0);
        assert!(Clock::default().ticks_at(Timestamp::MAX) < Clock::NEVER);
    }
}
