//! Changes of the policy in force, one transaction at a time.

use std::sync::Arc;

use super::error::TransactionError;
use super::firewall::{Firewall, lock};
use super::metrics::refused_changes;
use super::publish::{Applied, Generation};
use crate::policy::{Atomicity, Change, ChangeError, Effect, Policy};

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
    expected: Option<Generation>,
}

impl TransactionOptions {
    /// What happens to the other changes if one is refused; all or nothing unless set.
    pub fn atomicity(self, atomicity: Atomicity) -> Self {
        Self { atomicity, ..self }
    }

    /// Refuses the transaction unless the policy in force is of this generation: nobody else has
    /// changed it since the caller looked (optimistic locking).
    pub fn expect_generation(self, generation: Generation) -> Self {
        Self {
            expected: Some(generation),
            ..self
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
    pub effects: Vec<Result<Effect, ChangeError>>,
}

impl Firewall {
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
    /// Changes that cannot be made (unless [`Atomicity::Partial`]), another generation than expected,
    /// or what [`Firewall::apply`] gives. On any error the policy in force is what it was.
    pub fn transact(
        &self,
        changes: &[Change],
        options: TransactionOptions,
    ) -> Result<Transaction, TransactionError> {
        let mut slots = lock(&self.slots);
        let actual = self.generation();
        if let Some(expected) = options.expected
            && actual != Some(expected)
        {
            refused_changes();
            return Err(TransactionError::Generation { expected, actual });
        }
        let before = match self.policy() {
            Some(policy) => policy,
            None => Arc::new(Policy::default()),
        };
        let changed = before.change(changes, options.atomicity);
        let changed = changed.inspect_err(|_| refused_changes())?;
        let is_same = |effect: &Result<Effect, _>| matches!(effect, Ok(Effect::Unchanged) | Err(_));
        if changed.effects.iter().all(is_same) || changed.policy == *before {
            return Ok(Transaction {
                generation: actual,
                applied: None,
                effects: changed.effects,
            });
        }
        let applied = self.put_in_force(changed.policy, &mut slots)?;
        Ok(Transaction {
            generation: Some(applied.generation),
            applied: Some(applied),
            effects: changed.effects,
        })
    }
}
