//! What many short measurements of one thing say.

use std::time::Duration;

use serde::Serialize;

/// Nanoseconds a packet, one figure for each batch.
#[derive(Default)]
pub struct Batches(pub Vec<f64>);

/// Median and 95th percentile over the batches.
#[derive(Clone, Copy, Serialize)]
pub struct Summary {
    pub median: f64,
    pub p95: f64,
}

impl Batches {
    pub fn summary(&self) -> Summary {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len() - 1;
        Summary {
            median: sorted[sorted.len() / 2],
            p95: sorted[(sorted.len() * 95)
                .div_ceil(100)
                .saturating_sub(1)
                .min(last)],
        }
    }

    /// Over what was measured beside it in the same rounds.
    pub fn over(&self, base: &Self) -> Self {
        Self(self.0.iter().zip(&base.0).map(|(a, b)| a - b).collect())
    }
}

pub fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
