//! A policy in the kernel: its image, its program, and the step that puts it in force.

use std::io;
use std::mem::offset_of;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use libbpf_rs::libbpf_sys::{self, BPF_F_MMAPABLE};
use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType};

use super::backend::{Answer, Judge};
use super::error::EvaluateError;
use super::layout::{EXIT_REPORT, EntryCounter, EvaluationLine, HostShape};
use super::program::{self, LoadedProgram, OwnMaps, ProgramError};
use super::publish::Generation;
use super::shared_maps::SharedMaps;
use super::stats::ProgramFacts;
use super::sys::{self, SharedWords};
use crate::abi::{LINE_BYTES, Line, MAX_WALK, Shape};
use crate::image::{Damage, Image};

/// What all published policies have in common.
#[derive(Debug)]
pub(super) struct Shared {
    pub host: HostShape,
    pub maps: SharedMaps,
    /// Where the evaluating program leaves its answer: one frame at a time.
    pub evaluation: Mutex<SharedWords<AtomicU32>>,
}

/// A policy's image and its program in the kernel. They go when the last packet has left them.
#[derive(Debug)]
pub(super) struct Published {
    shared: Arc<Shared>,
    shape: Shape,
    generation: u64,
    image: MapHandle,
    scopes: MapHandle,
    entry_counters: MapHandle,
    /// What `scopes` holds: the bits by interface slot, and those of the frame that is evaluated.
    scope_bits: SharedWords<AtomicU64>,
    /// What `entry_counters` holds.
    entry_counts: SharedWords<AtomicU64>,
    program: LoadedProgram,
    /// The same program, but it says what it found instead of counting. Loaded when first asked.
    evaluator: OnceLock<LoadedProgram>,
}

impl Published {
    /// Brings an image into the kernel and makes it the one that judges.
    pub(super) fn new(
        shared: Arc<Shared>,
        image: &Image,
        generation: Generation,
        scopes: &[(u16, u64)],
    ) -> Result<Self, ProgramError> {
        let generation = generation.get();
        let map = image_map(image)?;
        let (scope_map, scope_bits) =
            shared_map("scopes", 1, shared.host.interface_slots as usize + 1)?;
        let counters = image.shape().entry_count.max(1) as usize;
        let (entry_map, entry_counts) = shared_map("entry_counters", WORDS_PER_ENTRY, counters)?;
        for (slot, bits) in scopes {
            scope_bits.words()[usize::from(*slot)].store(*bits, Ordering::Relaxed);
        }
        let own = OwnMaps {
            image: &map,
            scopes: &scope_map,
            entry_counters: &entry_map,
        };
        let program =
            program::load_policy(&shared.maps, shared.host, image.shape(), generation, own)?;
        let fd = program.handle.as_fd().as_raw_fd().to_ne_bytes();
        // The one atomic step; nothing after it can fail.
        let slot = &shared.maps.policy_slot;
        slot.update(&SLOT.to_ne_bytes(), &fd, MapFlags::ANY)
            .map_err(ProgramError::syscall(
                "bpf(BPF_MAP_UPDATE_ELEM) on policy_slot",
            ))?;
        let evaluator = OnceLock::new();
        Ok(Self {
            shape: *image.shape(),
            generation,
            image: map,
            scopes: scope_map,
            scope_bits,
            entry_counters: entry_map,
            entry_counts,
            program,
            evaluator,
            shared,
        })
    }

    fn loaded_evaluator(&self) -> Result<&LoadedProgram, ProgramError> {
        if let Some(program) = self.evaluator.get() {
            return Ok(program);
        }
        let host = HostShape {
            evaluate: 1,
            exit: EXIT_REPORT,
            ..self.shared.host
        };
        let own = OwnMaps {
            image: &self.image,
            scopes: &self.scopes,
            entry_counters: &self.entry_counters,
        };
        let program =
            program::load_policy(&self.shared.maps, host, &self.shape, self.generation, own)?;
        Ok(self.evaluator.get_or_init(|| program))
    }
}

impl Judge for Published {
    fn evaluate(&self, frame: &[u8], scopes: u64) -> Result<Answer, EvaluateError> {
        let evaluation = self
            .shared
            .evaluation
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let program = self.loaded_evaluator()?.handle.as_fd();
        let behind_the_slots = self.shared.host.interface_slots as usize;
        self.scope_bits.words()[behind_the_slots].store(scopes, Ordering::SeqCst);
        sys::test_run(program, frame).map_err(|source| EvaluateError::Syscall {
            call: "bpf(BPF_PROG_TEST_RUN)",
            source,
        })?;
        let words = evaluation.words();
        let word = |offset: usize| words[offset / size_of::<u32>()].load(Ordering::SeqCst);
        let passed = (word(offset_of!(EvaluationLine, passed_count)) as usize).min(MAX_WALK);
        let first = offset_of!(EvaluationLine, passed);
        Ok(Answer {
            reason: word(offset_of!(EvaluationLine, reason)),
            drop: word(offset_of!(EvaluationLine, drop)) != 0,
            rule: word(offset_of!(EvaluationLine, rule)),
            passed: (0..passed)
                .map(|i| word(first + i * size_of::<u32>()))
                .collect(),
        })
    }

    fn set_scopes(&self, slot: u16, scopes: u64) {
        self.scope_bits.words()[usize::from(slot)].store(scopes, Ordering::SeqCst);
    }

    fn entry_counter(&self, number: u32) -> EntryCounter {
        let counter = &self.entry_counts.words()[number as usize * WORDS_PER_ENTRY..];
        let [packets, bytes] = [0, 1].map(|i| counter[i].load(Ordering::Relaxed));
        EntryCounter { packets, bytes }
    }

    fn add_to_entry(&self, number: u32, more: EntryCounter) {
        let counter = &self.entry_counts.words()[number as usize * WORDS_PER_ENTRY..];
        counter[0].fetch_add(more.packets, Ordering::Relaxed);
        counter[1].fetch_add(more.bytes, Ordering::Relaxed);
    }

    fn scopes(&self, slot: u16) -> Option<u64> {
        Some(self.scope_bits.words()[usize::from(slot)].load(Ordering::SeqCst))
    }

    fn damage(&self) -> io::Result<Option<Damage>> {
        let lines = self.shape.lines as usize;
        sys::with_lines(&self.image, lines, |lines| Damage::of(lines, &self.shape))
    }

    fn image_lines(&self) -> io::Result<Vec<Line>> {
        sys::read_lines(&self.image, self.shape.lines as usize)
    }

    fn program(&self) -> ProgramFacts {
        self.program.facts.clone()
    }

    fn evaluator(&self) -> Option<ProgramFacts> {
        Some(self.evaluator.get()?.facts.clone())
    }
}

/// The only slot of `policy_slot`.
const SLOT: u32 = 0;

pub(super) const WORDS_PER_ENTRY: usize = size_of::<EntryCounter>() / size_of::<u64>();

/// Makes a table of so many words per entry, all 0, that is written while it is in use.
fn shared_map(
    name: &str,
    words: usize,
    entries: usize,
) -> Result<(MapHandle, SharedWords<AtomicU64>), ProgramError> {
    let map = mmapable_array(name, words * size_of::<u64>(), entries as u32).map_err(
        ProgramError::syscall("bpf(BPF_MAP_CREATE) of the scopes or counters of entries"),
    )?;
    let words =
        SharedWords::new(&map, words * entries).map_err(|source| ProgramError::Syscall {
            call: "mmap of the scopes or counters of entries",
            source,
        })?;
    Ok((map, words))
}

pub(super) fn mmapable_array(
    name: &str,
    value_size: usize,
    entries: u32,
) -> libbpf_rs::Result<MapHandle> {
    let options = libbpf_sys::bpf_map_create_opts {
        sz: size_of::<libbpf_sys::bpf_map_create_opts>() as libbpf_sys::size_t,
        map_flags: BPF_F_MMAPABLE,
        ..Default::default()
    };
    MapHandle::create(
        MapType::Array,
        Some(name),
        size_of::<u32>() as u32,
        value_size as u32,
        entries,
        &options,
    )
}

/// Makes the map that holds an image and fills it through shared memory; then it is final.
fn image_map(image: &Image) -> Result<MapHandle, ProgramError> {
    let map = mmapable_array("image", LINE_BYTES, image.line_count() as u32)
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
    drop(memory);
    map.freeze()
        .map_err(ProgramError::syscall("bpf(BPF_MAP_FREEZE) of the image"))?;
    Ok(map)
}
