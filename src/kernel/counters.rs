//! The counters of all CPUs, by interface slot and by rule slot.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use super::backend::{Bank, VerdictCounters, add_all};
use super::layout::{BANKS, COUNTERS_PER_INTERFACE, HostShape, RuleCounter, VerdictCounter};
use super::shared_maps::SharedMaps;
use super::sys::SharedWords;

/// The counters, in memory that the data path writes to.
#[derive(Debug)]
pub(super) struct Counters {
    cpus: usize,
    interface_slots: usize,
    rule_slots: usize,
    verdicts: SharedWords<AtomicU64>,
    rules: SharedWords<AtomicU64>,
}

const WORDS_PER_VERDICT: usize = size_of::<VerdictCounter>() / size_of::<u64>();
const WORDS_PER_RULE: usize = size_of::<RuleCounter>() / size_of::<u64>();

impl Counters {
    pub(super) fn new(maps: &SharedMaps, host: HostShape, cpus: usize) -> io::Result<Self> {
        let (interface_slots, rule_slots) =
            (host.interface_slots as usize, host.rule_slots as usize);
        let verdicts = cpus * interface_slots * COUNTERS_PER_INTERFACE * BANKS;
        let rules = cpus * rule_slots * BANKS;
        Ok(Self {
            cpus,
            interface_slots,
            rule_slots,
            verdicts: SharedWords::new(&maps.verdict_counters, verdicts * WORDS_PER_VERDICT)?,
            rules: SharedWords::new(&maps.rule_counters, rules * WORDS_PER_RULE)?,
        })
    }

    pub(super) fn verdicts(&self, slot: u16, bank: Bank) -> VerdictCounters {
        let mut sums = [VerdictCounter::default(); COUNTERS_PER_INTERFACE];
        let words = self.verdicts.words();
        for cpu in 0..self.cpus {
            let region = cpu * self.interface_slots + usize::from(slot);
            let first = region * COUNTERS_PER_INTERFACE * BANKS + bank as usize;
            let pairs = words[first * WORDS_PER_VERDICT..]
                .chunks(WORDS_PER_VERDICT)
                .step_by(BANKS);
            for (sum, pair) in sums.iter_mut().zip(pairs) {
                let [packets, bytes] = [0, 1].map(|i| pair[i].load(Ordering::Relaxed));
                sum.add(VerdictCounter { packets, bytes });
            }
        }
        sums
    }

    pub(super) fn rule(&self, slot: u32, bank: Bank) -> RuleCounter {
        let mut sum = RuleCounter::default();
        let words = self.rules.words();
        for cpu in 0..self.cpus {
            let index = (cpu * self.rule_slots + slot as usize) * BANKS + bank as usize;
            let counter = &words[index * WORDS_PER_RULE..][..WORDS_PER_RULE];
            let [packets, bytes, dropped_packets, would_drop_packets] =
                [0, 1, 2, 3].map(|i| counter[i].load(Ordering::Relaxed));
            sum.add(RuleCounter {
                packets,
                bytes,
                dropped_packets,
                would_drop_packets,
            });
        }
        sum
    }

    /// All that was counted for an interface, in both banks.
    pub(super) fn all_verdicts(&self, slot: u16) -> VerdictCounters {
        let mut sums = self.verdicts(slot, Bank::First);
        add_all(&mut sums, &self.verdicts(slot, Bank::Second));
        sums
    }

    /// All that was counted for a rule, in both banks.
    pub(super) fn all_of_rule(&self, slot: u32) -> RuleCounter {
        let mut sum = self.rule(slot, Bank::First);
        sum.add(self.rule(slot, Bank::Second));
        sum
    }
}
