//! The table of bans in shared memory, written while the program reads it.
//!
//! `bpf/bans.h` says what holds for every packet and why; the order of the stores here is one half
//! of it. There is one writer at a time. Keys lie as in the tables of an image, in a home line or in
//! one other, but move in one direction only: a reader that goes from home to other finds them.

mod reader;

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};

use super::layout::{
    BAN_ELSEWHERE, BAN_EXPIRES, BAN_KIND, BAN_KINDS, BAN_LENGTHS, BAN_SLOTS, BAN_USED, BAN_VERSION,
    BAN_VERSION_MASK, BanEntry,
};
use crate::image::{hash6, home_line, other_line};
use crate::policy::Prefix;

pub(super) use reader::is_banned;

/// The table and the prefix lengths in use, as the program sees them.
#[derive(Debug, Clone, Copy)]
pub(super) struct BanMemory<'m> {
    /// [`BanEntry`] by [`BanEntry`].
    pub table: &'m [AtomicU64],
    /// `ban_lengths` of `struct control`.
    pub lengths: &'m [AtomicU64],
}

/// What a ban is of: a prefix in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct BanKey {
    /// An IPv4 address in the low 32 bits.
    address: u128,
    host_bits: u8,
    kind: usize,
}

/// Why a ban finds no place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refused {
    /// As many bans as there may be, or no room in the lines of this key.
    Full { count: u32 },
    /// Bans of this kind have as many prefix lengths as there may be.
    Lengths { in_use: Vec<u8> },
}

/// A ban as it stands in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub key: BanKey,
    /// The tick from which on it does not hold.
    pub expires: u64,
    pub hits: u64,
}

/// The writer's own knowledge; what is in force stands in the [`BanMemory`].
#[derive(Debug)]
pub(super) struct BanTable {
    seed: [u64; 2],
    lines: u32,
    limit: u32,
    /// Places in use, by bans that expired as well.
    count: u32,
    /// How many of them have a kind and host bits.
    lengths: [HashMap<u8, u32>; BAN_KINDS],
    /// How many keys of a home line lie elsewhere.
    elsewhere: HashMap<u32, u32>,
}

/// A line and a slot in it.
type Place = (u32, usize);

/// Lines that are looked at for room. At the load below a handful does.
const MAX_LINES: usize = 256;
const WORDS: usize = size_of::<BanEntry>() / size_of::<u64>();
const HI: usize = std::mem::offset_of!(BanEntry, hi) / size_of::<u64>();
const LO: usize = std::mem::offset_of!(BanEntry, lo) / size_of::<u64>();
const HITS: usize = std::mem::offset_of!(BanEntry, hits) / size_of::<u64>();
/// The last tick that a ban can expire at.
const LAST_TICK: u64 = u64::MAX >> BAN_EXPIRES;

/// The lines of a table for `bans` bans: half of its places stay free, and some more of a small one.
pub(super) fn lines(bans: u32) -> u32 {
    if bans == 0 { 0 } else { bans + 16 }
}

impl BanKey {
    pub(super) fn new(prefix: Prefix, destination: bool) -> Self {
        let (address, width, v6) = match prefix.addr() {
            IpAddr::V4(a) => (a.to_bits().into(), 32, 0),
            IpAddr::V6(a) => (a.to_bits(), 128, 1),
        };
        Self {
            address,
            host_bits: width - prefix.len(),
            kind: v6 << 1 | usize::from(destination),
        }
    }

    pub(super) fn prefix(self) -> Prefix {
        let (address, width) = if self.kind & 2 == 0 {
            (Ipv4Addr::from_bits(self.address as u32).into(), 32)
        } else {
            (Ipv6Addr::from_bits(self.address).into(), 128)
        };
        Prefix::new(address, width - self.host_bits).expect("made of a prefix")
    }

    pub(super) fn is_destination(self) -> bool {
        self.kind & 1 != 0
    }

    fn what(self) -> u64 {
        u64::from(self.host_bits) | (self.kind as u64) << BAN_KIND | BAN_USED
    }

    fn hash(self, seed: [u64; 2]) -> u64 {
        hash6(seed, self.address, self.what() as u32)
    }
}

impl BanMemory<'_> {
    fn word(&self, (line, slot): Place, word: usize) -> &AtomicU64 {
        &self.table[(line as usize * BAN_SLOTS + slot) * WORDS + word]
    }

    fn load(&self, place: Place, word: usize) -> u64 {
        #[cfg(test)]
        tests::before_load(self);
        self.word(place, word).load(Ordering::SeqCst)
    }

    // Sequentially consistent stores: arm64 keeps them in order too.
    fn store(&self, place: Place, word: usize, value: u64) {
        self.word(place, word).store(value, Ordering::SeqCst);
        #[cfg(test)]
        tests::after_store(self.word(place, word), value);
    }

    fn state(&self, place: Place) -> u64 {
        self.load(place, 0)
    }

    /// Changes bits of a state; `BAN_ELSEWHERE` belongs to the line and stays.
    fn set_state(&self, place: Place, state: u64) {
        let mark = self.state(place) & BAN_ELSEWHERE;
        self.store(place, 0, state & !BAN_ELSEWHERE | mark);
    }

    fn mark(&self, line: u32, elsewhere: bool) {
        let state = self.state((line, 0)) & !BAN_ELSEWHERE;
        let mark = if elsewhere { BAN_ELSEWHERE } else { 0 };
        self.store((line, 0), 0, state | mark);
    }

    fn clear(&self, place: Place) {
        self.set_state(place, self.state(place) & BAN_VERSION_MASK);
    }

    fn write(&self, place: Place, found: Found) {
        let version = self.state(place).wrapping_add(1 << BAN_VERSION) & BAN_VERSION_MASK;
        self.store(place, HI, (found.key.address >> 64) as u64);
        self.store(place, LO, found.key.address as u64);
        self.store(place, HITS, found.hits);
        self.set_state(
            place,
            found.key.what() | version | found.expires << BAN_EXPIRES,
        );
    }

    fn read(&self, place: Place) -> Option<Found> {
        let state = self.state(place);
        if state & BAN_USED == 0 {
            return None;
        }
        let key = BanKey {
            address: u128::from(self.load(place, HI)) << 64 | u128::from(self.load(place, LO)),
            host_bits: state as u8,
            kind: (state >> BAN_KIND) as usize % BAN_KINDS,
        };
        Some(Found {
            key,
            expires: state >> BAN_EXPIRES,
            hits: self.load(place, HITS),
        })
    }
}

impl BanTable {
    pub(super) fn new(limit: u32, seed: [u64; 2]) -> Self {
        Self {
            seed,
            limit,
            lines: lines(limit),
            count: 0,
            lengths: Default::default(),
            elsewhere: HashMap::new(),
        }
    }

    /// The table as an earlier process left it, whose last change may have been cut off.
    ///
    /// No packet finds a ban less meanwhile, because marks and lengths are only ever corrected to what
    /// the bans need.
    pub(super) fn recover(limit: u32, seed: [u64; 2], memory: BanMemory<'_>) -> Self {
        Self::new(limit, seed).recovered(memory)
    }

    fn recovered(self, memory: BanMemory<'_>) -> Self {
        let mut table = self;
        let mut known = HashSet::new();
        for place in table.places() {
            let Some(found) = memory.read(place) else {
                continue;
            };
            let (home, other) = table.home_and_other(found.key);
            let is_reached = place.0 == home || place.0 == other;
            // Twice: it was being moved.
            if !is_reached || !known.insert(found.key) {
                memory.clear(place);
                continue;
            }
            if place.0 != home {
                *table.elsewhere.entry(home).or_default() += 1;
            }
            let lengths = &mut table.lengths[found.key.kind];
            *lengths.entry(found.key.host_bits).or_default() += 1;
            table.count += 1;
        }
        for line in 0..table.lines {
            memory.mark(line, table.elsewhere.contains_key(&line));
        }
        for kind in 0..BAN_KINDS {
            table.publish_lengths(memory, kind);
        }
        table
    }

    /// The bans that a table of so many lines holds.
    pub(super) fn in_force(memory: BanMemory<'_>, lines: u32, now: u64) -> Vec<Found> {
        let found = places(lines).filter_map(|place| memory.read(place));
        found.filter(|f| f.expires > now).collect()
    }

    pub(super) fn limit(&self) -> u32 {
        self.limit
    }

    /// Puts a ban in force until a tick, or changes until when it is; returns how it then stands.
    pub(super) fn insert(
        &mut self,
        memory: BanMemory<'_>,
        key: BanKey,
        expires: u64,
        now: u64,
    ) -> Result<Found, Refused> {
        let expires = expires.min(LAST_TICK);
        if let Some(place) = self.find(memory, key) {
            if is_over(expires_at(memory, place), now) {
                memory.store(place, HITS, 0);
            }
            let state = memory.state(place) & !(u64::MAX << BAN_EXPIRES);
            memory.set_state(place, state | expires << BAN_EXPIRES);
            return Ok(memory.read(place).expect("it was just found"));
        }
        if self.count >= self.limit || !self.has_length_for(key) {
            self.sweep(memory, now);
        }
        let full = Refused::Full { count: self.count };
        if self.count >= self.limit {
            return Err(full);
        }
        if !self.has_length_for(key) {
            let mut in_use: Vec<u8> = self.lengths[key.kind].keys().copied().collect();
            in_use.sort_unstable();
            return Err(Refused::Lengths { in_use });
        }
        let found = Found {
            key,
            expires,
            hits: 0,
        };
        let place = self.make_room(memory, key, now).ok_or(full)?;
        self.enter(memory, place, found);
        let lengths = self.lengths[key.kind].entry(key.host_bits).or_default();
        *lengths += 1;
        self.count += 1;
        if *lengths == 1 {
            self.publish_lengths(memory, key.kind);
        }
        Ok(found)
    }

    /// Lifts a ban; returns it if it was still in force.
    pub(super) fn remove(&mut self, memory: BanMemory<'_>, key: BanKey, now: u64) -> Option<Found> {
        let place = self.find(memory, key)?;
        let found = memory.read(place)?;
        self.vacate(memory, place);
        (found.expires > now).then_some(found)
    }

    /// The ban of exactly this key, if it is in force.
    pub(super) fn get(&self, memory: BanMemory<'_>, key: BanKey, now: u64) -> Option<Found> {
        let found = memory.read(self.find(memory, key)?)?;
        (found.expires > now).then_some(found)
    }

    /// Takes over a ban of another table; `false` if there is no room.
    pub(super) fn inherit(&mut self, memory: BanMemory<'_>, found: Found, now: u64) -> bool {
        if self.insert(memory, found.key, found.expires, now).is_err() {
            return false;
        }
        if let Some(place) = self.find(memory, found.key) {
            memory
                .word(place, HITS)
                .fetch_add(found.hits, Ordering::SeqCst);
        }
        true
    }

    /// All bans in force, in no order. Gives up the places of those that are over.
    pub(super) fn all(&mut self, memory: BanMemory<'_>, now: u64) -> Vec<Found> {
        self.sweep(memory, now);
        Self::in_force(memory, self.lines, now)
    }

    fn places(&self) -> impl Iterator<Item = Place> + use<> {
        places(self.lines)
    }

    fn sweep(&mut self, memory: BanMemory<'_>, now: u64) {
        for place in self.places() {
            if is_used(memory, place) && is_over(expires_at(memory, place), now) {
                self.vacate(memory, place);
            }
        }
    }

    fn home_and_other(&self, key: BanKey) -> (u32, u32) {
        let hash = key.hash(self.seed);
        (home_line(hash, self.lines), other_line(hash, self.lines))
    }

    fn find(&self, memory: BanMemory<'_>, key: BanKey) -> Option<Place> {
        if self.lines == 0 {
            return None;
        }
        let (home, other) = self.home_and_other(key);
        let places = [home, other]
            .into_iter()
            .flat_map(|line| (0..BAN_SLOTS).map(move |s| (line, s)));
        let mut same = places.filter(|place| memory.read(*place).is_some_and(|f| f.key == key));
        same.next()
    }

    /// A free place for a key, after moving others from their home lines to their other ones.
    fn make_room(&mut self, memory: BanMemory<'_>, key: BanKey, now: u64) -> Option<Place> {
        // Breadth first: (line, from where a key would move into it).
        let (home, other) = self.home_and_other(key);
        let mut reached: Vec<(u32, Option<(usize, Place)>)> = vec![(home, None), (other, None)];
        let mut at = 0;
        let mut free = loop {
            let (line, _) = *reached.get(at)?;
            let is_free = |slot: &usize| {
                let place = (line, *slot);
                !is_used(memory, place) || is_over(expires_at(memory, place), now)
            };
            if let Some(slot) = (0..BAN_SLOTS).find(is_free) {
                break (line, slot);
            }
            for slot in 0..BAN_SLOTS {
                let Some(found) = memory.read((line, slot)) else {
                    continue;
                };
                let (home, other) = self.home_and_other(found.key);
                let is_new = reached.iter().all(|(line, _)| *line != other);
                if home == line && is_new && reached.len() < MAX_LINES {
                    reached.push((other, Some((at, (line, slot)))));
                }
            }
            at += 1;
        };
        if is_used(memory, free) {
            self.vacate(memory, free);
        }
        while let Some((before, from)) = reached[at].1 {
            self.relocate(memory, from, free);
            (at, free) = (before, from);
        }
        Some(free)
    }

    /// Moves a ban from its home line to its other one, where `to` is free.
    fn relocate(&mut self, memory: BanMemory<'_>, from: Place, to: Place) {
        let found = memory.read(from).expect("a ban to be moved");
        self.enter(memory, to, found);
        memory.clear(from);
        // What was counted meanwhile; a packet that is just about to count is lost.
        let late = memory.load(from, HITS).wrapping_sub(found.hits);
        memory.word(to, HITS).fetch_add(late, Ordering::SeqCst);
    }

    /// Writes a ban to a free place of its.
    fn enter(&mut self, memory: BanMemory<'_>, place: Place, found: Found) {
        let (home, _) = self.home_and_other(found.key);
        if place.0 != home {
            *self.elsewhere.entry(home).or_default() += 1;
            memory.mark(home, true);
        }
        memory.write(place, found);
    }

    /// Takes a ban out.
    fn vacate(&mut self, memory: BanMemory<'_>, place: Place) {
        let Some(Found { key, .. }) = memory.read(place) else {
            return;
        };
        memory.clear(place);
        self.count -= 1;
        let (home, _) = self.home_and_other(key);
        if place.0 != home && take_one(&mut self.elsewhere, home) {
            memory.mark(home, false);
        }
        if take_one(&mut self.lengths[key.kind], key.host_bits) {
            self.publish_lengths(memory, key.kind);
        }
    }

    fn has_length_for(&self, key: BanKey) -> bool {
        let lengths = &self.lengths[key.kind];
        lengths.contains_key(&key.host_bits) || lengths.len() < BAN_LENGTHS
    }

    /// Hosts first, then ever shorter prefixes, in one store.
    fn publish_lengths(&self, memory: BanMemory<'_>, kind: usize) {
        let mut host_bits: Vec<u8> = self.lengths[kind].keys().copied().collect();
        host_bits.sort_unstable();
        let mut bytes = [0; BAN_LENGTHS];
        for (byte, bits) in bytes.iter_mut().zip(host_bits) {
            *byte = bits + 1;
        }
        let lengths = u64::from_le_bytes(bytes);
        memory.lengths[kind].store(lengths, Ordering::SeqCst);
        #[cfg(test)]
        tests::after_store(&memory.lengths[kind], lengths);
    }
}

/// The places of so many lines.
fn places(lines: u32) -> impl Iterator<Item = Place> {
    (0..lines).flat_map(|line| (0..BAN_SLOTS).map(move |slot| (line, slot)))
}

fn is_used(memory: BanMemory<'_>, place: Place) -> bool {
    memory.state(place) & BAN_USED != 0
}

fn expires_at(memory: BanMemory<'_>, place: Place) -> u64 {
    memory.state(place) >> BAN_EXPIRES
}

/// Whether the data path, whose clock may be a little behind, has let go of a ban too.
fn is_over(expires: u64, now: u64) -> bool {
    expires.saturating_add(SLACK) <= now
}

/// Ticks by which two readings of the clock may differ.
const SLACK: u64 = 2;

/// Lowers a count; returns whether it is gone.
fn take_one<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, u32>, key: K) -> bool {
    let std::collections::hash_map::Entry::Occupied(mut count) = counts.entry(key) else {
        return false;
    };
    *count.get_mut() -= 1;
    let gone = *count.get() == 0;
    if gone {
        count.remove();
    }
    gone
}

#[cfg(test)]
mod tests;
