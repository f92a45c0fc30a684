//! Rules for some interfaces only, with live traffic on veth pairs in a namespace of their own.
#![cfg(feature = "kernel")]

#[allow(dead_code, unreachable_pub, reason = "shared with other tests")]
mod common {
    pub mod netns;
    pub mod packet;
}

use common::netns::{self, Wire, index, sh, veth, wait_until};
use common::packet::{ethernet, ip, udp_from};
use xdpgate::policy::Policy;
use xdpgate::{Disposition, Firewall, ModePreference, Reason};

/// One rule for a name, one for a glob, one for all.
const SCOPED: &str = "
version: 1
failsafe: none
rules:
  - { id: on-a0, match: { src: 203.0.113.0/24 }, action: drop, interfaces: [a0] }
  - { id: on-as, match: { src: 198.18.0.0/15, protocol: udp }, action: drop, interfaces: ['a*', lo] }
  - { id: everywhere, match: { src: 192.0.2.9 }, action: drop }
";

/// The same ids, for other interfaces.
const SWAPPED: &str = "
version: 1
failsafe: none
rules:
  - { id: on-a0, match: { src: 203.0.113.0/24 }, action: drop, interfaces: ['?1'] }
  - { id: on-as, match: { src: 198.18.0.0/15, protocol: udp }, action: drop, interfaces: [c0] }
  - { id: everywhere, match: { src: 192.0.2.9 }, action: drop }
";

fn policy(text: &str) -> Policy {
    Policy::from_yaml(text).unwrap_or_else(|e| panic!("{e}"))
}

fn attach(firewall: &Firewall, name: &str) {
    firewall
        .attach(index(name), ModePreference::BestAvailable)
        .unwrap();
}

/// Frames that an interface has dropped by a rule, and passed.
fn counts(firewall: &Firewall, name: &str) -> (u64, u64) {
    let stats = firewall.stats();
    let of = stats
        .interfaces
        .iter()
        .find(|i| i.ifindex == index(name))
        .expect("its counters");
    (of.counts.dropped().packets, of.counts.passed().packets)
}

/// Sends a frame from the other end of `name` and tells whether it was dropped there.
fn is_dropped(firewall: &Firewall, name: &str, frame: &[u8]) -> bool {
    let peer = format!("p{name}");
    let (dropped, passed) = counts(firewall, name);
    Wire::open(&peer).send(frame);
    wait_until("the frame", || counts(firewall, name) != (dropped, passed));
    let after = counts(firewall, name);
    assert_eq!(
        after.0 + after.1,
        dropped + passed + 1,
        "one frame, one verdict"
    );
    after.0 > dropped
}

/// On which of the interfaces each frame is dropped, and that evaluation says the same.
fn check(firewall: &Firewall, names: &[&str], wanted: &[(&str, &[&str])]) {
    for (src, dropped_on) in wanted {
        let frame = udp_from(src);
        for name in names {
            let wanted = dropped_on.contains(name);
            assert_eq!(
                is_dropped(firewall, name, &frame),
                wanted,
                "{src} on {name}"
            );
            let said = firewall.evaluate_on(name, &frame).unwrap().rule.is_some();
            assert_eq!(said, wanted, "{src} on {name}, evaluated");
        }
    }
}

const SCOPED_DROPS: &[(&str, &[&str])] = &[
    ("203.0.113.7", &["a0"]),
    ("198.18.5.5", &["a0", "a1"]),
    ("192.0.2.9", &["a0", "a1", "c0"]),
    ("192.0.2.8", &[]),
];

const SWAPPED_DROPS: &[(&str, &[&str])] = &[
    ("203.0.113.7", &["a1"]),
    ("198.18.5.5", &["c0"]),
    ("192.0.2.9", &["a0", "a1", "c0"]),
];

/// Interfaces are attached before a policy comes, after it, and see the next one.
fn live(rows_up_to: usize) {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        let names = ["a0", "a1", "c0"];
        names
            .iter()
            .for_each(|name| veth(name, &format!("p{name}")));
        let loader = Firewall::loader().dry_run(false).rows_up_to(rows_up_to);
        let firewall = loader.load().unwrap();
        attach(&firewall, "a0");
        firewall.apply(&policy(SCOPED)).unwrap();
        attach(&firewall, "a1");
        attach(&firewall, "c0");
        check(&firewall, &names, SCOPED_DROPS);

        firewall.apply(&policy(SWAPPED)).unwrap();
        check(&firewall, &names, SWAPPED_DROPS);
        firewall.apply(&policy(SCOPED)).unwrap();
        check(&firewall, &names, SCOPED_DROPS);

        firewall.detach(index("a0")).unwrap();
        attach(&firewall, "a0");
        check(&firewall, &names, SCOPED_DROPS);
    });
}

#[test]
fn rules_for_some_interfaces_by_rows() {
    live(256);
}

#[test]
fn rules_for_some_interfaces_by_pairs() {
    live(0);
}

/// The same flow comes by two interfaces at once: what is known of it is so by interface.
#[test]
fn one_flow_by_several_interfaces() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        let names = ["a0", "c0"];
        let peers = names.map(|name| format!("p{name}"));
        names
            .iter()
            .zip(&peers)
            .for_each(|(name, peer)| veth(name, peer));
        for rows_up_to in [256, 0] {
            let loader = Firewall::loader().dry_run(false).rows_up_to(rows_up_to);
            let firewall = loader.load().unwrap();
            firewall.apply(&policy(SCOPED)).unwrap();
            names.iter().for_each(|name| attach(&firewall, name));
            let wires = peers.each_ref().map(|peer| Wire::open(peer));
            let frame = udp_from("198.18.0.1");
            let before = names.map(|name| counts(&firewall, name));
            // Much faster than what is known is forgotten.
            for _ in 0..500 {
                wires.iter().for_each(|wire| wire.send(&frame));
            }
            let all = |counts: &[(u64, u64)]| counts.iter().map(|c| c.0 + c.1).sum::<u64>();
            let now = || names.map(|name| counts(&firewall, name));
            wait_until("all frames", || all(&now()) == all(&before) + 1000);
            let after = now();
            assert_eq!(after[0].0 - before[0].0, 500, "dropped on a0");
            assert_eq!(after[1].0 - before[1].0, 0, "dropped on c0");
        }
    });
}

#[test]
fn an_interface_does_not_inherit_the_scopes_of_the_one_before() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        ["a0", "c0"]
            .iter()
            .for_each(|name| veth(name, &format!("p{name}")));
        // Room for one, so that both use the same counters and the same scopes.
        let loader = Firewall::loader().dry_run(false).max_interfaces(1);
        let firewall = loader.load().unwrap();
        firewall.apply(&policy(SCOPED)).unwrap();
        for _ in 0..2 {
            for (name, dropped) in [("a0", true), ("c0", false)] {
                attach(&firewall, name);
                assert_eq!(
                    is_dropped(&firewall, name, &udp_from("203.0.113.7")),
                    dropped,
                    "{name}"
                );
                firewall.detach(index(name)).unwrap();
            }
        }
        // The number of an interface that went, with another name.
        attach(&firewall, "a0");
        let number = index("a0");
        sh("ip link del a0");
        sh(&format!(
            "ip link add c1 index {number} type veth peer name pc1"
        ));
        sh("ip link set c1 up");
        sh("ip link set pc1 up");
        wait_until("carrier", || sh("ip link show c1").contains("LOWER_UP"));
        attach(&firewall, "c1");
        assert!(
            !is_dropped(&firewall, "c1", &udp_from("203.0.113.7")),
            "it is not a0"
        );
    });
}

#[test]
fn r23_deny_on_one_interface_keeps_management_in() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        ["a0", "a1"]
            .iter()
            .for_each(|name| veth(name, &format!("p{name}")));
        let firewall = Firewall::loader().dry_run(false).load().unwrap();
        attach(&firewall, "a0");
        attach(&firewall, "a1");
        firewall
            .apply(&policy(
                "
version: 1
default: pass
failsafe: { ssh_from: [192.0.2.0/24, '2001:db8::/32'] }
rules:
  - { id: web, priority: 10, match: { protocol: tcp, dport: 443 }, action: pass }
  - { id: deny-rest, priority: 4294967295, action: drop, interfaces: [a0] }
",
            ))
            .unwrap();
        let tcp = |src, dst, port| ip(src, dst).tcp(1000, port).build();
        for (frame, dropped_on_a0) in [
            (udp_from("192.0.2.7"), true),
            (tcp("203.0.113.9", "198.51.100.1", 443), false),
            (tcp("203.0.113.9", "198.51.100.1", 22), true),
            (tcp("192.0.2.7", "198.51.100.1", 22), false),
            (tcp("2001:db8::7", "2001:db9::1", 22), false),
            (tcp("2001:db9::7", "2001:db9::1", 22), true),
            (
                ip("fe80::1", "ff02::1").ttl(255).icmp(135, 0).build(),
                false,
            ),
            (ip("0.0.0.0", "255.255.255.255").udp(68, 67).build(), false),
            (ethernet(0x0806).payload(&[0; 46]).build(), false),
        ] {
            assert_eq!(
                is_dropped(&firewall, "a0", &frame),
                dropped_on_a0,
                "on a0: {frame:02x?}"
            );
            assert!(!is_dropped(&firewall, "a1", &frame), "on a1: {frame:02x?}");
        }
        let stats = firewall.stats();
        let a0 = stats.interfaces.iter().find(|i| i.name == "a0").unwrap();
        let failsafe = a0.counts.get(Reason::Failsafe, Disposition::Passed).packets;
        assert_eq!(failsafe, 4, "SSH twice, neighbour discovery, DHCP");
        let deny = stats
            .rules
            .iter()
            .find(|r| r.id.as_str() == "deny-rest")
            .unwrap();
        assert_eq!(deny.dropped, 3);
    });
}
