//! ClassBench filter sets: acl1, fw1 and ipc1 with their traces.

use super::filters::{self, Header, SEEDS, SIZES};
use super::{Recipe, data};
use crate::case::{Case, Expected, Floor, Table, Target};
use crate::flow::{Flow, Headers};

/// How many packets are drawn from the rules where there is no trace.
const DRAWN: usize = 1 << 16;

pub fn recipes() -> Vec<Recipe> {
    let mut recipes = Vec::new();
    for size in SIZES {
        for seed in SEEDS {
            let path = filters::rules_file(seed, size.1);
            let name = data::title(&format!("ClassBench {seed} {}", size.1), &path);
            let in_full = format!("{name}, no flow known");
            recipes.push(Recipe::new(name, move || case(seed, size)));
            recipes.push(Recipe::new(in_full, move || {
                Ok(Case {
                    remembers: false,
                    ..case(seed, size)?
                })
            }));
        }
    }
    recipes
}

fn case(seed: &'static str, (count, size): (usize, &'static str)) -> Result<Case, String> {
    let filters = filters::filters(seed, (count, size));
    let trace = filters::trace(seed, size).unwrap_or_else(|| filters::draw(&filters, DRAWN));
    let target = match count {
        1000 => 60.,
        10_000 => 100.,
        _ => 200.,
    };
    let table = Table {
        packets: "trace",
        flows: trace.into_iter().map(headers).collect(),
        expected: Expected::Oracle,
        target: Target {
            hot: None,
            rnd: Some(target),
        },
    };
    let policy = filters::policy(&filters).map_err(|e| e.to_string())?;
    Ok(Case::new(policy, Floor::Hash(Vec::new()), vec![table]))
}

fn headers(header: Header) -> Headers {
    let flow = Flow {
        src: header.src.into(),
        dst: header.dst.into(),
        protocol: header.protocol,
        sport: header.sport,
        dport: header.dport,
    };
    flow.headers()
}
