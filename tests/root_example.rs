//! The library by itself: an example program adds a rule and reads counters, without a daemon.
#![cfg(feature = "kernel")]

#[allow(dead_code, unreachable_pub, reason = "shared with other tests")]
mod common {
    pub mod netns;
    pub mod packet;
}

use std::process::{Command, Stdio};

use common::netns::{self, Wire, veth};
use common::packet::ip;

#[test]
fn r71_the_example_blocks_and_counts() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        veth("wan", "peer");
        let wire = Wire::open("peer");
        let example = std::env::current_exe()
            .unwrap()
            .parent()
            .unwrap()
            .parent()
            .unwrap()
            .join("examples/block_list");
        let child = Command::new(example)
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
