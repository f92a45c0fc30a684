//! Frames in several buffers: the `xdp.frags` form of the programs, on an interface and in test runs.
#![cfg(feature = "kernel")]

mod common;

use std::collections::BTreeMap;

use common::corpus::{self, Case};
use common::live::{Entry, in_guest};
use common::netns::{self, Wire, index, sh, skipped, veth, wait_until};
use common::packet::{Frame, SYN, ip};
use jiff::Timestamp;
use xdpgate::oracle::Oracle;
use xdpgate::policy::Policy;
use xdpgate::{
    AttachError, AttachMode, Count, Disposition, Firewall, Frags, LoadError, ModePreference,
    Reason, Stats, Verdict,
};

/// A firewall for frames in several buffers; says that the test is skipped if the kernel has none.
fn with_frags() -> Option<Firewall> {
    match Firewall::loader()
        .dry_run(false)
        .frags(Frags::Require)
        .load()
    {
        Ok(firewall) => Some(firewall),
        Err(LoadError::NoFrags) => {
            println!("skipped: xdp.frags needs 5.18");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn r30_the_form_is_chosen_by_probe() {
    if skipped() {
        return;
    }
    let form = |frags| {
        let firewall = Firewall::loader().frags(frags).load()?;
        firewall
            .apply(&Policy::from_yaml("version: 1\nrules: []\n").unwrap())
            .unwrap();
        Ok::<bool, LoadError>(firewall.program_info().frags)
    };
    assert!(!form(Frags::Off).unwrap());
    match form(Frags::Require) {
        Ok(frags) => {
            assert!(frags);
            assert!(form(Frags::Auto).unwrap());
        }
        Err(error) => {
            assert!(error.to_string().contains("Linux 5.18"), "{error}");
            assert!(!form(Frags::Auto).unwrap());
        }
    }
}

const MTU: usize = 9000;
const PORTS: &str = "
version: 1
failsafe: none
rules:
  - { id: block, match: { protocol: udp, dport: 5001 }, action: drop }
";

#[test]
fn r30_an_mtu_of_9000_in_native_mode() {
    if skipped() {
        return;
    }
    netns::run(|| {
        veth("a0", "b0");
        for name in ["a0", "b0"] {
            sh(&format!("ip link set {name} mtu {MTU}"));
        }
        let (a0, native) = (index("a0"), ModePreference::Exactly(AttachMode::Native));
        let base = Firewall::loader().frags(Frags::Off).load().unwrap();
        let refused = base.attach(a0, native).unwrap_err();
        assert!(
            matches!(refused, AttachError::ModeUnsupported { .. }),
            "{refused:?}"
        );

        let Some(firewall) = with_frags() else { return };
        firewall.apply(&Policy::from_yaml(PORTS).unwrap()).unwrap();
        let attachment = firewall.attach(a0, native).unwrap();
        assert_eq!(attachment.mode, AttachMode::Native);
        let (sender, receiver) = (Wire::open("b0"), Wire::open("a0"));
        let frame = |port: u16, number: u8| {
            ip("192.0.2.1", "198.51.100.1")
                .udp(4000, port)
                .payload(&[number; MTU - 28])
                .build()
        };
        let frames = 50;
        let mut arrived = Vec::new();
        for number in 0..frames {
            let (blocked, passed) = (frame(5001, number), frame(5002, number));
            assert_eq!(blocked.len(), MTU + 14);
            sender.send(&blocked);
            sender.send(&passed);
            wait_until("a frame of 9014 bytes", || {
                arrived.extend(receiver.receive());
                arrived.last() == Some(&passed)
            });
        }
        assert_eq!(
            arrived.len(),
            usize::from(frames),
            "and none that is blocked"
        );

        let whole = |packets: u64| Count {
            packets,
            bytes: packets * (MTU as u64 + 14),
        };
        let all = u64::from(frames);
        let stats = firewall.stats();
        assert_eq!(stats.rules[0].matched, whole(all));
        assert_eq!(stats.rules[0].dropped, all);
        let counts = &stats.interfaces[0].counts;
        assert_eq!(counts.get(Reason::Rule, Disposition::Dropped), whole(all));
        assert_eq!(counts.get(Reason::Default, Disposition::Passed), whole(all));
        assert_eq!(counts.total(), whole(2 * all));
    });
}

const FIELDS: &str = "
version: 1
default: drop
malformed: drop
rules:
  - { id: syn, match: { protocol: tcp, dport: 443, tcp_flags: 'SYN,!ACK' }, action: pass }
  - { id: port, match: { protocol: udp, dport: 443 }, action: drop }
  - { id: ping, match: { protocol: icmpv6, icmp: { type: 128, code: 0 } }, action: pass }
  - { id: bad, match: { anomaly: bad_fragment }, action: drop }
  - { id: later, match: { fragment: later }, action: pass }
  - { id: long, match: { length: 9000-65575, dscp: 0 }, action: pass }
  - { id: source, match: { src: [192.0.2.1, '2001:db8::1'] }, action: pass }
";

/// Frames longer than what the first buffer of a test run holds, some 3,500 bytes, with headers
/// before, behind and across its end.
fn long_frames() -> Vec<Vec<u8>> {
    let v6 = || ip("2001:db8::1", "2001:db8::2");
    let mut frames: Vec<Frame> = Vec::new();
    for payload in [3000, 3450, 3470, 3500, 4096, 8972, 30_000, 65_000] {
        let payload = vec![7; payload];
        for frame in [ip("192.0.2.1", "198.51.100.1"), v6()] {
            frames.push(frame.clone().tcp(1, 443).flags(SYN).payload(&payload));
            frames.push(frame.clone().udp(1, 443).payload(&payload));
            frames.push(frame.clone().udp(1, 2).payload(&payload));
            frames.push(frame.clone().tag(0x8100, 5).udp(1, 2).payload(&payload));
            // The packet ends long before the frame, or claims to end behind it.
            frames.push(frame.clone().udp(1, 2).padding(payload.len()));
            let claims = frame.udp(1, 2).payload(&payload).length(65_535);
            frames.push(claims);
        }
    }
    // Eight headers are the longest chain; these have 2,040 bytes each.
    for headers in 0..=9 {
        let chain = (0..headers).fold(v6(), |frame, _| frame.options_header(60, 255));
        frames.push(chain.clone().tcp(1, 443).flags(SYN));
        frames.push(chain.clone().icmp(128, 0));
        let fragment = chain.clone().fragment(0, true).udp(1, 443);
        frames.push(fragment.payload(&[0; 8]));
        frames.push(chain.fragment(100, false).udp(1, 443).payload(&[0; 8]));
    }
    // Each header at each place around the end of the first buffer, also cut off there.
    for units in 165..=190 {
        let chain = |frame: Frame| {
            frame
                .options_header(0, 255)
                .options_header(60, units)
                .options_header(60, 1)
        };
        let at_end = chain(v6()).tcp(1, 443).flags(SYN);
        let whole = at_end.build().len();
        frames.push(at_end.clone().payload(&[0; 600]));
        frames.push(chain(v6().tag(0x88a8, 1)).tcp(1, 443).payload(&[0; 600]));
        frames.push(chain(v6()).authentication(4).udp(1, 443).padding(600));
        // From an address that no rule passes, and as the first of two fragments.
        let other = chain(ip("2001:db8::9", "2001:db8::2")).tcp(1, 443);
        let first = chain(v6()).fragment(0, true).tcp(1, 443);
        for cut in [1, 7, 8, 13, 19, 20, 21, 28] {
            frames.push(other.clone().truncate(whole - cut));
            frames.push(first.clone().truncate(whole + 8 - cut));
        }
    }
    frames.iter().map(Frame::build).collect()
}

#[test]
fn r30_long_frames_are_judged_as_the_oracle_does() {
    if skipped() {
        return;
    }
    let Some(firewall) = with_frags() else { return };
    let policy = Policy::from_yaml(FIELDS).unwrap();
    firewall.apply(&policy).unwrap();
    let (entry, mut oracle) = (Entry::of(&firewall), Oracle::new(&policy));
    let mut decided = BTreeMap::new();
    for frame in long_frames() {
        let want = oracle.evaluate(&frame, Timestamp::UNIX_EPOCH, None);
        let got = firewall.evaluate(&frame).unwrap();
        assert_eq!(got, want, "{} bytes: {:02x?}", frame.len(), &frame[..80]);
        let before = firewall.stats();
        assert_eq!(entry.receive(&frame), want.verdict);
        assert_eq!(
            moved(&before, &firewall.stats()),
            frames_of(want.reason, want.verdict, frame.len(), 1)
        );
        let by = want
            .rule
            .map_or(want.reason.to_string(), |id| id.to_string());
        *decided.entry(by).or_insert(0) += 1;
    }
    println!("long frames: {decided:?}");
    // Whatever can decide did, so that no frame passes or drops for want of a parser.
    let deciders: Vec<&str> = decided.keys().map(String::as_str).collect();
    let all = [
        "bad",
        "later",
        "long",
        "malformed",
        "ping",
        "port",
        "source",
        "syn",
    ];
    assert_eq!(deciders, all);
}

/// Whether a case comes out the same however often its frame comes, and from anywhere.
fn is_judged_anew(case: &Case) -> bool {
    let spends = case.needs.iter().any(|need| need == "rate_limit");
    case.frame.len() > 14 && case.interface.is_none() && !spends
}

#[test]
fn r30_wherever_the_first_buffer_ends() {
    if skipped() {
        return;
    }
    let Some(firewall) = with_frags() else { return };
    let entry = Entry::of(&firewall);
    let mut by_policy: BTreeMap<_, Vec<Case>> = BTreeMap::new();
    for case in corpus::load() {
        let key = (case.policy.clone(), case.at);
        by_policy.entry(key).or_default().push(case);
    }
    let (mut frames, mut runs, mut least) = (0, 0, u32::MAX);
    let step = if in_guest() { 5 } else { 1 };
    for cases in by_policy.values().step_by(step) {
        firewall
            .apply(&cases[0].policy_as_of_now())
            .unwrap_or_else(|e| panic!("{}: {e}", cases[0].name));
        for case in cases.iter().filter(|c| is_judged_anew(c)) {
            let length = case.frame.len() as u32;
            frames += 1;
            // One snapshot for all forms of a frame, as each takes a grace period.
            let (before, mut forms) = (firewall.stats(), 0);
            for linear in (0..=128.min(length - 1)).step_by(if in_guest() { 7 } else { 1 }) {
                let Ok(verdict) = entry.receive_scattered(&case.frame, linear) else {
                    // Below the least that the kernel takes, or it takes none at all.
                    assert!(linear < least || least == u32::MAX, "{linear} bytes");
                    continue;
                };
                assert_eq!(verdict, case.verdict, "{}: {linear} bytes", case.name);
                least = least.min(linear);
                forms += 1;
            }
            runs += forms;
            let after = firewall.stats();
            let (want, mut rules) = match forms {
                0 => (Vec::new(), BTreeMap::new()),
                _ => (
                    frames_of(case.reason, case.verdict, case.frame.len(), forms),
                    case.hits.clone(),
                ),
            };
            rules.values_mut().for_each(|packets| *packets *= forms);
            assert_eq!(moved(&before, &after), want, "{}", case.name);
            assert_eq!(hits(&before, &after), rules, "{}", case.name);
        }
    }
    if runs == 0 {
        println!("skipped: this kernel takes no length of the first buffer in a test run");
        return;
    }
    println!("scattered: {frames} frames in {runs} forms, from {least} bytes in the first buffer");
    assert!(frames >= 250 / step, "only {frames} frames");
    assert!(least <= 14, "{least}");
}

/// The verdict counters that moved.
fn moved(before: &Stats, after: &Stats) -> Vec<(Reason, Disposition, Count)> {
    let since = |c: &xdpgate::VerdictCount| {
        let was = before.other.get(c.reason, c.disposition);
        let count = Count {
            packets: c.count.packets - was.packets,
            bytes: c.count.bytes - was.bytes,
        };
        (count.packets > 0).then_some((c.reason, c.disposition, count))
    };
    after.other.iter().filter_map(since).collect()
}

/// Frames of one length, counted with all their bytes.
fn frames_of(
    reason: Reason,
    verdict: Verdict,
    bytes: usize,
    packets: u64,
) -> Vec<(Reason, Disposition, Count)> {
    let disposition = match verdict {
        Verdict::Drop => Disposition::Dropped,
        Verdict::Pass => Disposition::Passed,
    };
    let count = Count {
        packets,
        bytes: packets * bytes as u64,
    };
    vec![(reason, disposition, count)]
}

/// The rules whose counters moved.
fn hits(before: &Stats, after: &Stats) -> BTreeMap<String, u64> {
    let pairs = after.rules.iter().zip(&before.rules);
    pairs
        .filter(|(a, b)| a.matched != b.matched)
        .map(|(a, b)| (a.id.to_string(), a.matched.packets - b.matched.packets))
        .collect()
}
