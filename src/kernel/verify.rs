//! Whether the kernel still holds what was published.

use std::fmt;
use std::time::{Duration, Instant};

use super::error::{ApplyError, HealthError};
use super::firewall::{Firewall, lock};
use super::publish::{Applied, Generation};
use crate::image::Damage;

/// What [`Firewall::verify`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// The policy whose image was read.
    pub generation: Generation,
    /// How much was read.
    pub bytes: usize,
    /// How long that took.
    pub took: Duration,
    /// What is not as it was written; `None` if all is.
    pub altered: Option<Altered>,
}

/// What of a published policy is not as it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Altered {
    /// The header of the image.
    Header,
    /// The lines of the image behind its header: another checksum than when they were written.
    Lines,
    /// Which rules are for which interface.
    Scopes,
}

impl fmt::Display for Altered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Header => "the header of the policy image",
            Self::Lines => "the lines of the policy image",
            Self::Scopes => "the scopes of the interfaces",
        })
    }
}

impl Firewall {
    /// Whether the kernel still holds what was published: the image of the policy in force by its checksum, and
    /// which rules are for which interface. `None` before there is a policy.
    ///
    /// Nobody writes to them; a mistake of another privileged program, or of memory, does. That the program
    /// which judges is the one of this policy, [`Firewall::health`] says. [`Firewall::republish`] mends what is
    /// found. It reads the whole image, some 0.2 ms for each MB, and holds up neither packets nor transactions.
    ///
    /// # Errors
    /// The image cannot be read.
    pub fn verify(&self) -> Result<Option<Verified>, HealthError> {
        let started = Instant::now();
        let Some(active) = self.active() else {
            return Ok(None);
        };
        let damage = active.judge.damage();
        let damage = damage.map_err(|source| HealthError::Syscall {
            call: "mmap of the image",
            source,
        })?;
        let altered = damage.map(|damage| match damage {
            Damage::Header => Altered::Header,
            Damage::Lines => Altered::Lines,
        });
        Ok(Some(Verified {
            generation: active.generation,
            bytes: active.image_bytes,
            altered: altered.or_else(|| self.are_scopes_altered().then_some(Altered::Scopes)),
            took: started.elapsed(),
        }))
    }

    /// Publishes the policy in force once more, as a new generation: compiled anew, in new memory. It mends
    /// what [`Firewall::verify`] finds. `None` if there is no policy.
    ///
    /// # Errors
    /// A change waits for its confirmation, or what [`Firewall::apply`] gives. Then all is as before.
    pub fn republish(&self) -> Result<Option<Applied>, ApplyError> {
        let core = &self.core;
        let mut slots = lock(&core.slots);
        core.check_pending()?;
        let Some(policy) = core.policy() else {
            return Ok(None);
        };
        let mut applied = core.put_in_force(policy, &mut slots)?;
        applied.not_saved = core.save_or_note();
        Ok(Some(applied))
    }

    fn are_scopes_altered(&self) -> bool {
        // Whoever attaches or publishes holds it while scopes are written.
        let interfaces = lock(&self.interfaces);
        let Some(active) = self.active() else {
            return false;
        };
        let mut all = interfaces.names();
        all.any(|(slot, name)| {
            let there = active.judge.scopes(slot);
            there.is_some_and(|there| there != active.scopes.of(name))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;

    #[test]
    fn what_is_as_it_was_is_found_so_and_can_be_published_anew() {
        let (firewall, _) = Firewall::loader().rehearse();
        assert_eq!(firewall.verify().expect("nothing to read"), None);
        assert_eq!(firewall.republish().expect("nothing to do"), None);
        let policy = Policy::from_yaml("{ version: 1, rules: [{ id: a, action: drop }] }");
        firewall.apply(&policy.expect("a policy")).expect("room");
        let found = firewall.verify().expect("read").expect("a policy");
        assert_eq!((found.altered, found.generation.get()), (None, 1));
        let again = firewall.republish().expect("room").expect("a policy");
        assert_eq!(again.generation.get(), 2);
    }
}
