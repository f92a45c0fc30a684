//! Sampled drops as a file.
#![cfg(feature = "pcap")]

#[allow(dead_code, unreachable_pub, reason = "shared with other tests")]
mod common {
    pub mod live;
    pub mod netns;
    pub mod packet;
    pub mod pcapng;
    pub mod tools;
}

use std::fs;
use std::io::BufRead;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use common::live::Entry;
use common::netns::{self, Wire, veth, wait_until};
use common::packet::{ip, udp_from};
use common::pcapng::{self, tshark};
use xdpgate::{EventOptions, Firewall, PcapngWriter, Policy};

const BLOCK: &str = "
version: 1
failsafe: none
malformed: drop
rules:
  - { id: block-bad, match: { src: 203.0.113.0/24 }, action: drop }
";

/// A file in the directory for temporary files that goes with this.
struct TemporaryFile(PathBuf);

impl TemporaryFile {
    fn new(name: &str) -> Self {
        let name = format!("xdpgate-{}-{name}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn r111_a_file_is_read_back_as_it_was_written() {
    if netns::skipped() {
        return;
    }
    let firewall = Firewall::loader().dry_run(false).load().unwrap();
    firewall.apply(&Policy::from_yaml(BLOCK).unwrap()).unwrap();
    let entry = Entry::of(&firewall);
    let mut events = firewall.events(EventOptions::default()).unwrap();
    let long = ip("203.0.113.9", "198.51.100.1")
        .udp(1000, 53)
        .payload(&[7; 1000])
        .build();
    let malformed = &long[..20];
    let mut written = Vec::new();
    let mut file = PcapngWriter::new(Vec::new()).unwrap();
    for (frame, dry_run) in [
        (&long[..], false),
        (&udp_from("203.0.113.8"), true),
        (malformed, false),
    ] {
        firewall.set_dry_run(dry_run);
        entry.receive(frame);
        let event = events.next().unwrap();
        file.write(&event).unwrap();
        written.push(event);
    }
    let bytes = file.into_inner();

    let records = pcapng::read(&bytes);
    let comments = [
        "drop rule=block-bad reason=rule generation=1 queue=0",
        "would_drop rule=block-bad reason=rule generation=1 queue=0",
        "drop reason=malformed generation=1 queue=0",
    ];
    assert_eq!(records.len(), 3);
    for ((record, event), comment) in records.iter().zip(&written).zip(comments) {
        assert_eq!(record.comment, comment);
        assert_eq!((record.length, &record.data), (event.length, &event.data));
        assert_eq!(record.nanoseconds, event.time.as_nanosecond() as u128);
        assert_eq!(
            record.interface,
            format!("if{}", event.ifindex),
            "attached by nobody"
        );
    }

    let path = TemporaryFile::new("written.pcapng");
    fs::write(&path.0, bytes).unwrap();
    let fields = [
        "frame.comment",
        "frame.interface_name",
        "frame.len",
        "frame.cap_len",
        "frame.time_epoch",
        "frame.packet_flags_direction",
        "ip.src",
        "udp.dstport",
    ];
    let Some(lines) = tshark(&path.0, &fields) else {
        return;
    };
    let expected: Vec<String> = records
        .iter()
        .zip(["203.0.113.9|53", "203.0.113.8|2000", "|"])
        .map(|(r, rest)| {
            let (seconds, ns) = (r.nanoseconds / 1_000_000_000, r.nanoseconds % 1_000_000_000);
            let (interface, length, captured) = (&r.interface, r.length, r.data.len());
            format!(
                "{}|{interface}|{length}|{captured}|{seconds}.{ns:09}|0x00000001|{rest}",
                r.comment
            )
        })
        .collect();
    assert_eq!(lines, expected);
}

#[test]
fn r111_the_example_writes_what_it_dropped() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        veth("wan", "peer");
        let wire = Wire::open("peer");
        let (policy, file) = (
            TemporaryFile::new("policy.yaml"),
            TemporaryFile::new("drops.pcapng"),
        );
        fs::write(&policy.0, BLOCK).unwrap();
        let program = std::env::current_exe().unwrap();
        let program = program.parent().unwrap().parent().unwrap();
        let mut child = Command::new(program.join("examples/watch_drops"))
            .args(["wan", "3"])
            .args([&policy.0, &file.0])
            .stdout(Stdio::piped())
            .spawn()
            .expect("cargo builds examples with the tests");
        wait_until("the program on wan", || {
            netns::sh("ip link show wan").contains("xdp")
        });
        for _ in 0..5 {
            wire.send(&udp_from("203.0.113.9"));
            wire.send(&udp_from("192.0.2.9"));
        }
        let said: Vec<String> = std::io::BufReader::new(child.stdout.take().unwrap())
            .lines()
            .map(Result::unwrap)
            .collect();
        assert!(child.wait().unwrap().success(), "{said:?}");
        assert!(said[1].contains("sent: 5"), "{said:?}");
        let records = pcapng::read(&fs::read(&file.0).unwrap());
        assert_eq!(records.len(), 5);
        for record in &records {
            assert_eq!(record.interface, "wan");
            assert_eq!(record.data, udp_from("203.0.113.9"));
        }
        if let Some(lines) = tshark(&file.0, &["frame.comment", "ip.src"]) {
            let line = "drop rule=block-bad reason=rule generation=1 queue=0|203.0.113.9";
            assert_eq!(lines, [line; 5]);
        }
    });
}
