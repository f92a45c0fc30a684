//! Mirrors of the structs in `bpf/abi.h`. The sizes are asserted on both sides, and under the
//! `kernel` feature the offsets against the BTF of the compiled program (`src/kernel/skeleton.rs`).

use bytemuck::{Pod, Zeroable};

pub(crate) const IMAGE_MAGIC: u32 = 0x6770_6478;
pub(crate) const IMAGE_LAYOUT: u32 = 2;
pub(crate) const LINE_BYTES: usize = 64;
pub(crate) const HOST4_SLOTS: usize = 7;
pub(crate) const HOST6_SLOTS: usize = 3;
pub(crate) const LENGTH_STEPS: u32 = 8;
pub(crate) const BLOCK_LINES: u32 = 16;
pub(crate) const ENTRY_BLOCK: u32 = 0x8000_0000;
pub(crate) const ENTRY_PACKED: u32 = 0x4000_0000;
pub(crate) const PACKED_ENTRIES: usize = 7;
pub(crate) const OUTCOME_BITS: u32 = 24;
pub(crate) const OUTCOME_TIMED: u32 = 0x0080_0000;
pub(crate) const TIMED_STEPS: usize = 16;
pub(crate) const NO_RULE: u32 = 0x007f_fffe;
pub(crate) const MAX_ROWED: usize = 4096;
pub(crate) const MAX_WALK: usize = 32;
pub(crate) const ENTRY_STEPS: u32 = 160;
pub(crate) const OUTCOME_LABELS: usize = 7;
pub(crate) const LABEL_BIT: u32 = 27;
pub(crate) const LIST_BOXES: usize = 8;
pub(crate) const EXTRA_CLASSES: usize = 64;

pub(crate) const AXIS_SRC: usize = 0;
pub(crate) const AXIS_DST: usize = 1;
pub(crate) const AXIS_PROTOCOL: usize = 2;
pub(crate) const AXIS_SPORT: usize = 3;
pub(crate) const AXIS_DPORT: usize = 4;
pub(crate) const AXIS_TCP_FLAGS: usize = 5;
pub(crate) const AXIS_ICMP: usize = 6;
pub(crate) const AXIS_LENGTH: usize = 7;
pub(crate) const AXIS_STATE: usize = 8;
pub(crate) const AXIS_VLAN: usize = 9;
pub(crate) const AXIS_TTL: usize = 10;
pub(crate) const AXIS_DSCP: usize = 11;
pub(crate) const AXIS_COUNT: usize = 12;

/// How many values each table axis has; the last stands for "the packet has no such field" where
/// a packet may lack it.
pub(crate) const AXIS_VALUES: [u32; AXIS_COUNT] = [
    0, 0, 257, 65_537, 65_537, 257, 65_537, 65_576, 16, 4097, 256, 64,
];

pub(crate) const FEATURE_MANAGEMENT: u32 = 1 << 1;
/// How many peers of management traffic one image lists.
pub(crate) const MAX_MANAGEMENT: u32 = 32;

pub(crate) const FEATURE_FAILSAFE: u32 = 1 << 2;
pub(crate) const FEATURE_DEFAULT_DROP: u32 = 1 << 3;
pub(crate) const FEATURE_MALFORMED_DROP: u32 = 1 << 4;
pub(crate) const FEATURE_ROWS: u32 = 1 << 5;
pub(crate) const FEATURE_SRC: u32 = 1 << 0;
pub(crate) const FEATURE_DST: u32 = 1 << 7;
pub(crate) const FEATURE_FIELDS: u32 = 1 << 6;
pub(crate) const FEATURE_PAIRS: u32 = 1 << 8;
pub(crate) const FEATURE_EXACT: u32 = 1 << 9;
pub(crate) const FEATURE_RECORDS: u32 = 1 << 10;
pub(crate) const FEATURE_TIMED: u32 = 1 << 11;
pub(crate) const FEATURE_CONDITIONS: u32 = 1 << 12;
pub(crate) const FEATURE_SCOPES: u32 = 1 << 14;
pub(crate) const FEATURE_WALK: u32 = 1 << 13;
pub(crate) const FEATURE_LIMIT: u32 = 1 << 15;
pub(crate) const FEATURE_LIMIT_SOURCE: u32 = 1 << 16;
pub(crate) const FEATURE_FLOWS: u32 = 1 << 17;
pub(crate) const FEATURE_ENTRIES: u32 = 1 << 18;
pub(crate) const FLOW_SCOPES: usize = 16;

pub(crate) const RULE_DROP: u32 = 1 << 0;
pub(crate) const RULE_PASSIVE: u32 = 1 << 1;
pub(crate) const RULE_CONDITIONAL: u32 = 1 << 2;
pub(crate) const RULE_LIMIT: u32 = 1 << 3;
pub(crate) const RULE_ENTRIES: u32 = 1 << 4;
pub(crate) const RULE_EXTRA: u32 = 8;

pub(crate) const LIMIT_BITS: u32 = 1 << 0;
pub(crate) const LIMIT_SOURCE: u32 = 1 << 1;
pub(crate) const LIMIT_FINE: u32 = 1 << 2;
pub(crate) const LIMIT_TIME_SHIFT: u32 = 8;

/// One line of the image: a cache line.
#[derive(Debug, Clone, Copy, Pod, Zeroable, PartialEq, Eq)]
#[repr(C, align(64))]
pub(crate) struct Line(pub [u32; 16]);

#[derive(Debug, Clone, Copy, Pod, Zeroable, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct AddressIndex {
    pub hosts: u32,
    pub host_lines: u32,
    pub root: u32,
    pub blocks: u32,
    pub block_count: u32,
    pub miss: u32,
    pub depth: u32,
}

#[derive(Debug, Clone, Copy, Pod, Zeroable, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct AddressAxis {
    pub v4: AddressIndex,
    pub v6: AddressIndex,
    pub outcomes: u32,
    pub rows: u32,
    pub timed: u32,
    pub timed_depth: u32,
}

#[derive(Debug, Clone, Copy, Pod, Zeroable, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct TableAxis {
    pub table: u32,
    pub rows: u32,
}

#[derive(Debug, Clone, Copy, Pod, Zeroable, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Shape {
    pub magic: u32,
    pub layout: u32,
    pub lines: u32,
    pub features: u32,
    pub checksum: u64,
    pub seed: [u64; 2],
    pub local_ports: u64,
    pub remote_ports: u64,
    pub address: [AddressAxis; 2],
    pub table: [TableAxis; AXIS_COUNT],
    pub axes: u32,
    pub row_lines: u32,
    pub rowed: u32,
    pub rowed_count: u32,
    pub row_steps: u32,
    pub class_table: [TableAxis; AXIS_COUNT],
    pub class_axes: u32,
    pub pairs: u32,
    pub pair_lines: u32,
    pub boxes: u32,
    pub labels: [u32; 2],
    pub split_pairs: u32,
    pub exact: u32,
    pub exact_lines: u32,
    pub rules: u32,
    pub rule_count: u32,
    pub management: u32,
    pub management_count: u32,
    pub extras: u32,
    pub entries: [AddressIndex; 2],
    pub entry_records: u32,
    pub entry_count: u32,
    pub entry_steps: u32,
}

#[derive(Debug, Clone, Copy, Pod, Zeroable, PartialEq, Eq, Hash)]
#[repr(C)]
pub(crate) struct Outcome {
    pub best: u32,
    pub row: u32,
}

#[derive(Debug, Clone, Copy, Pod, Zeroable, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Label {
    pub id: u32,
    pub partners: u32,
}

#[derive(Debug, Clone, Copy, Pod, Zeroable, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct PairOutcome {
    pub outcome: Outcome,
    pub labels: [Label; OUTCOME_LABELS],
}

#[derive(Debug, Clone, Copy, Pod, Zeroable, PartialEq, Eq, Hash)]
#[repr(C)]
pub(crate) struct TimedOutcome {
    pub until: u64,
    pub now: u32,
    pub then: u32,
}

#[derive(Debug, Clone, Copy, Pod, Zeroable, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct RuleBox {
    pub rule: u32,
    pub sport: u32,
    pub dport: u32,
    pub rest: u32,
}

pub(crate) const BOX_LAST: u32 = 1 << 31;
pub(crate) const BOX_CONDITIONAL: u32 = 1 << 30;
pub(crate) const BOX_PORTS: u32 = 1 << 18;
pub(crate) const PAIR_SPLIT: u32 = 1 << 23;
pub(crate) const PAIR_KEY: u32 = 1;
pub(crate) const SPLIT_KEY: u32 = 2;

#[derive(Debug, Clone, Copy, Pod, Zeroable, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct PackedBlock {
    pub begins: [u64; 4],
    pub before: [u8; 4],
    pub entries: [u32; PACKED_ENTRIES],
}

#[derive(Debug, Clone, Copy, Pod, Zeroable, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct LengthNode {
    pub mask_hi: u64,
    pub mask_lo: u64,
    pub length: u32,
    pub after_hit: u32,
    pub after_miss: u32,
    pub reserved: u32,
}

#[derive(Debug, Clone, Copy, Pod, Zeroable, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct RuleRecord {
    pub flags: u32,
    pub counter: u32,
}

#[derive(Debug, Clone, Copy, Pod, Zeroable, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Limit {
    pub cost: u64,
    pub depth: u64,
    pub id: u64,
    pub flags: u32,
    pub cost_shift: u8,
    pub reserved: u8,
    pub v4_length: u8,
    pub v6_length: u8,
}

#[derive(Debug, Clone, Copy, Pod, Zeroable, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct RuleExtra {
    pub expires: u64,
    pub scopes: u64,
    pub limit: Limit,
    pub src_sets: u64,
    pub dst_sets: u64,
}

#[derive(Debug, Clone, Copy, Pod, Zeroable, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct EntryRecord {
    pub expires: u64,
    pub around: u32,
    pub set: u32,
}

#[derive(Debug, Clone, Copy, Pod, Zeroable, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Management {
    pub hi: u64,
    pub lo: u64,
    pub mask_hi: u64,
    pub mask_lo: u64,
    pub v6: u64,
    pub ports: u64,
    pub port_mask: u64,
    pub reserved: u64,
}

const _: () = {
    assert!(size_of::<Line>() == LINE_BYTES);
    assert!(size_of::<AddressIndex>() == 28);
    assert!(size_of::<AddressAxis>() == 72);
    assert!(size_of::<Shape>() == 536);
    assert!(size_of::<Outcome>() == 8);
    assert!(size_of::<PackedBlock>() == 64);
    assert!(size_of::<PairOutcome>() == 64);
    assert!(size_of::<TimedOutcome>() == 16);
    assert!(size_of::<RuleBox>() == 16);
    assert!(size_of::<LengthNode>() == 32);
    assert!(size_of::<RuleRecord>() == 8);
    assert!(size_of::<Limit>() == 32);
    assert!(size_of::<RuleExtra>() == 64);
    assert!(size_of::<EntryRecord>() == 16);
    assert!(size_of::<Management>() == 64);
};
