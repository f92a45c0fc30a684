//! What is done from time to time: one task for all nodes.

use std::cmp::Reverse;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::history::{Sample, Steps};
use super::{Inner, Overview, Part, Scope, lock};

/// Looks after heartbeats, history and progress until the fleet is gone.
pub(super) async fn run(fleet: Weak<Inner>) {
    let mut sample = Instant::now();
    let mut progress = (0, 0);
    loop {
        let Some(inner) = fleet.upgrade() else { return };
        let now = Instant::now();
        inner.look(now);
        *lock(&inner.looked) = now;
        if now >= sample {
            sample = (sample + Steps::Fine.length()).max(now);
            if !inner.is_sampled.load(Ordering::Relaxed) {
                inner.sample(&inner.overview(&Part::default()));
            }
            inner.forget();
        }
        let answers = (*inner.answers.borrow(), inner.targets.borrow().revision);
        if answers != progress {
            progress = answers;
            inner.tell_progress();
        }
        // No heartbeat is awaited for less than this.
        let often = (inner.config.health.patience() / 4).min(Duration::from_secs(1));
        drop(inner);
        sleep_until(now + often.max(Duration::from_millis(5))).await;
    }
}

impl Inner {
    /// Looks at those nodes whose heartbeats may have not come.
    fn look(&self, now: Instant) {
        let demands = &self.config.health;
        loop {
            let id = {
                let mut awaited = lock(&self.awaited);
                match awaited.peek() {
                    Some(Reverse((at, _))) if *at <= now => awaited.pop().map(|first| first.0.1),
                    _ => None,
                }
            };
            let Some(id) = id else { return };
            let Some(node) = self.known(&id) else {
                continue;
            };
            let turned = {
                let mut node = node.lock();
                let turned = node.health.tick(now, demands);
                let due = node.health.due(demands);
                node.is_awaited = due.is_some();
                if let Some(at) = due {
                    lock(&self.awaited).push(Reverse((at, id.clone())));
                }
                turned
            };
            if let Some(seen) = turned {
                self.turned(&id, seen);
            }
        }
    }

    pub(super) fn sample(&self, overview: &Overview) {
        lock(&self.history).push(Sample {
            at: jiff::Timestamp::now(),
            rates: overview.rates,
            of: overview.fresh,
            nodes: overview.nodes,
            online: overview.online,
        });
    }

    /// Forgets nodes that are registered no more.
    fn forget(&self) {
        let targets = self.targets();
        self.elsewhere.forget(&targets);
        let mut nodes = self.nodes.write().unwrap_or_else(PoisonError::into_inner);
        nodes.retain(|id, node| targets.nodes.contains_key(id) || node.lock().link.is_some());
    }

    fn tell_progress(&self) {
        let revision = self.targets.borrow().revision;
        let progress = self.progress(&Scope::Revision(revision), &Part::default());
        self.tell(progress.event(revision));
    }

    /// An overview of now, or of up to a second ago.
    pub(super) fn recent(&self) -> Arc<Overview> {
        let now = Instant::now();
        let mut seen = lock(&self.seen);
        if let Some((at, overview)) = &*seen
            && now.duration_since(*at) < Duration::from_secs(1)
        {
            return overview.clone();
        }
        let overview = Arc::new(self.overview(&Part::default()));
        *seen = Some((now, overview.clone()));
        overview
    }
}
