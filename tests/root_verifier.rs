//! What the kernel's verifier makes of the program for each shape of policy.
//!
//! The lines `verified_insns PROGRAM SHAPE N load_ms X` are read by `scripts/clang-matrix`.
#![cfg(feature = "kernel")]

#[allow(dead_code, unreachable_pub, reason = "shared with other tests")]
mod common {
    pub mod live;
    pub mod netns;
}

use common::live::in_guest;
use common::netns;
use xdpgate::policy::Policy;
use xdpgate::{Firewall, Loader, ProgramFacts, Reason};

/// Verified instructions of one program stay below this on every kernel and compiler.
const LIMIT: u32 = 100_000;

const NO_RULES: &str = "version: 1\nfailsafe: none\nrules: []\n";

const BLOCK_LIST_V4: &str = "
version: 1
sets: { bad: { entries: [203.0.113.7, 203.0.113.8, 198.51.100.9] } }
rules:
  - { id: block, match: { src: '@bad' }, action: drop }
";

const ADDRESSES: &str = "
version: 1
default: drop
failsafe: { ssh_from: [192.0.2.0/24, 2001:db8::/32] }
sets:
  sources: { entries: [203.0.113.7, 198.18.0.0/15, 10.1.2.0/25, 2001:db8::1, 2001:db8:1::/48, 2001:db8:2::/61] }
  targets: { entries: [203.0.113.9, 198.51.100.0/24, 10.2.2.0/25, 2001:db8::2, 2001:db8:3::/48, 2001:db8:4::/61] }
rules:
  - { id: from, match: { src: '@sources' }, action: drop }
  - { id: to, match: { dst: '@targets' }, action: pass }
";

const EVERYTHING: &str = "
version: 1
default: drop
malformed: drop
failsafe: { ssh_from: [192.0.2.0/24, 2001:db8::/32] }
sets:
  sources: { entries: [203.0.113.7, 198.18.0.0/15, 10.1.2.0/25, 2001:db8::1, 2001:db8:1::/48, 2001:db8:2::/61] }
  targets: { entries: [203.0.113.9, 198.51.100.0/24, 10.2.2.0/25, 2001:db8::2, 2001:db8:3::/48, 2001:db8:4::/61] }
rules:
  - { id: r01, match: { src: '@sources', dst: '@targets' }, action: drop }
  - { id: r02, match: { src: { not: '@sources' }, protocol: gre }, action: drop }
  - { id: r03, match: { src: '@sources' }, action: drop }
  - { id: r04, match: { dst: '@targets' }, action: pass }
  - { id: r05, match: { protocol: udp, sport: 53 }, action: pass }
  - { id: r06, match: { protocol: tcp, dport: [80, 443, 8000-8999] }, action: pass }
  - { id: r07, match: { protocol: tcp, tcp_flags: 'SYN,!ACK' }, action: drop }
  - { id: r08, match: { protocol: icmp, icmp: { type: 8, code: 0 } }, action: pass }
  - { id: r09, match: { length: 40-120 }, action: drop }
  - { id: r10, match: { fragment: any }, action: drop }
  - { id: r11, match: { anomaly: [bad_fragment, invalid] }, action: drop }
  - { id: r12, match: { vlan: [1, 2] }, action: pass }
  - { id: r13, match: { ttl: 0-1 }, action: drop }
  - { id: r14, match: { dscp: [46] }, action: pass }
";

/// Everything, and rules that the search passes by: they count, or expire, or both.
fn walking() -> String {
    EVERYTHING.to_owned()
        + "  - { id: r15, match: { src: '@sources', protocol: tcp }, action: count }
  - { id: r16, match: { dst: '@targets', protocol: tcp }, action: drop, mode: monitor }
  - { id: r17, match: { protocol: udp, dport: 53 }, action: drop, expires: 2100-01-01T00:00:00Z }
  - { id: r18, match: { src: 203.0.113.0/24 }, action: drop, expires: 2090-01-01T00:00:00Z }
"
}

/// Rules by pairs where each address has as many labels as there may be, with all that boxes can
/// ask, beside five-tuples and all of the above.
fn pairs() -> String {
    let mut rules = String::new();
    for (s, d) in (0..7).flat_map(|s| (0..7).map(move |d| (s, d))) {
        for n in 0..12 {
            let rest = match n {
                0 => "protocol: tcp, tcp_flags: 'SYN,!ACK'".into(),
                1 => "fragment: any".into(),
                n => format!("protocol: tcp, dport: {}", 1000 + n),
            };
            let expires = if n == 2 {
                ", expires: 2100-01-01T00:00:00Z"
            } else {
                ""
            };
            rules += &format!(
                "  - {{ id: p{s}-{d}-{n}, match: {{ src: 10.0.0.0/{}, dst: 172.16.0.0/{}, {rest} }}, action: drop{expires} }}\n",
                8 + s,
                12 + d
            );
        }
    }
    for n in 0..8 {
        rules += &format!(
            "  - {{ id: t{n}, match: {{ src: 10.9.9.{n}, dst: 10.8.8.8, protocol: tcp, sport: 1, dport: 2 }}, action: drop }}\n"
        );
    }
    walking() + &rules
}

/// As many rules as rows can hold, which ask for everything, and as many that are passed by.
fn full_rows() -> String {
    let mut rules = String::new();
    for n in 0..4000 {
        let mode = if n < 28 { ", mode: monitor" } else { "" };
        rules += &format!(
            "  - {{ id: n{n}, match: {{ src: {{ not: 10.{}.{}.0/24 }}, protocol: tcp }}, action: drop{mode} }}\n",
            n / 256,
            n % 256
        );
    }
    walking() + &rules
}

/// Everything, with limits of both kinds and clocks.
fn limits() -> String {
    format!(
        "{EVERYTHING}
  - {{ id: r20, match: {{ protocol: 6 }}, action: {{ rate_limit: {{ packets_per_second: 1, burst: 1 }} }} }}
  - {{ id: r21, action: {{ rate_limit: {{ bits_per_second: 1000000, burst: 1000000, per: source }} }} }}
"
    )
}

/// Pairs and all else at once: limits of both kinds that decide and that only count, and counters of
/// entries.
fn all() -> String {
    let limits = "  - { id: r20, match: { src: '@sources', protocol: 6 }, action: { rate_limit: { packets_per_second: 1, burst: 1 } }, mode: monitor }
  - { id: r21, action: { rate_limit: { bits_per_second: 1000000, burst: 1000000, per: source } } }
";
    pairs().replace("entries: [203", "counters: entry, entries: [203") + limits
}

/// The same of rules that all decide, so that flows are remembered, with counted entries that nest as
/// deep as they may.
fn flows() -> String {
    let counted: Vec<String> = (0..=128).map(|len| format!("'::/{len}'")).collect();
    let passive = |line: &&str| line.contains("action: count") || line.contains("mode: monitor");
    let rules: String = all()
        .lines()
        .filter(|line| !passive(line))
        .map(|line| format!("{line}\n"))
        .collect();
    let deep = format!(
        "sets:\n  deep: {{ counters: entry, entries: [{}] }}\n  \
         deeper: {{ counters: entry, entries: [{}] }}\n",
        counted.join(", "),
        counted[..29].join(", ")
    );
    rules.replace("sets:\n", &deep)
        + "  - { id: r30, match: { dst: ['@deep', '@deeper'], dport: 77 }, action: drop, interfaces: [a0] }
"
}

/// More rules than rows are used for.
fn many_rules() -> String {
    let rules: String = (0..1500)
        .map(|n| {
            let (net, port) = (n / 256, n % 256);
            format!(
                "  - {{ id: r{n}, match: {{ src: 10.{net}.{port}.0/24, protocol: tcp, dport: {} }}, action: drop }}\n",
                1000 + n
            )
        })
        .collect();
    format!("version: 1\nrules:\n{rules}")
}

fn report(program: &str, shape: &str, facts: &ProgramFacts) {
    let verified = facts
        .verified_insns
        .expect("every kernel tells, by its log if not else");
    let load = facts.load.as_secs_f64() * 1000.0;
    println!("verified_insns {program} {shape} {verified} load_ms {load:.1}");
    assert!(
        verified < LIMIT,
        "{program} {shape}: {verified} verified instructions"
    );
}

#[test]
fn every_shape_is_verified_within_the_limit() {
    if netns::skipped() {
        return;
    }
    let loader = Firewall::loader;
    every_shape(loader, "");
    // The longer way to count and to end.
    let special = || loader().fast_forward(true).atomic_counters(true);
    every_shape(special, "special-");
}

/// `kind` begins the names of the shapes.
fn every_shape(loader: impl Fn() -> Loader, kind: &str) {
    let firewall = loader().load().unwrap();
    let by_pairs = loader().rows_up_to(0).load().unwrap();
    report(
        "xdpgate",
        &format!("{kind}entry"),
        &firewall.program_info().entry,
    );
    let frame = [0; 64];
    for (firewall, shape, text) in [
        (&firewall, "no-rules", NO_RULES),
        (&firewall, "block-list-v4", BLOCK_LIST_V4),
        (&firewall, "addresses", ADDRESSES),
        (&firewall, "everything", EVERYTHING),
        (&firewall, "walking", &walking()),
        (&firewall, "full-rows", &full_rows()),
        (&firewall, "limits", &limits()),
        (&firewall, "many-rules", &many_rules()),
        (&by_pairs, "pairs", &pairs()),
        (&by_pairs, "all", &all()),
        (&by_pairs, "flows", &flows()),
    ] {
        // A guest is slow: there, the longer ways by the least and the most that a policy can have.
        if in_guest() && !kind.is_empty() && !["no-rules", "flows"].contains(&shape) {
            continue;
        }
        let applied = firewall.apply(&Policy::from_yaml(text).unwrap()).unwrap();
        let (info, shape) = (firewall.program_info(), &format!("{kind}{shape}"));
        let policy = info.policy.unwrap();
        assert_eq!(applied.verified_insns, policy.verified_insns);
        report("xdpgate_policy", shape, &policy);
        if in_guest() && shape != "everything" {
            continue;
        }
        assert_eq!(
            firewall.evaluate(&frame).unwrap().reason,
            Reason::NonIp,
            "{shape}"
        );
        report(
            "evaluate",
            shape,
            &firewall.program_info().evaluator.unwrap(),
        );
    }
}
