//! Random valid policies, for property tests.
//!
//! Addresses, ports and the like come from the [pools](super::pool), so that rules overlap, their
//! order matters and random frames meet them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use jiff::Timestamp;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use xdpgate::policy::{
    Action, AddressItem, AddressMatch, AddressSet, Anomalies, EntryCounters, Failsafe, Family,
    FragmentMatch, IcmpMatch, Match, Mode, Policy, Prefix, Ranges, RateLimit, RateScope, RateUnit,
    Rule, RuleId, SetName, TcpFlagsMatch, Verdict, VlanMatch,
};

use super::pool;

const SET_NAMES: [&str; 4] = ["a", "true", "1", "b-2._"];
const MAX_RULES: usize = 12;

/// Any valid policy: every field of the format may be there.
pub fn policy() -> impl Strategy<Value = Policy> {
    let rules = vec(rule(matches().boxed(), action().boxed()), 0..MAX_RULES);
    let head = (verdict(), verdict(), failsafe());
    (head, sets(), rules).prop_map(|((default, malformed, failsafe), sets, rules)| {
        build(default, malformed, failsafe, sets, rules)
    })
}

/// A valid policy of rules that only ask for addresses, sets and negations of them, family,
/// protocol and ports, and that only pass or drop.
pub fn subset_policy() -> impl Strategy<Value = Policy> {
    let action = select(vec![Action::Pass, Action::Drop]).boxed();
    let rule = rule(tuple_match().boxed(), action).prop_map(|rule| Rule {
        matches: rule.matches,
        ..Rule::new(rule.id, rule.priority, rule.action)
    });
    let head = (verdict(), verdict());
    (head, sets(), vec(rule, 0..MAX_RULES)).prop_map(|((default, malformed), sets, rules)| {
        build(default, malformed, Failsafe::default(), sets, rules)
    })
}

/// An address in or next to one of [`prefix`].
pub fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        4 => select(pool::V4_ADDRESSES).prop_map(|a| IpAddr::V4(Ipv4Addr::from_bits(a))),
        3 => select(pool::V6_ADDRESSES).prop_map(|a| IpAddr::V6(Ipv6Addr::from_bits(a))),
        1 => any::<Ipv4Addr>().prop_map(IpAddr::V4),
        1 => any::<Ipv6Addr>().prop_map(IpAddr::V6),
    ]
}

/// One of a few nested prefixes, or one of any length around an [`address`].
pub fn prefix() -> impl Strategy<Value = Prefix> {
    let v4 = |(a, len)| Prefix::new(Ipv4Addr::from_bits(a).into(), len).expect("a prefix");
    let v6 = |(a, len)| Prefix::new(Ipv6Addr::from_bits(a).into(), len).expect("a prefix");
    prop_oneof![
        4 => select(pool::V4_PREFIXES).prop_map(v4),
        3 => select(pool::V6_PREFIXES).prop_map(v6),
        2 => (address(), 0u8..=128).prop_map(|(addr, len)| around(addr, len)),
        2 => address().prop_map(Prefix::host),
    ]
}

/// The prefix of this length that holds the address; IPv4 takes a quarter of the length.
fn around(addr: IpAddr, len: u8) -> Prefix {
    let (addr, len) = match addr {
        IpAddr::V4(a) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(len / 4)).unwrap_or(0);
            (Ipv4Addr::from_bits(a.to_bits() & mask).into(), len / 4)
        }
        IpAddr::V6(a) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
            (Ipv6Addr::from_bits(a.to_bits() & mask).into(), len)
        }
    };
    Prefix::new(addr, len).expect("masked")
}

/// One of the times at which random entries and rules expire.
pub fn expiry() -> impl Strategy<Value = Timestamp> {
    select(pool::EXPIRIES).prop_map(|(s, ns)| Timestamp::new(s, ns).expect("in range"))
}

fn verdict() -> impl Strategy<Value = Verdict> {
    select(vec![Verdict::Pass, Verdict::Drop])
}

fn failsafe() -> impl Strategy<Value = Failsafe> {
    let none = Failsafe {
        enabled: false,
        ssh_from: Vec::new(),
    };
    let some = vec(prefix(), 0..=Failsafe::MAX_SSH);
    prop_oneof![
        Just(none),
        some.prop_map(|ssh_from| Failsafe {
            enabled: true,
            ssh_from
        }),
    ]
}

/// All of [`SET_NAMES`], so that every rule can name any; some hold hosts only, and of some
/// nothing expires.
fn sets() -> impl Strategy<Value = Vec<(SetName, AddressSet)>> {
    let counters = select(vec![EntryCounters::None, EntryCounters::Entry]);
    let set = (
        vec((prefix(), option::of(expiry())), 1..6),
        vec((address(), option::of(expiry())), 0..6),
        any::<bool>(),
        any::<bool>(),
        counters,
    )
        .prop_map(|(prefixes, hosts, only_hosts, expiring, counters)| {
            let hosts = hosts.into_iter().map(|(a, at)| (Prefix::host(a), at));
            let prefixes = prefixes.into_iter().map(|(p, at)| match only_hosts {
                true => (Prefix::host(p.addr()), at),
                false => (p, at),
            });
            let entries = hosts.chain(prefixes);
            let entries = entries.map(|(p, at)| (p, at.filter(|_| expiring)));
            AddressSet::from_entries(entries).with_counters(counters)
        });
    vec(set, SET_NAMES.len()).prop_map(|sets| {
        let names = SET_NAMES.map(|n| SetName::new(n).expect("a name"));
        names.into_iter().zip(sets).collect()
    })
}

fn build(
    default: Verdict,
    malformed: Verdict,
    failsafe: Failsafe,
    sets: Vec<(SetName, AddressSet)>,
    rules: Vec<Rule>,
) -> Policy {
    let mut policy = Policy::builder()
        .default_verdict(default)
        .malformed(malformed);
    policy = policy.failsafe(failsafe);
    for (name, set) in sets {
        policy = policy.set(name, set);
    }
    for (i, mut rule) in rules.into_iter().enumerate() {
        rule.id = RuleId::new(&format!("{}-{i}", rule.id)).expect("an id");
        let rule = mend(&policy, rule);
        policy = policy.rule(rule);
    }
    policy.build().expect("every rule was mended")
}

/// Takes fields out of a rule until it is valid: most random combinations contradict themselves.
fn mend(policy: &xdpgate::policy::PolicyBuilder, mut rule: Rule) -> Rule {
    loop {
        let Err(error) = policy.clone().rule(rule.clone()).build() else {
            return rule;
        };
        let m = &mut rule.matches;
        match error.field() {
            Some("match.src") => m.src = None,
            Some("match.dst") => m.dst = None,
            Some("match.sport") => m.sport = None,
            Some("match.dport") => m.dport = None,
            Some("match.tcp_flags") => m.tcp_flags = None,
            Some("match.icmp") => m.icmp = None,
            Some("match.length") => m.length = None,
            Some("match.protocol") => m.protocol = None,
            Some("match.anomaly") => m.anomaly = None,
            _ => panic!("not expected of a random rule: {error}"),
        }
    }
}

fn rule(
    matches: BoxedStrategy<Match>,
    action: BoxedStrategy<Action>,
) -> impl Strategy<Value = Rule> {
    let priority = select(vec![0, 1, 10, 10, 20, 30, u32::MAX]);
    let key = ("[a-cA-C0-9._-]{1,2}", priority);
    let state = (
        select(vec![Mode::Enforce, Mode::Monitor]),
        prop::bool::weighted(0.9),
    );
    let any_time = (0i64..4_000_000_000, select(vec![0, 1, 500_000_000]))
        .prop_map(|(s, ns)| Timestamp::new(s, ns).expect("in range"));
    let expires = option::of(prop_oneof![any_time, expiry()]);
    let globs = select(vec!["eth*", "eth[1-9]", "?an0", "veth*"]);
    let interfaces = vec(prop_oneof![select(pool::INTERFACES), globs], 0..3);
    let texts = (
        option::of(text()),
        option::of(text()),
        btree_map(text(), text(), 0..3),
    );
    (key, matches, action, state, expires, interfaces, texts).prop_map(
        |((id, priority), matches, action, (mode, enabled), expires, interfaces, texts)| {
            let id = RuleId::new(&id).expect("an id");
            let (name, comment, labels) = texts;
            let interfaces = interfaces.into_iter().map(str::to_owned).collect();
            let rule = Rule::new(id, priority, action);
            Rule {
                matches,
                mode,
                enabled,
                expires,
                interfaces,
                name,
                comment,
                labels,
                ..rule
            }
        },
    )
}

/// Text that is hard to quote.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[ -~]{0,20}",
        select(vec![
            "",
            "~",
            "null",
            "true",
            "1",
            "- a",
            "a: b",
            "# no",
            "\u{feff}",
            "\u{85}\u{2028}"
        ])
        .prop_map(str::to_owned),
        Just("\\ \"\n\t\r\0\u{fffe}\u{1f600}".to_owned()),
    ]
}

fn addresses() -> impl Strategy<Value = AddressMatch> {
    let set = select(SET_NAMES.to_vec()).prop_map(|n| SetName::new(n).expect("a name"));
    let item = prop_oneof![
        3 => prefix().prop_map(AddressItem::Prefix),
        1 => set.prop_map(AddressItem::Set),
    ];
    (prop::bool::weighted(0.25), vec(item, 1..4))
        .prop_map(|(negated, items)| AddressMatch { negated, items })
}

fn ports() -> impl Strategy<Value = Ranges<u16>> {
    let range = (select(pool::PORTS), select(pool::PORTS)).prop_map(|(a, b)| (a.min(b), a.max(b)));
    let single = select(pool::PORTS).prop_map(|p| (p, p));
    vec(prop_oneof![single, range], 1..4).prop_map(Ranges::new)
}

fn protocols() -> impl Strategy<Value = Ranges<u8>> {
    vec(select(pool::PROTOCOLS), 1..3).prop_map(|ps| Ranges::new(ps.into_iter().map(|p| (p, p))))
}

/// The part of a match that [`subset_policy`] uses.
fn tuple_match() -> impl Strategy<Value = Match> {
    let family = option::weighted(0.2, select(vec![Family::Ipv4, Family::Ipv6]));
    let addresses = (option::of(addresses()), option::of(addresses()));
    let ports = (
        option::weighted(0.3, ports()),
        option::weighted(0.3, ports()),
    );
    (addresses, family, option::of(protocols()), ports).prop_map(
        |((src, dst), family, protocol, (sport, dport))| Match {
            src,
            dst,
            family,
            protocol,
            sport,
            dport,
            ..Match::default()
        },
    )
}

fn matches() -> impl Strategy<Value = Match> {
    let flags = (1u8.., any::<u8>()).prop_map(|(mask, value)| TcpFlagsMatch {
        mask,
        value: value & mask,
    });
    let icmp = (any::<u8>(), option::of(any::<u8>()))
        .prop_map(|(icmp_type, code)| IcmpMatch { icmp_type, code });
    let length =
        (0u32..70_000, 0u32..70_000).prop_map(|(a, b)| Ranges::new([(a.min(b), a.max(b))]));
    let ttl = (any::<u8>(), any::<u8>()).prop_map(|(a, b)| Ranges::new([(a.min(b), a.max(b))]));
    let dscp = vec(0u8..64, 1..4).prop_map(|ns| Ranges::new(ns.into_iter().map(|n| (n, n))));
    let ids =
        vec(select(pool::VLANS), 1..4).prop_map(|ns| Ranges::new(ns.into_iter().map(|n| (n, n))));
    let vlan = prop_oneof![
        Just(VlanMatch::None),
        Just(VlanMatch::Any),
        ids.prop_map(VlanMatch::Ids)
    ];
    let fragment = select(vec![
        FragmentMatch::None,
        FragmentMatch::First,
        FragmentMatch::Later,
        FragmentMatch::Any,
    ]);
    let anomaly = select(vec![(true, false), (false, true), (true, true)]).prop_map(
        |(bad_fragment, invalid)| Anomalies {
            bad_fragment,
            invalid,
        },
    );
    let l4 = (option::weighted(0.15, flags), option::weighted(0.3, icmp));
    let l3 = (
        option::weighted(0.15, length),
        option::weighted(0.15, fragment),
        option::weighted(0.15, vlan),
        option::weighted(0.15, ttl),
        option::weighted(0.15, dscp),
        option::weighted(0.15, anomaly),
    );
    (tuple_match(), l4, l3).prop_map(
        |(m, (tcp_flags, icmp), (length, fragment, vlan, ttl, dscp, anomaly))| {
            // ICMP is only valid together with its protocol.
            let protocol = if icmp.is_some() && m.protocol.is_none() {
                Some(Ranges::single(if icmp.is_some_and(|i| i.icmp_type < 128) {
                    1
                } else {
                    58
                }))
            } else {
                m.protocol.clone()
            };
            Match {
                protocol,
                tcp_flags,
                icmp,
                length,
                fragment,
                vlan,
                ttl,
                dscp,
                anomaly,
                ..m
            }
        },
    )
}

fn action() -> impl Strategy<Value = Action> {
    let scope = prop_oneof![
        Just(RateScope::Rule),
        Just(RateScope::Source { v4: 32, v6: 128 }),
        (1u8..=32, 1u8..=128).prop_map(|(v4, v6)| RateScope::Source { v4, v6 }),
    ];
    let unit = select(vec![RateUnit::Packets, RateUnit::Bits]);
    let limit = (unit, 1u64.., 1u64.., scope).prop_map(|(unit, rate, burst, scope)| RateLimit {
        unit,
        rate,
        burst,
        scope,
    });
    prop_oneof![
        Just(Action::Drop),
        Just(Action::Pass),
        Just(Action::Count),
        limit.prop_map(Action::RateLimit),
    ]
}

/// A policy of many rules about few addresses and ports: rules about one pair of addresses pile up.
pub fn crowded_policy() -> impl Strategy<Value = Policy> {
    let address = || {
        let prefixes = prop_oneof![
            select(&pool::V4_PREFIXES[..4])
                .prop_map(|(a, len)| (Ipv4Addr::from_bits(a).into(), len)),
            select(&pool::V6_PREFIXES[..2])
                .prop_map(|(a, len)| (Ipv6Addr::from_bits(a).into(), len)),
        ];
        option::weighted(
            0.7,
            prefixes.prop_map(|(addr, len)| AddressMatch {
                negated: false,
                items: vec![AddressItem::Prefix(
                    Prefix::new(addr, len).expect("a prefix"),
                )],
            }),
        )
    };
    let port = || {
        let (lo, hi) = (select(pool::PORTS), select(pool::PORTS));
        let range = prop_oneof![
            3 => lo.clone().prop_map(|p| (p, p)),
            1 => (lo, hi).prop_map(|(a, b)| (a.min(b), a.max(b))),
        ];
        option::of(range.prop_map(|r| Ranges::new([r])))
    };
    let matches = (
        address(),
        address(),
        port(),
        port(),
        select(vec![None, Some(6), Some(17)]),
    )
        .prop_map(|(src, dst, sport, dport, protocol)| Match {
            src,
            dst,
            sport,
            dport,
            protocol: protocol.map(Ranges::single),
            ..Match::default()
        });
    let action = select(vec![Action::Pass, Action::Drop]).boxed();
    let rules = vec(rule(matches.boxed(), action), 20..80);
    (verdict(), rules).prop_map(|(default, rules)| {
        let rules = rules.into_iter().map(|r| Rule {
            mode: Mode::Enforce,
            interfaces: Vec::new(),
            ..r
        });
        build(
            default,
            Verdict::Pass,
            Failsafe::default(),
            Vec::new(),
            rules.collect(),
        )
    })
}

/// A policy that the data plane can run: the whole language, with rate limits of which it does not
/// matter how often they are asked.
pub fn compilable_policy() -> impl Strategy<Value = Policy> {
    prop_oneof![policy(), subset_policy()].prop_map(|p| compilable(&p))
}

fn compilable(policy: &Policy) -> Policy {
    let mut builder = Policy::builder()
        .default_verdict(policy.default_verdict())
        .malformed(policy.malformed())
        .failsafe(policy.failsafe().clone());
    for (name, set) in policy.sets() {
        builder = builder.set(name.clone(), set.clone());
    }
    for rule in policy.rules() {
        let mut rule = rule.clone();
        if let Action::RateLimit(limit) = rule.action {
            rule.action = Action::RateLimit(stateless(limit));
        }
        builder = builder.rule(rule);
    }
    builder.build().expect("the policy was valid with more")
}

/// The limit in a form that no test exhausts, or that holds no frame at all.
fn stateless(limit: RateLimit) -> RateLimit {
    let (rate, burst) = match limit.unit {
        RateUnit::Packets => (1_000 + limit.rate % 1_000_000, 1_000_000),
        RateUnit::Bits if limit.rate.is_multiple_of(2) => {
            (1_000_000 + limit.rate % (1 << 40), 1 << 33)
        }
        // An Ethernet header has 112 bits.
        RateUnit::Bits => (1 + limit.rate % 1_000_000, 1 + limit.burst % 100),
    };
    RateLimit {
        rate,
        burst: burst + limit.burst % 7,
        ..limit
    }
}
