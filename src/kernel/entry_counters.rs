//! Counters of single entries of sets.
//!
//! Each generation has its own, because each numbers entries anew. What the one before counted is
//! added once no packet is judged by it any more.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use super::backend::Backend;
use super::error::EntryCountersError;
use super::firewall::{Firewall, lock};
use super::layout::EntryCounter;
use super::publish::Active;
use super::published::WORDS_PER_ENTRY;
use super::stats::Count;
use super::sys::SharedWords;
use crate::policy::{Prefix, SetName};

/// What rules matched by one entry of an address set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct EntryStats {
    /// The address or prefix.
    pub entry: Prefix,
    /// The packets, with their bytes.
    pub matched: Count,
}

impl Firewall {
    /// What each entry of a set with `counters: entry` has matched, in the order of
    /// [`AddressSet::entries`](crate::policy::AddressSet::entries).
    ///
    /// A packet counts when a rule that names the set matches it, whether that decides or only
    /// counts; where the match is negated no entry has a part in it. It counts in the most specific
    /// entry of the set that holds its address and has not expired: once for its source and once for
    /// its destination, by however many rules.
    ///
    /// Counters are exact, on all CPUs. An entry keeps its counter over transactions for as long as
    /// its set has it and counts. Packets and bytes are read one after the other while traffic goes
    /// on: a packet may already be in the one and not yet in the other. Takes some milliseconds for
    /// a million entries.
    ///
    /// ```no_run
    /// # fn shown(firewall: &xdpgate::Firewall) -> Result<(), xdpgate::EntryCountersError> {
    /// let bad = xdpgate::policy::SetName::new("bad-hosts").unwrap();
    /// for stats in firewall.entry_counters(&bad)? {
    ///     println!("{}: {} packets", stats.entry, stats.matched.packets);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The policy in force has no such set, or the set does not count its entries.
    pub fn entry_counters(&self, set: &SetName) -> Result<Vec<EntryStats>, EntryCountersError> {
        let _counting = lock(&self.core.entry_turn);
        let active = self.active();
        let named = active.as_ref().and_then(|a| a.policy.sets().get(set));
        let (Some(active), Some(entries)) = (&active, named) else {
            return Err(EntryCountersError::NoSuchSet(set.clone()));
        };
        let numbers = active.entry_numbers(set);
        let numbers = numbers.ok_or_else(|| EntryCountersError::NotCounted(set.clone()))?;
        let stats = entries.iter().zip(numbers).map(|(entry, number)| {
            let EntryCounter { packets, bytes } = active.judge.entry_counter(*number);
            let matched = Count { packets, bytes };
            EntryStats { entry, matched }
        });
        Ok(stats.collect())
    }
}

/// What entries counted by the policy of an earlier process.
#[derive(Debug)]
pub(super) struct InheritedEntries {
    /// The hash of that policy: entries are numbered alike only in the same one.
    pub policy: [u8; 32],
    /// Packets and bytes by number.
    pub counters: SharedWords<AtomicU64>,
}

impl InheritedEntries {
    /// Adds them to those of the same policy, which has been put in force again.
    pub(super) fn carry_over(&self, backend: &dyn Backend, active: &Active) {
        let entries = &active.image.names.entries;
        if entries.is_empty() || self.policy != *active.policy.hash().as_bytes() {
            return;
        }
        wait(backend);
        let numbers = entries.iter().flat_map(|(_, numbers)| numbers);
        for number in numbers {
            let counter = &self.counters.words()[*number as usize * WORDS_PER_ENTRY..];
            let [packets, bytes] = [0, 1].map(|i| counter[i].load(Ordering::Relaxed));
            active
                .judge
                .add_to_entry(*number, EntryCounter { packets, bytes });
        }
    }
}

fn wait(backend: &dyn Backend) {
    if let Err(error) = backend.wait_for_readers() {
        log::warn!("counters of entries may lack some packets: cannot wait for them: {error}");
    }
}

/// Adds what entries of the policy before have counted to those of the one that has replaced it.
pub(super) fn carry_over(backend: &dyn Backend, before: &Active, active: &Active) {
    let sets: Vec<_> = active
        .image
        .names
        .entries
        .iter()
        .filter_map(|(name, numbers)| Some((name, numbers, before.entry_numbers(name)?)))
        .collect();
    if sets.is_empty() {
        return;
    }
    wait(backend);
    for (name, numbers, old_numbers) in sets {
        let old_entries = before.policy.sets()[name].iter().zip(old_numbers);
        let counted: HashMap<Prefix, EntryCounter> = old_entries
            .map(|(entry, number)| (entry, before.judge.entry_counter(*number)))
            .filter(|(_, counter)| counter.packets != 0)
            .collect();
        if counted.is_empty() {
            continue;
        }
        for (entry, number) in active.policy.sets()[name].iter().zip(numbers) {
            if let Some(counter) = counted.get(&entry) {
                active.judge.add_to_entry(*number, *counter);
            }
        }
    }
}
