//! Mirrors of the structs in `bpf/abi.h` that lie beside the policy image.

use std::mem::offset_of;

use bytemuck::{Pod, Zeroable};

use crate::abi::MAX_WALK;

pub(super) const INTERFACE_ENTRIES: u32 = 4096;
pub(super) const INTERFACE_HOPS: u32 = 8;
/// An entry that was taken out: unlike a free one it does not end the search.
pub(super) const INTERFACE_GONE: u32 = u32::MAX;
/// A port of a bridge.
pub(super) const INTERFACE_PORT: u16 = 1 << 0;
/// A port whose frames are not judged.
pub(super) const INTERFACE_UNFILTERED: u16 = 1 << 1;
/// Nothing is dropped there, only counted.
pub(super) const INTERFACE_DRY_RUN: u16 = 1 << 2;
/// The program evaluates.
pub(super) const EXIT_REPORT: u32 = 1 << 0;
/// Some interfaces are ports of bridges.
pub(super) const EXIT_FORWARD: u32 = 1 << 1;
/// Counters are added to in atomic steps.
pub(super) const EXIT_ATOMIC: u32 = 1 << 2;
/// Budgets of sources in a line of `rate_sources`.
pub(super) const SOURCE_SLOTS: u32 = 3;
pub(super) const REASON_SLOTS: usize = 16;
pub(super) const DISPOSITION_SLOTS: usize = 4;
pub(super) const BAN_SLOTS: usize = 2;
/// Prefix lengths that bans of one kind may have at one time.
pub(super) const BAN_LENGTHS: usize = 8;
/// Kinds of bans: `v6 << 1 | destination`.
pub(super) const BAN_KINDS: usize = 4;
// The parts of `state` in `struct ban`, as in `bpf/abi.h`.
pub(super) const BAN_KIND: u32 = 8;
pub(super) const BAN_USED: u64 = 1 << 10;
pub(super) const BAN_WHAT: u64 = 0x7ff;
pub(super) const BAN_ELSEWHERE: u64 = 1 << 11;
pub(super) const BAN_VERSION: u32 = 12;
pub(super) const BAN_VERSION_MASK: u64 = 0xff000;
pub(super) const BAN_EXPIRES: u32 = 20;
/// Of a frame, in its event.
pub(super) const EVENT_BYTES: usize = 128;
#[cfg(feature = "pcap")]
const _: () = assert!(crate::pcapng::SAMPLED as usize == EVENT_BYTES);
/// Counters of one interface slot on one CPU, in one bank.
pub(super) const COUNTERS_PER_INTERFACE: usize = REASON_SLOTS * DISPOSITION_SLOTS;
pub(super) const BANKS: usize = 2;

/// rodata: what belongs to the host, not to a policy.
#[derive(Debug, Clone, Copy, Pod, Zeroable, PartialEq, Eq)]
#[repr(C)]
pub(super) struct HostShape {
    pub interface_slots: u32,
    pub rule_slots: u32,
    pub evaluate: u32,
    pub tick_ns: u32,
    pub frags: u32,
    pub source_lines: u32,
    pub seed: [u64; 2],
    pub ban_lines: u32,
    pub flow_lines: u32,
    pub tick_zero: u64,
    /// `EXIT_*`.
    pub exit: u32,
    pub reserved: u32,
}

#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Control {
    pub dry_run: u32,
    pub bank: u32,
    pub zero: u64,
    pub ban_lengths: [u64; BAN_KINDS],
    pub event_rule_ns: u32,
    pub event_total_ns: u32,
    pub events: u32,
    pub reserved2: u32,
}

#[derive(Debug, Clone, Copy, Pod, Zeroable, PartialEq, Eq)]
#[repr(C)]
pub(super) struct BanEntry {
    pub state: u64,
    pub hi: u64,
    pub lo: u64,
    pub hits: u64,
}

#[derive(Debug, Clone, Copy, Pod, Zeroable, PartialEq, Eq, Default)]
#[repr(C)]
pub(super) struct InterfaceEntry {
    pub ifindex: u32,
    pub slot: u16,
    pub flags: u16,
}

#[derive(Debug, Clone, Copy, Pod, Zeroable, PartialEq, Eq, Default)]
#[repr(C)]
pub(super) struct VerdictCounter {
    pub packets: u64,
    pub bytes: u64,
}

#[derive(Debug, Clone, Copy, Pod, Zeroable, PartialEq, Eq, Default)]
#[repr(C)]
pub(super) struct RuleCounter {
    pub packets: u64,
    pub bytes: u64,
    pub dropped_packets: u64,
    pub would_drop_packets: u64,
}

#[derive(Debug, Clone, Copy, Pod, Zeroable, PartialEq, Eq, Default)]
#[repr(C)]
pub(super) struct EntryCounter {
    pub packets: u64,
    pub bytes: u64,
}

/// The budget of a rule slot; all zero is a full one.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct RateBudget {
    pub base: u64,
    pub spent: u64,
    pub limit: u64,
    pub reserved: u64,
}

#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct EvaluationLine {
    pub reason: u32,
    pub drop: u32,
    pub rule: u32,
    pub passed_count: u32,
    pub ticks: u64,
    pub nanoseconds: u64,
    pub reserved: [u32; 8],
    pub passed: [u32; MAX_WALK],
}

/// What the ring buffer carries.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct EventRecord {
    pub time: u64,
    pub generation: u64,
    pub ifindex: u32,
    pub queue: u32,
    pub length: u32,
    pub rule: u32,
    pub reason: u8,
    pub disposition: u8,
    pub captured: u16,
    pub reserved: u32,
    pub bytes: [u8; EVENT_BYTES],
}

// The program looks at two words of a line as one of 64 bits: asserted in C as well.
const _: () = assert!(
    cfg!(target_endian = "little"),
    "the feature `kernel` supports little-endian machines only"
);

// The kernel's maps know no type of it: the same is asserted in C.
const _: () = {
    assert!(size_of::<EventRecord>() == 168);
    assert!(offset_of!(EventRecord, rule) == 28);
    assert!(offset_of!(EventRecord, captured) == 34);
    assert!(offset_of!(EventRecord, bytes) == 40);
};

#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct EventCounter {
    pub sent: u64,
    pub suppressed: u64,
    pub lost: u64,
    pub reserved: [u64; 5],
}

impl VerdictCounter {
    pub(super) fn add(&mut self, other: Self) {
        self.packets = self.packets.wrapping_add(other.packets);
        self.bytes = self.bytes.wrapping_add(other.bytes);
    }

    pub(super) fn since(self, baseline: Self) -> Self {
        Self {
            packets: self.packets.wrapping_sub(baseline.packets),
            bytes: self.bytes.wrapping_sub(baseline.bytes),
        }
    }
}

impl RuleCounter {
    pub(super) fn add(&mut self, other: Self) {
        self.packets = self.packets.wrapping_add(other.packets);
        self.bytes = self.bytes.wrapping_add(other.bytes);
        self.dropped_packets = self.dropped_packets.wrapping_add(other.dropped_packets);
        self.would_drop_packets = self
            .would_drop_packets
            .wrapping_add(other.would_drop_packets);
    }

    pub(super) fn since(self, baseline: Self) -> Self {
        Self {
            packets: self.packets.wrapping_sub(baseline.packets),
            bytes: self.bytes.wrapping_sub(baseline.bytes),
            dropped_packets: self.dropped_packets.wrapping_sub(baseline.dropped_packets),
            would_drop_packets: self
                .would_drop_packets
                .wrapping_sub(baseline.would_drop_packets),
        }
    }
}
