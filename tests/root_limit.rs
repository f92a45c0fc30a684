//! Rate limits through the XDP program: how exact they are, on one CPU and on all, what becomes of
//! more sources than there is room for, and what outlives a policy.
#![cfg(feature = "kernel")]

mod common;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::cpus::{cpus, on_cpus};
use common::live::{Entry, in_guest};
use common::netns::skipped;
use common::packet::{ACK, SYN, addressed, ip, udp_from};
use jiff::Timestamp;
use xdpgate::oracle::Oracle;
use xdpgate::policy::Policy;
use xdpgate::{Disposition, Firewall, Loader, Reason, RuleStats, Verdict};

/// What a clock that is read in ticks may be late by.
const TICK: f64 = 0.010;

fn policy(rules: &str) -> Policy {
    Policy::from_yaml(&format!("version: 1\nfailsafe: none\nrules:\n{rules}")).unwrap()
}

/// A rule `id` that limits all packets.
fn limit(id: &str, action: &str) -> String {
    format!("  - {{ id: {id}, action: {{ rate_limit: {{ {action} }} }} }}\n")
}

fn loaded(loader: Loader, rules: &str) -> (Firewall, Entry) {
    let firewall = loader.dry_run(false).load().expect("load");
    firewall.apply(&policy(rules)).expect("apply");
    let entry = Entry::of(&firewall);
    (firewall, entry)
}

fn passes(entry: &Entry, frame: &[u8]) -> bool {
    entry.receive(frame) == Verdict::Pass
}

/// How many of `count` frames pass.
fn passed(entry: &Entry, frame: &[u8], count: u64) -> u64 {
    (0..count).filter(|_| passes(entry, frame)).count() as u64
}

/// Offers frames at a rate, spread over CPUs; returns how many were offered and passed, and the
/// seconds until the last.
fn offer(entry: &Entry, cpus: usize, per_second: f64, time: Duration) -> (u64, u64, f64) {
    let (offered, passed) = (AtomicU64::new(0), AtomicU64::new(0));
    let last = AtomicU64::new(0);
    let frame = udp_from("192.0.2.1");
    let started = Instant::now();
    on_cpus(cpus, |_| {
        let start = Instant::now();
        let (mut sent, mut through, mut end) = (0u64, 0u64, 0);
        loop {
            let elapsed = start.elapsed();
            if elapsed >= time {
                break;
            }
            // What is due by now: a thread that had to wait makes up for it.
            let due = (elapsed.as_secs_f64() * per_second / cpus as f64) as u64;
            if sent >= due {
                thread::sleep(Duration::from_micros(100));
                continue;
            }
            through += u64::from(passes(entry, &frame));
            sent += 1;
            end = started.elapsed().as_nanos() as u64;
        }
        offered.fetch_add(sent, Ordering::Relaxed);
        passed.fetch_add(through, Ordering::Relaxed);
        last.fetch_max(end, Ordering::Relaxed);
    });
    let elapsed = last.into_inner() as f64 / 1e9;
    (offered.into_inner(), passed.into_inner(), elapsed)
}

/// Spends what a budget holds.
fn drain(entry: &Entry) {
    let frame = udp_from("192.0.2.1");
    while passes(entry, &frame) {}
}

#[test]
fn r17_what_passes_is_the_limit() {
    if skipped() {
        return;
    }
    let rate = if in_guest() { 200 } else { 2_000 };
    let all = cpus();
    let mut points: Vec<(usize, f64, u64)> = Vec::new();
    for cpus in [1, 2, all] {
        for load in [0.5, 1.1, 2.0, 50.0] {
            // In a guest each point keeps its one host thread busy.
            let is_left_out = in_guest() && (cpus == 1) != (load < 1.0);
            if !is_left_out && cpus <= all && !points.iter().any(|p| (p.0, p.1) == (cpus, load)) {
                points.push((cpus, load, 2));
            }
        }
    }
    points.push((all, 2.0, if in_guest() { 4 } else { 10 }));
    // A guest's processor may stand still for longer than the burst lasts.
    let least = if in_guest() { 0.2 } else { 0.95 };
    // By the rule's budget, and by the one of the one source.
    for (per, points) in [
        ("rule", &points[..]),
        ("source", &points[points.len() - 3..]),
    ] {
        let rules = limit(
            "limit",
            &format!("packets_per_second: {rate}, burst: {rate}, per: {per}"),
        );
        let (firewall, entry) = loaded(Firewall::loader(), &rules);
        for (cpus, load, seconds) in points.iter().copied() {
            drain(&entry);
            let per_second = f64::from(rate) * load;
            let (offered, passed, elapsed) =
                offer(&entry, cpus, per_second, Duration::from_secs(seconds));
            let allowed = f64::from(rate) * elapsed;
            let ratio = passed as f64 / allowed.min(offered as f64);
            println!(
                "per {per}, {cpus} CPUs, {load} x for {elapsed:.1} s: {offered} offered, {passed} passed, {ratio:.4}"
            );
            assert!((least..=1.05).contains(&ratio), "{ratio}");
        }
        let stats = firewall.stats();
        let [rule] = &stats.rules[..] else { panic!() };
        let counts = &stats.other;
        let over = counts.get(Reason::RateLimit, Disposition::Dropped);
        assert_eq!(rule.dropped, over.packets, "each in one counter");
        assert_eq!(rule.matched, counts.total());
        assert_eq!(
            counts.get(Reason::Rule, Disposition::Passed).packets + over.packets,
            rule.matched.packets
        );
    }
}

#[test]
fn r18_after_idling_a_burst_passes_exactly() {
    if skipped() {
        return;
    }
    let frame = udp_from("192.0.2.1");
    for per in ["rule", "source"] {
        for cpus in [1, cpus()] {
            let action = format!("packets_per_second: 20, burst: 10, per: {per}");
            let (_firewall, entry) = loaded(Firewall::loader(), &limit("limit", &action));
            let mut exact = 0;
            for round in 0..12 {
                let (through, longest) = (AtomicU64::new(0), AtomicU64::new(0));
                on_cpus(cpus, |_| {
                    let start = Instant::now();
                    through.fetch_add(passed(&entry, &frame, 200), Ordering::Relaxed);
                    longest.fetch_max(start.elapsed().as_micros() as u64, Ordering::Relaxed);
                });
                let elapsed = longest.into_inner() as f64 / 1e6 + TICK;
                let through = through.into_inner();
                // Two threads that begin at one moment may be a little apart: twice the time.
                let earned = (2.0 * elapsed * 20.0) as u64;
                exact += u64::from(earned == 0);
                assert!(
                    (10..=10 + earned).contains(&through),
                    "per {per}, {cpus} CPUs, round {round}: {through} passed in {elapsed} s"
                );
                thread::sleep(Duration::from_millis(10 * 1000 / 20 + 30));
            }
            println!("per {per}, {cpus} CPUs: the burst and not one more, {exact} of 12 rounds");
            assert!(exact > 0 || in_guest(), "too slow to see anything");
        }
    }
}

/// A source that is seen for the first time on all CPUs at one moment gets one place, not one on each.
#[test]
fn r18_a_new_source_has_one_budget() {
    if skipped() {
        return;
    }
    const SOURCES: u32 = 10_000;
    // So many places that no two of them find none: those would share a budget.
    let (firewall, entry) = loaded(
        Firewall::loader().max_rate_sources(1 << 20),
        &limit("limit", "packets_per_second: 1, burst: 2, per: source"),
    );
    let through: Vec<AtomicU64> = (0..SOURCES).map(|_| AtomicU64::new(0)).collect();
    let arrived: Vec<AtomicUsize> = (0..SOURCES).map(|_| AtomicUsize::new(0)).collect();
    let started = Instant::now();
    let all = cpus();
    on_cpus(all, |_| {
        for source in 0..SOURCES {
            let address = Ipv4Addr::from(0x0a00_0000 + source);
            let frame = udp_from(&address.to_string());
            let place = source as usize;
            arrived[place].fetch_add(1, Ordering::AcqRel);
            while arrived[place].load(Ordering::Acquire) < all {
                std::hint::spin_loop();
            }
            through[place].fetch_add(passed(&entry, &frame, 3), Ordering::Relaxed);
        }
    });
    let elapsed = started.elapsed();
    let wrong = through.iter().filter(|n| n.load(Ordering::Relaxed) != 2);
    let wrong = wrong.count();
    println!("{wrong} of {SOURCES} sources on {all} CPUs in {elapsed:.1?}");
    assert_eq!(firewall.stats().rules[0].rate_overflow, 0);
    assert_eq!(wrong, 0);
}

/// A burst of one packet: ticks would be too coarse. The oracle hears of the same frames.
#[test]
fn r17_a_burst_of_one_is_measured_by_the_exact_clock() {
    if skipped() {
        return;
    }
    let rules = limit("limit", "packets_per_second: 3000, burst: 1");
    let (_firewall, entry) = loaded(Firewall::loader(), &rules);
    let frame = udp_from("192.0.2.1");
    let policy = policy(&rules);
    let mut oracle = xdpgate::oracle::Oracle::new(&policy);
    let (start, mut kernel, mut model) = (Instant::now(), 0u64, 0u64);
    while start.elapsed() < Duration::from_secs(1) {
        let at = jiff::Timestamp::from_nanosecond(start.elapsed().as_nanos() as i128).unwrap();
        model += u64::from(oracle.evaluate(&frame, at, None).verdict == Verdict::Pass);
        kernel += u64::from(passes(&entry, &frame));
    }
    println!("kernel {kernel}, oracle {model} of the 3000 of a second");
    assert!(kernel.abs_diff(model) <= 2 + model / 20);
    assert!(kernel <= 3001 * 101 / 100);
}

#[test]
fn r19_sources_without_room_share_one_budget() {
    if skipped() {
        return;
    }
    let burst = 4;
    let (sources, room) = if in_guest() { (300, 30) } else { (3000, 300) };
    let rules = limit("limit", "packets_per_second: 1, burst: 4, per: source");
    let (firewall, entry) = loaded(Firewall::loader().max_rate_sources(room), &rules);
    let source = |n: u32| {
        addressed(
            IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + n)),
            "198.51.100.1".parse().unwrap(),
        )
        .udp(1, 2)
        .build()
    };
    let start = Instant::now();
    // One that is there before the flood, with half of its budget: full again in two seconds.
    let (mut quiet, mut held) = (passed(&entry, &source(0), 2), false);
    let mut through = 0;
    for round in 0..6 {
        for n in 1..=sources {
            through += u64::from(passes(&entry, &source(n)));
        }
        if round == 0 {
            quiet += passed(&entry, &source(0), 2);
            held = start.elapsed() < Duration::from_secs(2);
        }
    }
    let elapsed = start.elapsed().as_secs_f64() + TICK;
    let overflow = firewall.stats().rules[0].rate_overflow;
    println!(
        "{sources} sources, room for {room}: {through} passed in {elapsed:.2} s, {overflow} packets overflowed"
    );
    assert!(held || in_guest(), "too slow to see anything");
    assert!(
        quiet == burst || !held,
        "a source that has its place keeps it"
    );
    // A budget for each place and the shared one, and what they earn.
    let most = f64::from(room + 1) * (burst as f64 + elapsed);
    assert!((through as f64) <= most, "{through} of at most {most}");
    assert!(overflow > 0);
    // In time they become full, and their places free.
    if !in_guest() {
        assert!(through >= 250 * burst, "{through}: the room was used");
        assert!(overflow >= u64::from(sources) * 3, "{overflow}");
        thread::sleep(Duration::from_millis(4200));
        let before = firewall.stats().rules[0].rate_overflow;
        assert_eq!(
            (1..=150)
                .filter(|n| passes(&entry, &source(sources + n)))
                .count(),
            150
        );
        assert!(firewall.stats().rules[0].rate_overflow - before <= 3);
    }
}

#[test]
fn r16_a_monitored_limit_counts_what_it_would_drop() {
    if skipped() {
        return;
    }
    let limit = |id: &str, per: &str, mode: &str| {
        format!(
            "  - {{ id: {id}, mode: {mode}, action: {{ rate_limit: {{ packets_per_second: 1, burst: 10, per: {per} }} }} }}\n"
        )
    };
    // Two that only say what they would do, each with its budget, and one behind them that does it.
    let rules = [
        limit("rule", "rule", "monitor"),
        limit("source", "source", "monitor"),
        limit("net", "source/24", "enforce"),
    ]
    .concat();
    let policy = policy(&rules);
    let (firewall, entry) = loaded(Firewall::loader(), &rules);
    let mut oracle = Oracle::new(&policy);
    let now = Timestamp::now();
    let frames = [
        ("192.0.2.1", 15),
        ("192.0.2.2", 8),
        ("2001:db8::1", 12),
        ("198.51.100.9", 3),
    ];
    let mut through = 0;
    for (src, count) in frames {
        let frame = udp_from(src);
        // Looking spends nothing.
        assert_eq!(firewall.evaluate(&frame).unwrap().monitored.len(), 2);
        through += passed(&entry, &frame, count);
        for _ in 0..count {
            oracle.evaluate(&frame, now, None);
        }
    }
    let stats = firewall.stats();
    let want: Vec<_> = oracle.hits().map(|(_, hits)| hits).collect();
    for (rule, want) in stats.rules.iter().zip(&want) {
        let got = (rule.matched.packets, rule.would_drop);
        assert_eq!(got, (want.packets, want.would_drop), "{}", rule.id);
    }
    assert_eq!(stats.rules[0].would_drop, 28, "of 38, one budget of 10");
    assert_eq!(stats.rules[1].would_drop, 5 + 2, "each source has 10");
    assert_eq!(stats.rules[2].matched.packets, 38, "evaluation went on");
    assert_eq!(through, 10 + 10 + 3, "by the one that is in force");
    assert_eq!(stats.rules[2].dropped, 38 - through);
}

#[test]
fn r105_a_noisy_source_is_limited_and_a_quiet_one_is_not() {
    if skipped() {
        return;
    }
    // Frames of 82 bytes or 656 bits; a burst is 10 of them.
    let v4 = |third: u32, last: u32| udp_from(&format!("192.0.{third}.{last}"));
    let v6 = |net: u32, host: u32| {
        ip(&format!("2001:db8:0:{net}::{host}"), "2001:db8:ffff::1")
            .udp(1, 2)
            .payload(&[0; 20])
            .build()
    };
    assert_eq!((v4(2, 1).len(), v6(1, 1).len()), (82, 82));
    let action = "bits_per_second: 65600, burst: 6560, per: { source: { v4: 24, v6: 64 } }";
    let (firewall, entry) = loaded(Firewall::loader(), &limit("limit", action));
    let start = Instant::now();
    let (mut noisy, mut quiet) = ([0u64; 2], 0u64);
    for round in 0..20 {
        for host in 1..=50 {
            noisy[0] += u64::from(passes(&entry, &v4(2, host)));
            noisy[1] += u64::from(passes(&entry, &v6(1, host)));
        }
        // Neighbours: the next /24, the next /64. Half of their burst.
        if round % 4 == 0 {
            quiet += u64::from(passes(&entry, &v4(3, round)));
            quiet += u64::from(passes(&entry, &v6(2, round)));
        }
    }
    let elapsed = start.elapsed().as_secs_f64() + TICK;
    println!("noisy {noisy:?}, quiet {quiet} of 10, in {elapsed:.3} s");
    assert_eq!(quiet, 10, "a quiet one loses nothing");
    for noisy in noisy {
        assert!(
            (10..=10 + (elapsed * 100.0) as u64).contains(&noisy),
            "{noisy}"
        );
    }
    assert_eq!(firewall.stats().rules[0].rate_overflow, 0);
    // 0.0.0.0/24 and ::/64 are two budgets.
    drain(&entry);
    let zero = [ip("0.0.0.1", "198.51.100.1"), ip("::1", "2001:db8::1")];
    for frame in zero {
        let frame = frame.udp(1, 2).payload(&[0; 20]).build();
        assert_eq!(passed(&entry, &frame, 10), 10);
    }
}

#[test]
fn a_frame_that_is_larger_than_the_burst_never_passes_and_spends_nothing() {
    if skipped() {
        return;
    }
    let (_firewall, entry) = loaded(
        Firewall::loader(),
        &limit("limit", "bits_per_second: 1, burst: 800"),
    );
    let of = |bytes: usize| {
        ip("192.0.2.1", "198.51.100.1")
            .udp(1, 2)
            .payload(&vec![0; bytes - 42])
            .build()
    };
    assert!(!passes(&entry, &of(101)));
    assert!(passes(&entry, &of(100)));
    assert!(!passes(&entry, &of(60)));
}

/// Room for two rules, of which `gone` makes place for a new one.
#[test]
fn budgets_outlive_policies_with_their_rules() {
    if skipped() {
        return;
    }
    let slow = "packets_per_second: 1, burst: 40";
    for per in ["", ", per: source"] {
        let slow = format!("{slow}{per}");
        let (firewall, entry) = loaded(Firewall::loader().max_rules(2), &limit("kept", &slow));
        let frame = udp_from("192.0.2.1");
        let apply = |rules: &str| firewall.apply(&policy(rules)).expect("apply");
        let start = Instant::now();
        assert!(passed(&entry, &frame, 60) >= 40);
        for rules in [
            format!(
                "{}  - {{ id: other, action: drop }}\n",
                limit("kept", &slow)
            ),
            limit("kept", &slow),
        ] {
            apply(&rules);
            let most = start.elapsed().as_secs_f64() + 1.0;
            assert!(
                passed(&entry, &frame, 60) as f64 <= most,
                "applying refills nothing"
            );
        }
        // The same rule with another limit: nothing of the old debt.
        apply(&limit(
            "kept",
            &format!("packets_per_second: 10, burst: 5{per}"),
        ));
        let through = passed(&entry, &frame, 20);
        assert!((5..=8).contains(&through), "{through}");
        drain(&entry);
        // New rules take the slots of those that are gone, and find them full.
        for turn in 0..4 {
            apply(&limit(&format!("turn-{turn}"), &slow));
            let through = passed(&entry, &frame, 60);
            assert!((40..=43).contains(&through), "turn {turn}: {through}");
            assert_eq!(firewall.stats().rules[0].matched.packets, 60);
        }
    }
}

#[test]
fn evaluating_only_looks() {
    if skipped() {
        return;
    }
    for per in ["rule", "source"] {
        let action = format!("packets_per_second: 1, burst: 3, per: {per}");
        let (firewall, entry) = loaded(Firewall::loader(), &limit("limit", &action));
        let frame = udp_from("192.0.2.1");
        let says = || {
            let said = firewall.evaluate(&frame).unwrap();
            (said.verdict, said.reason)
        };
        for _ in 0..10 {
            assert_eq!(says(), (Verdict::Pass, Reason::Rule));
        }
        let start = Instant::now();
        assert!(passed(&entry, &frame, 10) >= 3);
        let said = says();
        if start.elapsed() < Duration::from_millis(900) {
            assert_eq!(said, (Verdict::Drop, Reason::RateLimit));
        }
        assert_eq!(firewall.stats().rules[0].matched.packets, 10);
    }
}

#[test]
fn r07_r15_r16_limits_beside_other_rules() {
    if skipped() {
        return;
    }
    let rules = "
  - { id: net16, match: { src: 10.1.0.0/16 }, action: drop }
  - { id: net8, match: { src: 10.0.0.0/8 }, action: { rate_limit: { packets_per_second: 1, burst: 50 } } }
  - { id: ack, match: { dst: 198.51.100.9, protocol: tcp, tcp_flags: 'ACK,!SYN' }, action: drop }
  - { id: syn, match: { dst: 198.51.100.9, protocol: tcp, tcp_flags: 'SYN,!ACK' }, action: { rate_limit: { packets_per_second: 1, burst: 20 } } }
";
    let (firewall, entry) = loaded(Firewall::loader(), rules);
    let from = |src| ip(src, "198.51.100.1").udp(1, 2).build();
    let tcp = |flags| {
        ip("192.0.2.1", "198.51.100.9")
            .tcp(1, 80)
            .flags(flags)
            .build()
    };
    let start = Instant::now();
    let counts = [
        from("10.1.2.3"),
        from("10.2.2.3"),
        tcp(ACK),
        tcp(SYN),
        from("192.0.2.1"),
    ]
    .map(|frame| passed(&entry, &frame, 100));
    let earned = (start.elapsed().as_secs_f64() + TICK) as u64;
    assert_eq!((counts[0], counts[2], counts[4]), (0, 0, 100));
    assert!((50..=50 + earned).contains(&counts[1]), "{counts:?}");
    assert!((20..=20 + earned).contains(&counts[3]), "{counts:?}");
    let stats = firewall.stats();
    for (rule, passed) in stats.rules.iter().zip(counts) {
        let RuleStats {
            matched, dropped, ..
        } = rule;
        assert_eq!(
            (matched.packets, *dropped),
            (100, 100 - passed),
            "{}",
            rule.id
        );
    }
    let over = stats
        .other
        .get(Reason::RateLimit, Disposition::Dropped)
        .packets;
    assert_eq!(over, 200 - counts[1] - counts[3]);
    // In a dry run the budgets are spent likewise, but nothing is dropped.
    firewall.set_dry_run(true);
    assert_eq!(passed(&entry, &from("10.2.2.3"), 10), 10);
    let would = firewall
        .stats()
        .other
        .get(Reason::RateLimit, Disposition::WouldDrop)
        .packets;
    assert!(would >= 9, "{would}");
}
