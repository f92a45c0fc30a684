//! Acceptance rows through the XDP program that the corpus and the oracle test do not name.
#![cfg(feature = "kernel")]

mod common;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use common::live::{Entry, in_guest};
use common::netns::skipped;
use common::packet::{addressed, ip};
use common::rows;
use xdpgate::compile::ROWS_UP_TO;
use xdpgate::policy::{
    Action, AddressItem, AddressMatch, AddressSet, Policy, Prefix, Rule, RuleId, SetName,
};
use xdpgate::{Evaluation, Firewall, Loader, Reason, Verdict};

/// Judges by the kernel; applies a policy only when it differs from the last one. The program that
/// interfaces run gives the same verdict as the evaluation.
fn with_kernel(test: impl FnOnce(rows::Judge<'_>)) {
    if !skipped() {
        with_loader(Firewall::loader(), test);
    }
}

/// The same by rows and by pairs.
fn with_rows_and_pairs(test: impl Fn(rows::Judge<'_>)) {
    if skipped() {
        return;
    }
    for rows_up_to in [ROWS_UP_TO, 0] {
        with_loader(Firewall::loader().rows_up_to(rows_up_to), &test);
    }
}

fn with_loader(loader: Loader, test: impl FnOnce(rows::Judge<'_>)) {
    let firewall = loader.dry_run(false).load().expect("load");
    let entry = Entry::of(&firewall);
    let mut last: Option<Policy> = None;
    test(&mut |policy, frame| {
        if last.as_ref() != Some(policy) {
            firewall.apply(policy).expect("apply");
            last = Some(policy.clone());
        }
        let said = firewall.evaluate(frame).expect("evaluate");
        assert_eq!(entry.receive(frame), said.verdict, "live, evaluated");
        said
    });
}

#[test]
fn r04_every_protocol_number() {
    with_kernel(|judge| rows::protocols(judge));
}

#[test]
fn r05_any_subset_of_the_5_tuple() {
    with_kernel(|judge| rows::five_tuple_shapes(judge));
}

#[test]
fn r06_the_edges_of_every_prefix() {
    with_kernel(|judge| rows::prefix_edges(judge));
}

#[test]
fn r15_several_rules_for_one_destination() {
    with_kernel(|judge| {
        let policy = Policy::from_yaml(
            "
version: 1
rules:
  - { id: no-syn, priority: 10, match: { dst: 198.51.100.1, protocol: tcp, tcp_flags: 'SYN,!ACK' }, action: drop }
  - { id: ack-in, priority: 20, match: { dst: 198.51.100.1, protocol: tcp, tcp_flags: ACK }, action: pass }
  - { id: rest, priority: 30, match: { dst: 198.51.100.1 }, action: drop }
",
        )
        .unwrap();
        let tcp = |flags| {
            ip("192.0.2.1", "198.51.100.1")
                .tcp(1000, 80)
                .flags(flags)
                .build()
        };
        let udp = ip("192.0.2.1", "198.51.100.1").udp(1000, 80).build();
        let (syn, ack, syn_ack) = (0x02, 0x10, 0x12);
        for (frame, rule, verdict) in [
            (tcp(syn), "no-syn", Verdict::Drop),
            (tcp(ack), "ack-in", Verdict::Pass),
            (tcp(syn_ack), "ack-in", Verdict::Pass),
            (udp, "rest", Verdict::Drop),
        ] {
            let got = judge(&policy, &frame);
            assert_eq!((got.rule.unwrap().as_str(), got.verdict), (rule, verdict));
        }
    });
}

#[test]
fn r21_a_whitelist_of_any_subset_of_the_5_tuple() {
    with_rows_and_pairs(|judge| rows::allowed_shapes(judge));
}

#[test]
fn r21_a_whitelist_of_all_subsets_of_the_5_tuple() {
    with_rows_and_pairs(|judge| rows::allowed_shapes_at_once(judge));
}

#[test]
fn r23_default_drop_keeps_management_in() {
    with_kernel(|judge| {
        let policy = Policy::from_yaml(
            "{ version: 1, default: drop, failsafe: { ssh_from: [192.0.2.0/24, '2001:db8::/32'] } }",
        )
        .unwrap();
        let mut said = |frame: Vec<u8>| {
            let Evaluation {
                verdict, reason, ..
            } = judge(&policy, &frame);
            (verdict, reason)
        };
        let drop = (Verdict::Drop, Reason::Default);
        let pass = (Verdict::Pass, Reason::Failsafe);
        assert_eq!(
            said(ip("192.0.2.7", "198.51.100.1").tcp(1000, 22).build()),
            pass
        );
        assert_eq!(
            said(ip("192.0.3.7", "198.51.100.1").tcp(1000, 22).build()),
            drop
        );
        assert_eq!(
            said(ip("192.0.2.7", "198.51.100.1").tcp(1000, 23).build()),
            drop
        );
        assert_eq!(
            said(ip("2001:db8::7", "2001:db9::1").tcp(1000, 22).build()),
            pass
        );
        assert_eq!(
            said(ip("2001:db9::7", "2001:db9::1").tcp(1000, 22).build()),
            drop
        );
        assert_eq!(
            said(ip("fe80::1", "ff02::1").ttl(255).icmp(135, 0).build()),
            pass
        );
        assert_eq!(
            said(ip("0.0.0.0", "255.255.255.255").udp(68, 67).build()),
            pass
        );
        let arp = common::packet::ethernet(0x0806).payload(&[0; 28]).build();
        assert_eq!(said(arp), (Verdict::Pass, Reason::NonIp));
    });
}

/// A million addresses of both families and prefixes among them: first, last and random ones are
/// in, their neighbours out.
#[test]
fn r104_a_set_of_a_million() {
    if skipped() {
        return;
    }
    let half: u32 = if in_guest() { 20_000 } else { 500_000 };
    // Odd hosts only, so that every even neighbour is out.
    let v4 = |i: u32| {
        IpAddr::V4(Ipv4Addr::from_bits(
            (i.wrapping_mul(0x9e37_79b1) % (1 << 30)) << 1 | 1,
        ))
    };
    let v6 = |i: u32| IpAddr::V6(Ipv6Addr::from_bits(0x2001 << 112 | u128::from(i) << 33 | 1));
    let wide: Prefix = "240.0.0.0/5".parse().unwrap();
    let entries = (0..half)
        .flat_map(|i| [Prefix::host(v4(i)), Prefix::host(v6(i))])
        .chain([wide]);
    let set = AddressSet::from_prefixes(entries);
    let listed = set.clone();
    let name = SetName::new("million").unwrap();
    let mut rule = Rule::new(RuleId::new("block").unwrap(), 1, Action::Drop);
    rule.matches.src = Some(AddressMatch {
        negated: false,
        items: vec![AddressItem::Set(name.clone())],
    });
    let policy = Policy::builder().set(name, set).rule(rule).build().unwrap();

    let firewall = Firewall::loader().dry_run(false).load().expect("load");
    let applied = firewall.apply(&policy).expect("apply");
    println!(
        "{} entries: compile {:?}, publish {:?}",
        listed.len(),
        applied.compile,
        applied.publish
    );
    let entry = Entry::of(&firewall);
    let mut dropped = 0;
    let mut check = |addr: IpAddr| {
        let peer = if addr.is_ipv4() {
            "198.51.100.1"
        } else {
            "2001:db9::1"
        };
        let frame = addressed(addr, peer.parse().unwrap()).tcp(1000, 80).build();
        let verdict = if listed.contains(addr) {
            Verdict::Drop
        } else {
            Verdict::Pass
        };
        assert_eq!(entry.receive(&frame), verdict, "{addr}");
        dropped += u64::from(verdict == Verdict::Drop);
    };
    let step = (half / 2000) as usize;
    for i in [0, half - 1].into_iter().chain((0..half).step_by(step)) {
        for addr in [v4(i), v6(i)] {
            check(addr);
            check(neighbour(addr));
        }
    }
    for addr in [
        "239.255.255.254",
        "240.0.0.0",
        "247.255.255.254",
        "248.0.0.0",
    ] {
        check(addr.parse().unwrap());
    }
    assert_eq!(
        firewall.stats().rules[0].dropped,
        dropped,
        "the rule counted each"
    );
}

fn neighbour(addr: IpAddr) -> IpAddr {
    match addr {
        IpAddr::V4(a) => IpAddr::V4(Ipv4Addr::from_bits(a.to_bits() ^ 1)),
        IpAddr::V6(a) => IpAddr::V6(Ipv6Addr::from_bits(a.to_bits() ^ 1)),
    }
}
