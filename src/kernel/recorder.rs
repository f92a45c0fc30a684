//! The backend that only writes down what it was asked to do: for tests without root.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::attach::AttachMode;
use super::backend::{Answer, Backend, Bank, Judge, VerdictCounters, XdpLink};
use super::ban_table::{self, BanMemory};
use super::bridge::{BridgeError, PreparedPort};
use super::device::{DeviceFacts, XdpFeatures};
use super::enforcement::Enforcement;
use super::error::{ApplyError, EvaluateError, PinError};
use super::events::{EventSource, NoEvents};
use super::foreign::ForeignProgram;
use super::ifindex::IfIndex;
#[cfg(test)]
use super::layout::BANKS;
use super::layout::{
    BAN_KINDS, COUNTERS_PER_INTERFACE, EntryCounter, InterfaceEntry, RuleCounter, VerdictCounter,
};
use super::publish::Generation;
use super::slot_memory::SlotMemory;
use super::stats::ProgramFacts;
use crate::abi::{LINE_BYTES, Line, NO_RULE};
use crate::compile::Clock;
use crate::image::{Damage, Image, ImageReader, Surroundings};
use crate::packet::{Packet, Parsed};
use crate::policy::{RuleId, Verdict};

/// Something that a rehearsing firewall would have done.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Operation {
    /// A policy would have become the one in force.
    Publish {
        /// Its active rules, in evaluation order.
        rules: Vec<RuleId>,
        /// The size of its image.
        image_bytes: usize,
    },
    /// An interface would have been attached.
    Attach {
        /// The interface.
        ifindex: IfIndex,
        /// The mode.
        mode: AttachMode,
    },
    /// An interface would have been detached.
    Detach {
        /// The interface.
        ifindex: IfIndex,
    },
    /// An interface would have been prepared to be a port of a bridge.
    Prepare {
        /// The interface.
        ifindex: IfIndex,
    },
    /// It would have been put back as it was.
    Restore {
        /// The interface.
        ifindex: IfIndex,
    },
    /// What comes in by a port would go to a partner from now on, or no longer.
    Forward {
        /// The port.
        ifindex: IfIndex,
        /// Its partner.
        partner: Option<IfIndex>,
    },
    /// Dry run would have been switched.
    DryRun(bool),
    /// Pins would have been made.
    Pin(PathBuf),
}

/// What a rehearsing firewall did so far.
#[derive(Debug, Clone, Default)]
pub struct Rehearsal(Arc<Mutex<Vec<Operation>>>);

impl Rehearsal {
    /// All operations, in order.
    pub fn operations(&self) -> Vec<Operation> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn push(&self, operation: Operation) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(operation);
    }
}

/// Every interface exists, is named `ifN` and has all modes but offload; nothing is ever counted.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    rehearsal: Rehearsal,
    takes_frags: bool,
    /// As in `struct control`.
    mode: AtomicU32,
    links: AtomicU32,
    interfaces: Mutex<HashMap<u32, InterfaceEntry>>,
    bans: Arc<RecordedBans>,
    bank: AtomicU32,
    #[cfg(test)]
    pub(super) traffic: Traffic,
    /// What a test lets all devices have.
    #[cfg(test)]
    pub(super) device: DeviceFacts,
}

/// Frames that a test lets be counted, all for one reason.
#[cfg(test)]
#[derive(Debug, Default)]
pub(super) struct Traffic {
    /// By bank.
    pub counted: [AtomicU32; BANKS],
    /// That came in before the banks were switched, and are counted while somebody waits.
    pub in_flight: AtomicU32,
    /// That come in while somebody waits.
    pub late: AtomicU32,
}

impl Recorder {
    /// With a table for bans of so many lines.
    pub(super) fn new(takes_frags: bool, ban_lines: u32, host_seed: [u64; 2]) -> Self {
        let words = ban_lines as usize * LINE_BYTES / size_of::<u64>();
        Self {
            takes_frags,
            bans: Arc::new(RecordedBans {
                table: (0..words).map(|_| AtomicU64::new(0)).collect(),
                seed: host_seed,
                ..RecordedBans::default()
            }),
            ..Self::default()
        }
    }

    pub(super) fn rehearsal(&self) -> Rehearsal {
        self.rehearsal.clone()
    }

    #[cfg(test)]
    pub(super) fn interface_table(&self) -> HashMap<u32, InterfaceEntry> {
        self.interfaces.lock().unwrap().clone()
    }
}

impl Backend for Recorder {
    fn publish(
        &self,
        image: &Image,
        _: Generation,
        _: &[(u16, u64)],
    ) -> Result<Arc<dyn Judge>, ApplyError> {
        self.rehearsal.push(Operation::Publish {
            rules: image.rules().to_vec(),
            image_bytes: image.as_bytes().len(),
        });
        Ok(Arc::new(Rehearsed {
            image: image.clone(),
            bans: Arc::clone(&self.bans),
        }))
    }

    fn wait_for_readers(&self) -> io::Result<()> {
        #[cfg(test)]
        {
            let Traffic {
                counted,
                in_flight,
                late,
            } = &self.traffic;
            let counting = self.bank();
            for (frames, bank) in [(in_flight, counting.other()), (late, counting)] {
                let frames = frames.swap(0, Ordering::SeqCst);
                counted[bank as usize].fetch_add(frames, Ordering::SeqCst);
            }
        }
        Ok(())
    }

    fn clock(&self) -> io::Result<Clock> {
        Ok(Clock::default())
    }

    fn ticks(&self) -> u64 {
        self.bans.ticks()
    }

    fn tick_ns(&self) -> u32 {
        RECORDED_TICK_NS
    }

    fn bans(&self) -> BanMemory<'_> {
        self.bans.memory()
    }

    fn enforcement(&self) -> Enforcement {
        Enforcement::from_word(self.mode.load(Ordering::SeqCst))
    }

    fn set_enforcement(&self, mode: Enforcement) {
        let is_dry = mode != Enforcement::Enforce;
        self.rehearsal.push(Operation::DryRun(is_dry));
        self.mode.store(mode.word(), Ordering::SeqCst);
    }

    fn replace_enforcement(&self, there: Enforcement, mode: Enforcement) -> bool {
        let is_it = self.enforcement() == there;
        if is_it {
            self.set_enforcement(mode);
        }
        is_it
    }

    fn interface_name(&self, ifindex: IfIndex) -> Option<String> {
        Some(format!("if{ifindex}"))
    }

    fn write_interface(&self, position: u32, entry: InterfaceEntry) {
        let mut table = self
            .interfaces
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        table.insert(position, entry);
    }

    fn link(&self, ifindex: IfIndex, mode: AttachMode) -> io::Result<Box<dyn XdpLink>> {
        if mode == AttachMode::Offload {
            return Err(nix::errno::Errno::EOPNOTSUPP.into());
        }
        self.rehearsal.push(Operation::Attach { ifindex, mode });
        Ok(Box::new(Link {
            ifindex,
            id: self.links.fetch_add(1, Ordering::SeqCst) + 1,
            rehearsal: self.rehearsal(),
        }))
    }

    fn prepare_port(
        &self,
        ifindex: IfIndex,
        _: &str,
        _: Option<&Path>,
    ) -> Result<Box<dyn PreparedPort>, BridgeError> {
        self.rehearsal.push(Operation::Prepare { ifindex });
        let rehearsal = self.rehearsal();
        Ok(Box::new(RecordedPort { ifindex, rehearsal }))
    }

    fn partner(&self, _: IfIndex) -> Option<IfIndex> {
        None
    }

    fn set_partner(&self, ifindex: IfIndex, partner: Option<IfIndex>) -> io::Result<()> {
        self.rehearsal.push(Operation::Forward { ifindex, partner });
        Ok(())
    }

    fn occupant(&self, _: IfIndex, _: &str) -> Option<ForeignProgram> {
        None
    }

    fn device(&self, _: IfIndex) -> DeviceFacts {
        #[cfg(test)]
        return self.device.clone();
        #[cfg(not(test))]
        DeviceFacts::default()
    }

    fn xdp_features(&self, ifindex: IfIndex) -> Option<XdpFeatures> {
        self.device(ifindex).xdp
    }

    fn bank(&self) -> Bank {
        Bank::ALL[self.bank.load(Ordering::SeqCst) as usize]
    }

    fn set_bank(&self, bank: Bank) {
        self.bank.store(bank as u32, Ordering::SeqCst);
    }

    #[cfg_attr(
        not(test),
        expect(unused_variables, reason = "only tests have traffic")
    )]
    fn verdict_counters(&self, slot: u16, bank: Bank) -> VerdictCounters {
        #[cfg_attr(not(test), expect(unused_mut, reason = "only tests have traffic"))]
        let mut counters = [VerdictCounter::default(); COUNTERS_PER_INTERFACE];
        #[cfg(test)]
        if slot == super::interfaces::OTHER {
            let counted = &self.traffic.counted[bank as usize];
            counters[0].packets = counted.load(Ordering::SeqCst).into();
        }
        counters
    }

    fn rule_counter(&self, _: u32, _: Bank) -> RuleCounter {
        RuleCounter::default()
    }

    fn rate_overflow(&self, _: u32) -> u64 {
        0
    }

    fn reset_rate(&self, _: u32) {}

    fn events(&self) -> Arc<dyn EventSource> {
        Arc::new(NoEvents)
    }

    fn entry_program(&self) -> ProgramFacts {
        ProgramFacts::default()
    }

    fn takes_frags(&self) -> bool {
        self.takes_frags
    }

    fn slot_memory(&self) -> Option<SlotMemory<'_>> {
        None
    }

    fn settle(&self) {}

    fn unpin(&self) -> Result<(), PinError> {
        Ok(())
    }

    fn abandon(&self) {}

    fn pinned(&self) -> Option<&Path> {
        None
    }

    fn judging_program(&self) -> io::Result<Option<u32>> {
        Ok(Some(ProgramFacts::default().id))
    }

    fn counts_atomically(&self) -> bool {
        false
    }

    fn pin(&self, dir: &Path) -> Result<(), PinError> {
        self.rehearsal.push(Operation::Pin(dir.to_owned()));
        Ok(())
    }
}

#[derive(Debug)]
struct Link {
    ifindex: IfIndex,
    id: u32,
    rehearsal: Rehearsal,
}

impl XdpLink for Link {
    fn id(&self) -> u32 {
        self.id
    }

    fn program_id(&self) -> u32 {
        0
    }

    fn is_alive(&self) -> bool {
        true
    }

    fn succeed(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn unpin(&mut self) {}
}

impl Drop for Link {
    fn drop(&mut self) {
        self.rehearsal.push(Operation::Detach {
            ifindex: self.ifindex,
        });
    }
}

#[derive(Debug)]
struct RecordedPort {
    ifindex: IfIndex,
    rehearsal: Rehearsal,
}

impl PreparedPort for RecordedPort {
    fn prepare_generic(&self) -> Result<(), BridgeError> {
        Ok(())
    }

    fn mtu(&self) -> Option<u32> {
        None
    }

    fn restore(self: Box<Self>, _: bool) -> Result<(), BridgeError> {
        let ifindex = self.ifindex;
        self.rehearsal.push(Operation::Restore { ifindex });
        Ok(())
    }
}

/// The bans of a rehearsal. Their ticks are milliseconds of its own.
#[derive(Debug)]
struct RecordedBans {
    table: Box<[AtomicU64]>,
    lengths: [AtomicU64; BAN_KINDS],
    seed: [u64; 2],
    begin: Instant,
}

const RECORDED_TICK_NS: u32 = 1_000_000;

impl Default for RecordedBans {
    fn default() -> Self {
        Self {
            table: Box::default(),
            lengths: Default::default(),
            seed: [0; 2],
            begin: Instant::now(),
        }
    }
}

impl RecordedBans {
    fn memory(&self) -> BanMemory<'_> {
        BanMemory {
            table: &self.table,
            lengths: &self.lengths,
        }
    }

    fn ticks(&self) -> u64 {
        u64::try_from(self.begin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn hold(&self, packet: &Packet) -> bool {
        let (memory, now) = (self.memory(), self.ticks());
        [(packet.src, false), (packet.dst, true)]
            .into_iter()
            .any(|(address, destination)| {
                ban_table::is_banned(memory, self.seed, address, destination, now)
            })
    }
}

/// Judges by the mirror of the program in Rust.
#[derive(Debug)]
struct Rehearsed {
    image: Image,
    bans: Arc<RecordedBans>,
}

impl Judge for Rehearsed {
    fn evaluate(&self, frame: &[u8], scopes: u64) -> Result<Answer, EvaluateError> {
        let reader = ImageReader::new(&self.image).expect("an image that the compiler just made");
        // Its clock stands still at the beginning of 1970.
        let around = Surroundings { ticks: 0, scopes };
        let parsed = Parsed::from_frame(frame);
        let judgement = reader.judge_with(&parsed, around, |packet| self.bans.hold(packet));
        Ok(Answer {
            reason: judgement.reason as u32,
            drop: judgement.verdict == Verdict::Drop,
            rule: judgement.rule.unwrap_or(NO_RULE),
            passed: judgement.passed,
        })
    }

    fn set_scopes(&self, _: u16, _: u64) {}

    fn entry_counter(&self, _: u32) -> EntryCounter {
        EntryCounter::default()
    }

    fn add_to_entry(&self, _: u32, _: EntryCounter) {}

    fn scopes(&self, _: u16) -> Option<u64> {
        None
    }

    fn damage(&self) -> io::Result<Option<Damage>> {
        Ok(Damage::of(&self.image.lines, self.image.shape()))
    }

    fn image_lines(&self) -> io::Result<Vec<Line>> {
        Ok(self.image.lines.clone())
    }

    fn program(&self) -> ProgramFacts {
        ProgramFacts::default()
    }

    fn evaluator(&self) -> Option<ProgramFacts> {
        None
    }
}
