//! ClassBench filter sets (Taylor and Turner, 2007): acl1, fw1 and ipc1 with their traces.

use std::net::{IpAddr, Ipv4Addr};

use xdpgate::policy::{Action, Match, Policy, Prefix, Ranges};

use super::{Recipe, data};
use crate::case::{Case, Expected, Floor, Table, Target, rule, within};
use crate::flow::{Flow, Headers, TCP, UDP};
use crate::numbers::{Random, mix32};

/// How many packets are drawn from the rules where there is no trace.
const DRAWN: usize = 1 << 16;

pub fn recipes() -> Vec<Recipe> {
    let mut recipes = Vec::new();
    for (count, size) in [(1000, "1k"), (10_000, "10k"), (100_000, "100k")] {
        for seed in ["acl1", "fw1", "ipc1"] {
            let path = format!("classbench/{seed}_{size}.rules.gz");
            let name = data::title(&format!("ClassBench {seed} {size}"), &path);
            recipes.push(Recipe::new(name, move || case(seed, size, count)));
        }
    }
    recipes
}

/// The five fields of one filter. `None` is any.
#[derive(Clone)]
pub struct Filter {
    pub src: Prefix,
    pub dst: Prefix,
    pub sport: Option<(u16, u16)>,
    pub dport: Option<(u16, u16)>,
    pub protocol: Option<u8>,
}

fn case(seed: &'static str, size: &'static str, count: usize) -> Result<Case, String> {
    let filters = match data::gunzip(&format!("classbench/{seed}_{size}.rules.gz")) {
        Some(text) => text
            .lines()
            .map(parse_filter)
            .collect::<Option<_>>()
            .ok_or("not ClassBench")?,
        None => generate(seed, count),
    };
    let filters: Vec<Filter> = filters;
    let flows = match data::gunzip(&format!("classbench/{seed}_{size}.trace.gz")) {
        Some(text) => text
            .lines()
            .map(parse_packet)
            .collect::<Option<_>>()
            .ok_or("not ClassBench")?,
        None => draw(&filters, DRAWN),
    };
    let target = match count {
        1000 => 60.,
        10_000 => 100.,
        _ => 200.,
    };
    let table = Table {
        packets: "trace",
        flows,
        expected: Expected::Oracle,
        target: Target {
            hot: None,
            rnd: Some(target),
        },
    };
    let policy = policy(&filters)?;
    Ok(Case::new(policy, Floor::Hash(Vec::new()), vec![table]))
}

/// A rule each, the first line first; about half of them drop.
fn policy(filters: &[Filter]) -> Result<Policy, String> {
    let mut policy = Policy::builder();
    for (i, filter) in filters.iter().enumerate() {
        let action = if drops(i) { Action::Drop } else { Action::Pass };
        let mut rule = rule(i, i as u32 + 1, action);
        rule.matches = filter.matches();
        policy = policy.rule(rule);
    }
    policy.build().map_err(|e| e.to_string())
}

fn drops(i: usize) -> bool {
    mix32(i as u32) & 1 == 1
}

impl Filter {
    fn matches(&self) -> Match {
        let address = |prefix: Prefix| within(prefix).filter(|_| prefix.len() > 0);
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
fn parse_packet(line: &str) -> Option<Headers> {
    let columns: Vec<&str> = line.split_whitespace().collect();
    let [src, dst, sport, dport, protocol, ..] = columns[..] else {
        return None;
    };
    let address = |text: &str| Some(IpAddr::V4(Ipv4Addr::from_bits(text.parse().ok()?)));
    let flow = Flow {
        src: address(src)?,
        dst: address(dst)?,
        sport: sport.parse().ok()?,
        dport: dport.parse().ok()?,
        protocol: protocol.parse().ok()?,
    };
    Some(flow.headers())
}

/// Packets that random filters match, unless an earlier one does.
fn draw(filters: &[Filter], count: usize) -> Vec<Headers> {
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
            Ipv4Addr::from_bits(first.to_bits() | random.next() & below).into()
        };
        let (src, dst) = (address(f.src), address(f.dst));
        let any = if random.below(2) == 0 { TCP } else { UDP };
        let protocol = f.protocol.unwrap_or(any);
        Flow {
            src,
            dst,
            protocol,
            sport,
            dport,
        }
        .headers()
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
