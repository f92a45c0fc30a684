//! How much of something may happen: so many at once, and so many a second in the long run.

use std::time::Duration;

use tokio::time::Instant;

/// A budget that refills with time. Time is a parameter.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Budget {
    /// How long one takes to come back.
    each: Duration,
    /// How many there are at most, as time.
    burst: Duration,
    /// When all that was taken has come back.
    full: Option<Instant>,
}

impl Budget {
    /// So many a second, and so many at once; both at least 1.
    pub(crate) fn new(per_second: u32, burst: u32) -> Self {
        let each = Duration::from_secs(1) / per_second.max(1);
        Self {
            each,
            burst: each * burst.max(1),
            full: None,
        }
    }

    /// Takes one, which may be used after the time that is returned.
    ///
    /// # Errors
    /// That would be longer than `patience`; nothing is taken. After the time that is returned it would not.
    pub(crate) fn take(&mut self, now: Instant, patience: Duration) -> Result<Duration, Duration> {
        let full = self.full.map_or(now, |at| at.max(now)) + self.each;
        let wait = full.duration_since(now).saturating_sub(self.burst);
        if wait > patience {
            return Err(wait - patience);
        }
        self.full = Some(full);
        Ok(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_one_after_the_other_then_none() {
        let now = Instant::now();
        let mut budget = Budget::new(10, 3);
        let patience = Duration::from_millis(250);
        for _ in 0..3 {
            assert_eq!(budget.take(now, patience), Ok(Duration::ZERO));
        }
        assert_eq!(budget.take(now, patience), Ok(Duration::from_millis(100)));
        assert_eq!(budget.take(now, patience), Ok(Duration::from_millis(200)));
        assert_eq!(budget.take(now, patience), Err(Duration::from_millis(50)));
        assert_eq!(
            budget.take(now, patience),
            Err(Duration::from_millis(50)),
            "nothing was taken"
        );
        let later = now + Duration::from_millis(50);
        assert_eq!(budget.take(later, patience), Ok(Duration::from_millis(250)));
        let later = now + Duration::from_secs(9);
        assert_eq!(budget.take(later, Duration::ZERO), Ok(Duration::ZERO));
    }
}
