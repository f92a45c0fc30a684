//! The nodes of all controllers as one [`FleetView`].

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;
use tonic::{Code, Status};
use xdpgate_api::v1::{WatchEventsRequest, WatchEventsResponse};

use super::question::Question;
use super::{Answered, BOUND, Peers};
use crate::core::View;
use crate::domain::{Name, NodeId};
use crate::fleet::{Filter, Found, Progress, Scope};
use crate::http::{FleetError, FleetView};

/// An overview may be so old.
const RECENT: Duration = Duration::from_secs(1);
/// How far a change has come is not asked more often than each so long, nor within ten times what asking takes, but for the last.
const LOOK: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// How often a question follows a node that moves.
const MOVES: usize = 3;

/// Who has a node.
enum Holder<T> {
    /// This controller, or nobody: it knows as much as all.
    Here,
    /// Another one, and what it answers.
    There(Result<T, Status>),
}

impl Peers {
    /// Asks whoever has a node, where that is not this controller.
    async fn ask_holder<T: serde::de::DeserializeOwned>(
        &self,
        node: &NodeId,
        question: &Question,
        within: Duration,
    ) -> Holder<T> {
        let mut last = Status::unavailable(format!("{node} moves from controller to controller"));
        for _ in 0..MOVES {
            let Some(link) = self.holder(node) else {
                return Holder::Here;
            };
            match link.ask(question, within).await {
                // It has moved, and the news of that is on its way.
                Err(status) if status.code() == Code::NotFound => {
                    last = status;
                    tokio::time::sleep(LOOK.0).await;
                }
                answer => return Holder::There(answer),
            }
        }
        Holder::There(Err(last))
    }

    async fn progress_now(&self, scope: &Scope) -> (Progress, Answered) {
        let question = Question::Progress(scope.clone());
        let (answers, others) = self.everyone::<Progress>(&question).await;
        let (scope, answered) = (scope.clone(), Answered::of(&others));
        let rest = self.blocking(others, move |fleet, part| fleet.progress_of(&scope, part));
        (
            answers.into_iter().fold(rest.await, Progress::join),
            answered,
        )
    }

    /// How far the newest change has come, as an event.
    pub(super) async fn progress_event(&self) -> Value {
        let revision = self.0.fleet.targets().revision;
        let (progress, answered) = self.progress_now(&Scope::Revision(revision)).await;
        let event = progress.event(revision);
        answered.with(serde_json::to_value(event).unwrap_or_default())
    }
}

#[async_trait]
impl FleetView for Peers {
    async fn status(&self, node: &NodeId) -> Option<Value> {
        let question = Question::Status(node.clone());
        let by = self.holder(node).map(|link| Arc::clone(&link.name));
        let (mut status, by) = match self.ask_holder::<Value>(node, &question, BOUND).await {
            Holder::Here => {
                let status = FleetView::status(&self.0.fleet, node).await?;
                let is_here = status
                    .get("connected_since")
                    .is_some_and(|at| !at.is_null());
                (status, is_here.then(|| self.0.me.as_str().into()))
            }
            Holder::There(Ok(status)) => (status, by),
            Holder::There(Err(_)) => (json!({ "state": "unknown" }), by),
        };
        if let (Some(status), Some(by)) = (status.as_object_mut(), by) {
            status.insert("controller".to_owned(), json!(by.as_ref()));
        }
        Some(status)
    }

    async fn find(&self, view: Arc<View>, filter: Filter) -> (Found, Option<Answered>) {
        let question = Question::Find(filter.clone());
        let (answers, others) = self.everyone::<Found>(&question).await;
        let answered = Answered::of(&others);
        let local = filter.clone();
        let rest = self.blocking(others, move |fleet, part| fleet.find(&view, &local, part));
        let rest = rest.await;
        let found = filter.join(answers.into_iter().chain([rest]));
        (found, Some(answered))
    }

    async fn overview(&self) -> Value {
        if let Some((at, overview)) = &*self.recent()
            && at.elapsed() < RECENT
        {
            return overview.clone();
        }
        let (overview, answered) = self.sum(None).await;
        let overview = answered.with(serde_json::to_value(overview).unwrap_or_default());
        *self.recent() = Some((Instant::now(), overview.clone()));
        overview
    }

    async fn overview_of(&self, group: &Name) -> Option<Value> {
        let (overview, answered) = self.sum(Some(group)).await;
        let overview = serde_json::to_value(overview?).unwrap_or_default();
        Some(answered.with(overview))
    }

    fn history(&self, coarse: bool) -> Value {
        FleetView::history(&self.0.fleet, coarse)
    }

    async fn sync(&self, node: &NodeId) -> bool {
        let question = Question::Sync(Some(node.clone()));
        match self.ask_holder::<usize>(node, &question, BOUND).await {
            Holder::Here => self.0.fleet.sync(node),
            Holder::There(synced) => synced.is_ok_and(|nodes| nodes > 0),
        }
    }

    async fn sync_all(&self) -> (usize, Option<Answered>) {
        let (answers, others) = self.everyone::<usize>(&Question::Sync(None)).await;
        let nodes = self.0.fleet.sync_all() + answers.into_iter().sum::<usize>();
        (nodes, Some(Answered::of(&others)))
    }

    async fn progress(&self, scope: &Scope, wait: Option<(f64, Duration)>) -> Value {
        let end = Instant::now() + wait.map_or(Duration::ZERO, |(_, within)| within);
        let share = wait.map_or(0.0, |(share, _)| share);
        loop {
            let began = Instant::now();
            let (progress, answered) = self.progress_now(scope).await;
            let now = Instant::now();
            if progress.is_over(share) || now >= end {
                return answered.with(serde_json::to_value(progress).unwrap_or_default());
            }
            let pause = (10 * (now - began)).clamp(LOOK.0, LOOK.1);
            sleep_until((now + pause).min(end)).await;
        }
    }

    async fn rule_counters(
        &self,
        node: &NodeId,
        rules: Vec<String>,
        within: Duration,
    ) -> Result<Value, FleetError> {
        let question = Question::RuleCounters {
            node: node.clone(),
            rules: rules.clone(),
            within,
        };
        match self.ask_holder(node, &question, within + BOUND).await {
            Holder::Here => FleetView::rule_counters(&self.0.fleet, node, rules, within).await,
            Holder::There(answer) => answer.map_err(|status| {
                let text = status.message().to_owned();
                match status.code() {
                    Code::InvalidArgument => FleetError::Invalid(text),
                    Code::Aborted | Code::DeadlineExceeded => FleetError::Timeout(text),
                    _ => FleetError::Unavailable(text),
                }
            }),
        }
    }

    fn drops(
        &self,
        node: &NodeId,
        request: WatchEventsRequest,
    ) -> Result<BoxStream<'static, WatchEventsResponse>, FleetError> {
        match self.holder(node) {
            None => FleetView::drops(&self.0.fleet, node, request),
            Some(link) => Ok(link.drops(node, request)),
        }
    }

    fn events(&self) -> BoxStream<'static, Value> {
        let events = BroadcastStream::new(self.0.events.subscribe());
        let event = |event| match event {
            Ok(event) => event,
            Err(BroadcastStreamRecvError::Lagged(events)) => {
                json!({ "event": "lost", "events": events })
            }
        };
        events.map(event).boxed()
    }

    async fn controllers(&self) -> Vec<Value> {
        let presences = self.0.presences.lock().await;
        let row = |presence: &super::Presence, state: &str| {
            json!({
                "name": presence.name,
                "state": state,
                "address": presence.address,
                "nodes": presence.nodes,
                "version": presence.version,
                "since": presence.since,
            })
        };
        let mut rows = vec![row(&presences.me, "here")];
        let links = self.links();
        rows.extend(presences.others().map(|(presence, is_present)| {
            let link = links
                .iter()
                .find(|link| *link.name == *presence.name.as_str());
            let state = match (is_present, link) {
                (false, _) => "gone",
                (true, Some(link)) if link.is_up() => "connected",
                (true, _) => "unreachable",
            };
            row(presence, state)
        }));
        rows.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
        rows
    }
}

impl Peers {
    fn recent(&self) -> std::sync::MutexGuard<'_, Option<(Instant, Value)>> {
        let overview = &self.0.overview;
        overview
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Another controller tells what happened.
    pub(super) fn heard(&self, event: &str) {
        let Ok(event) = serde_json::from_str::<Value>(event) else {
            return;
        };
        if event.get("event") == Some(&json!("progress")) {
            // Of its own nodes only: it is asked for all.
            self.0.progress.store(true, Ordering::Release);
            return;
        }
        self.tell(event);
    }
}
