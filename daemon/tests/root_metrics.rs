//! What the daemon tells Prometheus is what the kernel counted. These tests need root; each has network
//! namespaces of its own.

mod common;

use std::fmt::Write;
use std::net::{TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use common::daemon::{Daemon, attempt};
use common::namespace::Namespace;
use common::scrape::{Scrape, ask, get, wait_for_status};
use common::{Scratch, is_root, wait_for};
use libbpf_rs::query::{ProgInfoIter, ProgInfoQueryOptions};
use libbpf_rs::{MapCore, MapHandle};
use nix::sys::signal::Signal;
use serde_json::Value;

const POLICY: &str = "
version: 1
failsafe: none
sets:
  bad-hosts: { entries: [203.0.113.7, { entry: 203.0.113.9, expires: 2001-01-01T00:00:00Z }] }
rules:
  - { id: block, match: { src: '@bad-hosts' }, action: drop }
  - { id: watch, match: { dport: 9000, protocol: udp }, action: count }
  - { id: over, match: { src: 203.0.113.10 }, action: drop, expires: 2001-01-01T00:00:00Z }
  - { id: resting, match: { src: 203.0.113.11 }, action: drop, enabled: false }
";

/// A host with interface `xg0` and a neighbour behind it that sends.
struct Scene {
    host: Namespace,
    neighbour: Namespace,
    scratch: Scratch,
    socket: PathBuf,
}

impl Scene {
    fn new() -> Self {
        let host = Namespace::new();
        let neighbour = host.neighbour(("xg0", "192.0.2.1/24"), ("nb0", "192.0.2.2/24"));
        neighbour.ip("address add 203.0.113.7/32 dev nb0");
        let scratch = Scratch::new();
        Self {
            host,
            neighbour,
            socket: scratch.path("metrics.sock"),
            scratch,
        }
    }

    fn daemon(&self, policy: &str, more: &[&str]) -> Daemon {
        self.daemon_at(&format!("unix:{}", self.socket.display()), policy, more)
    }

    /// One that tells metrics at an endpoint.
    fn daemon_at(&self, metrics: &str, policy: &str, more: &[&str]) -> Daemon {
        let policy = self.scratch.file("policy.yaml", policy);
        let arguments = ["--interface", "xg0", "--policy", &policy];
        let metrics = ["--metrics-listen", metrics];
        let arguments = [&arguments[..], &metrics, more].concat();
        Daemon::start(&self.host, &self.scratch, &arguments)
    }

    /// Sends datagrams to a port of the host; they have come when this returns.
    fn send(&self, from: &str, port: u16, count: u32) {
        let sender = self.neighbour.run(|| UdpSocket::bind((from, 0)));
        let sender = sender.expect("a socket");
        for _ in 0..count {
            sender
                .send_to(b"counted", ("192.0.2.1", port))
                .expect("sent");
        }
    }

    fn scrape(&self) -> Scrape {
        Scrape::of(&self.socket)
    }
}

/// The counters as the API has them, and the metrics of the same moment: nothing came meanwhile.
fn together(scene: &Scene, daemon: &Daemon) -> (Value, Scrape) {
    wait_for("a quiet moment", || {
        let before = daemon.json(&["stats"]);
        let scrape = scene.scrape();
        (daemon.json(&["stats"]) == before).then_some((before, scrape))
    })
}

#[test]
fn r95_what_is_exported_is_what_was_counted() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let daemon = scene.daemon(POLICY, &["--enforce"]);
    scene.send("203.0.113.7", 9000, 20);
    scene.send("192.0.2.2", 9000, 10);
    let (stats, scrape) = together(&scene, &daemon);

    let mut series = 0;
    for interface in stats["interfaces"].as_array().expect("a list") {
        for count in interface["verdicts"].as_array().expect("a list") {
            let labels = [
                ("interface", interface["name"].as_str().expect("a name")),
                ("verdict", count["disposition"].as_str().expect("a name")),
                ("reason", count["reason"].as_str().expect("a name")),
            ];
            for (metric, field) in [
                ("xdpgate_packets_total", "packets"),
                ("xdpgate_bytes_total", "bytes"),
            ] {
                let exported = scrape.find(metric, &labels);
                assert_eq!(
                    exported,
                    count[field].as_f64(),
                    "{labels:?} {}",
                    scrape.text
                );
            }
            series += 1;
        }
    }
    assert_eq!(scrape.all("xdpgate_packets_total").count(), series);
    let dropped = [
        ("interface", "xg0"),
        ("verdict", "drop"),
        ("reason", "rule"),
    ];
    assert_eq!(scrape.get("xdpgate_packets_total", &dropped), 20.0);
    assert_eq!(scrape.get("xdpgate_bytes_total", &dropped), 20.0 * 49.0);

    for (rule, packets, drops) in [("block", 20.0, 20.0), ("watch", 10.0, 0.0)] {
        let rule = [("rule", rule)];
        assert_eq!(scrape.get("xdpgate_rule_packets_total", &rule), packets);
        assert_eq!(
            scrape.get("xdpgate_rule_bytes_total", &rule),
            packets * 49.0
        );
        let dropped = scrape.find("xdpgate_rule_dropped_packets_total", &rule);
        assert_eq!(dropped, Some(drops));
    }
    for (name, labels, value) in [
        ("xdpgate_policy_generation", &[][..], 1.0),
        ("xdpgate_rules", &[("enabled", "true")], 3.0),
        ("xdpgate_rules", &[("enabled", "false")], 1.0),
        ("xdpgate_expired_rules", &[], 1.0),
        ("xdpgate_sets", &[], 1.0),
        ("xdpgate_set_entries", &[], 2.0),
        ("xdpgate_expired_set_entries", &[], 1.0),
        ("xdpgate_policy_saved", &[], 1.0),
        ("xdpgate_healthy", &[], 1.0),
        ("xdpgate_dry_run", &[], 0.0),
        (
            "xdpgate_attached",
            &[("interface", "xg0"), ("mode", "native")],
            1.0,
        ),
        ("xdpgate_attached_interfaces", &[], 1.0),
        ("xdpgate_applies_total", &[("outcome", "refused")], 0.0),
    ] {
        assert_eq!(scrape.find(name, labels), Some(value), "{name}");
    }
    let applied = scrape.get("xdpgate_applies_total", &[("outcome", "applied")]);
    assert_eq!(applied, 1.0);
    assert_eq!(
        scrape.get("xdpgate_apply_duration_seconds_count", &[]),
        applied
    );
    assert!(scrape.get("xdpgate_policy_image_bytes", &[]) > 0.0);
    let age = jiff::Timestamp::now().as_duration().as_secs_f64()
        - scrape.get("xdpgate_last_apply_timestamp_seconds", &[]);
    assert!((0.0..600.0).contains(&age), "{age}");

    let answer = get(&scene.socket, "/metrics");
    let content_type = "content-type: text/plain; version=0.0.4; charset=utf-8";
    assert!(answer.head.contains(content_type), "{}", answer.head);
}

#[test]
fn r95_only_the_rules_with_the_most_are_told() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let mut policy = String::from("version: 1\nfailsafe: none\nrules:\n");
    for n in 0..1000 {
        let port = 10_000 + n;
        let matches = format!("{{ protocol: udp, dport: {port} }}");
        writeln!(policy, "  - {{ id: r{n}, match: {matches}, action: drop }}").expect("a text");
    }
    let daemon = scene.daemon(&policy, &["--enforce"]);
    for n in 0..30 {
        scene.send("192.0.2.2", 10_000 + n, 1 + u32::from(n));
    }
    let (_, scrape) = together(&scene, &daemon);
    let told: Vec<(String, f64)> = scrape
        .all("xdpgate_rule_packets_total")
        .map(|(labels, packets)| (labels["rule"].clone(), packets))
        .collect();
    assert_eq!(told.len(), 20, "{told:?}");
    for n in 10..30 {
        let rule = (format!("r{n}"), f64::from(n + 1));
        assert!(told.contains(&rule), "{rule:?} in {told:?}");
    }
    let lines = scrape.text.lines().count();
    assert!(lines < 600, "{lines} lines for 1,000 rules");
    // One that overtakes is told whole, not from then on.
    scene.send("192.0.2.2", 10_005, 100);
    let (_, scrape) = together(&scene, &daemon);
    assert_eq!(
        scrape.get("xdpgate_rule_packets_total", &[("rule", "r5")]),
        106.0
    );
}

#[test]
fn r95_attached_failed_and_detached() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let daemon = scene.daemon(POLICY, &[]);
    let count = |scrape: &Scrape, name: &str| scrape.get(name, &[]);
    let mode = |scrape: &Scrape, mode| scrape.get("xdpgate_attachments_total", &[("mode", mode)]);
    let first = scene.scrape();
    assert_eq!(mode(&first, "native"), 1.0);
    assert_eq!(first.find("xdpgate_attach_failures_total", &[]), Some(0.0));
    assert_eq!(count(&first, "xdpgate_dry_run"), 1.0);

    assert_ne!(
        daemon.ask(&["attach", "lo", "--mode", "native"]).code,
        Some(0)
    );
    assert_eq!(count(&scene.scrape(), "xdpgate_attach_failures_total"), 1.0);

    daemon.ask(&["attach", "lo"]).ok();
    let scrape = scene.scrape();
    assert_eq!(mode(&scrape, "generic"), 1.0);
    let fallbacks = scrape.get("xdpgate_attach_fallbacks_total", &[("mode", "native")]);
    assert_eq!(fallbacks, 1.0);
    let lo = [("interface", "lo"), ("mode", "generic")];
    assert_eq!(scrape.find("xdpgate_attached", &lo), Some(1.0));
    assert_eq!(count(&scrape, "xdpgate_attached_interfaces"), 2.0);

    daemon.ask(&["detach", "lo"]).ok();
    let scrape = scene.scrape();
    assert_eq!(scrape.find("xdpgate_attached", &lo), Some(0.0));
    assert_eq!(count(&scrape, "xdpgate_attached_interfaces"), 1.0);
    assert_eq!(count(&scrape, "xdpgate_detachments_total"), 1.0);
}

#[test]
fn r95_counters_never_fall() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let daemon = scene.daemon(POLICY, &["--enforce"]);
    let watched = |scrape: &Scrape| scrape.get("xdpgate_rule_packets_total", &[("rule", "watch")]);
    scene.send("192.0.2.2", 9000, 10);
    assert_eq!(watched(&scene.scrape()), 10.0);
    // The rule goes, and its counter in the kernel with it; then it comes back.
    let without = scene
        .scratch
        .file("none.yaml", "version: 1\nfailsafe: none\n");
    let with = scene.scratch.file("again.yaml", POLICY);
    daemon.ask(&["policy", "apply", &without]).ok();
    assert_eq!(
        scene.scrape().get("xdpgate_rules", &[("enabled", "true")]),
        0.0
    );
    daemon.ask(&["policy", "apply", &with]).ok();
    scene.send("192.0.2.2", 9000, 3);
    assert_eq!(watched(&scene.scrape()), 13.0);
    let refused = scene.scratch.file("slow.yaml", common::TOO_SLOW);
    assert_ne!(daemon.ask(&["policy", "apply", &refused]).code, Some(0));
    let scrape = scene.scrape();
    // What is applied is not planned as well.
    for (metric, outcome, count) in [
        ("xdpgate_applies_total", "applied", 3.0),
        ("xdpgate_applies_total", "failed", 0.0),
        ("xdpgate_applies_total", "refused", 1.0),
        ("xdpgate_plans_total", "planned", 0.0),
        ("xdpgate_plans_total", "refused", 0.0),
    ] {
        let found = scrape.find(metric, &[("outcome", outcome)]);
        assert_eq!(found, Some(count), "{metric} {outcome}");
    }
    assert_eq!(scrape.get("xdpgate_policy_generation", &[]), 3.0);
}

#[test]
fn r66_a_broken_jump_is_seen_from_outside() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let daemon = scene.daemon(POLICY, &["--enforce"]);
    for page in ["/healthz", "/readyz"] {
        assert_eq!(get(&scene.socket, page).status, 200, "{page}");
    }
    assert_eq!(scene.scrape().get("xdpgate_healthy", &[]), 1.0);
    // The map by which the entry program jumps.
    let status = daemon.json(&["status"]);
    let entry = status["entry_program"]["id"].as_u64().expect("a number");
    let options = ProgInfoQueryOptions::default().include_map_ids(true);
    let mut programs = ProgInfoIter::with_query_opts(options);
    let entry = programs.find(|p| u64::from(p.id) == entry).expect("it");
    let mut maps = entry.map_ids.iter().map(|id| MapHandle::from_map_id(*id));
    let slot = maps.find_map(|m| m.ok().filter(|m| m.name() == "policy_slot"));
    let slot = slot.expect("it");
    slot.delete(&0u32.to_ne_bytes()).expect("root may");

    // Each at the first look.
    assert_eq!(scene.scrape().get("xdpgate_healthy", &[]), 0.0);
    let answer = get(&scene.socket, "/healthz");
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(
        answer.body.lines().count() == 1 && answer.body.len() > 10,
        "{answer:?}"
    );
    let again = scene.scratch.file("again.yaml", POLICY);
    daemon.ask(&["policy", "apply", &again]).ok();
    wait_for_status(&scene.socket, "/healthz", 200);
    assert_eq!(scene.scrape().get("xdpgate_healthy", &[]), 1.0);
}

#[test]
fn r95_many_scrapes_and_idle_connections_under_load() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let _daemon = scene.daemon(POLICY, &["--enforce"]);
    // Whoever connects and says nothing takes nothing away.
    let idle: Vec<UnixStream> = (0..10)
        .map(|_| UnixStream::connect(&scene.socket).expect("it listens"))
        .collect();
    let frames = |scrape: &Scrape| -> f64 {
        let packets = scrape.all("xdpgate_packets_total");
        packets.map(|(_, value)| value).sum()
    };
    std::thread::scope(|scope| {
        let traffic = scope.spawn(|| scene.send("203.0.113.7", 9000, 20_000));
        for _ in 0..6 {
            scope.spawn(|| {
                let mut before = 0.0;
                for _ in 0..10 {
                    let now = frames(&scene.scrape());
                    assert!(now >= before, "{now} after {before}");
                    before = now;
                }
            });
        }
        traffic.join().expect("sent");
    });
    let dropped = [
        ("interface", "xg0"),
        ("verdict", "drop"),
        ("reason", "rule"),
    ];
    wait_for("all of them", || {
        (scene.scrape().get("xdpgate_packets_total", &dropped) == 20_000.0).then_some(())
    });
    drop(idle);
}

#[test]
fn r95_over_tcp_on_loopback_only_unless_said() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let daemon = scene.daemon_at("127.0.0.1:0", POLICY, &[]);
    let log = daemon.log();
    let place = log
        .lines()
        .find_map(|l| l.split_once("metrics and health at "));
    let address = place.expect("it is said").1.trim().to_owned();
    let connect = || TcpStream::connect(&address);
    let stream = scene.host.run(connect).expect("it listens");
    let answer = ask(stream, "/metrics");
    assert!(answer.body.contains("xdpgate_build_info{"), "{answer:?}");
    assert!(
        answer.body.contains("process_cpu_seconds_total "),
        "{answer:?}"
    );
    let stream = scene.host.run(connect).expect("it listens");
    assert_eq!(ask(stream, "/other").status, 404);

    let open = ["--metrics-listen", "0.0.0.0:0"];
    attempt(&scene.host, &scene.scratch, &open).refused(2, &["metrics.allow_remote"]);
    let taken = ["--metrics-listen", &address];
    attempt(&scene.host, &scene.scratch, &taken).refused(1, &[&address, "metrics.listen"]);
    let (code, _) = daemon.stop(Signal::SIGTERM);
    assert_eq!(code, Some(0));
}
