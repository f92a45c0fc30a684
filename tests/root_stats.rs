//! Counters under traffic: exact, and in every snapshot of one piece.
#![cfg(feature = "kernel")]

#[allow(dead_code, unreachable_pub, reason = "shared with other tests")]
mod common {
    pub mod live;
    pub mod netns;
    pub mod packet;
}

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::live::{Entry, in_guest};
use common::netns::{self, Wire, index, veth, wait_until};
use common::packet::{self, Frame};
use xdpgate::policy::Policy;
use xdpgate::{
    Count, Disposition, Firewall, ModePreference, Rate, Rates, Reason, RuleStats, Stats,
};

/// Rules that count on the way, one in monitor mode, and rules that decide: those that count do it
/// a while before the verdict is counted, so that a snapshot may fall in between.
fn policy(turn: u32) -> Policy {
    let counting: String = (0..20)
        .map(|n| format!("  - {{ id: c{n}, match: {{ protocol: udp }}, action: count }}\n"))
        .collect();
    let elsewhere = format!("198.18.{}.0/24", turn % 256);
    Policy::from_yaml(&format!(
        "version: 1
failsafe: none
rules:
{counting}
  - {{ id: watch, match: {{ src: 203.0.113.0/24, protocol: udp }}, action: drop, mode: monitor }}
  - {{ id: turn-{turn}, match: {{ src: {elsewhere}, protocol: udp }}, action: drop }}
  - {{ id: block, match: {{ src: 203.0.113.0/24, protocol: udp }}, action: drop }}
  - {{ id: allow, match: {{ protocol: udp, dport: 2000 }}, action: pass }}
"
    ))
    .unwrap()
}

fn udp(src: &str, dport: u16, bytes: usize) -> Vec<u8> {
    let frame: Frame = packet::ip(src, "198.51.100.1").udp(1000, dport);
    frame.payload(&vec![0; bytes]).build()
}

/// Frames of different lengths, each for another end.
struct Frames {
    blocked: Vec<u8>,
    allowed: Vec<u8>,
    default: Vec<u8>,
    other: Vec<u8>,
}

impl Frames {
    fn new() -> Self {
        let mut other = udp("192.0.2.1", 2000, 100);
        other[12..14].copy_from_slice(&[0x88, 0xb5]);
        Self {
            blocked: udp("203.0.113.1", 2000, 20),
            allowed: udp("192.0.2.1", 2000, 50),
            default: udp("192.0.2.1", 3000, 90),
            other,
        }
    }

    fn all(&self) -> [&[u8]; 4] {
        [&self.blocked, &self.allowed, &self.default, &self.other]
    }
}

fn rule<'s>(stats: &'s Stats, id: &str) -> &'s RuleStats {
    let found = stats.rules.iter().find(|r| r.id.as_str() == id);
    found.unwrap_or_else(|| panic!("no rule {id}"))
}

/// Over all interfaces.
fn ended(stats: &Stats, reason: Reason, disposition: Disposition) -> Count {
    let interfaces = stats.interfaces.iter().map(|i| &i.counts);
    let mut sum = stats.other.get(reason, disposition);
    interfaces.for_each(|counts| sum += counts.get(reason, disposition));
    sum
}

fn sum(counts: impl IntoIterator<Item = Count>) -> Count {
    let mut sum = Count::default();
    counts.into_iter().for_each(|count| sum += count);
    sum
}

/// All that has to fit within one snapshot; returns all frames.
fn check_fits(stats: &Stats) -> Count {
    let (block, allow) = (rule(stats, "block"), rule(stats, "allow"));
    let dropped = ended(stats, Reason::Rule, Disposition::Dropped);
    let passed = ended(stats, Reason::Rule, Disposition::Passed);
    assert_eq!((block.matched, block.dropped), (dropped, dropped.packets));
    assert_eq!((allow.matched, allow.dropped), (passed, 0));

    let default = ended(stats, Reason::Default, Disposition::Passed);
    let udp = sum([dropped, passed, default]);
    for n in 0..20 {
        assert_eq!(rule(stats, &format!("c{n}")).matched, udp, "c{n}");
    }
    let watch = rule(stats, "watch");
    assert_eq!(
        (watch.matched, watch.would_drop),
        (dropped, dropped.packets)
    );
    assert_eq!(watch.dropped, 0);

    let other = ended(stats, Reason::NonIp, Disposition::Passed);
    let interfaces = stats.interfaces.iter().map(|i| i.counts.total());
    let all = sum(interfaces.chain([stats.other.total()]));
    assert_eq!(all, sum([udp, other]));
    all
}

fn assert_monotonic(before: &Stats, after: &Stats) {
    for counter in before.other.iter() {
        let now = after.other.get(counter.reason, counter.disposition);
        assert!(now.packets >= counter.count.packets && now.bytes >= counter.count.bytes);
    }
    for was in &before.rules {
        if let Some(now) = after.rules.iter().find(|r| r.id == was.id) {
            assert!(now.matched.packets >= was.matched.packets, "{}", was.id);
            assert!(now.matched.bytes >= was.matched.bytes, "{}", was.id);
        }
    }
}

/// Runs frames through the entry program on two threads while `body` runs, and then compares the
/// counters with what was sent.
fn under_traffic(firewall: &Firewall, body: impl FnOnce(&(dyn Fn() -> (u64, u64) + Sync))) {
    let entry = Entry::of(firewall);
    let frames = Frames::new();
    let done = AtomicBool::new(false);
    let (begun, over) = (AtomicU64::new(0), AtomicU64::new(0));
    let sent: [AtomicU64; 4] = Default::default();
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for burst in 1.. {
                    if done.load(Ordering::SeqCst) {
                        break;
                    }
                    for (frame, sent) in frames.all().into_iter().zip(&sent) {
                        let times = 1 + burst * 37 % 1000;
                        begun.fetch_add(times, Ordering::SeqCst);
                        entry.receive_many(frame, times as u32);
                        over.fetch_add(times, Ordering::SeqCst);
                        sent.fetch_add(times, Ordering::SeqCst);
                    }
                }
            });
        }
        // Also if it panics, or the threads would never end.
        let _ends = Ends(&done);
        body(&|| (begun.load(Ordering::SeqCst), over.load(Ordering::SeqCst)));
    });
    let stats = firewall.stats();
    let ends = [
        (Reason::Rule, Disposition::Dropped),
        (Reason::Rule, Disposition::Passed),
        (Reason::Default, Disposition::Passed),
        (Reason::NonIp, Disposition::Passed),
    ];
    for (((reason, disposition), frame), sent) in ends.into_iter().zip(frames.all()).zip(&sent) {
        let packets = sent.load(Ordering::SeqCst);
        let bytes = packets * frame.len() as u64;
        let want = Count { packets, bytes };
        assert_eq!(ended(&stats, reason, disposition), want, "{reason}");
    }
    let all = check_fits(&stats);
    assert_eq!(all.packets, over.load(Ordering::SeqCst));
    println!("{} frames, all counted", all.packets);
}

struct Ends<'f>(&'f AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn r31_every_snapshot_fits_under_traffic() {
    if netns::skipped() {
        return;
    }
    let firewall = Firewall::loader().dry_run(false).load().unwrap();
    firewall.apply(&policy(0)).unwrap();
    under_traffic(&firewall, |progress| {
        wait_until("traffic", || progress().1 > 10_000);
        let mut before = firewall.stats();
        for _ in 0..if in_guest() { 40 } else { 400 } {
            let (_, over) = progress();
            let stats = firewall.stats();
            let (begun, _) = progress();
            let all = check_fits(&stats);
            assert!((over..=begun).contains(&all.packets), "{over}..={begun}");
            assert_monotonic(&before, &stats);
            before = stats;
        }
    });
}

#[test]
fn r112_rules_that_stay_keep_their_counters() {
    if netns::skipped() {
        return;
    }
    let firewall = Firewall::loader().dry_run(false).load().unwrap();
    firewall.apply(&policy(0)).unwrap();
    under_traffic(&firewall, |_| {
        let snapshots = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut before = firewall.stats();
                while !snapshots.load(Ordering::SeqCst) {
                    let stats = firewall.stats();
                    check_fits(&stats);
                    assert_monotonic(&before, &stats);
                    before = stats;
                }
            });
            let _ends = Ends(&snapshots);
            for turn in 1..=if in_guest() { 20 } else { 100 } {
                firewall.apply(&policy(turn)).unwrap();
                check_fits(&firewall.stats());
            }
        });
    });
}

#[test]
fn r31_interfaces_add_up_with_rules() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        let firewall = Firewall::loader().dry_run(false).load().unwrap();
        firewall.apply(&policy(0)).unwrap();
        for n in 0..2 {
            veth(&format!("a{n}"), &format!("b{n}"));
            let interface = index(&format!("a{n}"));
            firewall
                .attach(interface, ModePreference::BestAvailable)
                .unwrap();
        }
        let (frames, done) = (Frames::new(), AtomicBool::new(false));
        let sent: [AtomicU64; 2] = Default::default();
        thread::scope(|scope| {
            for (n, sent) in sent.iter().enumerate() {
                let (frames, done) = (&frames, &done);
                scope.spawn(move || {
                    let wire = Wire::open(&format!("b{n}"));
                    while !done.load(Ordering::SeqCst) {
                        for frame in frames.all() {
                            wire.send(frame);
                            sent.fetch_add(1, Ordering::SeqCst);
                        }
                    }
                });
            }
            let _ends = Ends(&done);
            wait_until("traffic", || {
                sent.iter().all(|n| n.load(Ordering::SeqCst) > 1000)
            });
            for _ in 0..50 {
                check_fits(&firewall.stats());
            }
        });
        wait_until("the last frames", || {
            let stats = firewall.stats();
            let counts = stats.interfaces.iter().map(|i| i.counts.total().packets);
            counts.eq(sent.iter().map(|n| n.load(Ordering::SeqCst)))
        });
        let all = check_fits(&firewall.stats());
        println!("{} frames over two interfaces", all.packets);
    });
}

#[test]
fn r33_the_sampler_ends_with_the_firewall() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        veth("a0", "b0");
        for every in [Duration::ZERO, Duration::from_secs(3600), Duration::MAX] {
            let firewall = Firewall::loader().sample_every(every).load().unwrap();
            firewall
                .attach(index("a0"), ModePreference::BestAvailable)
                .unwrap();
            assert_eq!(firewall.rates(), None);
            if every.is_zero() {
                wait_until("a few samples", || {
                    firewall.rates().is_some_and(|rates| rates.sample > 3)
                });
            }
            assert!(netns::sh("ip link show a0").contains("prog/xdp"));
            let started = Instant::now();
            drop(firewall);
            assert!(started.elapsed() < Duration::from_secs(5), "{every:?}");
            assert!(!netns::sh("ip link show a0").contains("prog/xdp"));
        }
    });
}

#[test]
fn r33_all_readers_see_the_same_rate() {
    if netns::skipped() {
        return;
    }
    let every = Duration::from_millis(200);
    let firewall = Firewall::loader()
        .dry_run(false)
        .sample_every(every)
        .load()
        .unwrap();
    firewall.apply(&policy(0)).unwrap();
    let entry = Entry::of(&firewall);
    let frame = udp("203.0.113.1", 2000, 20);
    assert_eq!(firewall.rates(), None, "not before two samples");

    const OFFERED: f64 = 4000.0; // frames per second
    let (done, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let started = Instant::now();
    let samples = 15;
    let seen: Vec<Vec<Rates>> = thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                let due = (started.elapsed().as_secs_f64() * OFFERED) as u64;
                while sent.load(Ordering::SeqCst) < due {
                    entry.receive(&frame);
                    sent.fetch_add(1, Ordering::SeqCst);
                }
                thread::sleep(Duration::from_millis(1));
            }
        });
        let _ends = Ends(&done);
        // One asks all the time, others now and then; one takes snapshots of its own.
        let readers = [1, 7, 45, 130].map(|pause| {
            let firewall = &firewall;
            scope.spawn(move || {
                let mut seen: Vec<Rates> = Vec::new();
                while seen.last().is_none_or(|rates| rates.sample < samples) {
                    if let Some(rates) = firewall.rates()
                        && seen.last().is_none_or(|last| last.sample < rates.sample)
                    {
                        seen.push(rates);
                    }
                    if pause == 45 {
                        firewall.stats();
                    }
                    thread::sleep(Duration::from_millis(pause));
                }
                seen
            })
        });
        readers.into_iter().map(|r| r.join().unwrap()).collect()
    });

    let all = &seen[0];
    let numbers: Vec<u64> = all.iter().map(|r| r.sample).collect();
    assert!(
        numbers.iter().copied().eq(1..=numbers.len() as u64),
        "{numbers:?}"
    );
    for rates in seen.iter().flatten() {
        let same = all.iter().find(|r| r.sample == rates.sample);
        assert!(same.is_none_or(|same| same == rates));
    }
    // No sooner for being asked, and hardly later.
    let over: Duration = all.iter().map(|r| r.interval).sum();
    assert!(over >= every * (samples as u32 - 1), "{over:?}");

    let packets = |r: &Rates| r.other.dropped.packets * r.interval.as_secs_f64();
    let mean = all.iter().map(packets).sum::<f64>() / over.as_secs_f64();
    println!("{mean:.0} frames per second of {OFFERED} over {over:?}");
    assert!((mean / OFFERED - 1.0).abs() < 0.1, "{mean}");
    for rates in all {
        let whole = packets(rates);
        assert!(
            (whole - whole.round()).abs() < 0.001,
            "whole frames: {whole}"
        );
        let dropped = rates.other.dropped;
        let bits = dropped.packets * 8.0 * frame.len() as f64;
        assert!((dropped.bits - bits).abs() < 1.0, "{dropped:?}");
        assert_eq!(rates.other.passed, Rate::default());
        let rule = |id: &str| rates.rules.iter().find(|r| r.id.as_str() == id).unwrap();
        assert_eq!(rule("block").matched, dropped);
        assert_eq!(rule("block").dropped, dropped.packets);
        assert_eq!(rule("watch").would_drop, dropped.packets);
        assert_eq!(rule("allow").matched, Rate::default());
    }
}
