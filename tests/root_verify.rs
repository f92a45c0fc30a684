//! What somebody changes in the kernel's memory of a policy is found, and put right.
#![cfg(feature = "kernel")]

#[allow(dead_code, unreachable_pub, reason = "shared with other tests")]
mod common {
    pub mod altered;
    pub mod netns;
}

use std::fmt::Write;

use common::altered;
use common::netns;
use libbpf_rs::{MapCore, MapFlags};
use xdpgate::policy::{Change, SetName};
use xdpgate::{
    Altered, Firewall, IfIndex, ModePreference, Policy, TransactionOptions, Verdict, Verified,
};

const POLICY: &str = "
version: 1
sets: { bad: { entries: [203.0.113.7, 203.0.113.8] } }
rules:
  - { id: bad, match: { src: '@bad' }, action: drop }
  - { id: there, match: { src: 198.51.100.0/24 }, action: drop, interfaces: [lo] }
";

fn verified(firewall: &Firewall) -> Verified {
    firewall.verify().expect("read").expect("a policy")
}

fn judging(firewall: &Firewall) -> u32 {
    firewall.program_info().policy.expect("a policy").id
}

/// An IPv4 frame from an address.
fn frame(source: [u8; 4]) -> Vec<u8> {
    let mut frame = vec![0; 60];
    frame[12..14].copy_from_slice(&[8, 0]);
    frame[14] = 0x45;
    frame[17] = 46;
    (frame[22], frame[23]) = (64, 17);
    frame[26..30].copy_from_slice(&source);
    frame[30..34].copy_from_slice(&[192, 0, 2, 1]);
    frame
}

fn drops(firewall: &Firewall, source: [u8; 4]) -> bool {
    let judged = firewall.evaluate(&frame(source)).expect("judged");
    judged.verdict == Verdict::Drop
}

/// Row 82, in the kernel: lines of the image in turn, and a change of the policy that would be made
/// upon the altered one.
#[test]
fn r82_an_altered_value_is_found_and_put_right() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        let firewall = Firewall::loader().load().expect("root may");
        assert_eq!(firewall.verify().expect("nothing to read"), None);
        firewall
            .apply(&Policy::from_yaml(POLICY).expect("a policy"))
            .expect("room");
        let lo = IfIndex::from_name("lo").expect("there is one");
        firewall
            .attach(lo, ModePreference::BestAvailable)
            .expect("nobody is there");
        let lines = (verified(&firewall).bytes / 64) as u32;
        assert!(lines > 4, "{lines}");
        let mut found = Vec::new();
        for line in [0, 1, lines / 2, lines - 2, lines - 1] {
            assert_eq!(verified(&firewall).altered, None, "{line}");
            altered::invert(judging(&firewall), line);
            found.push(verified(&firewall).altered.expect("it was altered"));
            firewall.republish().expect("room").expect("a policy");
            assert!(drops(&firewall, [203, 0, 113, 7]));
            assert!(!drops(&firewall, [192, 0, 2, 9]));
        }
        // The header first, which is several lines long.
        assert!(found.is_sorted_by_key(|altered| *altered == Altered::Lines));
        assert_eq!(
            (found[0], found[found.len() - 1]),
            (Altered::Header, Altered::Lines)
        );

        // It is not built upon.
        altered::invert(judging(&firewall), lines - 1);
        let bad = SetName::new("bad").expect("a name");
        let more = vec![("203.0.113.9".parse().expect("an address"), None)];
        let more = [Change::AddEntries(bad, more)];
        let done = firewall
            .transact(&more, TransactionOptions::default())
            .expect("room");
        assert_eq!(done.applied.expect("a change").changed_hosts, None);
        assert_eq!(verified(&firewall).altered, None);
        assert!(drops(&firewall, [203, 0, 113, 9]) && drops(&firewall, [203, 0, 113, 7]));

        // What is for which interface.
        let scopes = altered::map_of(judging(&firewall), "scopes");
        let there = |slot: u32| {
            let value = scopes.lookup(&slot.to_ne_bytes(), MapFlags::ANY);
            let value = value.expect("read").expect("a value");
            u64::from_ne_bytes(value.try_into().expect("eight bytes"))
        };
        let slot = (0..).find(|slot| there(*slot) != 0).expect("that of lo");
        scopes
            .update(&slot.to_ne_bytes(), &[0; 8], MapFlags::ANY)
            .expect("root may");
        assert_eq!(verified(&firewall).altered, Some(Altered::Scopes));
        firewall.republish().expect("room").expect("a policy");
        assert_eq!(verified(&firewall).altered, None);
        // The rest of the image is as before: counters and all.
        assert!(drops(&firewall, [203, 0, 113, 9]));
    });
}

/// What it costs, of a policy with half a million hosts: said, not asserted.
#[test]
fn a_large_image_is_read_where_it_is() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        let firewall = Firewall::loader().load().expect("root may");
        let mut text = "version: 1\nsets:\n  many:\n    entries:\n".to_owned();
        for n in 0..500_000u32 {
            let [_, a, b, c] = (n * 7).to_be_bytes();
            let _ = writeln!(text, "      - 100.{a}.{b}.{c}");
        }
        text += "rules: [{ id: many, match: { src: '@many' }, action: drop }]\n";
        firewall
            .apply(&Policy::from_yaml(&text).expect("a policy"))
            .expect("room");
        let found = verified(&firewall);
        assert_eq!(found.altered, None);
        let mb = found.bytes as f64 / 1e6;
        println!("{mb:.1} MB in {:?}", found.took);
        altered::invert(judging(&firewall), (found.bytes / 64 - 1) as u32);
        assert_eq!(verified(&firewall).altered, Some(Altered::Lines));
    });
}
