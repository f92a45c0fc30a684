//! What policies are put in force with: shared by the firewall and the thread that keeps deadlines.

use std::collections::hash_map::RandomState;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::at_deadline::Deadlines;
use super::backend::Backend;
use super::entry_counters::InheritedEntries;
use super::events::Events;
use super::interfaces::Interfaces;
use super::keeper::Keeper;
use super::memory::{Disk, Memory};
use super::metrics::Telemetry;
use super::publish::{Active, Generation};
use super::slots::RuleSlots;
use crate::management::Management;
use crate::policy::Policy;

/// Locks are taken in this order: `slots`, `disk`, `memory`.
#[derive(Debug)]
pub(super) struct Core {
    pub backend: Arc<dyn Backend>,
    /// The secret from which the seeds of the images come.
    pub secret: RandomState,
    pub active: Arc<RwLock<Option<Arc<Active>>>>,
    /// Held for a whole transaction, so that there is one at a time.
    pub slots: Mutex<RuleSlots>,
    pub interfaces: Arc<Mutex<Interfaces>>,
    /// See [`Loader::rows_up_to`](super::Loader::rows_up_to).
    pub rows_up_to: usize,
    pub events: Arc<Events>,
    /// The number of the last generation.
    pub generations: AtomicU64,
    /// Held while counters of entries are read or go over from one generation to the next.
    pub entry_turn: Mutex<()>,
    /// What entries counted until there is a policy.
    pub inherited_entries: Mutex<Option<InheritedEntries>>,
    pub memory: Mutex<Memory>,
    /// Where all is saved.
    pub disk: Mutex<Option<Disk>>,
    pub keeper: Keeper,
    pub deadlines: Deadlines,
    /// What passes before any rule; published with the next policy.
    pub management: RwLock<Arc<[Management]>>,
    pub telemetry: Telemetry,
}

impl Core {
    pub(super) fn active(&self) -> Option<Arc<Active>> {
        self.active
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(super) fn policy(&self) -> Option<Arc<Policy>> {
        Some(Arc::clone(&self.active()?.policy))
    }

    pub(super) fn generation(&self) -> Option<Generation> {
        Some(self.active()?.generation)
    }

    pub(super) fn last_generation(&self) -> u64 {
        self.generations.load(Ordering::SeqCst)
    }
}

/// The core in the hands of the firewall, whose end is that of the thread, too.
#[derive(Debug)]
pub(super) struct CoreOwner(pub Arc<Core>);

impl Deref for CoreOwner {
    type Target = Arc<Core>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Drop for CoreOwner {
    fn drop(&mut self) {
        self.0.keeper.end();
    }
}
