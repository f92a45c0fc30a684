//! Events from the kernel: a ring buffer, and the words that switch them on.

use std::io;
use std::mem::offset_of;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use libbpf_rs::{MapHandle, RingBuffer, RingBufferBuilder};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::source::{Budget, EventSource, EventStats, Reading, Sink};
use crate::kernel::layout::{Control, EventCounter};
use crate::kernel::program::{ProgramError, to_io};
use crate::kernel::shared_maps::SharedMaps;
use crate::kernel::sys::SharedWords;

/// The ring buffer of a loaded firewall.
#[derive(Debug)]
pub(in crate::kernel) struct Ring {
    events: MapHandle,
    control: SharedWords<AtomicU32>,
    counters: SharedWords<AtomicU64>,
}

const WORDS_PER_COUNTER: usize = size_of::<EventCounter>() / size_of::<u64>();
const EVENTS: usize = offset_of!(Control, events) / size_of::<u32>();
const RULE_NS: usize = offset_of!(Control, event_rule_ns) / size_of::<u32>();
const TOTAL_NS: usize = offset_of!(Control, event_total_ns) / size_of::<u32>();

impl Ring {
    pub(in crate::kernel) fn new(maps: &SharedMaps, cpus: usize) -> Result<Self, ProgramError> {
        let mmap = |source| ProgramError::Syscall {
            call: "mmap",
            source,
        };
        let events = MapHandle::try_from(&maps.events)
            .map_err(ProgramError::syscall("dup of the map of events"))?;
        let control_words = size_of::<Control>() / size_of::<u32>();
        let counter_words = cpus * WORDS_PER_COUNTER;
        Ok(Self {
            events,
            control: SharedWords::new(&maps.control, control_words).map_err(mmap)?,
            counters: SharedWords::new(&maps.event_counters, counter_words).map_err(mmap)?,
        })
    }
}

impl EventSource for Ring {
    fn set_budget(&self, budget: Option<Budget>) {
        let control = self.control.words();
        if let Some(budget) = budget {
            control[RULE_NS].store(budget.rule_ns, Ordering::SeqCst);
            control[TOTAL_NS].store(budget.total_ns, Ordering::SeqCst);
        }
        control[EVENTS].store(budget.is_some().into(), Ordering::SeqCst);
    }

    fn read(&self, sink: Arc<dyn Sink>) -> io::Result<Option<Box<dyn Reading>>> {
        let map = MapHandle::try_from(&self.events).map_err(|e| to_io(&e))?;
        let records = Arc::clone(&sink);
        let mut builder = RingBufferBuilder::new();
        builder
            .add(&map, move |record| {
                records.record(record);
                0
            })
            .map_err(|e| to_io(&e))?;
        let ring = builder.build().map_err(|e| to_io(&e))?;
        let stop = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC)?);
        let stopped = Arc::clone(&stop);
        let thread = thread::Builder::new()
            .name("xdpgate-events".to_owned())
            .spawn(move || hand_over(&ring, &map, &stopped, &*sink))?;
        Ok(Some(Box::new(RingReading {
            stop,
            thread: Some(thread),
        })))
    }

    fn stats(&self) -> EventStats {
        let mut sum = EventStats::default();
        for counter in self.counters.words().chunks_exact(WORDS_PER_COUNTER) {
            let [sent, suppressed, lost] = [0, 1, 2].map(|i| counter[i].load(Ordering::Relaxed));
            sum.sent += sent;
            sum.suppressed += suppressed;
            sum.lost += lost;
        }
        sum
    }
}

/// A sink hears of an empty buffer this often, in milliseconds.
const IDLE_MS: u16 = 1000;

fn hand_over(ring: &RingBuffer<'_>, map: &MapHandle, stop: &EventFd, sink: &dyn Sink) {
    loop {
        let mut files = [map.as_fd(), stop.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        match poll(&mut files, IDLE_MS) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => {
                log::error!("no more events: poll: {errno}");
                return;
            }
        }
        if files[1].any() == Some(true) {
            return;
        }
        let started = Instant::now();
        if let Err(error) = ring.consume() {
            log::error!("no more events: {error}");
            return;
        }
        sink.drained(started);
    }
}

#[derive(Debug)]
struct RingReading {
    stop: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl Reading for RingReading {}

impl Drop for RingReading {
    fn drop(&mut self) {
        if let Err(errno) = self.stop.write(1) {
            log::error!("the thread that reads events cannot be stopped: {errno}");
            return;
        }
        if self.thread.take().is_some_and(|t| t.join().is_err()) {
            log::error!("the thread that read events had panicked");
        }
    }
}
