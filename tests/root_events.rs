//! Sampled drops: what they show, how many there are, and what becomes of the others.
#![cfg(feature = "kernel")]

#[allow(dead_code, unreachable_pub, reason = "shared with other tests")]
mod common {
    pub mod live;
    pub mod netns;
    pub mod packet;
}

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::live::{Entry, in_guest};
use common::netns::{self, Wire, index, veth, wait_until};
use common::packet::{ip, udp_from};
use jiff::Timestamp;
use xdpgate::packet::Parsed;
use xdpgate::policy::{Policy, RuleId};
use xdpgate::{
    Disposition, Event, EventOptions, EventStats, EventStream, Firewall, LoadError, ModePreference,
    NextError, Reason,
};

const BLOCK: &str = "
version: 1
failsafe: none
malformed: drop
rules:
  - { id: let-in, match: { src: 203.0.113.1 }, action: pass }
  - { id: block-v4, match: { src: 203.0.113.0/24 }, action: drop }
  - { id: block-v6, match: { src: '2001:db8:bad::/48' }, action: drop }
";

/// As much as can be asked for.
const FLOOD: u32 = 1_000_000;
/// How much of an event the data path copies.
const CAPTURED: usize = 128;

fn policy(text: &str) -> Policy {
    Policy::from_yaml(text).unwrap()
}

fn firewall(text: &str) -> Firewall {
    let firewall = Firewall::loader().dry_run(false).load().unwrap();
    firewall.apply(&policy(text)).unwrap();
    firewall
}

fn unbounded() -> EventOptions {
    EventOptions::default()
        .per_rule_per_second(FLOOD)
        .total_per_second(FLOOD)
}

/// The next event, which must come.
fn next(events: &mut EventStream) -> Event {
    events
        .next_timeout(Duration::from_secs(20))
        .expect("an event")
}

fn nothing_more(events: &mut EventStream) {
    let more = events.next_timeout(Duration::from_millis(200));
    assert_eq!(more, Err(NextError::Timeout));
}

/// All that was sent, but for `before` events that were collected already and what was lost here.
fn collect(firewall: &Firewall, events: &mut EventStream, before: usize) -> Vec<Event> {
    let mut all = Vec::new();
    wait_until("all events that were sent", || {
        while let Ok(event) = events.next_timeout(Duration::from_millis(1)) {
            all.push(event);
        }
        (before + all.len()) as u64 + events.lost() == firewall.event_stats().sent
    });
    all
}

fn id(name: &str) -> Option<RuleId> {
    Some(RuleId::new(name).unwrap())
}

/// A frame of this many bytes from a blocked source, each byte of the payload another.
fn frame(bytes: usize) -> Vec<u8> {
    let payload: Vec<u8> = (0..bytes - 42).map(|i| (i * 7 + bytes) as u8).collect();
    ip("203.0.113.9", "198.51.100.1")
        .udp(1000, 53)
        .payload(&payload)
        .build()
}

#[test]
fn r111_an_event_shows_the_frame_that_was_dropped() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        veth("a0", "b0");
        let firewall = firewall(BLOCK);
        let mut events = firewall.events(unbounded()).unwrap();
        firewall
            .attach(index("a0"), ModePreference::BestAvailable)
            .unwrap();
        let wire = Wire::open("b0");
        let v6 = ip("2001:db8:bad::7", "2001:db8::1")
            .tcp(40_000, 443)
            .build();
        let mut cut = frame(60);
        cut.truncate(20);
        let mut before = Timestamp::now();
        for (frame, rule, reason) in [
            (frame(60), id("block-v4"), Reason::Rule),
            (frame(1400), id("block-v4"), Reason::Rule),
            (v6, id("block-v6"), Reason::Rule),
            (cut, None, Reason::Malformed),
        ] {
            wire.send(&udp_from("203.0.113.1"));
            wire.send(&udp_from("192.0.2.1"));
            wire.send(&frame);
            let event = next(&mut events);
            assert_eq!(event.data, frame[..frame.len().min(CAPTURED)]);
            assert_eq!(event.length as usize, frame.len());
            assert_eq!(event.ifindex, index("a0"));
            assert_eq!(event.interface.as_deref(), Some("a0"));
            assert_eq!(event.queue, 0);
            assert_eq!(event.disposition, Disposition::Dropped);
            assert_eq!((event.reason, event.rule.clone()), (reason, rule));
            assert_eq!(event.generation, firewall.generation().unwrap());
            // The clocks of kernel and wall are not read at the same moment.
            let slack = jiff::SignedDuration::from_millis(1);
            let after = Timestamp::now();
            assert!(event.time >= before - slack, "{} {before}", event.time);
            assert!(event.time <= after + slack, "{} {after}", event.time);
            before = event.time;
            assert_eq!(event.packet(), Parsed::from_frame(&event.data));
        }
        nothing_more(&mut events);
        let tuple = Parsed::from_frame(&frame(1400)[..CAPTURED]);
        let Parsed::Ip(packet) = tuple else {
            panic!("{tuple:?}")
        };
        assert_eq!(packet.src.to_string(), "203.0.113.9");
        assert_eq!(
            packet.ports,
            Some((1000, 53)),
            "the beginning shows the tuple"
        );
    });
}

#[test]
fn r111_a_frame_of_any_length_is_told_byte_for_byte() {
    if netns::skipped() {
        return;
    }
    let firewall =
        firewall("version: 1\nfailsafe: none\ndefault: drop\nmalformed: drop\nrules: []\n");
    let entry = Entry::of(&firewall);
    let mut events = firewall.events(unbounded()).unwrap();
    let whole = frame(400);
    for length in 14..whole.len() {
        entry.receive(&whole[..length]);
        let event = next(&mut events);
        assert_eq!(event.length as usize, length);
        assert_eq!(event.data, whole[..length.min(CAPTURED)], "{length} bytes");
    }
    let all = whole.len() as u64 - 14;
    let stats = firewall.event_stats();
    assert_eq!((stats.sent, stats.suppressed, stats.lost), (all, 0, 0));
}

#[test]
fn r111_dry_run_tells_what_it_would_drop() {
    if netns::skipped() {
        return;
    }
    let firewall = firewall(BLOCK);
    let entry = Entry::of(&firewall);
    let mut events = firewall.events(EventOptions::default()).unwrap();
    for (dry_run, disposition) in [
        (true, Disposition::WouldDrop),
        (false, Disposition::Dropped),
    ] {
        firewall.set_dry_run(dry_run);
        entry.receive(&frame(60));
        assert_eq!(next(&mut events).disposition, disposition);
    }
}

#[test]
fn r111_nothing_is_sent_while_nobody_listens() {
    if netns::skipped() {
        return;
    }
    let firewall = firewall(BLOCK);
    let entry = Entry::of(&firewall);
    entry.flood(&frame(60), 1000);
    assert_eq!(firewall.event_stats(), EventStats::default());

    let mut events = firewall.events(unbounded()).unwrap();
    nothing_more(&mut events);
    entry.receive(&frame(61));
    assert_eq!(next(&mut events).length, 61);
    entry.flood(&frame(62), 10);
    drop(events);
    let stats = firewall.event_stats();
    entry.flood(&frame(60), 1000);
    assert_eq!(firewall.event_stats(), stats, "the last stream is gone");

    let mut events = firewall.events(unbounded()).unwrap();
    nothing_more(&mut events);
    entry.receive(&frame(63));
    assert_eq!(next(&mut events).length, 63, "and nothing from before");
}

/// A million drops, a tenth of it on a slow processor.
fn many() -> u32 {
    if in_guest() { 100_000 } else { 1_000_000 }
}

/// How many rules take turns.
const RULES: u32 = 40;

/// What a budget allows in a time: what was saved up, and what came by; a tick more at the edge.
fn allowed(per_second: u32, elapsed: Duration) -> f64 {
    f64::from(per_second) * (1.1 + elapsed.as_secs_f64())
}

#[test]
fn r111_budgets_hold_under_a_million_drops() {
    if netns::skipped() {
        return;
    }
    // A call that repeats a frame waits for grace periods, so there are not many of them.
    let rules: String = (0..RULES)
        .map(|n| format!("  - {{ id: r{n}, match: {{ src: 198.18.0.{n} }}, action: drop }}\n"))
        .collect();
    let firewall = firewall(&format!(
        "version: 1\nfailsafe: none\nmalformed: drop\nrules:\n{rules}"
    ));
    let entry = Entry::of(&firewall);
    let from = |n: u32| udp_from(&format!("198.18.0.{n}"));
    let (per_rule, total) = (10, 30);
    let options = EventOptions::default()
        .per_rule_per_second(per_rule)
        .total_per_second(total);
    let mut events = firewall.events(options).unwrap();

    // One rule alone, and a reason without a rule: the budget of each is the bound.
    let started = Instant::now();
    entry.flood(&from(7), many() / 2);
    entry.flood(&frame(60)[..20], many() / 2);
    let elapsed = started.elapsed();
    let both = collect(&firewall, &mut events, 0);
    let stats = firewall.event_stats();
    println!("{} of {} drops in {elapsed:?}", both.len(), many());
    let (one, malformed): (Vec<_>, Vec<_>) = both.iter().partition(|e| e.rule == id("r7"));
    assert!(malformed.iter().all(|e| e.reason == Reason::Malformed));
    assert!(malformed.len() as f64 <= allowed(per_rule, elapsed));
    assert!(malformed.len() as u32 >= per_rule, "{}", malformed.len());
    assert!(
        one.len() as f64 <= allowed(per_rule, elapsed),
        "{} in {elapsed:?}",
        one.len()
    );
    assert!(one.len() as u32 >= per_rule, "{}", one.len());
    assert_eq!(
        stats.sent + stats.suppressed + stats.lost,
        u64::from(many())
    );

    // All rules in turn: together they may not have what each may have.
    let started = Instant::now();
    for n in 0..RULES {
        entry.flood(&from(n), many() / RULES);
    }
    let elapsed = started.elapsed();
    let all = collect(&firewall, &mut events, both.len());
    let mut by_rule: HashMap<_, u32> = HashMap::new();
    for event in &all {
        *by_rule.entry(event.rule.clone()).or_default() += 1;
    }
    println!(
        "{RULES} rules: {} of {} drops in {elapsed:?}",
        all.len(),
        many()
    );
    assert!(
        all.len() as f64 <= allowed(total, elapsed),
        "{} in {elapsed:?}",
        all.len()
    );
    // What was saved up went to the first two.
    assert!((both.len() + all.len()) as u32 >= total, "{}", all.len());
    let most = by_rule.values().max().copied().unwrap_or(0);
    assert!(
        f64::from(most) <= allowed(per_rule, elapsed),
        "{most} of one rule"
    );
    let stats = firewall.event_stats();
    let (sum, drops) = (
        stats.sent + stats.suppressed + stats.lost,
        2 * u64::from(many()),
    );
    assert_eq!(sum, drops);
    assert_eq!(stats.lost, 0);
}

#[test]
fn r111_cpus_that_race_for_a_budget_overrun_it_by_little() {
    if netns::skipped() {
        return;
    }
    let firewall = firewall(BLOCK);
    let entry = Entry::of(&firewall);
    let per_rule = 100;
    let options = EventOptions::default().per_rule_per_second(per_rule);
    let mut events = firewall.events(options).unwrap();
    let cpus = thread::available_parallelism().unwrap().get() as u32;
    let threads = cpus.max(2);
    let each = many() / threads;
    let started = Instant::now();
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| entry.flood(&frame(60), each));
        }
    });
    let elapsed = started.elapsed();
    let got = collect(&firewall, &mut events, 0).len();
    println!("{threads} threads: {got} events, {per_rule}/s, in {elapsed:?}");
    // Each event that was due may have been sent by each CPU at once, at the very worst.
    assert!(got as f64 <= allowed(per_rule, elapsed) * f64::from(cpus));
    let stats = firewall.event_stats();
    let drops = u64::from(each) * u64::from(threads);
    assert_eq!(stats.sent + stats.suppressed + stats.lost, drops);
}

#[test]
fn r111_losses_are_counted_where_they_happen() {
    if netns::skipped() {
        return;
    }
    let loader = Firewall::loader().dry_run(false).event_buffer(4096);
    let firewall = loader.load().unwrap();
    firewall.apply(&policy(BLOCK)).unwrap();
    let entry = Entry::of(&firewall);
    let mut slow = firewall.events(unbounded().queue(16)).unwrap();
    entry.flood(&frame(60), many());
    let got = collect(&firewall, &mut slow, 0).len() as u64;
    let stats = firewall.event_stats();
    println!(
        "{stats:?}, got {got}, lost to a queue of 16: {}",
        slow.lost()
    );
    assert!(
        stats.lost > 0,
        "the buffer of one page holds 22 events: {stats:?}"
    );
    assert_eq!(
        stats.sent + stats.suppressed + stats.lost,
        u64::from(many())
    );
    assert_eq!(got + slow.lost(), stats.sent);

    // Room in the queue for all, and nobody reads: 16 stay.
    let lost = slow.lost();
    for _ in 0..100 {
        entry.receive(&frame(60));
        thread::sleep(Duration::from_millis(1));
    }
    wait_until("the queue to be full", || {
        slow.lost() - lost >= 100 - 16 - (firewall.event_stats().lost - stats.lost)
    });
    let mut waiting = 0;
    while slow.next_timeout(Duration::from_millis(50)).is_ok() {
        waiting += 1;
    }
    assert_eq!(waiting, 16);
}

#[test]
fn r111_a_rule_is_named_by_the_policy_that_judged_it() {
    if netns::skipped() {
        return;
    }
    // In each version another rule has the number 0, and slots are used again by other rules.
    let version = |n: u64| {
        policy(&format!(
            "version: 1\nfailsafe: none\nrules:\n  - {{ id: v{n}, match: {{ src: 203.0.113.0/24 }}, action: drop }}\n"
        ))
    };
    let loader = Firewall::loader().dry_run(false).max_rules(3);
    let firewall = loader.load().unwrap();
    firewall.apply(&version(1)).unwrap();
    let entry = Entry::of(&firewall);
    let mut events = firewall.events(unbounded().queue(1 << 20)).unwrap();
    let done = AtomicBool::new(false);
    let swaps = if in_guest() { 20 } else { 100 };
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                entry.receive(&frame(60));
                thread::sleep(Duration::from_micros(200));
            }
        });
        for n in 2..=swaps {
            firewall.apply(&version(n)).unwrap();
        }
        done.store(true, Ordering::SeqCst);
    });
    entry.receive(&frame(60));
    let all = collect(&firewall, &mut events, 0);
    for event in &all {
        assert_eq!(event.rule, id(&format!("v{}", event.generation)));
    }
    let mut generations: Vec<u64> = all.iter().map(|e| e.generation.get()).collect();
    generations.dedup();
    println!("{} events of {} generations", all.len(), generations.len());
    assert!(generations.is_sorted(), "one packet after the other");
    assert!(generations.len() > 10, "{generations:?}");
    assert_eq!(generations.last(), Some(&swaps));
}

#[test]
fn r111_every_stream_sees_every_event_until_the_firewall_is_gone() {
    if netns::skipped() {
        return;
    }
    let firewall = firewall(BLOCK);
    let entry = Entry::of(&firewall);
    let mut first = firewall.events(EventOptions::default().queue(1)).unwrap();
    let mut second = firewall.events(unbounded()).unwrap();
    for bytes in [60, 61, 62] {
        entry.receive(&frame(bytes));
    }
    assert_eq!([60, 61, 62], [(); 3].map(|()| next(&mut second).length));
    wait_until("two losses", || first.lost() == 2);
    assert_eq!(next(&mut first).length, 60);
    assert_eq!(second.lost(), 0, "a slow one costs the others nothing");

    drop(first);
    entry.receive(&frame(63));
    assert_eq!(next(&mut second).length, 63);
    entry.receive(&frame(64));
    wait_until("the event", || firewall.event_stats().sent == 5);
    // On a thread of its own, waiting.
    let waiting = thread::spawn(move || {
        let lengths: Vec<u32> = second.by_ref().map(|e| e.length).collect();
        (lengths, second.next_timeout(Duration::from_secs(1)))
    });
    thread::sleep(Duration::from_millis(50));
    drop(firewall);
    let (lengths, after) = waiting.join().unwrap();
    assert_eq!(lengths, [64]);
    assert_eq!(after, Err(NextError::Ended));
}

#[test]
fn a_buffer_that_the_kernel_would_refuse_is_refused_by_name() {
    if netns::skipped() {
        return;
    }
    for bytes in [0, 100, 4097, 3 << 20, 1 << 30] {
        let error = Firewall::loader().event_buffer(bytes).load().unwrap_err();
        assert!(
            matches!(
                error,
                LoadError::Limit {
                    knob: "event_buffer",
                    ..
                }
            ),
            "{error}"
        );
    }
}
