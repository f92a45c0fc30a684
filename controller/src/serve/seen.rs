//! The sessions of nodes, as the API shows them.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::{BoxStream, StreamExt as _};
use serde::Serialize;
use serde_json::{Value, json};

use crate::domain::{Name, NodeId};
use crate::fleet::{self, AskError, Fleet, Steps};
use crate::http::{FleetError, FleetView, Scope};

#[derive(Debug)]
pub(super) struct Seen(pub Fleet);

#[async_trait]
impl FleetView for Seen {
    fn status(&self, node: &NodeId) -> Option<Value> {
        self.0.status(node).map(json)
    }

    fn state(&self, node: &NodeId) -> Option<Value> {
        let (state, delivery) = self.0.state(node)?;
        let mut value = json(delivery);
        value["state"] = json(state);
        Some(value)
    }

    fn version(&self, node: &NodeId) -> Option<String> {
        let status = self.0.status(node)?;
        Some(status.version).filter(|version| !version.is_empty())
    }

    fn overview(&self) -> Value {
        json(&*self.0.overview())
    }

    fn overview_of(&self, group: &Name) -> Option<Value> {
        self.0.overview_of(group).map(json)
    }

    fn history(&self, coarse: bool) -> Value {
        json(self.0.history(match coarse {
            true => Steps::Coarse,
            false => Steps::Fine,
        }))
    }

    fn sync(&self, node: &NodeId) -> bool {
        self.0.sync(node)
    }

    fn sync_all(&self) -> usize {
        self.0.sync_all()
    }

    async fn progress(&self, scope: &Scope, wait: Option<(f64, Duration)>) -> Value {
        let scope = match scope {
            Scope::Revision(revision) => fleet::Scope::Revision(*revision),
            Scope::Policy(policy, version) => fleet::Scope::Policy(policy.clone(), *version),
        };
        let progress = match wait {
            Some((share, within)) => self.0.wait(&scope, share, within).await,
            None => self.0.progress(&scope),
        };
        let refused: Vec<Value> = progress
            .refused
            .iter()
            .map(|(node, reason, error)| json!({ "node": node, "reason": reason, "error": error }))
            .collect();
        let mut value = json(&progress);
        value["refused"] = refused.into();
        value
    }

    async fn rule_counters(
        &self,
        node: &NodeId,
        ids: Vec<String>,
        within: Duration,
    ) -> Result<Value, FleetError> {
        let rules = self.0.rule_counters(node, ids, within).await;
        let rules = rules.map_err(|error| match &error {
            AskError::TooMany(_) => FleetError::Invalid(error.to_string()),
            AskError::Silent(..) => FleetError::Timeout(error.to_string()),
            _ => FleetError::Unavailable(error.to_string()),
        })?;
        Ok(rules
            .iter()
            .map(|rule| {
                json!({
                    "id": rule.id,
                    "packets": rule.packets,
                    "bytes": rule.bytes,
                    "dropped_packets": rule.dropped_packets,
                    "would_drop_packets": rule.would_drop_packets,
                    "rate_overflow_packets": rule.rate_overflow_packets,
                })
            })
            .collect())
    }

    fn events(&self) -> BoxStream<'static, Value> {
        self.0.events().map(json).boxed()
    }
}

/// What the sessions say is made of texts and numbers, so this does not fail.
fn json(value: impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}
