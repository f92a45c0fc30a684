//! Exact five-tuples, a rule each.

use std::net::{IpAddr, Ipv4Addr};

use xdpgate::policy::{Action, Policy, Prefix, Ranges};

use super::Recipe;
use crate::case::{Case, Floor, Table, Target, flow_count, rule, within};
use crate::flow::{Flow, TCP, UDP};
use crate::numbers::{Random, mix32, short, v4};

pub fn recipes() -> Vec<Recipe> {
    [1000, 100_000, 1_000_000]
        .map(|count| {
            let name = format!("five-tuples {}", short(count as usize));
            Recipe::new(name, move || five_tuples(count))
        })
        .into()
}

/// The `i`-th of the tuples that are dropped: services that are abused for amplification.
fn tuple(i: u32) -> Flow {
    const PORTS: [u16; 8] = [53, 80, 123, 443, 1900, 11211, 3478, 27015];
    Flow {
        src: v4(i),
        dst: IpAddr::V4(Ipv4Addr::new(198, 18, 0, 1 + (i % 250) as u8)),
        protocol: if i.is_multiple_of(2) { UDP } else { TCP },
        sport: 1024 + (mix32(i.wrapping_mul(3) + 1) % 60_000) as u16,
        dport: PORTS[(mix32(i + 9) & 7) as usize],
    }
}

fn five_tuples(count: u32) -> Result<Case, String> {
    let tuples: Vec<Flow> = (0..count).map(tuple).collect();
    let mut policy = Policy::builder();
    for (i, t) in tuples.iter().enumerate() {
        let mut rule = rule(i, 10, Action::Drop);
        rule.matches.src = within(Prefix::host(t.src));
        rule.matches.dst = within(Prefix::host(t.dst));
        rule.matches.protocol = Some(Ranges::single(t.protocol));
        rule.matches.sport = Some(Ranges::single(t.sport));
        rule.matches.dport = Some(Ranges::single(t.dport));
        policy = policy.rule(rule);
    }
    let policy = policy.build().map_err(|e| e.to_string())?;
    let mut random = Random::new(5);
    let mut pick = || tuples[random.below(count) as usize];
    let flows = flow_count(count as usize);
    let hits = (0..flows).map(|_| pick().headers()).collect();
    // All fields but one: what a lookup of the address alone cannot tell apart.
    let mut near = || {
        let tuple = pick();
        Flow {
            sport: tuple.sport ^ 0x8000,
            ..tuple
        }
        .headers()
    };
    let misses = (0..flows).map(|_| near()).collect();
    let (hit, miss) = match count {
        1_000_000 => (Target::new(30., 330.), Target::new(20., 160.)),
        _ => Default::default(),
    };
    let tables = vec![Table::hit(hits, hit), Table::miss(misses, miss)];
    Ok(Case::new(policy, Floor::Tuples(tuples), tables))
}
