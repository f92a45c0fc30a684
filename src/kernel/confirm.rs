//! Changes that are taken back by themselves unless they are confirmed, and taking back by hand.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::core::Core;
use super::deadline::{Deadline, Now};
use super::enforcement::Enforcement;
use super::error::{ApplyError, SavedPolicyError};
use super::firewall::{Firewall, lock};
use super::memory::Before;
use super::overdue::TakeBackRefused;
use super::publish::{Applied, Generation};
use super::slots::RuleSlots;
use crate::policy::Policy;

/// A change that waits for [`Firewall::confirm`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pending {
    /// What [`Firewall::confirm`] wants to hear: the generation that the change was answered with.
    pub generation: Generation,
    /// When it is taken back, by the clock of the wall. Within a boot the time runs by
    /// CLOCK_BOOTTIME, so that setting the clock changes nothing; then this is off by as much.
    pub deadline: Timestamp,
    /// How much time is left.
    pub left: Duration,
    /// What comes back.
    pub previous: Previous,
    /// The deadline is past, and it cannot be taken back; `None` as long as all goes as it should.
    pub refused: Option<TakeBackRefused>,
}

/// What was in force before a pending change.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Previous {
    /// This policy.
    Policy(Arc<Policy>),
    /// No policy. What comes back is the empty one, in which everything passes.
    NoPolicy,
    /// The same policy in another mode.
    Enforcement(Enforcement),
}

/// What [`Firewall::rollback`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RolledBack {
    /// The previous policy is in force.
    Policy(Applied),
    /// The mode before a pending change is back.
    Enforcement(Enforcement),
}

/// A change waits for its confirmation, and until then there can be no other one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[error("{}", match .refused {
    None => format!(
        "the change of generation {generation} waits for its confirmation until {deadline}: confirm it \
         or roll it back first"
    ),
    Some(reason) => format!(
        "the change of generation {generation} was not confirmed until {deadline}, and the policy before \
         cannot be put in force: {reason}; apply a whole policy, which replaces it"
    ),
})]
pub struct PendingError {
    /// The generation to be confirmed.
    pub generation: Generation,
    /// When the change is taken back.
    pub deadline: Timestamp,
    /// Why it cannot be taken back, though its deadline is past; see [`TakeBackRefused`].
    pub refused: Option<String>,
}

/// Why nothing was confirmed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfirmError {
    /// Nothing waits, or it was taken back already.
    #[error("no change waits for a confirmation: it was confirmed, or taken back at its deadline")]
    NothingPending,
    /// Another change waits.
    #[error(
        "generation {expected} waits for a confirmation, not {generation}: look at the policy again"
    )]
    Generation {
        /// The generation that was to be confirmed.
        generation: Generation,
        /// The one that waits.
        expected: Generation,
    },
    /// The deadline is past, and the change is in force only because it cannot be taken back.
    #[error(
        "generation {generation} was not confirmed in time, and the policy before cannot be put in force: \
         {reason}; apply the policy that is wanted"
    )]
    Overdue {
        /// The generation that is to be taken back.
        generation: Generation,
        /// Why it is not.
        reason: String,
    },
    /// This process could put neither the change nor the policy before in force when it started: what
    /// judges is what the process before left, and that cannot be made to last.
    #[error(
        "generation {generation} cannot be confirmed, because this process could not put it in force, nor \
         the policy before: {reason}; apply the policy that is wanted"
    )]
    NotInForce {
        /// The generation that waits.
        generation: Generation,
        /// Why the policy before cannot be put in force.
        reason: String,
    },
    /// The confirmation cannot be saved, so that a crash would undo it.
    #[error(
        "not confirmed, because it cannot be saved: {source}; make room or mend the directory, and try again"
    )]
    NotSaved {
        /// The error.
        source: io::Error,
    },
}

/// Why nothing was rolled back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RollbackError {
    /// Another generation is in force than [`Firewall::rollback_from`] expected.
    #[error(
        "generation {expected} was expected to be in force, but {} is: look at the policy again",
        .actual.map_or_else(|| "none".to_owned(), |g| g.to_string())
    )]
    Generation {
        /// The one that was expected.
        expected: Generation,
        /// The one in force; `None` before the first.
        actual: Option<Generation>,
    },
    /// There was no other policy before, or it is not known any more.
    #[error("there is nothing to roll back to: no policy before the present one is kept")]
    NothingToRollBack,
    /// The policy before cannot be read from the state directory.
    #[error("the previous policy: {0}")]
    Read(SavedPolicyError),
    /// It cannot be put in force.
    #[error(transparent)]
    Apply(#[from] ApplyError),
}

/// [`Pending`], as it is kept.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    pub generation: Generation,
    pub deadline: Deadline,
    pub change: WaitingChange,
    /// When the deadline is past, or when a start could put neither this nor what was before in force.
    pub refused: Option<TakeBackRefused>,
    /// Pass mode came because it could not be taken back, in this process or in an earlier one.
    pub opened: bool,
}

#[derive(Debug, Clone)]
pub(super) enum WaitingChange {
    Policy {
        policy: Arc<Policy>,
        previous: Option<Arc<Policy>>,
    },
    Enforcement {
        before: Enforcement,
    },
}

impl Waiting {
    pub(super) fn left(&self) -> Duration {
        self.deadline.left(&Now::read())
    }

    pub(super) fn is_of_mode(&self) -> bool {
        matches!(self.change, WaitingChange::Enforcement { .. })
    }

    pub(super) fn refusal(&self) -> PendingError {
        PendingError {
            generation: self.generation,
            deadline: self.deadline.wall,
            refused: self.refused.as_ref().map(|refused| refused.reason.clone()),
        }
    }
}

impl Firewall {
    /// The change that waits for a confirmation, if there is one: of the policy
    /// ([`ApplyOptions::confirm_within`](crate::ApplyOptions::confirm_within)) or of the mode
    /// ([`Firewall::set_enforcement`]).
    pub fn pending(&self) -> Option<Pending> {
        let waiting = lock(&self.core.memory).pending.clone()?;
        Some(Pending {
            generation: waiting.generation,
            deadline: waiting.deadline.wall,
            left: waiting.left(),
            previous: match waiting.change {
                WaitingChange::Policy { previous, .. } => {
                    previous.map_or(Previous::NoPolicy, Previous::Policy)
                }
                WaitingChange::Enforcement { before } => Previous::Enforcement(before),
            },
            refused: waiting.refused,
        })
    }

    /// Lets the pending change last. Its generation is the one that it was answered with, or the
    /// one in force, which differ after a restart. To confirm a change once more is no error.
    ///
    /// # Errors
    /// Nothing is pending, or another generation; or it cannot be saved: then the deadline still
    /// stands.
    pub fn confirm(&self, generation: Generation) -> Result<(), ConfirmError> {
        self.core.confirm(generation)
    }

    /// Puts the previous policy in force again, at once, as a new generation: the one before the
    /// pending change, or else the one before the present one, which is kept on disk, too. So a
    /// second rollback undoes the first. If there was no policy before, it is the empty one, in
    /// which everything passes. A pending change of the mode is taken back alone.
    ///
    /// # Errors
    /// No other policy is known, or it cannot be put in force. Then nothing changed.
    pub fn rollback(&self) -> Result<RolledBack, RollbackError> {
        self.core.rollback(None)
    }

    /// [`Firewall::rollback`], unless another generation is in force than the caller saw: a pending
    /// policy may be taken back at its deadline meanwhile, and then a rollback would go one further. A
    /// mode has no generation of its own: that it was taken back is not seen.
    ///
    /// # Errors
    /// Another generation is in force, or what [`Firewall::rollback`] gives. Then nothing changed.
    pub fn rollback_from(&self, expected: Generation) -> Result<RolledBack, RollbackError> {
        self.core.rollback(Some(expected))
    }
}

impl Core {
    fn confirm(&self, generation: Generation) -> Result<(), ConfirmError> {
        let _turn = lock(&self.slots);
        let mut memory = lock(&self.memory);
        let Some(waiting) = memory.pending.clone() else {
            return match memory.confirmed {
                Some(confirmed) if confirmed == generation => Ok(()),
                _ => Err(ConfirmError::NothingPending),
            };
        };
        if generation != waiting.generation && Some(generation) != self.generation() {
            return Err(ConfirmError::Generation {
                generation,
                expected: waiting.generation,
            });
        }
        let is_over = waiting.left().is_zero();
        if is_over || waiting.refused.is_some() {
            return Err(match waiting.refused {
                None => ConfirmError::NothingPending,
                Some(refused) if !is_over => ConfirmError::NotInForce {
                    generation: waiting.generation,
                    reason: refused.reason,
                },
                Some(refused) => ConfirmError::Overdue {
                    generation: waiting.generation,
                    reason: refused.reason,
                },
            });
        }
        let (enforcement, before) = (memory.enforcement, memory.before.clone());
        let taken_back = memory.enforcement_taken_back;
        memory.pending = None;
        let mut ends_pass = false;
        match &waiting.change {
            WaitingChange::Policy { previous, .. } => {
                memory.before = match previous {
                    Some(policy) => Before::Kept(Arc::clone(policy)),
                    None => Before::NoPolicy,
                };
            }
            WaitingChange::Enforcement { .. } => {
                // Not if pass mode came meanwhile.
                ends_pass = self.backend.enforcement() == Enforcement::Enforce;
                memory.enforcement = Some(Enforcement::Enforce);
                memory.enforcement_taken_back = false;
            }
        }
        drop(memory);
        // What comes after pass mode is on disk before its mark is gone: in between a restart begins in
        // pass mode.
        let saved = self.save().and_then(|()| match ends_pass {
            true => self.mark_pass(false),
            false => Ok(()),
        });
        let mut memory = lock(&self.memory);
        if let Err(source) = saved {
            (memory.enforcement, memory.before) = (enforcement, before);
            memory.enforcement_taken_back = taken_back;
            memory.pending = Some(waiting);
            drop(memory);
            // The deadline stands on disk, too.
            self.save_or_note();
            return Err(ConfirmError::NotSaved { source });
        }
        memory.confirmed = Some(waiting.generation);
        log::info!("generation {} is confirmed", waiting.generation);
        Ok(())
    }

    fn rollback(&self, expected: Option<Generation>) -> Result<RolledBack, RollbackError> {
        let mut slots = lock(&self.slots);
        let actual = self.generation();
        if let Some(expected) = expected
            && actual.unwrap_or_default() != expected
        {
            return Err(RollbackError::Generation { expected, actual });
        }
        let (waiting, before) = {
            let memory = lock(&self.memory);
            (memory.pending.clone(), memory.before.clone())
        };
        if let Some(waiting) = waiting {
            return Ok(self.take_back(&waiting, &mut slots)?);
        }
        let policy = match before {
            Before::Unknown => return Err(RollbackError::NothingToRollBack),
            Before::NoPolicy => Arc::new(Policy::default()),
            Before::Kept(policy) => policy,
            Before::Saved(file) => {
                let read = match &*lock(&self.disk) {
                    Some(disk) => disk.dir.policy(&file.name).map_err(RollbackError::Read)?,
                    None => None,
                };
                let is_it = |(_, hash): &(Policy, _)| *hash == file.hash;
                match read.filter(is_it) {
                    Some((policy, _)) => Arc::new(policy),
                    None => return Err(RollbackError::NothingToRollBack),
                }
            }
        };
        let applied = self.put_in_force_and_save(policy, None, &mut slots)?;
        log::warn!("rolled back: generation {} is in force", applied.generation);
        Ok(RolledBack::Policy(applied))
    }

    /// Brings back what was before a pending change.
    pub(super) fn take_back(
        &self,
        waiting: &Waiting,
        slots: &mut RuleSlots,
    ) -> Result<RolledBack, ApplyError> {
        match &waiting.change {
            WaitingChange::Enforcement { before } => {
                self.take_back_enforcement(*before);
                lock(&self.memory).end_waiting(waiting);
                self.save_or_note();
                log::warn!("not confirmed: the mode is {before} again");
                Ok(RolledBack::Enforcement(*before))
            }
            WaitingChange::Policy { previous, .. } => {
                let policy = previous.clone().unwrap_or_default();
                let mut applied = self.put_in_force(policy, slots)?;
                lock(&self.memory).end_waiting(waiting);
                applied.not_saved = self.save_or_note();
                log::warn!(
                    "not confirmed: generation {} is taken back, {} is in force",
                    waiting.generation,
                    applied.generation
                );
                Ok(RolledBack::Policy(applied))
            }
        }
    }
}
