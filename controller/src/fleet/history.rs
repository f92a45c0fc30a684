//! The fleet's rates over the last hour in fine steps and over the last day in coarse ones, for charts.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::counters::Rates;

/// How it was at one moment, or on average over a step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The end of the step.
    pub at: Timestamp,
    /// Rates over all nodes whose numbers are fresh; absent if there are none.
    pub rates: Option<Rates>,
    /// How many nodes these are, at least.
    pub of: u32,
    /// How many nodes there are.
    pub nodes: u32,
    /// How many are online, at least.
    pub online: u32,
}

/// Which steps are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Steps {
    /// Of 5 s, for an hour.
    Fine,
    /// Of a minute, for a day.
    Coarse,
}

/// Bounded: about 150 KiB.
#[derive(Debug, Default)]
pub(super) struct History {
    fine: VecDeque<Sample>,
    coarse: VecDeque<Sample>,
    /// Those that are not yet in a coarse step.
    open: Vec<Sample>,
}

impl Steps {
    /// How long one is.
    pub fn length(self) -> Duration {
        Duration::from_secs(match self {
            Self::Fine => 5,
            Self::Coarse => 60,
        })
    }

    fn most(self) -> usize {
        match self {
            Self::Fine => 720,
            Self::Coarse => 1440,
        }
    }
}

impl History {
    /// Adds a sample of a fine step.
    pub(super) fn push(&mut self, sample: Sample) {
        bounded(&mut self.fine, sample, Steps::Fine);
        self.open.push(sample);
        if self.open.len() == 12 {
            let step = average(&self.open);
            self.open.clear();
            bounded(&mut self.coarse, step, Steps::Coarse);
        }
    }

    /// Puts what somebody else has kept before what is there.
    pub(super) fn take(&mut self, fine: Vec<Sample>, coarse: Vec<Sample>) {
        let all = [
            (&mut self.fine, fine, Steps::Fine),
            (&mut self.coarse, coarse, Steps::Coarse),
        ];
        for (samples, mut earlier, steps) in all {
            let first = samples.front().map(|sample| sample.at);
            earlier.retain(|sample| first.is_none_or(|first| sample.at < first));
            let room = steps.most() - samples.len();
            for sample in earlier.into_iter().rev().take(room) {
                samples.push_front(sample);
            }
        }
    }

    /// The oldest first.
    pub(super) fn samples(&self, steps: Steps) -> Vec<Sample> {
        let samples = match steps {
            Steps::Fine => &self.fine,
            Steps::Coarse => &self.coarse,
        };
        samples.iter().copied().collect()
    }
}

fn bounded(samples: &mut VecDeque<Sample>, sample: Sample, steps: Steps) {
    if samples.len() == steps.most() {
        samples.pop_front();
    }
    samples.push_back(sample);
}

fn average(samples: &[Sample]) -> Sample {
    let rates: Vec<_> = samples.iter().filter_map(|sample| sample.rates).collect();
    let mut sum = Rates::default();
    rates.iter().for_each(|rates| sum.add(rates));
    let many = rates.len() as f64;
    let least = |of: fn(&Sample) -> u32| samples.iter().map(of).min().unwrap_or(0);
    let known = samples.iter().filter(|sample| sample.rates.is_some());
    let last = &samples[samples.len() - 1];
    Sample {
        at: last.at,
        rates: (!rates.is_empty()).then_some(Rates {
            passed: sum.passed / many,
            dropped: sum.dropped / many,
            would_drop: sum.would_drop / many,
            bits: sum.bits / many,
        }),
        of: known.map(|sample| sample.of).min().unwrap_or(0),
        nodes: last.nodes,
        online: least(|sample| sample.online),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_bounded_and_says_nothing_where_nothing_is_known() {
        let mut history = History::default();
        let start = Timestamp::UNIX_EPOCH;
        for i in 0..40_000_u32 {
            let known = i / 12 != 3_000;
            let passed = f64::from(i % 12);
            history.push(Sample {
                at: start + Duration::from_secs(5 * u64::from(i)),
                rates: known.then_some(Rates {
                    passed,
                    ..Rates::default()
                }),
                of: i % 7,
                nodes: 10,
                online: 9 - i % 3,
            });
        }
        let fine = history.samples(Steps::Fine);
        assert_eq!(
            (fine.len(), fine[719].at),
            (720, start + Duration::from_secs(5 * 39_999))
        );
        let coarse = history.samples(Steps::Coarse);
        assert_eq!(coarse.len(), 1440);
        let gap = coarse.iter().find(|sample| sample.rates.is_none()).unwrap();
        assert_eq!((gap.of, gap.online), (0, 7));
        assert_eq!(coarse[0].rates.unwrap().passed, 5.5);
        assert!(history.open.len() < 12);
    }
}
