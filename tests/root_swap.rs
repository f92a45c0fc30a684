//! Replacing the policy while traffic goes on.
#![cfg(feature = "kernel")]

#[allow(dead_code, unreachable_pub, reason = "shared with other tests")]
mod common {
    pub mod netns;
    pub mod packet;
}

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::netns::{self, Wire, index, veth, wait_until};
use common::packet;
use xdpgate::policy::Policy;
use xdpgate::{ApplyError, Disposition, Firewall, ModePreference, Reason};

/// How often the policy is replaced under traffic.
fn swaps() -> u32 {
    // The emulated processor of a guest is 4 to 8 times slower.
    if std::env::var_os("XDPGATE_GUEST").is_some() {
        12
    } else {
        200
    }
}

/// Both versions drop 203.0.113.0/24 and pass 192.0.2.0/24, each in its own way: by one rule or
/// by several, by address alone or by more fields, with sets of different sizes.
fn version(number: u32) -> Policy {
    let text = match number % 2 {
        0 => "version: 1
failsafe: none
rules:
  - { id: stable, match: { src: 203.0.113.0/24 }, action: drop }
  - { id: only-even, match: { src: 198.18.0.0/16 }, action: drop }
"
        .to_owned(),
        _ => {
            let hosts: Vec<String> = (0..2000)
                .map(|n| format!("198.19.{}.{}", n / 250, n % 250))
                .collect();
            format!(
                "version: 1
failsafe: none
default: drop
sets: {{ many: {{ entries: [{}] }} }}
rules:
  - {{ id: only-odd, match: {{ src: '@many' }}, action: drop }}
  - {{ id: pass-probe, match: {{ src: 192.0.2.0/24, protocol: udp, dport: 2000-2999 }}, action: pass }}
  - {{ id: stable, match: {{ src: 203.0.113.0/24, protocol: udp }}, action: drop }}
",
                hosts.join(", ")
            )
        }
    };
    Policy::from_yaml(&text).unwrap()
}

fn probe(src: &str, number: u64) -> Vec<u8> {
    let mut payload = [0; 40];
    payload[..8].copy_from_slice(&number.to_be_bytes());
    packet::ip(src, "198.51.100.1")
        .udp(1000, 2000)
        .payload(&payload)
        .build()
}

/// The number in a probe, and whether it was meant to pass.
fn read(frame: &[u8]) -> Option<(u64, bool)> {
    let number = frame.get(42..50)?;
    let passes = match frame[26..29] {
        [192, 0, 2] => true,
        [203, 0, 113] => false,
        _ => return None,
    };
    Some((u64::from_be_bytes(number.try_into().ok()?), passes))
}

#[test]
fn no_packet_is_judged_by_anything_but_one_whole_policy() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        veth("a0", "b0");
        let a0 = index("a0");
        let firewall = Firewall::loader().dry_run(false).load().unwrap();
        firewall.apply(&version(0)).unwrap();
        firewall.attach(a0, ModePreference::BestAvailable).unwrap();
        let (sender, receiver) = (Wire::open("b0"), Wire::open("a0"));
        let (done, sent, arrived) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));

        let mut worst = Duration::ZERO;
        let mut seen = HashMap::new();
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut number = 0;
                while !done.load(Ordering::SeqCst) {
                    sender.send(&probe("192.0.2.1", number));
                    sender.send(&probe("203.0.113.1", number));
                    number += 1;
                    sent.store(number, Ordering::SeqCst);
                    // The wire holds 256 frames: never more than it can, so that none is lost.
                    while number - arrived.load(Ordering::SeqCst) >= 64
                        && !done.load(Ordering::SeqCst)
                    {
                        thread::yield_now();
                    }
                }
            });
            let collector = scope.spawn(|| {
                let mut seen: HashMap<(u64, bool), u32> = HashMap::new();
                loop {
                    match receiver.receive().as_deref().map(read) {
                        Some(Some(probe)) => {
                            *seen.entry(probe).or_default() += 1;
                            arrived.fetch_add(u64::from(probe.1), Ordering::SeqCst);
                        }
                        Some(None) => {}
                        None if done.load(Ordering::SeqCst) => return seen,
                        None => {}
                    }
                }
            });
            for number in 1..=swaps() {
                let applied = firewall.apply(&version(number)).unwrap();
                worst = worst.max(applied.publish);
                let before = arrived.load(Ordering::SeqCst);
                wait_until("traffic between two swaps", || {
                    arrived.load(Ordering::SeqCst) > before
                });
            }
            done.store(true, Ordering::SeqCst);
            seen = collector.join().unwrap();
        });

        let sent = sent.load(Ordering::SeqCst);
        println!(
            "{sent} probes of each kind over {} swaps, slowest {worst:?}",
            swaps()
        );
        let stats = firewall.stats();
        let counts = &stats.interfaces[0].counts;
        assert_eq!(counts.total().packets, 2 * sent);
        assert_eq!(counts.dropped().packets, sent);
        assert_eq!(counts.passed().packets, sent);
        assert_eq!(counts.get(Reason::NoPolicy, Disposition::Passed).packets, 0);
        assert_eq!(stats.other.total().packets, 0);
        // A rule that both versions have kept its counters over all of it.
        let stable = stats
            .rules
            .iter()
            .find(|r| r.id.as_str() == "stable")
            .unwrap();
        assert_eq!((stable.matched.packets, stable.dropped), (sent, sent));

        let wrong = seen.keys().filter(|(_, passes)| !passes).count();
        assert_eq!(wrong, 0, "probes that had to be dropped came through");
        let missing = (0..sent)
            .filter(|n| seen.get(&(*n, true)) != Some(&1))
            .count();
        assert_eq!(
            missing, 0,
            "probes that had to pass were lost or came twice"
        );
    });
}

#[test]
fn what_cannot_be_applied_changes_nothing() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        veth("a0", "b0");
        let firewall = Firewall::loader()
            .dry_run(false)
            .max_rules(4)
            .load()
            .unwrap();
        let first = firewall.apply(&version(0)).unwrap();
        firewall
            .attach(index("a0"), ModePreference::BestAvailable)
            .unwrap();
        let info = firewall.program_info();
        let (sender, receiver) = (Wire::open("b0"), Wire::open("a0"));

        let refused = "version: 1
rules:
  - { id: a, match: { src: 192.0.2.0/24 }, action: drop }
  - { id: limit, action: { rate_limit: { packets_per_second: 1, burst: 18446744073709551615 } } }
";
        let many: String = (0..5)
            .map(|n| format!("  - {{ id: r{n}, action: drop }}\n"))
            .collect();
        for (text, says) in [
            (refused.to_owned(), "limit"),
            (format!("version: 1\nrules:\n{many}"), "max_rules(7)"),
        ] {
            let error = firewall
                .apply(&Policy::from_yaml(&text).unwrap())
                .unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
            assert!(
                matches!(error, ApplyError::Policy(_) | ApplyError::Limit { .. }),
                "{error:?}"
            );
            assert_eq!(firewall.generation(), Some(first.generation));
            assert_eq!(firewall.policy().as_deref(), Some(&version(0)));
            assert_eq!(
                firewall.program_info(),
                info,
                "the same program, by its number"
            );
        }
        sender.send(&probe("203.0.113.1", 1));
        sender.send(&probe("192.0.2.1", 2));
        let arrived = receiver.receive();
        assert_eq!(arrived.as_deref().and_then(read), Some((2, true)));
        assert_eq!(receiver.receive(), None);
        let second = firewall.apply(&version(2)).unwrap();
        assert_eq!(second.generation.get(), first.generation.get() + 1);
    });
}

#[test]
fn a_slot_that_is_used_again_starts_at_zero() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        veth("a0", "b0");
        let firewall = Firewall::loader()
            .dry_run(false)
            .max_rules(2)
            .load()
            .unwrap();
        firewall
            .attach(index("a0"), ModePreference::BestAvailable)
            .unwrap();
        let sender = Wire::open("b0");
        let mut waited = Duration::ZERO;
        for turn in 1..=6 {
            let id = format!("turn-{turn}");
            let text = format!(
                "version: 1\nfailsafe: none\nrules:\n  - {{ id: {id}, match: {{ src: 203.0.113.0/24 }}, action: drop }}\n"
            );
            let started = Instant::now();
            firewall.apply(&Policy::from_yaml(&text).unwrap()).unwrap();
            waited = waited.max(started.elapsed());
            for number in 0..turn {
                sender.send(&probe("203.0.113.1", number));
            }
            wait_until("the frames", || {
                let stats = firewall.stats();
                assert_eq!(stats.rules.len(), 1);
                assert_eq!(stats.rules[0].id.as_str(), id);
                assert!(
                    stats.rules[0].matched.packets <= turn,
                    "counts of another rule"
                );
                stats.rules[0].matched.packets == turn
            });
        }
        println!("slowest apply with a grace period: {waited:?}");
    });
}
