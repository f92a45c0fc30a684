//! Hash tables of 64-byte lines: hosts of both families, and IPv6 prefixes with their length.
//!
//! A key lies in its home line or at most [`HOST_HOPS`] - 1 lines behind it; lines that it skipped
//! carry an overflow mark for its hash, so that most misses touch one line.

use bytemuck::Zeroable;

use super::address::Found;
use crate::abi::{HOST_HOPS, HOST4_SLOTS, HOST6_SLOTS, Line, OUTCOME_BITS};
use crate::image::{hash4, hash6, home_line};

/// Average keys per line, times 16: at this load one key in ten lies behind its home line, and a
/// million hosts take 14 bytes each (IPv6: 32).
const LOAD4: u64 = 74;
const LOAD6: u64 = 33;

#[derive(Debug, Default)]
pub(super) struct HostTable {
    pub(super) lines: Vec<Line>,
    /// Lines that hashes lead to; spare ones follow.
    pub(super) home_lines: u32,
}

/// The table of IPv4 hosts.
pub(super) fn build4(hosts: &[Found<u32>], seed: [u64; 2]) -> HostTable {
    grow(hosts.len(), LOAD4, |lines, home_lines| {
        hosts.iter().all(|host| {
            let hash = hash4(seed, host.address);
            let mark = 1u64 << (hash & 63);
            let home = home_line(hash, home_lines) as usize;
            place(lines, home, |line| {
                let slots = &mut line.0[2..2 + 2 * HOST4_SLOTS];
                if let Some(slot) = slots.chunks_exact_mut(2).find(|s| s[1] == 0) {
                    slot.copy_from_slice(&[host.address, host.outcome]);
                    return true;
                }
                line.0[0] |= mark as u32;
                line.0[1] |= (mark >> 32) as u32;
                false
            })
        })
    })
}

/// The table of IPv6 hosts (length 0) or of prefixes: address, length, outcome.
pub(super) fn build6(
    keys: impl ExactSizeIterator<Item = (u128, u8, u32)> + Clone,
    seed: [u64; 2],
) -> HostTable {
    grow(keys.len(), LOAD6, |lines, home_lines| {
        keys.clone().all(|(address, len, outcome)| {
            let hash = hash6(seed, address, u32::from(len));
            let home = home_line(hash, home_lines) as usize;
            place(lines, home, |line| {
                if let Some(i) = (0..HOST6_SLOTS).find(|i| line.0[1 + i] == 0) {
                    line.0[1 + i] = u32::from(len) << OUTCOME_BITS | outcome;
                    let words: [u32; 4] = bytemuck::cast([(address >> 64) as u64, address as u64]);
                    line.0[4 + 4 * i..8 + 4 * i].copy_from_slice(&words);
                    return true;
                }
                line.0[0] |= 1 << (hash & 31);
                false
            })
        })
    })
}

/// Tries ever larger tables until every key finds its place.
fn grow(keys: usize, load: u64, fill: impl Fn(&mut [Line], u32) -> bool) -> HostTable {
    if keys == 0 {
        return HostTable::default();
    }
    let mut home_lines = (keys as u64 * 16).div_ceil(load);
    loop {
        let mut lines = vec![Line::zeroed(); home_lines as usize + HOST_HOPS as usize - 1];
        if fill(&mut lines, home_lines as u32) {
            return HostTable {
                lines,
                home_lines: home_lines as u32,
            };
        }
        home_lines += home_lines / 16 + 1;
    }
}

fn place(lines: &mut [Line], home: usize, mut put: impl FnMut(&mut Line) -> bool) -> bool {
    lines[home..home + HOST_HOPS as usize]
        .iter_mut()
        .any(&mut put)
}
