//! No rules, lists of hosts, lists of prefixes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use xdpgate::policy::{AddressSet, Policy, Prefix};

use super::{Recipe, data};
use crate::case::{Case, Floor, Table, Target, block_list, flow_count};
use crate::flow::{FRAME, Flow, Headers};
use crate::numbers::{address, mix32, short, v4, v6};

const IPSUM: &str = "lists/ipsum.txt.gz";

pub fn recipes() -> Vec<Recipe> {
    let mut recipes = vec![
        Recipe::new("no rules v4", || no_rules(false, FRAME)),
        Recipe::new("no rules v4 9000 B", || no_rules(false, 9014)),
        Recipe::new("no rules v6", || no_rules(true, FRAME)),
    ];
    for (is_v6, count) in [
        (false, 1),
        (false, 1000),
        (false, 100_000),
        (false, 1_000_000),
        (true, 1),
        (true, 1000),
        (true, 100_000),
        (true, 1_000_000),
    ] {
        let name = format!("{} hosts {}", family(is_v6), short(count as usize));
        recipes.push(Recipe::new(name, move || hosts(count, is_v6)));
    }
    recipes.push(Recipe::new(data::title("v4 hosts ipsum", IPSUM), ipsum));
    for (is_v6, count) in [
        (false, 1000),
        (false, 100_000),
        (true, 1000),
        (true, 100_000),
    ] {
        let name = format!("{} prefixes {}", family(is_v6), short(count as usize));
        recipes.push(Recipe::new(name, move || prefixes(count, is_v6)));
    }
    recipes
}

fn family(is_v6: bool) -> &'static str {
    if is_v6 { "v6" } else { "v4" }
}

fn no_rules(is_v6: bool, frame: usize) -> Result<Case, String> {
    let policy = Policy::builder().build().map_err(|e| e.to_string())?;
    let target = if is_v6 {
        Target::new(10., 12.)
    } else {
        Target::new(8., 10.)
    };
    let flows = flows(1 << 16, |i| address(is_v6, i));
    let tables = vec![Table::miss(flows, target)];
    Ok(Case {
        v6: is_v6,
        frame,
        ..Case::new(policy, Floor::Hash(Vec::new()), tables)
    })
}

/// `count` random hosts.
fn hosts(count: u32, is_v6: bool) -> Result<Case, String> {
    let entries = (0..count)
        .map(|i| Prefix::host(address(is_v6, i)))
        .collect();
    let miss = |r| address(is_v6, count + 2_000_000 + r % 2_000_000_000);
    of_hosts(entries, is_v6, miss)
}

/// The ipsum list, or as many random hosts.
fn ipsum() -> Result<Case, String> {
    let Some(text) = data::gunzip(IPSUM) else {
        return hosts(120_000, false);
    };
    let set = AddressSet::from_list(&text).map_err(|e| e.to_string())?;
    let entries: Vec<Prefix> = set.iter().collect();
    of_hosts(entries, false, |r| outside(&set, r, v4))
}

fn of_hosts(
    entries: Vec<Prefix>,
    is_v6: bool,
    miss: impl Fn(u32) -> IpAddr,
) -> Result<Case, String> {
    let (hit, missed) = match (entries.len(), is_v6) {
        (..=1024, _) => (Target::new(15., 18.), Target::new(12., 14.)),
        (..=131_072, _) => (Target::new(15., 60.), Target::new(12., 30.)),
        (_, false) => (Target::new(15., 220.), Target::new(12., 110.)),
        (_, true) => (Target::new(20., 280.), Target::new(15., 120.)),
    };
    let flow_total = flow_count(entries.len());
    let count = entries.len() as u32;
    let tables = vec![
        Table::hit(
            flows(flow_total, |r| entries[(r % count) as usize].addr()),
            hit,
        ),
        Table::miss(flows(flow_total, miss), missed),
    ];
    let policy = block_list(&entries).map_err(|e| e.to_string())?;
    Ok(Case {
        v6: is_v6,
        entries: entries.len(),
        block_list: Some(entries.clone()),
        ..Case::new(policy, Floor::Hash(entries), tables)
    })
}

/// `count` random prefixes, IPv4 /20 to /31 or IPv6 /32 to /64.
fn prefixes(count: u32, is_v6: bool) -> Result<Case, String> {
    let entries: Vec<Prefix> = (0..count).map(|i| prefix(i, is_v6)).collect();
    let set = AddressSet::from_prefixes(entries.iter().copied());
    let flow_total = flow_count(count as usize);
    let rnd = if is_v6 { 400. } else { 330. };
    let target = match count {
        100_000 => Target::new(if is_v6 { 30. } else { 18. }, rnd),
        _ => Target::default(),
    };
    let random = |r| address(is_v6, r | 1 << 31);
    let tables = vec![
        Table::hit(
            flows(flow_total, |r| entries[(r % count) as usize].addr()),
            target,
        ),
        Table::miss(
            flows(flow_total, |r| outside(&set, r, random)),
            Target::default(),
        ),
    ];
    let policy = block_list(&entries).map_err(|e| e.to_string())?;
    Ok(Case {
        v6: is_v6,
        entries: entries.len(),
        ..Case::new(policy, Floor::Lpm(entries), tables)
    })
}

fn prefix(i: u32, is_v6: bool) -> Prefix {
    let r = mix32(i ^ 0x1234_5678) % 100;
    let r8 = r as u8;
    let prefix = if is_v6 {
        let len = match r {
            0..50 => 48,
            50..75 => 64,
            _ => 32 + r8 % 32,
        };
        let IpAddr::V6(a) = v6(i) else {
            unreachable!("asked for IPv6")
        };
        let bits = a.to_bits() & u128::MAX << (128 - len);
        Prefix::new(Ipv6Addr::from_bits(bits).into(), len)
    } else {
        let len = match r {
            0..60 => 24,
            60..80 => 25 + r8 % 7,
            _ => 20 + r8 % 4,
        };
        let IpAddr::V4(a) = v4(i) else {
            unreachable!("asked for IPv4")
        };
        let bits = a.to_bits() & u32::MAX << (32 - len);
        Prefix::new(Ipv4Addr::from_bits(bits).into(), len)
    };
    prefix.expect("masked")
}

/// A random address that is in no entry.
fn outside(set: &AddressSet, r: u32, random: impl Fn(u32) -> IpAddr) -> IpAddr {
    let mut candidates = (0..).map(|k: u32| random(r.wrapping_add(k << 8)));
    let found = candidates.find(|a| !set.contains(*a));
    found.expect("an address outside")
}

fn flows(count: u32, source: impl Fn(u32) -> IpAddr) -> Vec<Headers> {
    let flow = |i: u32| Flow::from_source(source(mix32(i ^ 0x9e37)), 1024 + (i % 60_000) as u16);
    (0..count).map(|i| flow(i).headers()).collect()
}
