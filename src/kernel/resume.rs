//! Going on where an earlier process ended, by what it saved.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::at_deadline::AtDeadline;
use super::confirm::{RolledBack, Waiting, WaitingChange};
use super::core::Core;
use super::deadline::Now;
use super::enforcement::{self, Enforcement};
use super::error::{LoadError, SavedPolicyError};
use super::firewall::lock;
use super::memory::{Before, Disk};
use super::publish::Generation;
use super::state_dir::{Hash, PENDING, POLICY, PendingChange, Record, SavedFile, StateDir};
use crate::policy::Policy;

/// A state directory, and what it says.
#[derive(Debug)]
pub(super) struct Saved {
    dir: StateDir,
    record: Record,
    is_pass: bool,
    /// What the clocks said: a deadline is past, or not, for the whole start.
    now: Now,
}

impl Saved {
    pub(super) fn open(dir: &Path) -> Result<Self, LoadError> {
        let dir = StateDir::open(dir)?;
        Ok(Self {
            record: dir.record()?,
            is_pass: dir.is_pass(),
            now: Now::read(),
            dir,
        })
    }

    /// The mode to begin with, if one was chosen.
    pub(super) fn enforcement(&self) -> Option<Enforcement> {
        let pending = self.record.pending.as_ref();
        let mode = pending.and_then(|pending| match pending.change {
            PendingChange::Enforcement { before } => {
                Some((before, pending.deadline.left(&self.now)))
            }
            PendingChange::Policy { .. } => None,
        });
        let taken_back = self.record.enforcement_taken_back;
        enforcement::chosen(self.is_pass, self.record.enforcement, taken_back, mode)
    }
}

/// What to put in force first.
enum Start {
    Nothing,
    Lasting,
    /// Until it is confirmed.
    Pending(Arc<Policy>, Waiting),
    /// In place of one that was not confirmed.
    Reverted(Waiting),
}

impl Core {
    /// Puts in force what was saved, and goes on waiting for what was pending. One whose deadline
    /// is past is taken back before anything else. Deadlines are kept from
    /// [`begin_mode`](Self::begin_mode) on.
    pub(super) fn resume(&self, saved: Saved) -> Result<(), LoadError> {
        let Saved {
            dir,
            mut record,
            is_pass,
            now,
        } = saved;
        let failed = |source| LoadError::SavedPolicy {
            path: dir.path(POLICY),
            source,
        };
        self.generations
            .fetch_max(record.generation, Ordering::SeqCst);
        let policy = dir.policy(POLICY).map_err(failed)?;
        let policy = policy.map(|(policy, hash)| (Arc::new(policy), hash));
        let mut before = before(&record);
        let mut taken_back = record.enforcement_taken_back;
        let start = match record.pending.take() {
            Some(pending) => {
                let left = pending.deadline.left(&now);
                let waiting = |change| Waiting {
                    generation: Generation::new(pending.generation),
                    deadline: pending.deadline.clone(),
                    change,
                    refused: None,
                    opened: pending.opened,
                };
                match pending.change {
                    PendingChange::Enforcement { before } => {
                        let waiting = waiting(WaitingChange::Enforcement { before });
                        if !is_pass && !left.is_zero() {
                            lock(&self.memory).pending = Some(waiting);
                        } else if !is_pass {
                            taken_back = true;
                            self.deadlines.tell(AtDeadline::TakenBack {
                                generation: waiting.generation,
                                back: RolledBack::Enforcement(before),
                            });
                        }
                        Start::Lasting
                    }
                    PendingChange::Policy { hash } => {
                        let previous = policy.as_ref().map(|(policy, _)| Arc::clone(policy));
                        let waiting = |policy| {
                            let previous = previous.clone();
                            waiting(WaitingChange::Policy { policy, previous })
                        };
                        match pending_policy(&dir, hash, policy.as_ref()) {
                            PendingPolicy::Confirmed => {
                                before = confirmed_before(&dir, &record);
                                Start::Lasting
                            }
                            PendingPolicy::There(pending) if !left.is_zero() => {
                                Start::Pending(Arc::clone(&pending), waiting(pending))
                            }
                            PendingPolicy::There(pending) => Start::Reverted(waiting(pending)),
                            // What it was is not known, and it does not come back.
                            PendingPolicy::Unusable => {
                                Start::Reverted(waiting(previous.clone().unwrap_or_default()))
                            }
                        }
                    }
                }
            }
            None if policy.is_some() => Start::Lasting,
            None => Start::Nothing,
        };
        {
            let mut memory = lock(&self.memory);
            memory.before = before;
            memory.enforcement = record.enforcement;
            memory.enforcement_taken_back = taken_back;
            memory.keys = record.keys.into();
        }
        let lasting = policy.as_ref().map(|(policy, _)| Arc::clone(policy));
        *lock(&self.disk) = Some(Disk {
            dir: dir.clone(),
            policy,
            pending: None,
        });
        self.begin(start, lasting).map_err(failed)
    }

    /// Switches to the mode that the process begins with, if one was chosen. Only then deadlines are
    /// kept: one that passed during the start takes back a mode that is there.
    pub(super) fn begin_mode(self: &Arc<Self>, mode: Option<Enforcement>) {
        if let Some(mode) = mode {
            self.backend.set_enforcement_unless_pass(mode);
        }
        self.note_pass_mode();
        let is_saved = lock(&self.disk).is_some();
        if is_saved && let Err(error) = self.keeper.start(self) {
            log::error!("no thread to keep deadlines and to save again: {error}");
        }
    }

    fn begin(&self, start: Start, lasting: Option<Arc<Policy>>) -> Result<(), SavedPolicyError> {
        let mut slots = lock(&self.slots);
        let mut start = start;
        if let Start::Pending(policy, waiting) = &start {
            match self.put_in_force(Arc::clone(policy), &mut slots) {
                Ok(_) => lock(&self.memory).pending = Some(waiting.clone()),
                Err(error) => {
                    log::error!("the pending policy, and so it is taken back: {error}");
                    start = Start::Reverted(waiting.clone());
                }
            }
        }
        let policy = match &start {
            // Nor is there anything to save.
            Start::Nothing => return Ok(()),
            Start::Pending(..) => None,
            Start::Lasting => lasting,
            Start::Reverted(_) => Some(lasting.unwrap_or_default()),
        };
        if let Some(policy) = policy {
            match (self.put_in_force(policy, &mut slots), start) {
                (Ok(applied), Start::Reverted(waiting)) => {
                    lock(&self.memory).end_waiting(&waiting);
                    self.deadlines.tell(AtDeadline::TakenBack {
                        generation: waiting.generation,
                        back: RolledBack::Policy(applied.clone()),
                    });
                    log::warn!(
                        "not confirmed: generation {} is taken back, {} is in force",
                        waiting.generation,
                        applied.generation
                    );
                }
                // What the process before left goes on judging, as long as it cannot be taken back: to its
                // deadline, if that is not past, and then the keeper tries.
                (Err(error), Start::Reverted(waiting)) => {
                    self.refuse_to_take_back(waiting, &error);
                }
                (Err(error), _) => return Err(SavedPolicyError::Apply(error)),
                (Ok(_), _) => {}
            }
        }
        self.save_or_note();
        Ok(())
    }

    /// Pass mode may have come from the pins alone.
    fn note_pass_mode(&self) {
        if self.backend.enforcement() == Enforcement::Pass {
            log::warn!("pass mode is on: nothing is dropped until another mode is chosen");
            let marked = self.mark_pass(true);
            if let Err(error) = marked {
                log::error!("pass mode would not outlive a restart of the machine: {error}");
            }
        }
    }
}

fn before(record: &Record) -> Before {
    match record.previous.as_ref().map(|previous| &previous.file) {
        None => Before::Unknown,
        Some(None) => Before::NoPolicy,
        Some(Some(file)) => Before::Saved(file.clone()),
    }
}

enum PendingPolicy {
    There(Arc<Policy>),
    /// The process was killed when that was already done, but not yet written down.
    Confirmed,
    Unusable,
}

fn pending_policy(
    dir: &StateDir,
    expected: Hash,
    lasting: Option<&(Arc<Policy>, Hash)>,
) -> PendingPolicy {
    match dir.policy(PENDING) {
        Ok(Some((policy, hash))) if hash == expected => PendingPolicy::There(Arc::new(policy)),
        Ok(None) if lasting.is_some_and(|(_, hash)| *hash == expected) => PendingPolicy::Confirmed,
        Ok(_) => {
            log::error!("{}: not the pending policy", dir.path(PENDING).display());
            PendingPolicy::Unusable
        }
        Err(error) => {
            log::error!("{}: {error}", dir.path(PENDING).display());
            PendingPolicy::Unusable
        }
    }
}

/// What was before a policy whose confirmation is on disk but for the record.
fn confirmed_before(dir: &StateDir, record: &Record) -> Before {
    let name = StateDir::previous_name(record.generation);
    match dir.policy(&name) {
        Ok(Some((_, hash))) => Before::Saved(SavedFile { name, hash }),
        _ => Before::NoPolicy,
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::{Duration, Instant};

    use tempfile::TempDir;

    use super::*;
    use crate::Firewall;
    use crate::kernel::deadline::Deadline;
    use crate::kernel::state_dir::PendingRecord;

    const WITHIN: Duration = Duration::from_millis(100);

    /// What a process left that was killed while enforcement waited.
    fn left_behind(dir: &Path) -> Saved {
        let mut saved = Saved::open(dir).unwrap();
        saved.now = Now::read();
        saved.record.pending = Some(PendingRecord {
            generation: 6,
            deadline: Deadline::new(&saved.now, WITHIN).unwrap(),
            change: PendingChange::Enforcement {
                before: Enforcement::DryRun,
            },
            opened: false,
        });
        saved
    }

    #[test]
    fn r72_r110_enforcement_whose_deadline_passes_during_the_start_is_taken_back() {
        for passes_before_resume in [true, false] {
            let dir = TempDir::new().unwrap();
            let saved = left_behind(dir.path());
            let (firewall, _) = Firewall::loader().rehearse();
            let mode = saved.enforcement();
            assert_eq!(mode, Some(Enforcement::Enforce));
            // As the maps are, or begin.
            firewall.backend.set_enforcement(Enforcement::Enforce);
            let wait = |is_now| {
                if is_now {
                    thread::sleep(WITHIN * 2);
                }
            };
            wait(passes_before_resume);
            firewall.core.resume(saved).unwrap();
            wait(!passes_before_resume);
            firewall.core.begin_mode(mode);
            let started = Instant::now();
            while firewall.enforcement() == Enforcement::Enforce {
                let case = format!("passes before: {passes_before_resume}");
                assert!(started.elapsed() < Duration::from_secs(20), "{case}");
                thread::sleep(Duration::from_millis(2));
            }
            assert_eq!(firewall.enforcement(), Enforcement::DryRun);
        }
    }
}
