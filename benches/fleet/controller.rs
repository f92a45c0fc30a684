//! A controller as a process of its own, and what it costs.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A running `xdpgate-controller serve`. It is killed when this is dropped.
pub struct Controller {
    child: Child,
    folder: PathBuf,
    program: PathBuf,
    token: String,
    http: reqwest::Client,
    api: SocketAddr,
    pub nodes: SocketAddr,
}

/// What a process has used.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    pub rss_kib: u64,
    pub cpu: Duration,
}

fn free() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address")
}

impl Controller {
    /// Starts one on `FOLDER/controller.db`, and waits until it answers.
    pub async fn start(program: &Path, folder: &Path, token: &str) -> Self {
        let (api, nodes) = (free(), free());
        let http = reqwest::Client::builder()
            .timeout(Duration::from_secs(60))
            .build();
        let mut controller = Self {
            child: spawn(program, folder, api, nodes),
            folder: folder.to_owned(),
            program: program.to_owned(),
            token: token.to_owned(),
            http: http.expect("a client"),
            api,
            nodes,
        };
        controller.answers().await;
        controller
    }

    /// Kills it as a crash would, and starts it anew.
    pub async fn crash(&mut self) -> Duration {
        self.kill();
        let began = Instant::now();
        self.child = spawn(&self.program, &self.folder, self.api, self.nodes);
        self.answers().await;
        began.elapsed()
    }

    fn kill(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    async fn answers(&mut self) {
        let began = Instant::now();
        while self.http.get(self.url("/health")).send().await.is_err() {
            let ended = self.child.try_wait().expect("a process");
            assert!(ended.is_none(), "the controller ended: {}", self.log());
            assert!(
                began.elapsed() < Duration::from_secs(120),
                "no answer: {}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}/api/v1{path}", self.api)
    }

    /// Changes something by REST, and returns the transaction.
    pub async fn put(&self, path: &str, kind: &str, body: String) -> u64 {
        let request = self.http.put(self.url(path)).bearer_auth(&self.token);
        let request = request.header("content-type", kind).body(body);
        let answer = request.send().await.expect("an answer");
        let status = answer.status();
        let text = answer.text().await.expect("a body");
        assert!(status.is_success(), "PUT {path}: {status} {text}");
        let body: Value = serde_json::from_str(&text).expect("JSON");
        body["revision"].as_u64().expect("a revision")
    }

    /// What it has used since its start.
    pub fn usage(&self) -> Usage {
        usage(&self.child.id().to_string())
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What a process (`self`: this one) has used.
pub fn usage(process: &str) -> Usage {
    let read =
        |file: &str| fs::read_to_string(format!("/proc/{process}/{file}")).unwrap_or_default();
    let status = read("status");
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let rss = rss.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    let stat = read("stat");
    // The name, in brackets, may have spaces; ticks are of 10 ms.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: u64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    Usage {
        rss_kib: rss.unwrap_or_default(),
        cpu: Duration::from_millis(10 * ticks),
    }
}

fn spawn(program: &Path, folder: &Path, api: SocketAddr, nodes: SocketAddr) -> Child {
    let log = File::options()
        .create(true)
        .append(true)
        .open(folder.join("log"));
    Command::new(program)
        .arg("serve")
        .arg("--state-dir")
        .arg(folder)
        .arg("--listen")
        .arg(api.to_string())
        .arg("--nodes-listen")
        .arg(nodes.to_string())
        .arg("--log-level")
        .arg("warn")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log.expect("a log"))
        .spawn()
        .expect("the controller starts")
}
