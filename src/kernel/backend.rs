//! The one seam to the kernel. It has two sides: `kernel` does it, `recorder` writes it down.

use std::fmt::Debug;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::attach::AttachMode;
use super::ban_table::BanMemory;
use super::bridge::{BridgeError, PreparedPort};
use super::device::{DeviceFacts, XdpFeatures};
use super::enforcement::Enforcement;
use super::error::{ApplyError, EvaluateError, PinError};
use super::events::EventSource;
use super::foreign::ForeignProgram;
use super::ifindex::IfIndex;
use super::layout::{
    BANKS, COUNTERS_PER_INTERFACE, EntryCounter, InterfaceEntry, RuleCounter, VerdictCounter,
};
use super::publish::Generation;
use super::slot_memory::SlotMemory;
use super::stats::ProgramFacts;
use crate::abi::Line;
use crate::compile::Clock;
use crate::image::{Damage, Image};

/// The verdict counters of one interface slot, over all CPUs: `[reason][disposition]`, flat.
pub(super) type VerdictCounters = [VerdictCounter; COUNTERS_PER_INTERFACE];

/// One of the two sets of all counters: packets count in one while the other is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Bank {
    #[default]
    First,
    Second,
}

impl Bank {
    pub(super) const ALL: [Self; BANKS] = [Self::First, Self::Second];

    pub(super) fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }
}

/// What a firewall does to the world.
pub(super) trait Backend: Debug + Send + Sync {
    /// Makes an image the one that judges, on all interfaces at once. On error nothing changed.
    /// `scopes` are the interface scopes by interface slot.
    fn publish(
        &self,
        image: &Image,
        generation: Generation,
        scopes: &[(u16, u64)],
    ) -> Result<Arc<dyn Judge>, ApplyError>;

    /// Returns when no packet is judged by a program or table that was replaced before the call.
    fn wait_for_readers(&self) -> io::Result<()>;

    /// The clock of the data path.
    fn clock(&self) -> io::Result<Clock>;

    /// The tick that it is now, or the one before. Seldom costs a system call.
    fn ticks(&self) -> u64;
    /// Nanoseconds of such a tick.
    fn tick_ns(&self) -> u32;
    /// What the data path sees of the bans.
    fn bans(&self) -> BanMemory<'_>;

    fn enforcement(&self) -> Enforcement;
    fn set_enforcement(&self, mode: Enforcement);
    /// Sets a mode if another one is there, in one step: pass mode may come from another process.
    fn replace_enforcement(&self, there: Enforcement, mode: Enforcement) -> bool;
    /// Sets a mode, unless pass mode is on, which stays.
    fn set_enforcement_unless_pass(&self, mode: Enforcement) -> bool {
        use Enforcement::{DryRun, Enforce, Pass};
        let is_set = |there| self.replace_enforcement(there, mode);
        [DryRun, Enforce].into_iter().any(is_set) || mode == Pass
    }

    fn interface_name(&self, ifindex: IfIndex) -> Option<String>;
    /// Writes one entry of the table from interface to counter slot.
    fn write_interface(&self, position: u32, entry: InterfaceEntry);
    fn link(&self, ifindex: IfIndex, mode: AttachMode) -> io::Result<Box<dyn XdpLink>>;
    /// Saves the settings of an interface and prepares it to be a port of a bridge.
    fn prepare_port(
        &self,
        ifindex: IfIndex,
        name: &str,
        state_dir: Option<&Path>,
    ) -> Result<Box<dyn PreparedPort>, BridgeError>;
    /// Where the frames of a port go.
    fn partner(&self, port: IfIndex) -> Option<IfIndex>;
    /// Says where they go.
    fn set_partner(&self, port: IfIndex, partner: Option<IfIndex>) -> io::Result<()>;
    /// The program that an interface runs now, whoever attached it.
    fn occupant(&self, ifindex: IfIndex, interface: &str) -> Option<ForeignProgram>;
    /// What can be known of a device.
    fn device(&self, ifindex: IfIndex) -> DeviceFacts;
    /// What its driver can do with XDP: a part of the same, for less.
    fn xdp_features(&self, ifindex: IfIndex) -> Option<XdpFeatures>;

    /// The bank that packets count in which come in now.
    fn bank(&self) -> Bank;
    fn set_bank(&self, bank: Bank);
    fn verdict_counters(&self, slot: u16, bank: Bank) -> VerdictCounters;
    fn rule_counter(&self, slot: u32, bank: Bank) -> RuleCounter;

    /// All that was counted in an interface slot in which nothing counts now.
    fn rested_verdicts(&self, slot: u16) -> VerdictCounters {
        let mut sums = self.verdict_counters(slot, Bank::First);
        add_all(&mut sums, &self.verdict_counters(slot, Bank::Second));
        sums
    }

    /// All that was counted in a rule slot in which nothing counts now.
    fn rested_rule(&self, slot: u32) -> RuleCounter {
        let mut sum = self.rule_counter(slot, Bank::First);
        sum.add(self.rule_counter(slot, Bank::Second));
        sum
    }

    /// Packets of a rule whose source had no place in the table of sources.
    fn rate_overflow(&self, slot: u32) -> u64;
    /// Makes the rate state of a slot that no packet uses as if it had never been used.
    fn reset_rate(&self, slot: u32);

    fn events(&self) -> Arc<dyn EventSource>;

    /// Where it is written which rule and interface counts in which slot, if that is to outlive this
    /// process.
    fn slot_memory(&self) -> Option<SlotMemory<'_>>;
    /// To be called when all interfaces run the program of this process, and it has a policy: what an
    /// earlier process left behind and nobody uses is removed.
    fn settle(&self);
    /// Removes all pins: what is attached and held by nobody is detached, all else ends with this
    /// process.
    fn unpin(&self) -> Result<(), PinError>;
    /// Removes maps that were pinned by this process and never had a policy.
    fn abandon(&self);
    /// The directory where the pins are, if there are any.
    fn pinned(&self) -> Option<&Path>;
    /// The program that the data path judges by, as far as it can be known.
    fn judging_program(&self) -> io::Result<Option<u32>>;

    fn entry_program(&self) -> ProgramFacts;
    /// Whether the programs take frames in several buffers.
    fn takes_frags(&self) -> bool;
    /// Whether counters are added to in atomic steps.
    fn counts_atomically(&self) -> bool;
    fn pin(&self, dir: &Path) -> Result<(), PinError>;
}

pub(super) fn add_all(sums: &mut VerdictCounters, counters: &VerdictCounters) {
    for (sum, counter) in sums.iter_mut().zip(counters) {
        sum.add(*counter);
    }
}

/// A published generation; dropping it lets its memory go once no packet uses it.
pub(super) trait Judge: Debug + Send + Sync {
    /// Judges a frame of at least 14 bytes without counting it.
    /// `scopes`: the interface scopes that it comes in by.
    fn evaluate(&self, frame: &[u8], scopes: u64) -> Result<Answer, EvaluateError>;
    /// Sets the interface scopes of a slot.
    fn set_scopes(&self, slot: u16, scopes: u64);
    /// What was counted by an entry of a set so far.
    fn entry_counter(&self, number: u32) -> EntryCounter;
    fn add_to_entry(&self, number: u32, more: EntryCounter);
    /// The interface scopes of a slot, if they are kept.
    fn scopes(&self, slot: u16) -> Option<u64>;
    /// What of its image is not as it was written.
    fn damage(&self) -> io::Result<Option<Damage>>;
    /// A copy of its image.
    fn image_lines(&self) -> io::Result<Vec<Line>>;
    fn program(&self) -> ProgramFacts;
    /// The program that evaluates, if it was needed already.
    fn evaluator(&self) -> Option<ProgramFacts>;
}

/// What the evaluating program says of a frame, in its own numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub reason: u32,
    pub drop: bool,
    /// `NO_RULE` unless a rule decided.
    pub rule: u32,
    /// Rules that matched before and only count, or are in monitor mode.
    pub passed: Vec<u32>,
}

/// An attachment; dropping it detaches, unless it is pinned.
pub(super) trait XdpLink: Debug + Send + Sync {
    fn id(&self) -> u32;
    fn program_id(&self) -> u32;
    /// Whether its interface is still there.
    fn is_alive(&self) -> bool;
    /// Lets it run the program of this process, if it still runs that of an earlier one.
    fn succeed(&mut self) -> io::Result<()>;
    /// Removes its pin, so that dropping it detaches.
    fn unpin(&mut self);
}
