//! The session of a node: one task, which keeps what the node has and looks at what it shall have.
//!
//! A node is sent one state at a time. While it has not answered, changes pass by, and then it gets the newest:
//! so one that is slow or hangs costs this task and delays nobody.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use tonic::{Code, Status};
use xdpgate::policy::PolicyHash;
use xdpgate_api::fleet::v1::{
    self, answer, ask, from_controller::Message as Down, from_node::Message as Up,
};
use xdpgate_api::v1::WatchEventsResponse;

use super::frame::Frame;
use super::limits::Budget;
use super::messages::Messages;
use super::node::{About, Held, Link, Next, Node, Sent, mode_number};
use super::states::Outgoing;
use super::{Desired, Inner};
use crate::metrics::{OVERDUE, SENT, SENT_BYTES, SESSIONS_BEGUN};

/// The first message comes within this time.
const HELLO: Duration = Duration::from_secs(10);
/// The version of the protocol.
const PROTOCOL: u32 = 1;
/// Questions that a node has not answered.
const ASKS: usize = 16;

/// What others want of a session.
#[derive(Debug)]
pub(super) enum Control {
    /// The node's `force` was set.
    Look,
    /// A question.
    Ask(Box<(ask::Question, Reply)>),
    /// Tell the node to dial another controller; come back after the time.
    Drain(Duration),
    /// It is over.
    End(Status),
}

/// Where answers go.
#[derive(Debug)]
pub(super) enum Reply {
    Once(oneshot::Sender<answer::Answer>),
    Events {
        to: mpsc::Sender<WatchEventsResponse>,
        /// How many were left out, because they were read too slowly.
        lost: u64,
    },
}

/// A session that has begun.
pub(super) struct Session {
    pub fleet: Arc<Inner>,
    pub node: Arc<Node>,
    pub number: u64,
    pub link: Link,
    /// Of the node's certificate.
    pub serial: Option<String>,
    pub up: Messages<v1::FromNode>,
    pub down: mpsc::Sender<Result<Bytes, Status>>,
    pub control: mpsc::Receiver<Control>,
    pub zstd: bool,
}

/// A state that is being made.
type Making = BoxFuture<'static, (Sent, Outgoing)>;

impl Session {
    /// Until it ends, by either side.
    pub(super) async fn run(mut self) {
        let (node, number, fleet) = (self.node.clone(), self.number, self.fleet.clone());
        let down = self.down.clone();
        let Err(status) = self.talk().await;
        node.lock().close(number);
        fleet.answers.send_modify(|n| *n += 1);
        if status.code() != Code::Ok {
            log::debug!(node = node.id.as_str(); "the session ended: {}", status.message());
            // Who has hung up does not read it.
            let _ = down.try_send(Err(status));
        }
    }

    async fn talk(&mut self) -> Result<std::convert::Infallible, Status> {
        let hello = match timeout(HELLO, self.up.message()).await {
            Err(_) => return Err(Status::deadline_exceeded("no hello came within 10 s")),
            Ok(message) => match message?.and_then(|message| message.message) {
                Some(Up::Hello(hello)) => hello,
                _ => return Err(Status::invalid_argument("the first message must be hello")),
            },
        };
        if hello.protocol != PROTOCOL {
            let text = format!(
                "protocol {} is not known: this controller speaks {PROTOCOL}; upgrade the older of both",
                hello.protocol
            );
            return Err(Status::failed_precondition(text));
        }
        let text = |text: &str| self.fleet.texts.get(text);
        let about = About {
            version: text(&hello.version),
            host_name: text(&hello.host_name),
            kernel: text(&hello.kernel),
            machine: text(&hello.machine),
        };
        self.send(Frame::new(&v1::FromController {
            message: Some(Down::Welcome(self.fleet.welcome())),
        }))?;
        let held = Held::of(hello.held.as_ref(), self.fleet.states.epoch());
        drop(hello);
        let link = self.link_taken();
        metrics::counter!(SESSIONS_BEGUN).increment(1);
        self.fleet.begin(&self.node, link, about, held);
        self.serve().await
    }

    fn link_taken(&mut self) -> Link {
        Link {
            number: self.link.number,
            control: self.link.control.clone(),
            address: self.link.address,
            since: self.link.since,
        }
    }

    async fn serve(&mut self) -> Result<std::convert::Infallible, Status> {
        let mut targets = self.fleet.targets.clone();
        let config = &self.fleet.config;
        let mut budget = Budget::new(config.messages_per_second, config.messages_burst);
        let mut making: Option<Making> = None;
        let began = Instant::now();
        // Since when there is a change that the node has not been sent, of those that came in this session.
        let mut changed: Option<Instant> = None;
        let mut asks = Asks::default();
        loop {
            let now = Instant::now();
            let mut wake = self.overdue(now)?;
            {
                let seen = targets.borrow_and_update().clone();
                self.fleet
                    .membership(&seen, &self.node.id, self.serial.as_deref())?;
                if let Some(target) = seen.get(&self.node.id)
                    && let Some(desired) = target.desired.cloned()
                {
                    let mut node = self.node.lock();
                    let sequence = node.held.sequence;
                    let news = seen.at.filter(|at| *at > began);
                    changed = changed.or(news).filter(|_| node.wants(&desired));
                    let next = match making {
                        Some(_) => Next::Nothing,
                        None => node.next(&desired, now),
                    };
                    drop(node);
                    match next {
                        Next::Nothing => (),
                        Next::At(at) => wake = Some(wake.map_or(at, |wake| wake.min(at))),
                        Next::Send(base) => {
                            let base = base.map(|hash| (hash, sequence));
                            making = Some(self.make(base, desired));
                        }
                        Next::Mode(hash) => making = Some(self.make_mode(hash, &desired)),
                    }
                }
            }
            tokio::select! {
                biased;
                control = self.control.recv() => self.control(control, &mut asks).await?,
                message = self.up.message() => {
                    let Some(message) = message? else {
                        return Err(Status::ok("the node has hung up"));
                    };
                    if budget.take(Instant::now(), Duration::ZERO).is_err() {
                        return Err(super::service::exhausted(
                            "the node sends too many messages",
                            Duration::from_secs(10),
                        ));
                    }
                    self.heard(message, &mut asks)?;
                }
                (sent, out) = async { making.as_mut().expect("checked").await }, if making.is_some() => {
                    making = None;
                    let frame = out.frame;
                    let at = Instant::now();
                    let changed = changed.take();
                    let kind = if out.snapshot.is_some() { "snapshot" } else { "delta" };
                    self.node.lock().sent(Sent { at, changed, ..sent }, out.snapshot);
                    metrics::counter!(SENT, "kind" => kind).increment(1);
                    metrics::counter!(SENT_BYTES, "kind" => kind).increment(frame.bytes(self.zstd).len() as u64);
                    self.send(frame)?;
                }
                changed = targets.changed() => {
                    if changed.is_err() {
                        return Err(Status::unavailable("the controller stops"));
                    }
                }
                () = self.down.closed() => return Err(Status::ok("the node has hung up")),
                () = async { sleep_until(wake.expect("checked")).await }, if wake.is_some() => (),
            }
        }
    }

    fn make(&self, base: Option<(PolicyHash, u64)>, desired: Arc<Desired>) -> Making {
        let states = self.fleet.states.clone();
        states.remember(&desired);
        Box::pin(async move {
            let mode = mode_number(desired.mode);
            let mut sent = Sent::new(desired.sequence, desired.hash, mode);
            let out = states.outgoing(base, desired, mode).await;
            sent.is_delta = out.snapshot.is_none();
            (sent, out)
        })
    }

    /// The mode alone: the node keeps the policy that it has.
    fn make_mode(&self, hash: PolicyHash, desired: &Desired) -> Making {
        let (states, mode) = (self.fleet.states.clone(), mode_number(desired.mode));
        Box::pin(async move { (Sent::new(0, hash, mode), states.mode(hash, mode).await) })
    }

    /// Says once that no answer comes, and ends the session if none comes for long. Returns when to look again.
    fn overdue(&self, now: Instant) -> Result<Option<Instant>, Status> {
        let config = &self.fleet.config;
        let mut node = self.node.lock();
        let Some(sent) = &mut node.sent else {
            return Ok(None);
        };
        let waited = now.duration_since(sent.at);
        if waited >= config.answer_within * config.answers_missed {
            let text = format!("state {} was not answered for {waited:.0?}", sent.sequence);
            return Err(Status::deadline_exceeded(text));
        }
        if waited < config.answer_within {
            return Ok(Some(sent.at + config.answer_within));
        }
        if !sent.overdue {
            sent.overdue = true;
            metrics::counter!(OVERDUE).increment(1);
            let (node, sequence) = (self.node.id.clone(), sent.sequence);
            self.fleet.tell(super::Event::Silent { node, sequence });
        }
        Ok(Some(sent.at + config.answer_within * config.answers_missed))
    }

    /// Hands a message over. There is room for all that may be on its way at once: a node for which there is none
    /// does not read.
    fn send(&self, frame: Frame) -> Result<(), Status> {
        let sent = self.down.try_send(Ok(frame.bytes(self.zstd)));
        sent.map_err(|_| Status::ok("the node does not read"))
    }

    async fn control(&mut self, control: Option<Control>, asks: &mut Asks) -> Result<(), Status> {
        match control {
            // The node has been forgotten.
            None => Err(Status::unauthenticated(
                "the node is no member of this fleet",
            )),
            Some(Control::End(status)) => Err(status),
            Some(Control::Look) => Ok(()),
            Some(Control::Drain(after)) => {
                self.node.lock().draining = true;
                let after = prost_types::Duration::try_from(after).ok();
                self.send(Frame::new(&v1::FromController {
                    message: Some(Down::Drain(v1::Drain { after })),
                }))
            }
            Some(Control::Ask(asked)) => {
                let (question, reply) = *asked;
                asks.sweep(self)?;
                // Who asks sees that the reply is dropped.
                let Some(id) = asks.open(reply) else {
                    return Ok(());
                };
                self.ask(id, question)
            }
        }
    }

    fn ask(&self, id: u64, question: ask::Question) -> Result<(), Status> {
        let question = Some(question);
        self.send(Frame::new(&v1::FromController {
            message: Some(Down::Ask(v1::Ask { id, question })),
        }))
    }

    fn heard(&mut self, message: v1::FromNode, asks: &mut Asks) -> Result<(), Status> {
        match message.message {
            Some(Up::Heartbeat(heartbeat)) => self.fleet.beat(&self.node, self.number, &heartbeat),
            Some(Up::Result(result)) => self.fleet.result(&self.node, self.number, &result),
            Some(Up::Answer(answer)) => {
                if let Some(id) = asks.answer(answer) {
                    self.ask(id, ask::Question::Stop(id))?;
                }
            }
            Some(Up::Hello(_)) => {
                return Err(Status::invalid_argument(
                    "hello comes once, as the first message",
                ));
            }
            // Of a newer version.
            None => (),
        }
        Ok(())
    }
}

/// Questions that wait for answers.
#[derive(Default)]
struct Asks {
    last: u64,
    open: HashMap<u64, Reply>,
}

impl Asks {
    /// The number of a new question; `None` if there are too many.
    fn open(&mut self, reply: Reply) -> Option<u64> {
        if self.open.len() >= ASKS {
            return None;
        }
        self.last += 1;
        self.open.insert(self.last, reply);
        Some(self.last)
    }

    /// Hands an answer on. Returns the question that is to be stopped, if nobody listens any more.
    fn answer(&mut self, given: v1::Answer) -> Option<u64> {
        let id = given.id;
        let answer = given.answer?;
        match (self.open.get_mut(&id)?, answer) {
            (Reply::Events { to, lost }, answer::Answer::Events(mut events)) => {
                let many = events.events.len() as u64;
                events.lost = events.lost.saturating_add(*lost);
                match to.try_send(events) {
                    Ok(()) => None,
                    Err(mpsc::error::TrySendError::Full(_)) => {
                        *lost = lost.saturating_add(many);
                        None
                    }
                    Err(mpsc::error::TrySendError::Closed(_)) => {
                        self.open.remove(&id);
                        Some(id)
                    }
                }
            }
            (Reply::Events { .. }, _) => {
                // An error: the stream ends.
                self.open.remove(&id);
                None
            }
            (Reply::Once(_), answer) => {
                if let Some(Reply::Once(reply)) = self.open.remove(&id) {
                    let _ = reply.send(answer);
                }
                None
            }
        }
    }

    /// Forgets questions whose answers nobody awaits.
    fn sweep(&mut self, session: &Session) -> Result<(), Status> {
        let is_over = |reply: &Reply| match reply {
            Reply::Once(reply) => reply.is_closed(),
            Reply::Events { to, .. } => to.is_closed(),
        };
        let over: Vec<u64> = self
            .open
            .iter()
            .filter(|(_, r)| is_over(r))
            .map(|(id, _)| *id)
            .collect();
        for id in over {
            if let Some(Reply::Events { .. }) = self.open.remove(&id) {
                session.ask(id, ask::Question::Stop(id))?;
            }
        }
        Ok(())
    }
}
