//! The client at work where the answer follows what the daemon does meanwhile: frames that the policy in force
//! judges, interfaces as they come and go, one of them in dry run.

mod common;

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};

use common::daemon::Daemon;
use common::neighbours::{BLOCK, Neighbours};
use common::{Ended, XDPGATE, captures, command, frames, is_root, wait_for, xdpgate};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// Of every kind that `eval` knows, among them an interface of its own.
const POLICY: &str = "
version: 1
default: drop
rules:
  - { id: watch, match: { dport: 53 }, action: drop, mode: monitor }
  - { id: inside, match: { src: 203.0.113.7 }, action: pass, interfaces: [xg7] }
  - { id: block-bad, match: { src: 203.0.113.0/24 }, action: drop }
  - { id: web, match: { dport: 80 }, action: pass }
";

/// Frames of which there are more than one request takes.
fn many() -> Vec<Vec<u8>> {
    let mut cut = frames::udp("198.51.100.9", "192.0.2.10", 80);
    cut.truncate(20);
    let some = [
        frames::udp("203.0.113.7", "192.0.2.10", 53),
        frames::udp("192.0.2.2", "192.0.2.10", 80),
        frames::udp("2001:db8::1", "2001:db9::1", 22),
        frames::arp(),
        cut,
        vec![],
    ];
    some.into_iter().cycle().take(9000).collect()
}

/// Row 108 on a daemon: the policy that is in force there says of each frame what it says where it is a file.
#[test]
fn r108_the_daemon_judges_by_the_policy_in_force() {
    if !is_root() {
        return;
    }
    let scene = Neighbours::new();
    let policy = scene.scratch.file("policy.yaml", POLICY);
    let pcap = scene.scratch.file("many.pcap", captures::simple(&many()));
    let daemon = scene.daemon(&["--enforce"]);
    let none = daemon.ask(&["eval", "--pcap", &pcap]).ok();
    assert!(none.contains("no_policy"), "{none}");
    assert!(none.ends_with("9000 frames: 9000 pass, 0 drop\n"));

    daemon.ask(&["policy", "apply", &policy]).ok();
    let oracle = ["eval", "--oracle", "--policy", &policy, "--pcap", &pcap];
    for more in [&["--json"][..], &[], &["--json", "--interface", "xg7"]] {
        let by_file = xdpgate([&oracle[..], more].concat()).ok();
        let by_daemon = daemon.ask(&[&["eval", "--pcap", &pcap], more].concat());
        let by_daemon = by_daemon.ok();
        let pairs = by_daemon.lines().zip(by_file.lines());
        for (by_daemon, by_file) in pairs {
            assert_eq!(by_daemon, by_file, "{more:?}");
        }
        assert_eq!(by_daemon.len(), by_file.len(), "{more:?}");
    }
    let stats = daemon.json(&["stats"]);
    let counted = stats["rules"].as_array().expect("rules");
    assert!(
        counted.iter().all(|rule| rule["packets"] == 0),
        "it counts nothing: {stats}"
    );

    let mut long = many();
    long[8001] = vec![0; 100_000];
    let long = scene.scratch.file("long.pcap", captures::simple(&long));
    let ended = daemon.ask(&["eval", "--pcap", &long, "--json"]);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    let place = "long.pcap: frame 8001: ";
    assert!(ended.stderr.contains(place), "{}", ended.stderr);

    let nobody = scene.scratch.path("nobody.sock");
    let server = format!("unix:{}", common::text(&nobody));
    xdpgate(["eval", "--pcap", &pcap, "--server", &server]).refused(1, &["nobody.sock"]);
    let alone = ["eval", "--oracle", "--pcap", &pcap];
    daemon.ask(&alone).refused(2, &["--policy <FILE>"]);
}

/// `interfaces --watch`, and what it has printed until now.
struct Watch {
    child: Child,
    said: Arc<Mutex<String>>,
}

impl Watch {
    fn start(daemon: &Daemon, more: &[&str]) -> Self {
        let mut child = command(XDPGATE)
            .args(["interfaces", "--watch", "--server", &daemon.server])
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("xdpgate");
        let said = Arc::new(Mutex::new(String::new()));
        let (copy, stdout) = (Arc::clone(&said), child.stdout.take().expect("piped"));
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                copy.lock().expect("no panic").push_str(&(line + "\n"));
            }
        });
        Self { child, said }
    }

    /// Waits for a line that is so.
    #[track_caller]
    fn wait(&self, what: &str, is_it: impl Fn(&str) -> bool) -> String {
        wait_for(what, || {
            let said = self.said.lock().expect("no panic").clone();
            said.lines().find(|line| is_it(line)).map(str::to_owned)
        })
    }

    /// Ends it as somebody at a terminal does.
    fn end(self) -> Ended {
        let pid = i32::try_from(self.child.id()).expect("a number");
        kill(Pid::from_raw(pid), Signal::SIGINT).expect("it runs");
        self.child.wait_with_output().expect("its end").into()
    }
}

#[test]
fn interfaces_are_watched_as_they_come_and_go() {
    if !is_root() {
        return;
    }
    let scene = Neighbours::new();
    let config = "enforce = true\n[interfaces]\nclass = \"none\"\ninclude = [\"xg*\"]\n";
    let config = scene.scratch.file("xdpgated.toml", config);
    let daemon = scene.start(&["--config", &config]);
    let (lines, text) = (
        Watch::start(&daemon, &["--json"]),
        Watch::start(&daemon, &[]),
    );
    for watch in [&lines, &text] {
        watch.wait("the beginning", |line| line.contains("started"));
    }
    scene.host.ip("link add xg1 type veth peer name nb1");
    let about = |kind: &'static str| {
        move |line: &str| {
            let told: Value = serde_json::from_str(line).expect("JSON");
            told["kind"] == kind && told["name"] == "xg1"
        }
    };
    let attached = lines.wait("the attachment", about("attached"));
    let attached: Value = serde_json::from_str(&attached).expect("JSON");
    assert_eq!(attached["attachment"]["mode"], "native", "{attached}");
    text.wait("the attachment", |line| {
        line.contains("xg1  attached  native")
    });
    text.wait("the other end", |line| line.contains("nb1  skipped"));
    scene.host.ip("link set xg1 name xg2");
    text.wait("its name", |line| line.contains("xg2  renamed"));
    scene.host.ip("link del xg2");
    text.wait("its end", |line| {
        line.contains("xg2  detached") && line.contains("it is gone")
    });
    for watch in [lines, text] {
        let ended = watch.end();
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    }
}

/// One interface in dry run, the others go on dropping.
#[test]
fn r72_one_interface_drops_nothing() {
    if !is_root() {
        return;
    }
    let scene = Neighbours::new();
    scene.host.ip("link add xg1 type veth peer name nb1");
    let policy = scene.scratch.file("policy.yaml", BLOCK);
    let daemon = scene.daemon(&["--interface", "xg1", "--policy", &policy, "--enforce"]);
    assert!(!scene.bad_arrives());
    let dry = || {
        let listed = daemon.json(&["status"]);
        let attached = listed["attachments"].as_array().expect("attachments");
        let dry = attached.iter().filter(|a| a["dry_run"] == true);
        dry.map(|a| a["name"].as_str().expect("a name").to_owned())
            .collect::<Vec<_>>()
    };
    let said = daemon.ask(&["dry-run", "--interface", "xg1"]).ok();
    assert!(said.contains("xg1: drops nothing"), "{said}");
    assert!(said.contains("mode of the daemon: enforce"), "{said}");
    assert_eq!(dry(), ["xg1"]);
    for table in ["status", "interfaces"] {
        let said = daemon.ask(&[table]).ok();
        let line = said.lines().find(|line| line.starts_with("xg1 "));
        assert!(line.is_some_and(|l| l.contains("dry run here")), "{said}");
    }
    assert!(!scene.bad_arrives(), "xg0 is another one");

    daemon.ask(&["dry-run", "--interface", "xg0"]).ok();
    assert_eq!(dry(), ["xg0", "xg1"]);
    assert!(scene.bad_arrives());
    let said = daemon.ask(&["enforce", "--interface", "xg0"]).ok();
    assert!(said.contains("xg0: drops"), "{said}");
    assert_eq!(dry(), ["xg1"]);
    assert!(!scene.bad_arrives());

    let mode = daemon.json(&["enforce", "--interface", "xg1"]);
    assert_eq!(mode["mode"], "enforce", "{mode}");
    for command in ["enforce", "dry-run"] {
        daemon
            .ask(&[command, "--interface", "nowhere"])
            .refused(1, &["nowhere"]);
    }
    daemon
        .ask(&["enforce", "--interface", "xg0", "--confirm-within", "9s"])
        .refused(2, &["--confirm-within"]);
}
