//! A configuration that changes while the daemon runs, with real packets.

mod common;

use std::net::UdpSocket;
use std::time::Duration;

use common::daemon::Daemon;
use common::namespace::Namespace;
use common::{Scratch, is_root, wait_for};
use nix::sys::signal::{Signal, kill};
use serde_json::Value;

const POLICY: &str = "
version: 1
rules: [{ id: block-bad, match: { src: 203.0.113.7 }, action: drop }]
";

struct Scene {
    host: Namespace,
    neighbour: Namespace,
    scratch: Scratch,
}

impl Scene {
    /// A host with `xg0`, `xg1` and `xg2`; a neighbour with a bad address is behind the first.
    fn new() -> Self {
        let host = Namespace::new();
        let neighbour = host.neighbour(("xg0", "192.0.2.1/24"), ("nb0", "192.0.2.2/24"));
        neighbour.ip("address add 203.0.113.7/32 dev nb0");
        host.ip("route add 203.0.113.7/32 dev xg0");
        host.ip("link add xg1 type veth peer name nb1");
        host.ip("link add xg2 type veth peer name nb2");
        for name in ["xg1", "nb1", "xg2", "nb2"] {
            host.ip(&format!("link set {name} up"));
        }
        let scratch = Scratch::new();
        scratch.file("policy.yaml", POLICY);
        Self {
            host,
            neighbour,
            scratch,
        }
    }

    fn configure(&self, more: &str) -> String {
        let policy = self.scratch.path("policy.yaml");
        let text = format!("policy = {policy:?}\n{more}");
        self.scratch.file("xdpgated.toml", text)
    }

    fn daemon(&self) -> Daemon {
        let file = self.scratch.path("xdpgated.toml");
        let file = file.to_str().expect("UTF-8");
        Daemon::start(&self.host, &self.scratch, &["--config", file])
    }

    /// Whether a datagram from the bad address arrives.
    fn bad_arrives(&self) -> bool {
        let receiver = self.host.receiver("192.0.2.1:9000");
        let wait = Duration::from_millis(300);
        receiver.set_read_timeout(Some(wait)).expect("set");
        let sender = self
            .neighbour
            .run(|| UdpSocket::bind("203.0.113.7:0"))
            .expect("a socket");
        sender.send_to(b"bad", "192.0.2.1:9000").expect("sent");
        receiver.recv(&mut [0; 8]).is_ok()
    }
}

/// Sends SIGHUP and gives what is logged from then on, up to the outcome.
#[track_caller]
fn reload(daemon: &Daemon) -> String {
    let before = daemon.log().len();
    kill(daemon.pid(), Signal::SIGHUP).expect("it runs");
    wait_for("the outcome", || {
        let log = daemon.log()[before..].to_owned();
        let ended = log.contains("configuration: ") || log.contains("stays in force");
        ended.then_some(log)
    })
}

/// Interface and number of the kernel's link, of all that are attached.
fn attached(daemon: &Daemon) -> Vec<(String, Value)> {
    let shown = daemon.json(&["interfaces"]);
    let interfaces = shown["interfaces"].as_array().expect("interfaces");
    let mut attached: Vec<(String, Value)> = interfaces
        .iter()
        .filter(|i| !i["attachment"].is_null())
        .map(|i| {
            (
                i["name"].as_str().unwrap_or_default().to_owned(),
                i["attachment"].clone(),
            )
        })
        .collect();
    attached.sort_by(|a, b| a.0.cmp(&b.0));
    attached
}

fn names(attached: &[(String, Value)]) -> Vec<&str> {
    attached.iter().map(|(name, _)| name.as_str()).collect()
}

#[test]
fn the_selection_changes_and_what_both_take_stays() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    scene.configure("enforce = true\n[interfaces]\nclass = 'none'\ninclude = ['xg0', 'xg1']\n");
    let daemon = scene.daemon();
    let before = attached(&daemon);
    assert_eq!(names(&before), ["xg0", "xg1"]);

    scene.configure(
        "enforce = true\nmax_rules = 99\n[interfaces]\nclass = 'none'\ninclude = ['xg0', 'xg2']\n\
         mode = 'generic'\n",
    );
    let log = reload(&daemon);
    for words in [
        "in force: interfaces.include, interfaces.mode",
        "with the next start: max_rules",
    ] {
        assert!(log.contains(words), "no {words:?} in:\n{log}");
    }
    let after = attached(&daemon);
    assert_eq!(names(&after), ["xg0", "xg2"]);
    // The same attachment: a new one would be another program on another link.
    assert_eq!(before[0], after[0]);
    assert_eq!(after[1].1["mode"], "generic", "{after:?}");
    assert!(!scene.bad_arrives());

    // What appears is judged by the new selection.
    scene.host.ip("link del xg2");
    scene.host.ip("link add xg2 type veth peer name nb2");
    wait_for("the new one", || {
        (names(&attached(&daemon)) == ["xg0", "xg2"]).then_some(())
    });

    // What waits for a restart is said until there is one; what is in force is not said again.
    let log = reload(&daemon);
    assert!(
        log.contains("configuration: with the next start: max_rules\n"),
        "{log}"
    );
    let (code, log) = daemon.stop(Signal::SIGTERM);
    assert_eq!(code, Some(0), "{log}");
}

#[test]
fn enforcement_changes_under_traffic() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let interfaces = "[interfaces]\nclass = 'none'\ninclude = ['xg0']\n";
    scene.configure(interfaces);
    let daemon = scene.daemon();
    assert!(scene.bad_arrives(), "a dry run drops nothing");
    scene.configure(&format!("enforce = true\n{interfaces}"));
    let log = reload(&daemon);
    assert!(log.contains("in force: enforce\n"), "{log}");
    assert!(!scene.bad_arrives());
    scene.configure(interfaces);
    reload(&daemon);
    assert!(scene.bad_arrives());
    // Nothing to do is said too.
    assert!(reload(&daemon).contains("nothing changed"));
}

#[test]
fn r73_a_wrong_configuration_leaves_the_former_in_force() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let good = "enforce = true\n[interfaces]\nclass = 'none'\ninclude = ['xg0', 'xg1']\n";
    scene.configure(good);
    let daemon = scene.daemon();
    let before = attached(&daemon);
    scene
        .configure("enforce = false\n[interfaces]\nclass = 'none'\ninclude = ['xg[']\nmod = 'x'\n");
    let log = reload(&daemon);
    for words in [
        "the former configuration stays in force",
        "xdpgated.toml:5: interfaces.include[0]: \"xg[\"",
        "xdpgated.toml:6: interfaces.mod: ",
        "did you mean mode?",
    ] {
        assert!(log.contains(words), "no {words:?} in:\n{log}");
    }
    assert_eq!(attached(&daemon), before);
    assert!(!scene.bad_arrives(), "it goes on dropping");
    // As if it had never been there.
    scene.configure(good);
    assert!(reload(&daemon).contains("nothing changed"));
}

/// Interfaces that were named on the command line are no matter of the file.
#[test]
fn named_interfaces_stay() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let file = scene.configure("");
    let arguments = ["--config", file.as_str(), "--interface", "xg1"];
    let daemon = Daemon::start(&scene.host, &scene.scratch, &arguments);
    scene.configure("[interfaces]\nclass = 'none'\ninclude = ['xg0']\n");
    let log = reload(&daemon);
    assert!(
        log.contains("with the next start: interfaces.class, interfaces.include"),
        "{log}"
    );
    assert_eq!(names(&attached(&daemon)), ["xg1"]);
}
