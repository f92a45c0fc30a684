//! The sessions of this controller as a [`FleetView`].

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::{BoxStream, StreamExt as _};
use serde::Serialize;
use serde_json::{Value, json};
use xdpgate_api::v1::{WatchEventsRequest, WatchEventsResponse};

use super::{FleetError, FleetView, Scope};
use crate::core::View;
use crate::domain::{Name, NodeId};
use crate::fleet::{AskError, Filter, Fleet, Found, Part, Steps};
use crate::peers::Answered;

#[async_trait]
impl FleetView for Fleet {
    async fn status(&self, node: &NodeId) -> Option<Value> {
        Self::status(self, node).map(|status| value(&status))
    }

    async fn find(&self, view: Arc<View>, filter: Filter) -> (Found, Option<Answered>) {
        let fleet = self.clone();
        let look = move || Self::find(&fleet, &view, &filter, &Part::default());
        let found = tokio::task::spawn_blocking(look).await;
        (found.unwrap_or_default(), None)
    }

    async fn overview(&self) -> Value {
        value(&*Self::overview(self))
    }

    async fn overview_of(&self, group: &Name) -> Option<Value> {
        let (fleet, group) = (self.clone(), group.clone());
        let sum = tokio::task::spawn_blocking(move || Self::overview_of(&fleet, &group)).await;
        sum.ok().flatten().map(|overview| value(&overview))
    }

    fn history(&self, coarse: bool) -> Value {
        let steps = if coarse { Steps::Coarse } else { Steps::Fine };
        let step = steps.length().as_secs();
        json!({ "step_seconds": step, "samples": Self::history(self, steps) })
    }

    async fn sync(&self, node: &NodeId) -> bool {
        Self::sync(self, node)
    }

    async fn sync_all(&self) -> (usize, Option<Answered>) {
        (Self::sync_all(self), None)
    }

    async fn progress(&self, scope: &Scope, wait: Option<(f64, Duration)>) -> Value {
        let progress = match wait {
            None => Self::progress(self, scope),
            Some((share, within)) => self.wait(scope, share, within).await,
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

    async fn controllers(&self) -> Vec<Value> {
        Vec::new()
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
