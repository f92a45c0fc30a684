//! The wall clock and the kernel's monotonic clock, read together.

use std::io;
use std::time::Duration;

use jiff::Timestamp;
use nix::time::{ClockId, clock_gettime};

/// A pair of times is good if this much lies between two reads of the monotonic clock around it:
/// some hundred times what a read takes, far less than what a process waits that lost its CPU.
const CLOSE: Duration = Duration::from_micros(50);
const TRIES: u32 = 10;

/// What `bpf_ktime_get_ns` would say now.
pub(super) fn monotonic() -> io::Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_MONOTONIC)?.into())
}

/// A moment by both clocks. The monotonic time is read after that on the wall: later if they differ,
/// by [`CLOSE`] unless the process is held up again and again.
pub(super) fn wall_and_monotonic() -> io::Result<(Timestamp, Duration)> {
    closest(TRIES, || Ok((monotonic()?, Timestamp::now(), monotonic()?)))
}

/// The pair with the least time around it, of a few.
fn closest(
    tries: u32,
    mut read: impl FnMut() -> io::Result<(Duration, Timestamp, Duration)>,
) -> io::Result<(Timestamp, Duration)> {
    let (mut before, mut wall, mut after) = read()?;
    for _ in 1..tries {
        if after - before <= CLOSE {
            break;
        }
        let (next_before, next_wall, next_after) = read()?;
        if next_after - next_before < after - before {
            (before, wall, after) = (next_before, next_wall, next_after);
        }
    }
    Ok((wall, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads that take these microseconds, one after the other; each says its own number on the wall.
    fn of_reads(took: &[u64]) -> (i64, u64) {
        let (mut number, mut at) = (0, Duration::ZERO);
        let (wall, after) = closest(TRIES, || {
            let before = at;
            at += Duration::from_micros(took[number]);
            number += 1;
            Ok((before, Timestamp::from_second(number as i64).unwrap(), at))
        })
        .unwrap();
        (wall.as_second(), after.as_micros() as u64)
    }

    #[test]
    fn a_read_that_was_held_up_is_made_again() {
        assert_eq!(of_reads(&[1]), (1, 1));
        assert_eq!(of_reads(&[5000, 70_000, 2]), (3, 75_002));
        // Held up each time: the best of them.
        let mut slow = [900; TRIES as usize];
        slow[4] = 60;
        assert_eq!(of_reads(&slow), (5, 4 * 900 + 60));
    }

    #[test]
    fn the_clocks_go_together() {
        let (wall, at) = wall_and_monotonic().unwrap();
        let (later, after) = wall_and_monotonic().unwrap();
        let (wall, at) = (later.duration_since(wall), after - at);
        let apart = wall - jiff::SignedDuration::try_from(at).unwrap();
        assert!(
            apart.abs() < jiff::SignedDuration::from_millis(50),
            "{apart}"
        );
    }
}
