//! The frame corpus through the XDP program: verdict, reason, rule, and the counters that move.
#![cfg(feature = "kernel")]

mod common;

use std::collections::BTreeMap;

use common::corpus::{self, Case};
use common::live::{Entry, in_guest};
use common::netns::skipped;
use jiff::Timestamp;
use xdpgate::oracle::Oracle;
use xdpgate::{Disposition, Firewall, Frags, Stats, Verdict};

#[test]
fn the_corpus_through_the_kernel() {
    if !skipped() {
        run(Frags::Auto);
    }
}

#[test]
fn the_corpus_through_the_form_for_one_buffer() {
    // On a kernel that has no other form this is the test above.
    if !skipped() && Firewall::loader().load().unwrap().program_info().frags {
        run(Frags::Off);
    }
}

fn run(frags: Frags) {
    let mut by_policy: BTreeMap<_, Vec<Case>> = BTreeMap::new();
    for case in corpus::load() {
        let key = (case.policy.clone(), case.at);
        by_policy.entry(key).or_default().push(case);
    }
    let mut loader = Firewall::loader();
    if in_guest() {
        // Read for each frame, or verified for each policy: with all of it an emulated processor
        // takes minutes.
        loader = loader.max_rules(256).max_interfaces(4).max_bans(0);
    }
    let firewall = loader.dry_run(false).frags(frags).load().expect("load");
    let entry = Entry::of(&firewall);
    let (mut judged, mut short, mut elsewhere) = (0, 0, 0);
    // A third of the policies in a guest, unless XDPGATE_WHOLE asks for all.
    let is_whole = !in_guest() || std::env::var_os("XDPGATE_WHOLE").is_some();
    let step = if is_whole { 1 } else { 3 };
    for (number, cases) in by_policy.values().step_by(step).enumerate() {
        // Its program is verified beside that of the interfaces, which takes long in a guest.
        let evaluates =
            !in_guest() || number % 8 == 0 || cases.iter().any(|c| c.interface.is_some());
        firewall
            .apply(&cases[0].policy_as_of_now())
            .unwrap_or_else(|e| panic!("{}: {e}", cases[0].name));
        for case in cases {
            if evaluates {
                let said = match &case.interface {
                    None => firewall.evaluate(&case.frame),
                    Some(name) => firewall.evaluate_on(name, &case.frame),
                };
                case.check(&said.expect("evaluate"));
            }
            if case.interface.is_some() {
                elsewhere += 1;
                continue;
            }
            // The kernel refuses to run frames shorter than an Ethernet header.
            if case.frame.len() < 14 {
                short += 1;
                continue;
            }
            let before = firewall.stats();
            let verdict = entry.receive(&case.frame);
            assert_eq!(verdict, case.verdict, "{}", case.name);
            check_counters(case, &before, &firewall.stats());
            judged += 1;
        }
    }
    println!(
        "corpus: {judged} frames judged, {elsewhere} only evaluated because they name an interface, \
         {short} too short"
    );
    assert!(
        judged >= 250 / (step + usize::from(!is_whole)),
        "only {judged} frames of the corpus were judged"
    );
}

/// Exactly the counters that the case names moved, by one frame and its bytes.
fn check_counters(case: &Case, before: &Stats, after: &Stats) {
    let policy = case.policy_as_of_now();
    let bytes = case.frame.len() as u64;
    let mut oracle = Oracle::new(&policy);
    oracle.evaluate(&case.frame, Timestamp::now(), None);
    let hits: Vec<_> = oracle.hits().collect();
    let mut moved: BTreeMap<String, u64> = BTreeMap::new();
    for c in after.other.iter() {
        let was = before.other.get(c.reason, c.disposition);
        if c.count != was {
            let disposition = match c.disposition {
                Disposition::Dropped => "drop",
                _ => "pass",
            };
            assert_eq!(c.count.bytes - was.bytes, bytes, "{}: bytes", case.name);
            moved.insert(
                format!("{}/{disposition}", c.reason),
                c.count.packets - was.packets,
            );
        }
    }
    assert_eq!(moved, case.counters, "{}: verdict counters", case.name);

    let rules: BTreeMap<String, u64> = after
        .rules
        .iter()
        .zip(&before.rules)
        .filter(|(a, b)| a.matched != b.matched)
        .map(|(a, b)| {
            let decided = case.rule.as_deref() == Some(a.id.as_str());
            let drops = u64::from(decided && case.verdict == Verdict::Drop);
            assert_eq!(
                a.matched.bytes - b.matched.bytes,
                bytes,
                "{}: bytes of {}",
                case.name,
                a.id
            );
            assert_eq!(a.dropped - b.dropped, drops, "{}: drops", case.name);
            let (_, hits) = hits.iter().find(|(id, _)| **id == a.id).unwrap();
            assert_eq!(
                a.would_drop - b.would_drop,
                hits.would_drop,
                "{}: would drop",
                case.name
            );
            (a.id.to_string(), a.matched.packets - b.matched.packets)
        })
        .collect();
    assert_eq!(rules, case.hits, "{}: rule counters", case.name);
}
