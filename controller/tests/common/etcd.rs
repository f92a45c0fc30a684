//! Real etcd processes on free ports of loopback, with their data in a folder of the test.

use std::fs::File;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use etcd_client::Client;
use tempfile::TempDir;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep};
use xdpgate_controller::store::etcd::{Etcd, Options};
use xdpgate_controller::store::{Digest, Store};

use super::conformance::Place;

/// So many members run at once, whatever the number of tests.
static SLOTS: Semaphore = Semaphore::const_new(6);

/// A cluster. Its processes end with it.
pub struct Cluster {
    /// Data and logs.
    _folder: TempDir,
    members: Mutex<Vec<Member>>,
    endpoints: Vec<String>,
    _slots: SemaphorePermit<'static>,
}

struct Member {
    child: Child,
    arguments: Vec<String>,
    log: String,
}

impl Cluster {
    /// A cluster of so many members that answers. `None`, said aloud, where there is no etcd; under CI there is one.
    pub async fn start(members: usize) -> Option<Self> {
        if Command::new("etcd")
            .arg("--version")
            .stdout(Stdio::null())
            .status()
            .is_err()
        {
            let ci = std::env::var("CI").is_ok_and(|value| !value.is_empty() && value != "false");
            let mend = "apt-get install etcd-server installs it";
            assert!(!ci, "CI is set and etcd is not here: {mend}");
            println!("skipped: etcd is not here: {mend}");
            return None;
        }
        let slots = SLOTS.acquire_many(members as u32).await.expect("slots");
        let folder = tempfile::tempdir().expect("a folder");
        // All ports are taken before any is given away, so that they differ.
        let listeners: Vec<TcpListener> = (0..2 * members)
            .map(|_| TcpListener::bind("127.0.0.1:0").expect("a port"))
            .collect();
        let urls: Vec<String> = listeners
            .iter()
            .map(|listener| format!("http://{}", listener.local_addr().expect("an address")))
            .collect();
        drop(listeners);
        let (clients, peers) = urls.split_at(members);
        let all: Vec<String> = peers
            .iter()
            .enumerate()
            .map(|(i, url)| format!("m{i}={url}"))
            .collect();
        let arguments = |i: usize| {
            let data = folder.path().join(format!("m{i}"));
            let pairs = [
                ("name", format!("m{i}")),
                ("data-dir", data.to_string_lossy().into_owned()),
                ("listen-client-urls", clients[i].clone()),
                ("advertise-client-urls", clients[i].clone()),
                ("listen-peer-urls", peers[i].clone()),
                ("initial-advertise-peer-urls", peers[i].clone()),
                ("initial-cluster", all.join(",")),
                ("initial-cluster-token", peers[0].clone()),
                ("logger", "zap".to_owned()),
                ("log-level", "warn".to_owned()),
            ];
            pairs
                .map(|(name, value)| format!("--{name}={value}"))
                .to_vec()
        };
        let started = (0..members).map(|i| {
            let log = folder
                .path()
                .join(format!("m{i}.log"))
                .to_string_lossy()
                .into_owned();
            Member::start(arguments(i), log)
        });
        let cluster = Self {
            members: Mutex::new(started.collect()),
            endpoints: clients.to_vec(),
            _folder: folder,
            _slots: slots,
        };
        cluster.answers().await;
        Some(cluster)
    }

    /// Where the members are.
    pub fn options(&self) -> Options {
        Options::new(self.endpoints.clone())
    }

    /// Where clients reach the members.
    pub fn endpoints(&self) -> &[String] {
        &self.endpoints
    }

    /// Ends a member as a power cut would.
    pub fn kill(&self, member: usize) {
        let child = &mut self.members()[member].child;
        child.kill().expect("it runs");
        child.wait().expect("it ends");
    }

    /// Starts a member that was killed, with its data.
    pub fn restart(&self, member: usize) {
        let member = &mut self.members()[member];
        *member = Member::start(member.arguments.clone(), member.log.clone());
    }

    fn members(&self) -> std::sync::MutexGuard<'_, Vec<Member>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answers(&self) {
        let end = Instant::now() + Duration::from_secs(60);
        while let Err(error) = Etcd::open(self.options()).await {
            assert!(
                Instant::now() < end,
                "etcd does not answer: {error}\n{}",
                self.logs()
            );
            sleep(Duration::from_millis(100)).await;
        }
        // The test begins with an empty store.
        let mut client = Client::connect(&self.endpoints, None)
            .await
            .expect("a client");
        client
            .delete("/xdpgate/epoch", None)
            .await
            .expect("it is deleted");
    }

    fn logs(&self) -> String {
        let members = self.members();
        let read = |member: &Member| std::fs::read_to_string(&member.log).unwrap_or_default();
        members.iter().map(read).collect()
    }
}

impl Member {
    fn start(arguments: Vec<String>, log: String) -> Self {
        let file = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .expect("a log");
        let child = Command::new("etcd")
            .args(&arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .expect("etcd starts");
        Self {
            child,
            arguments,
            log,
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for member in self.members().iter_mut() {
            // It may have been killed by the test.
            let _ = member.child.kill();
            let _ = member.child.wait();
        }
    }
}

#[async_trait]
impl Place for Cluster {
    async fn open(&self) -> std::sync::Arc<dyn Store> {
        let store = Etcd::open(self.options()).await;
        std::sync::Arc::new(store.unwrap_or_else(|error| panic!("{error}\n{}", self.logs())))
    }

    async fn damage(&self, digest: Digest) {
        let mut client = Client::connect(&self.endpoints, None).await.unwrap();
        client
            .put(format!("/xdpgate/chunk/{digest}"), "\0other", None)
            .await
            .unwrap();
    }
}
