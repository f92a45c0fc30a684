//! The backend that is the kernel.

mod clock;
mod load;

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use libbpf_rs::{ErrorKind, MapCore, MapFlags, MapHandle, ProgramHandle};

use super::attach::AttachMode;
use super::backend::{Backend, Bank, Judge, VerdictCounters, XdpLink};
use super::ban_table::BanMemory;
use super::bridge::{BridgeError, Port, PreparedPort};
use super::counters::Counters;
use super::device::{self, DeviceFacts, XdpFeatures};
use super::enforcement::Enforcement;
use super::error::{ApplyError, PinError};
use super::evaluate;
use super::events::{EventSource, Ring};
use super::firewall::lock;
use super::foreign::{self, ForeignProgram};
use super::grace::GracePeriod;
use super::ifindex::IfIndex;
use super::inheritance::{self, slot_memory_of};
use super::layout::{
    BAN_KINDS, BANKS, Control, EXIT_ATOMIC, EvaluationLine, InterfaceEntry, RateBudget, RuleCounter,
};
use super::link::Link;
use super::pin::{self, Layout, Pinnable};
use super::pin_root::PinRoot;
use super::program::{LoadedProgram, to_io};
use super::publish::Generation;
use super::published::{Published, Shared};
use super::slot_memory::SlotMemory;
use super::stats::ProgramFacts;
use super::sys::{self, SharedWords};
use crate::abi::LINE_BYTES;
use crate::compile::Clock;
use crate::image::Image;
use clock::Moment;

/// The programs and maps in the kernel.
#[derive(Debug)]
pub(super) struct Kernel {
    entry: LoadedProgram,
    shared: Arc<Shared>,
    cpus: usize,
    control: SharedWords<AtomicU32>,
    /// The same line, in words of eight bytes.
    wide_control: SharedWords<AtomicU64>,
    bans: SharedWords<AtomicU64>,
    interfaces: SharedWords<AtomicU64>,
    counters: Counters,
    rate_budgets: SharedWords<AtomicU64>,
    rate_overflows: SharedWords<AtomicU64>,
    grace: GracePeriod,
    clock: ProgramHandle,
    /// Renewed now and then, in case the kernel lost ticks.
    moment: Mutex<Moment>,
    events: Arc<Ring>,
    event_buffer: u32,
    pins: Option<Pins>,
    /// Switches of programs that interfaces may still run: they would be emptied with their last user.
    held: Mutex<Vec<MapHandle>>,
}

/// What outlives this process.
#[derive(Debug)]
struct Pins {
    root: PinRoot,
    /// Where the maps are, in the root.
    dir: PathBuf,
    slots: SharedWords<AtomicU64>,
    /// Whether this process made the maps.
    is_new: bool,
    /// Whether all of it is of this process.
    settled: AtomicBool,
    /// Whether the pins were removed, so that all ends with this process.
    swept: AtomicBool,
}

impl Pins {
    fn are_there(&self) -> bool {
        !self.swept.load(Ordering::SeqCst)
    }
}

impl Kernel {
    /// The seed of the tables that outlive a policy.
    pub(super) fn seed(&self) -> [u64; 2] {
        self.shared.host.seed
    }

    fn pinnable<'p>(&'p self, slots: Option<&'p MapHandle>) -> Pinnable<'p> {
        Pinnable {
            entry: &self.entry.handle,
            maps: &self.shared.maps,
            slots,
            layout: Layout::new(self.shared.host, self.cpus as u32, self.event_buffer),
        }
    }

    /// What each CPU counted of the packets that [`Backend::rate_overflow`] sums up.
    fn rate_overflows(&self, slot: u32) -> impl Iterator<Item = &AtomicU64> {
        let (words, slots) = (self.rate_overflows.words(), self.shared.host.rule_slots);
        (0..self.cpus).map(move |cpu| &words[cpu * slots as usize + slot as usize])
    }
    /// A moment and the tick that it is in.
    fn read_moment(&self, evaluation: &SharedWords<AtomicU32>) -> io::Result<Moment> {
        Moment::read(|| Ok(read_clock(&self.clock, evaluation)?.0))
    }
}

fn words(size: usize) -> usize {
    size / size_of::<u32>()
}

/// Ticks and nanoseconds of the data path's two clocks.
fn read_clock(
    program: &ProgramHandle,
    evaluation: &SharedWords<AtomicU32>,
) -> io::Result<(u64, u64)> {
    sys::test_run(program.as_fd(), &[0; evaluate::SHORTEST])?;
    let word = |i: usize| u64::from(evaluation.words()[i].load(Ordering::SeqCst));
    let number = |i: usize| word(i) | word(i + 1) << 32;
    Ok((number(TICKS), number(NANOSECONDS)))
}

pub(super) const WORDS_PER_LINE: usize = LINE_BYTES / size_of::<u64>();
/// The place of `ban_lengths` in `struct control`.
pub(super) const BAN_LENGTHS_WORD: usize =
    std::mem::offset_of!(Control, ban_lengths) / size_of::<u64>();
const WORDS_PER_BUDGET: usize = size_of::<RateBudget>() / size_of::<u64>();
/// The place of `dry_run` in `struct control`.
const MODE: usize = 0;
/// The place of `bank` in `struct control`.
const BANK: usize = std::mem::offset_of!(Control, bank) / size_of::<u32>();
/// The places of `ticks` and `nanoseconds` in `struct evaluation`.
const TICKS: usize = std::mem::offset_of!(EvaluationLine, ticks) / size_of::<u32>();
const NANOSECONDS: usize = std::mem::offset_of!(EvaluationLine, nanoseconds) / size_of::<u32>();

impl Backend for Kernel {
    fn publish(
        &self,
        image: &Image,
        generation: Generation,
        scopes: &[(u16, u64)],
    ) -> Result<Arc<dyn Judge>, ApplyError> {
        let shared = Arc::clone(&self.shared);
        Ok(Arc::new(Published::new(shared, image, generation, scopes)?))
    }

    fn wait_for_readers(&self) -> io::Result<()> {
        self.grace.wait().map_err(|e| to_io(&e))
    }

    fn clock(&self) -> io::Result<Clock> {
        let evaluation = self
            .shared
            .evaluation
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        self.read_moment(&evaluation)?.wall(self.tick_ns())
    }

    fn ticks(&self) -> u64 {
        let mut moment = lock(&self.moment);
        if moment.is_old() {
            // Not while a frame is evaluated: that may load a program first.
            if let Ok(evaluation) = self.shared.evaluation.try_lock() {
                match self.read_moment(&evaluation) {
                    Ok(new) => *moment = new,
                    Err(error) => log::warn!("reading the clock of the data path: {error}"),
                }
            }
        }
        moment.ticks_now(self.tick_ns())
    }

    fn tick_ns(&self) -> u32 {
        self.shared.host.tick_ns
    }

    fn bans(&self) -> BanMemory<'_> {
        BanMemory {
            table: self.bans.words(),
            lengths: &self.wide_control.words()[BAN_LENGTHS_WORD..][..BAN_KINDS],
        }
    }

    fn enforcement(&self) -> Enforcement {
        Enforcement::from_word(self.control.words()[MODE].load(Ordering::SeqCst))
    }

    fn set_enforcement(&self, mode: Enforcement) {
        self.control.words()[MODE].store(mode.word(), Ordering::SeqCst);
    }

    fn replace_enforcement(&self, there: Enforcement, mode: Enforcement) -> bool {
        let (word, order) = (&self.control.words()[MODE], Ordering::SeqCst);
        word.compare_exchange(there.word(), mode.word(), order, order)
            .is_ok()
    }

    fn interface_name(&self, ifindex: IfIndex) -> Option<String> {
        ifindex.name()
    }

    fn write_interface(&self, position: u32, entry: InterfaceEntry) {
        // One store: the program never sees a number with the slot of another.
        let word = bytemuck::cast(entry);
        self.interfaces.words()[position as usize].store(word, Ordering::SeqCst);
    }

    fn link(&self, ifindex: IfIndex, mode: AttachMode) -> io::Result<Box<dyn XdpLink>> {
        let mut link = Link::new(self.entry.handle.as_fd(), ifindex, mode)?;
        if let Some(pins) = self.pins.as_ref().filter(|p| p.are_there()) {
            let path = pins.root.link_path(ifindex);
            // Of an interface that had the number before; one that is there is known since the start.
            let _ = fs::remove_file(&path);
            // Without a number, which would be taken for what it says of the interface.
            let failed = |e| io::Error::other(format!("pinning at {}: {e}", path.display()));
            link.pin(path.clone()).map_err(failed)?;
        }
        Ok(Box::new(link))
    }

    fn prepare_port(
        &self,
        ifindex: IfIndex,
        name: &str,
        state_dir: Option<&Path>,
    ) -> Result<Box<dyn PreparedPort>, BridgeError> {
        Ok(Box::new(Port::prepare(ifindex, name, state_dir)?))
    }

    fn partner(&self, port: IfIndex) -> Option<IfIndex> {
        inheritance::partner(&self.shared.maps, port)
    }

    fn set_partner(&self, port: IfIndex, partner: Option<IfIndex>) -> io::Result<()> {
        let (ports, key) = (&self.shared.maps.ports, port.get().to_ne_bytes());
        let done = match partner {
            Some(partner) => ports.update(&key, &partner.get().to_ne_bytes(), MapFlags::ANY),
            None => ports.delete(&key),
        };
        match done {
            // With its interface the kernel takes an entry out by itself.
            Err(error) if partner.is_none() && error.kind() == ErrorKind::NotFound => Ok(()),
            done => done.map_err(|e| to_io(&e)),
        }
    }

    fn occupant(&self, ifindex: IfIndex, interface: &str) -> Option<ForeignProgram> {
        foreign::on(ifindex, interface)
    }

    fn device(&self, ifindex: IfIndex) -> DeviceFacts {
        device::gather(ifindex)
    }

    fn xdp_features(&self, ifindex: IfIndex) -> Option<XdpFeatures> {
        device::xdp_features(ifindex)
    }

    fn bank(&self) -> Bank {
        Bank::ALL[self.control.words()[BANK].load(Ordering::SeqCst) as usize % BANKS]
    }

    fn set_bank(&self, bank: Bank) {
        self.control.words()[BANK].store(bank as u32, Ordering::SeqCst);
    }

    fn verdict_counters(&self, slot: u16, bank: Bank) -> VerdictCounters {
        self.counters.verdicts(slot, bank)
    }

    fn rule_counter(&self, slot: u32, bank: Bank) -> RuleCounter {
        self.counters.rule(slot, bank)
    }

    fn rate_overflow(&self, slot: u32) -> u64 {
        self.rate_overflows(slot)
            .map(|cpu| cpu.load(Ordering::Relaxed))
            .fold(0, u64::wrapping_add)
    }

    fn reset_rate(&self, slot: u32) {
        let budget = &self.rate_budgets.words()[slot as usize * WORDS_PER_BUDGET..];
        for word in budget[..WORDS_PER_BUDGET]
            .iter()
            .chain(self.rate_overflows(slot))
        {
            word.store(0, Ordering::SeqCst);
        }
    }

    fn events(&self) -> Arc<dyn EventSource> {
        Arc::clone(&self.events) as Arc<dyn EventSource>
    }

    fn entry_program(&self) -> ProgramFacts {
        self.entry.facts.clone()
    }

    fn takes_frags(&self) -> bool {
        self.shared.host.frags != 0
    }

    fn slot_memory(&self) -> Option<SlotMemory<'_>> {
        let pins = self.pins.as_ref()?;
        Some(slot_memory_of(&pins.slots, self.shared.host))
    }

    fn settle(&self) {
        lock(&self.held).clear();
        let Some(pins) = self.pins.as_ref().filter(|p| p.are_there()) else {
            return;
        };
        if pins.settled.swap(true, Ordering::SeqCst) {
            return;
        }
        let (root, dir) = (&pins.root, &pins.dir);
        let settled = root
            .replace_entry(dir, &self.entry.handle)
            .and_then(|()| root.remove_others(dir));
        if let Err(error) = settled {
            log::warn!("pins of an earlier process are left: {error}");
        }
    }

    fn unpin(&self) -> Result<(), PinError> {
        match &self.pins {
            Some(pins) if !pins.swept.swap(true, Ordering::SeqCst) => pins.root.remove(),
            _ => Ok(()),
        }
    }

    fn abandon(&self) {
        if let Some(pins) = &self.pins
            && pins.is_new
            && let Err(error) = pins.root.remove_one(&pins.dir)
        {
            log::warn!("maps that are of no use are left: {error}");
        }
    }

    fn pinned(&self) -> Option<&Path> {
        let pins = self.pins.as_ref().filter(|p| p.are_there());
        Some(&pins?.root.dir)
    }

    fn judging_program(&self) -> io::Result<Option<u32>> {
        let slot = &self.shared.maps.policy_slot;
        let value = slot
            .lookup(&0u32.to_ne_bytes(), MapFlags::ANY)
            .map_err(|e| to_io(&e))?;
        let id = value.and_then(|v| Some(u32::from_ne_bytes(v.try_into().ok()?)));
        Ok(id.filter(|id| *id != 0))
    }

    fn counts_atomically(&self) -> bool {
        self.shared.host.exit & EXIT_ATOMIC != 0
    }

    fn pin(&self, dir: &Path) -> Result<(), PinError> {
        pin::pin(dir, &self.pinnable(None))
    }
}
