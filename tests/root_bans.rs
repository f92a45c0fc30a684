//! Bans in the real kernel: at once, on time, and over every change of the policy.
#![cfg(feature = "kernel")]

#[allow(dead_code, unreachable_pub, reason = "shared with other tests")]
mod common {
    pub mod live;
    pub mod netns;
    pub mod packet;
}

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::live::{Entry, in_guest};
use common::netns;
use common::packet::{self, addressed, udp_from};
use jiff::Timestamp;
use xdpgate::policy::{Family, Policy, Prefix};
use xdpgate::{BanError, BanScope, Disposition, Firewall, LoadError, Loader, Reason, Verdict};

const HOUR: Duration = Duration::from_secs(3600);
/// Passes the very addresses that the tests ban.
const PASS: &str = "
version: 1
rules:
  - { id: pass, match: { src: [203.0.113.0/24, 2001:db8::/32] }, action: pass }
";

fn loaded(loader: Loader) -> (Firewall, Entry) {
    let firewall = loader.dry_run(false).load().unwrap();
    firewall.apply(&Policy::from_yaml(PASS).unwrap()).unwrap();
    let entry = Entry::of(&firewall);
    (firewall, entry)
}

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

/// What the evaluator and the program that interfaces run say; they must agree.
fn drops(firewall: &Firewall, entry: &Entry, frame: &[u8]) -> bool {
    let said = firewall.evaluate(frame).unwrap();
    assert_eq!(entry.receive(frame), said.verdict);
    assert_eq!(said.verdict == Verdict::Drop, said.reason == Reason::Ban);
    assert_eq!(said.rule.is_some(), said.reason == Reason::Rule);
    said.verdict == Verdict::Drop
}

fn between(src: &str, dst: &str) -> Vec<u8> {
    packet::ip(src, dst).udp(1000, 2000).build()
}

#[test]
fn r106_a_ban_is_in_force_when_the_call_returns() {
    if netns::skipped() {
        return;
    }
    let (firewall, entry) = loaded(Firewall::loader());
    let frame = udp_from("203.0.113.7");
    assert!(!drops(&firewall, &entry, &frame));
    let before = Timestamp::now();
    let ban = firewall
        .ban(prefix("203.0.113.7"), BanScope::Source, HOUR)
        .unwrap();
    assert_eq!(entry.receive(&frame), Verdict::Drop);
    assert!(drops(&firewall, &entry, &frame));
    assert!(!drops(&firewall, &entry, &udp_from("203.0.113.8")));
    let left = ban.expires.duration_since(before).as_secs_f64();
    assert!((3599.9..3601.0).contains(&left), "{left}");

    // Hits are of the program that interfaces run; an evaluation counts nothing.
    let listed = firewall.bans();
    assert_eq!(listed.len(), 1);
    assert_eq!(
        (listed[0].prefix, listed[0].scope, listed[0].packets),
        (prefix("203.0.113.7"), BanScope::Source, 2)
    );
    let counts = firewall.stats().other;
    assert_eq!(counts.get(Reason::Ban, Disposition::Dropped).packets, 2);

    // A ban of the same prefix: the new time, the same count.
    let again = firewall
        .ban(prefix("203.0.113.7"), BanScope::Source, 2 * HOUR)
        .unwrap();
    assert_eq!(again.packets, 2);
    let later = again.expires.duration_since(ban.expires).as_secs_f64();
    assert!((3599.0..3602.0).contains(&later), "{later}");

    assert!(firewall.unban(prefix("203.0.113.7"), BanScope::Source));
    assert!(!drops(&firewall, &entry, &frame));
    assert!(!firewall.unban(prefix("203.0.113.7"), BanScope::Source));
    assert_eq!(firewall.bans(), []);
}

#[test]
fn r106_banning_takes_less_than_a_millisecond() {
    if netns::skipped() {
        return;
    }
    let (firewall, entry) = loaded(Firewall::loader());
    let two_thousand = || {
        let mut times = Vec::new();
        for number in 0..2000u32 {
            let address = IpAddr::V4(Ipv4Addr::from_bits(0xc612_0000 + number));
            let frame = addressed(address, "198.51.100.1".parse().unwrap())
                .udp(1, 2)
                .build();
            let started = Instant::now();
            firewall
                .ban(Prefix::host(address), BanScope::Source, HOUR)
                .unwrap();
            times.push(started.elapsed());
            assert_eq!(entry.receive(&frame), Verdict::Drop);
        }
        times.sort_unstable();
        let (median, p99) = (times[1000], times[1980]);
        println!(
            "a ban: median {median:?}, p99 {p99:?}, most {:?}",
            times[1999]
        );
        assert_eq!(firewall.bans().len(), 2000);
        assert_eq!(firewall.unban_all(), 2000);
        assert_eq!(entry.receive(&udp_from("198.18.0.0")), Verdict::Pass);
        (median, p99)
    };
    // Who shares a busy processor loses his turn for some milliseconds, in an emulated one for tens
    // of them; that is no property of a ban, and not so each time.
    let limit = Duration::from_millis(if in_guest() { 100 } else { 5 });
    let good = |(median, p99)| median < Duration::from_millis(1) && p99 < limit;
    assert!((0..5).any(|_| good(two_thousand())), "slower five times");
}

#[test]
fn r106_a_ban_expires_in_the_kernel_on_time() {
    if netns::skipped() {
        return;
    }
    let (firewall, entry) = loaded(Firewall::loader());
    for (address, ttl) in [("203.0.113.7", 1000), ("203.0.113.8", 1700)] {
        let (frame, ttl) = (udp_from(address), Duration::from_millis(ttl));
        let started = Instant::now();
        firewall
            .ban(prefix(address), BanScope::Source, ttl)
            .unwrap();
        let begun = Instant::now();
        // Only the program is asked: the library does nothing meanwhile.
        let over = loop {
            let asked = Instant::now();
            if entry.receive(&frame) == Verdict::Pass {
                break asked;
            }
            assert!(begun.elapsed() < ttl + Duration::from_secs(1), "late");
            thread::sleep(Duration::from_micros(200));
        };
        let held = over.elapsed().max(started.elapsed());
        println!("a ban of {ttl:?} held {held:?}");
        assert!(held >= ttl, "early: {held:?}");
        // The clock of the library may be a tick behind.
        netns::wait_until("the end of the ban", || firewall.bans().is_empty());
        assert!(!firewall.unban(prefix(address), BanScope::Source));
    }
    // As long as can be: no overflow.
    let ever = firewall
        .ban(prefix("203.0.113.7"), BanScope::Source, Duration::MAX)
        .unwrap();
    assert!(drops(&firewall, &entry, &udp_from("203.0.113.7")));
    assert!(ever.expires.duration_since(Timestamp::now()).as_hours() > 100 * 365 * 24);
}

#[test]
fn r106_prefixes_scopes_and_nesting() {
    if netns::skipped() {
        return;
    }
    let (firewall, entry) = loaded(Firewall::loader());
    let short = Duration::from_millis(if in_guest() { 2000 } else { 400 });
    let ban = |text, scope, ttl| firewall.ban(prefix(text), scope, ttl).unwrap();
    let bad = |src, dst| drops(&firewall, &entry, &between(src, dst));
    // The first evaluation loads its program, which may take longer than the short bans.
    assert!(!bad("203.0.113.7", "198.51.100.1"));
    for (wide, host, inside, outside) in [
        (
            "203.0.113.0/25",
            "203.0.113.7",
            "203.0.113.127",
            "203.0.113.128",
        ),
        (
            "2001:db8:0:8000::/49",
            "2001:db8:0:8000::7",
            "2001:db8:0:ffff::1",
            "2001:db8:1::1",
        ),
        (
            "2001:db8:5::/64",
            "2001:db8:5::7",
            "2001:db8:5::ffff:0:0:1",
            "2001:db8:5:1::1",
        ),
        (
            "2001:db8:6::/97",
            "2001:db8:6::7",
            "2001:db8:6::7fff:ffff",
            "2001:db8:6::8000:0",
        ),
        ("fc00::/7", "fdff::7", "fdff:ffff::1", "fe00::1"),
    ] {
        let peer = if host.contains(':') {
            "2001:db8:ffff::1"
        } else {
            "198.51.100.1"
        };
        // The prefix is over first, the host stays; then the other way round.
        ban(wide, BanScope::Source, short);
        ban(host, BanScope::Source, HOUR);
        assert!(bad(inside, peer) && bad(host, peer), "{wide}");
        assert!(!bad(outside, peer) && !bad(peer, inside), "{wide}");
        thread::sleep(short + Duration::from_millis(100));
        assert!(!bad(inside, peer) && bad(host, peer), "{wide}");
        ban(wide, BanScope::Source, HOUR);
        ban(host, BanScope::Source, Duration::ZERO);
        thread::sleep(Duration::from_millis(100));
        assert!(bad(inside, peer) && bad(host, peer), "{wide}");
        firewall.unban_all();
        assert!(!bad(inside, peer));

        for (scope, from, to) in [
            (BanScope::Source, true, false),
            (BanScope::Destination, false, true),
            (BanScope::Both, true, true),
        ] {
            ban(wide, scope, HOUR);
            assert_eq!(
                (bad(inside, peer), bad(peer, inside)),
                (from, to),
                "{scope:?}"
            );
            assert_eq!(firewall.bans().len(), usize::from(from) + usize::from(to));
            assert!(firewall.unban(prefix(wide), scope));
        }
        ban(wide, BanScope::Both, HOUR);
        assert!(firewall.unban(prefix(wide), BanScope::Source));
        assert!(!bad(inside, peer) && bad(peer, inside));
        firewall.unban_all();
    }
}

#[test]
fn r106_what_is_refused_changes_nothing() {
    if netns::skipped() {
        return;
    }
    let (firewall, entry) = loaded(Firewall::loader().max_bans(10));
    let ban = |text: &str, scope| firewall.ban(prefix(text), scope, HOUR);
    let error = ban("0.0.0.0/0", BanScope::Source).unwrap_err();
    assert!(matches!(error, BanError::WholeFamily { .. }), "{error}");
    assert!(error.to_string().contains("ban_whole_family"), "{error}");
    firewall
        .ban_whole_family(Family::Ipv6, BanScope::Source, HOUR)
        .unwrap();
    assert!(drops(&firewall, &entry, &between("fe80::1", "2001:db8::1")));
    assert!(!drops(&firewall, &entry, &between("1.2.3.4", "5.6.7.8")));
    // Management that the failsafe lets pass is not subject to bans.
    let solicitation = packet::ip("fe80::1", "ff02::1")
        .ttl(255)
        .icmp(135, 0)
        .build();
    assert_eq!(
        firewall.evaluate(&solicitation).unwrap().reason,
        Reason::Failsafe
    );
    assert!(firewall.unban(prefix("::/0"), BanScope::Source));

    for length in 17..25 {
        ban(&format!("10.0.0.0/{length}"), BanScope::Source).unwrap();
    }
    let error = ban("10.0.0.0/16", BanScope::Source).unwrap_err();
    let in_use: Vec<u8> = (17..25).collect();
    assert!(
        matches!(&error, BanError::Lengths { in_use: u, limit: 8, .. } if *u == in_use),
        "{error:?}"
    );
    assert!(error.to_string().contains("address set"), "{error}");
    // One of two finds its place: both or none.
    ban("10.1.0.0/24", BanScope::Source).unwrap();
    let error = ban("10.2.0.0/24", BanScope::Both).unwrap_err();
    assert!(error.to_string().contains("max_bans(10)"), "{error}");
    assert_eq!(firewall.bans().len(), 9);
    assert!(!drops(&firewall, &entry, &between("10.2.0.1", "192.0.2.1")));
    ban("10.3.0.0/24", BanScope::Source).unwrap();
    let error = ban("10.1.0.0/24", BanScope::Both).unwrap_err();
    assert!(
        matches!(
            error,
            BanError::Full {
                count: 10,
                limit: 10,
                ..
            }
        ),
        "{error:?}"
    );
    assert!(drops(&firewall, &entry, &between("10.1.0.1", "192.0.2.1")));

    let (none, entry) = loaded(Firewall::loader().max_bans(0));
    none.ban(prefix("10.0.0.1"), BanScope::Source, HOUR)
        .unwrap_err();
    assert!(!drops(&none, &entry, &between("10.0.0.1", "192.0.2.1")));
    let error = Firewall::loader().max_bans(u32::MAX).load().unwrap_err();
    assert!(
        matches!(
            error,
            LoadError::Limit {
                knob: "max_bans",
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn r106_bans_made_before_the_first_policy_hold_from_its_first_packet_on() {
    if netns::skipped() {
        return;
    }
    let firewall = Firewall::loader().load().unwrap();
    let (entry, frame) = (Entry::of(&firewall), udp_from("203.0.113.7"));
    firewall
        .ban(prefix("203.0.113.0/24"), BanScope::Source, HOUR)
        .unwrap();
    assert_eq!(firewall.evaluate(&frame).unwrap().reason, Reason::NoPolicy);
    firewall.apply(&Policy::from_yaml(PASS).unwrap()).unwrap();
    assert_eq!(firewall.evaluate(&frame).unwrap().reason, Reason::Ban);
    // Dry run is the default: it would drop, and says so.
    assert_eq!(entry.receive(&frame), Verdict::Pass);
    let count = |disposition| firewall.stats().other.get(Reason::Ban, disposition).packets;
    assert_eq!(
        (count(Disposition::WouldDrop), count(Disposition::Dropped)),
        (1, 0)
    );
    assert_eq!(firewall.bans()[0].packets, 1);
    firewall.set_dry_run(false);
    assert_eq!(entry.receive(&frame), Verdict::Drop);
    assert_eq!(
        (count(Disposition::WouldDrop), count(Disposition::Dropped)),
        (1, 1)
    );
    assert_eq!(firewall.bans()[0].packets, 2);
}

/// Judges frames of a banned address and of its neighbour while `change` goes on.
fn under_traffic(firewall: &Firewall, change: impl FnOnce()) {
    let entry = Entry::of(firewall);
    let (banned, neighbour) = (udp_from("203.0.113.7"), udp_from("203.0.113.8"));
    let (done, judged) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let judge = scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                assert_eq!(entry.receive(&banned), Verdict::Drop, "a ban was missed");
                assert_eq!(entry.receive(&neighbour), Verdict::Pass, "a wrong drop");
                judged.fetch_add(1, Ordering::SeqCst);
            }
        });
        change();
        done.store(true, Ordering::SeqCst);
        judge.join().unwrap();
    });
    let judged = judged.load(Ordering::SeqCst);
    println!("{judged} frames of each kind");
    let ban = firewall
        .bans()
        .into_iter()
        .find(|b| b.prefix == prefix("203.0.113.7"));
    assert_eq!(ban.unwrap().packets, judged);
}

#[test]
fn r106_bans_stay_over_every_apply() {
    if netns::skipped() {
        return;
    }
    let (firewall, _) = loaded(Firewall::loader());
    firewall
        .ban(prefix("203.0.113.7"), BanScope::Source, HOUR)
        .unwrap();
    let other = "version: 1\ndefault: pass\nrules:\n  - { id: port, match: { protocol: udp, dport: 9 }, action: drop }\n";
    under_traffic(&firewall, || {
        for turn in 0..50 {
            let text = if turn % 2 == 0 { other } else { PASS };
            firewall.apply(&Policy::from_yaml(text).unwrap()).unwrap();
        }
    });
}

#[test]
fn r106_banning_others_neither_misses_nor_invents_a_ban() {
    if netns::skipped() {
        return;
    }
    // A small table, nearly full: bans move and their places are used anew all the time.
    let (firewall, _) = loaded(Firewall::loader().max_bans(64));
    firewall
        .ban(prefix("203.0.113.7"), BanScope::Source, HOUR)
        .unwrap();
    under_traffic(&firewall, || {
        let until = Instant::now() + Duration::from_secs(if in_guest() { 5 } else { 3 });
        let mut turn = 0u32;
        while Instant::now() < until {
            let host =
                |n: u32| Prefix::host(IpAddr::V4(Ipv4Addr::from_bits(0xcb00_7200 + n % 500)));
            let _ = firewall.ban(host(turn * 7), BanScope::Both, HOUR);
            firewall
                .ban(prefix("203.0.113.7"), BanScope::Source, HOUR)
                .unwrap();
            if turn > 30 {
                firewall.unban(host((turn - 30) * 7), BanScope::Both);
            }
            turn += 1;
        }
        println!("{turn} turns");
    });
}

#[test]
fn r106_any_sequence_is_that_of_a_map() {
    if netns::skipped() {
        return;
    }
    let (firewall, entry) = loaded(Firewall::loader().max_bans(40));
    let prefixes: Vec<Prefix> = (0..16)
        .flat_map(|n| {
            [
                format!("10.0.0.{n}"),
                format!("10.0.{n}.0/24"),
                format!("2001:db8::{n:x}"),
                format!("2001:db8:{n:x}::/48"),
            ]
        })
        .map(|text| prefix(&text))
        .collect();
    let mut model = BTreeMap::<(Prefix, bool), Instant>::new();
    let mut state = 1u64;
    let mut next = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as usize % below
    };
    // What is about to expire may be seen either way.
    let margin = Duration::from_millis(120);
    let turns = if in_guest() { 600 } else { 3000 };
    let mut decided = 0;
    for _ in 0..turns {
        let (prefix, to) = (prefixes[next(prefixes.len())], next(2) == 1);
        let scope = if to {
            BanScope::Destination
        } else {
            BanScope::Source
        };
        if next(4) == 0 {
            firewall.unban(prefix, scope);
            model.remove(&(prefix, to));
        } else {
            let ttl = Duration::from_millis([0, 20, 200, 3_600_000][next(4)]);
            match firewall.ban(prefix, scope, ttl) {
                Ok(_) => drop(model.insert((prefix, to), Instant::now() + ttl)),
                Err(error) => {
                    let now = Instant::now();
                    let most = model.values().filter(|e| **e + margin > now).count();
                    assert!(most >= 40, "{most}: {error}");
                }
            }
        }
        for _ in 0..4 {
            let (inside, dst) = (prefixes[next(prefixes.len())].addr(), next(2) == 1);
            let peer = if inside.is_ipv4() {
                "192.0.2.1"
            } else {
                "2001:db8:ffff::1"
            };
            let peer = peer.parse().unwrap();
            let (a, b) = if dst { (peer, inside) } else { (inside, peer) };
            let frame = addressed(a, b).udp(1, 2).build();
            let now = Instant::now();
            let covering = || {
                model
                    .iter()
                    .filter(|((p, to), _)| *to == dst && p.contains(inside))
            };
            let surely = covering().any(|(_, expires)| *expires > now + margin);
            let maybe = covering().any(|(_, expires)| *expires + margin > now);
            if surely == maybe {
                decided += 1;
                assert_eq!(
                    drops(&firewall, &entry, &frame),
                    surely,
                    "{inside} {dst}: {model:?}"
                );
            }
        }
    }
    assert!(decided > turns, "{decided}");
}
