//! Hash tables of 64-byte lines: hosts of both families, and IPv6 prefixes with their length.
//!
//! A key lies in its home line or in one other (cuckoo hashing with buckets: Erlingsson, Manasse,
//! McSherry 2006). A home line carries an overflow mark for each of its keys that lies elsewhere,
//! so that most misses touch one line.

use bytemuck::Zeroable;

use super::Refusal;
use super::address::Found;
use crate::abi::{HOST4_SLOTS, HOST6_SLOTS, Line, OUTCOME_BITS};
use crate::image::{hash4, hash6, home_line, other_line};

/// Average keys per line, times 16: a million hosts take 13.8 bytes each (IPv6: 31), and more than
/// nine keys in ten lie in their home line.
const LOAD4: u64 = 74;
const LOAD6: u64 = 33;

/// Moves before a table counts as too small. At these loads a handful does.
pub(super) const MAX_MOVES: usize = 1000;
/// Tables that are tried with one seed.
const MAX_TABLES: usize = 8;
const EMPTY: u32 = u32::MAX;

/// The table of IPv4 hosts.
pub(super) fn build4(hosts: &[Found<u32>], seed: [u64; 2]) -> Result<Vec<Line>, Refusal> {
    let hashes: Vec<u64> = hosts.iter().map(|h| hash4(seed, h.address)).collect();
    let table = Table::<HOST4_SLOTS>::build(&hashes, LOAD4)?;
    Ok(table.write(&hashes, 64, |line, slot, key| {
        let Found {
            address, outcome, ..
        } = hosts[key];
        line.0[2 + 2 * slot] = address;
        line.0[3 + 2 * slot] = outcome;
    }))
}

/// The table of IPv6 hosts (length 0) or of prefixes: address, length, outcome.
pub(super) fn build6(keys: &[(u128, u8, u32)], seed: [u64; 2]) -> Result<Vec<Line>, Refusal> {
    let hashes: Vec<u64> = keys
        .iter()
        .map(|k| hash6(seed, k.0, u32::from(k.1)))
        .collect();
    let table = Table::<HOST6_SLOTS>::build(&hashes, LOAD6)?;
    Ok(table.write(&hashes, 32, |line, slot, key| {
        let (address, len, outcome) = keys[key];
        line.0[1 + slot] = u32::from(len) << OUTCOME_BITS | outcome;
        let words: [u32; 4] = bytemuck::cast([(address >> 64) as u64, address as u64]);
        line.0[4 + 4 * slot..8 + 4 * slot].copy_from_slice(&words);
    }))
}

/// Which key lies in which slot of which line.
struct Table<const SLOTS: usize>(Vec<[u32; SLOTS]>);

impl<const SLOTS: usize> Table<SLOTS> {
    /// Tries ever larger tables until every key finds its place. Random keys need one try; keys that
    /// were chosen to collide are given up on.
    fn build(hashes: &[u64], load: u64) -> Result<Self, Refusal> {
        if hashes.is_empty() {
            return Ok(Self(Vec::new()));
        }
        let mut lines = (hashes.len() as u64 * 16).div_ceil(load);
        for _ in 0..MAX_TABLES {
            let mut table = Self(vec![[EMPTY; SLOTS]; lines as usize]);
            if (0..hashes.len()).all(|key| table.insert(key as u32, hashes)) {
                return Ok(table);
            }
            lines += lines / 16 + 1;
        }
        Err(Refusal::Crowded)
    }

    /// Puts a key into its home line, else into its other one, else moves keys around.
    fn insert(&mut self, key: u32, hashes: &[u64]) -> bool {
        let lines = self.0.len() as u32;
        let mut key = key;
        let mut at = home_line(hashes[key as usize], lines);
        if self.put(key, at) {
            return true;
        }
        at = other_line(hashes[key as usize], lines);
        for moves in 0..MAX_MOVES {
            if self.put(key, at) {
                return true;
            }
            std::mem::swap(&mut key, &mut self.0[at as usize][moves % SLOTS]);
            let hash = hashes[key as usize];
            let home = home_line(hash, lines);
            at = if at == home {
                other_line(hash, lines)
            } else {
                home
            };
        }
        false
    }

    fn put(&mut self, key: u32, line: u32) -> bool {
        match self.0[line as usize]
            .iter_mut()
            .find(|slot| **slot == EMPTY)
        {
            Some(slot) => *slot = key,
            None => return false,
        }
        true
    }

    /// The lines, with an overflow mark (of `marks`) in the home line of each key that lies
    /// elsewhere.
    fn write(
        &self,
        hashes: &[u64],
        marks: u64,
        put: impl Fn(&mut Line, usize, usize),
    ) -> Vec<Line> {
        let mut out = vec![Line::zeroed(); self.0.len()];
        for (number, slots) in self.0.iter().enumerate() {
            for (slot, key) in slots.iter().enumerate().filter(|(_, key)| **key != EMPTY) {
                let hash = hashes[*key as usize];
                let home = home_line(hash, self.0.len() as u32) as usize;
                put(&mut out[number], slot, *key as usize);
                if home != number {
                    let mark = hash % marks;
                    out[home].0[(mark / 32) as usize] |= 1 << (mark % 32);
                }
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Chosen so that a hash which lets high bits of one half cancel those of the other puts eight
    /// keys each on the same lines, whatever the seed: a table that could never be built.
    #[test]
    fn keys_that_were_chosen_to_collide_do_not() {
        let keys: Vec<(u128, u8, u32)> = (0..8u64)
            .flat_map(|a| (0..64u64).map(move |b| (a, b)))
            .map(|(a, b)| {
                let hi = 0x2001_0db8_0000_0000 ^ (a << 58);
                let lo = b << 58 ^ b << 26 | 1;
                (u128::from(hi) << 64 | u128::from(lo), 0, 1)
            })
            .collect();
        for seed in 1..200u64 {
            let seed = [1, 2].map(|half| hash4([half, 7], seed as u32));
            assert!(build6(&keys, seed).is_ok(), "{seed:x?}");
        }
    }

    #[test]
    fn equal_hashes_end_in_a_refusal() {
        let crowded = Table::<HOST6_SLOTS>::build(&[7; 20], LOAD6);
        assert!(matches!(crowded, Err(Refusal::Crowded)));
    }
}
