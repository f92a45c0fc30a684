//! A controller and a node, the real programs, in two network namespaces of their own: `control` links them, and by
//! `data` the controller's host sends what the node judges.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_xdpgate-controller");
const PASSWORD: &str = "correct horse battery staple";
/// The node's address on the link that it judges.
const JUDGED: &str = "198.51.100.2";

pub struct Hosts {
    controller: String,
    node: String,
    scratch: tempfile::TempDir,
    children: Vec<Child>,
}

/// Whether this can be run here.
pub fn is_root() -> bool {
    let is = nix::unistd::Uid::effective().is_root();
    if !is {
        eprintln!("skipped: it needs root, for network namespaces and XDP");
    }
    is
}

/// Waits for something, 40 s at most.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(40);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

impl Hosts {
    /// The namespaces, and a controller to which its first user is logged in.
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = |what: &str| format!("xgn-{what}-{}-{number}", std::process::id());
        let mut hosts = Self {
            controller: name("c"),
            node: name("n"),
            scratch: tempfile::tempdir().unwrap(),
            children: Vec::new(),
        };
        let (c, n) = (hosts.controller.clone(), hosts.node.clone());
        for line in [
            format!("netns add {c}"),
            format!("netns add {n}"),
            format!("-n {c} link set lo up"),
            format!("-n {n} link set lo up"),
            format!("-n {c} link add control type veth peer name control netns {n}"),
            format!("-n {c} link add data type veth peer name data netns {n}"),
            format!("-n {c} address add 192.0.2.1/24 dev control"),
            format!("-n {n} address add 192.0.2.2/24 dev control"),
            format!("-n {c} address add 198.51.100.1/24 dev data"),
            format!("-n {n} address add {JUDGED}/24 dev data"),
        ] {
            ip(&line);
        }
        for (host, link) in [(&c, "control"), (&n, "control"), (&c, "data"), (&n, "data")] {
            ip(&format!("-n {host} link set dev {link} up"));
        }
        hosts.serve();
        until("the link", || hosts.passes().then_some(()));
        hosts
    }

    fn serve(&mut self) {
        self.file("controller.toml", "[nodes]\nheartbeat_seconds = 1\n");
        let said = File::create(self.path("said")).unwrap();
        let state = self.path("controller");
        let mut command = within(&self.controller, PROGRAM);
        command.args(["serve", "--nodes-listen", "192.0.2.1:8443", "--config"]);
        command.arg(self.path("controller.toml"));
        command.arg("--state-dir").arg(state).stdout(said);
        self.spawn(command, "controller.log");
        let first = until("the first password", || {
            let said = fs::read_to_string(self.path("said")).ok()?;
            let line = said.lines().next()?.to_owned();
            Some(line.rsplit_once(": ")?.1.to_owned())
        });
        self.file("first", &first);
        self.file("password", PASSWORD);
        until("the controller", || {
            self.log("controller.log")
                .contains("is served")
                .then_some(())
        });
        let (first, own) = (self.path("first"), self.path("password"));
        let (first, own) = (first.to_str().unwrap(), own.to_str().unwrap());
        self.ask(&[
            "login",
            "--password-file",
            first,
            "--new-password-file",
            own,
        ]);
    }

    /// Starts the daemon. It judges `data` and is in no fleet yet.
    pub fn start_node(&mut self) {
        let [state, socket] = ["node", "node.sock"].map(|name| self.path(name));
        fs::create_dir(&state).unwrap();
        let config = format!(
            "state_dir = {state:?}\n[api]\nlisten = [\"unix:{}\"]\n[pins]\npinning = \"off\"\n\
             [interfaces]\ninclude = [\"data\"]\n",
            socket.display()
        );
        self.file("node.toml", &config);
        let mut command = within(&self.node, binary("xdpgated"));
        command.arg("--config").arg(self.path("node.toml"));
        self.spawn(command, "node.log");
        until("the daemon", || {
            self.log("node.log").contains("ready").then_some(())
        });
    }

    /// The node becomes a member of the fleet; its id.
    pub fn join(&self) -> String {
        let made = self.ask(&["join-token", "new", "--label", "tier=edge"]);
        let token = self.file("token", made.lines().next().unwrap());
        let config = fs::read_to_string(self.path("node.toml")).unwrap();
        let fleet = format!(
            "[fleet]\ncontrollers = [\"https://192.0.2.1:8443\"]\ntoken_file = {token:?}\n\
             reconnect_most_seconds = 2\n"
        );
        self.file("node.toml", &(config + &fleet));
        self.tell(&["reload"]);
        until("the node", || {
            let nodes = self.json(&["node", "list"]);
            let node = nodes["items"].as_array()?.first()?;
            let there = node["status"]["state"] != "never_connected";
            there.then(|| node["id"].as_str().unwrap().to_owned())
        })
    }

    /// All that the controller knows of a node and how it is.
    pub fn status(&self, node: &str) -> Value {
        self.json(&["node", "show", node])["status"].take()
    }

    /// Runs the controller's client.
    pub fn ask(&self, args: &[&str]) -> String {
        let mut command = within(&self.controller, PROGRAM);
        command.env("XDG_CONFIG_HOME", self.path("client"));
        self.ok(command.args(args))
    }

    pub fn json(&self, args: &[&str]) -> Value {
        let text = self.ask(&[args, &["--json"]].concat());
        serde_json::from_str(&text).unwrap()
    }

    /// Runs the daemon's client.
    pub fn tell(&self, args: &[&str]) -> String {
        let mut command = within(&self.node, binary("xdpgate"));
        let server = format!("unix:{}", self.path("node.sock").display());
        self.ok(command.args(args).args(["--server", &server]))
    }

    /// Whether a ping comes through what the node judges.
    pub fn passes(&self) -> bool {
        let mut ping = within(&self.controller, "ping");
        let ping = ping.args(["-n", "-q", "-c", "1", "-W", "1", JUDGED]);
        ping.output().unwrap().status.success()
    }

    /// All packets of the control link are lost, both ways, or none again: they go to a station that is not there. The
    /// link stays up and no sender is told.
    pub fn part(&self, is_parted: bool) {
        for (host, other) in [(&self.controller, 2), (&self.node, 1)] {
            let other = format!("-n {host} neighbour %s 192.0.2.{other} dev control");
            match is_parted {
                true => {
                    ip(&(other.replace("%s", "replace")
                        + " lladdr 02:00:5e:00:53:99 nud permanent"))
                }
                false => ip(&other.replace("%s", "del")),
            }
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// Writes a file that only its owner may read.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    fn log(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    fn spawn(&mut self, mut command: Command, log: &str) {
        let log = File::create(self.path(log)).unwrap();
        self.children.push(command.stderr(log).spawn().unwrap());
    }

    fn ok(&self, command: &mut Command) -> String {
        let Output {
            status,
            stdout,
            stderr,
        } = command.output().unwrap();
        let [out, error] = [stdout, stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        assert!(
            status.success(),
            "{command:?}: {out}{error}\n{}",
            self.log("node.log")
        );
        out
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        for host in [&self.controller, &self.node] {
            let _ = Command::new("ip").args(["netns", "del", host]).output();
        }
    }
}

fn binary(name: &str) -> PathBuf {
    let path = Path::new(PROGRAM).with_file_name(name);
    assert!(
        path.is_file(),
        "{} is missing: cargo build -p xdpgated, or test the whole workspace",
        path.display()
    );
    path
}

fn within(host: &str, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", host]).arg(program);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn ip(line: &str) {
    let done = Command::new("ip").args(line.split(' ')).output().unwrap();
    let error = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "ip {line}: {error}");
}
