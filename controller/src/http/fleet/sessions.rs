//! The sessions of this controller as a [`FleetView`].

use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::{BoxStream, StreamExt as _};
use serde::Serialize;
use serde_json::{Value, json};
use xdpgate_api::v1::{WatchEventsRequest, WatchEventsResponse};

use super::{FleetError, FleetView, Scope};
use crate::domain::{Name, NodeId};
use crate::fleet::{self, AskError, Delivery, Fleet, State, Steps};

/// For lists.
#[derive(Serialize)]
struct Short {
    state: State,
    #[serde(flatten)]
    delivery: Delivery,
    panic_off: bool,
}

#[async_trait]
impl FleetView for Fleet {
    fn status(&self, node: &NodeId) -> Option<Value> {
        Self::status(self, node).map(|status| value(&status))
    }

    fn state(&self, node: &NodeId) -> Option<Value> {
        let (state, delivery, panic_off) = Self::state(self, node)?;
        Some(value(&Short {
            state,
            delivery,
            panic_off,
        }))
    }

    fn version(&self, node: &NodeId) -> Option<String> {
        Self::status(self, node).map(|status| status.version)
    }

    fn overview(&self) -> Value {
        value(&*Self::overview(self))
    }

    fn overview_of(&self, group: &Name) -> Option<Value> {
        Self::overview_of(self, group).map(|overview| value(&overview))
    }

    fn history(&self, coarse: bool) -> Value {
        let steps = if coarse { Steps::Coarse } else { Steps::Fine };
        let step = steps.length().as_secs();
        json!({ "step_seconds": step, "samples": Self::history(self, steps) })
    }

    fn sync(&self, node: &NodeId) -> bool {
        Self::sync(self, node)
    }

    fn sync_all(&self) -> usize {
        Self::sync_all(self)
    }

    async fn progress(&self, scope: &Scope, wait: Option<(f64, Duration)>) -> Value {
        let scope = match scope {
            Scope::Revision(revision) => fleet::Scope::Revision(*revision),
            Scope::Policy(name, version) => fleet::Scope::Policy(name.clone(), *version),
        };
        let progress = match wait {
            None => Self::progress(self, &scope),
            Some((share, within)) => self.wait(&scope, share, within).await,
        };
        value(&progress)
    }

    async fn rule_counters(
        &self,
        node: &NodeId,
        ids: Vec<String>,
        within: Duration,
    ) -> Result<Value, FleetError> {
        let counters = Self::rule_counters(self, node, ids, within).await;
        let counters = counters?.into_iter().map(|rule| {
            json!({
                "id": rule.id,
                "packets": rule.packets,
                "bytes": rule.bytes,
                "dropped_packets": rule.dropped_packets,
                "would_drop_packets": rule.would_drop_packets,
                "rate_overflow_packets": rule.rate_overflow_packets,
            })
        });
        Ok(json!({ "rules": counters.collect::<Vec<_>>() }))
    }

    fn drops(
        &self,
        node: &NodeId,
        request: WatchEventsRequest,
    ) -> Result<BoxStream<'static, WatchEventsResponse>, FleetError> {
        Ok(self.watch_events(node, request)?.boxed())
    }

    fn events(&self) -> BoxStream<'static, Value> {
        Self::events(self).map(|event| value(&event)).boxed()
    }
}

impl From<AskError> for FleetError {
    fn from(error: AskError) -> Self {
        let text = error.to_string();
        match error {
            AskError::TooMany(_) => Self::Invalid(text),
            AskError::Silent(..) => Self::Timeout(text),
            _ => Self::Unavailable(text),
        }
    }
}

fn value(of: &impl Serialize) -> Value {
    serde_json::to_value(of).unwrap_or_default()
}
