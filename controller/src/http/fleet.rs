//! What handlers ask of the sessions of nodes.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use serde_json::{Value, json};

use crate::domain::{Name, NodeId};

/// Which change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// All that the nodes shall have as of a transaction of the store.
    Revision(u64),
    /// A version of a policy, or a later one: over the nodes that have the policy.
    Policy(Name, u64),
}

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
    fn status(&self, node: &NodeId) -> Option<Value>;
    /// Its state in one word and what became of what it shall have: `{"state": ..., "delivery": ...}`.
    fn state(&self, node: &NodeId) -> Option<Value>;
    /// The version of its daemon, if it was ever here.
    fn version(&self, node: &NodeId) -> Option<String>;
    /// The whole fleet: totals, rates, top rules, how many nodes are in each state.
    fn overview(&self) -> Value;
    /// Likewise of a group; `None` if there is no such group.
    fn overview_of(&self, group: &Name) -> Option<Value>;
    /// The rates of the last hour in steps of 5 s, or (`coarse`) of the last day in steps of a minute.
    fn history(&self, coarse: bool) -> Value;
    /// Sends a node all that it shall have, whatever it has. Whether it is here.
    fn sync(&self, node: &NodeId) -> bool;
    /// Likewise all nodes; returns how many are here.
    fn sync_all(&self) -> usize;
    /// How far a change has come: now, or when a share of the nodes (0 to 1) has it, or when the time is up.
    async fn progress(&self, scope: &Scope, wait: Option<(f64, Duration)>) -> Value;
    /// The counters of rules at a node.
    async fn rule_counters(
        &self,
        node: &NodeId,
        ids: Vec<String>,
        within: Duration,
    ) -> Result<Value, FleetError>;
    /// What happens, each with its kind as `event`.
    fn events(&self) -> BoxStream<'static, Value>;
}

/// A controller without sessions, as for tests: no node was ever here.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoFleet;

#[async_trait]
impl FleetView for NoFleet {
    fn status(&self, _: &NodeId) -> Option<Value> {
        None
    }

    fn state(&self, _: &NodeId) -> Option<Value> {
        None
    }

    fn version(&self, _: &NodeId) -> Option<String> {
        None
    }

    fn overview(&self) -> Value {
        json!({ "nodes": 0, "online": 0, "fresh": 0 })
    }

    fn overview_of(&self, _: &Name) -> Option<Value> {
        Some(self.overview())
    }

    fn history(&self, _: bool) -> Value {
        json!([])
    }

    fn sync(&self, _: &NodeId) -> bool {
        false
    }

    fn sync_all(&self) -> usize {
        0
    }

    async fn progress(&self, _: &Scope, _: Option<(f64, Duration)>) -> Value {
        json!({ "seen": true, "applied": 0, "refused": [], "pending": [], "offline": [] })
    }

    async fn rule_counters(
        &self,
        node: &NodeId,
        _: Vec<String>,
        _: Duration,
    ) -> Result<Value, FleetError> {
        Err(FleetError::Unavailable(format!("{node} is not connected")))
    }

    fn events(&self) -> BoxStream<'static, Value> {
        stream::pending().boxed()
    }
}
