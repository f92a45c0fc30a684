//! The oracle: the corpus, and what is better said by code than by cases.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use common::corpus::{self, Case, needs};
use common::packet::{Frame, addressed, ip};
use jiff::Timestamp;
use xdpgate::oracle::Oracle;
use xdpgate::policy::{
    Action, AddressItem, AddressMatch, Failsafe, Match, Policy, Prefix, Ranges, Rule, RuleId,
};
use xdpgate::{Evaluation, Reason, Verdict};

/// Runs a case: its verdict and every counter that it moves.
fn run(case: &Case) {
    let policy = case.policy();
    let mut oracle = Oracle::new(&policy);
    let said = oracle.evaluate(&case.frame, case.at, case.interface.as_deref());
    case.check(&said);
    let moved: BTreeMap<String, u64> = oracle
        .hits()
        .filter(|(_, hits)| hits.packets > 0)
        .map(|(id, hits)| {
            assert_eq!(hits.bytes, hits.packets * case.frame.len() as u64);
            (id.to_string(), hits.packets)
        })
        .collect();
    assert_eq!(moved, case.hits, "{}/{}", case.file, case.name);
    let counter = format!("{}/{}", said.reason, said.verdict);
    assert_eq!(case.counters, BTreeMap::from([(counter, 1)]));
}

/// Runs the cases of a file whose names start with one of these.
fn run_named(file: &str, starts: &[&str]) {
    let cases: Vec<Case> = corpus::load()
        .into_iter()
        .filter(|c| c.file == file)
        .collect();
    for start in starts {
        let named: Vec<&Case> = cases.iter().filter(|c| c.name.starts_with(start)).collect();
        assert!(!named.is_empty(), "no case {file}/{start}");
        named.into_iter().for_each(run);
    }
}

#[test]
fn the_corpus() {
    let cases = corpus::load();
    assert!(cases.len() >= 300, "{} cases", cases.len());
    cases.iter().for_each(run);
}

#[test]
fn the_corpus_says_what_it_needs() {
    let mut names = BTreeSet::new();
    for case in corpus::load() {
        assert!(names.insert(case.name.clone()), "{} twice", case.name);
        let mut want = needs(&case.policy());
        want.extend((case.frame.len() < 14).then_some("short_frame"));
        want.extend(
            case.needs
                .iter()
                .any(|n| n == "failsafe")
                .then_some("failsafe"),
        );
        want.sort_unstable();
        assert_eq!(case.needs, want, "{}", case.name);
    }
}

#[test]
fn r01_exact_ipv4() {
    run_named("addresses", &["src4", "dst4", "address-0"]);
}

#[test]
fn r02_exact_ipv6() {
    run_named("addresses", &["src6", "dst6", "mapped", "compatible"]);
}

#[test]
fn r03_ports() {
    run_named(
        "ports",
        &["dport", "sport", "range", "port", "no-ports", "not-port"],
    );
}

#[test]
fn r04_protocols() {
    run_named("ports", &["protocol"]);
    for protocol in 0..=255 {
        let of = |p: u8| Match {
            protocol: Some(Ranges::single(p)),
            ..Match::default()
        };
        let frame = ip("192.0.2.1", "192.0.2.2")
            .protocol(protocol)
            .payload(&[0; 60]);
        assert!(hits(of(protocol), &frame));
        assert!(!hits(of(protocol ^ 1), &frame));
    }
}

#[test]
fn r05_any_subset_of_the_5_tuple() {
    let frames = [
        ip("192.0.2.1", "198.51.100.10").tcp(40000, 80),
        ip("192.0.2.1", "198.51.100.10").udp(40000, 80),
        ip("2001:db8::1", "2001:db8:1::10")
            .tag(0x8100, 1)
            .tcp(40000, 80),
        ip("2001:db8::1", "2001:db8:1::10")
            .options_header(0, 1)
            .udp(40000, 80),
    ];
    for (i, frame) in frames.iter().enumerate() {
        let number = if i % 2 == 0 { 6 } else { 17 };
        let (src, dst) = if i < 2 {
            ("192.0.2.1", "198.51.100.10")
        } else {
            ("2001:db8::1", "2001:db8:1::10")
        };
        for shape in 1..32u32 {
            let has = |field: &str| {
                let all = ["src", "dst", "protocol", "sport", "dport"];
                shape & 1 << all.iter().position(|f| *f == field).expect("a field") != 0
            };
            let m = Match {
                src: has("src").then(|| within(src)),
                dst: has("dst").then(|| within(dst)),
                protocol: has("protocol").then(|| Ranges::single(number)),
                sport: has("sport").then(|| Ranges::single(40000)),
                dport: has("dport").then(|| Ranges::single(80)),
                ..Match::default()
            };
            assert!(hits(m.clone(), frame), "{m:?}");
            let mutations = frame.mutations();
            assert_eq!(mutations.len(), 5);
            for (field, mutated) in mutations {
                assert_eq!(hits(m.clone(), &mutated), !has(field), "{field}: {m:?}");
            }
        }
    }
}

#[test]
fn r06_the_edges_of_every_prefix() {
    run_named("addresses", &["prefix"]);
    let (v4, v6): (IpAddr, IpAddr) = (
        "10.1.2.3".parse().unwrap(),
        "2001:db8:1:2:3:4:5:6".parse().unwrap(),
    );
    for (width, own) in [(32u8, v4), (128, v6)] {
        for len in 0..=width {
            let bits = match own {
                IpAddr::V4(a) => u128::from(a.to_bits()),
                IpAddr::V6(a) => a.to_bits(),
            };
            let address = |bits: u128| match own {
                IpAddr::V4(_) => IpAddr::V4((bits as u32).into()),
                IpAddr::V6(_) => IpAddr::V6(bits.into()),
            };
            let below = u128::MAX
                .checked_shr(128 - u32::from(width - len))
                .unwrap_or(0);
            let (first, last) = (bits & !below, bits | below);
            let m = || Match {
                dst: Some(within(&format!("{}/{len}", address(first)))),
                ..Match::default()
            };
            let to = |bits| addressed(own, address(bits)).udp(1, 2);
            assert!(hits(m(), &to(first)) && hits(m(), &to(last)), "/{len}");
            if len > 0 {
                assert!(!hits(m(), &to(first.wrapping_sub(1))), "/{len}");
                assert!(!hits(m(), &to(last.wrapping_add(1))), "/{len}");
            }
        }
    }
}

#[test]
fn r07_overlapping_prefixes_and_sets() {
    run_named(
        "addresses",
        &["priority", "overlapping", "set", "later-rule"],
    );
}

#[test]
fn r08_prefix_and_address_in_one_rule() {
    run_named("addresses", &["src-and-dst", "src-without-dst", "list"]);
}

#[test]
fn r09_length() {
    run_named("fields", &["length"]);
}

#[test]
fn r10_tcp_flags() {
    run_named("fields", &["syn-not-ack", "not-syn"]);
}

#[test]
fn r11_presets() {
    run_named("fields", &["preset"]);
}

#[test]
fn r12_bad_fragments() {
    run_named("fragments", &["bad", "legal", "tiny"]);
}

#[test]
fn r13_invalid() {
    run_named("malformed", &["invalid"]);
}

#[test]
fn r16_monitor_counts_and_goes_on() {
    run_named("fields", &["monitor", "count"]);
}

#[test]
fn r18_rate_limit_burst() {
    run_named("fields", &["under-the-limit", "over-the-limit"]);
    let text = "{ packets_per_second: 10, burst: 3, per: { source: { v4: 24, v6: 64 } } }";
    let rule = format!("{{ id: r, match: {{ protocol: udp }}, action: {{ rate_limit: {text} }} }}");
    let policy = Policy::from_yaml(&format!("version: 1\nrules:\n  - {rule}\n")).unwrap();
    let mut oracle = Oracle::new(&policy);
    let mut send = |src: &str, ms: i64| {
        let frame = ip(src, "198.51.100.10").udp(1, 2).build();
        let said = oracle.evaluate(&frame, Timestamp::from_millisecond(ms).unwrap(), None);
        assert_eq!(said.rule.as_ref().map(|id| id.as_str()), Some("r"));
        (said.verdict, said.reason)
    };
    let (pass, drop) = (
        (Verdict::Pass, Reason::Rule),
        (Verdict::Drop, Reason::RateLimit),
    );
    for src in ["192.0.2.1", "192.0.2.2", "192.0.2.3"] {
        assert_eq!(send(src, 0), pass);
    }
    assert_eq!(send("192.0.2.4", 99), drop);
    assert_eq!(send("192.0.3.4", 99), pass);
    assert_eq!(send("192.0.2.4", 100), pass);
    assert_eq!(send("192.0.2.4", 100), drop);
}

#[test]
fn r20_failsafe_precedes_everything() {
    run_named("failsafe", &[""]);
}

#[test]
fn r24_vlan_tags() {
    run_named("tags", &[""]);
}

#[test]
fn r25_ipv4_options() {
    run_named("fragments", &["options"]);
}

#[test]
fn r26_fragments() {
    run_named(
        "fragments",
        &["first", "later", "last", "dont", "atomic", "fragment"],
    );
}

#[test]
fn r27_extension_headers() {
    run_named("ipv6", &[""]);
}

#[test]
fn r28_malformed_frames() {
    run_named("malformed", &[""]);
}

#[test]
fn r29_non_ip() {
    run_named("non_ip", &[""]);
}

#[test]
fn disabling_the_failsafe_takes_a_word() {
    let nd = ip("fe80::1", "fe80::2").ttl(255).icmp(135, 0).build();
    for (enabled, want) in [(true, Verdict::Pass), (false, Verdict::Drop)] {
        let failsafe = Failsafe {
            enabled,
            ..Failsafe::default()
        };
        let closed = Policy::builder()
            .default_verdict(Verdict::Drop)
            .failsafe(failsafe);
        assert_eq!(judge(&closed.build().unwrap(), &nd).verdict, want);
    }
}

/// Whether a rule with this match drops the frame.
fn hits(matches: Match, frame: &Frame) -> bool {
    let rule = Rule {
        matches,
        ..Rule::new(RuleId::new("r").unwrap(), 1, Action::Drop)
    };
    let failsafe = Failsafe {
        enabled: false,
        ..Failsafe::default()
    };
    let policy = Policy::builder()
        .failsafe(failsafe)
        .rule(rule)
        .build()
        .unwrap();
    judge(&policy, &frame.build()).rule.is_some()
}

fn judge(policy: &Policy, frame: &[u8]) -> Evaluation {
    Oracle::new(policy).evaluate(frame, Timestamp::UNIX_EPOCH, None)
}

fn within(prefix: &str) -> AddressMatch {
    let prefix: Prefix = prefix.parse().expect("a prefix");
    AddressMatch {
        negated: false,
        items: vec![AddressItem::Prefix(prefix)],
    }
}
