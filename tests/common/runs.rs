//! Policies whose IPv4 prefixes part trie blocks into runs of equal entries, of every number around
//! the borders between the forms that a block has; and the addresses on both sides of every end.

use std::net::{IpAddr, Ipv4Addr};

use xdpgate::policy::{
    Action, AddressItem, AddressMatch, AddressSet, Match, Policy, Prefix, Rule, RuleId, SetName,
};

use super::packet::addressed;
use super::random::Random;

/// A policy and frames for it.
pub type Case = (Policy, Vec<Vec<u8>>);

/// So many different runs one block has at most: below, at and above the borders between one line,
/// two lines and a block that is not packed.
const MOST_RUNS: u32 = 40;

/// Prefixes that part 256 positions into `runs` runs. Position `p` is the network
/// `base | p << shift`, of length `32 - shift`.
fn runs(random: &mut Random, base: u32, shift: u32, runs: u32) -> Vec<(Prefix, u32)> {
    // Distinct single positions, none beside another: each is a run, and so is each gap.
    let mut positions: Vec<u32> = (1..255).step_by(2).collect();
    for i in (1..positions.len()).rev() {
        positions.swap(i, random.below(i as u32 + 1) as usize);
    }
    let single = |p: u32| {
        let address = Ipv4Addr::from_bits(base | p << shift);
        Prefix::new(address.into(), 32 - shift as u8).expect("masked")
    };
    let mut out: Vec<(Prefix, u32)> = Vec::new();
    // One more run is the first position, which makes no gap before it.
    if runs.is_multiple_of(2) {
        out.push((single(0), 3));
    }
    let inner = positions.into_iter().take((runs as usize - 1) / 2);
    out.extend(inner.map(|p| (single(p), random.below(3))));
    out
}

/// A rule for each of four sets; the prefixes are spread over them.
fn policy(entries: &[(Prefix, u32)]) -> Policy {
    let mut builder = Policy::builder();
    for set in 0..4u32 {
        let of = entries.iter().filter(|(_, s)| *s == set).map(|(p, _)| *p);
        let name = SetName::new(&format!("s{set}")).unwrap();
        let action = if set % 2 == 0 {
            Action::Drop
        } else {
            Action::Pass
        };
        let rule = Rule {
            matches: Match {
                src: Some(AddressMatch {
                    negated: false,
                    items: vec![AddressItem::Set(name.clone())],
                }),
                ..Match::default()
            },
            ..Rule::new(RuleId::new(&format!("r{set}")).unwrap(), set, action)
        };
        let set = AddressSet::from_prefixes(of);
        if !set.is_empty() {
            builder = builder.set(name, set).rule(rule);
        }
    }
    builder.build().unwrap()
}

fn from(src: u32) -> Vec<u8> {
    let src = IpAddr::V4(Ipv4Addr::from_bits(src));
    addressed(src, "198.51.100.1".parse().unwrap())
        .udp(1, 2)
        .build()
}

fn case(entries: &[(Prefix, u32)], addresses: impl Iterator<Item = u32>) -> Case {
    (policy(entries), addresses.map(from).collect())
}

/// Runs of /24s in a /16.
pub fn in_a_16() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut random = Random::new(16);
    for count in 1..=MOST_RUNS {
        let base = random.next() & 0xffff_0000;
        let entries = runs(&mut random, base, 8, count);
        let inside = (0..256).map(|p| base | p << 8 | random.below(256));
        let outside = [base.wrapping_sub(1), base.wrapping_add(0x1_0000)];
        let addresses: Vec<u32> = inside.chain(outside).collect();
        cases.push(case(&entries, addresses.into_iter()));
    }
    cases
}

/// Runs of addresses in a /24.
pub fn in_a_24() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut random = Random::new(24);
    for count in 1..=MOST_RUNS {
        let base = random.next() & 0xffff_ff00;
        // Prefixes of length 31: hosts would go to their own table. Two positions each.
        let entries: Vec<_> = runs(&mut random, base, 0, count)
            .into_iter()
            .map(|(host, set)| match host.addr() {
                IpAddr::V4(a) => (
                    Prefix::new(Ipv4Addr::from_bits(a.to_bits() & !1).into(), 31),
                    set,
                ),
                IpAddr::V6(_) => unreachable!("IPv4 only"),
            })
            .map(|(prefix, set)| (prefix.expect("masked"), set))
            .collect();
        let inside = (0..256).map(|p| base | p);
        let outside = [base.wrapping_sub(1), base.wrapping_add(0x100)];
        cases.push(case(&entries, inside.chain(outside)));
    }
    cases
}

/// Such blocks below such blocks, with prefixes of all lengths among them.
pub fn within_blocks() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut random = Random::new(1);
    for count in 1..=MOST_RUNS {
        let base = random.next() & 0xffff_0000;
        let mut entries = runs(&mut random, base, 8, count);
        // Blocks below some of the entries, and prefixes of all lengths around and inside.
        for below in 0..4 {
            let net = base | random.below(256) << 8;
            let of = runs(&mut random, net, 1, 1 + (count * 7 + below) % MOST_RUNS);
            let within = |p: &Prefix| match p.addr() {
                IpAddr::V4(a) => a.to_bits() & 0xffff_ff00 == net,
                IpAddr::V6(_) => false,
            };
            entries.extend(of.into_iter().filter(|(p, _)| within(p)));
        }
        for _ in 0..20 {
            let len = 9 + random.below(24) as u8;
            let address = base | random.next() & 0xffff;
            let masked = address & (u32::MAX << (32 - len));
            let prefix = Prefix::new(Ipv4Addr::from_bits(masked).into(), len).expect("masked");
            entries.push((prefix, random.below(4)));
        }
        let near = entries.iter().flat_map(|(p, _)| match p.addr() {
            IpAddr::V4(a) => {
                let size = 1u32 << (32 - u32::from(p.len()));
                let first = a.to_bits();
                [
                    first.wrapping_sub(1),
                    first,
                    first + (size - 1),
                    first.wrapping_add(size),
                ]
            }
            IpAddr::V6(_) => unreachable!("IPv4 only"),
        });
        let near: Vec<u32> = near.collect();
        let random = (0..200).map(|_| base | random.next() & 0xffff);
        cases.push(case(&entries, near.into_iter().chain(random)));
    }
    cases
}
