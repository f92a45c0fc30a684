//! What rules match by single entries of sets.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::Arrival;
use crate::packet::Packet;
use crate::policy::{AddressItem, AddressMatch, EntryCounters, Match, Policy, Prefix, SetName};

/// What rules have matched by one entry of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EntryHits {
    /// Frames.
    pub packets: u64,
    /// Bytes of these frames, from the Ethernet header on.
    pub bytes: u64,
}

/// The counters of all entries that have matched anything.
#[derive(Debug, Default)]
pub(super) struct EntryCounts<'p>(BTreeMap<(&'p SetName, Prefix), EntryHits>);

impl<'p> EntryCounts<'p> {
    pub(super) fn of(&self, set: &SetName) -> Vec<(Prefix, EntryHits)> {
        let all = self.0.iter().filter(|((name, _), _)| *name == set);
        all.map(|((_, entry), hits)| (*entry, *hits)).collect()
    }

    pub(super) fn of_packet<'c>(
        &'c mut self,
        policy: &'p Policy,
        packet: &'c Packet,
        arrival: Arrival<'c>,
    ) -> PacketEntries<'c, 'p> {
        PacketEntries {
            counts: self,
            policy,
            packet,
            arrival,
            counted: BTreeSet::new(),
        }
    }
}

/// The entries by which one packet was matched: it counts once in each, for each of its addresses.
pub(super) struct PacketEntries<'c, 'p> {
    counts: &'c mut EntryCounts<'p>,
    policy: &'p Policy,
    packet: &'c Packet,
    arrival: Arrival<'c>,
    counted: BTreeSet<(&'static str, &'p SetName)>,
}

impl<'p> PacketEntries<'_, 'p> {
    /// Counts the packet for a rule that matched it.
    pub(super) fn count(&mut self, m: &'p Match) {
        self.count_address("src", m.src.as_ref(), self.packet.src);
        self.count_address("dst", m.dst.as_ref(), self.packet.dst);
    }

    fn count_address(
        &mut self,
        direction: &'static str,
        m: Option<&'p AddressMatch>,
        addr: IpAddr,
    ) {
        for item in m.filter(|m| !m.negated).iter().flat_map(|m| &m.items) {
            let AddressItem::Set(name) = item else {
                continue;
            };
            let Some(set) = self.policy.sets().get(name) else {
                continue;
            };
            let holding = set.entries().filter(|(entry, expires)| {
                entry.contains(addr) && expires.is_none_or(|at| self.arrival.at < at)
            });
            let Some((entry, _)) = holding.max_by_key(|(entry, _)| entry.len()) else {
                continue;
            };
            if set.counters() == EntryCounters::Entry && self.counted.insert((direction, name)) {
                let hits = self.counts.0.entry((name, entry)).or_default();
                hits.packets += 1;
                hits.bytes += self.arrival.bytes as u64;
            }
        }
    }
}
