//! The thread that keeps deadlines, and saves again what could not be saved.

use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::core::Core;
use super::firewall::lock;

/// Starts with the first change that needs it. It holds the [`Core`], and so must be ended by whoever
/// holds that, too.
#[derive(Debug, Default)]
pub(super) struct Keeper {
    thread: Mutex<Option<JoinHandle<()>>>,
    signal: Arc<Signal>,
}

#[derive(Debug, Default)]
struct Signal {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    woken: bool,
    ended: bool,
}

/// A clock that does not stand still while the machine sleeps is looked at so often.
pub(super) const LOOK: Duration = Duration::from_secs(1);
/// How often saving is tried again.
const SAVE_AGAIN: Duration = Duration::from_secs(30);

impl Keeper {
    pub(super) fn start(&self, core: &Arc<Core>) -> io::Result<()> {
        let mut thread = lock(&self.thread);
        // One that panicked is replaced.
        if thread.as_ref().is_none_or(JoinHandle::is_finished) {
            let (core, signal) = (Arc::clone(core), Arc::clone(&self.signal));
            let started = thread::Builder::new()
                .name("xdpgate-keeper".into())
                .spawn(move || keep(&core, &signal))?;
            *thread = Some(started);
        }
        Ok(())
    }

    /// To be called when there is a deadline, or something that is not saved.
    pub(super) fn wake(&self) {
        lock(&self.signal.state).woken = true;
        self.signal.changed.notify_all();
    }

    /// Waits for the thread, so that nothing of the firewall is held when this returns.
    pub(super) fn end(&self) {
        lock(&self.signal.state).ended = true;
        self.signal.changed.notify_all();
        if let Some(thread) = lock(&self.thread).take() {
            let _ = thread.join();
        }
    }
}

fn keep(core: &Core, signal: &Signal) {
    loop {
        let wait = core.tend();
        let mut state = lock(&signal.state);
        let idle = |state: &mut State| !state.woken && !state.ended;
        state = match wait {
            Some(wait) => {
                let waited = signal.changed.wait_timeout_while(state, wait, idle);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
            None => {
                let waited = signal.changed.wait_while(state, idle);
                waited.unwrap_or_else(PoisonError::into_inner)
            }
        };
        if state.ended {
            return;
        }
        state.woken = false;
    }
}

impl Core {
    /// Does what is due, and says when to look again; `None` if nothing is to be kept.
    fn tend(&self) -> Option<Duration> {
        let waiting = lock(&self.memory).pending.clone();
        let mut next = None;
        if let Some(waiting) = waiting {
            match waiting.due() {
                Duration::ZERO => next = self.expire(),
                due => next = Some(due),
            }
        }
        let tried = lock(&self.memory).unsaved.as_ref().map(|u| u.tried);
        if let Some(tried) = tried {
            let mut due = (tried + SAVE_AGAIN).saturating_duration_since(Instant::now());
            if due.is_zero() {
                let _turn = lock(&self.slots);
                self.save_or_note();
                due = SAVE_AGAIN;
            }
            next = Some(next.map_or(due, |next| next.min(due)));
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Enforcement, Firewall};

    #[test]
    fn r110_a_thread_that_panicked_is_replaced() {
        let (firewall, _) = Firewall::loader().rehearse();
        let gone = thread::spawn(|| panic!("wanted by the test"));
        while !gone.is_finished() {
            thread::yield_now();
        }
        *lock(&firewall.core.keeper.thread) = Some(gone);
        firewall
            .set_enforcement(Enforcement::Enforce, Some(Duration::from_millis(50)))
            .unwrap();
        let started = Instant::now();
        while firewall.pending().is_some() {
            assert!(started.elapsed() < Duration::from_secs(20));
            thread::sleep(Duration::from_millis(2));
        }
        assert_eq!(firewall.enforcement(), Enforcement::DryRun);
    }
}
