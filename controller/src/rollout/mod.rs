//! Staged rollouts: a new version of a policy reaches a few nodes first, then more, and goes back by itself where it
//! does harm.
//!
//! A rollout is a record; [`step`] says what comes next, from what was observed. It looks at no clock and at no
//! store, so whoever takes a step does it by one compare-and-swap of the record: several controllers may try, one
//! makes it, and a controller that is killed in between leaves the record at a step, never within one.
//!
//! Which version a node has follows from the record and the node alone ([`Rollout::reaches`]): nothing is written per node.

//!
//! | file | what |
//! |---|---|
//! | `plan`, `start` | what is asked for, and the record that comes of it |
//! | `gates` | what ends a rollout |
//! | `change` | what people and [`step`] do to a record; its history |
//! | `reached` | a record made ready to be asked about many nodes |
//! | `tracker` | what one controller sees of the nodes of its sessions |
//! | `status` | what controllers tell each other, and what comes of it together |
//! | `executor` | takes the steps, on every controller |

mod change;
mod executor;
mod gates;
mod plan;
mod reached;
mod start;
mod status;
mod tracker;

pub use change::{Change, Event, MAX_EVENTS, What};
pub use executor::{Config, Executor, Look, Looks};
pub use gates::{Gates, Observed, Seen, Trouble};
pub use plan::{
    MAX_CANARIES, MAX_STAGES, NamedPlan, Plan, PlanError, Planned, PlannedStage, Reach, Stage, rank,
};
pub use reached::{Reached, StageNodes};
pub use start::Start;
pub use tracker::{Answer, Observer, Sight};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A version of a policy on its way to the nodes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Rollout {
    /// Its identity; it decides by which nodes percentages begin.
    pub id: String,
    /// Grows with each change of the record; who changes it names the one that was read.
    pub version: u64,
    /// The policy.
    pub policy: String,
    /// The version that nodes have until they are reached, and again if it is aborted or rolled back.
    pub from: u64,
    /// The version that they get.
    pub to: u64,
    /// The stages, each reaching more nodes; the last one reaches all.
    pub stages: Vec<Stage>,
    /// What ends it.
    pub gates: Gates,
    /// How far it is.
    pub state: State,
    /// Whether it decides which version nodes have: while it goes on, and where it ended with the former version until
    /// the policy is released anew.
    pub in_force: bool,
    /// The stage that is reached, from 0.
    pub stage: usize,
    /// Since when it is in this stage, without the time in which it was paused.
    #[schema(value_type = String, format = "date-time")]
    pub since: Timestamp,
    /// Since when it is paused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = "date-time")]
    pub paused_at: Option<Timestamp>,
    /// Why it is paused, aborted or rolled back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What happened, oldest first: up to [`MAX_EVENTS`]; of more, those in the middle are left out.
    #[serde(default)]
    pub events: Vec<Event>,
    /// How many events were left out.
    #[serde(default)]
    pub events_left_out: u64,
}

/// How far a rollout is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It goes on by itself.
    Running,
    /// It waits for somebody to resume or abort it; nodes keep what they have.
    Paused,
    /// All nodes have the new version.
    Done,
    /// Somebody ended it; all nodes have the former version.
    Aborted,
    /// A gate ended it; all nodes have the former version.
    RolledBack,
}

/// What comes next.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Nothing yet, and why: for people.
    Wait(String),
    /// The next stage.
    Advance,
    /// All nodes have it.
    Finish,
    /// Back to the former version, everywhere.
    RollBack(Trouble),
}

impl Rollout {
    /// Whether it goes on, by itself or after a pause.
    pub fn is_active(&self) -> bool {
        matches!(self.state, State::Running | State::Paused)
    }

    /// Whether a node has the new version: by its id and labels alone.
    pub fn reaches(&self, node: &str, selects: impl Fn(&str) -> bool) -> bool {
        match self.state {
            State::Done => true,
            State::Aborted | State::RolledBack => false,
            State::Running | State::Paused => self
                .stages
                .iter()
                .take(self.stage + 1)
                .any(|stage| stage.reach.holds(&self.id, node, &selects)),
        }
    }
}

/// Whether all nodes of the stage that are here have it. A stage that nobody has taken has proved nothing, but for the last one.
pub(super) fn is_taken(rollout: &Rollout, observed: &Observed) -> bool {
    let is_last = rollout.stage + 1 >= rollout.stages.len();
    observed.pending == 0 && (observed.applied > 0 || is_last)
}

/// What comes next of a rollout that runs, at a time. `taken` is since when `is_taken` holds: baking begins then.
pub fn step(
    rollout: &Rollout,
    observed: &Observed,
    taken: Option<Timestamp>,
    now: Timestamp,
) -> Step {
    if rollout.state != State::Running {
        return Step::Wait("it does not run".to_owned());
    }
    if let Some(trouble) = rollout.gates.trouble(observed) {
        return Step::RollBack(trouble);
    }
    if observed.pending > 0 {
        return Step::Wait(format!(
            "{} of {} nodes have not answered",
            observed.pending, observed.reached
        ));
    }
    let Some(stage) = rollout.stages.get(rollout.stage) else {
        return Step::Finish;
    };
    if !is_taken(rollout, observed) {
        let text = match observed.offline {
            0 => "the stage reaches no node: add one, or abort".to_owned(),
            away => format!("none of the {away} nodes of the stage is here"),
        };
        return Step::Wait(text);
    }
    // The time of a pause moves `since`.
    let begin = taken.unwrap_or(now).max(rollout.since);
    let left = i64::from(stage.bake_seconds) - now.duration_since(begin).as_secs();
    if left > 0 {
        return Step::Wait(format!("{left} s of baking are left"));
    }
    match rollout.stage + 1 == rollout.stages.len() {
        true => Step::Finish,
        false => Step::Advance,
    }
}

#[cfg(test)]
mod tests;
