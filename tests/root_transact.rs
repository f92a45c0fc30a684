//! Transactions on a live firewall: under traffic, by several callers at once, in vain.
#![cfg(feature = "kernel")]

mod common;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use common::live::{Entry, in_guest};
use common::netns::skipped;
use common::packet::{ip, udp_from};
use common::random::mix32;
use xdpgate::policy::{
    Action, Atomicity, Change, ChangeErrorKind, Effect, Policy, Prefix, Rule, RuleId, SetName,
};
use xdpgate::{Firewall, Transaction, TransactionError, TransactionOptions, Verdict};

fn policy(text: &str) -> Policy {
    Policy::from_yaml(&format!("version: 1\nfailsafe: none\n{text}")).unwrap()
}

fn rule(text: &str) -> Rule {
    policy(&format!("rules: [ {text} ]")).rules()[0].clone()
}

fn loaded(text: &str) -> (Firewall, Entry) {
    let firewall = Firewall::loader().dry_run(false).load().expect("load");
    firewall.apply(&policy(text)).expect("apply");
    let entry = Entry::of(&firewall);
    (firewall, entry)
}

fn transact(firewall: &Firewall, changes: &[Change]) -> Result<Transaction, TransactionError> {
    firewall.transact(changes, TransactionOptions::default())
}

/// Lets frames come all the time while something is done; each must get its verdict. Returns how
/// many came.
fn under_traffic(entry: &Entry, frames: &[(Vec<u8>, Verdict)], work: impl FnOnce()) -> u64 {
    let (done, judged) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let traffic = scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                for (frame, want) in frames {
                    assert_eq!(entry.receive(frame), *want);
                    judged.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        while judged.load(Ordering::SeqCst) == 0 && !traffic.is_finished() {
            thread::yield_now();
        }
        work();
        done.store(true, Ordering::SeqCst);
        traffic.join().expect("every verdict is right");
    });
    judged.load(Ordering::SeqCst)
}

fn swaps() -> u32 {
    if in_guest() { 10 } else { 50 }
}

#[test]
fn r40_swapping_the_allow_list_drops_nobody_that_both_list() {
    if skipped() {
        return;
    }
    let (firewall, entry) = loaded(
        "default: drop
sets: { allowed: { entries: [192.0.2.1, 192.0.2.2, 198.51.100.0/24] } }
rules: [ { id: allow, match: { src: '@allowed' }, action: pass } ]
",
    );
    let frames = [
        (udp_from("192.0.2.1"), Verdict::Pass),
        (udp_from("198.51.100.77"), Verdict::Pass),
        (udp_from("203.0.113.1"), Verdict::Drop),
    ];
    let allowed = SetName::new("allowed").unwrap();
    let judged = under_traffic(&entry, &frames, || {
        for number in 0..swaps() {
            let list: &[&str] = match number % 2 {
                0 => &["192.0.2.1", "198.51.100.0/24", "192.0.2.3"],
                _ => &["192.0.2.0/31", "198.51.0.0/16"],
            };
            let set = xdpgate::policy::AddressSet::from_prefixes(
                list.iter().map(|p| p.parse::<Prefix>().unwrap()),
            );
            transact(&firewall, &[Change::PutSet(allowed.clone(), set)]).unwrap();
        }
    });
    assert!(judged > u64::from(swaps()), "traffic went on");
}

#[test]
fn r41_a_rule_changes_in_place() {
    if skipped() {
        return;
    }
    let (firewall, entry) = loaded(
        "rules:
  - { id: web, match: { dst: 198.51.100.1, protocol: udp, dport: 80 }, action: drop }
  - { id: other, match: { src: 203.0.113.0/24 }, action: drop }
",
    );
    let frame = ip("192.0.2.1", "198.51.100.1").udp(7, 80).build();
    let web = |action: &str| {
        let match_ = "match: { dst: 198.51.100.1, protocol: udp, dport: 80 }";
        Change::PutRule(rule(&format!(
            "{{ id: web, priority: 10, {match_}, action: {action} }}"
        )))
    };
    // Another action, another limit, and back; all of them match the frame, and drop it.
    let none = "{ rate_limit: { bits_per_second: 1, burst: 1 } }";
    let less = "{ rate_limit: { bits_per_second: 2, burst: 2 } }";
    let judged = under_traffic(&entry, &[(frame.clone(), Verdict::Drop)], || {
        for _ in 0..swaps() / 3 {
            for action in [none, less, "drop"] {
                let done = transact(&firewall, &[web(action)]).unwrap();
                assert_eq!(done.effects, [Ok(Effect::Replaced)]);
            }
        }
    });
    let stats = firewall.stats();
    assert_eq!(stats.rules[0].id.as_str(), "web");
    assert_eq!(
        stats.rules[0].matched.packets, judged,
        "no packet missed it"
    );
    assert_eq!(stats.rules[0].dropped, judged);
}

#[test]
fn r42_what_changes_nothing_publishes_nothing() {
    if skipped() {
        return;
    }
    let firewall = Firewall::loader().dry_run(false).load().expect("load");
    let add = [
        Change::PutRule(rule("{ id: a, match: { src: 203.0.113.1 }, action: drop }")),
        Change::RemoveRule(RuleId::new("b").unwrap()),
    ];
    let first = transact(&firewall, &add).expect("from the empty policy");
    let generation = first.generation.expect("one");
    assert!(first.applied.is_some());
    for _ in 0..3 {
        let again = transact(&firewall, &add).unwrap();
        assert_eq!((again.generation, again.applied), (Some(generation), None));
        assert_eq!(
            again.effects,
            [Ok(Effect::Unchanged), Ok(Effect::Unchanged)]
        );
    }
    let entry = Entry::of(&firewall);
    assert_eq!(entry.receive(&udp_from("203.0.113.1")), Verdict::Drop);
    assert_eq!(firewall.generation(), Some(generation));
}

#[test]
fn r43_in_part_what_can_be_made_is_made() {
    if skipped() {
        return;
    }
    let (firewall, entry) =
        loaded("rules: [ { id: a, match: { src: 203.0.113.1 }, action: drop } ]");
    let changes = [
        Change::CreateRule(rule("{ id: a, match: { src: 203.0.113.2 }, action: drop }")),
        Change::CreateRule(rule("{ id: b, match: { src: 203.0.113.3 }, action: drop }")),
        Change::RemoveSet(SetName::new("none").unwrap()),
        Change::AddEntries(SetName::new("none").unwrap(), vec![]),
    ];
    let before = firewall.generation();
    let Err(TransactionError::Changes(errors)) = transact(&firewall, &changes) else {
        panic!("all or nothing");
    };
    let kinds: Vec<_> = errors.iter().map(|e| (e.index(), e.kind())).collect();
    let want = [
        (0, ChangeErrorKind::AlreadyExists),
        (3, ChangeErrorKind::NotFound),
    ];
    assert_eq!(kinds, want);
    assert_eq!(
        errors.iter().next().unwrap().policy_error().field(),
        Some("id")
    );
    assert_eq!(firewall.generation(), before, "nothing changed");
    assert_eq!(entry.receive(&udp_from("203.0.113.3")), Verdict::Pass);

    let options = TransactionOptions::default().atomicity(Atomicity::Partial);
    let done = firewall.transact(&changes, options).unwrap();
    let made: Vec<_> = done
        .effects
        .iter()
        .map(|e| e.as_ref().ok().copied())
        .collect();
    let want = [None, Some(Effect::Created), Some(Effect::Unchanged), None];
    assert_eq!(made, want);
    for (src, verdict) in [
        ("203.0.113.1", Verdict::Drop),
        ("203.0.113.2", Verdict::Pass),
        ("203.0.113.3", Verdict::Drop),
    ] {
        assert_eq!(entry.receive(&udp_from(src)), verdict, "{src}");
    }
}

#[test]
fn r44_of_creates_at_once_one_wins_and_no_change_is_lost() {
    if skipped() {
        return;
    }
    let firewall = Firewall::loader().dry_run(false).load().expect("load");
    const CALLERS: usize = 4;
    let rounds = if in_guest() { 3 } else { 10 };
    for round in 0..rounds {
        let won = AtomicU64::new(0);
        thread::scope(|scope| {
            for caller in 0..CALLERS {
                let (firewall, won) = (&firewall, &won);
                scope.spawn(move || {
                    let same = format!("{{ id: same-{round}, match: {{ src: 203.0.113.{round} }}, action: drop }}");
                    match transact(firewall, &[Change::CreateRule(rule(&same))]) {
                        Ok(done) => {
                            assert_eq!(done.effects, [Ok(Effect::Created)]);
                            won.fetch_add(1, Ordering::SeqCst);
                        }
                        Err(TransactionError::Changes(errors)) => {
                            let kinds: Vec<_> = errors.iter().map(|e| e.kind()).collect();
                            assert_eq!(kinds, [ChangeErrorKind::AlreadyExists]);
                        }
                        Err(other) => panic!("{other}"),
                    }
                    let own = format!("{{ id: own-{round}-{caller}, match: {{ src: 192.0.2.{caller} }}, action: drop }}");
                    transact(firewall, &[Change::CreateRule(rule(&own))]).unwrap();
                });
            }
        });
        assert_eq!(won.into_inner(), 1, "round {round}");
        let policy = firewall.policy().unwrap();
        assert_eq!(
            policy.rules().len(),
            (round + 1) * (CALLERS + 1),
            "none is lost"
        );
    }
}

#[test]
fn who_knows_an_old_generation_is_told() {
    if skipped() {
        return;
    }
    let (firewall, _) = loaded("rules: [ { id: a, match: { src: 203.0.113.1 }, action: drop } ]");
    let known = firewall.generation().unwrap();
    let put = |action| {
        let mut rule = rule("{ id: a, priority: 10, match: { src: 203.0.113.1 }, action: drop }");
        rule.action = action;
        [Change::PutRule(rule)]
    };
    let expecting = || TransactionOptions::default().expect_generation(known);
    let done = firewall.transact(&put(Action::Pass), expecting()).unwrap();
    let error = firewall
        .transact(&put(Action::Count), expecting())
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "generation {known} was expected to be in force, but {} is: look at the policy again",
            done.generation.unwrap()
        )
    );
    assert_eq!(firewall.policy().unwrap().rules()[0].action, Action::Pass);
}

#[test]
fn r40_changed_hosts_build_on_the_image_in_force() {
    if skipped() {
        return;
    }
    let hosts = |numbers: std::ops::Range<u32>| {
        let address = |i: u32| std::net::Ipv4Addr::from_bits(0x0a00_0000 | mix32(i) >> 8);
        numbers.map(move |i| Prefix::host(address(i).into()))
    };
    let (firewall, entry) = loaded(
        "sets: { bad: { entries: [192.0.2.0/24, 203.0.113.1] } }\n\
         rules: [{ id: r, match: { src: '@bad' }, action: drop }]\n",
    );
    let bad = SetName::new("bad").unwrap();
    let add = |hosts: &mut dyn Iterator<Item = Prefix>| {
        Change::AddEntries(bad.clone(), hosts.map(|p| (p, None)).collect())
    };
    let count = if in_guest() { 2_000 } else { 20_000 };
    let done = transact(&firewall, &[add(&mut hosts(0..count))]).unwrap();
    let applied = done.applied.unwrap();
    assert_eq!(
        applied.changed_hosts, None,
        "so many are a policy of their own"
    );

    let frame = |p: Prefix| udp_from(&p.addr().to_string());
    let verdict = |i: u32| entry.receive(&frame(hosts(i..i + 1).next().unwrap()));
    let mut bytes = None;
    // Some that go and come back, beside two that never do.
    let constant = [
        (frame(hosts(500..501).next().unwrap()), Verdict::Drop),
        (udp_from("198.51.100.7"), Verdict::Pass),
    ];
    let rounds = swaps();
    under_traffic(&entry, &constant, || {
        for round in 0..rounds {
            let remove = Change::RemoveEntries(bad.clone(), hosts(0..10).collect());
            let applied = transact(&firewall, &[remove]).unwrap().applied.unwrap();
            // Some lie at the same address.
            assert!(
                applied.changed_hosts.is_some_and(|n| n > 0),
                "round {round}"
            );
            assert_eq!(
                *bytes.get_or_insert(applied.image_bytes),
                applied.image_bytes
            );
            (0..10).for_each(|i| assert_eq!(verdict(i), Verdict::Pass, "{i}"));
            let applied = transact(&firewall, &[add(&mut hosts(0..10))])
                .unwrap()
                .applied;
            assert!(applied.unwrap().changed_hosts.is_some());
            (0..10).for_each(|i| assert_eq!(verdict(i), Verdict::Drop, "{i}"));
        }
    });
    assert_eq!(verdict(count - 1), Verdict::Drop);
    assert_eq!(entry.receive(&udp_from("192.0.2.9")), Verdict::Drop);
    let stats = firewall.stats();
    assert!(stats.rules[0].matched.packets > 0, "it kept its counter");

    // A prefix changes what surrounds hosts.
    let remove = Change::RemoveEntries(bad.clone(), vec!["192.0.2.0/24".parse().unwrap()]);
    let applied = transact(&firewall, &[remove]).unwrap().applied.unwrap();
    assert_eq!(applied.changed_hosts, None);
    assert_eq!(entry.receive(&udp_from("192.0.2.9")), Verdict::Pass);
    assert_eq!(verdict(1), Verdict::Drop);
}
