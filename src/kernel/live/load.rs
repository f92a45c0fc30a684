//! Loading: on the maps that an earlier process left, or on new ones.

use std::os::fd::AsFd;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use libbpf_rs::{MapCore, MapFlags, MapHandle, ProgramHandle};

use super::{Kernel, Pins, WORDS_PER_BUDGET, WORDS_PER_LINE, read_clock, words};
use crate::abi::{LIMIT_TIME_SHIFT, LINE_BYTES};
use crate::kernel::backend::{Backend, XdpLink};
use crate::kernel::counters::Counters;
use crate::kernel::enforcement::Enforcement;
use crate::kernel::entry_counters::InheritedEntries;
use crate::kernel::error::{LoadError, PinError};
use crate::kernel::events::Ring;
use crate::kernel::firewall::lock;
use crate::kernel::foreign;
use crate::kernel::grace::GracePeriod;
use crate::kernel::inheritance::{Counted, Inheritance, InheritedLink, slot_words};
use crate::kernel::layout::{EvaluationLine, HostShape, INTERFACE_ENTRIES};
use crate::kernel::pin::{self, Layout};
use crate::kernel::pin_root::{Legacy, PinRoot};
use crate::kernel::program::{self, LoadedProgram, ProgramError};
use crate::kernel::published::{self, Shared};
use crate::kernel::shared_maps::SharedMaps;
use crate::kernel::sys::{self, SharedWords};

impl Kernel {
    /// `host.tick_zero` is found out here, and with the maps of an earlier process its seed is kept.
    pub(in crate::kernel) fn load(
        host: HostShape,
        cpus: u32,
        event_buffer: u32,
        mode: Option<Enforcement>,
        root: Option<PinRoot>,
    ) -> Result<(Self, Inheritance), LoadError> {
        let wanted = Layout::new(host, cpus, event_buffer);
        let legacy = root.as_ref().map(PinRoot::legacy).transpose()?.flatten();
        let (existing, other) = match legacy {
            Some(legacy) if legacy.layout.suits(&wanted) => (Some(legacy), None),
            other => (None, other),
        };
        let host = existing.as_ref().map_or(host, |e| e.layout.host);
        let (entry, clock, maps) =
            program::load_entry(host, cpus, event_buffer, existing.as_ref().map(|e| &e.maps))?;
        let mut kernel = Self::open(host, cpus, event_buffer, entry, clock, maps)?;
        if existing.is_none() {
            // Before the pins: a process that is killed must not leave another value than it began with.
            let inherited = root.as_ref().and_then(PinRoot::enforcement);
            let is_pass = inherited == Some(Enforcement::Pass);
            let mode = mode.filter(|_| !is_pass).or(inherited);
            kernel.set_enforcement(mode.unwrap_or(Enforcement::DryRun));
        }
        let mut inheritance = Inheritance {
            has_maps: existing.is_some(),
            ..Inheritance::default()
        };
        let Some(root) = root else {
            return Ok((kernel, inheritance));
        };
        if let Some(other) = &other {
            log::info!(
                "{}: made for other sizes: counters and bans are taken over, rate state begins anew",
                other.dir.display()
            );
            inheritance.counted =
                Counted::read(other, kernel.ticks()).map_err(|source| LoadError::Syscall {
                    call: "reading the counters of the process before",
                    source,
                })?;
        }
        inheritance.links = kernel.inherited_links(&root, &inheritance.counted)?;
        *lock(&kernel.held) = root.policy_slots()?;
        kernel.pins = Some(kernel.make_pins(root, existing)?);
        if inheritance.has_maps {
            inheritance.entries = kernel.inherited_entries();
        }
        Ok((kernel, inheritance))
    }

    fn open(
        host: HostShape,
        cpus: u32,
        event_buffer: u32,
        entry: LoadedProgram,
        clock: ProgramHandle,
        maps: SharedMaps,
    ) -> Result<Self, ProgramError> {
        let mmap = |source| ProgramError::Syscall {
            call: "mmap",
            source,
        };
        let cpus = cpus as usize;
        let evaluation =
            SharedWords::new(&maps.evaluation, words(size_of::<EvaluationLine>())).map_err(mmap)?;
        let mut host = host;
        // Budgets that an earlier process left are counted from its zero.
        if host.tick_zero == 0 {
            let (ticks, nanoseconds) =
                read_clock(&clock, &evaluation).map_err(|source| ProgramError::Syscall {
                    call: "bpf(BPF_PROG_TEST_RUN) of the clock",
                    source,
                })?;
            let since_zero = ticks.wrapping_mul(host.tick_ns.into());
            host.tick_zero = nanoseconds.wrapping_sub(since_zero) << LIMIT_TIME_SHIFT;
        }
        let rules = cpus * host.rule_slots as usize;
        let kernel = Self {
            control: SharedWords::new(&maps.control, words(LINE_BYTES)).map_err(mmap)?,
            wide_control: SharedWords::new(&maps.control, LINE_BYTES / size_of::<u64>())
                .map_err(mmap)?,
            bans: SharedWords::new(&maps.bans, host.ban_lines.max(1) as usize * WORDS_PER_LINE)
                .map_err(mmap)?,
            interfaces: SharedWords::new(&maps.interfaces, INTERFACE_ENTRIES as usize)
                .map_err(mmap)?,
            counters: Counters::new(&maps, host, cpus).map_err(mmap)?,
            rate_budgets: SharedWords::new(
                &maps.rate_budgets,
                host.rule_slots as usize * WORDS_PER_BUDGET,
            )
            .map_err(mmap)?,
            rate_overflows: SharedWords::new(&maps.rate_overflows, rules).map_err(mmap)?,
            grace: GracePeriod::new().map_err(ProgramError::syscall("bpf(BPF_MAP_CREATE)"))?,
            events: Arc::new(Ring::new(&maps, cpus)?),
            event_buffer,
            pins: None,
            held: Mutex::default(),
            entry,
            clock,
            moment: Mutex::default(),
            cpus,
            shared: Arc::new(Shared {
                host,
                evaluation: evaluation.into(),
                maps,
            }),
        };
        *lock(&kernel.moment) = kernel
            .read_moment(&lock(&kernel.shared.evaluation))
            .map_err(|source| ProgramError::Syscall {
                call: "reading the clock of the data path",
                source,
            })?;
        Ok(kernel)
    }

    /// Pins the maps, unless they are those of an earlier process.
    fn make_pins(&self, root: PinRoot, existing: Option<Legacy>) -> Result<Pins, LoadError> {
        let words = slot_words(self.shared.host);
        let is_new = existing.is_none();
        let (dir, slots) = match existing {
            Some(legacy) => (legacy.dir, legacy.slots),
            None => {
                let slots = published::mmapable_array(pin::SLOTS, size_of::<u64>(), words as u32)
                    .map_err(ProgramError::syscall("bpf(BPF_MAP_CREATE) of the slots"))?;
                let dir = root.next_dir()?;
                pin::pin(&dir, &self.pinnable(Some(&slots)))?;
                (dir, slots)
            }
        };
        let slots = SharedWords::new(&slots, words).map_err(|source| LoadError::Syscall {
            call: "mmap of the slots",
            source,
        })?;
        Ok(Pins {
            root,
            dir,
            slots,
            is_new,
            settled: AtomicBool::new(false),
            swept: AtomicBool::new(false),
        })
    }

    /// The attachments of an earlier process, which run its program.
    fn inherited_links(
        &self,
        root: &PinRoot,
        counted: &Counted,
    ) -> Result<Vec<InheritedLink>, PinError> {
        let links = root.links(self.entry.handle.as_fd())?.into_iter();
        let inherited = links.filter_map(|(link, ifindex)| {
            let name = self.interface_name(ifindex)?;
            let mode = foreign::mode_of(ifindex, link.program_id())?;
            Some(InheritedLink {
                link: Box::new(link),
                ifindex,
                name,
                mode,
                automatic: counted.automatic.contains(&ifindex),
                dry_run: counted.dry_run.contains(&ifindex),
                bridged: counted.bridged.get(&ifindex).copied(),
            })
        });
        Ok(inherited.collect())
    }

    /// The counters of entries of the program that judges, which is of an earlier process.
    fn inherited_entries(&self) -> Option<InheritedEntries> {
        let id = self.judging_program().ok()??;
        let program = ProgramHandle::from_prog_id(id).ok()?;
        let maps = sys::program_maps(program.as_fd()).ok()?.into_iter();
        let maps: Vec<MapHandle> = maps
            .filter_map(|id| MapHandle::from_map_id(id).ok())
            .collect();
        let named = |end: &str| {
            let mut found = maps
                .iter()
                .filter(|m| m.name().to_string_lossy().ends_with(end));
            found.next()
        };
        let rodata = named(".rodata")?.lookup(&0u32.to_ne_bytes(), MapFlags::ANY);
        let generation = program::generation_in(&rodata.ok()??)?;
        let counters = named("entry_counters")?;
        let words = counters.max_entries() as usize * published::WORDS_PER_ENTRY;
        Some(InheritedEntries {
            policy: self.slot_memory()?.policy(generation)?,
            counters: SharedWords::new(counters, words).ok()?,
        })
    }
}
