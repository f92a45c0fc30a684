//! From an address to its outcome.

use super::ImageReader;
use crate::abi::{
    AddressAxis, AddressIndex, ENTRY_BLOCK, ENTRY_PACKED, HOST4_SLOTS, HOST6_SLOTS, LENGTH_STEPS,
    LengthNode, Line, OUTCOME_BITS, OUTCOME_TIMED, PACKED_ENTRIES, PackedBlock, TIMED_STEPS,
    TimedOutcome,
};
use crate::image::{hash4, hash6, home_line, other_line};

impl ImageReader<'_> {
    /// The outcome of an address at a tick.
    pub(super) fn find_outcome(
        &self,
        axis: &AddressAxis,
        (v6, address): (bool, u128),
        ticks: u64,
    ) -> u32 {
        let index = if v6 { &axis.v6 } else { &axis.v4 };
        let mut outcome = 0;
        if index.host_lines != 0 {
            outcome = if v6 {
                self.find6(index.hosts, index.host_lines, address, 0)
            } else {
                self.find_host4(index, address as u32)
            };
        }
        if outcome == 0 {
            outcome = self.find_around(index, v6, address);
        }
        for _ in 0..TIMED_STEPS {
            if outcome & OUTCOME_TIMED == 0 {
                break;
            }
            let Some(timed) = self.item::<TimedOutcome>(axis.timed, outcome & !OUTCOME_TIMED)
            else {
                break;
            };
            outcome = match ticks < timed.until {
                true => timed.now,
                false => timed.then,
            };
        }
        outcome
    }

    /// The outcome that an address has by prefixes.
    pub(crate) fn find_around(&self, index: &AddressIndex, v6: bool, address: u128) -> u32 {
        let outcome = match (index.root, v6) {
            (0, _) => 0,
            (_, true) => self.find_prefix6(index, address),
            (_, false) => self.find_prefix4(index, address as u32),
        };
        match outcome {
            0 => index.miss,
            outcome => outcome,
        }
    }

    fn find_host4(&self, index: &AddressIndex, address: u32) -> u32 {
        let hash = hash4(self.shape.seed, address);
        let mark = 1u64 << (hash & 63);
        let lines = index.host_lines;
        for number in [home_line(hash, lines), other_line(hash, lines)] {
            let Some(Line(w)) = self.line(index.hosts.wrapping_add(number)) else {
                return 0;
            };
            let slots = w[2..2 + 2 * HOST4_SLOTS].chunks_exact(2);
            if let Some(slot) = slots.into_iter().find(|s| s[0] == address && s[1] != 0) {
                return slot[1];
            }
            if (u64::from(w[1]) << 32 | u64::from(w[0])) & mark == 0 {
                return 0;
            }
        }
        0
    }

    /// The value of a key, with its length above it; 0 if it is not there.
    pub(super) fn find6(&self, first: u32, lines: u32, address: u128, length: u32) -> u32 {
        let hash = hash6(self.shape.seed, address, length);
        let key: [u32; 4] = bytemuck::cast([(address >> 64) as u64, address as u64]);
        for number in [home_line(hash, lines), other_line(hash, lines)] {
            let Some(Line(w)) = self.line(first.wrapping_add(number)) else {
                return 0;
            };
            let found = (0..HOST6_SLOTS)
                .filter(|i| w[4 + 4 * i..8 + 4 * i] == key && w[1 + i] >> OUTCOME_BITS == length)
                .fold(0, |found, i| found | w[1 + i]);
            if found != 0 || w[0] & 1 << (hash & 31) == 0 {
                return found;
            }
        }
        0
    }

    fn find_prefix4(&self, index: &AddressIndex, address: u32) -> u32 {
        let mut entry: u32 = self.item(index.root, address >> 16).unwrap_or(0);
        for shift in [8, 0] {
            let position = address >> shift & 255;
            entry = if entry & ENTRY_BLOCK != 0 {
                let first = index.blocks.wrapping_add(entry & !ENTRY_BLOCK);
                self.item(first, position).unwrap_or(0)
            } else if entry & ENTRY_PACKED != 0 {
                let first = index.blocks.wrapping_add(entry & !ENTRY_PACKED);
                self.find_packed(first, position).unwrap_or(0)
            } else {
                break;
            };
        }
        entry
    }

    fn find_packed(&self, first: u32, position: u32) -> Option<u32> {
        let block: PackedBlock = self.item(first, 0)?;
        let word = (position / 64) as usize;
        let begun = block.begins[word] & (u64::MAX >> (63 - position % 64));
        let number = u32::from(block.before[word]) + begun.count_ones();
        match number.checked_sub(PACKED_ENTRIES as u32) {
            None => Some(block.entries[number as usize]),
            Some(number) => self.item(first.wrapping_add(1), number),
        }
    }

    fn find_prefix6(&self, index: &AddressIndex, address: u128) -> u32 {
        let (mut node, mut best) = (1, 0);
        for _ in 0..LENGTH_STEPS {
            let Some(at) = self.item::<LengthNode>(index.root, node) else {
                break;
            };
            let mask = u128::from(at.mask_hi) << 64 | u128::from(at.mask_lo);
            let found = self.find6(index.blocks, index.block_count, address & mask, at.length);
            if found != 0 {
                best = found & ((1 << OUTCOME_BITS) - 1);
                node = at.after_hit;
            } else {
                node = at.after_miss;
            }
            if node == 0 {
                break;
            }
        }
        best
    }
}
