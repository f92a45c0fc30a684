//! The oracle: the corpus, and what is better said by code than by cases.

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::corpus::{self, Case, needs};
use common::packet::ip;
use common::rows;
use jiff::Timestamp;
use xdpgate::oracle::Oracle;
use xdpgate::policy::{Failsafe, Policy};
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
    rows::protocols(&mut judge);
}

#[test]
fn r05_any_subset_of_the_5_tuple() {
    rows::five_tuple_shapes(&mut judge);
}

#[test]
fn r06_the_edges_of_every_prefix() {
    run_named("addresses", &["prefix"]);
    rows::prefix_edges(&mut judge);
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
fn r104_entries_expire_one_by_one() {
    run_named("addresses", &["expiry"]);
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

fn judge(policy: &Policy, frame: &[u8]) -> Evaluation {
    Oracle::new(policy).evaluate(frame, Timestamp::UNIX_EPOCH, None)
}
