//! Nodes that speak the protocol and hold a real policy, without a kernel: for tests, and for a simulator of large fleets.
//!
//! Nodes of one process share a policy that several have, so that one of ten thousand costs little: its first
//! receiver checks what came of the changes, the others take that.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use prost::Message as _;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, interval_at, sleep};
use tonic::codec::{CompressionEncoding, Streaming};
use tonic::transport::Channel;
use tonic::{Request, Status};
use xdpgate::Policy;
use xdpgate::policy::{
    AddressSetBuilder, Atomicity, Change, EntryCounters, PolicyHash, Rule, SetName,
};
use xdpgate_api::fleet::signed_bytes;
use xdpgate_api::fleet::v1::{
    self, Answer, FromController, FromNode, Heartbeat, Hello, RuleCounters, answer, ask,
    fleet_client::FleetClient,
    from_controller::Message as Down,
    from_node::Message as Up,
    result::{Outcome, Reason},
};
use xdpgate_api::v1 as api;

use super::{Identify, Identity, Members, NodeId, wire};
use crate::store::Digest;

/// Names the node in a request, where there is no TLS.
const HEADER: &str = "x-node";
/// Chunks in a request.
const FETCH: usize = 256;

/// Believes what a header says.
#[derive(Debug, Clone, Copy, Default)]
pub struct ByHeader;

impl Identify for ByHeader {
    fn identify(
        &self,
        _: &http::Extensions,
        headers: &http::HeaderMap,
    ) -> Result<Identity, Status> {
        let name = headers.get(HEADER).and_then(|value| value.to_str().ok());
        let node = name.and_then(|name| NodeId::new(name).ok());
        let node = node.ok_or_else(|| Status::unauthenticated("who are you?"))?;
        Ok(Identity { node, serial: None })
    }
}

/// Lets nobody in.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoMembers;

#[async_trait::async_trait]
impl Members for NoMembers {
    async fn join(
        &self,
        _: v1::JoinRequest,
        _: Option<std::net::SocketAddr>,
    ) -> Result<v1::JoinResponse, Status> {
        Err(Status::unauthenticated("nobody joins here"))
    }

    async fn renew(
        &self,
        _: &NodeId,
        _: v1::RenewRequest,
        _: Option<std::net::SocketAddr>,
    ) -> Result<v1::RenewResponse, Status> {
        Err(Status::unimplemented("nothing is renewed here"))
    }

    async fn refused(&self, _: &NodeId, _: Option<std::net::SocketAddr>, _: &str) {}
}

/// Policies that some node of this process has.
#[derive(Debug, Default)]
pub struct Shared(Mutex<HashMap<PolicyHash, Weak<Policy>>>);

impl Shared {
    fn get(&self, hash: &PolicyHash) -> Option<Arc<Policy>> {
        let policies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        policies.get(hash)?.upgrade()
    }

    fn put(&self, hash: PolicyHash, policy: Policy) -> Arc<Policy> {
        let mut policies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(there) = policies.get(&hash).and_then(Weak::upgrade) {
            return there;
        }
        policies.retain(|_, policy| policy.strong_count() > 0);
        let policy = Arc::new(policy);
        policies.insert(hash, Arc::downgrade(&policy));
        policy
    }
}

/// A policy and its hash, or why there is none.
type Made<T = (PolicyHash, Arc<Policy>)> = Result<T, (Reason, String)>;

/// How a node behaves.
#[derive(Debug, Clone, Default)]
pub struct Manners {
    /// It reads states and never answers.
    pub hangs: bool,
    /// It sends no heartbeats.
    pub silent: bool,
    /// It refuses every state.
    pub refuses: Option<(Reason, String)>,
    /// It takes only states that this key has signed.
    pub key: Option<[u8; 32]>,
    /// It keeps the chunks of the last snapshot.
    pub keeps_chunks: bool,
    /// It fetches all chunks of a snapshot also where another node of this process has that policy.
    pub fetches: bool,
    /// How long it takes to apply a state.
    pub takes: Duration,
    /// What its heartbeats say but for `held`.
    pub says: Option<Box<Heartbeat>>,
    /// What it answers when asked for counters of rules.
    pub counters: Vec<api::RuleStats>,
}

/// What a node has done and has.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Seen {
    /// The hash of its policy.
    pub hash: Option<PolicyHash>,
    /// The number of the last state that it applied.
    pub sequence: u64,
    /// Its mode, an [`api::Mode`].
    pub mode: i32,
    /// Deltas that came, and their changes.
    pub deltas: u32,
    /// See `deltas`.
    pub changes: usize,
    /// Snapshots that came.
    pub snapshots: u32,
    /// Bytes of chunks that it fetched.
    pub fetched: usize,
    /// How often it was told to dial another controller.
    pub drained: u32,
}

/// A node.
#[derive(Debug)]
pub struct Node {
    /// Its identity.
    pub id: NodeId,
    /// How it behaves.
    pub manners: Manners,
    shared: Arc<Shared>,
    policy: Option<Arc<Policy>>,
    state: Option<Box<v1::State>>,
    seen: Seen,
    chunks: HashMap<Digest, Vec<u8>>,
    watched: Vec<u64>,
}

/// What becomes of a node while it runs.
#[derive(Debug)]
pub enum Order {
    /// It behaves otherwise from now on.
    Behave(Manners),
    /// Somebody changes its policy, past the controller.
    Change(Vec<Change>),
    /// Somebody changes its mode.
    Mode(api::Mode),
    /// It sends a heartbeat now.
    Beat,
    /// It sends sampled drops, if it was asked for them.
    Events(api::WatchEventsResponse),
    /// It hangs up.
    Leave,
}

/// A node that runs.
#[derive(Debug)]
pub struct Running {
    /// What it has.
    pub seen: watch::Receiver<Seen>,
    orders: mpsc::Sender<Order>,
    task: tokio::task::JoinHandle<(Node, Status)>,
}

impl Running {
    /// Tells it something.
    pub async fn tell(&self, order: Order) {
        // It may have ended.
        let _ = self.orders.send(order).await;
    }

    /// Waits until it has something.
    ///
    /// # Panics
    /// It does not come to have it within 20 s.
    pub async fn until(&self, what: &str, is_so: impl FnMut(&Seen) -> bool) -> Seen {
        let mut seen = self.seen.clone();
        let found = tokio::time::timeout(Duration::from_secs(20), seen.wait_for(is_so)).await;
        match found {
            Ok(Ok(seen)) => seen.clone(),
            _ => panic!("{what} did not come about: {:?}", *self.seen.borrow()),
        }
    }

    /// Waits until its session has ended, and returns why.
    pub async fn ended(self) -> (Node, Status) {
        self.task.await.expect("a node does not panic")
    }

    /// It hangs up.
    pub async fn leave(self) -> Node {
        self.tell(Order::Leave).await;
        self.ended().await.0
    }
}

/// The open call of a node.
struct Line {
    client: FleetClient<Channel>,
    up: mpsc::Sender<FromNode>,
    down: Streaming<FromController>,
}

impl Node {
    /// One that has nothing.
    pub fn new(id: NodeId, shared: &Arc<Shared>) -> Self {
        Self {
            id,
            manners: Manners::default(),
            shared: shared.clone(),
            policy: None,
            state: None,
            seen: Seen {
                mode: api::Mode::DryRun.into(),
                ..Seen::default()
            },
            chunks: HashMap::new(),
            watched: Vec::new(),
        }
    }

    /// The same with other manners.
    pub fn with(self, manners: Manners) -> Self {
        Self { manners, ..self }
    }

    /// The same with a policy in force that did not come from a controller.
    pub fn holding(mut self, policy: &Arc<Policy>, hash: PolicyHash) -> Self {
        self.policy = Some(policy.clone());
        self.seen.hash = Some(hash);
        self
    }

    /// What it has.
    pub fn seen(&self) -> &Seen {
        &self.seen
    }

    /// Its policy.
    pub fn policy(&self) -> Option<&Arc<Policy>> {
        self.policy.as_ref()
    }

    fn held(&self) -> v1::Held {
        v1::Held {
            state: self.state.as_deref().cloned(),
            policy_hash: self
                .seen
                .hash
                .map(|hash| hash.as_bytes().to_vec())
                .unwrap_or_default(),
            mode: self.seen.mode,
        }
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Ok(value) = self.id.as_str().parse() {
            request.metadata_mut().insert(HEADER, value);
        }
        request
    }

    /// Runs in a task of its own, until its session ends.
    pub fn start(self, channel: Channel) -> Running {
        let (orders, to_do) = mpsc::channel(8);
        let (sender, seen) = watch::channel(self.seen.clone());
        Running {
            seen,
            orders,
            task: tokio::spawn(self.run(channel, to_do, sender)),
        }
    }

    /// Dials, and does as it is told until the session ends.
    pub async fn run(
        mut self,
        channel: Channel,
        mut orders: mpsc::Receiver<Order>,
        seen: watch::Sender<Seen>,
    ) -> (Self, Status) {
        let result = self.talk(channel, &mut orders, &seen).await;
        (self, result.err().unwrap_or_else(|| Status::ok("")))
    }

    async fn talk(
        &mut self,
        channel: Channel,
        orders: &mut mpsc::Receiver<Order>,
        seen: &watch::Sender<Seen>,
    ) -> Result<(), Status> {
        let mut client = FleetClient::new(channel)
            .accept_compressed(CompressionEncoding::Zstd)
            .max_decoding_message_size(8 << 20);
        let (up, messages) = mpsc::channel(8);
        let messages = tokio_stream::wrappers::ReceiverStream::new(messages);
        let hello = Up::Hello(Hello {
            version: "0.1.0".to_owned(),
            protocol: 1,
            host_name: self.id.to_string(),
            kernel: "6.12.0".to_owned(),
            machine: "x86_64".to_owned(),
            held: Some(self.held()),
            ..Hello::default()
        });
        let _ = up
            .send(FromNode {
                message: Some(hello),
            })
            .await;
        let down = client.session(self.request(messages)).await?.into_inner();
        let mut line = Line { client, up, down };
        let every = match line
            .down
            .message()
            .await?
            .and_then(|message| message.message)
        {
            Some(Down::Welcome(welcome)) => welcome.heartbeat_every.unwrap_or_default(),
            _ => return Err(Status::internal("the first message was no welcome")),
        };
        let every = Duration::try_from(every)
            .unwrap_or_default()
            .max(Duration::from_millis(1));
        // The first at once, so that the controller knows; the others spread by chance.
        self.beat(&line).await;
        let mut beats = interval_at(
            Instant::now() + every.mul_f64(0.5 + 0.5 * rand::random::<f64>()),
            every,
        );
        loop {
            tokio::select! {
                message = line.down.message() => {
                    let Some(message) = message? else { return Ok(()) };
                    self.hear(message, &mut line).await?;
                    seen.send_replace(self.seen.clone());
                }
                _ = beats.tick() => self.beat(&line).await,
                order = orders.recv() => match order {
                    None | Some(Order::Leave) => return Ok(()),
                    Some(order) => {
                        self.obey(order, &line).await;
                        seen.send_replace(self.seen.clone());
                    }
                }
            }
        }
    }

    async fn beat(&self, line: &Line) {
        if self.manners.silent {
            return;
        }
        let says = self.manners.says.as_deref().cloned().unwrap_or_default();
        let heartbeat = Heartbeat {
            held: Some(self.held()),
            ..says
        };
        let _ = line
            .up
            .send(FromNode {
                message: Some(Up::Heartbeat(heartbeat)),
            })
            .await;
    }

    async fn obey(&mut self, order: Order, line: &Line) {
        match order {
            Order::Behave(manners) => self.manners = manners,
            Order::Mode(mode) => self.seen.mode = mode.into(),
            Order::Change(changes) => {
                let before = self.policy.as_deref().cloned().unwrap_or_default();
                let changed = before.change(&changes, Atomicity::AllOrNothing);
                let policy = changed.expect("changes that can be made").policy;
                let hash = policy.hash();
                self.policy = Some(self.shared.put(hash, policy));
                self.seen.hash = Some(hash);
            }
            Order::Beat => self.beat(line).await,
            Order::Events(events) => {
                for id in self.watched.clone() {
                    let answer = Some(answer::Answer::Events(events.clone()));
                    let _ = line
                        .up
                        .send(FromNode {
                            message: Some(Up::Answer(Answer { id, answer })),
                        })
                        .await;
                }
            }
            Order::Leave => (),
        }
    }

    async fn hear(&mut self, message: FromController, line: &mut Line) -> Result<(), Status> {
        let (state, made) = match message.message {
            Some(Down::Delta(delta)) => {
                self.seen.deltas += 1;
                self.seen.changes += delta.changes.len();
                let Some(to) = delta.to.clone() else {
                    return Ok(());
                };
                (
                    to,
                    self.check(delta.to.as_ref()).and_then(|known| match known {
                        Some(known) if delta.from_hash == self.hash_bytes() => Ok(known),
                        _ => self.changed(&delta),
                    }),
                )
            }
            Some(Down::Snapshot(snapshot)) => {
                self.seen.snapshots += 1;
                let Some(to) = snapshot.to.clone() else {
                    return Ok(());
                };
                let known = self.check(Some(&to));
                (
                    to,
                    match known {
                        Ok(Some(known)) if !self.manners.keeps_chunks => {
                            match self.manners.fetches {
                                true => self.fetch(&snapshot, line).await.map(|_| known),
                                false => Ok(known),
                            }
                        }
                        Ok(_) => self.whole(&snapshot, line).await,
                        Err(refusal) => Err(refusal),
                    },
                )
            }
            Some(Down::Ask(question)) => return self.answer(question, line).await,
            Some(Down::Drain(_)) => {
                self.seen.drained += 1;
                return Ok(());
            }
            Some(Down::Welcome(_)) | None => return Ok(()),
        };
        if !self.manners.takes.is_zero() {
            sleep(self.manners.takes).await;
        }
        if self.manners.hangs {
            return Ok(());
        }
        let made = match self.manners.refuses.clone() {
            Some(refusal) => Err(refusal),
            None => made,
        };
        let mut result = v1::Result {
            state: Some(state.clone()),
            outcome: Outcome::Applied.into(),
            ..v1::Result::default()
        };
        match made {
            Ok((hash, policy)) => {
                self.policy = Some(policy);
                self.seen.hash = Some(hash);
                // Pass mode is held until it is taken back at the node.
                let held = self.seen.mode == i32::from(api::Mode::Pass);
                if state.mode != i32::from(api::Mode::Unspecified) && !held {
                    self.seen.mode = state.mode;
                }
                // Mode alone does not make it one that the fleet has given a policy.
                if state.sequence > 0 {
                    self.seen.sequence = state.sequence;
                    self.state = Some(Box::new(state));
                }
            }
            Err((reason, error)) => {
                result.outcome = Outcome::Refused.into();
                result.reason = reason.into();
                result.error = error;
            }
        }
        let _ = line
            .up
            .send(FromNode {
                message: Some(Up::Result(result)),
            })
            .await;
        Ok(())
    }

    fn hash_bytes(&self) -> Vec<u8> {
        self.seen
            .hash
            .map(|hash| hash.as_bytes().to_vec())
            .unwrap_or_default()
    }

    /// Looks whether a state may be taken. The policy, if a node of this process has it.
    fn check(&self, to: Option<&v1::State>) -> Made<Option<(PolicyHash, Arc<Policy>)>> {
        let none = || (Reason::Unspecified, "no state".to_owned());
        let to = to.ok_or_else(none)?;
        if let Some(key) = &self.manners.key {
            let key = ed25519_dalek::VerifyingKey::from_bytes(key);
            let signature = ed25519_dalek::Signature::from_slice(&to.signature);
            let good = key
                .ok()
                .zip(signature.ok())
                .is_some_and(|(key, signature)| {
                    key.verify_strict(&signed_bytes(to), &signature).is_ok()
                });
            if !good {
                return Err((
                    Reason::Signature,
                    "not by the key that this node trusts".to_owned(),
                ));
            }
        }
        if let Some(last) = &self.state
            && last.epoch == to.epoch
            && last.sequence > to.sequence
        {
            return Err((
                Reason::Stale,
                format!("{} is older than {}", to.sequence, last.sequence),
            ));
        }
        let hash = hash(to)?;
        Ok(self.shared.get(&hash).map(|policy| (hash, policy)))
    }

    fn changed(&self, delta: &v1::Delta) -> Made {
        if delta.from_hash != self.hash_bytes() {
            return Err((Reason::Base, "this node has something else".to_owned()));
        }
        let base = self
            .policy
            .as_deref()
            .ok_or((Reason::Base, "there is no policy".to_owned()))?;
        let changes =
            wire::read_changes(&delta.changes).map_err(|e| (Reason::Policy, e.to_string()))?;
        let changed = base.change(&changes, Atomicity::AllOrNothing);
        let policy = changed.map_err(|e| (Reason::Policy, e.to_string()))?.policy;
        self.keep(policy, delta.to.as_ref())
    }

    fn keep(&self, policy: Policy, to: Option<&v1::State>) -> Made {
        let hash = policy.hash();
        if to.map(|to| to.hash.as_slice()) != Some(hash.as_bytes().as_slice()) {
            return Err((Reason::Hash, format!("what came of it has the hash {hash}")));
        }
        Ok((hash, self.shared.put(hash, policy)))
    }

    async fn whole(&mut self, snapshot: &v1::Snapshot, line: &mut Line) -> Made {
        let chunks = self.fetch(snapshot, line).await?;
        let made =
            build(snapshot, &chunks).and_then(|policy| self.keep(policy, snapshot.to.as_ref()));
        if self.manners.keeps_chunks {
            self.chunks = chunks;
        }
        made
    }

    /// The chunks of a snapshot: those that it kept, and those that it fetches.
    async fn fetch(
        &mut self,
        snapshot: &v1::Snapshot,
        line: &mut Line,
    ) -> Made<HashMap<Digest, Vec<u8>>> {
        let sets = snapshot.sets.iter().flat_map(|set| &set.chunks);
        let mut wanted: Vec<Vec<u8>> = snapshot
            .rules
            .iter()
            .chain(sets)
            .map(|c| c.digest.clone())
            .collect();
        wanted.sort();
        wanted.dedup();
        let mut chunks = std::mem::take(&mut self.chunks);
        let named = |digest: &[u8]| <[u8; 32]>::try_from(digest).map(Digest).ok();
        chunks.retain(|digest, _| wanted.binary_search(&digest.0.to_vec()).is_ok());
        wanted.retain(|digest| named(digest).is_some_and(|digest| !chunks.contains_key(&digest)));
        for digests in wanted.chunks(FETCH) {
            let request = self.request(v1::FetchRequest {
                digests: digests.to_vec(),
            });
            let failed = |status: Status| (Reason::Chunks, status.message().to_owned());
            let mut answers = line
                .client
                .fetch(request)
                .await
                .map_err(failed)?
                .into_inner();
            while let Some(chunk) = answers.message().await.map_err(failed)? {
                self.seen.fetched += chunk.content.len();
                chunks.insert(Digest::of(&chunk.content), chunk.content);
            }
        }
        Ok(chunks)
    }

    async fn answer(&mut self, question: v1::Ask, line: &Line) -> Result<(), Status> {
        if self.manners.hangs {
            return Ok(());
        }
        let answer = match question.question {
            Some(ask::Question::RuleCounters(asked)) => {
                let counters = self.manners.counters.iter();
                let rules = counters
                    .filter(|rule| asked.ids.contains(&rule.id))
                    .cloned()
                    .collect();
                answer::Answer::RuleCounters(RuleCounters { rules })
            }
            Some(ask::Question::Events(_)) => {
                self.watched.push(question.id);
                return Ok(());
            }
            Some(ask::Question::Stop(id)) => {
                self.watched.retain(|watched| *watched != id);
                return Ok(());
            }
            None => answer::Answer::Error("not understood".to_owned()),
        };
        let answer = Answer {
            id: question.id,
            answer: Some(answer),
        };
        let _ = line
            .up
            .send(FromNode {
                message: Some(Up::Answer(answer)),
            })
            .await;
        Ok(())
    }
}

fn hash(state: &v1::State) -> Made<PolicyHash> {
    let bytes = <[u8; 32]>::try_from(state.hash.as_slice());
    let bytes = bytes.map_err(|_| (Reason::Hash, "a hash has 32 bytes".to_owned()))?;
    Ok(PolicyHash::from(bytes))
}

fn build(snapshot: &v1::Snapshot, chunks: &HashMap<Digest, Vec<u8>>) -> Made<Policy> {
    let policy = |e: &dyn std::fmt::Display| (Reason::Policy, e.to_string());
    let content = |chunk: &v1::Chunk| {
        let digest = <[u8; 32]>::try_from(chunk.digest.as_slice())
            .ok()
            .map(Digest);
        let content = digest.and_then(|digest| chunks.get(&digest));
        content.ok_or((Reason::Chunks, "a chunk is missing".to_owned()))
    };
    let mut builder = Policy::from_yaml(&snapshot.frame)
        .map_err(|e| policy(&e))?
        .to_builder();
    for set in &snapshot.sets {
        let mut entries = AddressSetBuilder::default();
        for chunk in &set.chunks {
            let part =
                api::SetEntries::decode(content(chunk)?.as_slice()).map_err(|e| policy(&e))?;
            wire::unpack(&part, &mut entries).map_err(|e| policy(&e))?;
        }
        let counters = match set.count_entries {
            true => EntryCounters::Entry,
            false => EntryCounters::None,
        };
        let name = SetName::new(&set.set).ok_or_else(|| policy(&"no name of a set"))?;
        builder = builder.set(name, entries.build(counters));
    }
    for chunk in &snapshot.rules {
        let part = v1::Rules::decode(content(chunk)?.as_slice()).map_err(|e| policy(&e))?;
        for rule in &part.rules {
            builder = builder.rule(Rule::from_yaml(rule).map_err(|e| policy(&e))?);
        }
    }
    builder.build().map_err(|e| policy(&e))
}
