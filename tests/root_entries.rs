//! Counters of single entries of sets: exact on all CPUs, kept over transactions, and right where
//! entries nest and expire. `root_oracle` compares them with the oracle's for random policies.
#![cfg(feature = "kernel")]

mod common;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, sleep};

use common::cpus::{cpus, on_cpus};
use common::live::{Entry, in_guest};
use common::netns::skipped;
use common::packet::{ip, udp_from};
use jiff::{SignedDuration, Timestamp};
use xdpgate::policy::{Change, Policy, SetName};
use xdpgate::{EntryCountersError, Firewall, TransactionOptions};

fn loaded(policy: &str) -> (Firewall, Entry) {
    let firewall = Firewall::loader().dry_run(false).load().expect("load");
    apply(&firewall, policy);
    let entry = Entry::of(&firewall);
    (firewall, entry)
}

fn apply(firewall: &Firewall, policy: &str) {
    let policy = Policy::from_yaml(policy).unwrap_or_else(|e| panic!("{e}\n{policy}"));
    firewall.apply(&policy).expect("apply");
}

fn name(set: &str) -> SetName {
    SetName::new(set).expect("a name")
}

/// Packets by entry of a set, those without any left out.
fn packets(firewall: &Firewall, set: &str) -> Vec<(String, u64)> {
    let stats = firewall.entry_counters(&name(set)).expect("counters");
    let counted = stats.iter().filter(|s| s.matched.packets != 0);
    counted
        .map(|s| (s.entry.to_string(), s.matched.packets))
        .collect()
}

fn is(firewall: &Firewall, set: &str, want: &[(&str, u64)]) {
    let want: Vec<_> = want.iter().map(|(p, n)| ((*p).to_owned(), *n)).collect();
    assert_eq!(packets(firewall, set), want, "set {set}");
}

const NESTED: &str = "
version: 1
failsafe: none
sets:
  s:
    counters: entry
    entries: [10.0.0.0/8, 10.1.0.0/16, 10.1.1.1, 0.0.0.0/0, '2001:db8::/32', '2001:db8::1', '::/0']
  t: { counters: entry, entries: [10.1.1.0/24, 192.0.2.1] }
  plain: { entries: [10.0.0.0/8] }
rules:
";

#[test]
fn r104_the_most_specific_entry_counts() {
    if skipped() {
        return;
    }
    let rules = "  - { id: r, match: { src: ['@s', '@t'] }, action: drop }\n";
    let (firewall, entry) = loaded(&format!("{NESTED}{rules}"));
    for src in ["10.1.1.1", "10.1.1.2", "10.1.2.1", "10.2.1.1", "192.0.2.1"] {
        entry.receive_many(&udp_from(src), 10);
    }
    for src in ["2001:db8::1", "2001:db8::2", "2001:db9::1"] {
        entry.receive_many(&udp_from(src), 7);
    }
    let s = [
        ("10.1.1.1", 10),
        ("0.0.0.0/0", 10),
        ("10.0.0.0/8", 10),
        ("10.1.0.0/16", 20),
        ("2001:db8::1", 7),
        ("::/0", 7),
        ("2001:db8::/32", 7),
    ];
    is(&firewall, "s", &s);
    is(&firewall, "t", &[("192.0.2.1", 10), ("10.1.1.0/24", 20)]);
    let bytes = |set: &str| -> u64 {
        let stats = firewall.entry_counters(&name(set)).unwrap();
        stats.iter().map(|s| s.matched.bytes).sum()
    };
    assert_eq!(bytes("t"), 30 * udp_from("192.0.2.1").len() as u64);

    let missing = firewall.entry_counters(&name("nowhere")).unwrap_err();
    assert_eq!(missing, EntryCountersError::NoSuchSet(name("nowhere")));
    let plain = firewall.entry_counters(&name("plain")).unwrap_err();
    assert!(plain.to_string().contains("counters: entry"), "{plain}");
}

#[test]
fn r104_only_rules_that_match_by_an_entry_count() {
    if skipped() {
        return;
    }
    // Found by address alone, by rows, and by none; on the way, twice, in both directions, negated.
    let rules = "
  - { id: watch, match: { src: '@t', dport: 53 }, action: count }
  - { id: again, match: { src: '@t', protocol: udp }, action: drop, mode: monitor }
  - { id: to, match: { dst: '@t', dport: 53 }, action: pass }
  - { id: other, match: { src: { not: '@t' }, dport: 80 }, action: drop }
";
    for rows_up_to in [1024, 0] {
        let loader = Firewall::loader().dry_run(false).rows_up_to(rows_up_to);
        let firewall = loader.load().expect("load");
        apply(&firewall, &format!("{NESTED}{rules}"));
        let entry = Entry::of(&firewall);
        let udp = |src, dst, dport| ip(src, dst).udp(1, dport).build();
        // Two rules count by one entry: once. A third by another, of the destination.
        entry.receive_many(&udp("192.0.2.1", "10.1.1.1", 53), 5);
        is(&firewall, "t", &[("192.0.2.1", 5), ("10.1.1.0/24", 5)]);
        // Its own entry in both directions.
        entry.receive_many(&udp("192.0.2.1", "192.0.2.1", 53), 3);
        is(&firewall, "t", &[("192.0.2.1", 11), ("10.1.1.0/24", 5)]);
        // No rule at all, and one that matches because the address is not in the set.
        entry.receive_many(&udp("198.51.100.1", "192.0.2.1", 99), 3);
        entry.receive_many(&udp("198.51.100.1", "192.0.2.1", 80), 3);
        is(&firewall, "t", &[("192.0.2.1", 11), ("10.1.1.0/24", 5)]);
        // Evaluations count nothing.
        firewall
            .evaluate(&udp("192.0.2.1", "10.1.1.1", 53))
            .unwrap();
        is(&firewall, "t", &[("192.0.2.1", 11), ("10.1.1.0/24", 5)]);
        // A malformed packet that a rule only counts, too.
        let short = ip("192.0.2.1", "203.0.113.1").udp(1, 53).fragment(0, true);
        entry.receive_many(&short.build(), 2);
        is(&firewall, "t", &[("192.0.2.1", 13), ("10.1.1.0/24", 5)]);
    }
}

#[test]
fn r104_what_expires_counts_no_more() {
    if skipped() {
        return;
    }
    let lead = SignedDuration::from_secs(if in_guest() { 10 } else { 2 });
    let end = Timestamp::now() + lead;
    let policy = format!(
        "version: 1\nfailsafe: none\nsets:\n  s:\n    counters: entry\n    entries:\n\
         \x20     - 10.0.0.0/8\n      - {{ entry: 10.1.0.0/16, expires: {end:.9} }}\n\
         \x20     - {{ entry: 10.1.1.1, expires: {end:.9} }}\n\
         rules: [{{ id: r, match: {{ src: '@s' }}, action: drop }}]\n"
    );
    let (firewall, entry) = loaded(&policy);
    let frames = ["10.1.1.1", "10.1.1.2", "10.9.9.9"].map(udp_from);
    let receive = || frames.iter().for_each(|f| entry.receive_many(f, 4));
    receive();
    assert!(Timestamp::now() < end, "this machine is too slow");
    let before = [("10.0.0.0/8", 4), ("10.1.0.0/16", 4), ("10.1.1.1", 4)];
    is(&firewall, "s", &before);
    // Expiry may come up to a second late.
    let late = end + SignedDuration::from_secs(1);
    sleep(late.duration_since(Timestamp::now()).unsigned_abs());
    receive();
    let after = [("10.0.0.0/8", 16), ("10.1.0.0/16", 4), ("10.1.1.1", 4)];
    is(&firewall, "s", &after);
    // Compiled anew they still have what they counted.
    apply(&firewall, &policy);
    receive();
    let anew = [("10.0.0.0/8", 28), ("10.1.0.0/16", 4), ("10.1.1.1", 4)];
    is(&firewall, "s", &anew);
}

#[test]
fn r112_entries_that_stay_keep_their_counters() {
    if skipped() {
        return;
    }
    let base = "
version: 1
failsafe: none
sets: { s: { counters: entry, entries: [10.0.0.1, 10.0.0.2, 10.0.1.0/24] } }
rules: [{ id: r, match: { src: '@s' }, action: drop }]
";
    let (firewall, entry) = loaded(base);
    let frames = ["10.0.0.1", "10.0.0.2", "10.0.1.1"].map(udp_from);
    frames.iter().for_each(|f| entry.receive_many(f, 10));
    let change = |changes: &[Change]| {
        firewall
            .transact(changes, TransactionOptions::default())
            .expect("transact");
    };
    let prefix = |p: &str| p.parse().unwrap();
    change(&[
        Change::RemoveEntries(name("s"), vec![prefix("10.0.0.2")]),
        Change::AddEntries(name("s"), vec![(prefix("10.0.0.0/24"), None)]),
    ]);
    is(&firewall, "s", &[("10.0.0.1", 10), ("10.0.1.0/24", 10)]);
    frames.iter().for_each(|f| entry.receive_many(f, 1));
    change(&[Change::AddEntries(
        name("s"),
        vec![(prefix("10.0.0.2"), None)],
    )]);
    let want = [("10.0.0.1", 11), ("10.0.0.0/24", 1), ("10.0.1.0/24", 11)];
    is(&firewall, "s", &want);
    // While no rule names the set its entries have nothing to count, and lose nothing.
    let unnamed = base.replace("src: '@s'", "dst: 192.0.2.1");
    apply(&firewall, &unnamed);
    frames.iter().for_each(|f| entry.receive_many(f, 1));
    apply(&firewall, base);
    is(&firewall, "s", &[("10.0.0.1", 11), ("10.0.1.0/24", 11)]);
    // A set that stops counting forgets.
    apply(&firewall, &base.replace("counters: entry, ", ""));
    apply(&firewall, base);
    is(&firewall, "s", &[]);
}

#[test]
fn r104_r112_entry_counters_are_exact_on_all_cpus_over_transactions() {
    if skipped() {
        return;
    }
    let policies = [1, 2].map(|n| {
        format!(
            "version: 1\nfailsafe: none\n\
             sets: {{ s: {{ counters: entry, entries: [10.0.0.1, 10.0.0.0/24, 10.0.{n}.0/24] }} }}\n\
             rules: [{{ id: r{n}, match: {{ src: '@s' }}, action: drop }}]\n"
        )
    });
    let (firewall, entry) = loaded(&policies[0]);
    let (one, two) = (udp_from("10.0.0.1"), udp_from("10.0.0.2"));
    let (sent, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let transactions = if in_guest() { 5 } else { 30 };
    thread::scope(|scope| {
        scope.spawn(|| {
            on_cpus(cpus(), |_| {
                while !done.load(Ordering::SeqCst) {
                    entry.receive_many(&one, 100);
                    entry.receive_many(&two, 50);
                    sent.fetch_add(50, Ordering::SeqCst);
                }
            });
        });
        let mut last = 0;
        for turn in 0..transactions {
            apply(&firewall, &policies[turn % 2]);
            let stats = firewall.entry_counters(&name("s")).unwrap();
            let now: u64 = stats.iter().map(|s| s.matched.packets).sum();
            assert!(now >= last, "counters go forwards: {last}, {now}");
            last = now;
        }
        done.store(true, Ordering::SeqCst);
    });
    let sent = sent.into_inner();
    assert!(sent > 0);
    is(
        &firewall,
        "s",
        &[("10.0.0.1", 2 * sent), ("10.0.0.0/24", sent)],
    );
}
