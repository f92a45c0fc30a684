//! Who is told of what happens at a deadline, without anybody asking for it.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use super::confirm::RolledBack;
use super::firewall::{Firewall, lock};
use super::publish::Generation;

/// What was done because nobody confirmed a change in time.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum AtDeadline {
    /// It was taken back.
    TakenBack {
        /// The generation that waited. For a change of the mode it is that of the policy in force.
        generation: Generation,
        /// What is back.
        back: RolledBack,
    },
    /// [Pass mode](crate::Enforcement::Pass) was switched on, because it cannot be taken back: see
    /// [`TakeBackRefused`](crate::TakeBackRefused).
    Opened {
        /// The generation that waited.
        generation: Generation,
        /// Why it cannot be taken back.
        reason: String,
    },
}

type Tell = Arc<dyn Fn(&AtDeadline) + Send + Sync>;

/// Who is told, and what nobody was told yet.
#[derive(Default)]
pub(super) struct Deadlines(Mutex<Listener>);

#[derive(Default)]
struct Listener {
    tell: Option<Tell>,
    untold: VecDeque<AtDeadline>,
}

/// How much is kept for who is to be told later.
const UNTOLD: usize = 16;

impl Deadlines {
    /// To be called without the turn on transactions: who is told may change something.
    pub(super) fn tell(&self, done: AtDeadline) {
        let mut listener = lock(&self.0);
        let Some(tell) = listener.tell.clone() else {
            listener.untold.push_back(done);
            if listener.untold.len() > UNTOLD {
                listener.untold.pop_front();
            }
            return;
        };
        drop(listener);
        // The thread has other deadlines to keep.
        if catch_unwind(AssertUnwindSafe(|| tell(&done))).is_err() {
            let generation = match &done {
                AtDeadline::TakenBack { generation, .. }
                | AtDeadline::Opened { generation, .. } => generation.get(),
            };
            log::error!(generation; "the function that is told what is done at deadlines panicked");
        }
    }
}

impl fmt::Debug for Deadlines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deadlines").finish_non_exhaustive()
    }
}

impl Firewall {
    /// Calls `tell` for all that is done from now on because nobody confirmed a change in time, such as
    /// for an audit log; and at once for what was done before, also while the firewall was loaded. There
    /// is one such function: another call replaces it. It is called on the thread that keeps
    /// deadlines, so let it be quick. A panic of it there is logged, and deadlines are kept on.
    ///
    /// ```
    /// use xdpgate::{AtDeadline, Firewall};
    ///
    /// # let (firewall, _) = Firewall::loader().rehearse();
    /// firewall.on_deadline(|done| match done {
    ///     AtDeadline::TakenBack { generation, .. } => eprintln!("{generation} is taken back"),
    ///     other => eprintln!("{other:?}"),
    /// });
    /// ```
    pub fn on_deadline(&self, tell: impl Fn(&AtDeadline) + Send + Sync + 'static) {
        let tell: Tell = Arc::new(tell);
        let mut listener = lock(&self.core.deadlines.0);
        listener.tell = Some(Arc::clone(&tell));
        let untold = std::mem::take(&mut listener.untold);
        drop(listener);
        untold.iter().for_each(|done| tell(done));
    }
}
