//! Several controllers over one store, each with the sessions of some of the nodes: whichever is asked answers for all.
//!
//! | file | what |
//! |---|---|
//! | `presence` | the records by which controllers know of each other |
//! | `link` | the connection to another controller, and what it tells |
//! | `question` | what controllers ask each other, and the answers |
//! | `service` | the gRPC service that answers |
//! | `view` | the answers of all as one, for the API |
//!
//! Who has which node is known everywhere: [`crate::fleet::Claim`]. What is known of nodes is asked when it is needed, of all controllers
//! at once and for 2 s at most. If one does not answer, the answer says of how many it is.

mod link;
mod presence;
mod question;
mod service;
mod view;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::{Notify, broadcast};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::auth::authority::Authority;
use crate::domain::Name;
use crate::fleet::{Event, Fleet, Others, Overview, Steps};
use crate::store::Store;
use link::Link;
pub use presence::Presence;
use presence::Presences;
use question::Question;
pub use service::PeerService;

/// The longest that an answer of another controller is awaited.
const BOUND: Duration = Duration::from_secs(2);
/// How often each controller renews its record and reads those of others.
const EVERY: Duration = Duration::from_secs(5);
/// It is not read more often than this, whoever calls.
const PAUSE: Duration = Duration::from_secs(1);
/// So many events are kept for who reads slowly.
const EVENTS: usize = 1024;
/// Nodes are told of so many other controllers.
const TOLD: usize = 8;

/// The controllers of a fleet. A copy is the same one.
#[derive(Debug, Clone)]
pub struct Peers(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    me: Name,
    fleet: Fleet,
    authority: Authority,
    presences: tokio::sync::Mutex<Presences>,
    links: RwLock<BTreeMap<Arc<str>, Arc<Link>>>,
    events: broadcast::Sender<Value>,
    /// Whether a change has come further, here or elsewhere.
    progress: AtomicBool,
    /// Another controller has called, which may be a new one.
    called: Arc<Notify>,
    overview: Mutex<Option<(Instant, Value)>>,
    has_history: AtomicBool,
}

/// How many controllers an answer is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Answered {
    /// Those whose nodes are in it.
    pub answered: usize,
    /// Those that are there.
    pub known: usize,
}

impl Peers {
    /// Begins, within a tokio runtime: from now on this controller is known to others.
    pub fn start(
        presence: Presence,
        fleet: Fleet,
        authority: Authority,
        store: Arc<dyn Store>,
    ) -> Self {
        let inner = Arc::new(Inner {
            me: presence.name.clone(),
            fleet,
            authority,
            presences: tokio::sync::Mutex::new(Presences::new(presence, store)),
            links: RwLock::default(),
            events: broadcast::Sender::new(EVENTS),
            progress: AtomicBool::new(false),
            called: Arc::default(),
            overview: Mutex::default(),
            has_history: AtomicBool::new(false),
        });
        let peers = Self(inner);
        tokio::spawn(peers.clone().meet());
        tokio::spawn(peers.clone().relay());
        tokio::spawn(peers.clone().sample());
        peers
    }

    /// What answers other controllers.
    pub fn service(&self) -> PeerService {
        PeerService::new(self.0.fleet.clone(), Arc::clone(&self.0.called))
    }

    /// Takes the record of this controller away, so that others need not find out that it is gone.
    pub async fn leave(&self) {
        self.0.presences.lock().await.leave().await;
    }

    /// Keeps the record, and a link to each other controller that is there.
    async fn meet(self) {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    let mut presences = self.0.presences.lock().await;
                    if let Err(error) = presences.write().await {
                        log::warn!("other controllers are not told that this one is there: {error}");
                    }
                }
                () = self.0.called.notified() => sleep(PAUSE).await,
            }
            let mut presences = self.0.presences.lock().await;
            if let Err(error) = presences.read(Instant::now()).await {
                log::warn!("it is not known which other controllers are there: {error}");
                continue;
            }
            let present = presences.others().filter(|(_, present)| *present);
            let present: Vec<Presence> = present.map(|(presence, _)| presence.clone()).collect();
            drop(presences);
            self.link(present);
        }
    }

    fn link(&self, present: Vec<Presence>) {
        let mut links = self.0.links.write().unwrap_or_else(PoisonError::into_inner);
        links.retain(|name, link| {
            let is_it = |other: &Presence| *other.name.as_str() == **name && link.is_to(other);
            let stays = present.iter().any(is_it);
            if !stays {
                log::info!("controller {name} is gone");
            }
            stays
        });
        // Those that come after this one in the circle of names, so that not all nodes have the same ones.
        let after = present.partition_point(|other| other.name < self.0.me);
        let circle = present[after..].iter().chain(&present[..after]);
        let told = circle.flat_map(|other| other.nodes.first()).take(TOLD);
        let told = told.map(|address| format!("https://{address}"));
        self.0.fleet.set_controllers(told.collect());
        for presence in present {
            let name: Arc<str> = presence.name.as_str().into();
            links.entry(name).or_insert_with_key(|name| {
                log::info!("controller {name} is there, at {}", presence.address);
                Arc::new(Link::open(self, Arc::clone(name), presence))
            });
        }
    }

    /// Tells what happens at the nodes of this controller, and how far changes have come at all of them.
    async fn relay(self) {
        let mut events = self.0.fleet.events();
        let mut ticks = interval(PAUSE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = events.next() => match event {
                    None => return,
                    Some(Event::Progress { .. }) => self.0.progress.store(true, Ordering::Release),
                    Some(event) => self.tell(serde_json::to_value(event).unwrap_or_default()),
                },
                _ = ticks.tick() => if self.0.progress.swap(false, Ordering::AcqRel) {
                    // Nobody waits for it, and the next one comes after it.
                    let event = self.progress_event().await;
                    self.tell(event);
                }
            }
        }
    }

    /// Tells what has happened, here or at another controller.
    fn tell(&self, event: Value) {
        // Nobody needs to listen.
        let _ = self.0.events.send(event);
    }

    /// Keeps the history of all nodes.
    async fn sample(self) {
        let mut ticks = interval(Steps::Fine.length());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let (overview, _) = self.sum(None).await;
            if let Some(overview) = overview {
                self.0.fleet.sample(&overview);
            }
        }
    }

    /// Takes over the history that another controller has, once.
    async fn take_history(&self, controller: &str) {
        let Some(link) = self.link_to(controller) else {
            return;
        };
        if self.0.has_history.swap(true, Ordering::AcqRel) {
            return;
        }
        match link.ask(&Question::History, BOUND).await {
            Ok((fine, coarse)) => self.0.fleet.take_history(fine, coarse),
            Err(_) => self.0.has_history.store(false, Ordering::Release),
        }
    }

    fn links(&self) -> Vec<Arc<Link>> {
        let links = self.0.links.read().unwrap_or_else(PoisonError::into_inner);
        links.values().cloned().collect()
    }

    /// The controller that has a node, if that is another one.
    fn holder(&self, node: &Name) -> Option<Arc<Link>> {
        self.link_to(&self.0.fleet.whereabouts(node)?)
    }

    fn link_to(&self, controller: &str) -> Option<Arc<Link>> {
        let links = self.0.links.read().unwrap_or_else(PoisonError::into_inner);
        links.get(controller).cloned()
    }

    /// Asks all other controllers at once. Those whose answers are not there in time are among the silent ones.
    async fn everyone<T: DeserializeOwned>(&self, question: &Question) -> (Vec<T>, Others) {
        let links = self.links();
        let asked = links.iter().map(|link| link.ask(question, BOUND));
        let mut others = Others::default();
        let mut answers = Vec::new();
        for (link, answer) in links.iter().zip(join_all(asked).await) {
            let name = Arc::clone(&link.name);
            match answer {
                Ok(answer) => {
                    answers.push(answer);
                    others.answered.insert(name);
                }
                Err(error) => {
                    log::debug!("controller {name} does not answer: {error:?}");
                    others.silent.insert(name);
                }
            }
        }
        (answers, others)
    }

    /// The sums over all nodes, or those of a group; `None` if there is no such group.
    async fn sum(&self, group: Option<&Name>) -> (Option<Overview>, Answered) {
        let group = group.cloned();
        let question = Question::Overview {
            group: group.clone(),
        };
        let (answers, others) = self.everyone::<Overview>(&question).await;
        let answered = Answered::of(&others);
        let rest = self.blocking(others, move |fleet, part| fleet.sum(group.as_ref(), part));
        let all = rest.await.map(|rest| {
            let all = answers.into_iter().fold(rest, Overview::join);
            all.short()
        });
        (all, answered)
    }

    /// Looks at all nodes but those of controllers that have answered.
    async fn blocking<T: Send + 'static>(
        &self,
        others: Others,
        look: impl FnOnce(&Fleet, &crate::fleet::Part) -> T + Send + 'static,
    ) -> T {
        let fleet = self.0.fleet.clone();
        let part = crate::fleet::Part::Rest(others);
        let done = tokio::task::spawn_blocking(move || look(&fleet, &part)).await;
        match done {
            Ok(done) => done,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}

impl Answered {
    fn of(others: &Others) -> Self {
        let answered = 1 + others.answered.len();
        Self {
            answered,
            known: answered + others.silent.len(),
        }
    }

    /// Added to an answer.
    fn with(self, mut answer: Value) -> Value {
        if let Some(answer) = answer.as_object_mut() {
            answer.insert("controllers".to_owned(), json!(self));
        }
        answer
    }
}
