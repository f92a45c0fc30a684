//! What was told to the metrics facade: counters of the kernel begin anew, those of metrics must not.
//!
//! An interface that is attached again and a rule that comes back count from zero. What was told so
//! far is added then, so that a counter never falls, whatever exporter has it.

use std::collections::HashMap;
use std::hash::Hash;

use super::super::stats::{Disposition, Stats};
use crate::policy::RuleId;
use crate::verdict::Reason;

/// A counter of the kernel, as it goes to metrics.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Series {
    Packets(String, Disposition, Reason),
    Bytes(String, Disposition, Reason),
    Rule(RuleId, RuleCount),
}

/// Which counter of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum RuleCount {
    Packets,
    Bytes,
    Dropped,
    WouldDrop,
}

/// What each series was last, and what came before it began anew.
#[derive(Debug, Default)]
pub(in crate::kernel) struct Told {
    series: HashMap<Series, Value>,
    /// The overflow of each rule, of those that have some.
    overflow: HashMap<RuleId, u64>,
    overflow_total: u64,
    /// Which interfaces were attached, in which mode.
    pub(super) attached: Vec<(String, &'static str)>,
    turn: u64,
}

#[derive(Debug, Clone, Copy)]
struct Value {
    last: u64,
    before: u64,
    turn: u64,
}

/// From how many series on those that are gone are forgotten.
const KEPT: usize = 4096;

impl Told {
    /// What is to be told of a series whose counter is at `now`.
    pub(super) fn value(&mut self, series: Series, now: u64) -> u64 {
        let turn = self.turn;
        let value = self.series.entry(series).or_insert(Value {
            last: 0,
            before: 0,
            turn,
        });
        if now < value.last {
            value.before += value.last;
        }
        value.last = now;
        value.turn = turn;
        value.before + now
    }

    /// The overflow of all rules since the firewall was loaded, also of those that are gone.
    pub(super) fn overflow(&mut self, stats: &Stats) -> u64 {
        let rules = stats.rules.iter().filter(|r| r.rate_overflow > 0);
        let now: HashMap<RuleId, u64> = rules.map(|r| (r.id.clone(), r.rate_overflow)).collect();
        self.overflow_total += growth(&self.overflow, &now);
        self.overflow = now;
        self.overflow_total
    }

    /// To be called when all was told: forgets what is gone, once it has become much.
    pub(super) fn end(&mut self) {
        if self.series.len() > KEPT {
            let turn = self.turn;
            self.series.retain(|_, value| value.turn == turn);
        }
        self.turn += 1;
    }
}

/// By how much counters grew, where one that fell has begun anew.
fn growth<K: Hash + Eq>(before: &HashMap<K, u64>, now: &HashMap<K, u64>) -> u64 {
    let grown = now.iter().map(|(key, now)| match before.get(key) {
        Some(before) if before <= now => now - before,
        _ => *now,
    });
    grown.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(name: &str) -> Series {
        Series::Packets(name.to_owned(), Disposition::Passed, Reason::Rule)
    }

    #[test]
    fn counters_that_begin_anew_go_on() {
        let mut told = Told::default();
        let said: Vec<u64> = [3, 7, 7, 2, 5, 0, 1]
            .into_iter()
            .map(|now| {
                let value = told.value(series("a"), now);
                told.end();
                value
            })
            .collect();
        assert_eq!(said, [3, 7, 7, 9, 12, 12, 13]);
    }

    #[test]
    fn what_is_gone_is_forgotten_when_it_is_much() {
        let mut told = Told::default();
        for n in 0..KEPT {
            told.value(series(&n.to_string()), 5);
        }
        told.end();
        // Gone, and back with less: it is known still.
        assert_eq!(told.value(series("7"), 1), 6);
        told.end();
        told.value(series("new"), 1);
        told.end();
        assert_eq!(told.series.len(), 1);
        assert_eq!(told.value(series("7"), 1), 1);
    }

    #[test]
    fn overflow_of_rules_that_go_is_kept() {
        let before = HashMap::from([("a", 5), ("b", 3)]);
        let now = HashMap::from([("a", 9), ("c", 2)]);
        assert_eq!(growth(&before, &now), 6);
        assert_eq!(growth(&now, &HashMap::from([("a", 1)])), 1);
    }
}
