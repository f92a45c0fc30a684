//! A session with a controller, from hello to the end.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use xdpgate_api::fleet::v1::from_controller::Message as Said;
use xdpgate_api::fleet::v1::{
    Delta, FetchRequest, FromNode, Hello, Result as Outcome, Snapshot, State, Welcome, from_node,
    result,
};

use super::asks::Asks;
use super::beat;
use super::chunks::Chunks;
use super::decide::Refusal;
use super::dial::Client;
use super::join::in_words;
use super::section::Settings;
use super::target::Target;
use super::{Node, host};

/// Messages to the controller that wait for the link.
const OUTGOING: usize = 32;
/// States that wait for the one that is being put in force: a controller waits for each answer.
const WAITING: usize = 4;
/// How long the first message may take, and each part of a transfer.
const PATIENCE: Duration = Duration::from_secs(30);
/// A clock that is off by more than this is said.
const CLOCK_OFF: Duration = Duration::from_secs(30);

/// Why a session ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// The link or the controller is gone.
    Lost(String),
    /// The controller does not take the certificate.
    Refused(String),
    /// The controller stops, and may be dialled again after this.
    Drained(Duration),
    /// It is made anew with the certificate that just came.
    Renewed,
}

enum Work {
    Delta(Delta),
    Snapshot(Snapshot),
}

/// Runs until it ends. `began` is called when the controller has said welcome.
pub(super) async fn run(
    node: &Arc<Node>,
    settings: &Settings,
    mut client: Client,
    began: impl FnOnce(&Welcome),
) -> Ended {
    let (out, outgoing) = mpsc::channel(OUTGOING);
    let target = node.target();
    let hello = FromNode {
        message: Some(from_node::Message::Hello(hello(settings, &target).await)),
    };
    if out.send(hello).await.is_err() {
        return Ended::Lost("the session did not begin".to_owned());
    }
    let opened = timeout(PATIENCE, client.session(ReceiverStream::new(outgoing))).await;
    let mut incoming = match opened {
        Ok(Ok(answer)) => answer.into_inner(),
        Ok(Err(status)) => return ended(&status),
        Err(_) => return Ended::Lost(format!("no answer in {PATIENCE:?}")),
    };
    let welcome = match timeout(PATIENCE, incoming.message()).await {
        Ok(Ok(Some(message))) => match message.message {
            Some(Said::Welcome(welcome)) => welcome,
            _ => return Ended::Lost("its first message is no welcome".to_owned()),
        },
        Ok(Ok(None)) => return Ended::Lost("it ended the session".to_owned()),
        Ok(Err(status)) => return ended(&status),
        Err(_) => return Ended::Lost(format!("no welcome in {PATIENCE:?}")),
    };
    look_at_clock(&welcome);
    node.welcomed(&welcome);
    began(&welcome);

    // All of it ends with the session. What is being put in force just then is, or is not, as a whole.
    let mut tasks = JoinSet::new();
    let (work, waiting) = mpsc::channel(WAITING);
    let worker = Worker {
        node: Arc::clone(node),
        settings: settings.clone(),
        target: Arc::clone(&target),
        client: client.clone(),
        chunks: Chunks::new(node.files.chunks()),
        out: out.clone(),
    };
    tasks.spawn(worker.run(waiting));
    tasks.spawn(beat::go_on(
        Arc::clone(&target),
        every(&welcome),
        out.clone(),
    ));
    let mut asks = Asks::new(target, out);
    let renewal = node.until_renewal();
    tokio::pin!(renewal);
    loop {
        let said = tokio::select! {
            said = incoming.message() => said,
            () = &mut renewal => match node.renew(&mut client).await {
                Ok(()) => return Ended::Renewed,
                Err(reason) => {
                    log::warn!("fleet: the certificate is not renewed, it is tried again: {reason}");
                    renewal.set(node.until_renewal());
                    continue;
                }
            },
        };
        let work_for = match said {
            Ok(Some(message)) => match message.message {
                Some(Said::Delta(delta)) => Work::Delta(delta),
                Some(Said::Snapshot(snapshot)) => Work::Snapshot(snapshot),
                Some(Said::Ask(ask)) => {
                    asks.take(ask);
                    continue;
                }
                Some(Said::Drain(drain)) => {
                    let after = drain.after.and_then(|after| after.try_into().ok());
                    return Ended::Drained(after.unwrap_or_default());
                }
                // A later version says more, which this one need not know.
                Some(Said::Welcome(_)) | None => continue,
            },
            Ok(None) => return Ended::Lost("it ended the session".to_owned()),
            Err(status) => return ended(&status),
        };
        if work.try_send(work_for).is_err() {
            return Ended::Lost("it sends states and does not wait for answers".to_owned());
        }
    }
}

fn ended(status: &tonic::Status) -> Ended {
    match status.code() {
        Code::Unauthenticated | Code::PermissionDenied => Ended::Refused(in_words(status)),
        _ => Ended::Lost(in_words(status)),
    }
}

async fn hello(settings: &Settings, target: &Arc<Target>) -> Hello {
    let target = Arc::clone(target);
    let held = tokio::task::spawn_blocking(move || target.held_message()).await;
    let host = host();
    Hello {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        protocol: 1,
        labels: settings.labels.clone().into_iter().collect(),
        host_name: host.name,
        kernel: host.kernel,
        machine: host.machine,
        held: held.ok(),
    }
}

fn every(welcome: &Welcome) -> Duration {
    let asked = welcome
        .heartbeat_every
        .and_then(|every| every.try_into().ok());
    let asked = asked.unwrap_or(Duration::from_secs(10));
    asked.clamp(Duration::from_millis(200), Duration::from_secs(300))
}

fn look_at_clock(welcome: &Welcome) {
    let Some(theirs) = welcome.now.and_then(|now| SystemTime::try_from(now).ok()) else {
        return;
    };
    let off = match SystemTime::now().duration_since(theirs) {
        Ok(ahead) => ahead,
        Err(behind) => behind.duration(),
    };
    if off > CLOCK_OFF {
        log::warn!(
            "fleet: the clock of this node and that of the controller differ by {off:.0?}: what expires does so \
             by the clock of the node; set it right"
        );
    }
}

/// Puts one state after the other in force, and says what became of it.
struct Worker {
    node: Arc<Node>,
    settings: Settings,
    target: Arc<Target>,
    client: Client,
    chunks: Chunks,
    out: mpsc::Sender<FromNode>,
}

impl Worker {
    async fn run(mut self, mut waiting: mpsc::Receiver<Work>) {
        while let Some(work) = waiting.recv().await {
            let started = Instant::now();
            let (state, done) = match work {
                Work::Delta(delta) => (delta.to.clone(), self.delta(delta).await),
                Work::Snapshot(snapshot) => (snapshot.to.clone(), self.snapshot(snapshot).await),
            };
            match &done {
                Ok(()) => self.node.status.applied(state.as_ref()),
                Err(refusal) => self.node.status.refused(state.as_ref(), refusal),
            }
            self.node.status.tell(&self.target.held());
            let message = outcome(state, done, started.elapsed());
            if self.out.send(message).await.is_err() {
                return;
            }
        }
    }

    async fn delta(&self, delta: Delta) -> Result<(), Refusal> {
        let (target, trusted) = (Arc::clone(&self.target), self.node.trusted(&self.settings));
        blocking(move || target.delta(&delta, trusted.as_ref())).await
    }

    async fn snapshot(&mut self, snapshot: Snapshot) -> Result<(), Refusal> {
        let trusted = self.node.trusted(&self.settings);
        // Nothing is fetched for what would be refused, or is in force.
        let (target, to) = (Arc::clone(&self.target), snapshot.to.clone());
        let is_there = blocking(move || target.check(to.as_ref(), trusted.as_ref())).await?;
        if !is_there {
            let of_chunks = |error| Refusal::new(result::Reason::Chunks, error);
            self.fetch(&snapshot).await.map_err(of_chunks)?;
        }
        let (target, chunks) = (Arc::clone(&self.target), self.chunks.clone());
        blocking(move || target.snapshot(&snapshot, &chunks, trusted.as_ref())).await
    }

    /// Gets what is not here yet. What came stays if it breaks off.
    async fn fetch(&mut self, snapshot: &Snapshot) -> Result<(), String> {
        let (chunks, of) = (self.chunks.clone(), snapshot.clone());
        let begun = tokio::task::spawn_blocking(move || chunks.begin(&of)).await;
        let missing = begun.map_err(|e| e.to_string())??;
        for portion in missing {
            let request = FetchRequest {
                digests: portion.iter().map(|chunk| chunk.digest.clone()).collect(),
            };
            let late = |_| format!("chunks: no answer in {PATIENCE:?}");
            let said = |status: tonic::Status| format!("chunks: {}", in_words(&status));
            let answer = timeout(PATIENCE, self.client.fetch(request)).await;
            let mut content = answer.map_err(late)?.map_err(said)?.into_inner();
            for asked in portion {
                let next = timeout(PATIENCE, content.message()).await;
                let next = next.map_err(late)?.map_err(said)?;
                let next = next.ok_or("chunks: it ended before the last one")?;
                if next.digest != asked.digest {
                    return Err("chunks: they come in another order than asked for".to_owned());
                }
                let chunks = self.chunks.clone();
                let kept =
                    tokio::task::spawn_blocking(move || chunks.put(&asked, &next.content)).await;
                kept.map_err(|e| e.to_string())??;
            }
        }
        Ok(())
    }
}

/// Where it may take its time.
async fn blocking<R: Send + 'static>(
    work: impl FnOnce() -> Result<R, Refusal> + Send + 'static,
) -> Result<R, Refusal> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|e| {
        Err(Refusal::new(
            result::Reason::Node,
            format!("it did not end well: {e}"),
        ))
    })
}

fn outcome(state: Option<State>, done: Result<(), Refusal>, took: Duration) -> FromNode {
    let (outcome, reason, error) = match done {
        Ok(()) => (
            result::Outcome::Applied,
            result::Reason::Unspecified,
            String::new(),
        ),
        Err(refusal) => (result::Outcome::Refused, refusal.reason, refusal.error),
    };
    FromNode {
        message: Some(from_node::Message::Result(Outcome {
            state,
            outcome: outcome.into(),
            reason: reason.into(),
            error,
            took: took.try_into().ok(),
        })),
    }
}
