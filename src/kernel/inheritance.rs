//! What an earlier process left to the one that takes over its pins.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::atomic::AtomicU64;

use libbpf_rs::{MapCore, MapFlags};

use super::attach::AttachMode;
use super::backend::{VerdictCounters, XdpLink};
use super::ban_table::{BanMemory, BanTable, Found};
use super::counters::Counters;
use super::entry_counters::InheritedEntries;
use super::ifindex::IfIndex;
use super::layout::{
    BAN_KINDS, Control, HostShape, INTERFACE_DRY_RUN, INTERFACE_PORT, RuleCounter,
};
use super::live::{BAN_LENGTHS_WORD, WORDS_PER_LINE};
use super::pin_root::Legacy;
use super::shared_maps::SharedMaps;
use super::slot_memory::{self, RuleRecord, SlotMemory};
use super::sys::SharedWords;
use crate::policy::RuleId;

/// All of it; nothing after a first start.
#[derive(Debug, Default)]
pub(super) struct Inheritance {
    pub links: Vec<InheritedLink>,
    /// Whether its maps are in use, with all that stands in them.
    pub has_maps: bool,
    /// What its maps held, if they are not used any more.
    pub counted: Counted,
    pub entries: Option<InheritedEntries>,
}

/// An attachment that runs the program of the earlier process.
#[derive(Debug)]
pub(super) struct InheritedLink {
    pub link: Box<dyn XdpLink>,
    pub ifindex: IfIndex,
    pub name: String,
    pub mode: AttachMode,
    /// Whether auto-attach made it; in maps that are used it stands with the slot.
    pub automatic: bool,
    /// Likewise, whether nothing is dropped there.
    pub dry_run: bool,
    /// Likewise, of a port of a bridge: its flags, and its partner.
    pub bridged: Option<(u16, IfIndex)>,
}

/// What was counted in maps of other sizes, and banned.
#[derive(Debug, Default)]
pub(super) struct Counted {
    pub rules: HashMap<RuleId, RuleCounter>,
    pub interfaces: HashMap<(IfIndex, String), VerdictCounters>,
    pub bans: Vec<Found>,
    /// What auto-attach attached.
    pub automatic: HashSet<IfIndex>,
    /// Where nothing is dropped.
    pub dry_run: HashSet<IfIndex>,
    /// The ports of bridges: their flags, and their partners.
    pub bridged: HashMap<IfIndex, (u16, IfIndex)>,
}

impl Counted {
    /// Reads maps that are not going to be used. Frames that the earlier program judges from now on
    /// are in none of the counters.
    pub(super) fn read(legacy: &Legacy, now: u64) -> io::Result<Self> {
        let (host, cpus) = (legacy.layout.host, legacy.layout.cpus as usize);
        let counters = Counters::new(&legacy.maps, host, cpus)?;
        let words = slot_words(host);
        let slots = SharedWords::<AtomicU64>::new(&legacy.slots, words)?;
        let memory = slot_memory_of(&slots, host);
        let mut counted = Self::default();
        for slot in 0..host.rule_slots {
            if let RuleRecord::Taken(id, baseline) = memory.rule(slot) {
                let count = counters.all_of_rule(slot).since(baseline);
                counted.rules.insert(id, count);
            }
        }
        for slot in 1..=memory.interfaces {
            if let Some(record) = memory.interface(slot) {
                let mut count = counters.all_verdicts(slot);
                for (counter, baseline) in count.iter_mut().zip(&record.baseline) {
                    *counter = counter.since(*baseline);
                }
                if record.automatic {
                    counted.automatic.insert(record.ifindex);
                }
                if record.flags & INTERFACE_DRY_RUN != 0 {
                    counted.dry_run.insert(record.ifindex);
                }
                if let Some(partner) = partner(&legacy.maps, record.ifindex)
                    && record.flags & INTERFACE_PORT != 0
                {
                    let bridged = (record.flags, partner);
                    counted.bridged.insert(record.ifindex, bridged);
                }
                let key = (record.ifindex, record.name);
                counted.interfaces.insert(key, count);
            }
        }
        let lines = host.ban_lines.max(1) as usize;
        let bans = SharedWords::<AtomicU64>::new(&legacy.maps.bans, lines * WORDS_PER_LINE)?;
        let control = size_of::<Control>() / size_of::<u64>();
        let control = SharedWords::<AtomicU64>::new(&legacy.maps.control, control)?;
        let memory = BanMemory {
            table: bans.words(),
            lengths: &control.words()[BAN_LENGTHS_WORD..][..BAN_KINDS],
        };
        counted.bans = BanTable::in_force(memory, host.ban_lines, now);
        Ok(counted)
    }
}

/// The partner of a port.
pub(super) fn partner(maps: &SharedMaps, port: IfIndex) -> Option<IfIndex> {
    let key = port.get().to_ne_bytes();
    let value = maps.ports.lookup(&key, MapFlags::ANY).ok()??;
    let number = value.get(..size_of::<u32>())?.try_into().ok()?;
    IfIndex::new(u32::from_ne_bytes(number))
}

/// How many words say who counts where.
pub(super) fn slot_words(host: HostShape) -> usize {
    slot_memory::words(host.rule_slots, interfaces(host))
}

pub(super) fn slot_memory_of(words: &SharedWords<AtomicU64>, host: HostShape) -> SlotMemory<'_> {
    SlotMemory {
        words: words.words(),
        rules: host.rule_slots,
        interfaces: interfaces(host),
    }
}

/// Slot 0 is nobody's.
fn interfaces(host: HostShape) -> u16 {
    u16::try_from(host.interface_slots - 1).expect("from max_interfaces, a u16")
}
