//! The backend that is the kernel.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use libbpf_rs::libbpf_sys::{self, BPF_F_MMAPABLE};
use libbpf_rs::query::{LinkInfo, LinkTypeInfo};
use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType, ProgramHandle, Xdp, XdpFlags};

use super::attach::AttachMode;
use super::backend::{Answer, Backend, Judge, Occupant, VerdictCounters, XdpLink};
use super::error::{ApplyError, EvaluateError, PinError};
use super::ifindex::IfIndex;
use super::layout::{
    COUNTERS_PER_INTERFACE, EvaluationLine, HostShape, INTERFACE_ENTRIES, InterfaceEntry,
    RuleCounter, VerdictCounter,
};
use super::pin;
use super::program::{self, LoadedProgram, ProgramError, SharedMaps, to_io};
use super::stats::ProgramFacts;
use super::sys::{self, SharedWords};
use crate::abi::{LINE_BYTES, Shape};
use crate::image::Image;

/// The programs and maps in the kernel.
#[derive(Debug)]
pub(super) struct Kernel {
    entry: LoadedProgram,
    shared: Arc<Shared>,
    cpus: usize,
    control: SharedWords<AtomicU32>,
    interfaces: SharedWords<AtomicU64>,
    verdict_counters: SharedWords<AtomicU64>,
    rule_counters: SharedWords<AtomicU64>,
    grace: GracePeriod,
}

/// What each generation needs of the whole.
#[derive(Debug)]
struct Shared {
    host: HostShape,
    maps: SharedMaps,
    /// Where the evaluating program leaves its answer: one frame at a time.
    evaluation: Mutex<SharedWords<AtomicU32>>,
}

impl Kernel {
    pub(super) fn load(host: HostShape, cpus: u32) -> Result<Self, ProgramError> {
        let (entry, maps) = program::load_entry(host, cpus)?;
        let mmap = |source| ProgramError::Syscall {
            call: "mmap",
            source,
        };
        let cpus = cpus as usize;
        let verdicts = cpus * host.interface_slots as usize * COUNTERS_PER_INTERFACE;
        let rules = cpus * host.rule_slots as usize;
        let words = |size: usize| size / size_of::<u32>();
        Ok(Self {
            control: SharedWords::new(&maps.control, words(LINE_BYTES)).map_err(mmap)?,
            interfaces: SharedWords::new(&maps.interfaces, INTERFACE_ENTRIES as usize)
                .map_err(mmap)?,
            verdict_counters: SharedWords::new(
                &maps.verdict_counters,
                verdicts * WORDS_PER_VERDICT,
            )
            .map_err(mmap)?,
            rule_counters: SharedWords::new(&maps.rule_counters, rules * WORDS_PER_RULE)
                .map_err(mmap)?,
            grace: GracePeriod::new().map_err(ProgramError::syscall("bpf(BPF_MAP_CREATE)"))?,
            entry,
            cpus,
            shared: Arc::new(Shared {
                host,
                evaluation: SharedWords::new(&maps.evaluation, words(size_of::<EvaluationLine>()))
                    .map_err(mmap)?
                    .into(),
                maps,
            }),
        })
    }
}

const WORDS_PER_VERDICT: usize = size_of::<VerdictCounter>() / size_of::<u64>();
const WORDS_PER_RULE: usize = size_of::<RuleCounter>() / size_of::<u64>();
/// The place of `dry_run` in `struct control`.
const DRY_RUN: usize = 0;
/// The only slot of `policy_slot`.
const SLOT: u32 = 0;

impl Backend for Kernel {
    fn publish(&self, image: &Image) -> Result<Arc<dyn Judge>, ApplyError> {
        let shared = Arc::clone(&self.shared);
        let map = image_map(image)?;
        let program = program::load_policy(&shared.maps, shared.host, image.shape(), &map)?;
        let fd = program.handle.as_fd();
        shared
            .maps
            .policy_slot
            .update(&SLOT.to_ne_bytes(), &raw_fd_bytes(fd), MapFlags::ANY)
            .map_err(ProgramError::syscall(
                "bpf(BPF_MAP_UPDATE_ELEM) on policy_slot",
            ))?;
        Ok(Arc::new(Generation {
            shared,
            shape: *image.shape(),
            image: map,
            program,
            evaluator: OnceLock::new(),
        }))
    }

    fn wait_for_readers(&self) -> io::Result<()> {
        self.grace.wait().map_err(|e| to_io(&e))
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
        let flags = match mode {
            AttachMode::Native => libbpf_sys::XDP_FLAGS_DRV_MODE,
            AttachMode::Generic => libbpf_sys::XDP_FLAGS_SKB_MODE,
            AttachMode::Offload => libbpf_sys::XDP_FLAGS_HW_MODE,
        };
        let fd = sys::link_xdp(self.entry.handle.as_fd(), ifindex.get(), flags)?;
        let info = LinkInfo::from_fd(fd.as_fd()).map_err(|e| to_io(&e))?;
        Ok(Box::new(Link {
            fd,
            id: info.id,
            program_id: info.prog_id,
        }))
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

    fn verdict_counters(&self, slot: u16) -> VerdictCounters {
        let mut sums = [VerdictCounter::default(); COUNTERS_PER_INTERFACE];
        let words = self.verdict_counters.words();
        for cpu in 0..self.cpus {
            let region = cpu * self.shared.host.interface_slots as usize + usize::from(slot);
            let first = region * COUNTERS_PER_INTERFACE * WORDS_PER_VERDICT;
            let pairs = words[first..].chunks_exact(WORDS_PER_VERDICT);
            for (sum, pair) in sums.iter_mut().zip(pairs) {
                let [packets, bytes] = [0, 1].map(|i| pair[i].load(Ordering::Relaxed));
                sum.add(VerdictCounter { packets, bytes });
            }
        }
        sums
    }

    fn rule_counter(&self, slot: u32) -> RuleCounter {
        let mut sum = RuleCounter::default();
        let words = self.rule_counters.words();
        for cpu in 0..self.cpus {
            let index = cpu * self.shared.host.rule_slots as usize + slot as usize;
            let counter = &words[index * WORDS_PER_RULE..][..WORDS_PER_RULE];
            let [packets, bytes, dropped_packets, dropped_bytes] =
                [0, 1, 2, 3].map(|i| counter[i].load(Ordering::Relaxed));
            sum.add(RuleCounter {
                packets,
                bytes,
                dropped_packets,
                dropped_bytes,
            });
        }
        sum
    }

    fn entry_program(&self) -> ProgramFacts {
        self.entry.facts.clone()
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

/// A generation of the policy in the kernel.
#[derive(Debug)]
struct Generation {
    shared: Arc<Shared>,
    shape: Shape,
    image: MapHandle,
    program: LoadedProgram,
    /// The same program, but it says what it found instead of counting. Loaded when first asked.
    evaluator: OnceLock<LoadedProgram>,
}

impl Generation {
    fn loaded_evaluator(&self) -> Result<&LoadedProgram, ProgramError> {
        if let Some(program) = self.evaluator.get() {
            return Ok(program);
        }
        let host = HostShape {
            evaluate: 1,
            ..self.shared.host
        };
        let program = program::load_policy(&self.shared.maps, host, &self.shape, &self.image)?;
        Ok(self.evaluator.get_or_init(|| program))
    }
}

impl Judge for Generation {
    fn evaluate(&self, frame: &[u8]) -> Result<Answer, EvaluateError> {
        let evaluation = self
            .shared
            .evaluation
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let program = self.loaded_evaluator()?.handle.as_fd();
        sys::test_run(program, frame).map_err(|source| EvaluateError::Syscall {
            call: "bpf(BPF_PROG_TEST_RUN)",
            source,
        })?;
        let [reason, drop, rule] = [0, 1, 2].map(|i| evaluation.words()[i].load(Ordering::SeqCst));
        Ok(Answer {
            reason,
            drop: drop != 0,
            rule,
        })
    }

    fn program(&self) -> ProgramFacts {
        self.program.facts.clone()
    }

    fn evaluator(&self) -> Option<ProgramFacts> {
        Some(self.evaluator.get()?.facts.clone())
    }
}

#[derive(Debug)]
struct Link {
    fd: OwnedFd,
    id: u32,
    program_id: u32,
}

impl XdpLink for Link {
    fn id(&self) -> u32 {
        self.id
    }

    fn program_id(&self) -> u32 {
        self.program_id
    }

    fn is_alive(&self) -> bool {
        match LinkInfo::from_fd(self.fd.as_fd()).map(|l| l.info) {
            Ok(LinkTypeInfo::Xdp(xdp)) => xdp.ifindex != 0,
            _ => true,
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Err(error) = sys::detach_link(self.fd.as_fd()) {
            log::debug!(
                "XDP link {} was gone before it was detached: {error}",
                self.id
            );
        }
    }
}

/// Makes the map that holds an image and fills it through shared memory.
fn image_map(image: &Image) -> Result<MapHandle, ProgramError> {
    let options = libbpf_sys::bpf_map_create_opts {
        sz: size_of::<libbpf_sys::bpf_map_create_opts>() as libbpf_sys::size_t,
        map_flags: BPF_F_MMAPABLE,
        ..Default::default()
    };
    let map = MapHandle::create(
        MapType::Array,
        Some("image"),
        size_of::<u32>() as u32,
        LINE_BYTES as u32,
        image.line_count() as u32,
        &options,
    )
    .map_err(ProgramError::syscall("bpf(BPF_MAP_CREATE) of the image"))?;
    let content: &[u64] = bytemuck::cast_slice(image.as_bytes());
    let memory = SharedWords::<AtomicU64>::new(&map, content.len()).map_err(|source| {
        ProgramError::Syscall {
            call: "mmap of the image",
            source,
        }
    })?;
    for (word, value) in memory.words().iter().zip(content) {
        word.store(*value, Ordering::Relaxed);
    }
    Ok(map)
}

/// Waits until every program that runs now has ended.
///
/// An update of a map of maps returns after an RCU grace period, which the kernel promises for
/// just this use (`maybe_wait_bpf_programs`, since 4.20). `membarrier` would do the same, but not
/// on hosts with `nohz_full`.
#[derive(Debug)]
struct GracePeriod {
    outer: MapHandle,
    inner: MapHandle,
}

impl GracePeriod {
    fn new() -> libbpf_rs::Result<Self> {
        const U32: u32 = size_of::<u32>() as u32;
        let mut options = libbpf_sys::bpf_map_create_opts {
            sz: size_of::<libbpf_sys::bpf_map_create_opts>() as libbpf_sys::size_t,
            ..Default::default()
        };
        let inner = MapHandle::create(MapType::Array, Some("grace_inner"), U32, U32, 1, &options)?;
        options.inner_map_fd = inner.as_fd().as_raw_fd() as u32;
        let outer = MapHandle::create(
            MapType::ArrayOfMaps,
            Some("grace_outer"),
            U32,
            U32,
            1,
            &options,
        )?;
        Ok(Self { outer, inner })
    }

    fn wait(&self) -> libbpf_rs::Result<()> {
        let inner = raw_fd_bytes(self.inner.as_fd());
        self.outer
            .update(&SLOT.to_ne_bytes(), &inner, MapFlags::ANY)
    }
}

/// A file descriptor as the value of a map that holds programs or maps.
fn raw_fd_bytes(fd: BorrowedFd<'_>) -> [u8; 4] {
    fd.as_raw_fd().to_ne_bytes()
}
