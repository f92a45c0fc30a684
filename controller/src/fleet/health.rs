//! Whether a node is there, by its heartbeats.
//!
//! A node that has missed some heartbeats is offline, one heartbeat brings it back. One that goes and
//! comes again and again is damped: once it is offline it stays so until its heartbeats have come for
//! a while without a gap. Time is a parameter, and nothing here waits.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// What is demanded of heartbeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demands {
    /// How often a heartbeat is due.
    pub every: Duration,
    /// After how many that did not come a node is offline.
    pub missed: u32,
    /// How many changes within `window` make a node a flapping one.
    pub flaps: usize,
    /// See `flaps`.
    pub window: Duration,
    /// For how long the heartbeats of a flapping node must come before it is online again.
    pub hold: Duration,
}

/// How a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Seen {
    /// No heartbeat has ever come.
    #[default]
    Never,
    /// It is there.
    Online,
    /// Too many heartbeats did not come, or it is damped.
    Offline,
}

/// The heartbeats of one node.
#[derive(Debug, Clone, Default)]
pub(super) struct Health {
    seen: Seen,
    last: Option<Instant>,
    /// Since when heartbeats have come without a gap.
    run: Option<Instant>,
    /// When it changed, within the window.
    changes: VecDeque<Instant>,
}

impl Default for Demands {
    fn default() -> Self {
        Self {
            every: Duration::from_secs(10),
            missed: 3,
            flaps: 6,
            window: Duration::from_secs(600),
            hold: Duration::from_secs(60),
        }
    }
}

impl Demands {
    /// How long a node may be silent.
    pub fn patience(&self) -> Duration {
        self.every * self.missed
    }
}

impl Health {
    /// A heartbeat has come. `Some` if that has changed how the node is.
    pub(super) fn beat(&mut self, now: Instant, demands: &Demands) -> Option<Seen> {
        // What a late tick would have found.
        let turned = self.tick(now, demands);
        let run = *self.run.get_or_insert(now);
        self.last = Some(now);
        if self.seen == Seen::Online {
            return None;
        }
        if self.is_damped(now, demands) && now.duration_since(run) < demands.hold {
            return turned;
        }
        self.turn(Seen::Online, now, demands);
        // Off and on again at one moment is no news.
        turned.is_none().then_some(Seen::Online)
    }

    /// Time has passed. `Some` if that has changed how the node is.
    pub(super) fn tick(&mut self, now: Instant, demands: &Demands) -> Option<Seen> {
        let silent = now.duration_since(self.last?);
        if silent < demands.patience() {
            return None;
        }
        self.run = None;
        (self.seen == Seen::Online).then(|| {
            self.turn(Seen::Offline, now, demands);
            Seen::Offline
        })
    }

    fn turn(&mut self, seen: Seen, now: Instant, demands: &Demands) {
        // The first heartbeat of all is no flap.
        if self.seen != Seen::Never {
            self.changes.push_back(now);
            if self.changes.len() > demands.flaps {
                self.changes.pop_front();
            }
        }
        self.seen = seen;
    }

    /// How the node is.
    pub(super) fn seen(&self) -> Seen {
        self.seen
    }

    /// When [`Health::tick`] may find something; `None` if nothing is awaited.
    pub(super) fn due(&self, demands: &Demands) -> Option<Instant> {
        (self.seen == Seen::Online).then_some(self.last? + demands.patience())
    }

    /// When the last heartbeat came.
    pub(super) fn last(&self) -> Option<Instant> {
        self.last
    }

    /// How many heartbeats are due since the last one and did not come.
    pub(super) fn missed(&self, now: Instant, demands: &Demands) -> u32 {
        let Some(last) = self.last else { return 0 };
        let every = demands.every.as_nanos().max(1);
        // Half an interval of grace: a heartbeat that is a little late is not missed.
        let late = now.duration_since(last) + demands.every / 2;
        u32::try_from((late.as_nanos() / every).saturating_sub(1)).unwrap_or(u32::MAX)
    }

    /// Whether it changes so often that it must hold for longer.
    pub(super) fn is_damped(&self, now: Instant, demands: &Demands) -> bool {
        let recent = |at: &&Instant| now.duration_since(**at) < demands.window;
        demands.flaps > 0 && self.changes.iter().filter(recent).count() >= demands.flaps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEMANDS: Demands = Demands {
        every: Duration::from_secs(10),
        missed: 3,
        flaps: 4,
        window: Duration::from_secs(600),
        hold: Duration::from_secs(60),
    };

    fn seconds(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    #[test]
    fn r85_three_missed_heartbeats_are_offline_and_one_is_online() {
        let start = Instant::now();
        let mut health = Health::default();
        assert_eq!(health.tick(start, &DEMANDS), None);
        assert_eq!(health.seen(), Seen::Never);
        assert_eq!(health.beat(start, &DEMANDS), Some(Seen::Online));
        assert_eq!(health.beat(start + seconds(10), &DEMANDS), None);
        assert_eq!(
            health.tick(start + seconds(39), &DEMANDS),
            None,
            "two are missed"
        );
        assert_eq!(health.missed(start + seconds(39), &DEMANDS), 2);
        assert_eq!(health.due(&DEMANDS), Some(start + seconds(40)));
        assert_eq!(
            health.tick(start + seconds(40), &DEMANDS),
            Some(Seen::Offline)
        );
        assert_eq!(
            health.tick(start + seconds(50), &DEMANDS),
            None,
            "said once"
        );
        assert_eq!(health.due(&DEMANDS), None);
        assert_eq!(
            health.beat(start + seconds(99), &DEMANDS),
            Some(Seen::Online)
        );
    }

    #[test]
    fn a_heartbeat_that_is_a_little_late_is_not_missed() {
        let start = Instant::now();
        let mut health = Health::default();
        health.beat(start, &DEMANDS);
        assert_eq!(health.missed(start + seconds(14), &DEMANDS), 0);
        assert_eq!(health.missed(start + seconds(15), &DEMANDS), 1);
    }

    #[test]
    fn r85_who_flaps_must_hold_for_longer() {
        let start = Instant::now();
        let mut health = Health::default();
        let mut now = start;
        health.beat(now, &DEMANDS);
        for _ in 0..2 {
            now += seconds(30);
            assert_eq!(health.tick(now, &DEMANDS), Some(Seen::Offline));
            assert_eq!(health.beat(now, &DEMANDS), Some(Seen::Online));
        }
        assert!(health.is_damped(now, &DEMANDS));
        now += seconds(30);
        assert_eq!(health.tick(now, &DEMANDS), Some(Seen::Offline));
        // One heartbeat is not enough now, nor is a run with a gap.
        for _ in 0..5 {
            assert_eq!(health.beat(now, &DEMANDS), None);
            now += seconds(10);
        }
        now += seconds(30);
        assert_eq!(health.tick(now, &DEMANDS), None);
        for _ in 0..6 {
            assert_eq!(health.beat(now, &DEMANDS), None);
            now += seconds(10);
        }
        assert_eq!(
            health.beat(now, &DEMANDS),
            Some(Seen::Online),
            "60 s without a gap"
        );
        // Long after, it is a node like any other.
        now += seconds(700);
        assert_eq!(health.tick(now, &DEMANDS), Some(Seen::Offline));
        assert_eq!(health.beat(now, &DEMANDS), Some(Seen::Online));
    }
}
