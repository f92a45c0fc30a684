//! An image that was changed judges as one that was compiled.

mod common;

use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use common::equal::{assert_equal, assert_image, options};
use common::frame_strategy;
use common::packet::addressed;
use common::policy_strategy::{address, compilable_policy};
use common::random::{Random, mix32};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, TestRunner};
use xdpgate::compile::{Clock, CompileOptions, ROWS_UP_TO, compile, recompile};
use xdpgate::image::Image;
use xdpgate::policy::{Atomicity, Change, EntryCounters, Policy, Prefix, SetName};

/// The policy with these hosts added to or taken from sets, by number.
fn changed(policy: &Policy, edits: &[(Index, IpAddr, bool)]) -> Policy {
    let names: Vec<&SetName> = policy.sets().keys().collect();
    let changes: Vec<Change> = edits
        .iter()
        .map(|(set, host, add)| {
            let (name, host) = ((*set.get(&names)).clone(), Prefix::host(*host));
            match add {
                true => Change::AddEntries(name, vec![(host, None)]),
                false => Change::RemoveEntries(name, vec![host]),
            }
        })
        .collect();
    policy
        .change(&changes, Atomicity::Partial)
        .expect("a partial change")
        .policy
}

/// Sets that count their entries are always compiled as a whole.
fn without_counters(policy: &Policy) -> Policy {
    let sets = policy.sets().iter().map(|(name, set)| {
        let set = set.clone().with_counters(EntryCounters::None);
        Change::PutSet(name.clone(), set)
    });
    let changes: Vec<Change> = sets.collect();
    policy.change(&changes, Atomicity::Partial).unwrap().policy
}

#[test]
fn r101_changed_images_equal_the_oracle() {
    let (chances, used) = (Cell::new(0), Cell::new(0));
    let edit = (any::<Index>(), address(), any::<bool>());
    let cases = (
        compilable_policy(),
        vec(vec(edit, 1..4), 1..4),
        vec(frame_strategy::frame(), 100),
        vec(0i64..4_000_000_000, 1..5),
        select(vec![0, ROWS_UP_TO]),
    );
    let config = Config {
        cases: Config::default().cases.max(800),
        failure_persistence: None,
        ..Config::default()
    };
    TestRunner::new(config)
        .run(&cases, |(policy, rounds, frames, times, rows_up_to)| {
            let mut policy = without_counters(&policy);
            let options = options(&policy, [1, 2], rows_up_to);
            let mut image = compile(&policy, &options).expect("a policy that can be compiled");
            for edits in rounds {
                let next = changed(&policy, &edits);
                assert_equal(&next, &frames, &times, &options);
                chances.set(chances.get() + 1);
                image = match recompile(image, &policy, &next, &options.clock) {
                    Some(image) => {
                        used.set(used.get() + 1);
                        assert_image(&image, &next, &frames, &times, &[]);
                        image
                    }
                    None => compile(&next, &options).unwrap(),
                };
                policy = next;
            }
            Ok(())
        })
        .unwrap_or_else(|e| panic!("{e}"));
    let (chances, used) = (chances.get(), used.get());
    println!("recompiled: {used} of {chances}");
    assert!(used * 4 > chances, "{used} of {chances} is too few");
}

fn v4(i: u32) -> IpAddr {
    Ipv4Addr::from_bits(mix32(i)).into()
}

fn v6(i: u32) -> IpAddr {
    Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(mix32(i)) << 40 | u128::from(i)).into()
}

/// A block list with these hosts of both families, some of them in a prefix.
fn block_list(hosts: impl Iterator<Item = u32>) -> Policy {
    let text = "version: 1\nfailsafe: none\nsets: { bad: { entries: [10.0.0.0/8, 192.0.2.0/24] } }\n\
                rules:\n  - { id: all, match: { src: '@bad' }, action: drop }\n\
                \x20 - { id: here, match: { src: 128.0.0.0/2 }, action: pass }\n";
    let policy = Policy::from_yaml(text).unwrap();
    let entries = hosts
        .flat_map(|i| [v4(i), v6(i)])
        .map(|a| (Prefix::host(a), None));
    let add = Change::AddEntries(SetName::new("bad").unwrap(), entries.collect());
    policy.change(&[add], Atomicity::Partial).unwrap().policy
}

/// Judges hosts and their neighbours.
fn check(image: &Image, policy: &Policy, around: impl Iterator<Item = u32>) {
    let dst = |a: IpAddr| -> IpAddr {
        match a {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        }
    };
    let frames: Vec<Vec<u8>> = around
        .flat_map(|i| [v4(i), v6(i)])
        .map(|a| addressed(a, dst(a)).udp(1, 2).build())
        .collect();
    assert_image(image, policy, &frames, &[0], &[]);
}

#[test]
fn hosts_come_and_go_until_the_table_is_made_anew() {
    const HOSTS: u32 = 3000;
    let options = CompileOptions {
        seed: [3, 4],
        ..CompileOptions::default()
    };
    let mut policy = block_list(0..HOSTS);
    let mut image = compile(&policy, &options).unwrap();
    let (mut recompiled, mut first, mut last) = (0, 0, HOSTS);
    let mut random = Random::new(5);
    loop {
        // First as many come as go; then the set grows, and fills up the table.
        let (gone, new) = (random.below(40), if recompiled < 5 { 20 } else { 60 });
        (first, last) = (first + gone, last + new);
        let next = block_list(first..last);
        let Some(changed) = recompile(image, &policy, &next, &options.clock) else {
            break;
        };
        recompiled += 1;
        check(&changed, &next, first.saturating_sub(100)..last + 100);
        (image, policy) = (changed, next);
    }
    println!("{recompiled} recompilations");
    assert!((6..HOSTS).contains(&recompiled), "{recompiled}");
}

#[test]
fn what_is_more_than_hosts_is_compiled_as_a_whole() {
    let options = CompileOptions::default();
    let before = block_list(0..100);
    let image = || compile(&before, &options).unwrap();
    let bad = || SetName::new("bad").unwrap();
    let prefix = |p: &str| p.parse::<Prefix>().unwrap();
    let soon = Some("2100-01-01T00:00:00Z".parse().unwrap());
    let is_enough = |changes: &[Change], clock: &Clock| {
        let after = before.change(changes, Atomicity::AllOrNothing).unwrap();
        recompile(image(), &before, &after.policy, clock).is_some()
    };
    let add = |p: &str| Change::AddEntries(bad(), vec![(prefix(p), None)]);
    let clock = options.clock;
    assert!(is_enough(&[add("203.0.113.7")], &clock));
    assert!(is_enough(&[add("2001:db8:ffff::1")], &clock));
    // Where what surrounds it has the same rule, it needs no place of its own.
    assert!(is_enough(&[add("10.1.2.3")], &clock));
    assert!(!is_enough(&[add("203.0.113.0/24")], &clock));
    let remove = Change::RemoveEntries(bad(), vec![prefix("192.0.2.0/24")]);
    assert!(!is_enough(&[remove], &clock));
    let expiring = Change::AddEntries(bad(), vec![(prefix("203.0.113.7"), soon)]);
    assert!(!is_enough(&[expiring], &clock));
    let default = Change::DefaultVerdict(xdpgate::Verdict::Drop);
    assert!(!is_enough(&[default], &clock));
    // Entries that are counted have numbers of their own.
    let counting = |policy: &Policy| {
        let set = policy.sets()[&bad()].clone();
        let change = Change::PutSet(bad(), set.with_counters(EntryCounters::Entry));
        policy
            .change(&[change], Atomicity::AllOrNothing)
            .unwrap()
            .policy
    };
    let (counted, more) = (
        counting(&before),
        before.change(&[add("203.0.113.7")], Atomicity::AllOrNothing),
    );
    let image_of = |policy: &Policy| compile(policy, &options).unwrap();
    assert!(
        recompile(
            image_of(&counted),
            &counted,
            &counting(&more.unwrap().policy),
            &clock
        )
        .is_none()
    );
    // More than are worth it.
    let many = (1000..1200).map(|i| (Prefix::host(v4(i)), None)).collect();
    assert!(!is_enough(&[Change::AddEntries(bad(), many)], &clock));
}

#[test]
fn a_host_that_expires_in_another_set_is_compiled_as_a_whole() {
    let text = |hosts: &str| {
        format!(
            "version: 1\nfailsafe: none\nsets:\n  bad: {{ entries: [{hosts}] }}\n\
             \x20 soon: {{ entries: [{{ entry: 192.0.2.9, expires: 2100-01-01T00:00:00Z }}] }}\n\
             rules:\n  - {{ id: soon, match: {{ src: '@soon' }}, action: pass }}\n\
             \x20 - {{ id: bad, match: {{ src: '@bad' }}, action: drop }}\n"
        )
    };
    let before = Policy::from_yaml(&text("192.0.2.1, 192.0.2.2")).unwrap();
    let options = CompileOptions::default();
    let is_enough = |hosts: &str| {
        let after = Policy::from_yaml(&text(hosts)).unwrap();
        let image = compile(&before, &options).unwrap();
        recompile(image, &before, &after, &options.clock).is_some()
    };
    assert!(is_enough("192.0.2.1, 192.0.2.8"));
    assert!(!is_enough("192.0.2.1, 192.0.2.9"));
}

#[test]
fn a_wall_clock_that_was_set_moves_expiries() {
    let text = "version: 1\nfailsafe: none\nsets: { bad: { entries: [192.0.2.1] } }\n\
                rules: [{ id: r, match: { src: '@bad' }, action: drop, expires: 2100-01-01T00:00:00Z }]\n";
    let before = Policy::from_yaml(text).unwrap();
    let after = Policy::from_yaml(&text.replace("192.0.2.1", "192.0.2.2")).unwrap();
    let options = CompileOptions::default();
    let image = || compile(&before, &options).unwrap();
    assert!(recompile(image(), &before, &after, &options.clock).is_some());
    // Two ticks more or less come of two readings, each within a tick.
    for (ticks, is_enough) in [(2, true), (3, false), (1_000_000_000, false)] {
        let clock = Clock {
            ticks,
            ..options.clock
        };
        let changed = recompile(image(), &before, &after, &clock);
        assert_eq!(changed.is_some(), is_enough, "{ticks}");
    }
}

#[test]
fn r104_what_has_expired_leaves_the_image() {
    let text = "version: 1\nfailsafe: none\n\
                sets: { bad: { entries: [192.0.2.1, { entry: 192.0.2.2, expires: 2000-01-01T00:00:00Z }] } }\n\
                rules: [{ id: r, match: { src: '@bad' }, action: drop }]\n";
    let policy = Policy::from_yaml(text).unwrap();
    let options = CompileOptions::default();
    let end: jiff::Timestamp = "2000-01-01T00:00:00Z".parse().unwrap();
    for (second, is_enough) in [(-1, true), (0, false), (1, false)] {
        let now = end + jiff::SignedDuration::from_secs(second);
        let clock = Clock {
            now,
            ticks: now.as_nanosecond() as u64,
            ..options.clock
        };
        let image = compile(&policy, &options).unwrap();
        let changed = recompile(image, &policy, &policy, &clock);
        assert_eq!(changed.is_some(), is_enough, "{second}");
    }
}
