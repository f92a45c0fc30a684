//! All counters at one moment, under traffic.
//!
//! There are two banks of all counters, and a packet counts in one of them: the one that was set
//! when it came in. A snapshot reads the bank that rests, makes it the one that counts, waits until
//! the packets that still count in the other have ended, and then reads that one. Its sum is what
//! was counted by all packets that came in before the switch, and by no other.

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use super::backend::{Backend, Bank, VerdictCounters, add_all};
use super::firewall::lock;
use super::interfaces::{Interfaces, OTHER, SlotOwner};
use super::layout::RuleCounter;
use super::publish::Active;
use super::stats::{InterfaceStats, RuleStats, Stats, VerdictCounts};

/// Takes the snapshots of a firewall, one at a time.
#[derive(Debug)]
pub(super) struct Snapshots {
    backend: Arc<dyn Backend>,
    active: Arc<RwLock<Option<Arc<Active>>>>,
    interfaces: Arc<Mutex<Interfaces>>,
    /// Held for a whole snapshot: between two of them one bank rests.
    turn: Mutex<()>,
}

/// All counters, and when it was that they stood so.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub at: Instant,
    pub stats: Stats,
}

/// What one bank holds, or both.
struct Counters {
    other: VerdictCounters,
    interfaces: Vec<VerdictCounters>,
    rules: Vec<RuleCounter>,
}

impl Snapshots {
    pub(super) fn new(
        backend: Arc<dyn Backend>,
        active: Arc<RwLock<Option<Arc<Active>>>>,
        interfaces: Arc<Mutex<Interfaces>>,
    ) -> Self {
        Self {
            backend,
            active,
            interfaces,
            turn: Mutex::new(()),
        }
    }

    pub(super) fn take(&self) -> Snapshot {
        let backend = &*self.backend;
        let _turn = lock(&self.turn);
        // Until the banks are switched no interface and no policy comes or goes: whoever counts in
        // the bank that is read last is known now.
        let interfaces = lock(&self.interfaces);
        let active = self
            .active
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let owners = interfaces.owners();
        let counting = backend.bank();
        let mut sum = Counters::read(backend, counting.other(), &owners, active.as_deref());
        backend.set_bank(counting.other());
        let at = Instant::now();
        drop(interfaces);
        if let Err(error) = backend.wait_for_readers() {
            log::warn!(
                "counters may lack the packets that are being judged: cannot wait for them: {error}"
            );
        }
        sum.add(&Counters::read(
            backend,
            counting,
            &owners,
            active.as_deref(),
        ));
        let stats = sum.into_stats(backend, owners, active.as_deref());
        Snapshot { at, stats }
    }
}

impl Counters {
    fn read(
        backend: &dyn Backend,
        bank: Bank,
        owners: &[SlotOwner],
        active: Option<&Active>,
    ) -> Self {
        let rules = active.iter().flat_map(|a| &*a.rules);
        let interfaces = owners.iter();
        Self {
            other: backend.verdict_counters(OTHER, bank),
            interfaces: interfaces
                .map(|owner| backend.verdict_counters(owner.slot, bank))
                .collect(),
            rules: rules
                .map(|(_, slot)| backend.rule_counter(slot.number, bank))
                .collect(),
        }
    }

    fn add(&mut self, more: &Self) {
        add_all(&mut self.other, &more.other);
        for (sum, counters) in self.interfaces.iter_mut().zip(&more.interfaces) {
            add_all(sum, counters);
        }
        for (sum, counter) in self.rules.iter_mut().zip(&more.rules) {
            sum.add(*counter);
        }
    }

    fn into_stats(
        self,
        backend: &dyn Backend,
        owners: Vec<SlotOwner>,
        active: Option<&Active>,
    ) -> Stats {
        let mut interfaces: Vec<InterfaceStats> = owners
            .into_iter()
            .zip(&self.interfaces)
            .map(|(owner, counters)| InterfaceStats {
                ifindex: owner.ifindex,
                name: owner.name,
                attached: owner.attached,
                counts: VerdictCounts::new(counters, Some(&owner.baseline)),
            })
            .filter(|stats| stats.attached || stats.counts.total().packets > 0)
            .collect();
        interfaces.sort_by_key(|stats| stats.ifindex);
        let rules = active.iter().flat_map(|a| &*a.rules).zip(self.rules);
        Stats {
            generation: active.map(|a| a.generation),
            interfaces,
            other: VerdictCounts::new(&self.other, None),
            rules: rules
                .map(|((id, slot), counter)| {
                    let overflow = backend.rate_overflow(slot.number);
                    RuleStats::new(id.clone(), counter.since(slot.baseline), overflow)
                })
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::kernel::recorder::Recorder;

    #[test]
    fn frames_count_once_and_as_of_the_switch() {
        let recorder = Arc::new(Recorder::default());
        let snapshots = Snapshots::new(
            Arc::<Recorder>::clone(&recorder),
            Arc::default(),
            Arc::new(Mutex::new(Interfaces::new(1))),
        );
        let traffic = &recorder.traffic;
        let (mut came, mut late) = (0, 0);
        for turn in 1..=5u32 {
            // Those that came late the last time are in the bank that counts now.
            came += late;
            let counted = &traffic.counted[recorder.bank() as usize];
            counted.fetch_add(10 * turn, Ordering::SeqCst);
            traffic.in_flight.store(3, Ordering::SeqCst);
            late = turn;
            traffic.late.store(late, Ordering::SeqCst);
            came += 10 * turn + 3;
            let stats = snapshots.take().stats;
            assert_eq!(stats.other.total().packets, u64::from(came), "{turn}");
        }
    }
}
