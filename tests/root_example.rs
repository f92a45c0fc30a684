//! The library by itself: an example program adds a rule and reads counters, without a daemon.
#![cfg(feature = "kernel")]

#[allow(dead_code, unreachable_pub, reason = "shared with other tests")]
mod common {
    pub mod netns;
    pub mod packet;
}

use std::io::{BufRead, BufReader};
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
