//! Bridges of a firewall that outlives its process: they forward and judge without it, and the next
//! process takes them over.
#![cfg(feature = "kernel")]

#[allow(dead_code, unreachable_pub, reason = "shared with other tests")]
mod common {
    pub mod bridged;
    pub mod netns;
    pub mod packet;
    pub mod places;
}

use common::bridged::{self, bridge, hosts, policy};
use common::netns::{self, Wire, index, sh, skipped};
use common::packet::udp_from;
use xdpgate::{Filter, Firewall, Loader, Pinning, Selector};

const POLICY: &str = "
version: 1
failsafe: none
rules: [{ id: block, match: { src: 203.0.113.0/24 }, action: drop }]
";

/// What comes through of a frame that must and of one that must not.
fn crosses(from: &Wire, to: &Wire) -> [usize; 2] {
    ["192.0.2.99", "203.0.113.9"].map(|source| {
        let frame = udp_from(source);
        from.send(&frame);
        let received = std::iter::from_fn(|| to.receive());
        received.filter(|received| *received == frame).count()
    })
}

fn port_flags() -> [String; 2] {
    ["outer", "inner"].map(|port| {
        let link = sh(&format!("ip -o link show {port}"));
        let flags = link.split(['<', '>']).nth(1).unwrap().to_owned();
        format!("{}", flags.contains("PROMISC"))
    })
}

#[test]
fn r46_r58_a_bridge_goes_on_over_restarts() {
    if skipped() {
        return;
    }
    netns::run(|| {
        let mount = std::env::temp_dir().join(format!("xdpgate-bridges-{}", std::process::id()));
        netns::mount_bpffs(&mount);
        let state = tempfile::tempdir().unwrap();
        let loader = || -> Loader {
            bridged::loader()
                .pin(Pinning::Require)
                .pin_root(mount.join("pins"))
                .state_dir(state.path())
        };
        let (a, b) = hosts();
        let before = port_flags();
        let firewall = loader().load().unwrap();
        firewall.apply(&policy(POLICY)).unwrap();
        let made = bridge(&firewall, (&a, &b), Filter::Both);
        let from = a.place.within(|| Wire::open("a0"));
        let to = b.place.within(|| Wire::open("b0"));
        let stack = Wire::open("outer");
        assert_eq!(crosses(&from, &to), [1, 0]);
        drop(firewall);
        assert_eq!(crosses(&from, &to), [1, 0], "nobody runs");

        // The same sizes, and others: maps that must be filled anew before they are used.
        let mut dropped = 1;
        for (loader, is_resized) in [(loader(), false), (loader().max_rules(100), true)] {
            let next = loader.load().unwrap();
            assert_eq!(
                crosses(&from, &to),
                [1, 0],
                "before the bridge is made again"
            );
            let again = bridge(&next, (&a, &b), Filter::Both);
            let links = |info: &xdpgate::BridgeInfo| {
                [&info.outer, &info.inner].map(|port| port.attachment.link_id)
            };
            assert_eq!(links(&again), links(&made));
            assert_eq!(crosses(&from, &to), [1, 0]);
            let now = &next.bridges()[0];
            assert_eq!(now.inbound.forwarded.packets, 1, "since it was made again");
            dropped += 3;
            let counted = next.stats().rules[0].dropped;
            assert!(
                is_resized || counted == dropped,
                "counters go on: {counted} of {dropped}"
            );
            drop(next);
        }
        assert_eq!(stack.receive(), None, "nothing of it came to this host");

        let last = loader().max_rules(100).load().unwrap();
        bridge(&last, (&a, &b), Filter::Both);
        last.unbridge(index("inner")).unwrap();
        assert_eq!(port_flags(), before, "as before the first of all");
        assert!(last.attachments().is_empty());
        last.uninstall().unwrap();
    });
}

#[test]
fn interfaces_that_are_attached_by_themselves_become_ports() {
    if skipped() {
        return;
    }
    netns::run(|| {
        let (a, b) = hosts();
        for port in ["outer", "inner"] {
            sh(&format!("ip link set {port} up"));
        }
        let firewall = bridged::loader().load().unwrap();
        firewall.apply(&policy(POLICY)).unwrap();
        let auto = firewall
            .auto_attach(Selector::none().include("outer").include("inner"))
            .unwrap();
        netns::wait_until("both", || firewall.attachments().len() == 2);
        let attached = firewall.attachments();
        bridge(&firewall, (&a, &b), Filter::Both);
        let from = a.place.within(|| Wire::open("a0"));
        let to = b.place.within(|| Wire::open("b0"));
        assert_eq!(crosses(&from, &to), [1, 0]);
        firewall.unbridge(index("outer")).unwrap();
        assert_eq!(firewall.attachments(), attached, "judged all the time");
        assert_eq!(crosses(&from, &to), [0, 0], "no bridge any more");
        let frames = |firewall: &Firewall| -> u64 {
            let stats = firewall.stats();
            stats
                .interfaces
                .iter()
                .map(|i| i.counts.total().packets)
                .sum()
        };
        let counted = frames(&firewall);
        from.send(&udp_from("192.0.2.99"));
        netns::wait_until("the frame to be counted", || frames(&firewall) > counted);
        auto.stop();
    });
}
