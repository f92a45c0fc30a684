//! The entries of sets that count each of their entries: an index of their own, from an address to
//! the records of all entries that hold it, the most specific first.
//!
//! It is apart from the outcomes, because those stand for all entries of a kind and these tell them
//! apart, and because only packets of rules that ask for it look here, once their rule is known.

use super::address::{self, Address, Found, Swept};
use super::{Clock, Refusal};
use crate::abi::{self, EntryRecord, Shape};
use crate::image::ImageWriter;
use crate::policy::{
    AddressItem, AddressMatch, AddressSet, EntryCounters, Policy, PolicyError, SetName,
};
use bytemuck::Zeroable;

/// The sets whose entries are counted; the position of a set is its bit in the masks of rules.
#[derive(Debug)]
pub(super) struct CountedSets<'p>(Vec<(&'p SetName, &'p AddressSet)>);

impl<'p> CountedSets<'p> {
    /// All that the policy has, so that an entry keeps its counter while no rule names its set.
    pub(super) fn new(policy: &'p Policy) -> Result<Self, PolicyError> {
        let is_counted = |set: &AddressSet| set.counters() == EntryCounters::Entry;
        let sets: Vec<_> = policy
            .sets()
            .iter()
            .filter(|(_, set)| is_counted(set))
            .collect();
        match sets.get(u64::BITS as usize) {
            None => Ok(Self(sets)),
            Some((name, _)) => Err(PolicyError::limit(
                None,
                "more than 64 sets with counters: entry",
            )
            .mend("join sets, or take counters: entry from those that need none")
            .about(*name)
            .in_field("counters")),
        }
    }

    /// The bits of the sets that an address is asked to be in.
    pub(super) fn mask(&self, address: Option<&AddressMatch>) -> u64 {
        let Some(address) = address else { return 0 };
        let named =
            |(bit, (name, _)): (usize, &(&SetName, _))| u64::from(counts(address, name)) << bit;
        self.0.iter().enumerate().map(named).sum()
    }

    /// Writes the index and the records. Returns by set the number of the record of each entry, in
    /// the order of [`AddressSet::entries`].
    pub(super) fn write(
        &self,
        clock: &Clock,
        seed: [u64; 2],
        shape: &mut Shape,
        image: &mut ImageWriter,
    ) -> Result<Vec<(SetName, Vec<u32>)>, Refusal> {
        let mut records = Records::default();
        let mut numbers: Vec<_> = self.0.iter().map(|(_, set)| vec![0; set.len()]).collect();
        if !self.0.is_empty() {
            let v4 = self.sweep::<u32>(clock, &mut records, &mut numbers);
            let v6 = self.sweep::<u128>(clock, &mut records, &mut numbers);
            records.check()?;
            shape.features |= abi::FEATURE_ENTRIES;
            shape.entries = address::write_indices(&v4, &v6, seed, image)?;
            shape.entry_records = image.section(&records.list);
            shape.entry_count = records.list.len() as u32;
            shape.entry_steps = records.deepest;
        }
        let names = self.0.iter().map(|(name, _)| (*name).clone());
        Ok(names.zip(numbers).collect())
    }

    fn sweep<A: Address>(
        &self,
        clock: &Clock,
        records: &mut Records,
        numbers: &mut [Vec<u32>],
    ) -> Swept<A> {
        let mut entries: Vec<(A, u8, usize, usize, u64)> = Vec::new();
        for (bit, (_, set)) in self.0.iter().enumerate() {
            for (place, (prefix, expires)) in set.entries().enumerate() {
                let until = expires.map_or(Clock::NEVER, |at| clock.ticks_at(at));
                let Some(address) = A::of(prefix.addr()) else {
                    continue;
                };
                entries.push((address, prefix.len(), bit, place, until));
            }
        }
        // Stable, because it is fast on runs that are sorted already, as sets are.
        entries.sort_by_key(|(address, len, bit, ..)| (*address, *len, *bit));
        let mut swept = Swept {
            hosts: Vec::new(),
            prefixes: Vec::new(),
            miss: 0,
        };
        let mut around: Vec<Found<A>> = Vec::new();
        for same in entries.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
            let (address, len, ..) = same[0];
            address::leave(&mut around, address);
            let mut outcome = around.last().map_or(swept.miss, |top| top.outcome);
            let mut leads_there = false;
            for (_, _, bit, place, until) in same {
                // One that has expired keeps its counter, and its number: they must not depend on when
                // a policy is compiled.
                let is_over = *until <= clock.ticks;
                let number = records.add(*bit, *until, if is_over { 0 } else { outcome });
                numbers[*bit][*place] = number;
                if !is_over {
                    outcome = number;
                    leads_there = true;
                }
            }
            if !leads_there {
                continue;
            }
            let found = Found {
                address,
                len,
                outcome,
            };
            if len == 0 {
                swept.miss = outcome;
            } else if len == A::WIDTH {
                swept.hosts.push(found);
            } else {
                swept.prefixes.push(found);
                around.push(found);
            }
        }
        swept
    }
}

/// Whether a match asks for an address in this set.
fn counts(address: &AddressMatch, set: &SetName) -> bool {
    let is_it = |item: &AddressItem| matches!(item, AddressItem::Set(name) if name == set);
    !address.negated && address.items.iter().any(is_it)
}

/// Records by number. Number 0 stands for "no entry".
struct Records {
    list: Vec<EntryRecord>,
    /// How many records an address leads to that leads to this one.
    depths: Vec<u32>,
    deepest: u32,
}

impl Default for Records {
    fn default() -> Self {
        Self {
            list: vec![EntryRecord::zeroed()],
            depths: vec![0],
            deepest: 0,
        }
    }
}

impl Records {
    /// Adds an entry inside of another, or of none: 0.
    fn add(&mut self, set: usize, expires: u64, around: u32) -> u32 {
        let number = self.list.len() as u32;
        self.list.push(EntryRecord {
            expires,
            around,
            set: set as u32,
        });
        let depth = self.depths[around as usize] + 1;
        self.depths.push(depth);
        self.deepest = self.deepest.max(depth);
        number
    }

    /// Whether the program can follow it all.
    fn check(&self) -> Result<(), PolicyError> {
        let (entries, limit) = (self.list.len(), abi::OUTCOME_TIMED as usize);
        if entries >= limit {
            let reason = format!("{entries} entries with counters, the limit is {limit}");
            return Err(PolicyError::limit(None, reason)
                .mend("take counters: entry from sets that need none"));
        }
        if self.deepest > abi::ENTRY_STEPS {
            let reason = format!(
                "one address lies in {} entries of sets with counters: entry, the limit is {}",
                self.deepest,
                abi::ENTRY_STEPS
            );
            return Err(PolicyError::limit(None, reason)
                .mend("take counters: entry from sets whose prefixes nest so deep"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use crate::compile::{Clock, CompileOptions, compile};
    use crate::policy::Policy;

    /// A later process knows entries by their numbers, and compiles at another time.
    #[test]
    fn numbers_do_not_depend_on_when_a_policy_is_compiled() {
        let policy = Policy::from_yaml(
            "version: 1
sets:
  s:
    counters: entry
    entries:
      - { entry: 203.0.113.9, expires: 2030-01-01T00:00:00Z }
      - { entry: 198.51.100.0/24, expires: 2030-01-01T00:00:00Z }
      - 198.51.100.7
      - 203.0.113.0/24
      - '2001:db8::/32'
  other: { counters: entry, entries: [203.0.113.9] }
rules:
  - { id: r, match: { src: ['@s', '@other'] }, action: count }
",
        )
        .unwrap();
        let numbers = |now: &str| {
            let clock = Clock {
                now: now.parse::<Timestamp>().unwrap(),
                ..Clock::default()
            };
            let options = CompileOptions {
                clock,
                ..CompileOptions::default()
            };
            compile(&policy, &options).unwrap().names.entries.clone()
        };
        let before = numbers("2029-01-01T00:00:00Z");
        assert_eq!(before, numbers("2031-01-01T00:00:00Z"));
        let mut all: Vec<u32> = before.iter().flat_map(|(_, n)| n.clone()).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 6, "each has its own");
    }
}
