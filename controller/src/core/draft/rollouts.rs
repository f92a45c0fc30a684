//! Commands that are about rollouts.

use std::sync::Arc;

use super::{Draft, Made, already_there, invalid, not_found};
use crate::core::records::Kind;
use crate::core::{Command, CommandError, EffectKind, ErrorKind, PlanChoice};
use crate::domain::{Mode, Name};
use crate::rollout::{Change, NamedPlan, Plan, Rollout, Start, State};

/// So many rollouts are kept; of more, those go that have been over for the longest time.
const MAX_ROLLOUTS: usize = 200;
/// What the kill switch says where it pauses a rollout.
const KILL_SWITCH: &str = "the kill switch put all nodes in dry run";

impl Draft<'_> {
    fn rollout(&self, name: &Name) -> Option<&Rollout> {
        match self.rollouts.get(name) {
            Some(drafted) => drafted.as_ref(),
            None => self.ground.view.rollouts.get(name).map(AsRef::as_ref),
        }
    }

    /// The rollout that decides which version of a policy nodes have.
    fn in_force(&self, policy: &Name) -> Option<Name> {
        let view = self.ground.view.rollouts.keys();
        let mut names = view.chain(self.rollouts.keys());
        let found = names.find(|name| {
            let rollout = self.rollout(name);
            rollout.is_some_and(|one| one.in_force && one.policy == policy.as_str())
        });
        found.cloned()
    }

    pub(super) fn start_rollout(&mut self, name: &Name, policy: &Name, plan: &PlanChoice) -> Made {
        let object = || format!("rollout/{name}");
        let ground = self.ground;
        if self.rollout(name).is_some() {
            return Err(already_there(object(), "rollout").mend("give it another name"));
        }
        if self.mode.unwrap_or(ground.view.mode) == Some(Mode::DryRun) {
            return Err(invalid(object(), "", KILL_SWITCH).mend("switch it off first"));
        }
        let before = ground.view.policies.get(policy);
        let to = match self.policies.get(policy) {
            Some(draft) => draft.version(before),
            None => before.map(|policy| policy.version),
        };
        let Some(to) = to else {
            return Err(not_found(format!("policy/{policy}"), "policy"));
        };
        let ended = self.in_force(policy);
        let other = ended.as_ref().and_then(|name| self.rollout(name));
        if let Some(other) = other.filter(|other| other.is_active()) {
            let reason = format!("rollout {} of this policy goes on", other.id);
            let error = CommandError::new(ErrorKind::Conflict, object(), reason);
            return Err(error
                .field("policy")
                .mend("abort it first, or wait for its end"));
        }
        // What nodes have, also where the same request has released it: never what was rolled back.
        let from = ground.view.released(policy);
        let Some(from) = from else {
            let reason = format!("policy {policy} is new, so there is no version to go back to");
            return Err(invalid(object(), "policy", reason).mend("create it without a rollout"));
        };
        if from >= to {
            let reason =
                format!("policy {policy} has nothing newer than version {from}, which nodes have");
            return Err(invalid(object(), "policy", reason).mend("change it in the same request"));
        }
        let plan = self.plan(plan)?;
        let nodes = ground
            .view
            .nodes_with(policy)
            .filter(|node| !node.maintenance);
        let nodes = nodes.map(|node| node.id.as_str());
        let start = Start {
            id: name.as_str(),
            policy: policy.as_str(),
            from,
            to,
            plan: &plan,
            by: &ground.touch.by,
            why: &ground.touch.why,
            now: ground.now,
        };
        let started = Rollout::start(&start, nodes);
        let started = started.map_err(|error| invalid(object(), &error.field, error.reason))?;
        if let Some(ended) = ended {
            self.change(
                &ended,
                &Change::Release,
                &format!("rollout {name} goes on from here"),
            )?;
        }
        self.rollouts.insert(name.clone(), Some(started));
        self.forget_oldest();
        Ok(EffectKind::Created)
    }

    pub(super) fn change_rollout(&mut self, name: &Name, change: &Change) -> Made {
        if *change == Change::Resume
            && self.mode.unwrap_or(self.ground.view.mode) == Some(Mode::DryRun)
        {
            let error = invalid(format!("rollout/{name}"), "", KILL_SWITCH);
            return Err(error.mend("switch it off first"));
        }
        let why = self.ground.touch.why.clone();
        self.change(name, change, &why)
    }

    fn change(&mut self, name: &Name, change: &Change, why: &str) -> Made {
        let object = format!("rollout/{name}");
        let Some(rollout) = self.rollout(name) else {
            return Err(not_found(object, "rollout"));
        };
        let mut rollout = rollout.clone();
        let touch = &self.ground.touch;
        match rollout.change(change, &touch.by, why, self.ground.now) {
            Ok(true) => {
                self.rollouts.insert(name.clone(), Some(rollout));
                Ok(EffectKind::Replaced)
            }
            Ok(false) => Ok(EffectKind::Unchanged),
            Err(reason) => Err(CommandError::new(ErrorKind::Conflict, object, reason)),
        }
    }

    pub(super) fn release_policy(&mut self, policy: &Name) -> Made {
        match self.in_force(policy) {
            Some(name) => self.change_rollout(&name, &Change::Release),
            None => Ok(EffectKind::Unchanged),
        }
    }

    /// A policy that is put whole reaches all nodes again, where a rollout ended with the former version. Changes of parts
    /// are refused then: with them would go what was rolled back.
    pub(super) fn released_by(&mut self, command: &Command) -> Result<(), CommandError> {
        let Some((Kind::Policy, policy)) = command.owner() else {
            return Ok(());
        };
        let Some(name) = self.in_force(&policy) else {
            return Ok(());
        };
        let Some(rollout) = self.rollout(&name) else {
            return Ok(());
        };
        let object = || format!("policy/{policy}");
        match command {
            Command::ReleasePolicy { .. } => Ok(()),
            Command::DeletePolicy { .. } if rollout.is_active() => {
                let reason = format!("rollout {name} of it goes on");
                let error = CommandError::new(ErrorKind::InUse, object(), reason);
                Err(error.mend("abort it first"))
            }
            // It makes a version that reaches nobody until the rollout ends.
            _ if rollout.is_active() => Ok(()),
            Command::CreatePolicy { .. }
            | Command::PutPolicy { .. }
            | Command::RevertPolicy { .. }
            | Command::DeletePolicy { .. } => {
                let why = "the policy was put anew";
                self.change(&name, &Change::Release, why).map(drop)
            }
            _ => {
                let reason = format!(
                    "nodes have version {}, because rollout {name} ended with it, and this change would bring them version {} too",
                    rollout.from, rollout.to
                );
                let error = CommandError::new(ErrorKind::Conflict, object(), reason);
                Err(error.mend(format!(
                    "revert to version {} first, put the policy whole, or release it",
                    rollout.from
                )))
            }
        }
    }

    /// Pauses what runs: in dry run no gate sees what a policy does.
    pub(super) fn pause_all(&mut self) {
        let names: Vec<Name> = self.ground.view.rollouts.keys().cloned().collect();
        for name in names {
            let runs = |rollout: &Rollout| rollout.state == State::Running;
            if self.rollout(&name).is_some_and(runs) {
                // What runs can be paused.
                let _ = self.change(&name, &Change::Pause, KILL_SWITCH);
                let words = self.words.entry((Kind::Rollout, name)).or_default();
                words.push(format!("paused: {KILL_SWITCH}"));
            }
        }
    }

    fn plan(&self, choice: &PlanChoice) -> Result<Plan, CommandError> {
        let name = match choice {
            PlanChoice::Given(plan) => return Ok(plan.clone()),
            PlanChoice::Named(name) => name,
        };
        let plan = match self.plans.get(name) {
            Some(drafted) => drafted.as_ref(),
            None => self.ground.view.plans.get(name).map(Arc::as_ref),
        };
        match plan {
            Some(named) => Ok(named.plan.clone()),
            None if name.as_str() == "default" => Ok(Plan::default()),
            None => Err(not_found(format!("rollout-plan/{name}"), "plan")),
        }
    }

    pub(super) fn put_plan(&mut self, name: &Name, content: &Plan) -> Made {
        let checked = content.check();
        checked.map_err(|e| invalid(format!("rollout-plan/{name}"), &e.field, e.reason))?;
        let before = self.ground.view.plans.get(name);
        let same = before.is_some_and(|before| before.plan == *content);
        let plan = NamedPlan {
            name: name.clone(),
            version: before.map_or(0, |before| before.version) + 1,
            plan: content.clone(),
            updated: self.ground.touch.clone(),
        };
        self.plans.insert(name.clone(), Some(plan));
        Ok(match (before, same) {
            (None, _) => EffectKind::Created,
            (_, true) => EffectKind::Unchanged,
            (_, false) => EffectKind::Replaced,
        })
    }

    pub(super) fn delete_plan(&mut self, name: &Name) -> Made {
        let there = self.ground.view.plans.contains_key(name);
        self.plans.insert(name.clone(), None);
        Ok(match there {
            true => EffectKind::Removed,
            false => EffectKind::Unchanged,
        })
    }

    fn forget_oldest(&mut self) {
        let rollouts = &self.ground.view.rollouts;
        let over = rollouts.iter().filter(|(name, rollout)| {
            !rollout.in_force && !rollout.is_active() && !self.rollouts.contains_key(*name)
        });
        let last = |rollout: &Rollout| rollout.events.last().map(|event| event.at);
        let mut over: Vec<_> = over.map(|(name, one)| (last(one), name.clone())).collect();
        over.sort();
        let many = (rollouts.len() + 1).saturating_sub(MAX_ROLLOUTS);
        for (_, name) in over.into_iter().take(many) {
            self.rollouts.insert(name, None);
        }
    }
}

/// A plan, if it is another than before.
pub(super) fn finish_plan(plan: NamedPlan, before: Option<&NamedPlan>) -> Option<NamedPlan> {
    let same = before.is_some_and(|before| before.plan == plan.plan);
    (!same).then_some(plan)
}
