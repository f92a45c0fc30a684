//! What nodes had before this controller knew them: made again from the store, so that a delta may start from it.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use xdpgate::Policy;
use xdpgate::policy::PolicyHash;

use super::cache::Cache;
use super::limits::Budget;
use super::{Desired, lock};
use crate::core::Core;
use crate::domain::Name;

/// So many are made a second in the long run, and so many at once; a node for which there is no turn gets a snapshot.
const RATE: (u32, u32) = (4, 32);
/// So many are known to have been made.
const KNOWN: usize = 256;

/// Knows what was in force earlier.
#[async_trait]
pub trait Past: std::fmt::Debug + Send + Sync + 'static {
    /// What these policies, in the order of a profile, said together after a transaction; `None` if that cannot be told.
    async fn effective(&self, policies: &[Name], sequence: u64) -> Option<Policy>;
}

#[async_trait]
impl Past for Core {
    async fn effective(&self, policies: &[Name], sequence: u64) -> Option<Policy> {
        match self.effective_at(policies, sequence).await {
            Ok(policy) => policy,
            Err(error) => {
                log::debug!(sequence; "what nodes had is not known, so they get snapshots: {error}");
                None
            }
        }
    }
}

/// Policies that were made again, each once however many nodes name it.
pub(super) struct Rebuilt {
    past: Option<Arc<dyn Past>>,
    made: Cache<(Vec<Name>, u64), Option<PolicyHash>>,
    budget: Mutex<Budget>,
    /// One after the other, since each may take as long as a whole policy takes.
    turn: Arc<Semaphore>,
}

impl Rebuilt {
    pub(super) fn new(past: Option<Arc<dyn Past>>) -> Self {
        Self {
            past,
            made: Cache::new(KNOWN, |_| 1),
            budget: Mutex::new(Budget::new(RATE.0, RATE.1)),
            turn: Arc::new(Semaphore::new(1)),
        }
    }

    /// The hash of what a node of the profile of `desired` had if it names this transaction. The policy is handed to
    /// `keep`, once.
    pub(super) async fn get(
        &self,
        desired: &Desired,
        sequence: u64,
        keep: impl FnOnce(PolicyHash, Policy) + Send + 'static,
    ) -> Option<PolicyHash> {
        let past = self.past.clone().filter(|_| sequence > 0)?;
        let names = desired.policies.iter().map(|(name, _)| name.clone());
        let names: Vec<Name> = names.collect();
        let (key, turn) = ((names.clone(), sequence), self.turn.clone());
        let has_turn = || {
            let mut budget = lock(&self.budget);
            budget
                .take(Instant::now(), std::time::Duration::ZERO)
                .is_ok()
        };
        let make = move || {
            let has_turn = has_turn();
            async move {
                if !has_turn {
                    return None;
                }
                // It is never closed.
                let _turn = turn.acquire().await;
                let policy = past.effective(&names, sequence).await?;
                let made = tokio::task::spawn_blocking(move || {
                    let hash = policy.hash();
                    keep(hash, policy);
                    hash
                });
                made.await.ok()
            }
        };
        self.made.get(key, make).await
    }
}
