//! What handlers ask of the sessions of nodes: those of this controller ([`Fleet`](crate::fleet::Fleet)), or those of all
//! ([`Peers`](crate::peers::Peers)).

mod sessions;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use serde_json::Value;
use xdpgate_api::v1::{WatchEventsRequest, WatchEventsResponse};

use crate::core::View;
use crate::domain::{Name, NodeId};
pub use crate::fleet::Scope;
use crate::fleet::{Filter, Found};
use crate::peers::Answered;

/// Why a node does not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FleetError {
    /// The question cannot be asked so.
    Invalid(String),
    /// It is not connected, or too much is asked already.
    Unavailable(String),
    /// It did not answer in time.
    Timeout(String),
}

/// The sessions of nodes, as JSON for people and programs.
#[async_trait]
pub trait FleetView: Debug + Send + Sync + 'static {
    /// All that is known of a node; `None` if there is none of this identity.
    async fn status(&self, node: &NodeId) -> Option<Value>;
    /// Nodes as a view has them, each with its state in one word and what became of what it shall have:
    /// `{"state": ..., "delivery": ...}`.
    async fn find(&self, view: Arc<View>, filter: Filter) -> (Found, Option<Answered>);
    /// The whole fleet: totals, rates, top rules, how many nodes are in each state.
    async fn overview(&self) -> Value;
    /// Likewise of a group; `None` if there is no such group.
    async fn overview_of(&self, group: &Name) -> Option<Value>;
    /// The rates of the last hour in steps of 5 s, or (`coarse`) of the last day in steps of a minute.
    fn history(&self, coarse: bool) -> Value;
    /// Sends a node all that it shall have, whatever it has. Whether it is here.
    async fn sync(&self, node: &NodeId) -> bool;
    /// Likewise all nodes; returns how many are here.
    async fn sync_all(&self) -> (usize, Option<Answered>);
    /// How far a change has come: now, or when a share of the nodes (0 to 1) has it, or when the time is up.
    async fn progress(&self, scope: &Scope, wait: Option<(f64, Duration)>) -> Value;
    /// The counters of rules at a node.
    async fn rule_counters(
        &self,
        node: &NodeId,
        ids: Vec<String>,
        within: Duration,
    ) -> Result<Value, FleetError>;
    /// Sampled drops of a node, until the stream is dropped or the session of the node ends.
    fn drops(
        &self,
        node: &NodeId,
        request: WatchEventsRequest,
    ) -> Result<BoxStream<'static, WatchEventsResponse>, FleetError>;
    /// What happens, each with its kind as `event`.
    fn events(&self) -> BoxStream<'static, Value>;
    /// The controllers, where there may be several.
    async fn controllers(&self) -> Vec<Value>;
}
