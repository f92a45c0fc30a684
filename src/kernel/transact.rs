//! Changes of the policy in force, one transaction at a time.

use std::sync::Arc;
use std::time::Duration;

use super::confirm::{Waiting, WaitingChange};
use super::core::Core;
use super::deadline::{Deadline, Now};
use super::enforcement::is_within;
use super::error::{ApplyError, TransactionError};
use super::firewall::{Firewall, lock};
use super::metrics::refused_changes;
use super::publish::{Applied, Generation};
use super::slots::RuleSlots;
use super::state_dir::Hash;
use crate::policy::{Atomicity, Change, ChangeError, Effect, Policy, RequestBody, request_hash};

/// How a policy is to be put in force by [`Firewall::apply_with`].
///
/// ```
/// use std::time::Duration;
/// use xdpgate::{ApplyOptions, Generation};
///
/// let options = ApplyOptions::default()
///     .expect_generation(Generation::new(7))
///     .confirm_within(Duration::from_secs(60))
///     .key("rollout-12");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[must_use = "options do nothing by themselves"]
pub struct ApplyOptions {
    expected: Option<Generation>,
    within: Option<Duration>,
    key: Option<String>,
}

impl ApplyOptions {
    /// How long a [key](Self::key) may be, in bytes.
    pub const LONGEST_KEY: usize = 128;

    /// Refuses the policy unless the one in force is of this generation: nobody else has changed it
    /// since the caller looked (optimistic locking). [`Generation::new`]`(0)` expects that none is in
    /// force yet.
    pub fn expect_generation(mut self, generation: Generation) -> Self {
        self.expected = Some(generation);
        self
    }

    /// The policy before comes back by itself after so long, unless [`Firewall::confirm`] comes
    /// before: whoever shut himself out need only wait. More than 0 and at most 31 days. Until then
    /// there can be no other change of the policy.
    ///
    /// It takes no client, and with a [`state_dir`](crate::Loader::state_dir) it holds when the
    /// process is killed: the next one waits for the rest of the time, or brings the policy before
    /// back before anything else. The time runs while the machine sleeps (CLOCK_BOOTTIME), and
    /// setting the clock makes no difference; over a restart of the machine it is the clock on the
    /// wall that counts, and one that was set back ends the waiting. Without a state directory a
    /// process that ends forgets the deadline, and the policy stays wherever it is pinned.
    pub fn confirm_within(mut self, within: Duration) -> Self {
        self.within = Some(within);
        self
    }

    /// A name for this request, of 1 to [128](Self::LONGEST_KEY) bytes: if it is made again under the same name nothing is
    /// changed, and the answer is that of the first time. So a caller that got no answer may simply
    /// ask again. The last 256 names are kept, with a [`state_dir`](crate::Loader::state_dir) over
    /// restarts, too. If the change was not confirmed and is taken back, the answer is an error that says
    /// so: to do it once more is for another name.
    ///
    /// The generation that is expected is not part of the request.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }
}

/// How a transaction is to be made.
///
/// ```
/// use xdpgate::TransactionOptions;
/// use xdpgate::policy::Atomicity;
///
/// let options = TransactionOptions::default().atomicity(Atomicity::Partial);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[must_use = "options do nothing by themselves"]
pub struct TransactionOptions {
    atomicity: Atomicity,
    apply: ApplyOptions,
}

impl TransactionOptions {
    /// What happens to the other changes if one is refused; all or nothing unless set.
    pub fn atomicity(self, atomicity: Atomicity) -> Self {
        Self { atomicity, ..self }
    }

    /// As [`ApplyOptions::expect_generation`].
    pub fn expect_generation(mut self, generation: Generation) -> Self {
        self.apply = self.apply.expect_generation(generation);
        self
    }

    /// As [`ApplyOptions::confirm_within`]. A transaction that changes nothing waits for nothing.
    pub fn confirm_within(mut self, within: Duration) -> Self {
        self.apply = self.apply.confirm_within(within);
        self
    }

    /// As [`ApplyOptions::key`].
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.apply = self.apply.key(key);
        self
    }
}

/// All or nothing, with these options.
impl From<ApplyOptions> for TransactionOptions {
    fn from(apply: ApplyOptions) -> Self {
        Self {
            apply,
            ..Self::default()
        }
    }
}

/// What [`Firewall::transact`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Transaction {
    /// The generation of the policy in force now; `None` if there was none and nothing changed.
    pub generation: Option<Generation>,
    /// What it cost; `None` if nothing changed, so that nothing was published.
    pub applied: Option<Applied>,
    /// What each change did, in their order. There are no errors if all or nothing was asked for.
    /// Empty if the transaction was repeated.
    pub effects: Vec<Result<Effect, ChangeError>>,
    /// Nothing was done: this was done before, by the same [key](TransactionOptions::key). Then
    /// `generation` is that of then.
    pub repeated: bool,
}

impl Firewall {
    /// [`Firewall::apply`] with options.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use xdpgate::{ApplyOptions, Firewall, Policy};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let firewall = Firewall::loader().load()?;
    /// let policy = Policy::from_file("policy.yaml")?;
    /// let options = ApplyOptions::default().confirm_within(Duration::from_secs(60));
    /// let applied = firewall.apply_with(&policy, options)?;
    /// // Still able to reach the machine?
    /// firewall.confirm(applied.generation)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Another generation than expected, a key that was used for another request, a deadline out of
    /// range or that cannot be saved, or what [`Firewall::apply`] gives. On any error the policy in
    /// force is what it was.
    pub fn apply_with(
        &self,
        policy: &Policy,
        options: ApplyOptions,
    ) -> Result<Applied, TransactionError> {
        let core = &self.core;
        let mut slots = lock(&core.slots);
        let request = options
            .key
            .is_some()
            .then(|| Hash::from(request_hash(RequestBody::Apply(policy), options.within)));
        let key = options.key.as_deref().zip(request);
        if let Some(generation) = core.check(&options, key, true)? {
            return Ok(Applied::repeated(generation));
        }
        core.change(Arc::new(policy.clone()), options.within, key, &mut slots)
    }

    /// Changes the policy in force: rules and entries of sets come and go, all at one moment. Where
    /// no policy is in force yet, an empty one is changed, in which everything passes.
    ///
    /// Transactions queue up behind each other and behind [`Firewall::apply`]: none is lost. One
    /// that changes nothing publishes nothing.
    ///
    /// ```no_run
    /// use xdpgate::policy::{Change, SetName};
    /// use xdpgate::{Firewall, TransactionOptions};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let firewall = Firewall::loader().load()?;
    /// let bad = SetName::new("bad-hosts").unwrap();
    /// let entries = vec![("203.0.113.7".parse()?, None)];
    /// let done = firewall.transact(
    ///     &[Change::AddEntries(bad, entries)],
    ///     TransactionOptions::default(),
    /// )?;
    /// println!("generation {:?}: {:?}", done.generation, done.effects);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Changes that cannot be made (unless [`Atomicity::Partial`]), or what [`Firewall::apply_with`] gives. On any error the policy in force is what it was.
    pub fn transact(
        &self,
        changes: &[Change],
        options: TransactionOptions,
    ) -> Result<Transaction, TransactionError> {
        let core = &self.core;
        let mut slots = lock(&core.slots);
        let TransactionOptions { atomicity, apply } = options;
        let request = apply.key.is_some().then(|| {
            let body = RequestBody::Transact(changes, atomicity);
            Hash::from(request_hash(body, apply.within))
        });
        let key = apply.key.as_deref().zip(request);
        let known = core.check(&apply, key, false);
        if let Some(generation) = known.inspect_err(|_| refused_changes())? {
            return Ok(Transaction {
                generation: Some(generation).filter(|g| *g != Generation::default()),
                applied: None,
                effects: Vec::new(),
                repeated: true,
            });
        }
        let actual = core.generation();
        let before = core.policy().unwrap_or_default();
        let changed = before.change(changes, atomicity);
        let changed = changed.inspect_err(|_| refused_changes())?;
        let is_same = |effect: &Result<Effect, _>| matches!(effect, Ok(Effect::Unchanged) | Err(_));
        if changed.effects.iter().all(is_same) || changed.policy == *before {
            if key.is_some() {
                lock(&core.memory).remember(key, actual.unwrap_or_default());
                core.save_or_note();
            }
            return Ok(Transaction {
                generation: actual,
                applied: None,
                effects: changed.effects,
                repeated: false,
            });
        }
        let applied = core.change(Arc::new(changed.policy), apply.within, key, &mut slots)?;
        Ok(Transaction {
            generation: Some(applied.generation),
            applied: Some(applied),
            effects: changed.effects,
            repeated: false,
        })
    }
}

impl Core {
    /// Whether a transaction may be made; the generation of then if it was made before. One that is
    /// `whole` does not depend on the policy in force.
    fn check(
        &self,
        options: &ApplyOptions,
        key: Option<(&str, Hash)>,
        whole: bool,
    ) -> Result<Option<Generation>, TransactionError> {
        if let Some((key, request)) = key {
            if key.is_empty() || key.len() > ApplyOptions::LONGEST_KEY {
                return Err(TransactionError::KeyLength { bytes: key.len() });
            }
            let memory = lock(&self.memory);
            if let Some(known) = memory.keys.iter().find(|known| known.key == key) {
                let generation = Generation::new(known.generation);
                let key = key.to_owned();
                return match known.request == request {
                    true if known.taken_back => {
                        Err(TransactionError::KeyTakenBack { key, generation })
                    }
                    true => Ok(Some(generation)),
                    false => Err(TransactionError::KeyUsed { key, generation }),
                };
            }
        }
        match whole {
            true => self.check_replaceable(),
            false => self.check_pending(),
        }
        .map_err(TransactionError::Apply)?;
        let actual = self.generation();
        if let Some(expected) = options.expected
            && actual.unwrap_or_default() != expected
        {
            return Err(TransactionError::Generation { expected, actual });
        }
        match options.within {
            Some(within) if !is_within(within) => Err(TransactionError::Within { within }),
            _ => Ok(None),
        }
    }

    pub(super) fn check_pending(&self) -> Result<(), ApplyError> {
        match &lock(&self.memory).pending {
            Some(pending) => Err(ApplyError::Pending(pending.refusal())),
            None => Ok(()),
        }
    }

    /// Likewise, for a whole policy: one that should have been taken back and cannot be gives way to it.
    pub(super) fn check_replaceable(&self) -> Result<(), ApplyError> {
        match &lock(&self.memory).pending {
            Some(pending) if pending.refused.is_none() => {
                Err(ApplyError::Pending(pending.refusal()))
            }
            _ => Ok(()),
        }
    }

    /// Puts a policy in force, for good or until a deadline.
    fn change(
        self: &Arc<Self>,
        policy: Arc<Policy>,
        within: Option<Duration>,
        key: Option<(&str, Hash)>,
        slots: &mut RuleSlots,
    ) -> Result<Applied, TransactionError> {
        let Some(within) = within else {
            return Ok(self.put_in_force_and_save(policy, key, slots)?);
        };
        let not_saved = |source| TransactionError::NotSaved { source };
        let deadline =
            Deadline::new(&Now::read(), within).ok_or(TransactionError::Within { within })?;
        self.keeper.start(self).map_err(not_saved)?;
        // Only whoever has the turn gives out generations.
        let generation = Generation::new(self.last_generation() + 1);
        let previous = self.lasting();
        let mut former = None;
        let keys = {
            let mut memory = lock(&self.memory);
            let keys = memory.keys.clone();
            if let Some(overdue) = memory.pending.clone() {
                memory.end_waiting(&overdue);
                former = Some(overdue);
            }
            memory.remember(key, generation);
            let waiting = Waiting {
                generation,
                deadline,
                change: WaitingChange::Policy {
                    policy: Arc::clone(&policy),
                    previous,
                },
                refused: None,
                opened: false,
            };
            memory.pending = Some(waiting);
            keys
        };
        // First the way back, then the way there: a process may be killed in between.
        let done = match self.save() {
            Ok(()) => self
                .put_in_force(policy, slots)
                .map_err(TransactionError::Apply),
            Err(source) => Err(not_saved(source)),
        };
        match &done {
            Ok(_) => {
                lock(&self.memory).confirmed = None;
                self.keeper.wake();
            }
            Err(_) => {
                let mut memory = lock(&self.memory);
                (memory.pending, memory.keys) = (former, keys);
                drop(memory);
                self.save_or_note();
            }
        }
        done
    }
}
