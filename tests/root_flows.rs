//! Flows whose rule is remembered: packets that differ in anything that some rule looks at are of
//! different flows, and what is remembered ends with the policy and in time.
#![cfg(feature = "kernel")]

mod common;

use std::thread::sleep;
use std::time::{Duration, Instant};

use common::cpus::{cpus, on_cpus};
use common::live::{Entry, in_guest};
use common::netns::skipped;
use common::packet::{ACK, Frame, SYN, ip};
use jiff::{SignedDuration, Timestamp};
use xdpgate::policy::Policy;
use xdpgate::{EventOptions, Firewall, Loader, Verdict};

/// By rows and by pairs.
const BORDERS: [usize; 2] = [4096, 0];

fn policy(rules: &str) -> Policy {
    Policy::from_yaml(&format!("version: 1\nfailsafe: none\nrules:\n{rules}")).unwrap()
}

fn loaded(loader: Loader, policy: &Policy) -> (Firewall, Entry) {
    let firewall = loader.dry_run(false).load().expect("load");
    firewall.apply(policy).expect("apply");
    let entry = Entry::of(&firewall);
    (firewall, entry)
}

/// What some rule asks of a packet, a packet of which it holds, and one that differs in nothing else
/// and of which it does not.
fn cases() -> Vec<(&'static str, Frame, Frame)> {
    let tcp = || ip("192.0.2.1", "198.51.100.1").tcp(7, 9).flags(SYN);
    let tcp6 = || ip("2001:db8::1", "2001:db8::2").tcp(7, 9).flags(SYN);
    let icmp = || ip("192.0.2.1", "198.51.100.1").icmp(8, 0);
    vec![
        (
            "src: 192.0.2.1, dst: 198.51.100.0/24",
            tcp(),
            ip("192.0.2.2", "198.51.100.1").tcp(7, 9),
        ),
        (
            "src: 192.0.2.0/24, dst: 198.51.100.1",
            tcp(),
            ip("192.0.2.1", "198.51.100.2").tcp(7, 9),
        ),
        (
            "src: '2001:db8::1', dst: '2001:db8::/64'",
            tcp6(),
            ip("2001:db8:1::1", "2001:db8::2").tcp(7, 9),
        ),
        (
            "src: '2001:db8::1', dst: '2001:db8::/64'",
            tcp6(),
            ip("2001:db8::3", "2001:db8::2").tcp(7, 9),
        ),
        (
            "src: '2001:db8::/64', dst: '2001:db8::2'",
            tcp6(),
            ip("2001:db8::1", "2001:db8:1::2").tcp(7, 9),
        ),
        (
            "src: '2001:db8::/64', dst: '2001:db8::2'",
            tcp6(),
            ip("2001:db8::1", "2001:db8::3").tcp(7, 9),
        ),
        (
            "protocol: tcp",
            tcp(),
            ip("192.0.2.1", "198.51.100.1").udp(7, 9),
        ),
        ("sport: 7", tcp(), ip("192.0.2.1", "198.51.100.1").tcp(8, 9)),
        (
            "dport: 9",
            tcp(),
            ip("192.0.2.1", "198.51.100.1").tcp(7, 10),
        ),
        (
            "dport: 9",
            tcp6(),
            ip("2001:db8::1", "2001:db8::2").tcp(7, 10),
        ),
        ("tcp_flags: \"SYN,!ACK\"", tcp(), tcp().flags(SYN | ACK)),
        ("tcp_flags: \"SYN,!ACK\"", tcp6(), tcp6().flags(SYN | ACK)),
        (
            "protocol: icmp, icmp: { type: 8 }",
            icmp(),
            ip("192.0.2.1", "198.51.100.1").icmp(0, 0),
        ),
        (
            "protocol: icmp, icmp: { type: 8, code: 0 }",
            icmp(),
            ip("192.0.2.1", "198.51.100.1").icmp(8, 1),
        ),
        ("length: 40", tcp(), tcp().payload(&[0; 4])),
        ("fragment: none", tcp(), tcp().fragment(0, true)),
        ("fragment: first", tcp().fragment(0, true), tcp()),
        ("vlan: 5", tcp().tag(0x8100, 5), tcp().tag(0x8100, 6)),
        ("vlan: none", tcp(), tcp().tag(0x8100, 6)),
        ("ttl: 64", tcp().ttl(64), tcp().ttl(65)),
        ("ttl: 64", tcp6().ttl(64), tcp6().ttl(65)),
        ("dscp: 10", tcp().dscp(10), tcp().dscp(11)),
        ("dscp: 10", tcp6().dscp(10), tcp6().dscp(11)),
        ("vlan: 5", tcp6().tag(0x8100, 5), tcp6()),
        ("length: 60", tcp6(), tcp6().payload(&[0; 4])),
        (
            "protocol: icmpv6, icmp: { type: 128 }",
            ip("2001:db8::1", "2001:db8::2").icmp(128, 0),
            ip("2001:db8::1", "2001:db8::2").icmp(129, 0),
        ),
        // What looks like ports in a later fragment is none.
        ("dport: 9", tcp(), tcp().fragment(1, false)),
        ("dport: 9", tcp6(), tcp6().fragment(1, false)),
        (
            "anomaly: bad_fragment",
            tcp().fragment(8191, false),
            tcp().fragment(8000, false),
        ),
    ]
}

#[test]
fn r101_flows_differ_in_all_that_rules_look_at() {
    if skipped() {
        return;
    }
    for rows_up_to in BORDERS {
        for (matches, inside, outside) in cases() {
            let other = "  - { id: other, match: { src: 203.0.113.1, dst: 203.0.113.2, dport: 53, protocol: udp }, action: pass }\n";
            let rule = format!("  - {{ id: rule, match: {{ {matches} }}, action: drop }}\n");
            let loader = Firewall::loader().rows_up_to(rows_up_to);
            let (_firewall, entry) = loaded(loader, &policy(&format!("{other}{rule}")));
            let frames = [(inside, Verdict::Drop), (outside, Verdict::Pass)];
            for round in 0..3 {
                for (frame, want) in &frames {
                    let got = entry.receive(&frame.build());
                    assert_eq!(got, *want, "{matches}, round {round}, up to {rows_up_to}");
                }
            }
        }
    }
}

#[test]
fn r38_what_is_remembered_ends_with_its_policy() {
    if skipped() {
        return;
    }
    let rule = |action: &str| {
        policy(&format!(
            "  - {{ id: rule, match: {{ src: 192.0.2.1, dport: 9 }}, action: {action} }}\n"
        ))
    };
    let policies = [rule("drop"), rule("pass")];
    let frame = ip("192.0.2.1", "198.51.100.1").udp(7, 9).build();
    for rows_up_to in BORDERS {
        let loader = Firewall::loader().rows_up_to(rows_up_to);
        let (firewall, entry) = loaded(loader, &policies[0]);
        for round in 0..6 {
            firewall.apply(&policies[round % 2]).unwrap();
            let want = [Verdict::Drop, Verdict::Pass][round % 2];
            for _ in 0..3 {
                assert_eq!(entry.receive(&frame), want, "round {round}");
            }
        }
    }
}

#[test]
fn r77_a_known_flow_sees_its_rule_expire() {
    if skipped() {
        return;
    }
    let lead = SignedDuration::from_secs(if in_guest() { 15 } else { 3 });
    for rows_up_to in BORDERS {
        let expires = Timestamp::now() + lead;
        let rules = format!(
            "  - {{ id: rule, match: {{ src: 192.0.2.1, dport: 9 }}, action: drop, expires: {expires} }}\n"
        );
        expires_on_time(rows_up_to, &policy(&rules), expires);
    }
}

#[test]
fn r77_r104_a_known_flow_sees_an_entry_expire() {
    if skipped() {
        return;
    }
    let lead = SignedDuration::from_secs(if in_guest() { 15 } else { 3 });
    for rows_up_to in BORDERS {
        let expires = Timestamp::now() + lead;
        let text = format!(
            "version: 1\nfailsafe: none\n\
             sets: {{ s: {{ entries: [{{ entry: 192.0.2.1, expires: {expires} }}, 192.0.2.2] }} }}\n\
             rules: [{{ id: rule, match: {{ src: '@s', dport: 9 }}, action: drop }}]\n"
        );
        expires_on_time(rows_up_to, &Policy::from_yaml(&text).unwrap(), expires);
    }
}

/// One flow comes all the time, and is dropped until then.
fn expires_on_time(rows_up_to: usize, policy: &Policy, expires: Timestamp) {
    let frame = ip("192.0.2.1", "198.51.100.1").udp(7, 9).build();
    let (_firewall, entry) = loaded(Firewall::loader().rows_up_to(rows_up_to), policy);
    let begun = Instant::now();
    loop {
        let before = Timestamp::now();
        let verdict = entry.receive(&frame);
        if verdict == Verdict::Pass {
            assert!(Timestamp::now() >= expires, "too early");
            let late = before.duration_since(expires);
            assert!(late < SignedDuration::from_secs(1), "{late:#} late");
            println!("expired {late:#} after its time");
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "never expired");
        sleep(Duration::from_millis(1));
    }
}

#[test]
fn r32_known_flows_count_and_are_told() {
    if skipped() {
        return;
    }
    let rules = "  - { id: a, match: { src: 192.0.2.1, dport: 9 }, action: drop }\n  - { id: b, match: { src: 192.0.2.1, sport: 7 }, action: pass }\n";
    let (firewall, entry) = loaded(Firewall::loader(), &policy(rules));
    let mut events = firewall
        .events(EventOptions::default().per_rule_per_second(1000))
        .unwrap();
    for dport in [9, 10, 9, 10, 9] {
        entry.receive(&ip("192.0.2.1", "198.51.100.1").udp(7, dport).build());
    }
    let counts: Vec<(u64, u64)> = firewall
        .stats()
        .rules
        .iter()
        .map(|r| (r.matched.packets, r.dropped))
        .collect();
    assert_eq!(counts, [(3, 3), (2, 0)]);
    for _ in 0..3 {
        let event = events.next_timeout(Duration::from_secs(5)).unwrap();
        assert_eq!(event.rule.as_ref().map(|r| r.as_str()), Some("a"));
    }
}

#[test]
fn r05_cpus_that_write_one_place_never_mistake_a_flow() {
    if skipped() {
        return;
    }
    // One line for thousands of flows, IPv4 in halves of it and IPv6 in the whole of it.
    let rules = "  - { id: odd, match: { src: [192.0.2.0/24, '2001:db8::/64'], dport: [9, 11, 13, 15] }, action: drop }\n";
    let (firewall, entry) = loaded(Firewall::loader().remember_flows(1), &policy(rules));
    let flows: Vec<(Vec<u8>, Verdict)> = (8..=15)
        .flat_map(|dport| {
            let want = [Verdict::Pass, Verdict::Drop][usize::from(dport % 2)];
            let v4 = ip("192.0.2.1", "198.51.100.1").udp(7, dport).build();
            let v6 = ip("2001:db8::1", "2001:db8::2").udp(7, dport).build();
            [(v4, want), (v6, want)]
        })
        .collect();
    let rounds = if in_guest() { 500 } else { 20_000 };
    let cpus = cpus();
    on_cpus(cpus, |number| {
        for round in 0..rounds {
            let (frame, want) = &flows[(round * (2 * number + 1)) % flows.len()];
            assert_eq!(entry.receive(frame), *want);
        }
    });
    let matched = firewall.stats().rules[0].matched.packets;
    assert!(matched > 0 && matched < (rounds * cpus) as u64);
}

/// Two flows push each other out of one place as fast as they can.
#[test]
fn r05_what_another_cpu_writes_at_the_same_time_is_not_believed() {
    if skipped() {
        return;
    }
    let rules = "  - { id: r, match: { src: '2001:db8::/64', dport: 9 }, action: drop }\n";
    let (firewall, entry) = loaded(Firewall::loader().remember_flows(1), &policy(rules));
    let frames = [9, 10].map(|dport| ip("2001:db8::1", "2001:db8::2").udp(7, dport).build());
    let times = if in_guest() { 20_000 } else { 500_000 };
    for _ in 0..4 {
        on_cpus(cpus(), |number| {
            entry.receive_many(&frames[number % 2], times)
        });
    }
    let dropping = cpus().div_ceil(2) as u64;
    let matched = firewall.stats().rules[0].matched.packets;
    assert_eq!(matched, 4 * dropping * u64::from(times));
}

#[test]
fn verdicts_are_the_same_where_nothing_is_remembered() {
    if skipped() {
        return;
    }
    let rules = "  - { id: a, match: { src: 192.0.2.1, dport: 9 }, action: drop }\n";
    let (_firewall, entry) = loaded(Firewall::loader().remember_flows(0), &policy(rules));
    for _ in 0..3 {
        for (dport, want) in [(9, Verdict::Drop), (10, Verdict::Pass)] {
            let frame = ip("192.0.2.1", "198.51.100.1").udp(7, dport).build();
            assert_eq!(entry.receive(&frame), want);
        }
    }
}
