//! From one ring buffer to the queues of those who listen.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::event::{Clock, Event, monotonic_ns};
use super::options::{self, EventOptions};
use super::source::{EventSource, EventStats, Reading, Sink};
use super::stream::EventStream;
use crate::kernel::error::EventError;
use crate::kernel::firewall::lock;
use crate::kernel::ifindex::IfIndex;
use crate::kernel::layout::EventRecord;
use crate::kernel::publish::Generation;
use crate::kernel::slots::RuleSlot;
use crate::policy::RuleId;

/// The hub of a firewall. Dropping it ends all streams.
#[derive(Debug)]
pub(in crate::kernel) struct Events(Arc<Hub>);

impl Events {
    pub(in crate::kernel) fn new(source: Arc<dyn EventSource>) -> Self {
        Self(Arc::new(Hub {
            source,
            reading: Mutex::default(),
            shared: Arc::default(),
        }))
    }

    /// Says which rules a generation will have, before it can send an event.
    pub(in crate::kernel) fn announce(
        &self,
        generation: Generation,
        rules: Arc<[(RuleId, RuleSlot)]>,
    ) {
        let is_read = lock(&self.0.reading).is_some();
        lock(&self.0.shared.0)
            .names
            .announce(generation, rules, is_read);
    }

    pub(in crate::kernel) fn name_interface(&self, ifindex: IfIndex, name: &str) {
        let mut state = lock(&self.0.shared.0);
        state
            .names
            .interfaces
            .insert(ifindex.get(), name.to_owned());
    }

    pub(super) fn subscribe(&self, options: EventOptions) -> Result<EventStream, EventError> {
        options.check()?;
        Hub::subscribe(&self.0, options)
    }

    pub(super) fn stats(&self) -> EventStats {
        self.0.source.stats()
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let mut reading = lock(&self.0.reading);
        self.0.source.set_budget(None);
        drop(reading.take());
        lock(&self.0.shared.0).subscribers.clear();
    }
}

/// What streams hold on to.
#[derive(Debug)]
pub(super) struct Hub {
    source: Arc<dyn EventSource>,
    /// Held while streams come and go. The thread that reads never takes it, so that it may be
    /// waited for.
    reading: Mutex<Option<Box<dyn Reading>>>,
    shared: Arc<Shared>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SubscriberId(u64);

impl Hub {
    fn subscribe(hub: &Arc<Self>, options: EventOptions) -> Result<EventStream, EventError> {
        let mut reading = lock(&hub.reading);
        let (sender, queue) = sync_channel(options.queue);
        let lost = Arc::new(AtomicU64::new(0));
        let subscriber = |id| Subscriber {
            id,
            options,
            sender,
            lost: Arc::clone(&lost),
        };
        let id = lock(&hub.shared.0).enter(subscriber)?;
        if reading.is_none() {
            let sink = Arc::clone(&hub.shared) as Arc<dyn Sink>;
            match hub.source.read(sink) {
                Ok(Some(thread)) => *reading = Some(thread),
                // Nothing will ever be sent: without its sender the stream ends at once.
                Ok(None) => lock(&hub.shared.0).leave(id),
                Err(source) => {
                    lock(&hub.shared.0).leave(id);
                    return Err(EventError::Syscall {
                        call: "reading the ring buffer of events",
                        source,
                    });
                }
            }
        }
        hub.set_budget();
        Ok(EventStream {
            queue,
            lost,
            hub: Arc::clone(hub),
            id,
        })
    }

    pub(super) fn unsubscribe(&self, id: SubscriberId) {
        let mut reading = lock(&self.reading);
        lock(&self.shared.0).leave(id);
        self.set_budget();
        if lock(&self.shared.0).subscribers.is_empty() {
            drop(reading.take());
        }
    }

    /// The caller holds `reading`.
    fn set_budget(&self) {
        let state = lock(&self.shared.0);
        let all = state.subscribers.iter().map(|s| &s.options);
        self.source.set_budget(options::budget(all));
    }
}

/// What the thread that reads sees.
#[derive(Debug, Default)]
struct Shared(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    names: Names,
    subscribers: Vec<Subscriber>,
    subscribed: u64,
    /// What was sent before this moment was left by streams that are gone.
    since: u64,
}

#[derive(Debug)]
struct Subscriber {
    id: SubscriberId,
    options: EventOptions,
    sender: SyncSender<Event>,
    lost: Arc<AtomicU64>,
}

impl State {
    fn enter(
        &mut self,
        subscriber: impl FnOnce(SubscriberId) -> Subscriber,
    ) -> Result<SubscriberId, EventError> {
        if self.subscribers.is_empty() {
            self.since = monotonic_ns().map_err(|source| EventError::Syscall {
                call: "clock_gettime(CLOCK_MONOTONIC)",
                source,
            })?;
        }
        self.subscribed += 1;
        let id = SubscriberId(self.subscribed);
        self.subscribers.push(subscriber(id));
        Ok(id)
    }

    fn leave(&mut self, id: SubscriberId) {
        self.subscribers.retain(|s| s.id != id);
    }
}

impl Sink for Shared {
    fn record(&self, bytes: &[u8]) {
        let state = &mut *lock(&self.0);
        let Ok(record) = bytemuck::try_pod_read_unaligned::<EventRecord>(bytes) else {
            log::error!("an event of {} bytes: please report this", bytes.len());
            return;
        };
        if record.time < state.since {
            return;
        }
        let names = &state.names;
        let rule = names.rule(record.generation, record.rule);
        let interface = names.interfaces.get(&record.ifindex).cloned();
        let event = Clock::now()
            .ok()
            .and_then(|clock| Event::new(&record, &clock, rule, interface));
        let Some(event) = event else {
            log::error!("an event that makes no sense: please report this: {record:?}");
            return;
        };
        for subscriber in &state.subscribers {
            if let Err(TrySendError::Full(_)) = subscriber.sender.try_send(event.clone()) {
                subscriber.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn drained(&self, at: Instant) {
        lock(&self.0).names.forget(at);
    }
}

/// What the numbers in events stand for.
#[derive(Debug, Default)]
struct Names {
    generations: Vec<Announced>,
    interfaces: HashMap<u32, String>,
}

#[derive(Debug)]
struct Announced {
    generation: Generation,
    rules: Arc<[(RuleId, RuleSlot)]>,
    /// Since when it was surely not in force.
    replaced: Option<Instant>,
}

/// No packet stays with a program that was replaced this long ago: programs run to their end within
/// microseconds, and without being preempted by tasks.
const IN_FLIGHT: Duration = Duration::from_secs(1);

impl Names {
    /// The generation before it stays in force until this one is published, or if that fails; the
    /// ones before that are history, which the events on their way may still name.
    fn announce(
        &mut self,
        generation: Generation,
        rules: Arc<[(RuleId, RuleSlot)]>,
        is_read: bool,
    ) {
        let now = Instant::now();
        self.generations.retain(|a| a.generation < generation);
        for old in &mut self.generations {
            if old.generation.get() + 1 < generation.get() {
                old.replaced.get_or_insert(now);
            }
        }
        if !is_read {
            self.forget(now);
        }
        self.generations.push(Announced {
            generation,
            rules,
            replaced: None,
        });
    }

    /// Forgets the generations whose last events were sent before `drained`.
    fn forget(&mut self, drained: Instant) {
        let is_over = |at: &Instant| drained.saturating_duration_since(*at) > IN_FLIGHT;
        self.generations
            .retain(|a| !a.replaced.as_ref().is_some_and(is_over));
    }

    fn rule(&self, generation: u64, number: u32) -> Option<RuleId> {
        let announced = self
            .generations
            .iter()
            .find(|a| a.generation.get() == generation)?;
        Some(announced.rules.get(number as usize)?.0.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(ids: &[&str]) -> Arc<[(RuleId, RuleSlot)]> {
        ids.iter()
            .map(|id| (RuleId::new(id).unwrap(), RuleSlot::default()))
            .collect()
    }

    fn named(names: &Names, generation: u64, number: u32) -> Option<String> {
        Some(names.rule(generation, number)?.as_str().to_owned())
    }

    #[test]
    fn a_rule_is_named_by_the_generation_that_judged() {
        let mut names = Names::default();
        names.announce(Generation(1), rules(&["a", "b"]), true);
        names.announce(Generation(2), rules(&["b", "c"]), true);
        assert_eq!(named(&names, 1, 1).as_deref(), Some("b"));
        assert_eq!(named(&names, 2, 1).as_deref(), Some("c"));
        assert_eq!(named(&names, 2, 2), None);
        assert_eq!(named(&names, 3, 0), None);
    }

    #[test]
    fn a_generation_that_was_not_published_is_announced_anew() {
        let mut names = Names::default();
        names.announce(Generation(1), rules(&["a"]), true);
        names.announce(Generation(2), rules(&["refused"]), true);
        names.announce(Generation(2), rules(&["b"]), true);
        assert_eq!(named(&names, 1, 0).as_deref(), Some("a"), "still in force");
        assert_eq!(named(&names, 2, 0).as_deref(), Some("b"));
    }

    #[test]
    fn history_is_forgotten_once_its_events_were_read() {
        let mut names = Names::default();
        for generation in 1..=4 {
            names.announce(Generation(generation), rules(&["a"]), true);
        }
        let kept = |names: &Names| names.generations.len();
        names.forget(Instant::now());
        assert_eq!(kept(&names), 4, "may be on their way");
        names.forget(Instant::now() + 2 * IN_FLIGHT);
        assert_eq!(kept(&names), 2, "the one in force, and the one before it");
        assert!(named(&names, 2, 0).is_none());
        assert!(named(&names, 3, 0).is_some());
    }
}
