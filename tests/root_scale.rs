//! As many rules and entries as one policy may be asked to hold: each decides for its own packets,
//! and none for a neighbour of them.
#![cfg(feature = "kernel")]

mod common;

use std::collections::{BTreeSet, HashSet};
use std::iter;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::time::Instant;

use common::live::{Entry, in_guest};
use common::netns::skipped;
use common::packet::addressed;
use common::random::Random;
use common::rows::without_failsafe;
use jiff::Timestamp;
use xdpgate::oracle::Oracle;
use xdpgate::policy::{
    Action, AddressItem, AddressMatch, AddressSet, Match, Policy, PolicyBuilder, Prefix, Ranges,
    Rule, RuleId, SetName,
};
use xdpgate::{Evaluation, Firewall, Reason, Verdict};

/// Bytes of the image for each rule that asks for one five-tuple.
const BYTES_PER_RULE: usize = 40;

/// How many rules or entries are tried beside the first, a middle and the last.
const SAMPLES: usize = 1000;

/// A guest of the kernel matrix has less memory and time.
fn amount(count: u32) -> u32 {
    if in_guest() { count / 25 } else { count }
}

/// A policy in force.
struct InForce {
    firewall: Firewall,
    entry: Entry,
    image_bytes: usize,
}

impl InForce {
    /// Applies the policy and says what it took.
    fn new(name: &str, policy: &Policy) -> Self {
        let loader = Firewall::loader().dry_run(false);
        let firewall = loader.max_rules(amount(520_000)).load().expect("load");
        let applied = firewall.apply(policy).expect("apply");
        println!(
            "{name}: {} rules, {} entries: compile {:?}, publish {:?}, image {} bytes, {:?} verified",
            policy.rules().len(),
            applied.entries,
            applied.compile,
            applied.publish,
            applied.image_bytes,
            applied.verified_insns
        );
        Self {
            entry: Entry::of(&firewall),
            firewall,
            image_bytes: applied.image_bytes,
        }
    }

    /// What is said of a frame, which is also received once.
    fn judge(&self, frame: &[u8]) -> Evaluation {
        let said = self.firewall.evaluate(frame).expect("evaluate");
        assert_eq!(self.entry.receive(frame), said.verdict, "live, evaluated");
        said
    }
}

/// The first, a middle and the last of so many, and random ones.
fn chosen(count: u32, random: &mut Random) -> BTreeSet<u32> {
    let any = iter::repeat_with(|| random.below(count)).take(SAMPLES);
    [0, count / 2, count - 1].into_iter().chain(any).collect()
}

/// An IPv4 five-tuple.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct FiveTuple {
    src: u32,
    dst: u32,
    protocol: u8,
    sport: u16,
    dport: u16,
}

impl FiveTuple {
    /// Different ones in random order. Each field has so few values that many have all others in
    /// common; all addresses and ports are odd, so that no neighbour is among them.
    fn distinct(count: u32) -> Vec<Self> {
        let mut random = Random::new(35);
        let mut seen = HashSet::new();
        let any = iter::repeat_with(|| Self {
            src: 0x0a00_0001 | random.below(64) << 1,
            dst: 0xc612_0001 | random.below(64) << 1,
            protocol: if random.below(2) == 0 { TCP } else { UDP },
            sport: 0x8001 | (random.below(256) as u16) << 1,
            dport: 0x0001 | (random.below(256) as u16) << 1,
        });
        any.filter(|t| seen.insert(*t))
            .take(count as usize)
            .collect()
    }

    fn asked(&self) -> Match {
        Match {
            src: within(AddressItem::Prefix(Prefix::host(v4(self.src)))),
            dst: within(AddressItem::Prefix(Prefix::host(v4(self.dst)))),
            protocol: Some(Ranges::single(self.protocol)),
            sport: Some(Ranges::single(self.sport)),
            dport: Some(Ranges::single(self.dport)),
            ..Match::default()
        }
    }

    fn frame(&self) -> Vec<u8> {
        let packet = addressed(v4(self.src), v4(self.dst));
        match self.protocol {
            TCP => packet.tcp(self.sport, self.dport).build(),
            other => packet.ports(other, self.sport, self.dport).build(),
        }
    }

    /// One for each field, which differs in that field alone.
    #[rustfmt::skip]
    fn neighbours(&self) -> [Self; 5] {
        [
            Self { src: self.src ^ 1, ..*self },
            Self { dst: self.dst ^ 1, ..*self },
            Self { protocol: SCTP, ..*self },
            Self { sport: self.sport ^ 1, ..*self },
            Self { dport: self.dport ^ 1, ..*self },
        ]
    }
}

/// Rules for one five-tuple each, all with this action; everything else has the default verdict.
fn exact_rules(name: &str, count: u32, action: &Action, default: Verdict) {
    let start = Instant::now();
    let tuples = FiveTuple::distinct(count);
    let id = |n: u32| RuleId::new(&format!("r{n}")).expect("an id");
    let rules = (0..).zip(&tuples).map(|(n, tuple)| Rule {
        matches: tuple.asked(),
        ..Rule::new(id(n), n, action.clone())
    });
    let builder = rules.fold(without_failsafe(), PolicyBuilder::rule);
    let policy = builder.default_verdict(default).build().expect("a policy");
    let kernel = InForce::new(name, &policy);
    let bytes = kernel.image_bytes;
    assert!(bytes <= count as usize * BYTES_PER_RULE, "{bytes} bytes");

    let chosen = chosen(count, &mut Random::new(36));
    let verdict = match action {
        Action::Drop => Verdict::Drop,
        _ => Verdict::Pass,
    };
    for n in &chosen {
        let tuple = tuples[*n as usize];
        let said = kernel.judge(&tuple.frame());
        let of_rule = (verdict, Reason::Rule, Some(id(*n)));
        assert_eq!((said.verdict, said.reason, said.rule), of_rule, "{tuple:?}");
        for neighbour in tuple.neighbours() {
            let said = kernel.judge(&neighbour.frame());
            let by_default = (default, Reason::Default, None);
            assert_eq!(
                (said.verdict, said.reason, said.rule),
                by_default,
                "{neighbour:?}"
            );
        }
    }
    let stats = kernel.firewall.stats();
    assert_eq!(stats.rules.len(), count as usize);
    for rule in &stats.rules {
        let number = rule.id.as_str()[1..].parse().expect("a number");
        let want = u64::from(chosen.contains(&number));
        assert_eq!(rule.matched.packets, want, "{} counts its own", rule.id);
    }
    println!(
        "{name}: {:.1} bytes a rule, {} tried, {:?} in all",
        bytes as f64 / f64::from(count),
        chosen.len(),
        start.elapsed()
    );
}

#[test]
fn r35_half_a_million_exact_rules() {
    if !skipped() {
        exact_rules("blacklist", amount(500_000), &Action::Drop, Verdict::Pass);
    }
}

#[test]
fn r36_a_whitelist_of_50000_exact_rules() {
    if !skipped() {
        exact_rules("whitelist", amount(50_000), &Action::Pass, Verdict::Drop);
    }
}

/// A family of addresses, which are taken as the highest of 128 bits.
struct Space {
    width: u8,
    lens: RangeInclusive<u8>,
    peer: &'static str,
}

const V4: Space = Space {
    width: 32,
    lens: 8..=32,
    peer: "198.51.100.1",
};
const V6: Space = Space {
    width: 128,
    lens: 16..=128,
    peer: "2001:db9::1",
};

impl Space {
    /// Different random prefixes of all lengths, sorted, many of them within another one. The
    /// shortest are of one eighth of the space only, so that there is an outside.
    fn nested(&self, count: u32, random: &mut Random) -> Vec<(u128, u8)> {
        let (mut seen, mut list) = (HashSet::new(), Vec::new());
        let (shortest, longest) = (*self.lens.start(), *self.lens.end());
        while list.len() < count as usize {
            let len = random.within(shortest.into(), longest.into()) as u8;
            let other = random.below(list.len().max(1) as u32);
            let (around, kept) = match list.get(other as usize) {
                Some(&(bits, kept)) if kept < len && random.below(2) == 0 => (bits, kept),
                _ if len < shortest + 8 => (2 << 125, 3),
                _ => (0, 0),
            };
            let prefix = (around | any_bits(random) & host_bits(kept)) & !host_bits(len);
            if seen.insert((prefix, len)) {
                list.push((prefix, len));
            }
        }
        list.sort_unstable();
        list
    }

    fn address(&self, bits: u128) -> IpAddr {
        match self.width {
            32 => v4((bits >> 96) as u32),
            _ => Ipv6Addr::from_bits(bits).into(),
        }
    }

    fn prefix(&self, (bits, len): (u128, u8)) -> Prefix {
        Prefix::new(self.address(bits), len).expect("masked")
    }

    fn from(&self, bits: u128) -> Vec<u8> {
        let peer = self.peer.parse().expect("an address");
        addressed(self.address(bits), peer).tcp(1000, 80).build()
    }
}

/// What a prefix of this length leaves open.
fn host_bits(len: u8) -> u128 {
    u128::MAX.checked_shr(len.into()).unwrap_or(0)
}

fn any_bits(random: &mut Random) -> u128 {
    (0..4).fold(0, |bits, _| bits << 32 | u128::from(random.next()))
}

/// Passes what comes from one of these prefixes, and nothing else.
fn whitelist(prefixes: impl Iterator<Item = Prefix>) -> Policy {
    let office = SetName::new("office").expect("a name");
    let rule = Rule {
        matches: Match {
            src: within(AddressItem::Set(office.clone())),
            ..Match::default()
        },
        ..Rule::new(RuleId::new("office").expect("an id"), 1, Action::Pass)
    };
    without_failsafe()
        .default_verdict(Verdict::Drop)
        .set(office, AddressSet::from_prefixes(prefixes))
        .rule(rule)
        .build()
        .expect("a policy")
}

#[test]
fn r36_a_whitelist_of_50000_prefixes_of_each_family() {
    if skipped() {
        return;
    }
    let start = Instant::now();
    let mut random = Random::new(50);
    let spaces = [V4, V6].map(|space| {
        let entries = space.nested(amount(50_000), &mut random);
        (space, entries)
    });
    let of_each = |(space, entries): &(Space, Vec<_>)| -> Vec<Prefix> {
        entries.iter().map(|entry| space.prefix(*entry)).collect()
    };
    let policy = whitelist(spaces.iter().flat_map(of_each));
    let mut oracle = Oracle::new(&policy);
    let kernel = InForce::new("prefixes", &policy);
    let mut passed = 0;
    let mut passes = |frame: &[u8]| {
        let said = kernel.judge(frame);
        let want = oracle.evaluate(frame, Timestamp::UNIX_EPOCH, None);
        assert_eq!(said, want, "kernel, oracle: {frame:02x?}");
        let is_pass = said.verdict == Verdict::Pass;
        passed += u64::from(is_pass);
        is_pass
    };
    for (space, entries) in &spaces {
        let count = entries.len() as u32;
        for n in chosen(count, &mut random) {
            let (first, len) = entries[n as usize];
            let inside = first | any_bits(&mut random) & host_bits(len);
            assert!(passes(&space.from(inside)), "in entry {n}");
        }
        let mut outside = 0;
        for _ in 0..2 * SAMPLES {
            let (first, len) = entries[random.below(count) as usize];
            let last = first | host_bits(len);
            let near = [first, last, first.wrapping_sub(1), last.wrapping_add(1)];
            let near = near[random.below(4) as usize];
            outside += usize::from(!passes(&space.from(near)));
        }
        println!(
            "/{}: {outside} addresses beside entries are in none",
            space.width
        );
        assert!(outside > SAMPLES / 4, "addresses that are in no entry");
    }
    let counted = kernel.firewall.stats().rules[0].matched.packets;
    assert_eq!(counted, passed, "the rule counts each");
    println!("prefixes: {:?} in all", start.elapsed());
}

fn within(item: AddressItem) -> Option<AddressMatch> {
    Some(AddressMatch {
        negated: false,
        items: vec![item],
    })
}

fn v4(bits: u32) -> IpAddr {
    Ipv4Addr::from_bits(bits).into()
}

const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;
