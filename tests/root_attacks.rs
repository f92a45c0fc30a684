//! Policies and addresses that somebody chose to make the firewall slow, large or wrong.
//!
//! Each is built within bounds of time and memory, judged as the oracle judges and costs a packet
//! a bounded time; or it is refused, with the reason, the limit and the mend.
#![cfg(feature = "kernel")]

mod common;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use common::live::{Entry, in_guest};
use common::netns::skipped;
use common::packet::addressed;
use common::random::mix32;
use jiff::Timestamp;
use nix::time::{ClockId, clock_gettime};
use xdpgate::compile::ROWS_UP_TO;
use xdpgate::oracle::Oracle;
use xdpgate::policy::{
    Action, AddressItem, AddressMatch, AddressSet, Match, Mode, Policy, Prefix, Ranges, Rule,
    RuleId, SetName,
};
use xdpgate::{ApplyError, Firewall};

const MIB: usize = 1 << 20;

/// Seconds of processor time to compile and publish, of a build without optimization.
const BUILD_SECONDS: f64 = 10.0;

/// Nanoseconds that a packet may cost.
const PACKET_NS: u32 = 20_000;

const VERIFIED_INSNS: u32 = 100_000;

/// Applies the policy and asks for all of the above.
fn withstands(
    name: &str,
    policy: &Policy,
    rows_up_to: usize,
    most_bytes: usize,
    frames: &[Vec<u8>],
) {
    let loader = Firewall::loader().dry_run(false).rows_up_to(rows_up_to);
    let firewall = loader.max_rules(1 << 17).load().expect("load");
    let start = processor_seconds();
    let applied = firewall
        .apply(policy)
        .unwrap_or_else(|e| panic!("{name}: {e}"));
    let build = processor_seconds() - start;
    let mut oracle = Oracle::new(policy);
    let now = Timestamp::now();
    for frame in frames {
        let got = firewall.evaluate(frame).expect("evaluate");
        assert_eq!(
            got,
            oracle.evaluate(frame, now, None),
            "{name}: {frame:02x?}"
        );
    }
    let entry = Entry::of(&firewall);
    let measured = frames.iter().step_by(frames.len().div_ceil(20));
    let cost = measured
        .map(|f| entry.nanoseconds(f))
        .max()
        .expect("frames");
    let info = firewall.program_info();
    let verified = [info.policy, info.evaluator].map(|p| p.and_then(|p| p.verified_insns));
    println!(
        "{name}, rows up to {rows_up_to}: build {build:.2} s, image {:.2} MiB, {verified:?} verified, \
         {} frames, {cost} ns at most",
        applied.image_bytes as f64 / MIB as f64,
        frames.len()
    );
    for verified in verified.into_iter().flatten() {
        assert!(
            verified < VERIFIED_INSNS,
            "{name}: {verified} verified instructions"
        );
    }
    assert!(
        applied.image_bytes < most_bytes,
        "{name}: {} bytes",
        applied.image_bytes
    );
    if !in_guest() {
        assert!(build < BUILD_SECONDS, "{name}: {build} s");
        assert!(cost < PACKET_NS, "{name}: {cost} ns");
    }
}

/// The policy is refused for this reason and with this mend; nothing is in force.
fn is_refused(policy: &Policy, parts: &[&str]) {
    let firewall = Firewall::loader().max_rules(1 << 17).load().expect("load");
    let error = firewall.apply(policy).expect_err("a limit");
    assert!(matches!(error, ApplyError::Policy(_)), "{error:?}");
    let text = error.to_string();
    println!("{text}");
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
    assert_eq!(firewall.generation(), None);
}

/// Processor time of this thread, which other processes do not disturb.
fn processor_seconds() -> f64 {
    let spent = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("a clock");
    std::time::Duration::from(spent).as_secs_f64()
}

/// A rule; about half of them drop.
fn rule(number: usize, matches: Match) -> Rule {
    let action = if mix32(number as u32) & 1 == 1 {
        Action::Drop
    } else {
        Action::Pass
    };
    let id = RuleId::new(&format!("r{number:06}")).expect("an id");
    Rule {
        matches,
        ..Rule::new(id, number as u32, action)
    }
}

fn policy(rules: impl IntoIterator<Item = Rule>) -> Policy {
    let rules = rules.into_iter();
    rules
        .fold(Policy::builder(), |p, r| p.rule(r))
        .build()
        .expect("a policy")
}

/// Drop what comes from one of these.
fn block_list(entries: impl IntoIterator<Item = IpAddr>) -> (Policy, AddressSet) {
    let set = AddressSet::from_prefixes(entries.into_iter().map(Prefix::host));
    let block = Rule {
        matches: Match {
            src: within_set("block"),
            ..Match::default()
        },
        ..Rule::new(RuleId::new("block").expect("an id"), 1, Action::Drop)
    };
    let builder = Policy::builder()
        .set(set_name("block"), set.clone())
        .rule(block);
    (builder.build().expect("a policy"), set)
}

fn set_name(name: &str) -> SetName {
    SetName::new(name).expect("a name")
}

fn within_set(name: &str) -> Option<AddressMatch> {
    Some(AddressMatch {
        negated: false,
        items: vec![AddressItem::Set(set_name(name))],
    })
}

fn within(prefix: &str, negated: bool) -> Option<AddressMatch> {
    Some(AddressMatch {
        negated,
        items: vec![AddressItem::Prefix(prefix.parse().expect("a prefix"))],
    })
}

fn tcp() -> Option<Ranges<u8>> {
    Some(Ranges::single(6))
}

fn ports(range: RangeInclusive<u16>) -> Option<Ranges<u16>> {
    Some(Ranges::new([(*range.start(), *range.end())]))
}

fn v4(bits: u32) -> IpAddr {
    Ipv4Addr::from_bits(bits).into()
}

fn v6(bits: u128) -> IpAddr {
    Ipv6Addr::from_bits(bits).into()
}

/// TCP from an address to another one of its family.
fn from(src: IpAddr) -> Vec<u8> {
    let dst = if src.is_ipv4() {
        "198.51.100.1"
    } else {
        "2001:db9::1"
    };
    addressed(src, dst.parse().expect("an address"))
        .tcp(1000, 80)
        .build()
}

/// Members of a list from all over it, and their neighbours.
fn samples(set: &AddressSet) -> Vec<Vec<u8>> {
    let step = set.len().div_ceil(1000);
    let members = set.iter().step_by(step).map(|p| p.addr());
    let both = members.flat_map(|addr| match addr {
        IpAddr::V4(a) => [addr, v4(a.to_bits() ^ 1)],
        IpAddr::V6(a) => [addr, v6(a.to_bits() ^ 1)],
    });
    both.map(from).collect()
}

/// All numbers that differ from `base` in at most `bits` of the lowest `width` bits.
fn near(base: u128, width: u32, bits: u32) -> Vec<u128> {
    let mut all = vec![base];
    let mut last = vec![(base, 0)];
    for _ in 0..bits {
        let next = |(n, from): &(u128, u32)| {
            (*from..width)
                .map(|b| (n ^ 1 << b, b + 1))
                .collect::<Vec<_>>()
        };
        last = last.iter().flat_map(next).collect();
        all.extend(last.iter().map(|(n, _)| *n));
    }
    all
}

#[test]
fn r101_attack_ipv4_addresses_that_would_collide() {
    if skipped() {
        return;
    }
    let few_bits = near(0x0a01_0203, 32, 3).into_iter().map(|n| v4(n as u32));
    let high_half = (1..=0xffff).map(|n: u32| v4(n << 16));
    let strides = (0..20_000).map(|n: u32| v4(n.wrapping_mul(0x0100_0100)));
    // Equal after the first multiplication of a mixer that does not know the seed.
    let inverse = 0x4f74_430c_22a5_4005u64;
    let unmixed = (0..20_000u64).map(|n| v4((n << 32).wrapping_mul(inverse) as u32 ^ n as u32));
    let (policy, set) = block_list(few_bits.chain(high_half).chain(strides).chain(unmixed));
    withstands(
        "IPv4 keys",
        &policy,
        ROWS_UP_TO,
        set.len() * 24 + MIB,
        &samples(&set),
    );
}

#[test]
fn r101_attack_ipv6_addresses_that_would_collide() {
    if skipped() {
        return;
    }
    let base = 0x2001_0db8 << 96;
    let few_bits = near(base, 128, 2).into_iter().chain(near(0, 128, 2));
    // Products and sums that a hash without a key would confuse: words swapped, moved, complemented.
    let words = (0..6000u128).flat_map(|n| {
        let (a, b) = (u128::from(mix32(n as u32)), n + 1);
        [
            a << 96 | b << 64,
            b << 96 | a << 64,
            a << 32 | b,
            b << 32 | a,
            a << 96 | a << 32,
            !(a << 96 | b << 64),
        ]
    });
    let one_word = (0..32_768u128).flat_map(|n| [n, n << 32, n << 64, n << 96]);
    let (policy, set) = block_list(few_bits.chain(words).chain(one_word).map(v6));
    withstands(
        "IPv6 keys",
        &policy,
        ROWS_UP_TO,
        set.len() * 48 + MIB,
        &samples(&set),
    );
}

/// The prefix of this length around an address, and an address in it but not in the next longer one.
fn nested(path: IpAddr, len: u8) -> (Prefix, IpAddr) {
    let (width, bits) = match path {
        IpAddr::V4(a) => (32, u128::from(a.to_bits()) << 96),
        IpAddr::V6(a) => (128, a.to_bits()),
    };
    let address = |bits: u128| match width {
        32 => v4((bits >> 96) as u32),
        _ => v6(bits),
    };
    let mask = u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
    let outside = if len == width {
        bits
    } else {
        bits ^ 1 << (127 - len)
    };
    (
        Prefix::new(address(bits & mask), len).expect("masked"),
        address(outside),
    )
}

/// Rules about each depth of source and destination at once.
fn nested_policy(src: &str, dst: &str, depths: u8, step: usize) -> (Policy, Vec<Vec<u8>>) {
    let (src, dst): (IpAddr, IpAddr) = (src.parse().unwrap(), dst.parse().unwrap());
    let item = |prefix| {
        Some(AddressMatch {
            negated: false,
            items: vec![AddressItem::Prefix(prefix)],
        })
    };
    let all = || {
        (0..=depths)
            .step_by(step)
            .flat_map(|s| (0..=depths).map(move |d| (s, d)))
    };
    let rules = all().enumerate().map(|(i, (s, d))| {
        // The order of the rules has nothing to do with the depths.
        let number = mix32(i as u32) >> 8;
        let matches = Match {
            src: item(nested(src, s).0),
            dst: item(nested(dst, d).0),
            protocol: tcp(),
            dport: ports(0..=(i % 50) as u16),
            ..Match::default()
        };
        Rule {
            priority: number,
            ..rule(i, matches)
        }
    });
    let policy = policy(rules);
    let frames = all().step_by(3).enumerate().map(|(i, (s, d))| {
        let (src, dst) = (nested(src, s).1, nested(dst, d).1);
        addressed(src, dst).tcp(1000, (i % 51) as u16).build()
    });
    (policy, frames.collect())
}

#[test]
fn r101_attack_ipv4_prefixes_nested_33_deep() {
    if skipped() {
        return;
    }
    let (policy, frames) = nested_policy("10.77.201.3", "172.21.19.250", 32, 1);
    for rows_up_to in [0, ROWS_UP_TO] {
        withstands("33 deep", &policy, rows_up_to, 8 * MIB, &frames);
    }
}

#[test]
fn r101_attack_ipv6_prefixes_nested_129_deep() {
    if skipped() {
        return;
    }
    let (policy, frames) = nested_policy("2001:db8:a5a5::77", "2001:db9:5a5a:1::9", 128, 6);
    for rows_up_to in [0, ROWS_UP_TO] {
        withstands("129 deep", &policy, rows_up_to, 16 * MIB, &frames);
    }
}

/// Rule `i` of many about one pair of hosts.
fn one_pair(i: usize, protocol: u8, dport: RangeInclusive<u16>) -> Rule {
    rule(
        i,
        Match {
            src: within("10.0.0.1", false),
            dst: within("10.0.0.2", false),
            protocol: Some(Ranges::single(protocol)),
            dport: ports(dport),
            ..Match::default()
        },
    )
}

fn to_port(protocol: u8, dport: u16) -> Vec<u8> {
    let pair = addressed("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
    pair.ports(protocol, 1000, dport).build()
}

#[test]
fn r101_attack_4096_port_ranges_on_one_pair() {
    if skipped() {
        return;
    }
    let range = |i: u16| {
        let first = i.wrapping_mul(7919);
        first..=first.saturating_add(i % 500 + 1)
    };
    let policy = policy((0..4096).map(|i| one_pair(i, 17, range(i as u16))));
    let frames: Vec<_> = (0..3000u16)
        .map(|i| to_port(17, i.wrapping_mul(21_841)))
        .collect();
    for rows_up_to in [0, ROWS_UP_TO] {
        withstands(
            "4096 ranges on a pair",
            &policy,
            rows_up_to,
            16 * MIB,
            &frames,
        );
    }
}

#[test]
fn r101_attack_more_than_rows_can_hold() {
    if skipped() {
        return;
    }
    let negated = |i: usize| {
        rule(
            i,
            Match {
                src: within(&format!("10.{}.{}.0/24", i >> 8, i & 255), true),
                protocol: tcp(),
                dport: ports(i as u16..=i as u16),
                ..Match::default()
            },
        )
    };
    is_refused(
        &policy((0..4097).map(negated)),
        &[
            "rule r004096",
            "4097 rules need the general classifier",
            "the limit is 4096",
            "address set",
        ],
    );
    let frames: Vec<_> = (0..4200u32)
        .step_by(3)
        .map(|i| {
            let src = v4(0x0a00_0005 | i << 8);
            addressed(src, v4(0x0a63_0001))
                .tcp(1, (i ^ (i % 2)) as u16)
                .build()
        })
        .collect();
    withstands(
        "4096 negated",
        &policy((0..4096).map(negated)),
        ROWS_UP_TO,
        32 * MIB,
        &frames,
    );
    // Ranges beyond what one pair's list holds end up in the rows, too.
    let ranges = (0..4105).map(|i| one_pair(i, 17, i as u16..=i as u16 + 9));
    is_refused(
        &policy(ranges),
        &["4097 rules", "the limit is 4096", "address set"],
    );
}

#[test]
fn r101_attack_70000_ports_of_one_pair() {
    if skipped() {
        return;
    }
    let all =
        (0..70_000).map(|i| one_pair(i, if i < 65_536 { 6 } else { 17 }, i as u16..=i as u16));
    let policy = policy(all);
    let samples = (0..65_536usize).step_by(191).chain([4463, 4464, 65_535]);
    let frames: Vec<_> = samples
        .flat_map(|port| [6, 17].map(|protocol| to_port(protocol, port as u16)))
        .collect();
    withstands(
        "70000 ports of a pair",
        &policy,
        ROWS_UP_TO,
        16 * MIB,
        &frames,
    );
}

#[test]
fn r102_attack_verdicts_that_alternate_over_all_ports() {
    if skipped() {
        return;
    }
    let every = |step: usize| (0..=u16::MAX).step_by(step).map(|p| (p, p));
    let matches = |list: Ranges<u16>| Match {
        protocol: tcp(),
        dport: Some(list),
        ..Match::default()
    };
    let policy = policy(
        [2, 3, 5, 7]
            .into_iter()
            .enumerate()
            .map(|(i, step)| {
                let rule = rule(i, matches(Ranges::new(every(7 * 5 * 3 * 2 / step))));
                Rule {
                    action: if i % 2 == 0 {
                        Action::Drop
                    } else {
                        Action::Pass
                    },
                    ..rule
                }
            })
            .chain([Rule {
                action: Action::Drop,
                ..rule(9, matches(Ranges::new(every(2))))
            }]),
    );
    let frames: Vec<_> = (0..=u16::MAX).map(|port| to_port(6, port)).collect();
    for rows_up_to in [0, ROWS_UP_TO] {
        withstands("alternating ports", &policy, rows_up_to, 2 * MIB, &frames);
    }
}

#[test]
fn r101_attack_1000_sets_of_the_same_addresses() {
    if skipped() {
        return;
    }
    let mut builder = Policy::builder();
    for i in 0..1000usize {
        let hosts = (0..40).map(|n| Prefix::host(v4(0x0a00_0000 | n)));
        // Each lacks one, so that no two are equal.
        let hosts = hosts
            .enumerate()
            .filter(|(n, _)| *n != i % 40)
            .map(|(_, p)| p);
        let wide: Prefix = format!("10.{}.0.0/16", i % 250).parse().unwrap();
        let name = format!("s{i}");
        let matches = Match {
            src: within_set(&name),
            protocol: tcp(),
            dport: ports(i as u16..=i as u16 + 3),
            ..Match::default()
        };
        let set = AddressSet::from_prefixes(hosts.chain([wide]));
        builder = builder.set(set_name(&name), set).rule(rule(i, matches));
    }
    let policy = builder.build().expect("a policy");
    let frames: Vec<_> = (0..2000u32)
        .map(|i| {
            let src = v4(0x0a00_0000 | (i % 43) | (((i % 3) * (i % 251)) << 16));
            addressed(src, v4(0x0b00_0001))
                .tcp(9, (i % 1010) as u16)
                .build()
        })
        .collect();
    for rows_up_to in [0, ROWS_UP_TO] {
        withstands("1000 sets", &policy, rows_up_to, 16 * MIB, &frames);
    }
}

#[test]
fn r102_attack_2000_negated_sources() {
    if skipped() {
        return;
    }
    let net = |i: usize| format!("10.{}.{}.0/24", i >> 8, i & 255);
    let policy = policy((0..2000).map(|i| {
        rule(
            i,
            Match {
                src: within(&net(i), true),
                ..Match::default()
            },
        )
    }));
    let frames: Vec<_> = (0..2100u32)
        .map(|i| from(v4(0x0a00_0007 | i << 8)))
        .collect();
    withstands(
        "2000 negated sources",
        &policy,
        ROWS_UP_TO,
        32 * MIB,
        &frames,
    );
}

#[test]
fn r101_attack_65_lists_of_interfaces() {
    if skipped() {
        return;
    }
    // About one host each: no packet meets many of them.
    let lists = |count: usize| {
        policy((0..count).map(|i| {
            let matches = Match {
                src: within(&format!("10.0.0.{i}"), false),
                ..Match::default()
            };
            Rule {
                interfaces: vec![format!("eth{i}"), "wan*".to_owned()],
                ..rule(i, matches)
            }
        }))
    };
    is_refused(
        &lists(65),
        &[
            "rule r000064",
            "interfaces",
            "64 different lists",
            "name them alike",
        ],
    );
    withstands(
        "64 lists of interfaces",
        &lists(64),
        ROWS_UP_TO,
        MIB,
        &[from(v4(0x0a00_0001))],
    );
}

#[test]
fn r101_attack_33_monitor_rules_for_one_packet() {
    if skipped() {
        return;
    }
    let watched = |count: usize| {
        policy((0..count).map(|i| Rule {
            mode: Mode::Monitor,
            ..rule(
                i,
                Match {
                    protocol: tcp(),
                    ..Match::default()
                },
            )
        }))
    };
    is_refused(&watched(33), &["33 rules", "the limit is 32", "dry run"]);
    withstands(
        "32 monitor rules",
        &watched(32),
        ROWS_UP_TO,
        MIB,
        &[from(v4(1))],
    );
    // As many as one likes where no packet meets more than 32 of them.
    let apart = policy((0..1000).map(|i| Rule {
        mode: Mode::Monitor,
        ..one_pair(i, 6, i as u16..=i as u16 + 31)
    }));
    let frames: Vec<_> = (0..1032).map(|port| to_port(6, port)).collect();
    withstands("1000 monitor rules", &apart, ROWS_UP_TO, 4 * MIB, &frames);
}

#[test]
fn r104_attack_17_expiries_of_one_address() {
    if skipped() {
        return;
    }
    let path = v4(0x0a4d_c903);
    // The longest prefix comes first and goes first: what holds for the address changes each time.
    let expiring = |count: u8| {
        policy((0..count).map(|i| {
            let expires = Timestamp::from_second(4_000_000_000 + i64::from(i)).unwrap();
            let matches = Match {
                src: within(&nested(path, 32 - i).0.to_string(), false),
                ..Match::default()
            };
            Rule {
                expires: Some(expires),
                ..rule(usize::from(i), matches)
            }
        }))
    };
    is_refused(
        &expiring(17),
        &["17 times by expiry", "the limit is 16", "expire together"],
    );
    let frames: Vec<_> = (0..=24).map(|i| from(nested(path, 8 + i).1)).collect();
    for rows_up_to in [0, ROWS_UP_TO] {
        withstands("16 expiries", &expiring(16), rows_up_to, MIB, &frames);
    }
}
