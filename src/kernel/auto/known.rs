//! What the thread that watches knows, and shares with those who ask.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::super::attacher::Held;
use super::super::error::AttachError;
use super::super::ifindex::IfIndex;
use super::decide::{Decision, Decisions, Seen, SkipReason, decide, decide_by, refusal};
use super::events::{AutoEvent, Listeners};
use super::selector::Rules;

/// What the thread shares with those who ask.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub known: Mutex<Known>,
    pub counters: Counters,
    pub listeners: Listeners,
}

/// What is known of the interfaces.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub seen: Seen,
    pub decisions: Decisions,
    /// Interfaces that should be attached and could not be.
    pub failed: BTreeMap<IfIndex, Arc<AttachError>>,
}

impl Known {
    /// Events of the interfaces that are skipped for another reason than before.
    pub(super) fn skipped(&self, decisions: &Decisions) -> Vec<AutoEvent> {
        let mut events = Vec::new();
        for (ifindex, decision) in decisions {
            if let Decision::Skip(reason) = decision
                && self.decisions.get(ifindex) != Some(decision)
            {
                events.push(AutoEvent::Skipped {
                    ifindex: *ifindex,
                    interface: self.seen[ifindex].name.clone(),
                    reason: reason.clone(),
                });
            }
        }
        events
    }
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub messages: AtomicU64,
    pub overruns: AtomicU64,
    pub rescans: AtomicU64,
    pub attached: AtomicU64,
    pub detached: AtomicU64,
    pub failed: AtomicU64,
    pub renamed: AtomicU64,
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Decides by what each interface was found to be by itself, and finds it for those that are new.
pub(super) fn decide_from(
    rules: &Rules,
    refusals: &mut BTreeMap<IfIndex, Option<SkipReason>>,
    seen: &Seen,
    held: &[Held],
) -> Decisions {
    if !rules.masters.is_empty() {
        return decide(rules, seen, held);
    }
    for (ifindex, interface) in seen {
        refusals
            .entry(*ifindex)
            .or_insert_with(|| refusal(rules, seen, interface));
    }
    decide_by(|interface| refusals[&interface.ifindex].clone(), seen, held)
}
