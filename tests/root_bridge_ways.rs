//! Bridges: whatever lets a frame pass, it goes to the partner and never to this host.
#![cfg(feature = "kernel")]

#[allow(dead_code, unreachable_pub, reason = "shared with other tests")]
mod common {
    pub mod bridged;
    pub mod netns;
    pub mod packet;
    pub mod places;
}

use std::thread;
use std::time::Duration;

use common::bridged::*;
use common::netns::{self, Wire, index, sh, skipped, wait_until};
use common::packet::{self, ip};
use xdpgate::{BanScope, Disposition, Filter, ModePreference, Reason};

/// Every way through the program that lets a frame pass, with rules about anomalies among them.
const EVERY_WAY: &str = "
version: 1
malformed: pass
failsafe: { ssh_from: [198.51.100.0/24] }
rules:
  - { id: bad, match: { anomaly: bad_fragment }, action: drop }
  - { id: invalid, match: { anomaly: invalid }, action: drop }
  - { id: watch, match: { src: 198.51.100.7 }, action: drop, mode: monitor }
  - { id: count, match: { protocol: udp }, action: count }
  - { id: allow, match: { src: 198.51.100.8, protocol: udp }, action: pass }
  - { id: slow, match: { src: 198.51.100.9 }, action: { rate_limit: { packets_per_second: 1, burst: 1 } } }
";

/// Frames and the reason for which the policy above passes them.
fn passing() -> Vec<(Reason, Vec<u8>)> {
    let from = |src: &str| ip(src, "203.0.113.1");
    let tagged = |count: usize| {
        let frame = from("198.51.100.1");
        (0..count).fold(frame, |f, n| f.tag(0x8100, n as u16 + 1))
    };
    vec![
        (Reason::Default, from("198.51.100.1").tcp(1, 80).build()),
        (Reason::Default, from("198.51.100.7").tcp(1, 80).build()),
        (
            Reason::Default,
            ip("2001:db8::1", "2001:db8::2").tcp(1, 80).build(),
        ),
        (Reason::Rule, from("198.51.100.8").udp(1, 2).build()),
        (Reason::Rule, from("198.51.100.9").tcp(1, 2).build()),
        (Reason::Failsafe, from("198.51.100.1").tcp(1, 22).build()),
        (Reason::Failsafe, from("198.51.100.1").udp(68, 67).build()),
        (
            Reason::NonIp,
            packet::ethernet(0x0806).payload(&[1; 46]).build(),
        ),
        (
            Reason::NonIp,
            packet::ethernet(0x88cc).payload(&[2; 46]).build(),
        ),
        (Reason::Default, tagged(1).tcp(1, 80).build()),
        (Reason::Default, tagged(2).tcp(1, 80).build()),
        (Reason::VlanDepth, tagged(3).tcp(1, 80).build()),
        (
            Reason::Malformed,
            from("198.51.100.1").version(5).tcp(1, 80).build(),
        ),
        (
            Reason::Malformed,
            from("198.51.100.1").tcp(1, 80).truncate(30).build(),
        ),
        (
            Reason::Default,
            from("198.51.100.1")
                .fragment(0, true)
                .tcp(1, 80)
                .payload(&[0; 64])
                .build(),
        ),
        (
            Reason::Default,
            from("198.51.100.1").fragment(64, false).tcp(1, 80).build(),
        ),
    ]
}

/// Frames that the policy above drops.
fn dropping() -> Vec<Vec<u8>> {
    let from = |src: &str| ip(src, "203.0.113.1");
    vec![
        from("198.51.100.1")
            .fragment(8190, false)
            .udp(1, 2)
            .payload(&[0; 64])
            .build(),
        from("198.51.100.1").tcp(1, 80).data_offset(4).build(),
        from("198.51.100.9").tcp(1, 2).build(),
    ]
}

#[test]
fn r49_every_way_that_passes_leads_to_the_partner() {
    if skipped() {
        return;
    }
    netns::run(|| {
        let (a, b) = hosts();
        let firewall = loader().load().unwrap();
        bridge(&firewall, (&a, &b), Filter::Both);
        let stack = Stack::watch(&["outer", "inner"]);
        let (outside, inside) = (wire(&a), wire(&b));
        let passing = passing();
        let frames: Vec<Vec<u8>> = passing.iter().map(|(_, frame)| frame.clone()).collect();
        let both = [(&outside, &inside, "outer"), (&inside, &outside, "inner")];

        // Before any policy.
        for (from, to, port) in both {
            let before = counts(&firewall, port, Reason::NoPolicy, Disposition::Passed);
            assert_eq!(cross(from, to, &frames), frames, "{port}");
            let counted = counts(&firewall, port, Reason::NoPolicy, Disposition::Passed) - before;
            assert_eq!(counted, frames.len() as u64, "{port}");
        }

        firewall.apply(&policy(EVERY_WAY)).unwrap();
        // The same limit is for both directions.
        for (frames, (from, to, port)) in [(&frames[..], both[0]), (&frames[..4], both[1])] {
            let mut expected: Vec<(Reason, u64)> = Vec::new();
            for (reason, _) in &passing[..frames.len()] {
                match expected.iter_mut().find(|(r, _)| r == reason) {
                    Some((_, count)) => *count += 1,
                    None => expected.push((*reason, 1)),
                }
            }
            let before: Vec<u64> = expected
                .iter()
                .map(|(reason, _)| counts(&firewall, port, *reason, Disposition::Passed))
                .collect();
            assert_eq!(cross(from, to, frames), frames, "{port}");
            for ((reason, count), before) in expected.iter().zip(before) {
                let counted = counts(&firewall, port, *reason, Disposition::Passed) - before;
                assert_eq!(counted, *count, "{port} {reason}");
            }
        }
        assert_eq!(cross(&outside, &inside, &dropping()), Vec::<Vec<u8>>::new());
        stack.assert_untouched();

        // Dry run lets pass, over the bridge as well.
        firewall.set_dry_run(true);
        assert_eq!(cross(&outside, &inside, &dropping()), dropping());
        let would = firewall.bridges()[0].inbound;
        assert_eq!(would.dropped.packets, dropping().len() as u64, "{would:?}");
        stack.assert_untouched();

        // Bans, and what they drop.
        firewall.set_dry_run(false);
        let ban = "198.51.100.8/32".parse().unwrap();
        firewall
            .ban(ban, BanScope::Source, Duration::from_secs(60))
            .unwrap();
        assert_eq!(
            cross(&outside, &inside, &frames[3..4]),
            Vec::<Vec<u8>>::new()
        );
        // Every frame ended in one counter.
        let stats = firewall.stats();
        assert_eq!(stats.other.total().packets, 0);
        stack.assert_untouched();
    });
}

#[test]
fn r49_no_frame_goes_astray_while_policies_change() {
    if skipped() {
        return;
    }
    netns::run(|| {
        let (a, b) = hosts();
        let firewall = loader().load().unwrap();
        bridge(&firewall, (&a, &b), Filter::Both);
        let stack = Stack::watch(&["outer", "inner"]);
        thread::scope(|scope| {
            let traffic = scope.spawn(|| bulk(&a, &b, 512));
            let mut changes = 0;
            while !traffic.is_finished() {
                let text = [BLOCK, "version: 1\nrules: []\n"][changes % 2];
                firewall.apply(&policy(text)).unwrap();
                changes += 1;
            }
            println!("{changes} changes at {:.2} Gbit/s", traffic.join().unwrap());
            assert!(changes > 2);
        });
        stack.assert_untouched();
    });
}

#[test]
fn r49_other_interfaces_pass_to_the_stack_as_ever() {
    if skipped() {
        return;
    }
    netns::run(|| {
        let (a, b) = hosts();
        let c = Host::behind("other", 77, "c0", "192.0.2.3");
        let firewall = loader().load().unwrap();
        firewall.apply(&policy(BLOCK)).unwrap();
        bridge(&firewall, (&a, &b), Filter::Both);
        sh("ip address add 192.0.2.9/24 dev other");
        sh("ip link set other up");
        let plain = ModePreference::BestAvailable;
        firewall.attach(index("other"), plain).unwrap();
        c.wait_for_carrier();
        c.place.sh("ping -c 2 -i 0.2 -W 5 192.0.2.9");
        let port = Wire::open("other");
        wire(&c).send(&blocked());
        wire(&c).send(&good());
        wait_until("the good one", || match port.receive() {
            Some(frame) => {
                assert_ne!(frame, blocked());
                frame == good()
            }
            None => false,
        });

        // One that was a port is one no longer.
        firewall.unbridge(index("outer")).unwrap();
        sh("ip link set outer up");
        a.wait_for_carrier();
        firewall.attach(index("outer"), plain).unwrap();
        let (port, outside) = (Wire::open("outer"), wire(&a));
        outside.send(&good());
        wait_until("it came to the stack", || port.receive() == Some(good()));
        firewall.detach(index("outer")).unwrap();
        // And may be one again.
        bridge(&firewall, (&a, &b), Filter::Both);
        ping(&a, &b);
    });
}

#[test]
fn r49_a_port_without_partner_drops_and_says_so() {
    if skipped() {
        return;
    }
    netns::run(|| {
        let (a, b) = hosts();
        let firewall = loader().load().unwrap();
        firewall.apply(&policy(BLOCK)).unwrap();
        bridge(&firewall, (&a, &b), Filter::Both);
        let stack = Stack::watch(&["outer"]);
        let outside = wire(&a);
        sh("ip link del inner");
        for _ in 0..5 {
            outside.send(&good());
            outside.send(&blocked());
        }
        let way = || firewall.bridges()[0].inbound;
        wait_until("ten frames", || way().dropped.packets == 10);
        assert_eq!(way().no_partner.packets, 5, "{:?}", way());
        assert_eq!(way().forwarded.packets, 0, "{:?}", way());
        // A rule that passed nothing on counted nothing; dry run makes no partner.
        firewall.set_dry_run(true);
        outside.send(&good());
        wait_until("one more", || way().no_partner.packets == 6);
        stack.assert_untouched();
        let info = &firewall.bridges()[0];
        assert!(info.outer.attached && !info.inner.attached, "{info:?}");

        // A new one is a partner once the bridge is made anew.
        let b = Host::behind("inner", 11, "b0", "192.0.2.2");
        assert!(!firewall.bridges()[0].inner.attached);
        firewall.unbridge(index("outer")).unwrap();
        assert!(!sh("ip link show inner").contains("PROMISC"));
        bridge(&firewall, (&a, &b), Filter::Both);
        ping(&a, &b);
    });
}
