//! The backend that is the kernel.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use libbpf_rs::{ErrorKind, MapCore, MapFlags, ProgramHandle, Xdp, XdpFlags};

use super::attach::AttachMode;
use super::backend::{Backend, Bank, Judge, Occupant, VerdictCounters, XdpLink};
use super::ban_table::BanMemory;
use super::bridge::{BridgeError, Port, PreparedPort};
use super::error::{ApplyError, PinError};
use super::evaluate;
use super::events::{EventSource, Ring};
use super::firewall::lock;
use super::grace::GracePeriod;
use super::ifindex::IfIndex;
use super::layout::{
    BAN_KINDS, BANKS, COUNTERS_PER_INTERFACE, Control, EXIT_ATOMIC, EvaluationLine, HostShape,
    INTERFACE_ENTRIES, InterfaceEntry, RateBudget, RuleCounter, VerdictCounter,
};
use super::link::Link;
use super::pin;
use super::program::{self, LoadedProgram, ProgramError, to_io};
use super::publish::Generation;
use super::published::{Published, Shared};
use super::stats::ProgramFacts;
use super::sys::{self, SharedWords};
use crate::abi::{LIMIT_TIME_SHIFT, LINE_BYTES};
use crate::compile::Clock;
use crate::image::Image;

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
    verdict_counters: SharedWords<AtomicU64>,
    rule_counters: SharedWords<AtomicU64>,
    rate_budgets: SharedWords<AtomicU64>,
    rate_overflows: SharedWords<AtomicU64>,
    grace: GracePeriod,
    clock: ProgramHandle,
    /// A moment and its tick.
    anchor: Mutex<(Instant, u64)>,
    events: Arc<Ring>,
}

impl Kernel {
    /// `host.tick_zero` is found out here.
    pub(super) fn load(
        host: HostShape,
        cpus: u32,
        event_buffer: u32,
    ) -> Result<Self, ProgramError> {
        let (entry, clock, maps) = program::load_entry(host, cpus, event_buffer)?;
        let mmap = |source| ProgramError::Syscall {
            call: "mmap",
            source,
        };
        let cpus = cpus as usize;
        let evaluation =
            SharedWords::new(&maps.evaluation, words(size_of::<EvaluationLine>())).map_err(mmap)?;
        let (ticks, nanoseconds) =
            read_clock(&clock, &evaluation).map_err(|source| ProgramError::Syscall {
                call: "bpf(BPF_PROG_TEST_RUN) of the clock",
                source,
            })?;
        let since_zero = ticks.wrapping_mul(host.tick_ns.into());
        let host = HostShape {
            tick_zero: nanoseconds.wrapping_sub(since_zero) << LIMIT_TIME_SHIFT,
            ..host
        };
        let verdicts = cpus * host.interface_slots as usize * COUNTERS_PER_INTERFACE * BANKS;
        let rules = cpus * host.rule_slots as usize;
        let kernel = Self {
            control: SharedWords::new(&maps.control, words(LINE_BYTES)).map_err(mmap)?,
            wide_control: SharedWords::new(&maps.control, LINE_BYTES / size_of::<u64>())
                .map_err(mmap)?,
            bans: SharedWords::new(&maps.bans, host.ban_lines.max(1) as usize * WORDS_PER_LINE)
                .map_err(mmap)?,
            interfaces: SharedWords::new(&maps.interfaces, INTERFACE_ENTRIES as usize)
                .map_err(mmap)?,
            verdict_counters: SharedWords::new(
                &maps.verdict_counters,
                verdicts * WORDS_PER_VERDICT,
            )
            .map_err(mmap)?,
            rule_counters: SharedWords::new(&maps.rule_counters, rules * BANKS * WORDS_PER_RULE)
                .map_err(mmap)?,
            rate_budgets: SharedWords::new(
                &maps.rate_budgets,
                host.rule_slots as usize * WORDS_PER_BUDGET,
            )
            .map_err(mmap)?,
            rate_overflows: SharedWords::new(&maps.rate_overflows, rules).map_err(mmap)?,
            grace: GracePeriod::new().map_err(ProgramError::syscall("bpf(BPF_MAP_CREATE)"))?,
            events: Arc::new(Ring::new(&maps, cpus)?),
            entry,
            clock,
            anchor: Mutex::new((Instant::now(), 0)),
            cpus,
            shared: Arc::new(Shared {
                host,
                evaluation: evaluation.into(),
                maps,
            }),
        };
        *lock(&kernel.anchor) = kernel
            .read_anchor(&lock(&kernel.shared.evaluation))
            .map_err(|source| ProgramError::Syscall {
                call: "reading the clock of the data path",
                source,
            })?;
        Ok(kernel)
    }

    /// What each CPU counted of the packets that [`Backend::rate_overflow`] sums up.
    fn rate_overflows(&self, slot: u32) -> impl Iterator<Item = &AtomicU64> {
        let (words, slots) = (self.rate_overflows.words(), self.shared.host.rule_slots);
        (0..self.cpus).map(move |cpu| &words[cpu * slots as usize + slot as usize])
    }
    /// A moment and the tick it is in. Reads again if it took long: the tick may be a later one.
    fn read_anchor(&self, evaluation: &SharedWords<AtomicU32>) -> io::Result<(Instant, u64)> {
        let mut tries = 0;
        loop {
            let at = Instant::now();
            let (ticks, _) = read_clock(&self.clock, evaluation)?;
            tries += 1;
            let took = at.elapsed().as_nanos();
            if took < u128::from(self.shared.host.tick_ns) / 2 || tries == ANCHOR_TRIES {
                return Ok((at, ticks));
            }
        }
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
    let number = |i: usize| {
        if cfg!(target_endian = "little") {
            word(i) | word(i + 1) << 32
        } else {
            word(i + 1) | word(i) << 32
        }
    };
    Ok((number(TICKS), number(NANOSECONDS)))
}

/// Ticks follow the monotonic clock, so a reading of both is good for long; it is read anew all the
/// same, in case the kernel lost ticks.
const ANCHOR_LIFE: Duration = Duration::from_secs(10);
const ANCHOR_TRIES: u32 = 10;

const WORDS_PER_VERDICT: usize = size_of::<VerdictCounter>() / size_of::<u64>();
const WORDS_PER_LINE: usize = LINE_BYTES / size_of::<u64>();
/// The place of `ban_lengths` in `struct control`.
const BAN_LENGTHS_WORD: usize = std::mem::offset_of!(Control, ban_lengths) / size_of::<u64>();
const WORDS_PER_RULE: usize = size_of::<RuleCounter>() / size_of::<u64>();
const WORDS_PER_BUDGET: usize = size_of::<RateBudget>() / size_of::<u64>();
/// The place of `dry_run` in `struct control`.
const DRY_RUN: usize = 0;
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
        // The wall first: an expiry may come late by the time this takes, but never early.
        let now = Timestamp::now();
        Ok(Clock {
            now,
            ticks: read_clock(&self.clock, &evaluation)?.0,
            tick_ns: self.shared.host.tick_ns,
        })
    }

    fn ticks(&self) -> u64 {
        let mut anchor = lock(&self.anchor);
        if anchor.0.elapsed() >= ANCHOR_LIFE {
            // Not while a frame is evaluated: that may load a program first.
            if let Ok(evaluation) = self.shared.evaluation.try_lock() {
                match self.read_anchor(&evaluation) {
                    Ok(new) => *anchor = new,
                    Err(error) => log::warn!("reading the clock of the data path: {error}"),
                }
            }
        }
        let (at, ticks) = *anchor;
        let since = at.elapsed().as_nanos() / u128::from(self.tick_ns());
        ticks.saturating_add(u64::try_from(since).unwrap_or(u64::MAX))
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

    fn set_dry_run(&self, dry_run: bool) {
        self.control.words()[DRY_RUN].store(dry_run.into(), Ordering::SeqCst);
    }

    fn is_dry_run(&self) -> bool {
        self.control.words()[DRY_RUN].load(Ordering::SeqCst) != 0
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
        Ok(Box::new(Link::new(
            self.entry.handle.as_fd(),
            ifindex,
            mode,
        )?))
    }

    fn prepare_port(
        &self,
        ifindex: IfIndex,
        name: &str,
        state_dir: Option<&Path>,
    ) -> Result<Box<dyn PreparedPort>, BridgeError> {
        Ok(Box::new(Port::prepare(ifindex, name, state_dir)?))
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

    fn takes_redirected(&self, ifindex: IfIndex) -> Option<bool> {
        // enum netdev_xdp_act, linux/netdev.h.
        const NDO_XMIT: u64 = 1 << 2;
        let found = Xdp::new(self.entry.handle.as_fd())
            .query(ifindex.get().try_into().ok()?, XdpFlags::NONE)
            .ok()?;
        // Without any feature: the kernel tells none.
        (found.feature_flags != 0).then_some(found.feature_flags & NDO_XMIT != 0)
    }

    fn occupant(&self, ifindex: IfIndex) -> Option<Occupant> {
        let found = Xdp::new(self.entry.handle.as_fd())
            .query(ifindex.get().try_into().ok()?, XdpFlags::NONE)
            .ok()?;
        let ids = [
            found.prog_id,
            found.drv_prog_id,
            found.skb_prog_id,
            found.hw_prog_id,
        ];
        let program_id = ids.into_iter().find(|id| *id != 0)?;
        let name = ProgramHandle::from_prog_id(program_id)
            .map(|p| p.name().to_string_lossy().into_owned())
            .unwrap_or_default();
        Some(Occupant { program_id, name })
    }

    fn bank(&self) -> Bank {
        Bank::ALL[self.control.words()[BANK].load(Ordering::SeqCst) as usize % BANKS]
    }

    fn set_bank(&self, bank: Bank) {
        self.control.words()[BANK].store(bank as u32, Ordering::SeqCst);
    }

    fn verdict_counters(&self, slot: u16, bank: Bank) -> VerdictCounters {
        let mut sums = [VerdictCounter::default(); COUNTERS_PER_INTERFACE];
        let words = self.verdict_counters.words();
        for cpu in 0..self.cpus {
            let region = cpu * self.shared.host.interface_slots as usize + usize::from(slot);
            let first = region * COUNTERS_PER_INTERFACE * BANKS + bank as usize;
            let pairs = words[first * WORDS_PER_VERDICT..]
                .chunks(WORDS_PER_VERDICT)
                .step_by(BANKS);
            for (sum, pair) in sums.iter_mut().zip(pairs) {
                let [packets, bytes] = [0, 1].map(|i| pair[i].load(Ordering::Relaxed));
                sum.add(VerdictCounter { packets, bytes });
            }
        }
        sums
    }

    fn rule_counter(&self, slot: u32, bank: Bank) -> RuleCounter {
        let mut sum = RuleCounter::default();
        let words = self.rule_counters.words();
        for cpu in 0..self.cpus {
            let rule = cpu * self.shared.host.rule_slots as usize + slot as usize;
            let index = rule * BANKS + bank as usize;
            let counter = &words[index * WORDS_PER_RULE..][..WORDS_PER_RULE];
            let [packets, bytes, dropped_packets, would_drop_packets] =
                [0, 1, 2, 3].map(|i| counter[i].load(Ordering::Relaxed));
            sum.add(RuleCounter {
                packets,
                bytes,
                dropped_packets,
                would_drop_packets,
            });
        }
        sum
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

    fn counts_atomically(&self) -> bool {
        self.shared.host.exit & EXIT_ATOMIC != 0
    }

    fn pin(&self, dir: &Path) -> Result<(), PinError> {
        let host = self.shared.host;
        pin::pin(
            dir,
            &self.entry.handle,
            &self.shared.maps,
            host,
            self.cpus as u32,
        )
    }
}
