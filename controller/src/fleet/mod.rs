//! The service of nodes: their sessions, what they are sent, and what is known of them.
//!
//! | file | what |
//! |---|---|
//! | `service` | the gRPC calls; who may; how many at once |
//! | `session` | one task for each node that is here |
//! | `messages` | what a node says, out of the body of its call |
//! | `node` | what is known of a node, and what it gets next |
//! | `targets` | what each node shall have |
//! | `past` | what nodes had before this controller knew them |
//! | `states`, `cache`, `snapshot`, `frame`, `wire`, `sign` | deltas and snapshots, made once and shared as bytes |
//! | `health`, [`state`] | whether a node is there, and the word for how it is |
//! | `counters`, `history`, `stats` | the numbers of heartbeats, and their sums |
//! | `progress` | how far a change has come |
//! | `sights` | what rollouts ask of nodes |
//! | `elsewhere` | which nodes are at other controllers |
//! | `find` | nodes by what is said and known of them |
//! | `events` | what happens, told to who listens |
//! | `testing` | nodes that speak the protocol and hold a policy, without a kernel |

mod ask;
mod cache;
mod counters;
mod elsewhere;
mod events;
mod find;
mod frame;
mod health;
mod history;
mod identity;
mod limits;
mod messages;
mod node;
mod past;
mod progress;
mod service;
mod session;
mod sights;
mod sign;
mod snapshot;
pub mod state;
mod states;
mod stats;
mod targets;
mod tasks;
#[doc(hidden)]
pub mod testing;
mod wire;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use futures_util::Stream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tonic::Status;
use xdpgate_api::fleet::v1;

pub use ask::AskError;
pub use counters::{Count, Fate, Rates, RuleRow};
pub use elsewhere::{Claim, Others, Part};
pub use events::Event;
pub use find::{Filter, Found, Spot};
pub use health::{Demands, Seen};
pub use history::{Sample, Steps};
pub use identity::{Certificates, Identify, Identity};
pub(crate) use limits::Budget;
pub use node::Reason;
pub use past::Past;
pub use progress::{Progress, Scope};
pub use service::{FleetService, Members, server};
pub use sign::Signer;
pub use state::State;
pub use stats::{Delivery, NodeStatus, Overview};
pub use targets::{Target, Targets, targets};

use crate::core::Desired;
use crate::domain::{Mode, NodeId};
use crate::metrics::{ACKNOWLEDGE, APPLIED, DRIFT, REFUSED, word};
use node::{Became, Held, Node};
use session::Control;

/// How the fleet is served.
#[derive(Debug, Clone)]
pub struct Config {
    /// What is demanded of heartbeats.
    pub health: Demands,
    /// A state that is not answered within this time is reported.
    pub answer_within: Duration,
    /// After so many of these times the session is ended.
    pub answers_missed: u32,
    /// Sessions at once.
    pub sessions: usize,
    /// The largest message of a node, in bytes.
    pub message: usize,
    /// Messages of a node, in the long run.
    pub messages_per_second: u32,
    /// Messages of a node at once.
    pub messages_burst: u32,
    /// Sessions that begin, in the long run.
    pub connects_per_second: u32,
    /// Sessions that begin at once.
    pub connects_burst: u32,
    /// How long a session may wait for its turn to begin; who would wait longer is told to come again.
    pub connect_within: Duration,
    /// Fetches of one node at once.
    pub fetches: u32,
    /// Streams of sampled events at once, over all nodes.
    pub watchers: usize,
    /// Other controllers, as https://host:port.
    pub controllers: Vec<String>,
    /// See [`Sizes`].
    pub sizes: Sizes,
}

/// How much memory is given to what is kept, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// Deltas and states.
    pub deltas: usize,
    /// Policies that deltas start from.
    pub bases: usize,
    /// Snapshots.
    pub snapshots: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            health: Demands::default(),
            answer_within: Duration::from_secs(30),
            answers_missed: 3,
            sessions: 12_000,
            message: 256 << 10,
            messages_per_second: 20,
            messages_burst: 100,
            connects_per_second: 1000,
            connects_burst: 1000,
            connect_within: Duration::from_secs(5),
            fetches: 2,
            watchers: 64,
            controllers: Vec::new(),
            sizes: Sizes::default(),
        }
    }
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            deltas: 64 << 20,
            bases: 512 << 20,
            snapshots: 128 << 20,
        }
    }
}

/// The nodes of this controller. A copy is the same one.
#[derive(Debug, Clone)]
pub struct Fleet(Arc<Inner>);

struct Inner {
    config: Config,
    targets: watch::Receiver<Arc<Targets>>,
    states: Arc<states::States>,
    texts: counters::Texts,
    events: events::Events,
    nodes: RwLock<HashMap<NodeId, Arc<Node>>>,
    elsewhere: elsewhere::Elsewhere,
    /// What nodes are told of other controllers.
    controllers: RwLock<Vec<String>>,
    /// Whether who sums up all controllers takes the samples of the history.
    is_sampled: AtomicBool,
    /// Nodes whose heartbeats are awaited, by when to look.
    awaited: Mutex<BinaryHeap<Reverse<(Instant, NodeId)>>>,
    totals: Mutex<counters::Totals>,
    history: Mutex<history::History>,
    seen: Mutex<Option<(Instant, Arc<Overview>)>>,
    /// When heartbeats were looked at last.
    looked: Mutex<Instant>,
    /// Grows with each answer and each node that comes or goes.
    answers: watch::Sender<u64>,
    admission: Mutex<limits::Budget>,
    sessions: AtomicUsize,
    numbers: AtomicU64,
    watchers: Arc<AtomicUsize>,
    drains: AtomicBool,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sessions = self.sessions.load(Ordering::Relaxed);
        f.debug_struct("Fleet")
            .field("sessions", &sessions)
            .finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Fleet {
    /// Begins, within a tokio runtime: [`targets`] says what nodes shall have, and `past` what those had that
    /// this controller has not seen before. It serves nodes once [`FleetService`] does.
    pub fn start(
        config: Config,
        targets: watch::Receiver<Arc<Targets>>,
        past: Option<Arc<dyn Past>>,
        signer: Option<Arc<dyn Signer>>,
    ) -> Self {
        let epoch = targets.borrow().epoch.clone();
        let inner = Arc::new(Inner {
            states: Arc::new(states::States::new(&epoch, past, signer, &config.sizes)),
            admission: Mutex::new(limits::Budget::new(
                config.connects_per_second,
                config.connects_burst,
            )),
            controllers: RwLock::new(config.controllers.clone()),
            config,
            targets,
            texts: counters::Texts::default(),
            events: events::Events::default(),
            nodes: RwLock::default(),
            elsewhere: elsewhere::Elsewhere::default(),
            is_sampled: AtomicBool::new(false),
            awaited: Mutex::default(),
            totals: Mutex::default(),
            history: Mutex::default(),
            seen: Mutex::default(),
            looked: Mutex::new(Instant::now()),
            answers: watch::Sender::new(0),
            sessions: AtomicUsize::new(0),
            numbers: AtomicU64::new(0),
            watchers: Arc::default(),
            drains: AtomicBool::new(false),
        });
        tokio::spawn(tasks::run(Arc::downgrade(&inner)));
        Self(inner)
    }

    /// What happens from now on. Who reads too slowly misses some, and is told how many.
    pub fn events(&self) -> impl Stream<Item = Event> + Send + Unpin + use<> {
        self.0.events.listen()
    }

    /// Sends a node all that it shall have, whatever it has. `false` if it is not here.
    pub fn sync(&self, node: &NodeId) -> bool {
        self.0.known(node).is_some_and(|node| force(&node))
    }

    /// As [`Fleet::sync`], to all nodes that are here. Returns how many these are.
    pub fn sync_all(&self) -> usize {
        self.0.all().iter().filter(|node| force(node)).count()
    }

    /// Ends all sessions: tells nodes, one after the other over a time, to dial another controller, and ends those
    /// sessions that are still there a while (`grace`) later. New ones are refused from now on.
    pub async fn drain(&self, over: Duration, grace: Duration) {
        self.0.drains.store(true, Ordering::Release);
        let began = Instant::now();
        let mut nodes: Vec<_> = self.0.all();
        nodes.retain(|node| node.lock().link.is_some());
        // Their order in the map is by chance already.
        let many = u32::try_from(nodes.len()).unwrap_or(u32::MAX).max(1);
        for (node, place) in nodes.iter().zip(0_u32..) {
            tokio::time::sleep_until(began + over * place / many).await;
            // Those that are told early do not come back before the last one is told.
            let after = over.saturating_sub(began.elapsed()) + over.mul_f64(rand::random());
            tell(node, Control::Drain(after));
        }
        let gone = async {
            while self.0.sessions.load(Ordering::Acquire) > 0 {
                sleep(Duration::from_millis(20)).await;
            }
        };
        if timeout(grace, gone).await.is_err() {
            for node in &nodes {
                tell(
                    node,
                    Control::End(Status::unavailable("the controller stops")),
                );
            }
        }
    }

    /// Nodes are told of these controllers, as https://host:port, from their next session on.
    pub fn set_controllers(&self, controllers: Vec<String>) {
        let mut told = self
            .0
            .controllers
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *told = controllers;
    }

    /// What the nodes shall have, as of now.
    pub fn targets(&self) -> Arc<Targets> {
        self.0.targets()
    }

    /// How many sessions there are.
    pub fn sessions(&self) -> usize {
        self.0.sessions.load(Ordering::Acquire)
    }

    /// How long ago it was looked whether heartbeats are missed, which is done each second.
    pub(crate) fn looked(&self) -> Duration {
        lock(&self.0.looked).elapsed()
    }

    /// How many deltas and how many snapshots were computed since the start.
    pub fn computed(&self) -> (u64, u64) {
        self.0.states.made()
    }
}

fn tell(node: &Node, control: Control) -> bool {
    let node = node.lock();
    node.link
        .as_ref()
        .is_some_and(|link| link.control.try_send(control).is_ok())
}

fn force(node: &Node) -> bool {
    node.lock().force = true;
    tell(node, Control::Look)
}

impl Inner {
    fn targets(&self) -> Arc<Targets> {
        self.targets.borrow().clone()
    }

    fn known(&self, node: &NodeId) -> Option<Arc<Node>> {
        let nodes = self.nodes.read().unwrap_or_else(PoisonError::into_inner);
        nodes.get(node).cloned()
    }

    fn node(&self, id: &NodeId) -> Arc<Node> {
        self.known(id).unwrap_or_else(|| {
            let mut nodes = self.nodes.write().unwrap_or_else(PoisonError::into_inner);
            let new = || Arc::new(Node::new(id.clone()));
            nodes.entry(id.clone()).or_insert_with(new).clone()
        })
    }

    fn all(&self) -> Vec<Arc<Node>> {
        let nodes = self.nodes.read().unwrap_or_else(PoisonError::into_inner);
        nodes.values().cloned().collect()
    }

    fn tell(&self, event: Event) {
        self.events.tell(event);
    }

    fn welcome(&self) -> v1::Welcome {
        let now = jiff::Timestamp::now();
        v1::Welcome {
            heartbeat_every: prost_types::Duration::try_from(self.config.health.every).ok(),
            signing_key: self.states.public_key(),
            controllers: self
                .controllers
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
            now: Some(prost_types::Timestamp {
                seconds: now.as_second(),
                nanos: now.subsec_nanosecond(),
            }),
        }
    }

    /// A heartbeat has come.
    fn beat(&self, node: &Node, session: u64, heartbeat: &v1::Heartbeat) {
        let beat = counters::Beat::new(heartbeat, &self.texts);
        let held = Held::of(heartbeat.held.as_ref(), self.states.epoch());
        let (turned, panic_off, drifts) = {
            let mut inner = node.lock();
            if !inner.is_session(session) {
                return;
            }
            let demands = &self.config.health;
            let turned = inner.health.beat(Instant::now(), demands);
            inner.beaten = true;
            let mut before = std::mem::replace(&mut inner.beat, beat);
            if std::mem::take(&mut inner.moved) {
                before = inner.beat.clone();
            }
            lock(&self.totals).take(&before, &inner.beat);
            if !inner.is_awaited
                && let Some(at) = inner.health.due(demands)
            {
                inner.is_awaited = true;
                lock(&self.awaited).push(Reverse((at, node.id.clone())));
            }
            (turned, inner.turns_panic_off(held), inner.drifts(held))
        };
        if let Some(seen) = turned {
            self.turned(&node.id, seen);
        }
        if let Some(on) = panic_off {
            match on {
                true => {
                    log::warn!(node = node.id.as_str(); "pass mode was set at the node: it drops nothing");
                }
                false => {
                    log::info!(node = node.id.as_str(); "pass mode was taken back at the node")
                }
            }
            let node = node.id.clone();
            self.tell(Event::PanicOff { node, on });
        }
        if drifts {
            metrics::counter!(DRIFT).increment(1);
            log::warn!(node = node.id.as_str(); "the node has something else in force than it acknowledged: it is put right");
            self.tell(Event::Drift {
                node: node.id.clone(),
            });
        }
    }

    fn turned(&self, node: &NodeId, seen: Seen) {
        let node = node.clone();
        self.tell(match seen {
            Seen::Online => Event::Online { node },
            Seen::Offline | Seen::Never => Event::Offline { node },
        });
        self.answers.send_modify(|n| *n += 1);
    }

    /// A state was answered.
    fn result(&self, node: &Node, session: u64, result: &v1::Result) {
        let error = self.texts.get(&result.error);
        let became = {
            let mut inner = node.lock();
            if !inner.is_session(session) {
                return;
            }
            inner.answered(result, error, Instant::now())
        };
        let node = node.id.clone();
        match became {
            None => return,
            Some(Became::Applied(sequence, changed)) => {
                metrics::counter!(APPLIED).increment(1);
                if let Some(changed) = changed {
                    metrics::histogram!(ACKNOWLEDGE).record(changed.elapsed().as_secs_f64());
                }
                self.tell(Event::Applied { node, sequence });
            }
            Some(Became::Refused(sequence, reason, error)) => {
                metrics::counter!(REFUSED, "reason" => word(&reason)).increment(1);
                log::warn!(node = node.as_str(), sequence; "the node refused the state ({reason:?}): {error}");
                let error = error.to_string();
                self.tell(Event::Refused {
                    node,
                    sequence,
                    reason,
                    error,
                });
            }
        }
        self.answers.send_modify(|n| *n += 1);
    }

    /// Whether a node may be here.
    fn membership(
        &self,
        targets: &Targets,
        node: &NodeId,
        serial: Option<&str>,
    ) -> Result<(), Status> {
        let Some(record) = targets.nodes.get(node) else {
            let text = format!("{node} is no member of this fleet: join it with a new token");
            return Err(Status::unauthenticated(text));
        };
        if record.revoked || serial.is_some_and(|s| record.revoked_serials.iter().any(|r| r == s)) {
            let text = format!("the certificate of {node} is revoked: join with a new token");
            return Err(Status::unauthenticated(text));
        }
        Ok(())
    }
}
