//! Changes whose deadline is past: taking back, and what follows when the kernel refuses that.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::at_deadline::AtDeadline;
use super::confirm::{Waiting, WaitingChange};
use super::core::Core;
use super::enforcement::Enforcement;
use super::error::ApplyError;
use super::firewall::lock;
use super::keeper::LOOK;
use super::pin_root;
use crate::policy::Policy;

/// A take-back that the kernel refuses: the deadline of a change is past, and the policy before cannot
/// be put in force.
///
/// It is tried again, after half a second first and then after twice as long each time, up to a minute.
/// At the fifth refusal [pass mode](Enforcement::Pass) comes if frames are dropped, because whoever
/// could confirm may be shut out. [`Firewall::apply`](crate::Firewall::apply) gets through meanwhile,
/// and replaces the change.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TakeBackRefused {
    /// How often it was tried.
    pub tries: u32,
    /// Why it failed the last time.
    pub reason: String,
    /// Whether pass mode was switched on because of it, in this process or in an earlier one. That is
    /// done once.
    pub opened: bool,
    /// When it is tried again.
    again: Instant,
}

/// So often a take-back is refused before everything passes.
const OPEN_AT: u32 = 5;
/// After the first refusal it is tried again so soon, and then after twice as long each time.
const FIRST_AGAIN: Duration = Duration::from_millis(500);
const LONGEST_AGAIN: Duration = Duration::from_secs(60);

fn back_off(tries: u32) -> Duration {
    let factor = 1u32.checked_shl(tries.saturating_sub(1));
    let wait = FIRST_AGAIN.checked_mul(factor.unwrap_or(u32::MAX));
    wait.unwrap_or(LONGEST_AGAIN).min(LONGEST_AGAIN)
}

impl TakeBackRefused {
    /// One refusal more.
    fn next(waiting: &Waiting, error: &ApplyError) -> Self {
        let former = waiting.refused.as_ref();
        let tries = former.map_or(0, |former| former.tries).saturating_add(1);
        Self {
            tries,
            reason: error.to_string(),
            opened: waiting.opened,
            again: Instant::now() + back_off(tries),
        }
    }
}

impl Waiting {
    /// How long until it is to be looked at.
    pub(super) fn due(&self) -> Duration {
        match (self.left(), &self.refused) {
            (Duration::ZERO, Some(refused)) => {
                refused.again.saturating_duration_since(Instant::now())
            }
            (left, _) => left.min(LOOK),
        }
    }
}

impl Core {
    /// Takes the pending change back if that is due, and says when to look again.
    pub(super) fn expire(&self) -> Option<Duration> {
        let mut slots = lock(&self.slots);
        // Somebody may have been faster.
        let waiting = lock(&self.memory).pending.clone()?;
        let due = waiting.due();
        if !due.is_zero() {
            return Some(due);
        }
        let generation = waiting.generation;
        let (told, next) = match self.take_back(&waiting, &mut slots) {
            Ok(back) => (Some(AtDeadline::TakenBack { generation, back }), None),
            Err(error) => {
                let was_open = waiting.opened;
                let waiting = self.refuse_to_take_back(waiting, &error);
                let reason = error.to_string();
                let opened = AtDeadline::Opened { generation, reason };
                let opens = waiting.opened && !was_open;
                (opens.then_some(opened), Some(waiting.due()))
            }
        };
        drop(slots);
        if let Some(done) = told {
            self.deadlines.tell(done);
        }
        next
    }

    /// Keeps in mind that a change could not be taken back; at last everything passes.
    pub(super) fn refuse_to_take_back(&self, mut waiting: Waiting, error: &ApplyError) -> Waiting {
        let mut refused = TakeBackRefused::next(&waiting, error);
        log::error!(
            generation = waiting.generation.get(), tries = refused.tries;
            "generation {} is to be taken back, and the policy before cannot be put in force: {error}; \
             it is tried again in {:?}, and a policy that is applied now replaces it",
            waiting.generation,
            waiting.left().max(back_off(refused.tries))
        );
        let opens = refused.tries >= OPEN_AT && !waiting.opened && self.open();
        waiting.opened |= opens;
        refused.opened = waiting.opened;
        waiting.refused = Some(refused);
        lock(&self.memory).pending = Some(waiting.clone());
        if opens {
            self.save_or_note();
            log::error!(
                generation = waiting.generation.get();
                "PASS MODE: generation {} cannot be taken back, so nothing is dropped until the mode \
                 enforce or dry run is chosen",
                waiting.generation
            );
        }
        waiting
    }

    /// Switches to pass mode, if frames are dropped, as whoever could mend it may be shut out.
    fn open(&self) -> bool {
        let (enforce, pass) = (Enforcement::Enforce, Enforcement::Pass);
        let is_open = self.backend.replace_enforcement(enforce, pass);
        // What judges may be the maps of the process before.
        if is_open
            && self.active().is_none()
            && let Some(root) = self.backend.pinned()
            && let Err(error) = pin_root::pass_all(root)
        {
            log::error!("pass mode of the process before: {error}");
        }
        is_open
    }

    /// The policy that lasts: the one in force, unless that waits for its confirmation.
    pub(super) fn lasting(&self) -> Option<Arc<Policy>> {
        match &lock(&self.memory).pending {
            Some(Waiting {
                change: WaitingChange::Policy { previous, .. },
                ..
            }) => previous.clone(),
            _ => self.policy(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r110_it_is_tried_again_less_and_less_often() {
        let waits = [1, 2, 3, 4, 5, 7, 8, 40, u32::MAX].map(|tries| back_off(tries).as_millis());
        let expected = [500, 1000, 2000, 4000, 8000, 32_000, 60_000, 60_000, 60_000];
        assert_eq!(waits, expected);
    }
}
