//! The daemon finds its interfaces, outlives itself by pins, and does as its configuration file says.
//! These tests need root; each has network namespaces of its own.

mod common;

use std::ops::Deref;
use std::path::PathBuf;
use std::time::Duration;

use common::daemon::{Daemon, attempt};
use common::neighbours::Neighbours;
use common::{XDPGATE, is_root, text, wait_for};
use nix::sys::signal::Signal;
use serde_json::Value;

const POLICY: &str = "version: 1\nfailsafe: none\nrules: [{ id: block, match: { src: 203.0.113.7 }, action: drop }]\n";

/// Neighbours whose host has a BPF file system of its own.
struct Scene {
    neighbours: Neighbours,
    pins: PathBuf,
    policy: String,
}

impl Scene {
    fn new() -> Self {
        let neighbours = Neighbours::new();
        let bpffs = neighbours.scratch.path("bpffs");
        neighbours.host.mount_bpffs(&bpffs);
        let policy = neighbours.scratch.file("policy.yaml", POLICY);
        Self {
            neighbours,
            pins: bpffs.join("xdpgate"),
            policy,
        }
    }

    /// A daemon that outlives itself.
    fn pinned(&self, more: &[&str]) -> Daemon {
        let root = text(&self.pins);
        let arguments = ["--pin", "require", "--pin-root", &root];
        self.start(&[&arguments, more].concat())
    }

    /// A file that selects just these.
    fn config(&self, names: &[&str], more: &str) -> String {
        let names: Vec<String> = names.iter().map(|n| format!("{n:?}")).collect();
        let names = names.join(", ");
        let file = format!(
            "enforce = true\npolicy = {:?}\n[interfaces]\nclass = \"none\"\ninclude = [{names}]\n{more}",
            self.policy
        );
        self.scratch.file("xdpgated.toml", file)
    }

    /// The program of an interface.
    fn program(&self, interface: &str) -> Option<u64> {
        let shown = self
            .host
            .run(|| common::run("ip", ["-j", "-d", "link", "show", interface]));
        let links: Value = serde_json::from_str(&shown.ok()).expect("JSON");
        links[0]["xdp"]["prog"]["id"].as_u64()
    }
}

impl Deref for Scene {
    type Target = Neighbours;

    fn deref(&self) -> &Neighbours {
        &self.neighbours
    }
}

fn interface<'v>(listed: &'v Value, name: &str) -> &'v Value {
    let interfaces = listed["interfaces"].as_array().expect("an array");
    let mut found = interfaces.iter().filter(|i| i["name"] == name);
    found
        .next()
        .unwrap_or_else(|| panic!("no {name} in {listed:#}"))
}

#[test]
fn r58_r59_r63_the_filter_outlives_the_daemon() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let fixed = ["--interface", "xg0", "--enforce"];
    let first = scene.pinned(&[&fixed[..], &["--policy", &scene.policy]].concat());
    assert!(!scene.reaches("203.0.113.7") && scene.reaches("192.0.2.2"));
    let status = first.json(&["status"]);
    assert_eq!(status["pin_root"], text(&scene.pins).as_str());
    assert_eq!(status["broken"], Value::Null);
    let link = status["attachments"][0]["link_id"].clone();
    let mut program = scene.program("xg0");
    let (code, log) = first.stop(Signal::SIGTERM);
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("goes on being judged"), "{log}");
    assert!(log.contains("xdpgate unload --pin"), "{log}");

    let mut dropped = 1;
    for signal in [Signal::SIGKILL, Signal::SIGINT] {
        assert_eq!(scene.program("xg0"), program);
        assert!(!scene.reaches("203.0.113.7") && scene.reaches("192.0.2.2"));
        // The policy is the one that was saved.
        let next = scene.pinned(&fixed);
        assert!(!scene.reaches("203.0.113.7") && scene.reaches("192.0.2.2"));
        dropped += 2;
        assert_ne!(scene.program("xg0"), program);
        program = scene.program("xg0");
        let status = next.json(&["status"]);
        assert_eq!(status["attachments"][0]["link_id"], link);
        let stats = next.json(&["stats"]);
        assert_eq!(stats["rules"][0]["dropped_packets"], dropped);
        next.stop(signal);
    }

    // By hand, without a daemon, and by one that is told to.
    let last = scene.pinned(&fixed);
    let said = last.ask(&["stop", "--detach"]).ok();
    assert!(said.contains("detached"), "{said}");
    wait_for("its end", || {
        (!scene.pins.exists() && scene.program("xg0").is_none()).then_some(())
    });
    assert!(scene.reaches("203.0.113.7"));

    let again = scene.pinned(&fixed);
    let busy = scene.host.run(|| {
        let root = text(&scene.pins);
        common::run(XDPGATE, ["unload", "--pin", root.as_str()])
    });
    busy.refused(1, &["another process uses these pins"]);
    again.stop(Signal::SIGKILL);
    assert!(!scene.reaches("203.0.113.7"));
    let root = text(&scene.pins);
    scene
        .host
        .run(|| common::run(XDPGATE, ["unload", "--pin", root.as_str()]))
        .ok();
    wait_for("the interface to be free", || {
        scene.program("xg0").is_none().then_some(())
    });
}

#[test]
fn r62_a_start_that_fails_leaves_what_was_there() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    scene.host.ip("link add xg1 type veth peer name nb1");
    let other = Daemon::start_at(
        &scene.host,
        &format!("unix:{}", text(&scene.scratch.path("other.sock"))),
        &["--interface", "xg1"],
    );
    let root = text(&scene.pins);
    let pinned = ["--pin", "auto", "--pin-root", &root, "--enforce"];
    let both = ["--interface", "xg0", "--interface", "xg1"];
    // Nothing was there: nothing is, and no pins.
    let arguments = [&pinned[..], &both, &["--policy", &scene.policy]].concat();
    let refused = attempt(&scene.host, &scene.scratch, &arguments);
    refused.refused(1, &["xg1 already runs"]);
    assert_eq!(scene.program("xg0"), None);
    assert!(!scene.pins.exists());
    // A filter was there: it goes on.
    let first = scene.pinned(&["--interface", "xg0", "--policy", &scene.policy, "--enforce"]);
    first.stop(Signal::SIGKILL);
    let refused = attempt(&scene.host, &scene.scratch, &arguments);
    refused.refused(1, &["xg1 already runs"]);
    assert!(scene.program("xg0").is_some());
    assert!(!scene.reaches("203.0.113.7") && scene.reaches("192.0.2.2"));
    drop(other);
}

/// Row 110: nobody would keep the deadline when the daemon has ended in good order.
#[test]
fn r110_a_stop_takes_back_what_nobody_confirmed() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let daemon = scene.pinned(&["--interface", "xg0", "--policy", &scene.policy, "--enforce"]);
    assert!(!scene.reaches("203.0.113.7"));
    let open = scene.scratch.file("open.yaml", "version: 1\n");
    daemon
        .ask(&["policy", "apply", &open, "--confirm-within", "10m"])
        .ok();
    assert!(scene.reaches("203.0.113.7"));
    let (code, log) = daemon.stop(Signal::SIGTERM);
    let audited = ["who=\"stop\"", "RollbackPolicy of generation"];
    assert!(audited.iter().all(|words| log.contains(words)), "{log}");
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("is taken back"), "{log}");
    assert!(!scene.reaches("203.0.113.7") && scene.reaches("192.0.2.2"));

    // The next one has nothing that waits.
    let daemon = scene.pinned(&["--interface", "xg0", "--enforce"]);
    assert_eq!(daemon.json(&["status"])["pending"], Value::Null);
    assert!(!scene.reaches("203.0.113.7"));
}

#[test]
fn r51_r52_interfaces_are_found_and_listed() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let config = scene.config(&["xg*"], "rescan_seconds = 1\n");
    let daemon = scene.start(&["--config", &config]);
    assert!(!scene.reaches("203.0.113.7") && scene.reaches("192.0.2.2"));
    scene.host.ip("link add xg1 type veth peer name nb1");
    let attached = |name: &str| {
        let listed = daemon.json(&["interfaces"]);
        interface(&listed, name)["attachment"]["mode"].is_string()
    };
    wait_for("the new one", || attached("xg1").then_some(()));
    let listed = daemon.json(&["interfaces"]);
    assert_eq!(interface(&listed, "xg1")["kind"], "veth");
    assert_eq!(interface(&listed, "xg1")["selected"], true);
    assert_eq!(interface(&listed, "nb1")["skipped"], "not selected");
    assert_eq!(listed["watch"]["attached"], 2);
    let table = daemon.ask(&["interfaces"]).ok();
    assert!(table.starts_with("INTERFACE"), "{table}");
    assert!(table.contains("native"), "{table}");

    // Detached by hand it stays so; attached by hand what nobody selected.
    let said = daemon.ask(&["detach", "xg1"]).ok();
    assert!(said.contains("xg1: detached"), "{said}");
    let said = daemon.ask(&["attach", "nb1", "--mode", "generic"]).ok();
    assert!(said.contains("nb1: attached in generic mode"), "{said}");
    std::thread::sleep(Duration::from_millis(1500));
    assert!(!attached("xg1") && attached("nb1"));
    let again = daemon.ask(&["detach", "xg1"]);
    again.refused(1, &["xg1 is not attached"]);
    daemon
        .ask(&["attach", "nb1"])
        .refused(1, &["nb1 is attached already"]);
    daemon
        .ask(&["attach", "nowhere"])
        .refused(1, &["there is no interface \"nowhere\""]);
    daemon.ask(&["attach", "xg1"]).ok();
    assert!(attached("xg1"));
    let said = daemon.ask(&["stop"]).ok();
    assert!(said.contains("everything is detached"), "{said}");
    wait_for("its end", || scene.program("xg0").is_none().then_some(()));
}

#[test]
fn r113_preflight_names_what_mends() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    scene.host.ip("link add xg1 type veth peer name nb1");
    scene.host.ip("link add br0 type bridge");
    let daemon = scene.start(&["--interface", "xg0"]);
    let said = daemon.ask(&["preflight"]).ok();
    assert!(
        said.starts_with("xg0: would be attached in native mode"),
        "{said}"
    );
    let said = &daemon.json(&["preflight", "xg1", "br0"])["interfaces"];
    assert_eq!(said[0]["expected_mode"], "native");
    assert_eq!(said[1]["expected_mode"], "generic");
    assert_eq!(said[1]["findings"][0]["kind"], "no-native");
    let said = &daemon.json(&["preflight", "br0", "--mode", "native"])["interfaces"];
    assert_eq!(said[0]["expected_mode"], Value::Null);
    daemon
        .ask(&["preflight", "nowhere"])
        .refused(1, &["there is no interface \"nowhere\""]);
}

#[test]
fn r46_bridges_of_the_configuration_file() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    scene.host.ip("link add xg1 type veth peer name nb1");
    let pair = "[[bridge]]\nouter = \"xg0\"\ninner = \"xg1\"\nfilter = \"inbound\"\n";
    let config = scene.config(&[], pair);
    let daemon = scene.pinned(&["--config", &config]);
    let listed = daemon.json(&["interfaces"]);
    assert_eq!(listed["bridges"][0]["outer"], "xg0");
    assert_eq!(listed["bridges"][0]["filter"], "inbound");
    assert!(interface(&listed, "xg1")["attachment"].is_object());
    let table = daemon.ask(&["interfaces"]).ok();
    assert!(table.contains("OUTER"), "{table}");
    daemon
        .ask(&["detach", "xg0"])
        .refused(1, &["xg0", "bridge"]);
    let promiscuous = |name: &str| {
        let shown = scene
            .host
            .run(|| common::run("ip", ["-o", "link", "show", name]));
        shown.ok().contains("PROMISC")
    };
    assert!(promiscuous("xg0") && promiscuous("xg1"));
    assert!(!scene.reaches("192.0.2.2"), "it goes to the other port");
    daemon.stop(Signal::SIGKILL);
    assert!(!scene.reaches("192.0.2.2"), "nobody runs");

    // Without the bridge: the ports are as they were, and still attached.
    let config = scene.config(&[], "");
    let daemon = scene.pinned(&["--config", &config]);
    assert!(!promiscuous("xg0") && !promiscuous("xg1"));
    let listed = daemon.json(&["interfaces"]);
    assert_eq!(listed["bridges"].as_array().map(Vec::len), Some(0));
    // The neighbour asks for the host's address again only after a while.
    wait_for("the host", || scene.reaches("192.0.2.2").then_some(()));
    assert!(!scene.reaches("203.0.113.7"));
    daemon.ask(&["stop", "--detach"]).ok();
    wait_for("its end", || (!scene.pins.exists()).then_some(()));
}

#[test]
fn a_configuration_that_is_wrong_is_refused_by_line_and_key() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let file = scene.scratch.file(
        "wrong.toml",
        "enforce = true\n[interfaces]\nclas = \"all\"\n",
    );
    attempt(&scene.host, &scene.scratch, &["--config", &file])
        .refused(2, &["wrong.toml:3: ", "clas"]);
    attempt(&scene.host, &scene.scratch, &["--config", "/nowhere"]).refused(2, &["/nowhere"]);
}
