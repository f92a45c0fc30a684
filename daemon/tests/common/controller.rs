//! A controller that says what a test tells it to, over the real protocol: its own authority, joining, mTLS
//! sessions, chunks.

use std::collections::{HashMap, VecDeque};
use std::net::TcpListener;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ed25519_dalek::{Signer, SigningKey};
use prost::Message;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, IsCa, Issuer,
    KeyPair,
};
use sha2::{Digest, Sha256};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::codec::CompressionEncoding::Zstd;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};
use xdpgate::Policy;
use xdpgate_api::fleet::signed_bytes;
use xdpgate_api::fleet::v1::fleet_server::{Fleet, FleetServer};
use xdpgate_api::fleet::v1::from_controller::Message as Said;
use xdpgate_api::fleet::v1::result::{Outcome, Reason};
use xdpgate_api::fleet::v1::{
    Answer, Chunk, Delta, FetchRequest, FetchResponse, FromController, FromNode, Heartbeat, Hello,
    JoinRequest, JoinResponse, RenewRequest, RenewResponse, Result as NodeResult, Rules, SetChunks,
    Snapshot, State, Welcome, from_node,
};
use xdpgate_api::v1::{Mode, SetEntries, SetEntry};

use super::namespace::Namespace;
use super::{wait_for, wait_up_to};

/// Its address in `Neighbours`.
pub const ADDRESS: &str = "192.0.2.2:7443";

/// The store and the authority, which outlive a controller.
#[derive(Clone)]
pub struct Fleets(Arc<Inner>);

struct Inner {
    issuer: Issuer<'static, KeyPair>,
    authority: rcgen::Certificate,
    state: Mutex<Book>,
}

/// What was said, and what is to be.
pub struct Book {
    /// Tokens that were not used yet.
    pub tokens: Vec<String>,
    pub joined: Vec<JoinRequest>,
    pub renewed: usize,
    /// How long certificates last.
    pub life: Duration,
    pub signing: Option<SigningKey>,
    pub hellos: Vec<Hello>,
    pub results: VecDeque<NodeResult>,
    pub heartbeats: Vec<Heartbeat>,
    pub answers: Vec<Answer>,
    pub chunks: HashMap<Vec<u8>, Vec<u8>>,
    /// Bytes of chunks that were sent.
    pub served: usize,
    /// Chunks that are sent yet before the transfer breaks off.
    pub chunks_left: Option<usize>,
    /// Waited before each chunk.
    pub pause: Duration,
    session: Option<mpsc::Sender<Result<FromController, Status>>>,
}

impl Fleets {
    pub fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new([]).expect("no names");
        params.distinguished_name.push(DnType::CommonName, "fleet");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = params.self_signed(&key).expect("a certificate");
        let state = Mutex::new(Book {
            tokens: Vec::new(),
            joined: Vec::new(),
            renewed: 0,
            life: Duration::from_secs(3600),
            signing: None,
            hellos: Vec::new(),
            results: VecDeque::new(),
            heartbeats: Vec::new(),
            answers: Vec::new(),
            chunks: HashMap::new(),
            served: 0,
            chunks_left: None,
            pause: Duration::ZERO,
            session: None,
        });
        Self(Arc::new(Inner {
            issuer: Issuer::new(params, key),
            authority,
            state,
        }))
    }

    pub fn book(&self) -> MutexGuard<'_, Book> {
        self.0.state.lock().expect("no panic")
    }

    /// A token that serves once.
    pub fn token(&self) -> String {
        let digest = URL_SAFE_NO_PAD.encode(Sha256::digest(self.0.authority.der()));
        let mut book = self.book();
        let token = format!(
            "xgj1.t{}.secret.{digest}",
            book.joined.len() + book.tokens.len()
        );
        book.tokens.push(token.clone());
        token
    }

    /// The public key by which states are signed, as the configuration wants it.
    pub fn sign_with(&self, seed: u8) -> String {
        let key = SigningKey::from_bytes(&[seed; 32]);
        let public = STANDARD.encode(key.verifying_key().to_bytes());
        self.book().signing = Some(key);
        public
    }

    /// Starts a controller at `ADDRESS` there.
    pub fn serve(&self, namespace: &Namespace) -> Controller {
        let listener = wait_for("the address", || {
            namespace.run(|| TcpListener::bind(ADDRESS)).ok()
        });
        let key = KeyPair::generate().expect("a key");
        let host = ADDRESS.split(':').next().expect("an address");
        let params = CertificateParams::new([host.to_owned()]).expect("a name");
        let own = params
            .signed_by(&key, &self.0.issuer)
            .expect("a certificate");
        let chain = own.pem() + &self.0.authority.pem();
        let tls = ServerTlsConfig::new()
            .identity(Identity::from_pem(chain, key.serialize_pem()))
            .client_ca_root(Certificate::from_pem(self.0.authority.pem()))
            .client_auth_optional(true);
        let runtime = Runtime::new().expect("a runtime");
        let service = FleetServer::new(Service(self.clone()))
            .accept_compressed(Zstd)
            .send_compressed(Zstd);
        runtime.spawn(async move {
            listener.set_nonblocking(true).expect("set");
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            let server = Server::builder()
                .tls_config(tls)
                .expect("TLS")
                .add_service(service);
            server
                .serve_with_incoming(TcpListenerStream::new(listener))
                .await
                .expect("served");
        });
        Controller {
            runtime: Some(runtime),
        }
    }

    /// Waits for a node that has said hello for the `n`th time, from 1.
    #[track_caller]
    pub fn hello(&self, n: usize) -> Hello {
        wait_up_to(Duration::from_secs(30), "hello", || {
            let book = self.book();
            let is_there = book.session.as_ref().is_some_and(|s| !s.is_closed());
            book.hellos.get(n - 1).filter(|_| is_there).cloned()
        })
    }

    /// Says something to the node that is there.
    #[track_caller]
    pub fn say(&self, said: Said) {
        let session = self.book().session.clone().expect("a session");
        let message = FromController {
            message: Some(said),
        };
        session.try_send(Ok(message)).expect("room");
    }

    /// What became of the next state.
    #[track_caller]
    pub fn result(&self) -> NodeResult {
        wait_up_to(Duration::from_secs(20), "a result", || {
            self.book().results.pop_front()
        })
    }

    #[track_caller]
    pub fn applied(&self) {
        let result = self.result();
        assert_eq!(result.outcome(), Outcome::Applied, "{result:?}");
    }

    #[track_caller]
    pub fn refused(&self, reason: Reason) -> NodeResult {
        let result = self.result();
        let said = (result.outcome(), result.reason());
        assert_eq!(said, (Outcome::Refused, reason), "{result:?}");
        assert!(
            !result.error.is_empty() && !result.error.contains('\n'),
            "{result:?}"
        );
        result
    }

    /// Waits for a heartbeat from now on that is like this.
    #[track_caller]
    pub fn heartbeat(&self, what: &str, is: impl Fn(&Heartbeat) -> bool) -> Heartbeat {
        let before = self.book().heartbeats.len();
        wait_up_to(Duration::from_secs(25), what, || {
            let book = self.book();
            book.heartbeats[before..].iter().find(|h| is(h)).cloned()
        })
    }

    /// A state, signed if there is a key.
    pub fn state(&self, sequence: u64, policy: &Policy, mode: Mode) -> State {
        let mut state = State {
            epoch: "epoch-1".to_owned(),
            sequence,
            hash: policy.hash().as_bytes().to_vec(),
            mode: mode.into(),
            signature: Vec::new(),
        };
        if let Some(key) = &self.book().signing {
            state.signature = key.sign(&signed_bytes(&state)).to_bytes().to_vec();
        }
        state
    }

    /// A snapshot, with so many rules or entries in a chunk.
    pub fn snapshot(&self, to: State, policy: &Policy, together: usize) -> Snapshot {
        let mut book = self.book();
        let mut keep = |content: Vec<u8>| {
            let digest = Sha256::digest(&content).to_vec();
            let size = content.len() as u32;
            book.chunks.insert(digest.clone(), content);
            Chunk { digest, size }
        };
        let rules = policy.rules().chunks(together).map(|rules| {
            let rules = rules.iter().map(|rule| rule.to_json()).collect();
            Rules { rules }.encode_to_vec()
        });
        let rules = rules.map(&mut keep).collect();
        let sets = policy.sets().iter().map(|(name, set)| {
            let entries: Vec<SetEntry> = set
                .entries()
                .map(|(prefix, expires)| SetEntry {
                    prefix: prefix.to_string(),
                    expires: expires.map(|at| prost_types::Timestamp {
                        seconds: at.as_second(),
                        nanos: at.subsec_nanosecond(),
                    }),
                })
                .collect();
            let chunks = entries.chunks(together).map(|entries| {
                let entries = entries.to_vec();
                let message = SetEntries {
                    entries,
                    ..Default::default()
                };
                keep(message.encode_to_vec())
            });
            SetChunks {
                set: name.to_string(),
                count_entries: false,
                chunks: chunks.collect(),
            }
        });
        let sets = sets.collect();
        let failsafe = match policy.failsafe().enabled {
            true => "",
            false => ", failsafe: none",
        };
        let frame = format!(
            "{{ version: 1, default: {}{failsafe} }}",
            policy.default_verdict()
        );
        Snapshot {
            to: Some(to),
            frame,
            rules,
            sets,
        }
    }

    /// Sends a whole policy.
    #[track_caller]
    pub fn send(&self, sequence: u64, policy: &Policy, mode: Mode) {
        let to = self.state(sequence, policy, mode);
        let snapshot = self.snapshot(to, policy, 100);
        self.say(Said::Snapshot(snapshot));
    }

    /// What leads from one policy to another of the same sets: all rules that differ, and the default.
    pub fn delta(&self, to: State, from: &Policy, policy: &Policy) -> Delta {
        use xdpgate_api::fleet::v1::{Change, change::Change as Is};
        use xdpgate_api::v1::change::Change as Of;
        let mut changes = Vec::new();
        for rule in from.rules() {
            if policy.rule(rule.id.as_str()).is_none() {
                changes.push(Of::RemoveRule(rule.id.to_string()));
            }
        }
        for rule in policy.rules() {
            if from.rule(rule.id.as_str()) != Some(rule) {
                changes.push(Of::PutRule(rule.to_json()));
            }
        }
        if from.default_verdict() != policy.default_verdict() {
            let verdict = match policy.default_verdict() {
                xdpgate::Verdict::Pass => xdpgate_api::v1::Verdict::Pass,
                xdpgate::Verdict::Drop => xdpgate_api::v1::Verdict::Drop,
            };
            changes.push(Of::DefaultVerdict(verdict.into()));
        }
        let of = |change| Change {
            change: Some(Is::Policy(xdpgate_api::v1::Change {
                change: Some(change),
            })),
        };
        Delta {
            to: Some(to),
            from_hash: from.hash().as_bytes().to_vec(),
            changes: changes.into_iter().map(of).collect(),
        }
    }

    fn issue(&self, csr: &[u8], node_id: &str) -> Result<Vec<Vec<u8>>, Status> {
        let wrong = |e: &dyn std::fmt::Display| Status::invalid_argument(e.to_string());
        let mut request =
            CertificateSigningRequestParams::from_der(&csr.into()).map_err(|e| wrong(&e))?;
        request.params.distinguished_name = rcgen::DistinguishedName::new();
        request
            .params
            .distinguished_name
            .push(DnType::CommonName, node_id);
        let now = std::time::SystemTime::now();
        request.params.not_before = now.into();
        request.params.not_after = (now + self.book().life).into();
        let issued = request.signed_by(&self.0.issuer).map_err(|e| wrong(&e))?;
        Ok(vec![issued.der().to_vec()])
    }

    fn authorities(&self) -> Vec<Vec<u8>> {
        vec![self.0.authority.der().to_vec()]
    }
}

/// A running controller.
pub struct Controller {
    runtime: Option<Runtime>,
}

impl Controller {
    /// Its connections are closed by the kernel, as those of a killed process.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(2));
        }
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.end();
    }
}

struct Service(Fleets);

fn member<T>(request: &Request<T>) -> Result<(), Status> {
    match request.peer_certs() {
        Some(certificates) if !certificates.is_empty() => Ok(()),
        _ => Err(Status::unauthenticated("no certificate")),
    }
}

#[tonic::async_trait]
impl Fleet for Service {
    type SessionStream = ReceiverStream<Result<FromController, Status>>;
    type FetchStream = ReceiverStream<Result<FetchResponse, Status>>;

    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        let request = request.into_inner();
        let mut book = self.0.book();
        let Some(index) = book.tokens.iter().position(|t| *t == request.token) else {
            return Err(Status::unauthenticated("the token is not known, or used"));
        };
        book.tokens.remove(index);
        let signing = book
            .signing
            .as_ref()
            .map(|key| key.verifying_key().to_bytes());
        let node_id = match request.node_id.as_str() {
            "" => format!("node-{}", book.joined.len() + 1),
            former => former.to_owned(),
        };
        let csr = request.csr.clone();
        book.joined.push(request);
        drop(book);
        Ok(Response::new(JoinResponse {
            certificate_chain: self.0.issue(&csr, &node_id)?,
            authorities: self.0.authorities(),
            signing_key: signing.map_or_else(Vec::new, |key| key.to_vec()),
            node_id,
        }))
    }

    async fn renew(
        &self,
        request: Request<RenewRequest>,
    ) -> Result<Response<RenewResponse>, Status> {
        member(&request)?;
        let issued = self.0.issue(&request.into_inner().csr, "node-1")?;
        self.0.book().renewed += 1;
        Ok(Response::new(RenewResponse {
            certificate_chain: issued,
            authorities: self.0.authorities(),
        }))
    }

    async fn session(
        &self,
        request: Request<Streaming<FromNode>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        member(&request)?;
        let mut incoming = request.into_inner();
        let (session, outgoing) = mpsc::channel(64);
        let fleets = self.0.clone();
        tokio::spawn(async move {
            while let Ok(Some(message)) = incoming.message().await {
                let mut book = fleets.book();
                match message.message {
                    Some(from_node::Message::Hello(hello)) => {
                        let welcome = Said::Welcome(Welcome {
                            heartbeat_every: Duration::from_millis(250).try_into().ok(),
                            now: Some(std::time::SystemTime::now().into()),
                            ..Default::default()
                        });
                        let welcome = FromController {
                            message: Some(welcome),
                        };
                        session.try_send(Ok(welcome)).expect("room");
                        book.session = Some(session.clone());
                        book.hellos.push(hello);
                    }
                    Some(from_node::Message::Result(result)) => book.results.push_back(result),
                    Some(from_node::Message::Heartbeat(beat)) => book.heartbeats.push(beat),
                    Some(from_node::Message::Answer(answer)) => book.answers.push(answer),
                    None => {}
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }

    async fn fetch(
        &self,
        request: Request<FetchRequest>,
    ) -> Result<Response<Self::FetchStream>, Status> {
        member(&request)?;
        let (out, outgoing) = mpsc::channel(1);
        let fleets = self.0.clone();
        tokio::spawn(async move {
            for digest in request.into_inner().digests {
                let pause = fleets.book().pause;
                tokio::time::sleep(pause).await;
                let next = {
                    let mut book = fleets.book();
                    match &mut book.chunks_left {
                        Some(0) => Err(Status::unavailable("broken off")),
                        left => {
                            if let Some(left) = left {
                                *left -= 1;
                            }
                            let content = book.chunks.get(&digest).cloned();
                            book.served += content.as_ref().map_or(0, Vec::len);
                            content
                                .map(|content| FetchResponse { digest, content })
                                .ok_or_else(|| Status::not_found("no such chunk"))
                        }
                    }
                };
                let is_over = next.is_err();
                if out.send(next).await.is_err() || is_over {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }
}
