//! Rate limits, under and over the limit.

use std::net::IpAddr;

use xdpgate::Verdict;
use xdpgate::policy::{Action, Policy, RateLimit, RateScope, RateUnit};

use super::Recipe;
use crate::case::{Case, Expected, Floor, Table, Target, flow_count, rule};
use crate::flow::Flow;
use crate::numbers::{mix32, v4};

pub fn recipes() -> Vec<Recipe> {
    let per_source = RateScope::Source { v4: 32, v6: 128 };
    let mut recipes = Vec::new();
    for (name, scope, sources) in [
        ("rate limit per rule", RateScope::Rule, 1000),
        ("rate limit per source 1k", per_source, 1000),
        ("rate limit per source 100k", per_source, 100_000),
    ] {
        for over in [false, true] {
            let packets = if over { "over" } else { "under" };
            let make = move || limited(scope, sources, over);
            recipes.push(Recipe::new(format!("{name}, {packets}"), make));
        }
    }
    recipes
}

fn limited(scope: RateScope, sources: u32, over: bool) -> Result<Case, String> {
    // A frame does not fit into a burst of one bit, so all are over it, at any speed.
    let (unit, rate, burst) = match over {
        true => (RateUnit::Bits, 1, 1),
        false => (RateUnit::Packets, 1_000_000_000, 1_000_000_000),
    };
    let limit = RateLimit {
        unit,
        rate,
        burst,
        scope,
    };
    let policy = Policy::builder()
        .rule(rule(0, 10, Action::RateLimit(limit)))
        .build()
        .map_err(|e| e.to_string())?;
    let source = |i: u32| -> IpAddr { v4(mix32(i) % sources) };
    let flow = |i: u32| Flow::from_source(source(i), 1024 + (i % 60_000) as u16);
    let target = match (scope, sources) {
        (RateScope::Rule, _) => Target {
            hot: Some(40.),
            rnd: None,
        },
        (_, 100_000) => Target::new(60., 150.),
        _ => Target::default(),
    };
    let table = Table {
        packets: if over { "over" } else { "under" },
        flows: (0..flow_count(sources as usize))
            .map(|i| flow(i).headers())
            .collect(),
        expected: Expected::All(if over { Verdict::Drop } else { Verdict::Pass }),
        target,
    };
    Ok(Case::new(policy, Floor::Hash(Vec::new()), vec![table]))
}
