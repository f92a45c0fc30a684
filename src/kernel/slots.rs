//! Which rule counts in which slot.
//!
//! A rule keeps its slot over all policies that have it. The slot of a rule that is gone rests:
//! packets that entered before the policy was replaced may still count in it. Before it goes to
//! another rule a grace period passes, and what was counted until then is the baseline of that
//! rule, because a counter is written by its CPU alone and never reset. Its rate state begins anew:
//! by then nobody writes it.

use std::collections::{HashMap, HashSet, VecDeque};

use super::backend::Backend;
use super::error::ApplyError;
use super::layout::RuleCounter;
use super::slot_memory::{RuleRecord, SlotMemory};
use crate::policy::RuleId;

/// The rules that have a slot.
#[derive(Debug)]
pub(super) struct RuleSlots {
    limit: u32,
    taken: HashMap<RuleId, RuleSlot>,
    /// Slots of rules that are gone, longest first.
    resting: VecDeque<u32>,
    /// Slots from this one on were never used.
    unused: u32,
    /// What rules of an earlier process counted, until they have a slot of their own.
    inherited: HashMap<RuleId, RuleCounter>,
}

/// A slot and what had been counted there before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct RuleSlot {
    pub number: u32,
    pub baseline: RuleCounter,
}

/// The slots for the rules of a policy that is not in force yet.
#[derive(Debug)]
pub(super) struct Assignment {
    slots: HashMap<RuleId, RuleSlot>,
    from_resting: usize,
    from_unused: u32,
}

impl Assignment {
    pub(super) fn slot(&self, rule: &RuleId) -> RuleSlot {
        self.slots.get(rule).copied().unwrap_or_default()
    }
}

impl RuleSlots {
    pub(super) fn new(limit: u32) -> Self {
        Self {
            limit,
            taken: HashMap::new(),
            resting: VecDeque::new(),
            unused: 0,
            inherited: HashMap::new(),
        }
    }

    /// The slots as an earlier process left them.
    pub(super) fn recover(memory: SlotMemory<'_>) -> Self {
        let mut slots = Self::new(memory.rules);
        for number in 0..memory.rules {
            match memory.rule(number) {
                RuleRecord::Unused => continue,
                RuleRecord::Rests => slots.resting.push_back(number),
                RuleRecord::Taken(id, baseline) => {
                    let slot = RuleSlot { number, baseline };
                    // Its last change was cut off, so that the rule has two.
                    if let Some(other) = slots.taken.insert(id, slot) {
                        slots.resting.push_back(other.number);
                    }
                }
            }
            // Those that were passed over rest: a rule was about to have them.
            slots.resting.extend(slots.unused..number);
            slots.unused = number + 1;
        }
        slots
    }

    /// Lets rules go on counting from what they counted in other slots.
    pub(super) fn inherit(&mut self, counted: HashMap<RuleId, RuleCounter>) {
        self.inherited = counted;
    }

    /// Finds a slot for every rule of a policy. Nothing changes before [`RuleSlots::commit`].
    ///
    /// The rules in force keep theirs until then, so that old and new rules count together.
    pub(super) fn assign<'r>(
        &self,
        backend: &dyn Backend,
        rules: impl Iterator<Item = &'r RuleId>,
    ) -> Result<Assignment, ApplyError> {
        let (mut slots, mut new) = (HashMap::new(), Vec::new());
        for rule in rules {
            match self.taken.get(rule) {
                Some(slot) => {
                    slots.insert(rule.clone(), *slot);
                }
                None => new.push(rule),
            }
        }
        self.check(new.len())?;
        let from_unused = (self.limit - self.unused).min(new.len() as u32);
        let from_resting = new.len() - from_unused as usize;
        if from_resting > 0 {
            backend
                .wait_for_readers()
                .map_err(|source| ApplyError::Syscall {
                    call: "waiting for packets in flight",
                    source,
                })?;
        }
        let unused = (self.unused..self.unused + from_unused).map(|number| RuleSlot {
            number,
            baseline: RuleCounter::default(),
        });
        let rested = self.resting.iter().take(from_resting).map(|&number| {
            backend.reset_rate(number);
            RuleSlot {
                number,
                baseline: backend.rested_rule(number),
            }
        });
        let memory = backend.slot_memory();
        for (rule, mut slot) in new.into_iter().zip(unused.chain(rested)) {
            if let Some(counted) = self.inherited.get(rule) {
                slot.baseline = slot.baseline.since(*counted);
            }
            // Before it counts there: this process may be gone by then.
            if let Some(memory) = memory {
                memory.take_rule(slot.number, rule, slot.baseline);
            }
            slots.insert(rule.clone(), slot);
        }
        Ok(Assignment {
            slots,
            from_resting,
            from_unused,
        })
    }

    /// Whether there is room for the rules of a policy beside those in force.
    pub(super) fn check_room<'r>(
        &self,
        rules: impl Iterator<Item = &'r RuleId>,
    ) -> Result<(), ApplyError> {
        self.check(rules.filter(|rule| !self.taken.contains_key(*rule)).count())
    }

    fn check(&self, new: usize) -> Result<(), ApplyError> {
        let (count, limit) = (self.taken.len() + new, self.limit);
        if count <= limit as usize {
            return Ok(());
        }
        Err(ApplyError::Limit {
            what: "rules",
            count,
            limit,
            knob: "max_rules",
        })
    }

    /// Gives up an assignment whose policy was refused.
    pub(super) fn abandon(&self, backend: &dyn Backend, assignment: Assignment) {
        let Some(memory) = backend.slot_memory() else {
            return;
        };
        for (rule, slot) in assignment.slots {
            if self.taken.get(&rule).map(|taken| taken.number) != Some(slot.number) {
                memory.free_rule(slot.number);
            }
        }
    }

    /// Makes an assignment the one in force, once its policy is.
    pub(super) fn commit(&mut self, backend: &dyn Backend, assignment: Assignment) {
        self.inherited.clear();
        self.resting.drain(..assignment.from_resting);
        self.unused += assignment.from_unused;
        let before = std::mem::replace(&mut self.taken, assignment.slots);
        let kept: HashSet<u32> = self.taken.values().map(|s| s.number).collect();
        let freed = before
            .into_values()
            .map(|s| s.number)
            .filter(|n| !kept.contains(n));
        for number in freed {
            if let Some(memory) = backend.slot_memory() {
                memory.free_rule(number);
            }
            self.resting.push_back(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::recorder::Recorder;

    fn apply(slots: &mut RuleSlots, rules: &[&str]) -> Result<Vec<u32>, ApplyError> {
        let ids: Vec<RuleId> = rules.iter().map(|r| RuleId::new(r).unwrap()).collect();
        let backend = Recorder::default();
        let assignment = slots.assign(&backend, ids.iter())?;
        let numbers = ids.iter().map(|id| assignment.slot(id).number).collect();
        slots.commit(&backend, assignment);
        Ok(numbers)
    }

    #[test]
    fn a_rule_keeps_its_slot() {
        let mut slots = RuleSlots::new(8);
        assert_eq!(apply(&mut slots, &["a", "b"]).unwrap(), [0, 1]);
        assert_eq!(apply(&mut slots, &["c", "b", "a"]).unwrap(), [2, 1, 0]);
        assert_eq!(apply(&mut slots, &["b"]).unwrap(), [1]);
    }

    #[test]
    fn slots_are_taken_again_longest_rest_first() {
        let mut slots = RuleSlots::new(3);
        apply(&mut slots, &["a"]).unwrap();
        apply(&mut slots, &["b"]).unwrap();
        assert_eq!(apply(&mut slots, &["c"]).unwrap(), [2]);
        assert_eq!(apply(&mut slots, &["d"]).unwrap(), [0], "that of a");
        assert_eq!(apply(&mut slots, &["d", "e", "f"]).unwrap(), [0, 1, 2]);
    }

    #[test]
    fn old_and_new_rules_count_together() {
        let mut slots = RuleSlots::new(3);
        apply(&mut slots, &["a", "b"]).unwrap();
        let error = apply(&mut slots, &["c", "d"]).unwrap_err();
        assert!(error.to_string().contains("max_rules(4)"), "{error}");
        assert_eq!(
            apply(&mut slots, &["a", "b", "c"]).unwrap(),
            [0, 1, 2],
            "nothing was lost"
        );
    }
}
