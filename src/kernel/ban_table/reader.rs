//! How the program looks for a ban: the mirror of `bpf/bans.h`.

use std::net::IpAddr;
use std::sync::atomic::Ordering;

use super::{BanKey, BanMemory, HI, LO, WORDS};
use crate::image::{home_line, other_line};
use crate::kernel::layout::{BAN_ELSEWHERE, BAN_EXPIRES, BAN_SLOTS, BAN_VERSION_MASK, BAN_WHAT};
use crate::policy::Prefix;

/// Whether a ban covers an address at a tick.
pub(in crate::kernel) fn is_banned(
    memory: BanMemory<'_>,
    seed: [u64; 2],
    address: IpAddr,
    destination: bool,
    now: u64,
) -> bool {
    let whole = BanKey::new(Prefix::host(address), destination);
    let lines = (memory.table.len() / (WORDS * BAN_SLOTS)) as u32;
    let lengths = memory.lengths[whole.kind].load(Ordering::SeqCst);
    let lengths = lengths.to_le_bytes().into_iter().take_while(|l| *l != 0);
    lengths.map(|length| length - 1).any(|host_bits| {
        let mask = u128::MAX.checked_shl(host_bits.into()).unwrap_or(0);
        let key = BanKey {
            address: whole.address & mask,
            host_bits,
            ..whole
        };
        let hash = key.hash(seed);
        let home = home_line(hash, lines);
        holds_in_line(memory, home, key, now)
            || memory.state((home, 0)) & BAN_ELSEWHERE != 0
                && holds_in_line(memory, other_line(hash, lines), key, now)
    })
}

fn holds_in_line(memory: BanMemory<'_>, line: u32, key: BanKey, now: u64) -> bool {
    (0..BAN_SLOTS).any(|slot| {
        let before = memory.state((line, slot));
        let [hi, lo] = [HI, LO].map(|word| u128::from(memory.load((line, slot), word)));
        let after = memory.state((line, slot));
        before & BAN_WHAT == key.what()
            && before >> BAN_EXPIRES > now
            && hi << 64 | lo == key.address
            && (before ^ after) & (BAN_WHAT | BAN_VERSION_MASK) == 0
    })
}
