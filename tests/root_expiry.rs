//! Rules and entries of sets that expire do so in the kernel, on time, while user space sleeps.
#![cfg(feature = "kernel")]

mod common;

use std::net::{IpAddr, Ipv4Addr};
use std::thread::sleep;
use std::time::Duration;

use common::live::{Entry, in_guest};
use common::netns::skipped;
use common::packet::ip;
use jiff::{SignedDuration, Timestamp};
use xdpgate::compile::ROWS_UP_TO;
use xdpgate::oracle::Oracle;
use xdpgate::policy::{
    Action, AddressItem, AddressMatch, AddressSet, Policy, Prefix, Rule, RuleId, SetName,
};
use xdpgate::{Firewall, Verdict};

/// What has expired is gone this soon.
const LATEST: Duration = Duration::from_secs(1);

/// The kernel counts time in ticks, of 10 ms at most; and this test may be held up.
const TICK: SignedDuration = SignedDuration::from_millis(20);

/// How much slower than usual a test goes to work before it fails: others use this machine, too.
const PACES: [i32; 3] = [1, 4, 16];

/// The time to load programs before the first expiry comes.
fn lead() -> SignedDuration {
    SignedDuration::from_secs(if in_guest() { 15 } else { 3 })
}

/// Tries at one pace after the other, until one was not held up.
fn at_some_pace(attempt: impl Fn(i32) -> Result<(), HeldUp>) {
    assert!(
        PACES.into_iter().any(|pace| attempt(pace).is_ok()),
        "this machine is too slow"
    );
}

/// The moment came before the work that was to be done until then.
#[derive(Debug)]
struct HeldUp;

/// What was found counts if it was found before the moment.
fn in_time(found: Result<(), String>, moment: Timestamp) -> Result<(), HeldUp> {
    if Timestamp::now() >= moment {
        return Err(HeldUp);
    }
    found.unwrap_or_else(|difference| panic!("{difference}"));
    Ok(())
}

/// Rules of every shape. `MOMENT_1`, `MOMENT_2`, `MOMENT_3` stand for three moments, in this order.
const POLICY: &str = "
version: 1
failsafe: none
sets:
  soon:
    entries:
      - { entry: 10.3.4.5, expires: MOMENT_1 }
      - { entry: 10.3.0.0/16, expires: MOMENT_1 }
      - { entry: '2001:db8:3::5', expires: MOMENT_1 }
      - { entry: '2001:db8:4::/48', expires: MOMENT_1 }
      - 10.9.0.1
  inner: { entries: [ { entry: 10.7.7.7, expires: MOMENT_3 } ] }
  middle: { entries: [ { entry: 10.7.7.0/24, expires: MOMENT_1 }, { entry: 10.7.8.0/24, expires: MOMENT_2 } ] }
  outer: { entries: [ { entry: 10.7.0.0/16, expires: MOMENT_2 } ] }
rules:
  - { id: address, match: { src: 10.1.0.1 }, action: drop, expires: MOMENT_1 }
  - { id: prefix6, match: { dst: '2001:db8:1::/48' }, action: drop, expires: MOMENT_1 }
  - { id: behind, match: { src: 10.1.0.0/24 }, action: drop, expires: MOMENT_2 }
  - { id: many-fields, match: { src: 10.2.0.0/16, dst: 198.51.100.0/24, protocol: udp, dport: 1000-2000 }, action: drop, expires: MOMENT_1 }
  - { id: five-tuple, match: { src: 10.5.0.1, dst: 198.51.100.1, protocol: udp, sport: 7, dport: 9 }, action: drop, expires: MOMENT_2 }
  - { id: ports, match: { protocol: udp, dport: 5353 }, action: drop, expires: MOMENT_1 }
  - { id: watch, match: { src: 10.6.0.1 }, action: drop, mode: monitor, expires: MOMENT_1 }
  - { id: set-and-port, match: { src: '@soon', protocol: udp, dport: 4000 }, action: pass }
  - { id: set, match: { src: '@soon' }, action: drop }
  - { id: not-in-set, match: { src: { not: '@soon' }, dst: 198.51.100.77, protocol: udp }, action: drop }
  - { id: middle, match: { src: '@middle' }, action: drop }
  - { id: inner, match: { src: '@inner' }, action: pass }
  - { id: outer, match: { src: '@outer' }, action: drop }
";

/// Frames, and the rules that decide on them before the first moment, after it, after the second
/// and after the third.
type Case = (Vec<u8>, [Option<&'static str>; 4]);

fn cases() -> Vec<Case> {
    let udp = |src: &str, dport: u16| {
        let dst = if src.contains(':') {
            "2001:db8:ff::1"
        } else {
            "198.51.100.1"
        };
        ip(src, dst).udp(7, dport).build()
    };
    let to = |src: &str, dst: &str| ip(src, dst).udp(7, 9).build();
    vec![
        (
            udp("10.1.0.1", 9),
            [Some("address"), Some("behind"), None, None],
        ),
        (
            udp("10.1.0.2", 9),
            [Some("behind"), Some("behind"), None, None],
        ),
        (
            to("2001:db8::9", "2001:db8:1::9"),
            [Some("prefix6"), None, None, None],
        ),
        (
            udp("10.2.3.4", 1500),
            [Some("many-fields"), None, None, None],
        ),
        (udp("10.2.3.4", 2001), [None; 4]),
        (
            udp("10.5.0.1", 9),
            [Some("five-tuple"), Some("five-tuple"), None, None],
        ),
        (udp("192.0.2.1", 5353), [Some("ports"), None, None, None]),
        (udp("10.6.0.1", 9), [None; 4]),
        (udp("10.3.4.5", 9), [Some("set"), None, None, None]),
        (
            udp("10.3.4.5", 4000),
            [Some("set-and-port"), None, None, None],
        ),
        (udp("10.3.9.9", 9), [Some("set"), None, None, None]),
        (udp("10.9.0.1", 9), [Some("set"); 4]),
        (udp("2001:db8:3::5", 9), [Some("set"), None, None, None]),
        (udp("2001:db8:4::77", 9), [Some("set"), None, None, None]),
        (
            to("10.3.4.5", "198.51.100.77"),
            [
                Some("set"),
                Some("not-in-set"),
                Some("not-in-set"),
                Some("not-in-set"),
            ],
        ),
        (
            udp("10.7.7.7", 9),
            [Some("middle"), Some("inner"), Some("inner"), None],
        ),
        (
            udp("10.7.7.8", 9),
            [Some("middle"), Some("outer"), None, None],
        ),
        (
            udp("10.7.8.8", 9),
            [Some("middle"), Some("middle"), None, None],
        ),
        (
            udp("10.7.9.9", 9),
            [Some("outer"), Some("outer"), None, None],
        ),
    ]
}

/// The policy, without what only counts if every rule is to decide.
fn rules(every_one_decides: bool) -> String {
    let lines = POLICY.lines();
    let kept = lines.filter(|line| !(every_one_decides && line.contains("mode: monitor")));
    kept.map(|line| format!("{line}\n")).collect()
}

fn sleep_until(moment: Timestamp) {
    let left = moment.duration_since(Timestamp::now());
    sleep(left.max(SignedDuration::ZERO).unsigned_abs());
}

/// Judges all cases just before every moment and a second after it, and sleeps in between. Flows are
/// remembered only where every rule decides.
fn on_time(rows_up_to: usize, remembers_flows: bool) {
    if skipped() {
        return;
    }
    at_some_pace(|pace| on_time_at(pace, rows_up_to, remembers_flows));
}

fn on_time_at(pace: i32, rows_up_to: usize, remembers_flows: bool) -> Result<(), HeldUp> {
    let loader = Firewall::loader().dry_run(false).rows_up_to(rows_up_to);
    let firewall = loader.load().expect("load");
    let entry = Entry::of(&firewall);
    let start = Timestamp::now();
    let moments = [0i64, 2, 4].map(|s| start + (lead() + SignedDuration::from_secs(s)) * pace);
    let text = ["MOMENT_1", "MOMENT_2", "MOMENT_3"]
        .iter()
        .zip(&moments)
        .fold(rules(remembers_flows), |text, (name, at)| {
            text.replace(name, &format!("{at:.9}"))
        });
    let policy = Policy::from_yaml(&text).unwrap_or_else(|e| panic!("{e}"));
    firewall.apply(&policy).expect("apply");
    let mut oracle = Oracle::new(&policy);
    let cases = cases();
    let mut judge_all = |phase: usize, at: Timestamp| -> Result<(), String> {
        for (frame, rules) in &cases {
            let got = firewall.evaluate(frame).expect("evaluate");
            let want = oracle.evaluate(frame, at, None);
            if got != want || got.rule.as_ref().map(RuleId::as_str) != rules[phase] {
                return Err(format!(
                    "phase {phase}: kernel {got:?}, oracle {want:?}, to be {:?}: {frame:02x?}",
                    rules[phase]
                ));
            }
            let received = entry.receive(frame);
            if received != got.verdict {
                return Err(format!(
                    "phase {phase}: {received:?}, {got:?}: {frame:02x?}"
                ));
            }
        }
        Ok(())
    };
    in_time(judge_all(0, start), moments[0])?;
    for (phase, moment) in moments.into_iter().enumerate() {
        sleep_until(moment - SignedDuration::from_millis(400) * pace);
        in_time(judge_all(phase, Timestamp::now()), moment)?;
        sleep_until(moment + LATEST);
        let next = moments.get(phase + 1).copied();
        in_time(
            judge_all(phase + 1, moment + LATEST),
            next.unwrap_or(Timestamp::MAX),
        )?;
    }
    Ok(())
}

#[test]
fn r77_r104_rules_and_entries_expire_in_rows() {
    on_time(ROWS_UP_TO, false);
}

#[test]
fn r77_r104_rules_and_entries_expire_for_known_flows() {
    on_time(ROWS_UP_TO, true);
    on_time(0, true);
}

#[test]
fn r77_r104_rules_and_entries_expire_in_pairs() {
    on_time(0, false);
}

#[test]
fn r77_expiry_comes_with_its_tick() {
    if skipped() {
        return;
    }
    let firewall = Firewall::loader().dry_run(false).load().expect("load");
    let frame = ip("10.1.0.1", "198.51.100.1").udp(7, 9).build();
    let mut evaluations = 0;
    // At moments that lie anywhere between two ticks.
    for round in 0..if in_guest() { 8 } else { 30 } {
        let lead = if in_guest() { 1500 } else { 150 };
        let expires = Timestamp::now() + SignedDuration::from_micros(lead * 1000 + round * 131);
        let text = format!(
            "{{ version: 1, rules: [ {{ id: r, match: {{ src: 10.1.0.1 }}, action: drop, expires: {expires:.9} }} ] }}"
        );
        firewall.apply(&Policy::from_yaml(&text).unwrap()).unwrap();
        let gone = loop {
            let before = Timestamp::now();
            let verdict = firewall.evaluate(&frame).unwrap().verdict;
            evaluations += 1;
            if verdict == Verdict::Pass {
                break before..Timestamp::now();
            }
            // It was there at some time after `before`.
            assert!(
                before < expires + TICK.max(SignedDuration::from_secs(1)),
                "it is too late"
            );
        };
        assert!(
            gone.end >= expires,
            "too early: {gone:?}, it was to be {expires}"
        );
        println!(
            "expired {:?} after its time, at most",
            gone.end.duration_since(expires)
        );
    }
    println!("{evaluations} evaluations");
}

#[test]
fn r104_what_has_expired_is_not_in_the_next_image() {
    if skipped() {
        return;
    }
    at_some_pace(not_in_the_next_image);
}

fn not_in_the_next_image(pace: i32) -> Result<(), HeldUp> {
    let set = SetName::new("bans").unwrap();
    let host = |i: u32| IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 | i));
    let expires = Timestamp::now() + lead() * pace;
    let all = || (0..2000).map(|i| (Prefix::host(host(i)), (i % 2 == 1).then_some(expires)));
    let policy = |entries: AddressSet| {
        let mut rule = Rule::new(RuleId::new("ban").unwrap(), 1, Action::Drop);
        rule.matches.src = Some(AddressMatch {
            negated: false,
            items: vec![AddressItem::Set(set.clone())],
        });
        Policy::builder()
            .set(set.clone(), entries)
            .rule(rule)
            .build()
            .unwrap()
    };
    let with = policy(AddressSet::from_entries(all()));
    let without = policy(AddressSet::from_entries(
        all().filter(|(_, at)| at.is_none()),
    ));

    let firewall = Firewall::loader().dry_run(false).load().expect("load");
    let drops = |i: u32| {
        let frame = ip(&host(i).to_string(), "198.51.100.1").udp(7, 9).build();
        firewall.evaluate(&frame).unwrap().verdict == Verdict::Drop
    };
    let before = firewall.apply(&with).unwrap().image_bytes;
    let dropped = (drops(0) && drops(1)).then_some(());
    in_time(dropped.ok_or_else(|| "not dropped".to_owned()), expires)?;
    sleep_until(expires + LATEST);
    assert!(drops(0) && !drops(1));
    let after = firewall.apply(&with).unwrap().image_bytes;
    assert!(drops(0) && !drops(1));
    let smallest = firewall.apply(&without).unwrap().image_bytes;
    println!("{before} bytes, {after} after the expiry");
    assert!(after < before * 2 / 3, "{before} bytes, then {after}");
    assert_eq!(after, smallest, "as if they had never been there");
    Ok(())
}
