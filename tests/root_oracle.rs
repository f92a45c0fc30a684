//! The kernel's verdict equals the oracle's: random policies, random frames, zero differences.
#![cfg(feature = "kernel")]

mod common;

use common::frame_strategy::frame;
use common::live::{Entry, in_guest};
use common::netns::skipped;
use common::policy_strategy::{compilable_policy, crowded_policy};
use common::pool;
use jiff::Timestamp;
use proptest::collection::vec;
use proptest::strategy::{BoxedStrategy, Strategy};
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use xdpgate::compile::ROWS_UP_TO;
use xdpgate::oracle::Oracle;
use xdpgate::policy::{Action, EntryCounters, Mode, Policy, Rule, RuleId, SetName};
use xdpgate::{EntryStats, Firewall, Loader, Stats, Verdict};

/// Judges the frames by kernel and oracle. Returns the first difference.
fn compare(
    firewall: &Firewall,
    entry: &Entry,
    policy: &Policy,
    frames: &[Vec<u8>],
) -> Option<String> {
    firewall
        .apply(policy)
        .unwrap_or_else(|e| panic!("{e}\n{}", policy.to_yaml()));
    let mut oracle = Oracle::new(policy).management(&*firewall.management());
    let now = Timestamp::now();
    let before = firewall.stats();
    let entries_before = entry_counters(firewall, policy);
    let mut received = 0;
    for (frame, interface) in frames.iter().zip(pool::INTERFACES.iter().cycle()) {
        let want = oracle.evaluate(frame, now, Some(interface));
        let got = firewall.evaluate_on(interface, frame).expect("evaluate");
        if got != want {
            return Some(format!(
                "on {interface}: kernel {got:?}\noracle {want:?}\nframe {frame:02x?}"
            ));
        }
        let want = oracle.evaluate(frame, now, None);
        let got = firewall.evaluate(frame).expect("evaluate");
        if got != want {
            return Some(format!(
                "kernel {got:?}\noracle {want:?}\nframe {frame:02x?}"
            ));
        }
    }
    // Each frame comes three times: as the first of its flow, just behind itself, and after others.
    let mut live = Oracle::new(policy).management(&*firewall.management());
    let whole = || frames.iter().filter(|frame| frame.len() >= 14);
    for frame in whole().flat_map(|f| [f, f]).chain(whole()) {
        let want = live.evaluate(frame, now, None);
        let verdict = entry.receive(frame);
        received += 1;
        if verdict != want.verdict {
            return Some(format!(
                "live {verdict:?}, oracle {want:?}\nframe {frame:02x?}"
            ));
        }
    }
    let after = firewall.stats();
    let total = after.other.total().packets - before.other.total().packets;
    if total != received {
        return Some(format!("{received} frames received, {total} counted"));
    }
    let miscounted_entry = || {
        let after = entry_counters(firewall, policy);
        miscounted_entry(&entries_before, &after, &live)
    };
    miscounted(&before, &after, &live).or_else(miscounted_entry)
}

/// A rule that counted other frames than the oracle says.
fn miscounted(before: &Stats, after: &Stats, oracle: &Oracle<'_>) -> Option<String> {
    let of = |stats: &Stats, id: &RuleId| {
        let rule = stats.rules.iter().find(|r| r.id == *id);
        rule.map_or((0, 0), |r| (r.matched.packets, r.matched.bytes))
    };
    oracle.hits().find_map(|(id, want)| {
        let (now, then) = (of(after, id), of(before, id));
        let got = (now.0 - then.0, now.1 - then.1);
        let want = (want.packets, want.bytes);
        (got != want).then(|| format!("{id} counted {got:?}, oracle {want:?}"))
    })
}

/// The counters of all sets that count their entries.
fn entry_counters(firewall: &Firewall, policy: &Policy) -> Vec<(SetName, Vec<EntryStats>)> {
    let sets = policy.sets().iter();
    let counted = sets.filter(|(_, set)| set.counters() == EntryCounters::Entry);
    counted
        .map(|(name, _)| {
            (
                name.clone(),
                firewall.entry_counters(name).expect("counters"),
            )
        })
        .collect()
}

/// A set of which some entry counted other frames than the oracle says.
fn miscounted_entry(
    before: &[(SetName, Vec<EntryStats>)],
    after: &[(SetName, Vec<EntryStats>)],
    oracle: &Oracle<'_>,
) -> Option<String> {
    before
        .iter()
        .zip(after)
        .find_map(|((name, then), (_, now))| {
            let mut got: Vec<_> = then
                .iter()
                .zip(now)
                .map(|(then, now)| {
                    let (then, now, entry) = (then.matched, now.matched, now.entry);
                    (entry, now.packets - then.packets, now.bytes - then.bytes)
                })
                .filter(|(_, packets, _)| *packets != 0)
                .collect();
            got.sort_unstable();
            let want = oracle.entry_hits(name).into_iter();
            let want: Vec<_> = want
                .map(|(entry, hits)| (entry, hits.packets, hits.bytes))
                .collect();
            (got != want).then(|| format!("set {name} counted {got:?}, oracle {want:?}"))
        })
}

/// Random policies and frames, through a firewall that is loaded like this.
fn zero_differences(
    loader: Loader,
    policies: BoxedStrategy<Policy>,
    cases: u32,
    per_policy: usize,
) {
    let firewall = loader.dry_run(false).load().expect("load");
    let entry = Entry::of(&firewall);
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: 200,
        ..Config::default()
    };
    let judged = std::cell::Cell::new(0);
    TestRunner::new(config)
        .run(&(policies, vec(frame(), per_policy)), |(policy, frames)| {
            judged.set(judged.get() + frames.len());
            match compare(&firewall, &entry, &policy, &frames) {
                None => Ok(()),
                Some(difference) => Err(TestCaseError::fail(format!(
                    "{difference}\n{}",
                    policy.to_yaml()
                ))),
            }
        })
        .unwrap_or_else(|e| panic!("{e}"));
    println!(
        "oracle: {} frames over {cases} policies, no difference",
        judged.get()
    );
}

/// How many policies, and frames for each. `XDPGATE_ORACLE_POLICIES` asks for more of them.
fn amount(policies: u32) -> (u32, usize) {
    let asked = std::env::var("XDPGATE_ORACLE_POLICIES").ok();
    match asked.and_then(|n| n.parse().ok()) {
        Some(policies) => (policies, 500),
        None if in_guest() => (3, 80),
        None => (policies, 500),
    }
}

#[test]
fn r101_the_kernel_equals_the_oracle_by_rows() {
    if !skipped() {
        let (policies, frames) = amount(160);
        zero_differences(
            Firewall::loader(),
            compilable_policy().boxed(),
            policies,
            frames,
        );
    }
}

#[test]
fn r101_the_kernel_equals_the_oracle_by_pairs() {
    if !skipped() {
        let (policies, frames) = amount(140);
        zero_differences(
            Firewall::loader()
                .rows_up_to(0)
                .management(pool::management()),
            compilable_policy().boxed(),
            policies,
            frames,
        );
    }
}

#[test]
fn r101_the_kernel_equals_the_oracle_where_rules_crowd() {
    if !skipped() {
        let (policies, frames) = amount(100);
        zero_differences(
            Firewall::loader().rows_up_to(0),
            crowded_policy().boxed(),
            policies,
            frames,
        );
    }
}

/// Few places for many flows, which push each other out all the time.
#[test]
fn r101_the_kernel_equals_the_oracle_where_flows_crowd() {
    if skipped() {
        return;
    }
    let (policies, frames) = amount(60);
    for rows_up_to in [0, ROWS_UP_TO] {
        let loader = Firewall::loader().rows_up_to(rows_up_to).remember_flows(16);
        let deciding = compilable_policy().prop_map(|policy| every_rule_decides(&policy));
        zero_differences(loader, deciding.boxed(), policies / 2, frames);
    }
}

/// Flows are remembered where no rule only counts.
fn every_rule_decides(policy: &Policy) -> Policy {
    let mut out = Policy::builder()
        .default_verdict(policy.default_verdict())
        .malformed(policy.malformed())
        .failsafe(policy.failsafe().clone());
    for (name, set) in policy.sets() {
        out = out.set(name.clone(), set.clone());
    }
    for rule in policy.rules() {
        let action = match &rule.action {
            Action::Count => Action::Pass,
            other => other.clone(),
        };
        out = out.rule(Rule {
            action,
            mode: Mode::Enforce,
            ..rule.clone()
        });
    }
    out.build().expect("as valid as before")
}

#[test]
fn r101_nested_prefixes_with_inverted_priorities() {
    if skipped() {
        return;
    }
    // Each prefix is judged the other way than the one around it, the wider one first: the widest
    // wins everywhere, which longest-prefix lookups get wrong. Then the other way round.
    let firewall = Firewall::loader().dry_run(false).load().expect("load");
    for (family, lens) in [("10.0.0.0", 8..=32u8), ("2001:db8::", 16..=128)] {
        for widest_first in [true, false] {
            let mut rules = String::new();
            for len in lens.clone() {
                let priority = if widest_first {
                    u32::from(len)
                } else {
                    200 - u32::from(len)
                };
                let action = if len % 2 == 0 { "drop" } else { "pass" };
                let net = mask(family, len);
                rules += &format!(
                    "  - {{ id: r{len}, priority: {priority}, match: {{ src: \"{net}/{len}\" }}, action: {action} }}\n"
                );
            }
            let policy = Policy::from_yaml(&format!("version: 1\nrules:\n{rules}")).unwrap();
            firewall.apply(&policy).unwrap();
            let mut oracle = Oracle::new(&policy);
            for len in lens.clone() {
                let frame = common::packet::ip(&edge(family, len), peer(family))
                    .udp(1, 2)
                    .build();
                let want = oracle.evaluate(&frame, Timestamp::UNIX_EPOCH, None);
                let got = firewall.evaluate(&frame).unwrap();
                assert_eq!(got, want, "{family} {len} widest first: {widest_first}");
                if widest_first {
                    assert_eq!(
                        got.verdict,
                        Verdict::Drop,
                        "the widest, which is even, decides"
                    );
                }
            }
        }
    }
}

fn bits(address: &str) -> (bool, u128) {
    match address.parse().unwrap() {
        std::net::IpAddr::V4(a) => (false, u128::from(a.to_bits()) << 96),
        std::net::IpAddr::V6(a) => (true, a.to_bits()),
    }
}

fn text(v6: bool, bits: u128) -> String {
    if v6 {
        std::net::Ipv6Addr::from_bits(bits).to_string()
    } else {
        std::net::Ipv4Addr::from_bits((bits >> 96) as u32).to_string()
    }
}

/// The network of this length around the all-ones path below `family`.
fn mask(family: &str, len: u8) -> String {
    let (v6, address) = bits(family);
    text(v6, address & (u128::MAX << (128 - u32::from(len)).min(127)))
}

/// An address inside of `family/len` and outside of the next longer prefix.
fn edge(family: &str, len: u8) -> String {
    let (v6, address) = bits(family);
    let width = if v6 { 128 } else { 32 };
    if len == width {
        text(v6, address)
    } else {
        text(v6, address | 1 << (127 - len))
    }
}

fn peer(family: &str) -> &'static str {
    if family.contains(':') {
        "2001:db8:ffff::1"
    } else {
        "192.0.2.1"
    }
}
