//! Budgets that fill up with time, one for each key.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Token buckets; a key that was not seen has a full one. Those that are full again are forgotten when there
/// are `MOST`, and while there are still as many, further keys are not counted.
#[derive(Debug)]
pub(super) struct Budgets<K> {
    left: HashMap<K, Left>,
}

#[derive(Debug, Clone, Copy)]
struct Left {
    amount: f64,
    at: Instant,
}

/// How fast budgets fill, and how far.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rate {
    pub per_second: f64,
    pub burst: f64,
}

impl<K: Eq + Hash> Budgets<K> {
    pub(super) fn new() -> Self {
        Self {
            left: HashMap::new(),
        }
    }

    /// Takes one.
    ///
    /// # Errors
    ///
    /// None is left: how long until there is one.
    pub(super) fn take(&mut self, key: K, rate: Rate, now: Instant) -> Result<(), Duration> {
        if self.left.len() >= MOST && !self.left.contains_key(&key) {
            self.left.retain(|_, left| left.now(rate, now) < rate.burst);
            if self.left.len() >= MOST {
                return Ok(());
            }
        }
        let full = Left {
            amount: rate.burst,
            at: now,
        };
        let left = self.left.entry(key).or_insert(full);
        let amount = left.now(rate, now);
        *left = Left { amount, at: now };
        wait(amount, rate)?;
        left.amount = amount - 1.0;
        Ok(())
    }

    /// Whether there is one to take, without taking it.
    pub(super) fn look(&self, key: &K, rate: Rate, now: Instant) -> Result<(), Duration> {
        match self.left.get(key) {
            Some(left) => wait(left.now(rate, now), rate),
            None => Ok(()),
        }
    }
}

impl Left {
    fn now(&self, rate: Rate, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        (self.amount + passed * rate.per_second).min(rate.burst)
    }
}

fn wait(amount: f64, rate: Rate) -> Result<(), Duration> {
    match amount >= 1.0 {
        true => Ok(()),
        false => Err(Duration::from_secs_f64((1.0 - amount) / rate.per_second)),
    }
}

const MOST: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate {
        per_second: 2.0,
        burst: 3.0,
    };

    #[test]
    fn a_budget_is_spent_and_fills_up() {
        let mut budgets = Budgets::new();
        let start = Instant::now();
        for _ in 0..3 {
            assert_eq!(budgets.take("a", RATE, start), Ok(()));
        }
        let half = Duration::from_millis(500);
        assert_eq!(budgets.look(&"a", RATE, start), Err(half));
        assert_eq!(budgets.take("a", RATE, start), Err(half));
        assert_eq!(budgets.take("b", RATE, start), Ok(()));
        assert_eq!(budgets.take("a", RATE, start + half), Ok(()));
        assert!(budgets.take("a", RATE, start + half).is_err());
        let long = start + Duration::from_secs(3600);
        assert!((0..3).all(|_| budgets.take("a", RATE, long).is_ok()));
        assert!(budgets.take("a", RATE, long).is_err());
    }

    #[test]
    fn its_memory_is_bounded() {
        let mut budgets = Budgets::new();
        let start = Instant::now();
        for key in 0..3 * MOST {
            let _ = budgets.take(key, RATE, start);
        }
        assert_eq!(budgets.left.len(), MOST);
        let later = start + Duration::from_secs(10);
        let _ = budgets.take(3 * MOST, RATE, later);
        assert_eq!(budgets.left.len(), 1);
    }
}
