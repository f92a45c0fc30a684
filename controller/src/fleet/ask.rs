//! Questions to a node.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use xdpgate_api::fleet::v1::{RuleIds, answer, ask};
use xdpgate_api::v1::{RuleStats, WatchEventsRequest, WatchEventsResponse};

use super::session::{Control, Reply};
use super::{Fleet, NodeId, tell};

/// Rules in a question.
const RULES: usize = 1000;
/// Messages of sampled events that wait for who reads them.
const WAITING: usize = 32;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// It has no session here.
    #[error("{0} is not connected: try again when it is online")]
    Offline(NodeId),
    /// Too much is asked already.
    #[error("too many questions wait for an answer: try again later")]
    Busy,
    /// The question is too large.
    #[error("{0} rules are asked for: ask for up to {RULES} at once")]
    TooMany(usize),
    /// It does not answer.
    #[error("{0} did not answer within {1:?}")]
    Silent(NodeId, Duration),
    /// It says that it cannot.
    #[error("{0} answers: {1}")]
    Refused(NodeId, String),
}

/// One more stream of events.
struct Watching(Arc<AtomicUsize>);

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Fleet {
    /// The counters of rules at a node, of those of them that it has.
    ///
    /// # Errors
    /// See [`AskError`].
    pub async fn rule_counters(
        &self,
        node: &NodeId,
        ids: Vec<String>,
        within: Duration,
    ) -> Result<Vec<RuleStats>, AskError> {
        if ids.len() > RULES {
            return Err(AskError::TooMany(ids.len()));
        }
        let (reply, answer) = oneshot::channel();
        let question = ask::Question::RuleCounters(RuleIds { ids });
        self.put(node, question, Reply::Once(reply))?;
        let silent = || AskError::Silent(node.clone(), within);
        match timeout(within, answer).await.map_err(|_| silent())? {
            Ok(answer::Answer::RuleCounters(counters)) => Ok(counters.rules),
            Ok(answer::Answer::Error(error)) => Err(AskError::Refused(node.clone(), error)),
            Ok(_) => Err(AskError::Refused(node.clone(), "something else".to_owned())),
            // The session has ended, or has too many questions.
            Err(_) => Err(
                match self.0.known(node).is_some_and(|n| n.lock().link.is_some()) {
                    true => AskError::Busy,
                    false => AskError::Offline(node.clone()),
                },
            ),
        }
    }

    /// Sampled drops of a node, until the stream is dropped or the session ends. Who reads too slowly misses some:
    /// `lost` counts those.
    ///
    /// # Errors
    /// See [`AskError`].
    pub fn watch_events(
        &self,
        node: &NodeId,
        request: WatchEventsRequest,
    ) -> Result<impl Stream<Item = WatchEventsResponse> + Send + Unpin + use<>, AskError> {
        let most = self.0.config.watchers;
        let one_more = |many: usize| (many < most).then_some(many + 1);
        let watchers = &self.0.watchers;
        let taken = watchers.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more);
        taken.map_err(|_| AskError::Busy)?;
        let place = Watching(watchers.clone());
        let (to, events) = mpsc::channel(WAITING);
        let reply = Reply::Events { to, lost: 0 };
        self.put(node, ask::Question::Events(request), reply)?;
        Ok(ReceiverStream::new(events).map(move |events| {
            let _place = &place;
            events
        }))
    }

    fn put(&self, node: &NodeId, question: ask::Question, reply: Reply) -> Result<(), AskError> {
        let offline = || AskError::Offline(node.clone());
        let known = self.0.known(node).ok_or_else(offline)?;
        if known.lock().link.is_none() {
            return Err(offline());
        }
        match tell(&known, Control::Ask(Box::new((question, reply)))) {
            true => Ok(()),
            false => Err(AskError::Busy),
        }
    }
}
