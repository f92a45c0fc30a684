//! The real daemon in a network namespace, asked by the real client.

mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use common::daemon::{Daemon, attempt, daemon};
use common::namespace::Namespace;
use common::{Ended, Scratch, TOO_SLOW, XDPGATED, copy_program, is_root, run, text, wait_for};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const POLICY: &str = "
version: 1
sets: { bad-hosts: { entries: [203.0.113.7, 203.0.113.8] } }
rules:
  - { id: allow-eight, match: { src: 203.0.113.8 }, action: pass }
  - { id: block-bad, match: { src: '@bad-hosts' }, action: drop }
";

/// A protected host with interface `xg0` and a neighbour behind it that has good and bad addresses.
struct Scene {
    host: Namespace,
    neighbour: Namespace,
    scratch: Scratch,
    policy: String,
}

impl Scene {
    fn new() -> Self {
        let host = Namespace::new();
        let neighbour = host.neighbour(("xg0", "192.0.2.1/24"), ("nb0", "192.0.2.2/24"));
        for bad in ["203.0.113.7", "203.0.113.8"] {
            neighbour.ip(&format!("address add {bad}/32 dev nb0"));
            host.ip(&format!("route add {bad}/32 dev xg0"));
        }
        let scratch = Scratch::new();
        let policy = scratch.file("policy.yaml", POLICY);
        Self {
            host,
            neighbour,
            scratch,
            policy,
        }
    }

    fn daemon(&self, more: &[&str]) -> Daemon {
        let arguments = ["--interface", "xg0", "--policy", &self.policy];
        Daemon::start(&self.host, &self.scratch, &[&arguments, more].concat())
    }

    /// Sends datagrams from an address to the host and gives how many arrive.
    fn send(&self, from: &str, count: u32) -> u32 {
        let receiver = self.host.receiver("192.0.2.1:9000");
        let sender = self
            .neighbour
            .run(|| UdpSocket::bind((from, 0)))
            .expect("a socket");
        let probe = self
            .neighbour
            .run(|| UdpSocket::bind("192.0.2.2:0"))
            .expect("a socket");
        for _ in 0..count {
            sender.send_to(b"counted", "192.0.2.1:9000").expect("sent");
        }
        // What comes after them on the same path shows that they are through.
        receiver
            .set_read_timeout(Some(Duration::from_millis(200)))
            .expect("set");
        let mut arrived = 0;
        let mut buffer = [0; 16];
        wait_for("the probe", || {
            probe.send_to(b"probe", "192.0.2.1:9000").expect("sent");
            while let Ok(length) = receiver.recv(&mut buffer) {
                if &buffer[..length] == b"probe" {
                    return Some(());
                }
                arrived += 1;
            }
            None
        });
        arrived
    }

    /// The XDP program on an interface of the host, as `ip` shows it.
    fn program(&self, interface: &str) -> Option<u64> {
        let shown = self
            .host
            .run(|| run("ip", ["-j", "link", "show", interface]))
            .ok();
        let shown: Value = serde_json::from_str(&shown).expect("JSON");
        shown[0]["xdp"]["prog"]["id"].as_u64()
    }
}

/// The sum over the verdict counters of the interface with this verdict and reason.
fn packets(stats: &Value, verdict: &str, reason: &str) -> u64 {
    let counters = stats["interfaces"][0]["verdicts"]
        .as_array()
        .expect("counters");
    counters
        .iter()
        .filter(|c| c["disposition"] == verdict && c["reason"] == reason)
        .map(|c| c["packets"].as_u64().expect("a number"))
        .sum()
}

fn rule<'s>(stats: &'s Value, id: &str) -> &'s Value {
    let rules = stats["rules"].as_array().expect("rules");
    rules.iter().find(|r| r["id"] == id).expect("the rule")
}

#[test]
fn r72_dry_run_counts_and_passes() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let daemon = scene.daemon(&[]);
    let status = daemon.json(&["status"]);
    assert_eq!(status["dry_run"], true);
    assert_eq!(scene.send("203.0.113.7", 20), 20);
    assert_eq!(scene.send("203.0.113.8", 10), 10);
    let stats = daemon.json(&["stats"]);
    assert_eq!(packets(&stats, "would_drop", "rule"), 20, "{stats:#}");
    assert_eq!(packets(&stats, "drop", "rule"), 0, "{stats:#}");
    assert_eq!(packets(&stats, "pass", "rule"), 10, "{stats:#}");
    let block = rule(&stats, "block-bad");
    assert_eq!(
        (&block["packets"], &block["dropped_packets"]),
        (&json!(20), &json!(0))
    );
}

#[test]
fn r45_enforced_drops_and_passes_to_the_stack() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let daemon = scene.daemon(&["--enforce"]);
    assert_eq!(daemon.json(&["status"])["dry_run"], false);
    assert_eq!(scene.send("203.0.113.7", 20), 0);
    assert_eq!(scene.send("203.0.113.8", 10), 10);
    let stats = daemon.json(&["stats"]);
    assert_eq!(packets(&stats, "drop", "rule"), 20, "{stats:#}");
    assert_eq!(packets(&stats, "would_drop", "rule"), 0, "{stats:#}");
    let block = rule(&stats, "block-bad");
    assert_eq!(
        (&block["packets"], &block["dropped_packets"]),
        (&json!(20), &json!(20))
    );
    assert_eq!(rule(&stats, "allow-eight")["packets"], 10);

    let listener = scene
        .host
        .run(|| TcpListener::bind("192.0.2.1:8080"))
        .expect("a socket");
    let payload = vec![7; 1 << 20];
    let sent = payload.clone();
    let mut stream = scene
        .neighbour
        .run(|| TcpStream::connect("192.0.2.1:8080"))
        .expect("TCP");
    let sender = std::thread::spawn(move || stream.write_all(&sent));
    let mut received = Vec::new();
    listener
        .accept()
        .expect("TCP")
        .0
        .read_to_end(&mut received)
        .expect("TCP");
    sender.join().expect("no panic").expect("TCP");
    assert!(received == payload);
}

#[test]
fn status_policy_and_stats_over_the_socket() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let daemon = scene.daemon(&[]);

    let status = daemon.json(&["status"]);
    let attachment = &status["attachments"][0];
    assert_eq!(
        (&attachment["name"], &attachment["mode"]),
        (&json!("xg0"), &json!("native"))
    );
    assert_eq!(attachment["fell_back"], Value::Null);
    assert_eq!(attachment["program_id"].as_u64(), scene.program("xg0"));
    assert_eq!(status["policy"]["generation"], 1);
    assert_eq!(status["policy"]["set_entries"], 2);
    let table = daemon.ask(&["status"]).ok();
    assert!(
        table.contains("DRY RUN") && table.contains("native"),
        "{table}"
    );

    // A list by file is read by the client; the plan changes nothing.
    scene
        .scratch
        .file("list.txt", "203.0.113.7\n203.0.113.9 3 # x\n");
    let listed = scene.scratch.file(
        "listed.yaml",
        "
version: 1
default: drop
sets: { bad-hosts: { file: list.txt } }
rules: [{ id: block-bad, match: { src: '@bad-hosts' }, action: drop }]
",
    );
    let plan = daemon.ask(&["policy", "apply", &listed, "--plan"]).ok();
    assert!(
        plan.contains("allow-eight") && plan.contains("nothing was changed"),
        "{plan}"
    );
    assert_eq!(daemon.json(&["status"])["policy"], status["policy"]);
    let applied = daemon.json(&["policy", "apply", &listed]);
    assert_eq!(applied["applied"]["generation"], 2);
    assert!(
        applied["applied"]["publish_nanoseconds"].as_u64() > Some(0),
        "{applied}"
    );

    let yaml = daemon.ask(&["policy", "get"]).ok();
    let again = scene.scratch.file("again.yaml", &yaml);
    let checked = common::xdpgate(["policy", "check", &again, "--json"]).ok();
    let checked: Value = serde_json::from_str(&checked).expect("JSON");
    assert_eq!(checked["hash"], applied["hash"]);
    assert_eq!(daemon.json(&["policy", "get"])["hash"], applied["hash"]);
    let table = daemon.ask(&["stats"]).ok();
    assert!(
        table.contains("RULE") && table.contains("block-bad"),
        "{table}"
    );

    // What the data plane cannot do is refused, and nothing changes.
    let before = daemon.json(&["status"])["policy"].clone();
    let slow = scene.scratch.file("new.yaml", TOO_SLOW);
    for more in [&[][..], &["--plan"]] {
        daemon
            .ask(&[&["policy", "apply", &slow][..], more].concat())
            .refused(
                2,
                &[
                    "new.yaml: ",
                    "rules[\"slow\"]",
                    "burst",
                    "let it be at most",
                ],
            );
    }
    let wrong = scene.scratch.file("wrong.yaml", "version: 1\nrulez: []\n");
    daemon
        .ask(&["policy", "apply", &wrong])
        .refused(2, &["wrong.yaml: 2:1", "rulez"]);
    assert_eq!(daemon.json(&["status"])["policy"], before);
}

#[test]
fn before_the_first_policy() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let daemon = Daemon::start(
        &scene.host,
        &scene.scratch,
        &["--interface", "xg0", "--enforce"],
    );
    assert_eq!(daemon.json(&["status"])["policy"], Value::Null);
    daemon
        .ask(&["policy", "get"])
        .refused(1, &["no policy yet", "policy apply"]);
    assert_eq!(scene.send("203.0.113.7", 5), 5);
    assert!(packets(&daemon.json(&["stats"]), "pass", "no_policy") >= 5);
    daemon.ask(&["policy", "apply", &scene.policy]).ok();
    assert_eq!(scene.send("203.0.113.7", 5), 0);
}

#[test]
fn the_mode_can_be_demanded() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let daemon = scene.daemon(&["--mode", "generic"]);
    let attachment = &daemon.json(&["status"])["attachments"][0];
    assert_eq!(attachment["mode"], "generic");
    assert_eq!(attachment["requested"], "generic");
    drop(daemon);
    // `lo` has no native mode. With `best` the fall-back is said.
    let arguments = ["--interface", "lo", "--mode", "native"];
    attempt(&scene.host, &scene.scratch, &arguments).refused(1, &["lo", "native"]);
    let daemon = Daemon::start(&scene.host, &scene.scratch, &["--interface", "lo"]);
    let attachment = &daemon.json(&["status"])["attachments"][0];
    assert_eq!(attachment["mode"], "generic");
    assert_eq!(attachment["requested"], "best_available");
    assert!(
        attachment["fell_back"]
            .as_str()
            .is_some_and(|s| s.contains("native"))
    );
}

#[test]
fn r64_signals_leave_nothing_behind() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let socket = scene.scratch.path("xdpgated.sock");
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let daemon = scene.daemon(&["--enforce"]);
        assert_eq!(
            std::fs::metadata(&socket)
                .expect("a socket")
                .permissions()
                .mode()
                & 0o777,
            0o600
        );
        assert!(scene.program("xg0").is_some());
        let (code, log) = daemon.stop(signal);
        assert_eq!(code, Some(0), "{log}");
        assert_eq!(scene.program("xg0"), None);
        assert!(!socket.exists());
    }
    // A killed daemon that pins nothing detaches too. Its socket does not stop the next one.
    let (code, _) = scene.daemon(&[]).stop(Signal::SIGKILL);
    assert_eq!(
        (code, scene.program("xg0"), socket.exists()),
        (None, None, true)
    );
    let daemon = scene.daemon(&[]);
    daemon.ask(&["status"]).ok();
}

#[test]
fn r57_r62_a_start_that_fails_changes_nothing() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let Scene {
        host,
        scratch,
        policy,
        ..
    } = &scene;
    host.ip("link add xg1 type veth peer name nb1");
    host.ip("link set xg1 up");

    attempt(host, scratch, &["--interface", "xg9", "--policy", policy])
        .refused(1, &["there is no interface \"xg9\""]);
    attempt(host, scratch, &["--interface", "xg0", "--interface", "xg0"])
        .refused(2, &["xg0 is there twice"]);
    attempt(
        host,
        scratch,
        &["--interface", "xg0", "--policy", "/nowhere"],
    )
    .refused(2, &["/nowhere: No such file"]);
    let wrong = scratch.file("wrong.yaml", "version: 1\nrulez: []\n");
    attempt(host, scratch, &["--interface", "xg0", "--policy", &wrong])
        .refused(2, &["wrong.yaml: 2:1", "rulez"]);
    let slow = scratch.file("slow.yaml", TOO_SLOW);
    attempt(host, scratch, &["--interface", "xg0", "--policy", &slow])
        .refused(2, &["slow.yaml: ", "rule slow", "let it be at most"]);
    attempt(
        host,
        scratch,
        &["--interface", "xg0", "--policy", policy, "--max-rules", "1"],
    )
    .refused(1, &["2 rules", "room for 1", "--max-rules 4"]);
    assert_eq!(scene.program("xg0"), None);

    // Another program on the second interface: it stays, and the first one is let go.
    let other = Daemon::start(host, scratch, &["--interface", "xg1"]);
    let foreign = scene.program("xg1");
    assert!(foreign.is_some());
    attempt(
        host,
        scratch,
        &[
            "--interface",
            "xg0",
            "--interface",
            "xg1",
            "--policy",
            policy,
        ],
    )
    .refused(
        1,
        &[
            "xg1 already runs the XDP program",
            &format!("id {}", foreign.unwrap_or(0)),
        ],
    );
    assert_eq!(
        (scene.program("xg0"), scene.program("xg1")),
        (None, foreign)
    );

    // A second daemon at the same socket.
    let ended: Ended = host
        .run(|| daemon(&other.server, &["--interface", "xg0"]).output())
        .expect("it ran")
        .into();
    ended.refused(1, &["another daemon answers there"]);
    assert_eq!(scene.program("xg0"), None);
    other.ask(&["status"]).ok();
}

#[test]
fn without_privileges_it_says_so() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    // Where anybody may run and write.
    let program = scene.scratch.path("xdpgated");
    copy_program(XDPGATED, &program);
    let everybody = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(program.parent().expect("a directory"), everybody).expect("set");
    let server = format!("unix:{}", text(&scene.scratch.path("nobody.sock")));
    let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    let arguments = [
        "--interface",
        "xg0",
        "--policy",
        &scene.policy,
        "--listen",
        &server,
    ];
    let ended = scene.host.run(|| {
        run(
            "setpriv",
            [&nobody[..], &[&text(&program)], &arguments].concat(),
        )
    });
    ended.refused(1, &["no permission", "CAP_BPF", "root"]);
    assert_eq!(scene.program("xg0"), None);
    assert!(!scene.scratch.path("nobody.sock").exists());
}
