//! Changes of a table of hosts in place.
//!
//! Overflow marks of keys that are gone stay: they cost a second line for some misses, and go when
//! the table is built anew.

use super::address::Address;
use super::hosts::MAX_MOVES;
use crate::abi::{HOST4_SLOTS, HOST6_SLOTS, Line};
use crate::image::{hash4, hash6, home_line, other_line};

/// An address as a key of its table.
pub(super) trait HostKey: Address {
    const SLOTS: usize;
    /// How many overflow marks a line has.
    const MARKS: u64;
    fn hash(self, seed: [u64; 2]) -> u64;
    /// The key of a slot and its outcome: 0 if the slot is empty.
    fn get(line: &Line, slot: usize) -> (Self, u32);
    fn set(line: &mut Line, slot: usize, entry: (Self, u32));
}

impl HostKey for u32 {
    const SLOTS: usize = HOST4_SLOTS;
    const MARKS: u64 = 64;

    fn hash(self, seed: [u64; 2]) -> u64 {
        hash4(seed, self)
    }

    fn get(line: &Line, slot: usize) -> (Self, u32) {
        (line.0[2 + 2 * slot], line.0[3 + 2 * slot])
    }

    fn set(line: &mut Line, slot: usize, (address, outcome): (Self, u32)) {
        line.0[2 + 2 * slot] = address;
        line.0[3 + 2 * slot] = outcome;
    }
}

impl HostKey for u128 {
    const SLOTS: usize = HOST6_SLOTS;
    const MARKS: u64 = 32;

    fn hash(self, seed: [u64; 2]) -> u64 {
        hash6(seed, self, 0)
    }

    fn get(line: &Line, slot: usize) -> (Self, u32) {
        let mut words = [0; 4];
        words.copy_from_slice(&line.0[4 + 4 * slot..8 + 4 * slot]);
        let [hi, lo]: [u64; 2] = bytemuck::cast(words);
        (u128::from(hi) << 64 | u128::from(lo), line.0[1 + slot])
    }

    fn set(line: &mut Line, slot: usize, (address, outcome): (Self, u32)) {
        let words: [u32; 4] = bytemuck::cast([(address >> 64) as u64, address as u64]);
        line.0[4 + 4 * slot..8 + 4 * slot].copy_from_slice(&words);
        line.0[1 + slot] = outcome;
    }
}

/// The lines of a table that is there.
pub(super) struct HostTable<'t> {
    pub(super) lines: &'t mut [Line],
    pub(super) seed: [u64; 2],
}

impl HostTable<'_> {
    /// Takes a key out, if it is there.
    pub(super) fn remove<A: HostKey>(&mut self, key: A) {
        let Some((number, slot)) = self.find(key) else {
            return;
        };
        let line = &mut self.lines[number];
        // Empty slots lie behind the used ones.
        let last = (slot..A::SLOTS)
            .rfind(|s| A::get(line, *s).1 != 0)
            .unwrap_or(slot);
        A::set(line, slot, A::get(line, last));
        A::set(line, last, (key.truncate(0), 0));
    }

    /// Gives a key an outcome, which is not 0. `false`: there is no room, and another key has lost
    /// its place.
    pub(super) fn put<A: HostKey>(&mut self, key: A, outcome: u32) -> bool {
        if let Some((number, slot)) = self.find(key) {
            A::set(&mut self.lines[number], slot, (key, outcome));
            return true;
        }
        let mut entry = (key, outcome);
        let [home, other] = self.places(key);
        if self.fill(home, entry) {
            return true;
        }
        self.mark(home, key);
        let mut at = other;
        for moves in 0..MAX_MOVES {
            if self.fill(at, entry) {
                return true;
            }
            let slot = moves % A::SLOTS;
            let displaced = A::get(&self.lines[at], slot);
            A::set(&mut self.lines[at], slot, entry);
            entry = displaced;
            let [home, other] = self.places(entry.0);
            if at == home {
                self.mark(home, entry.0);
                at = other;
            } else {
                at = home;
            }
        }
        false
    }

    /// The home line of a key and its other one.
    fn places<A: HostKey>(&self, key: A) -> [usize; 2] {
        let (hash, lines) = (key.hash(self.seed), self.lines.len() as u32);
        [home_line(hash, lines), other_line(hash, lines)].map(|line| line as usize)
    }

    fn find<A: HostKey>(&self, key: A) -> Option<(usize, usize)> {
        self.places(key).into_iter().find_map(|number| {
            let holds = |slot: &usize| {
                let (address, outcome) = A::get(&self.lines[number], *slot);
                address == key && outcome != 0
            };
            Some((number, (0..A::SLOTS).find(holds)?))
        })
    }

    /// Puts an entry into an empty slot of a line, if it has one.
    fn fill<A: HostKey>(&mut self, number: usize, entry: (A, u32)) -> bool {
        let line = &mut self.lines[number];
        let empty = (0..A::SLOTS).find(|slot| A::get(line, *slot).1 == 0);
        if let Some(slot) = empty {
            A::set(line, slot, entry);
        }
        empty.is_some()
    }

    /// Says in its home line that a key lies elsewhere.
    fn mark<A: HostKey>(&mut self, home: usize, key: A) {
        let mark = key.hash(self.seed) % A::MARKS;
        self.lines[home].0[(mark / 32) as usize] |= 1 << (mark % 32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytemuck::Zeroable;

    const SEED: [u64; 2] = [0x5bd1_e995_9e37_79b9, 0x85eb_ca6b_c2b2_ae35];

    fn used<A: HostKey>(lines: &[Line]) -> usize {
        let slots = |line| (0..A::SLOTS).filter(move |slot| A::get(line, *slot).1 != 0);
        lines.iter().map(|line| slots(line).count()).sum()
    }

    /// The keys are 0 and others: an empty slot looks like a key 0.
    fn comes_and_goes<A: HostKey>(key: impl Fn(u32) -> A) {
        let mut lines = vec![Line::zeroed(); 8];
        let mut table = HostTable {
            lines: &mut lines,
            seed: SEED,
        };
        table.remove(key(0));
        let count = 3 * 8 * A::SLOTS as u32 / 4;
        for number in 0..count {
            assert!(table.put(key(number), number + 1), "{number}");
        }
        // Another outcome of a key that is there takes no place.
        for number in 0..count {
            assert!(table.put(key(number), number + 1000));
            let (line, slot) = table.find(key(number)).expect("it was put there");
            assert_eq!(A::get(&table.lines[line], slot).1, number + 1000);
        }
        assert_eq!(used::<A>(table.lines), count as usize);
        for number in 0..count {
            table.remove(key(number));
            assert_eq!(table.find(key(number)), None);
        }
        assert_eq!(used::<A>(table.lines), 0);
    }

    #[test]
    fn hosts_come_change_and_go() {
        comes_and_goes(|number| number);
        comes_and_goes(u128::from);
    }

    #[test]
    fn a_full_table_says_so() {
        let mut lines = vec![Line::zeroed(); 1];
        let mut table = HostTable {
            lines: &mut lines,
            seed: SEED,
        };
        assert!((0..7).all(|key: u32| table.put(key, 1)));
        assert!(!table.put(7u32, 1));
    }
}
