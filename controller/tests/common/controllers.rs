//! Several real controllers over one etcd, and simulated nodes that dial whichever is there.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command as Process, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tonic::transport::{Channel, Endpoint};
use xdpgate_controller::auth::authority::Authority;
use xdpgate_controller::auth::{self, Auth, NewToken};
use xdpgate_controller::core::{Command, Core, GroupContent, Options};
use xdpgate_controller::domain::{Labels, NodeId, PolicyContent, Role};
use xdpgate_controller::fleet::testing::{Manners, Node, Seen, Shared};

use super::conformance::Place as _;
use super::controller::PROGRAM;
use super::core::{actor, name, rule};
use super::etcd::Cluster;

/// Controllers, and all that they share.
pub struct Controllers {
    pub cluster: Cluster,
    pub core: Core,
    pub authority: Authority,
    pub members: Vec<Member>,
    pub client: reqwest::Client,
    pub token: String,
    folder: tempfile::TempDir,
}

/// One of them.
pub struct Member {
    /// Its name, and where nodes dial it.
    pub nodes: String,
    api: String,
    child: Mutex<Option<Child>>,
    config: PathBuf,
}

impl Controllers {
    /// So many over so many members of etcd, with policy `web` for all of so many registered nodes. `None` where there is no etcd.
    pub async fn start(controllers: usize, etcd: usize, nodes: usize) -> Option<Self> {
        let cluster = Cluster::start(etcd).await?;
        let store = cluster.open().await;
        let core = Core::open(Arc::clone(&store)).await.expect("a core");
        let auth = Auth::new(Arc::clone(&store), auth::Options::default());
        let now = Timestamp::now();
        auth.first_admin(None, now).await.expect("a first user");
        let new = NewToken {
            name: "test".to_owned(),
            role: Role::Admin,
            expires: None,
        };
        let admin = auth::Actor {
            role: Role::Admin,
            ..actor()
        };
        let token = auth.create_token(&admin, "admin", new, now).await;
        let token = token.expect("a token").1.reveal().to_owned();
        let authority = Authority::open(store, None, None, now).await;
        lay(&core, nodes).await;
        let folder = tempfile::tempdir().expect("a folder");
        // All at once, so that they differ.
        let ports: Vec<_> = (0..2 * controllers)
            .map(|_| TcpListener::bind("127.0.0.1:0").expect("a port"))
            .collect();
        let addresses = ports.iter().map(|port| port.local_addr());
        let addresses: Vec<_> = addresses
            .map(|at| at.expect("an address").to_string())
            .collect();
        // They are free again, for the controllers.
        drop(ports);
        let mut ports = addresses.into_iter();
        let members = (0..controllers).map(|number| {
            let (api, nodes) = (ports.next().expect("a port"), ports.next().expect("a port"));
            let config = folder.path().join(format!("{number}.toml"));
            let endpoints = cluster.endpoints();
            let text = format!(
                "state_dir = {:?}\n[api]\nlisten = {api:?}\n[nodes]\nlisten = {nodes:?}\nheartbeat_seconds = 1\n\
                 [store.etcd]\nendpoints = {endpoints:?}\n[peers]\nname = \"c-{number}\"\n",
                folder.path().join(format!("{number}.state")),
            );
            std::fs::write(&config, text).expect("a file");
            Member {
                api,
                nodes,
                child: Mutex::default(),
                config,
            }
        });
        let members: Vec<_> = members.collect();
        let controllers = Self {
            members,
            client: reqwest::Client::builder()
                .timeout(Duration::from_secs(10))
                .build()
                .expect("a client"),
            authority: authority.expect("an authority"),
            cluster,
            core,
            token,
            folder,
        };
        for member in &controllers.members {
            member.start();
        }
        controllers.together().await;
        Some(controllers)
    }

    /// Waits until all that run know each other.
    pub async fn together(&self) {
        let all = self.running().count();
        for member in 0..self.members.len() {
            if !self.members[member].is_running() {
                continue;
            }
            self.until(
                "they know each other",
                Duration::from_secs(60),
                async || {
                    let listed = self.get(member, "/controllers").await?;
                    let rows = listed["items"].as_array()?;
                    let there = |row: &&Value| {
                        ["here", "connected"].contains(&row["state"].as_str().unwrap_or(""))
                    };
                    (rows.iter().filter(there).count() == all).then_some(())
                },
            )
            .await;
        }
    }

    fn running(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.is_running())
    }

    /// What a controller answers; `None` if it does not, or refuses.
    pub async fn get(&self, member: usize, path: &str) -> Option<Value> {
        let (status, answer) = self.send(member, Method::GET, path, None, None).await?;
        (status == StatusCode::OK).then_some(answer)
    }

    /// The status and the body of an answer; `None` if there is none.
    pub async fn send(
        &self,
        member: usize,
        method: Method,
        path: &str,
        body: Option<&Value>,
        key: Option<&str>,
    ) -> Option<(StatusCode, Value)> {
        let url = format!("http://{}/api/v1{path}", self.members[member].api);
        let mut request = self.client.request(method, url).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(body);
        }
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let answer = request.send().await.ok()?;
        let status = answer.status();
        let text = answer.text().await.ok()?;
        Some((status, serde_json::from_str(&text).unwrap_or(json!(text))))
    }

    /// Asks until there is an answer.
    ///
    /// # Panics
    /// There is none in time.
    pub async fn until<T>(
        &self,
        what: &str,
        within: Duration,
        mut ask: impl AsyncFnMut() -> Option<T>,
    ) -> T {
        let end = Instant::now() + within;
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            assert!(
                Instant::now() < end,
                "{what}: not within {within:?}\n{}",
                self.logs().await
            );
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// What the controllers say now, and the ends of their logs.
    async fn logs(&self) -> String {
        let mut text = String::new();
        for (number, member) in self.members.iter().enumerate() {
            let stats = self.get(number, "/stats").await;
            let log = std::fs::read_to_string(member.config.with_extension("log"));
            let log = log.unwrap_or_default();
            let last: Vec<_> = log.lines().rev().take(20).collect();
            let listed = self.get(number, "/controllers").await;
            text += &format!("c-{number}: {stats:?}\n{listed:?}\n{}\n", last.join("\n"));
        }
        text
    }

    /// The TLS of a registered node.
    pub fn tls(&self, node: &NodeId) -> Arc<ClientConfig> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        let request = CertificateParams::default().serialize_request(&key);
        let request = request.expect("a request").der().to_vec();
        let made = self
            .authority
            .issue_node(node.as_str(), &request, Timestamp::now());
        let chain = made.expect("a certificate").chain;
        let chain = chain.into_iter().map(CertificateDer::from).collect();
        let mut roots = RootCertStore::empty();
        for certificate in self.authority.certificates() {
            roots.add(certificate).expect("a root");
        }
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .expect("an identity");
        config.alpn_protocols = vec![b"h2".to_vec()];
        Arc::new(config)
    }

    /// Nodes that dial one controller after the other, each beginning with another one, until this is dropped.
    pub fn crowd(&self, nodes: usize) -> Crowd {
        let shared = Arc::<Shared>::default();
        let addresses: Vec<String> = self.members.iter().map(|m| m.nodes.clone()).collect();
        let sessions = Arc::<AtomicUsize>::default();
        let mut crowd = Crowd {
            seen: Vec::new(),
            sessions: Arc::clone(&sessions),
            tasks: Vec::new(),
        };
        for number in 0..nodes {
            let id = node(number);
            let tls = self.tls(&id);
            let (addresses, sessions) = (addresses.clone(), Arc::clone(&sessions));
            let mut one = Node::new(id, &shared).with(Manners::default());
            let (to_all, seen) = watch::channel(one.seen().clone());
            crowd.seen.push(seen);
            crowd.tasks.push(tokio::spawn(async move {
                for turn in number.. {
                    let address = &addresses[turn % addresses.len()];
                    if let Ok(channel) = dial(Arc::clone(&tls), address).await {
                        sessions.fetch_add(1, Ordering::Relaxed);
                        // As long as it lives there are no orders.
                        let (_orders, to_do) = mpsc::channel(1);
                        (one, _) = one.run(channel, to_do, to_all.clone()).await;
                    }
                    sleep(Duration::from_millis(rand::random_range(50..300))).await;
                }
            }));
        }
        crowd
    }
}

/// Simulated nodes.
pub struct Crowd {
    pub seen: Vec<watch::Receiver<Seen>>,
    /// How many sessions have begun.
    pub sessions: Arc<AtomicUsize>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Member {
    /// As after a reboot.
    pub fn start(&self) {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.config.with_extension("log"));
        let child = Process::new(PROGRAM)
            .args(["serve", "--config"])
            .arg(&self.config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.expect("a log"))
            .spawn();
        *self.child.lock().expect("no test panics in it") = Some(child.expect("a controller"));
    }

    /// As by a power cut.
    pub fn kill(&self) {
        if let Some(mut child) = self.child.lock().expect("no test panics in it").take() {
            child.kill().expect("it runs");
            child.wait().expect("it ends");
        }
    }

    /// Where its API is.
    pub fn url(&self) -> String {
        format!("http://{}", self.api)
    }

    pub fn is_running(&self) -> bool {
        self.child.lock().expect("no test panics in it").is_some()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The name of a node.
pub fn node(number: usize) -> NodeId {
    name(&format!("n-{number}"))
}

/// A connection to a controller's listener of nodes.
pub async fn dial(
    tls: Arc<ClientConfig>,
    address: &str,
) -> Result<Channel, tonic::transport::Error> {
    let address = address.to_owned();
    let connector = tower::service_fn(move |_| {
        let (tls, address) = (TlsConnector::from(Arc::clone(&tls)), address.clone());
        async move {
            let stream = TcpStream::connect(&address).await?;
            let host = address.rsplit_once(':').expect("a port").0.to_owned();
            let name = ServerName::try_from(host).map_err(std::io::Error::other)?;
            Ok::<_, std::io::Error>(TokioIo::new(tls.connect(name, stream).await?))
        }
    });
    Endpoint::from_static("http://controller")
        .connect_with_connector(connector)
        .await
}

/// A policy that all nodes have.
async fn lay(core: &Core, nodes: usize) {
    let base = rule("{ id: base, match: { src: 192.0.2.1 }, action: drop }");
    let content = PolicyContent {
        rules: vec![base],
        ..PolicyContent::default()
    };
    let group = GroupContent {
        policies: vec![name("web")],
        ..GroupContent::default()
    };
    let policy = Command::CreatePolicy {
        policy: name("web"),
        content,
    };
    let group = Command::CreateGroup {
        group: name("all"),
        content: group,
    };
    let nodes = (0..nodes).map(|number| Command::RegisterNode {
        node: node(number),
        name: format!("{}.example", node(number)),
        own_labels: Labels::new(),
    });
    let commands: Vec<_> = [policy, group].into_iter().chain(nodes).collect();
    let made = core.execute(&actor(), commands, &Options::default()).await;
    for effect in made.expect("a fleet").effects {
        effect.expect("a command");
    }
}
