//! From what is decided and what is attached to what is to be done: pure.

use std::collections::BTreeMap;

use super::super::attacher::Held;
use super::super::ifindex::IfIndex;
use super::decide::{Decision, Decisions, Seen, SkipReason};

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// Let an attachment of auto-attach go.
    Detach(IfIndex, DetachReason),
    /// An attached interface has another name now.
    Rename {
        ifindex: IfIndex,
        from: String,
        to: String,
    },
    /// Attach an interface.
    Attach(IfIndex),
}

/// Why an interface was detached.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DetachReason {
    /// It was deleted, or went to another network namespace.
    Gone,
    /// The selector does not take it any more.
    Deselected(SkipReason),
}

/// What to do, in this order. Done once, there is nothing more to do. What was attached by hand is
/// never detached.
pub(super) fn reconcile(decisions: &Decisions, seen: &Seen, held: &[Held]) -> Vec<Action> {
    let attached: BTreeMap<IfIndex, &Held> = held.iter().map(|h| (h.ifindex, h)).collect();
    let (mut detach, mut rename, mut attach) = (Vec::new(), Vec::new(), Vec::new());
    for held in held {
        let decision = decisions.get(&held.ifindex);
        let Some(interface) = seen.get(&held.ifindex).filter(|_| held.alive) else {
            if held.automatic {
                detach.push(Action::Detach(held.ifindex, DetachReason::Gone));
            }
            continue;
        };
        if interface.name != held.name {
            rename.push(Action::Rename {
                ifindex: held.ifindex,
                from: held.name.clone(),
                to: interface.name.clone(),
            });
        }
        if let Some(Decision::Skip(reason)) = decision
            && held.automatic
        {
            let reason = DetachReason::Deselected(reason.clone());
            detach.push(Action::Detach(held.ifindex, reason));
        }
    }
    for (ifindex, decision) in decisions {
        // The dead link of what was attached by hand is forgotten when the interface is attached.
        let is_held = attached.get(ifindex).is_some_and(|h| h.alive);
        if *decision == Decision::Attach && !is_held {
            attach.push(Action::Attach(*ifindex));
        }
    }
    // A bond before its members and the other way round: for a moment none is better than twice.
    rename.into_iter().chain(detach).chain(attach).collect()
}

#[cfg(test)]
mod tests;
