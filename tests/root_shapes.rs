//! The program that judges grows with the shapes of rules that a policy uses, not with how many
//! rules and entries it has of them.
#![cfg(feature = "kernel")]

mod common;

use common::netns::skipped;
use xdpgate::policy::Policy;
use xdpgate::{Firewall, ProgramFacts};

/// Verified instructions of one program stay below this, whatever the policy is: it bounds what a
/// packet can cost.
const LIMIT: u32 = 100_000;

/// Each shape has all that those before it have, and more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Shape {
    /// Only a default.
    NoRules,
    /// IPv4 hosts as sources.
    Hosts,
    /// Hosts and prefixes of both families, as sources and as destinations.
    Addresses,
    /// Rules that only rows can hold.
    Rows,
    /// Rules that are found by pairs of addresses, and limits of both kinds.
    Everything,
}

impl Shape {
    const ALL: [Self; 5] = [
        Self::NoRules,
        Self::Hosts,
        Self::Addresses,
        Self::Rows,
        Self::Everything,
    ];

    /// Enough rules for this shape to be what it says: pairs are used beyond 1,024.
    fn rules(self) -> u32 {
        match self {
            Self::NoRules => 0,
            Self::Everything => 1100,
            _ => 100,
        }
    }

    /// How much the verifier may walk in addition, in thousandths, when entries or rules are added.
    fn tolerance(self) -> u32 {
        match self {
            // Of each row it walks a word for 64 rules: bounded, because rows hold 4,096.
            Self::Rows => 20,
            _ => 10,
        }
    }

    /// A policy of this shape: so many entries in each set, so many rules of what it has more than
    /// the shape before.
    fn policy(self, entries: u32, rules: u32) -> Policy {
        let (mut sets, mut list) = (String::new(), String::new());
        for shape in Self::ALL.into_iter().filter(|shape| *shape <= self) {
            let rules = if shape == self { rules } else { shape.rules() };
            sets += &shape.set(entries);
            list.extend((0..rules).map(|n| shape.rule(n)));
            list += shape.further();
        }
        let text =
            format!("{{ version: 1, failsafe: none, sets: {{ {sets} }}, rules: [\n{list}] }}");
        Policy::from_yaml(&text).unwrap_or_else(|e| panic!("{self:?}: {e}"))
    }

    /// The set of this shape, if it has one of its own.
    fn set(self, entries: u32) -> String {
        let (name, entry): (_, fn(u32) -> String) = match self {
            Self::Hosts => ("hosts", |n| format!("10.1.{}.{}", n >> 8, n & 255)),
            Self::Addresses => ("addresses", |n| {
                let (hi, lo) = (n >> 8, n & 255);
                format!(
                    "10.2.{hi}.{lo}, 11.{hi}.{lo}.0/24, '2001:db8::{n:x}', '2001:db9:{n:x}::/48'"
                )
            }),
            _ => return String::new(),
        };
        let list: Vec<String> = (0..entries).map(entry).collect();
        format!("{name}: {{ entries: [{}] }},", list.join(", "))
    }

    /// Rule `n` of this shape.
    fn rule(self, n: u32) -> String {
        let (hi, lo) = (n >> 8, n & 255);
        let matches = match (self, n % 4) {
            (Self::NoRules | Self::Hosts, _) => format!("src: 10.3.{hi}.{lo}"),
            (Self::Addresses, 0) => format!("src: 10.4.{lo}.0/24"),
            (Self::Addresses, 1) => format!("dst: 10.4.{hi}.{lo}"),
            (Self::Addresses, 2) => format!("src: '2001:dba:{n:x}::/48'"),
            (Self::Addresses, _) => format!("dst: '2001:dba::{n:x}'"),
            (Self::Rows, _) => format!("src: {{ not: 10.5.{lo}.0/24 }}, protocol: tcp, dport: {n}"),
            (Self::Everything, _) => {
                format!("src: 12.{hi}.{lo}.0/24, dst: 10.6.{lo}.0/24, protocol: udp, dport: {n}")
            }
        };
        format!("{{ id: {self:?}-{n}, match: {{ {matches} }}, action: drop }},\n")
    }

    /// What there is once.
    fn further(self) -> &'static str {
        match self {
            Self::NoRules | Self::Rows => "",
            Self::Hosts => "{ id: hosts, match: { src: '@hosts' }, action: drop },\n",
            Self::Addresses => {
                "{ id: from, match: { src: '@addresses' }, action: drop },
                 { id: to, match: { dst: '@addresses' }, action: pass },\n"
            }
            Self::Everything => {
                "{ id: limit, match: { protocol: udp }, action: { rate_limit: { packets_per_second: 1 } } },
                 { id: each, action: { rate_limit: { bits_per_second: 1000000, burst: 1000000, per: source } } },\n"
            }
        }
    }
}

/// What the kernel says of the program for a policy.
fn facts(firewall: &Firewall, policy: &Policy) -> ProgramFacts {
    firewall.apply(policy).expect("apply");
    firewall.program_info().policy.expect("a policy")
}

fn verified(facts: &ProgramFacts) -> u32 {
    facts.verified_insns.expect("every kernel tells")
}

#[test]
fn r34_the_program_grows_with_the_shapes_in_use() {
    if skipped() {
        return;
    }
    let firewall = Firewall::loader().load().expect("load");
    let mut before = ProgramFacts::default();
    for shape in Shape::ALL {
        let now = facts(&firewall, &shape.policy(1000, shape.rules()));
        println!(
            "{shape:?}: {} verified, {} bytes",
            verified(&now),
            now.machine_bytes
        );
        assert!(verified(&now) < LIMIT);
        assert!(now.verified_insns > before.verified_insns, "{shape:?}");
        // Without a JIT there is no machine code.
        let is_compiled = now.machine_bytes > 0;
        assert!(
            !is_compiled || now.machine_bytes > before.machine_bytes,
            "{shape:?}"
        );
        before = now;
    }
}

#[test]
fn r34_the_program_does_not_grow_with_entries_and_rules() {
    if skipped() {
        return;
    }
    let firewall = Firewall::loader().load().expect("load");
    // No rules at all cannot be more.
    for shape in Shape::ALL.into_iter().skip(1) {
        let rules = shape.rules();
        let few = verified(&facts(&firewall, &shape.policy(1000, rules)));
        let entries = verified(&facts(&firewall, &shape.policy(2000, rules)));
        let rules = verified(&facts(&firewall, &shape.policy(1000, rules + 100)));
        println!("{shape:?}: {few} verified, with more entries {entries}, with more rules {rules}");
        for (what, many) in [("entries", entries), ("rules", rules)] {
            assert!(many < LIMIT);
            assert!(
                many.abs_diff(few) * 1000 <= few * shape.tolerance(),
                "{shape:?}: {few} verified, {many} with more {what}"
            );
        }
    }
}
