//! The log of a real daemon, as text and as JSON. These tests need root.

mod common;

use std::fs::File;
use std::net::UdpSocket;
use std::os::unix::fs::MetadataExt;

use common::daemon::{Daemon, attempt, daemon};
use common::namespace::Namespace;
use common::{Scratch, is_root, text, wait_for};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// A host with interface `xg0`, and a neighbour behind it.
fn scene() -> (Namespace, Namespace, Scratch) {
    let host = Namespace::new();
    let neighbour = host.neighbour(("xg0", "192.0.2.1/24"), ("nb0", "192.0.2.2/24"));
    (host, neighbour, Scratch::new())
}

/// A policy of this many rules.
fn policy(rules: u16) -> String {
    let rule =
        |n| format!("  - {{ id: r{n}, match: {{ protocol: udp, dport: {n} }}, action: drop }}\n");
    let rules: String = (9000..9000 + rules).map(rule).collect();
    format!("version: 1\nfailsafe: none\nrules:\n{rules}")
}

#[track_caller]
fn records(log: &str) -> Vec<Value> {
    let record = |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"));
    log.lines().map(record).collect()
}

#[test]
fn r96_json_lines_say_what_they_are_about() {
    if !is_root() {
        return;
    }
    let (host, neighbour, scratch) = scene();
    let policy_file = scratch.file("policy.yaml", policy(500));
    let arguments = [
        "--interface",
        "xg0",
        "--log-format",
        "json",
        "--policy",
        &policy_file,
    ];
    let daemon = Daemon::start(&host, &scratch, &arguments);
    let before = daemon.log().lines().count();
    assert!(before < 12, "{}", daemon.log());

    // Nothing comes with each packet, rule or ban.
    let sender = neighbour.run(|| UdpSocket::bind("192.0.2.2:0"));
    let sender = sender.expect("a socket");
    for port in 9000..9300 {
        sender.send_to(b"x", ("192.0.2.1", port)).expect("sent");
    }
    let other = scratch.file("other.yaml", policy(300));
    let applied = daemon.json(&["policy", "apply", &other]);
    assert_ne!(applied, Value::Null);
    let log = wait_for("the line", || {
        let log = daemon.log();
        log.contains("\"generation\":2").then_some(log)
    });
    assert!(log.lines().count() <= before + 2, "{log}");
    let refused = daemon.ask(&["attach", "lo", "--mode", "native"]);
    assert_ne!(refused.code, Some(0));
    daemon.ask(&["detach", "xg0"]).ok();
    let (_, log) = daemon.stop(Signal::SIGTERM);

    let records = records(&log);
    for record in &records {
        for field in ["time", "level", "target", "message"] {
            assert!(record[field].is_string(), "{field} in {record}");
        }
        let time = record["time"].as_str().expect("a text");
        time.parse::<jiff::Timestamp>().expect("RFC 3339");
    }
    let about = |field: &str, value: Value| records.iter().find(|r| r[field] == value);
    let attached = about("interface", "xg0".into()).expect("it was attached");
    assert_eq!(attached["mode"], "native");
    assert!(attached["ifindex"].is_u64(), "{attached}");
    let applied = about("generation", 2.into()).expect("it was applied");
    assert_eq!(applied["entries"], 0);
    let stop = about("reason", "SIGTERM".into()).expect("it was stopped");
    assert_eq!(stop["level"], "info");
}

#[test]
fn r96_text_is_one_line_each() {
    if !is_root() {
        return;
    }
    let (host, _neighbour, scratch) = scene();
    let config = scratch.file("xdpgated.toml", "[log]\nlevel = \"warn\"\n");
    let arguments = [
        "--interface",
        "xg0",
        "--config",
        &config,
        "--log-level",
        "info",
    ];
    let daemon = Daemon::start(&host, &scratch, &arguments);
    for line in daemon.log().lines() {
        let mut words = line.split_whitespace();
        let time = words.next().expect("a time");
        time.parse::<jiff::Timestamp>().expect("RFC 3339");
        assert!(matches!(words.next(), Some("INFO" | "WARN")), "{line}");
        assert!(words.next().is_some_and(|w| w.ends_with(':')), "{line}");
    }
    drop(daemon);
    let wrong = scratch.file("wrong.toml", "[log]\nformat = \"xml\"\n");
    attempt(&host, &scratch, &["--config", &wrong]).refused(2, &["line 2", "xml"]);
}

#[test]
fn r96_the_journal_gets_priorities_and_no_time() {
    if !is_root() {
        return;
    }
    let (host, _neighbour, scratch) = scene();
    let path = scratch.path("journal");
    let journal = File::create(&path).expect("a file");
    // What systemd says of the stream that it made stderr.
    let metadata = journal.metadata().expect("it is there");
    let stream = format!("{}:{}", metadata.dev(), metadata.ino());
    let server = format!("unix:{}", text(&scratch.path("xdpgated.sock")));
    let mut command = daemon(&server, &["--interface", "xg0"]);
    command.env("JOURNAL_STREAM", stream).stderr(journal);
    let mut child = host.run(|| command.spawn()).expect("the daemon");
    let pid = Pid::from_raw(child.id() as i32);
    let read = || std::fs::read_to_string(&path).expect("UTF-8");
    wait_for("ready", || read().contains("ready").then_some(()));
    kill(pid, Signal::SIGTERM).expect("it runs");
    assert!(child.wait().expect("a child").success());
    for line in read().lines() {
        assert!(
            line.starts_with("<6>xdpgated") || line.starts_with("<4>xdpgated"),
            "{line}"
        );
    }
}
