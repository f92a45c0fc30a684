//! The library by itself: an example program adds a rule and reads counters, without a daemon.
#![cfg(feature = "kernel")]

#[allow(dead_code, unreachable_pub, reason = "shared with other tests")]
mod common {
    pub mod netns;
    pub mod packet;
}

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::netns::{self, Wire, veth};
use common::packet::ip;

/// The program of an example: cargo builds them with the tests.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let programs = test.parent().and_then(Path::parent).unwrap();
    programs.join("examples").join(name)
}

#[test]
fn r71_the_example_blocks_and_counts() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        veth("wan", "peer");
        let wire = Wire::open("peer");
        let child = Command::new(example("block_list"))
            .args(["wan", "3", "203.0.113.0/24"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("cargo builds examples with the tests");
        netns::wait_until("the program on wan", || {
            netns::sh("ip link show wan").contains("xdp")
        });
        for i in 0..30 {
            let src = if i % 3 == 0 {
                "203.0.113.9"
            } else {
                "192.0.2.9"
            };
            wire.send(
                &ip(src, "198.51.100.1")
                    .udp(1000, 2000)
                    .payload(&[0; 30])
                    .build(),
            );
        }
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("attached to wan: native"), "{text}");
        assert!(text.contains("block: 10 packets, 10 dropped"), "{text}");
        let after = netns::sh("ip link show wan");
        assert!(!after.contains("xdp"), "the example left nothing: {after}");
    });
}

#[test]
fn the_example_attaches_what_appears() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        veth("a0", "b0");
        let mut child = Command::new(example("auto_attach"))
            .arg("a*")
            .stdout(Stdio::piped())
            .spawn()
            .expect("cargo builds examples with the tests");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut until = |end: &str| {
            let found = lines.find(|line| line.as_ref().unwrap().starts_with(end));
            assert!(found.is_some(), "{end}: it ended before");
        };
        until("b0: skipped: not selected");
        until("a0: attached in native mode");
        veth("a1", "b1");
        until("a1: attached in native mode, ");
        netns::sh("ip link del a1");
        until("a1: detached: Gone");
        child.kill().unwrap();
        child.wait().unwrap();
    });
}

/// A policy in a file of its own.
fn policy_file() -> tempfile::TempPath {
    let mut file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    let text = "{ version: 1, sets: { bad: { entries: [203.0.113.7] } }, \
                rules: [ { id: block, match: { src: '@bad' }, action: drop } ] }";
    file.write_all(text.as_bytes()).unwrap();
    file.into_temp_path()
}

fn send(wire: &Wire, source: &str, count: u32) {
    for _ in 0..count {
        wire.send(
            &ip(source, "198.51.100.1")
                .udp(1000, 2000)
                .payload(&[0; 30])
                .build(),
        );
    }
}

#[test]
fn r72_the_example_reports_what_it_would_drop() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        veth("wan", "peer");
        let wire = Wire::open("peer");
        let policy = policy_file();
        let mut child = Command::new(example("dry_run_report"))
            .args(["wan", "2"])
            .arg(&policy)
            .stdout(Stdio::piped())
            .spawn()
            .expect("cargo builds examples with the tests");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap() == "watching wan"));
        send(&wire, "203.0.113.7", 5);
        send(&wire, "192.0.2.9", 4);
        let rest: Vec<String> = lines.map(Result::unwrap).collect();
        assert!(child.wait().unwrap().success());
        for line in [
            "9 packets, of these 5 would have been dropped",
            "rule block: 5 would have been dropped",
            "source 203.0.113.7: 5 samples",
        ] {
            assert!(rest.iter().any(|l| l == line), "no {line:?} in {rest:?}");
        }
    });
}

#[test]
fn r71_the_example_is_a_control_plane_without_grpc() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        veth("wan", "peer");
        let wire = Wire::open("peer");
        let policy = policy_file();
        let mut child = Command::new(example("control_loop"))
            .arg("wan")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("cargo builds examples with the tests");
        let mut input = child.stdin.take().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "wan: native mode");
        let mut say = |command: &str| {
            writeln!(input, "{command}").unwrap();
            lines.next().unwrap().unwrap()
        };
        let apply = format!("policy {}", policy.display());
        assert_eq!(say(&apply), "generation 1 is in force");
        assert_eq!(say("enforce"), "enforce");
        assert!(say("ban 192.0.2.0/24 600").starts_with("192.0.2.0/24 until "));
        assert_eq!(say("add bad 203.0.113.8"), "[Ok(Entries(1))]");
        for source in ["203.0.113.7", "203.0.113.8", "192.0.2.9", "198.51.100.9"] {
            send(&wire, source, 2);
        }
        assert_eq!(say("stats"), "6 packets dropped");
        assert_eq!(
            say("unban 192.0.2.0/24"),
            "192.0.2.0/24 is not banned any more"
        );
        send(&wire, "192.0.2.9", 2);
        assert_eq!(say("stats"), "6 packets dropped");
        assert!(say("ban 192.0.2.0/33 1").starts_with("error: "));
        drop(input);
        assert!(child.wait().unwrap().success());
        assert!(!netns::sh("ip link show wan").contains("xdp"));
    });
}

#[test]
fn the_example_writes_metrics_of_its_own() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        veth("wan", "peer");
        let wire = Wire::open("peer");
        let (policy, dir) = (policy_file(), tempfile::tempdir().unwrap());
        let file = dir.path().join("firewall.prom");
        let mut child = Command::new(example("own_metrics"))
            .args(["wan", "3"])
            .args([policy.as_os_str(), file.as_os_str()])
            .stdout(Stdio::piped())
            .spawn()
            .expect("cargo builds examples with the tests");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "attached to wan");
        send(&wire, "203.0.113.7", 3);
        assert!(child.wait().unwrap().success());
        let text = std::fs::read_to_string(&file).unwrap();
        let dropped =
            "firewall_packets_total{interface=\"wan\",verdict=\"drop\",reason=\"rule\"} 3\n";
        assert!(text.contains(dropped), "{text}");
        assert!(
            text.contains("firewall_rule_packets_total{rule=\"block\"} 3\n"),
            "{text}"
        );
    });
}
