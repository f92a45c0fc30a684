//! What controllers ask each other, and the answers: JSON, in the forms that the API has.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tonic::Status;

use crate::domain::{Name, NodeId};
use crate::fleet::{Filter, Fleet, Part, Scope, Steps};
use crate::http::{FleetError, FleetView};

/// A question about the nodes of the controller that is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Question {
    /// Sums over them, or over those that are in a group.
    Overview { group: Option<Name> },
    /// Those that meet a filter.
    Find(Filter),
    /// How far a change has come.
    Progress(Scope),
    /// All that is known of one.
    Status(NodeId),
    /// Counters of rules at one.
    RuleCounters {
        node: NodeId,
        rules: Vec<String>,
        within: Duration,
    },
    /// Send one, or all, what they shall have; the answer is how many these are.
    Sync(Option<NodeId>),
    /// The samples of the last hour and of the last day.
    History,
}

/// Answers. NOT_FOUND: the node, or the group, is not known here.
pub(super) async fn answer(fleet: &Fleet, question: Question) -> Result<String, Status> {
    let here = |node: &NodeId| here(fleet, node);
    match question {
        Question::Overview { group } => {
            let none = || Status::not_found("there is no such group yet");
            let sum = look(fleet, move |fleet| fleet.sum(group.as_ref(), &Part::Own));
            json(&sum.await?.ok_or_else(none)?)
        }
        Question::Find(filter) => {
            let view = fleet.targets().view.clone();
            json(&look(fleet, move |fleet| fleet.find(&view, &filter, &Part::Own)).await?)
        }
        Question::Progress(scope) => {
            json(&look(fleet, move |fleet| fleet.progress_of(&scope, &Part::Own)).await?)
        }
        Question::Status(node) => {
            here(&node)?;
            let none = || Status::not_found(format!("{node} is not registered"));
            json(&Fleet::status(fleet, &node).ok_or_else(none)?)
        }
        Question::RuleCounters {
            node,
            rules,
            within,
        } => {
            here(&node)?;
            let counters = FleetView::rule_counters(fleet, &node, rules, within).await;
            json(&counters.map_err(status)?)
        }
        Question::Sync(Some(node)) => {
            here(&node)?;
            json(&usize::from(Fleet::sync(fleet, &node)))
        }
        Question::Sync(None) => json(&Fleet::sync_all(fleet)),
        Question::History => json(&(fleet.history(Steps::Fine), fleet.history(Steps::Coarse))),
    }
}

/// Whether a node is not at another controller.
pub(super) fn here(fleet: &Fleet, node: &NodeId) -> Result<(), Status> {
    match fleet.whereabouts(node) {
        None => Ok(()),
        Some(_) => Err(Status::not_found(format!(
            "{node} is at another controller"
        ))),
    }
}

pub(super) fn status(error: FleetError) -> Status {
    match error {
        FleetError::Invalid(text) => Status::invalid_argument(text),
        FleetError::Unavailable(text) => Status::failed_precondition(text),
        FleetError::Timeout(text) => Status::aborted(text),
    }
}

/// Off the threads that serve: it may be many nodes.
async fn look<T: Send + 'static>(
    fleet: &Fleet,
    look: impl FnOnce(&Fleet) -> T + Send + 'static,
) -> Result<T, Status> {
    let fleet = fleet.clone();
    let done = tokio::task::spawn_blocking(move || look(&fleet)).await;
    done.map_err(|error| Status::internal(error.to_string()))
}

fn json(answer: &impl Serialize) -> Result<String, Status> {
    serde_json::to_string(answer).map_err(|error| Status::internal(error.to_string()))
}
