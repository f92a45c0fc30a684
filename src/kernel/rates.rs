//! Rates from one sampler, so that all who ask see the same ones.
//!
//! A thread takes a snapshot of the counters at each interval, and the rates are those between its
//! last two. Who asks for them only reads: how often and when makes no difference to anybody.

use std::collections::HashMap;
use std::io;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::firewall::lock;
use super::ifindex::IfIndex;
use super::publish::Generation;
use super::snapshot::{Snapshot, Snapshots};
use super::stats::{Count, InterfaceStats, RuleStats, VerdictCounts};
use crate::policy::RuleId;

/// How fast something goes.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Rate {
    /// Packets per second.
    pub packets: f64,
    /// Bits per second, from the first byte of the Ethernet header on.
    pub bits: f64,
}

/// What becomes of frames, per second.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub struct VerdictRates {
    /// Frames that go on to the network stack and are meant to.
    pub passed: Rate,
    /// Frames that are discarded.
    pub dropped: Rate,
    /// Frames that pass only because of dry run.
    pub would_drop: Rate,
}

/// The rates of one interface.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct InterfaceRates {
    /// The interface.
    pub ifindex: IfIndex,
    /// Its name when it was attached.
    pub name: String,
    /// Its frames.
    pub rates: VerdictRates,
}

/// The rates of one rule.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RuleRates {
    /// The rule.
    pub id: RuleId,
    /// The packets that it decides, or that match it if it only counts or is in monitor mode.
    pub matched: Rate,
    /// Packets per second of these that are really dropped.
    pub dropped: f64,
    /// Packets per second of these that are judged as drop and pass.
    pub would_drop: f64,
}

/// Rates between two samples of the counters.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Rates {
    /// The number of the later sample: equal for all who read the same one, one more for the next.
    pub sample: u64,
    /// When the later sample was taken.
    pub at: Instant,
    /// The time between the samples.
    pub interval: Duration,
    /// The generation of the policy in force at the later sample.
    pub generation: Option<Generation>,
    /// Per interface, by index.
    pub interfaces: Vec<InterfaceRates>,
    /// Frames of interfaces that this firewall did not attach.
    pub other: VerdictRates,
    /// Per rule of the policy in force, in evaluation order.
    pub rules: Vec<RuleRates>,
}

/// The thread that samples. It ends with this.
#[derive(Debug)]
pub(super) struct Sampler {
    latest: Arc<Mutex<Option<Rates>>>,
    /// Nothing is ever sent: the thread sees that it is gone.
    alive: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Sampler {
    pub(super) fn start(snapshots: Arc<Snapshots>, every: Duration) -> io::Result<Self> {
        let latest = Arc::new(Mutex::new(None));
        let (alive, ended) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("xdpgate-sampler".into())
            .spawn({
                let latest = Arc::clone(&latest);
                move || sample(&snapshots, every, &ended, &latest)
            })?;
        Ok(Self {
            latest,
            alive: Some(alive),
            thread: Some(thread),
        })
    }

    pub(super) fn latest(&self) -> Option<Rates> {
        lock(&self.latest).clone()
    }
}

impl Drop for Sampler {
    /// Waits for the thread, so that nothing of the firewall is held when this returns.
    fn drop(&mut self) {
        drop(self.alive.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn sample(
    snapshots: &Snapshots,
    every: Duration,
    ended: &mpsc::Receiver<()>,
    latest: &Mutex<Option<Rates>>,
) {
    let mut before = snapshots.take();
    let mut due = before.at;
    for number in 1.. {
        // By the clock and not from the last one, so that delays do not add up; but what was
        // missed is not made up for.
        let Some(next) = due.checked_add(every) else {
            // Never: an interval longer than any clock tells.
            let _ = ended.recv();
            return;
        };
        due = next.max(Instant::now());
        let wait = due.saturating_duration_since(Instant::now());
        if ended.recv_timeout(wait) != Err(RecvTimeoutError::Timeout) {
            return;
        }
        let after = snapshots.take();
        *lock(latest) = Some(between(number, &before, &after));
        before = after;
    }
}

fn between(sample: u64, before: &Snapshot, after: &Snapshot) -> Rates {
    let interval = after.at.duration_since(before.at);
    let over = Over(interval.as_secs_f64());
    let (old, new) = (&before.stats, &after.stats);
    let old_rules: HashMap<&RuleId, &RuleStats> = old.rules.iter().map(|r| (&r.id, r)).collect();
    let rule = |rule: &RuleStats| {
        let was = old_rules.get(&rule.id);
        RuleRates {
            id: rule.id.clone(),
            matched: over.rate(was.map(|r| r.matched), rule.matched),
            dropped: over.packets(was.map(|r| r.dropped), rule.dropped),
            would_drop: over.packets(was.map(|r| r.would_drop), rule.would_drop),
        }
    };
    let interface = |interface: &InterfaceStats| {
        let is_same =
            |i: &&InterfaceStats| (i.ifindex, &i.name) == (interface.ifindex, &interface.name);
        let was = old.interfaces.iter().find(is_same);
        InterfaceRates {
            ifindex: interface.ifindex,
            name: interface.name.clone(),
            rates: over.verdicts(was.map(|i| &i.counts), &interface.counts),
        }
    };
    Rates {
        sample,
        at: after.at,
        interval,
        generation: new.generation,
        interfaces: new.interfaces.iter().map(interface).collect(),
        other: over.verdicts(Some(&old.other), &new.other),
        rules: new.rules.iter().map(rule).collect(),
    }
}

/// Seconds.
#[derive(Clone, Copy)]
struct Over(f64);

impl Over {
    fn verdicts(self, was: Option<&VerdictCounts>, now: &VerdictCounts) -> VerdictRates {
        let rate = |count: fn(&VerdictCounts) -> Count| self.rate(was.map(count), count(now));
        VerdictRates {
            passed: rate(VerdictCounts::passed),
            dropped: rate(VerdictCounts::dropped),
            would_drop: rate(VerdictCounts::would_drop),
        }
    }

    fn rate(self, was: Option<Count>, now: Count) -> Rate {
        // What began to count since begins at zero; so does what was taken out and came back.
        let was = was
            .filter(|was| was.packets <= now.packets)
            .unwrap_or_default();
        Rate {
            packets: self.per_second(now.packets - was.packets),
            bits: self.per_second(now.bytes.saturating_sub(was.bytes)) * 8.0,
        }
    }

    fn packets(self, was: Option<u64>, now: u64) -> f64 {
        let was = was.filter(|was| *was <= now).unwrap_or(0);
        self.per_second(now - was)
    }

    fn per_second(self, amount: u64) -> f64 {
        match self.0 > 0.0 {
            true => amount as f64 / self.0,
            false => 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::stats::Stats;

    fn rule(id: &str, packets: u64, bytes: u64, dropped: u64) -> RuleStats {
        RuleStats {
            id: RuleId::new(id).unwrap(),
            matched: Count { packets, bytes },
            dropped,
            would_drop: 0,
            rate_overflow: 0,
        }
    }

    fn snapshot(at: Instant, rules: Vec<RuleStats>) -> Snapshot {
        let stats = Stats {
            generation: None,
            interfaces: Vec::new(),
            other: VerdictCounts::default(),
            rules,
        };
        Snapshot { at, stats }
    }

    #[test]
    fn a_rate_is_the_difference_over_the_time_between() {
        let at = Instant::now();
        let before = vec![
            rule("stays", 100, 6400, 100),
            rule("goes", 5, 5, 0),
            rule("back", 90, 900, 0),
        ];
        let after = vec![
            rule("stays", 600, 56_400, 400),
            rule("new", 50, 500, 0),
            // Taken out and put in again in between: its counters began at zero.
            rule("back", 10, 100, 0),
        ];
        let rates = between(
            7,
            &snapshot(at, before),
            &snapshot(at + Duration::from_millis(500), after),
        );
        assert_eq!((rates.sample, rates.interval.as_millis()), (7, 500));
        let got: Vec<_> = rates
            .rules
            .iter()
            .map(|r| (r.id.as_str(), r.matched.packets, r.matched.bits, r.dropped))
            .collect();
        assert_eq!(
            got,
            [
                ("stays", 1000.0, 800_000.0, 600.0),
                ("new", 100.0, 8000.0, 0.0),
                ("back", 20.0, 1600.0, 0.0),
            ]
        );
    }

    #[test]
    fn no_time_between_is_no_rate() {
        let at = Instant::now();
        let after = vec![rule("a", 5, 500, 5)];
        let rates = between(1, &snapshot(at, Vec::new()), &snapshot(at, after));
        assert_eq!(rates.rules[0].matched, Rate::default());
        assert_eq!(rates.rules[0].dropped, 0.0);
    }
}
