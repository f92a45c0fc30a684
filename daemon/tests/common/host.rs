//! A host whose daemon serves the API with TLS, and clients of it.

use std::fs;

use tonic::metadata::MetadataValue;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Status};
use xdpgate_api::v1::GetStatusRequest;
use xdpgate_api::v1::firewall_client::FirewallClient;

use super::certificates::{Authority, Pair};
use super::daemon::Daemon;
use super::namespace::Namespace;
use super::{Ended, Scratch, text, wait_for};

pub const SERVER: &str = "https://127.0.0.1:50051";

/// A host with a loopback interface, and what its daemons and clients need.
pub struct Host {
    pub namespace: Namespace,
    pub scratch: Scratch,
    pub ca: Authority,
    pub node: Pair,
}

impl Host {
    pub fn new() -> Self {
        let namespace = Namespace::new();
        namespace.ip("link set lo up");
        let scratch = Scratch::new();
        let ca = Authority::new(&scratch, "fleet");
        let node = ca.issue(&scratch, "node");
        Self {
            namespace,
            scratch,
            ca,
            node,
        }
    }

    /// The files of the node as `[api.tls]`, with a CA for clients.
    pub fn mutual_tls(&self) -> String {
        format!("{}\nclient_ca = '{}'\n", self.server_tls(), self.ca.cert)
    }

    pub fn server_tls(&self) -> String {
        let Pair { cert, key } = &self.node;
        format!("[api.tls]\ncertificate = '{cert}'\nkey = '{key}'\n")
    }

    pub fn start(&self, config: &str) -> Daemon {
        self.start_with(SERVER, config, &[])
    }

    pub fn start_with(&self, server: &str, config: &str, arguments: &[&str]) -> Daemon {
        let config = self.scratch.file("xdpgated.toml", config);
        let state = text(&self.scratch.path("state"));
        let base = [
            "--config",
            &config,
            "--state-dir",
            &state,
            "--interface",
            "lo",
        ];
        let arguments = [&base[..], arguments].concat();
        Daemon::start_at(&self.namespace, server, &arguments)
    }

    /// Runs the client here.
    pub fn ask(&self, arguments: &[&str]) -> Ended {
        let server = ["--server", SERVER, "--ca", &self.ca.cert];
        self.namespace
            .run(|| super::xdpgate([arguments, &server].concat()))
    }

    pub fn ask_as(&self, who: &Pair, arguments: &[&str]) -> Ended {
        let identity = ["--cert", &who.cert, "--key", &who.key];
        self.ask(&[arguments, &identity].concat())
    }

    /// Runs something that connects, here.
    pub fn block_on<R: Send>(&self, work: impl AsyncFnOnce() -> R + Send) -> R {
        self.namespace.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.expect("a runtime").block_on(work())
        })
    }

    pub async fn connect(&self, who: Option<&Pair>) -> Channel {
        let read = |path: &str| fs::read(path).expect("a file");
        let ca = Certificate::from_pem(read(&self.ca.cert));
        let mut tls = ClientTlsConfig::new().ca_certificate(ca);
        if let Some(Pair { cert, key }) = who {
            tls = tls.identity(Identity::from_pem(read(cert), read(key)));
        }
        let endpoint = Endpoint::from_static(SERVER).tls_config(tls).expect("TLS");
        endpoint.connect().await.expect("a connection")
    }

    /// A policy file that is different for every number.
    pub fn policy(&self, number: u8) -> String {
        let yaml = format!(
            "version: 1\nrules: [{{ id: r{number}, match: {{ src: 203.0.113.7 }}, action: drop }}]\n"
        );
        self.scratch.file(&format!("policy-{number}.yaml"), yaml)
    }
}

/// Waits for a line of audit with all these words.
#[track_caller]
pub fn audited(daemon: &Daemon, words: &[&str]) -> String {
    wait_for(&format!("an audit line with {words:?}"), || {
        let log = daemon.log();
        let mut lines = log.lines().filter(|line| line.contains(" audit: "));
        let found = lines.find(|line| words.iter().all(|word| line.contains(word)));
        found.map(str::to_owned)
    })
}

pub fn with_token<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    let value: MetadataValue<_> = format!("Bearer {token}").parse().expect("ASCII");
    request.metadata_mut().insert("authorization", value);
    request
}

pub async fn status(channel: &Channel, token: &str) -> Result<(), Status> {
    let mut client = FirewallClient::new(channel.clone());
    let asked = client.get_status(with_token(GetStatusRequest {}, token));
    asked.await.map(drop)
}
