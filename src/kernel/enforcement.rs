//! Whether frames are dropped: dry run, enforcement, and pass mode for when all else went wrong.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::confirm::{PendingError, Waiting, WaitingChange};
use super::core::Core;
use super::deadline::{Deadline, Now};
use super::error::PassAllError;
use super::firewall::{Firewall, lock};
use super::pin_root;
use super::state_dir;

/// What becomes of frames that the policy drops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Enforcement {
    /// They pass, and are counted as [`WouldDrop`](crate::Disposition::WouldDrop). A first start is so.
    DryRun,
    /// They are dropped.
    Enforce,
    /// They pass, as in dry run, and nothing but [`Firewall::set_enforcement`] ends it: no
    /// [`Firewall::set_dry_run`], no deadline, no restart. This is for when a policy shuts people out.
    Pass,
}

impl fmt::Display for Enforcement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DryRun => "dry run",
            Self::Enforce => "enforce",
            Self::Pass => "pass",
        })
    }
}

impl Enforcement {
    /// The first word of `control`: everything but 0 drops nothing.
    pub(super) fn word(self) -> u32 {
        match self {
            Self::Enforce => 0,
            Self::DryRun => 1,
            Self::Pass => 2,
        }
    }

    pub(super) fn from_word(word: u32) -> Self {
        match word {
            0 => Self::Enforce,
            2 => Self::Pass,
            _ => Self::DryRun,
        }
    }

    /// What [`Firewall::set_dry_run`] asks for.
    pub(super) fn of(dry_run: bool) -> Self {
        match dry_run {
            true => Self::DryRun,
            false => Self::Enforce,
        }
    }
}

/// Why the mode was not changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnforcementError {
    /// Only [`Enforcement::Enforce`] can do harm that has to be taken back.
    #[error("confirm_within is for enforce only: {mode} drops nothing")]
    NothingToConfirm {
        /// The mode that was asked for.
        mode: Enforcement,
    },
    /// Another change waits for its confirmation.
    #[error(transparent)]
    Pending(#[from] PendingError),
    /// The deadline is none.
    #[error(
        "confirm_within({within:?}) is out of range: it must be more than 0 and at most 31 days"
    )]
    Within {
        /// What was asked for.
        within: Duration,
    },
    /// It cannot be written down, so that a crash would undo it or make it last.
    #[error(
        "the mode is unchanged, because it cannot be saved: {source}; make room or mend the directory"
    )]
    NotSaved {
        /// The error.
        source: io::Error,
    },
}

impl Firewall {
    /// Whether frames are dropped now, on all interfaces.
    pub fn enforcement(&self) -> Enforcement {
        self.backend.enforcement()
    }

    /// The mode that [`Firewall::set_enforcement`] chose, in this process or, with a
    /// [`state_dir`](crate::Loader::state_dir), in an earlier one; `None` if it never did. It differs
    /// from [`Firewall::enforcement`] after [`Firewall::set_dry_run`].
    pub fn chosen_enforcement(&self) -> Option<Enforcement> {
        let memory = lock(&self.core.memory);
        match &memory.pending {
            _ if self.backend.enforcement() == Enforcement::Pass => Some(Enforcement::Pass),
            Some(pending) if pending.is_of_mode() => Some(Enforcement::Enforce),
            _ => memory.enforcement,
        }
    }

    /// Whether enforcement was taken back because nobody confirmed it
    /// ([`Firewall::set_enforcement`]), or by [`Firewall::rollback`], and no mode was chosen since. With a
    /// [`state_dir`](crate::Loader::state_dir) it is known in later processes, too, and they begin in dry
    /// run: whoever enforces by a configuration at each start asks this first, and leaves the mode as it
    /// is.
    ///
    /// ```
    /// use std::time::Duration;
    /// use xdpgate::{Enforcement, Firewall};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (firewall, _) = Firewall::loader().rehearse();
    /// firewall.set_enforcement(Enforcement::Enforce, Some(Duration::from_secs(60)))?;
    /// firewall.rollback()?;
    /// assert!(firewall.enforcement_taken_back());
    /// firewall.set_enforcement(Enforcement::Enforce, None)?;
    /// assert!(!firewall.enforcement_taken_back());
    /// # Ok(())
    /// # }
    /// ```
    pub fn enforcement_taken_back(&self) -> bool {
        lock(&self.core.memory).enforcement_taken_back
    }

    /// Chooses whether frames are dropped, at once and for all interfaces. With a
    /// [`state_dir`](crate::Loader::state_dir) the choice is saved and holds after a restart too.
    ///
    /// With `confirm_within`, [`Enforcement::Enforce`] goes back to the mode before by itself unless
    /// [`Firewall::confirm`] comes in time, with the generation in force: as for a policy, see
    /// [`ApplyOptions::confirm_within`](crate::ApplyOptions::confirm_within). If frames are dropped
    /// already there is nothing to take back: then nothing changes, nothing is saved, and there is no
    /// deadline. Without `confirm_within` it is saved that this is to last.
    ///
    /// [`Enforcement::Pass`] is never refused. The other modes end it.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use xdpgate::{Enforcement, Firewall};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let firewall = Firewall::loader().load()?;
    /// firewall.set_enforcement(Enforcement::Enforce, Some(Duration::from_secs(60)))?;
    /// // Still able to reach the machine?
    /// firewall.confirm(firewall.generation().unwrap_or_default())?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// A deadline for a mode that drops nothing, or out of range; another change is pending; or the
    /// deadline, or the end of pass mode, cannot be saved. Then nothing changed. That another choice
    /// cannot be saved is said by [`Firewall::saved`].
    pub fn set_enforcement(
        &self,
        mode: Enforcement,
        confirm_within: Option<Duration>,
    ) -> Result<(), EnforcementError> {
        self.core.set_enforcement(mode, confirm_within)
    }
}

impl Core {
    fn set_enforcement(
        self: &Arc<Self>,
        mode: Enforcement,
        within: Option<Duration>,
    ) -> Result<(), EnforcementError> {
        match within {
            Some(_) if mode != Enforcement::Enforce => {
                return Err(EnforcementError::NothingToConfirm { mode });
            }
            Some(within) if !is_within(within) => return Err(EnforcementError::Within { within }),
            _ => {}
        }
        if mode == Enforcement::Pass {
            // Not behind a transaction that takes its time.
            self.backend.set_enforcement(mode);
        }
        let _turn = lock(&self.slots);
        let before = self.backend.enforcement();
        let pending = lock(&self.memory).pending.clone();
        let pending_mode = pending.as_ref().is_some_and(Waiting::is_of_mode);
        if let Some(pending) = &pending
            && mode == Enforcement::Enforce
            && (pending_mode || within.is_some())
        {
            return Err(pending.refusal().into());
        }
        let not_saved = |source| EnforcementError::NotSaved { source };
        match within {
            // Nothing that could be taken back.
            Some(_) if before == mode => return Ok(()),
            Some(within) => {
                let deadline = Deadline::new(&Now::read(), within)
                    .ok_or(EnforcementError::Within { within })?;
                self.keeper.start(self).map_err(not_saved)?;
                lock(&self.memory).pending = Some(Waiting {
                    generation: self.generation().unwrap_or_default(),
                    deadline,
                    change: WaitingChange::Enforcement { before },
                    refused: None,
                    opened: false,
                });
                if let Err(source) = self.save() {
                    lock(&self.memory).pending = None;
                    // It may be in place all the same, where only the last sync failed: the disk must
                    // not wait for what never came.
                    self.save_or_note();
                    return Err(not_saved(source));
                }
                lock(&self.memory).confirmed = None;
                self.backend.set_enforcement(mode);
                self.keeper.wake();
            }
            None => {
                let (chosen, waiting, taken_back) = {
                    let mut memory = lock(&self.memory);
                    let was = (
                        memory.enforcement,
                        memory.pending.clone(),
                        memory.enforcement_taken_back,
                    );
                    if mode != Enforcement::Pass {
                        memory.enforcement = Some(mode);
                        memory.enforcement_taken_back = false;
                    }
                    if pending_mode {
                        memory.pending = None;
                    }
                    was
                };
                let ends_pass = before == Enforcement::Pass || self.is_marked_pass();
                if mode != Enforcement::Pass && ends_pass {
                    // What comes after pass mode is on disk before its mark is gone: a process may be
                    // killed in between.
                    let ended = self.save().and_then(|()| self.mark_pass(false));
                    if let Err(source) = ended {
                        let mut memory = lock(&self.memory);
                        (memory.enforcement, memory.pending) = (chosen, waiting);
                        memory.enforcement_taken_back = taken_back;
                        drop(memory);
                        self.save_or_note();
                        return Err(not_saved(source));
                    }
                    self.backend.set_enforcement(mode);
                } else {
                    self.backend.set_enforcement(mode);
                    self.save_or_note();
                }
            }
        }
        log::info!("mode: {mode}");
        Ok(())
    }

    /// Whether a restart would begin in pass mode.
    fn is_marked_pass(&self) -> bool {
        let disk = lock(&self.disk);
        disk.as_ref().is_some_and(|disk| disk.dir.is_pass())
    }

    /// Says on disk whether a restart begins in pass mode.
    pub(super) fn mark_pass(&self, is_pass: bool) -> io::Result<()> {
        match &*lock(&self.disk) {
            Some(disk) if disk.dir.is_pass() != is_pass => disk.dir.set_pass(is_pass),
            _ => Ok(()),
        }
    }

    /// Takes back a mode that nobody confirmed, or that is not wanted any more. What came after it stays.
    pub(super) fn take_back_enforcement(&self, before: Enforcement) {
        self.backend
            .replace_enforcement(Enforcement::Enforce, before);
    }
}

/// Whether a deadline may be so far away.
pub(super) fn is_within(within: Duration) -> bool {
    const MOST: Duration = Duration::from_secs(31 * 86_400);
    !within.is_zero() && within <= MOST
}

/// The mode that a process begins with, if that was chosen before it: pass mode by its mark, then a
/// change that is pending, then dry run where enforcement was taken back, then what was saved.
pub(super) fn chosen(
    is_pass: bool,
    saved: Option<Enforcement>,
    taken_back: bool,
    pending: Option<(Enforcement, Duration)>,
) -> Option<Enforcement> {
    match pending {
        _ if is_pass => Some(Enforcement::Pass),
        Some((_, left)) if !left.is_zero() => Some(Enforcement::Enforce),
        Some((before, _)) => Some(before),
        None if taken_back => Some(Enforcement::DryRun),
        None => saved,
    }
}

/// Puts a pinned firewall in [pass mode](Enforcement::Pass) without its process, which may hang or be
/// gone: at once every frame passes. With the state directory of that process the mode outlives a
/// restart of the machine, too; a restart of the process it outlives in any case.
///
/// [`Firewall::set_enforcement`] ends it. Counters and events go on, as would-drops.
///
/// ```no_run
/// xdpgate::pass_all("/sys/fs/bpf/xdpgate", Some("/var/lib/xdpgate".as_ref()))?;
/// # Ok::<(), xdpgate::PassAllError>(())
/// ```
///
/// # Errors
/// There are no pins of ours, they cannot be opened, or the directory cannot be written. What can be
/// done is done all the same, and the error says what: the mark is made without pins as well.
pub fn pass_all(pin_root: impl AsRef<Path>, state_dir: Option<&Path>) -> Result<(), PassAllError> {
    let switched = pin_root::pass_all(pin_root.as_ref());
    let marked = state_dir.map_or(Ok(()), state_dir::mark_pass);
    match (switched, marked) {
        (Ok(()), Ok(())) => Ok(()),
        (Err(source), Ok(())) => Err(PassAllError::Pins {
            source,
            marked: state_dir.map(Path::to_owned),
        }),
        (Ok(()), Err(source)) => Err(PassAllError::Mark { source }),
        (Err(pins), Err(mark)) => Err(PassAllError::Both { pins, mark }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_say_modes() {
        for mode in [Enforcement::DryRun, Enforcement::Enforce, Enforcement::Pass] {
            assert_eq!(Enforcement::from_word(mode.word()), mode);
        }
        assert_eq!(Enforcement::from_word(7), Enforcement::DryRun);
    }

    #[test]
    fn r72_pass_mode_wins_then_what_is_pending_then_what_was_saved() {
        use Enforcement::{DryRun, Enforce, Pass};
        let (over, left) = (Duration::ZERO, Duration::from_secs(1));
        for (is_pass, saved, taken_back, pending, expected) in [
            (false, None, false, None, None),
            (false, Some(Enforce), false, None, Some(Enforce)),
            (true, Some(Enforce), false, None, Some(Pass)),
            (true, Some(Enforce), false, Some((DryRun, left)), Some(Pass)),
            (
                false,
                Some(DryRun),
                false,
                Some((DryRun, left)),
                Some(Enforce),
            ),
            (false, None, false, Some((DryRun, over)), Some(DryRun)),
            (
                false,
                Some(Enforce),
                false,
                Some((DryRun, over)),
                Some(DryRun),
            ),
            // Taken back before, by whatever process.
            (false, Some(Enforce), true, None, Some(DryRun)),
            (false, None, true, None, Some(DryRun)),
            (true, None, true, None, Some(Pass)),
            (false, None, true, Some((DryRun, left)), Some(Enforce)),
        ] {
            assert_eq!(chosen(is_pass, saved, taken_back, pending), expected);
        }
    }
}
