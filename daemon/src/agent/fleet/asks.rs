//! Questions of a controller.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio_stream::StreamExt;
use xdpgate_api::fleet::v1::{
    Answer, Ask, FromNode, RuleCounters, answer, ask::Question, from_node,
};
use xdpgate_api::v1::WatchEventsRequest;

use super::target::Target;
use crate::agent::convert;
use crate::agent::service::EventSource;

/// Questions that are being answered at one time.
const MOST_QUESTIONS: usize = 8;
const MOST_RULES: usize = 1000;
/// Sampled frames a second of one question.
const MOST_EVENTS: u32 = 1000;

/// The questions of one session. They end with it.
#[derive(Debug)]
pub(super) struct Asks {
    target: Arc<Target>,
    events: EventSource,
    out: mpsc::Sender<FromNode>,
    tasks: JoinSet<()>,
    open: HashMap<u64, AbortHandle>,
}

impl Asks {
    pub(super) fn new(target: Arc<Target>, out: mpsc::Sender<FromNode>) -> Self {
        Self {
            events: EventSource::new(Arc::clone(&target.firewall)),
            target,
            out,
            tasks: JoinSet::new(),
            open: HashMap::new(),
        }
    }

    /// Begins to answer, or ends an answer.
    pub(super) fn take(&mut self, ask: Ask) {
        while self.tasks.try_join_next().is_some() {}
        self.open.retain(|_, task| !task.is_finished());
        let id = ask.id;
        if let Some(Question::Stop(other)) = ask.question {
            if let Some(task) = self.open.remove(&other) {
                task.abort();
            }
            return;
        }
        let out = self.out.clone();
        let is_full = self.open.len() >= MOST_QUESTIONS || self.open.contains_key(&id);
        let task = match ask.question {
            _ if is_full => {
                let error = format!(
                    "{MOST_QUESTIONS} questions are open, or one of this id is: stop one first"
                );
                // Not kept: it is answered at once, or with the next room.
                self.tasks
                    .spawn(async move { say(&out, id, answer::Answer::Error(error)).await });
                return;
            }
            Some(Question::RuleCounters(rules)) => {
                let target = Arc::clone(&self.target);
                self.tasks.spawn(async move {
                    let counted =
                        tokio::task::spawn_blocking(move || counters(&target, &rules.ids));
                    let answer = match counted.await {
                        Ok(counters) => answer::Answer::RuleCounters(counters),
                        Err(_) => answer::Answer::Error("counting did not end well".to_owned()),
                    };
                    say(&out, id, answer).await;
                })
            }
            Some(Question::Events(request)) => {
                let watched = self.events.watch(bounded(request));
                self.tasks.spawn(async move {
                    let mut events = match watched {
                        Ok(events) => events,
                        Err(status) => {
                            let error = status.message().to_owned();
                            return say(&out, id, answer::Answer::Error(error)).await;
                        }
                    };
                    // A link that is slow holds up this task, and frames that have no room are counted.
                    while let Some(Ok(events)) = events.next().await {
                        say(&out, id, answer::Answer::Events(events)).await;
                    }
                })
            }
            _ => {
                let error = "a question that is not known: upgrade xdpgated".to_owned();
                self.tasks
                    .spawn(async move { say(&out, id, answer::Answer::Error(error)).await })
            }
        };
        self.open.insert(id, task);
    }
}

async fn say(out: &mpsc::Sender<FromNode>, id: u64, answer: answer::Answer) {
    let answer = Answer {
        id,
        answer: Some(answer),
    };
    // Nobody listens any more: the session is over.
    let _ = out
        .send(FromNode {
            message: Some(from_node::Message::Answer(answer)),
        })
        .await;
}

fn bounded(request: WatchEventsRequest) -> WatchEventsRequest {
    let most = |asked: u32| match asked {
        0 => MOST_EVENTS,
        asked => asked.min(MOST_EVENTS),
    };
    WatchEventsRequest {
        total_per_second: most(request.total_per_second),
        ..request
    }
}

fn counters(target: &Target, ids: &[String]) -> RuleCounters {
    let ids: HashSet<&str> = ids.iter().take(MOST_RULES).map(String::as_str).collect();
    let mut rules = convert::stats(target.firewall.stats()).rules;
    rules.retain(|rule| ids.contains(rule.id.as_str()));
    RuleCounters { rules }
}
