//! ClassBench filter sets (Taylor and Turner, 2007), acl1, fw1 and ipc1, and packets for them.
//!
//! Where the sets are not, generated ones stand in.

use std::net::{IpAddr, Ipv4Addr};

use xdpgate::PolicyError;
use xdpgate::policy::{
    Action, AddressItem, AddressMatch, Match, Policy, Prefix, Ranges, Rule, RuleId,
};

use super::data;
use super::random::{Random, mix32};

const TCP: u8 = 6;
const UDP: u8 = 17;

/// The seed files that the sets were made from.
pub const SEEDS: [&str; 3] = ["acl1", "fw1", "ipc1"];

/// The sizes of the sets: rules asked for, and what files call them.
pub const SIZES: [(usize, &str); 3] = [(1000, "1k"), (10_000, "10k"), (100_000, "100k")];

/// The five fields of one filter. `None` is any.
#[derive(Clone)]
pub struct Filter {
    pub src: Prefix,
    pub dst: Prefix,
    pub sport: Option<(u16, u16)>,
    pub dport: Option<(u16, u16)>,
    pub protocol: Option<u8>,
}

/// What filters look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Header {
    pub src: Ipv4Addr,
    pub dst: Ipv4Addr,
    pub sport: u16,
    pub dport: u16,
    pub protocol: u8,
}

/// The file with the rules of a set, in the data folder.
pub fn rules_file(seed: &str, size: &str) -> String {
    format!("classbench/{seed}_{size}.rules.gz")
}

/// A set of about `count` filters.
///
/// # Panics
/// The file is there and is not ClassBench.
pub fn filters(seed: &str, (count, size): (usize, &str)) -> Vec<Filter> {
    let Some(text) = data::gunzip(&rules_file(seed, size)) else {
        return generate(seed, count);
    };
    let filters: Option<Vec<_>> = text.lines().map(parse_filter).collect();
    filters.expect("ClassBench rules")
}

/// The trace of a set; `None` if there is none.
///
/// # Panics
/// The file is there and is not ClassBench.
pub fn trace(seed: &str, size: &str) -> Option<Vec<Header>> {
    let text = data::gunzip(&format!("classbench/{seed}_{size}.trace.gz"))?;
    let headers: Option<Vec<_>> = text.lines().map(parse_header).collect();
    Some(headers.expect("a ClassBench trace"))
}

/// A rule each, the first line first; about half of them drop.
pub fn policy(filters: &[Filter]) -> Result<Policy, PolicyError> {
    let mut policy = Policy::builder();
    for (i, filter) in (0..).zip(filters) {
        let drops = mix32(i) & 1 == 1;
        let action = if drops { Action::Drop } else { Action::Pass };
        let id = RuleId::new(&format!("r{i:07}")).expect("an id");
        let mut rule = Rule::new(id, i + 1, action);
        rule.matches = filter.matches();
        policy = policy.rule(rule);
    }
    policy.build()
}

impl Filter {
    fn matches(&self) -> Match {
        let address = |prefix: Prefix| {
            (prefix.len() > 0).then(|| AddressMatch {
                negated: false,
                items: vec![AddressItem::Prefix(prefix)],
            })
        };
        let ports = |ports: Option<(u16, u16)>| ports.map(|range| Ranges::new([range]));
        Match {
            src: address(self.src),
            dst: address(self.dst),
            sport: ports(self.sport),
            dport: ports(self.dport),
            protocol: self.protocol.map(Ranges::single),
            ..Match::default()
        }
    }
}

/// `@src/len dst/len lo : hi lo : hi proto/mask flags/mask`; the flags are not looked at.
fn parse_filter(line: &str) -> Option<Filter> {
    let columns: Vec<&str> = line.strip_prefix('@')?.split('\t').collect();
    let [src, dst, sport, dport, protocol, ..] = columns[..] else {
        return None;
    };
    let (value, mask) = protocol.split_once('/')?;
    let value = u8::from_str_radix(value.strip_prefix("0x")?, 16).ok()?;
    Some(Filter {
        src: src.parse().ok()?,
        dst: dst.parse().ok()?,
        sport: parse_ports(sport)?,
        dport: parse_ports(dport)?,
        protocol: (mask != "0x00").then_some(value),
    })
}

/// The range; all ports are no range at all.
fn parse_ports(text: &str) -> Option<Option<(u16, u16)>> {
    let (first, last) = text.split_once(" : ")?;
    let range = (first.parse().ok()?, last.parse().ok()?);
    Some((range != (0, u16::MAX)).then_some(range))
}

/// `src dst sport dport protocol ...`, all decimal.
fn parse_header(line: &str) -> Option<Header> {
    let columns: Vec<&str> = line.split_whitespace().collect();
    let [src, dst, sport, dport, protocol, ..] = columns[..] else {
        return None;
    };
    let address = |text: &str| Some(Ipv4Addr::from_bits(text.parse().ok()?));
    Some(Header {
        src: address(src)?,
        dst: address(dst)?,
        sport: sport.parse().ok()?,
        dport: dport.parse().ok()?,
        protocol: protocol.parse().ok()?,
    })
}

/// Packets that random filters match, unless an earlier one does.
pub fn draw(filters: &[Filter], count: usize) -> Vec<Header> {
    let mut random = Random::new(100);
    let mut packet = || {
        let f = &filters[random.below(filters.len() as u32) as usize];
        let mut port = |range: Option<(u16, u16)>| {
            let (first, last) = range.unwrap_or((0, u16::MAX));
            random.within(first, last)
        };
        let (sport, dport) = (port(f.sport), port(f.dport));
        let mut address = |prefix: Prefix| {
            let IpAddr::V4(first) = prefix.addr() else {
                unreachable!("IPv4 only")
            };
            let below = u32::MAX.checked_shr(prefix.len().into()).unwrap_or(0);
            Ipv4Addr::from_bits(first.to_bits() | random.next() & below)
        };
        let (src, dst) = (address(f.src), address(f.dst));
        let any = if random.below(2) == 0 { TCP } else { UDP };
        let protocol = f.protocol.unwrap_or(any);
        Header {
            src,
            dst,
            sport,
            dport,
            protocol,
        }
    };
    (0..count).map(|_| packet()).collect()
}

/// Filters with nested prefixes and few services, for where the real sets are not.
fn generate(seed: &str, count: usize) -> Vec<Filter> {
    let mut random = Random::new(seed.bytes().map(u64::from).sum());
    // Networks that the prefixes are drawn from, so that they nest.
    let networks: Vec<u32> = (0..count / 8 + 4).map(|_| random.next()).collect();
    let mut filter = || {
        let mut prefix = |lengths: &[u8]| {
            let len = lengths[random.below(lengths.len() as u32) as usize];
            let own = u32::MAX.checked_shr(len.max(16).into()).unwrap_or(0);
            let network = networks[random.below(networks.len() as u32) as usize];
            let bits = (network ^ random.next() & 0xffff) | own;
            let mask = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
            Prefix::new(Ipv4Addr::from_bits(bits & mask).into(), len).expect("masked")
        };
        let (src, dst) = match seed {
            "fw1" => (prefix(&[0, 0, 16, 24, 32]), prefix(&[0, 16, 24, 27, 32])),
            _ => (
                prefix(&[0, 16, 24, 27, 32, 32]),
                prefix(&[16, 24, 27, 32, 32, 32]),
            ),
        };
        let protocol = [Some(TCP), Some(TCP), Some(UDP), None][random.below(4) as usize];
        let mut port = |exact: u32| match random.below(4) {
            0 => None,
            1 => Some((1024, u16::MAX)),
            _ => Some(1 + random.below(exact) as u16).map(|p| (p, p)),
        };
        let dport = port(1000).filter(|_| protocol.is_some());
        let sport = port(100).filter(|_| protocol.is_some() && seed == "fw1");
        Filter {
            src,
            dst,
            sport,
            dport,
            protocol,
        }
    };
    (0..count).map(|_| filter()).collect()
}
