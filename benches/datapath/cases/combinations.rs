//! Rules of 35 combinations of fields: the 31 subsets of the five-tuple, and four with prefixes and
//! port ranges.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};

use xdpgate::policy::{Action, Match, Policy, Prefix, Ranges};

use super::Recipe;
use crate::case::{Case, Floor, Table, Target, rule, within};
use crate::flow::{Flow, Headers, TCP, UDP};
use crate::numbers::{Random, mix32, v4};

const SRC: u8 = 1;
const DST: u8 = 2;
const SPORT: u8 = 4;
const DPORT: u8 = 8;
const PROTOCOL: u8 = 16;
/// The address is a /24.
const WIDE_SRC: u8 = 32;
const WIDE_DST: u8 = 64;
/// The port is a range of 16.
const WIDE_DPORT: u8 = 128;

/// Ports and protocols are few: so many rules of a combination without an address.
const MOST_WITHOUT_ADDRESS: u32 = 60;

/// Ports that no rule has.
const FREE_PORTS: (u16, u16) = (55_000, 65_000);

pub fn recipes() -> Vec<Recipe> {
    [(1, "35 x 1"), (143, "35 x 143"), (5000, "35 x 5k")]
        .map(|(per_combination, name)| {
            Recipe::new(format!("combinations {name}"), move || {
                combinations(per_combination)
            })
        })
        .into()
}

fn all() -> impl Iterator<Item = u8> {
    let wide = [
        SRC | WIDE_SRC | DPORT | PROTOCOL,
        SRC | WIDE_SRC | DST | WIDE_DST | PROTOCOL,
        SRC | DST | WIDE_DST | DPORT | WIDE_DPORT,
        DST | WIDE_DST | DPORT | WIDE_DPORT | PROTOCOL,
    ];
    (1..32).chain(wide)
}

/// A rule as values and the fields that it looks at.
#[derive(Clone, Copy)]
struct Shape {
    fields: u8,
    values: Flow,
}

impl Shape {
    fn new(combination: u32, fields: u8, k: u32) -> Self {
        let id = combination * 1_000_003 + k;
        let has_address = fields & (SRC | DST) != 0;
        let port = |n: u32| match has_address {
            true => (10_000 + (mix32(n) % 40_000) as u16) & !15,
            false => 1 + ((combination * 61 + k) % 4000) as u16,
        };
        let protocol = match (fields, k % 2) {
            // Alone it would judge all TCP or UDP. 143 to 202 are not assigned.
            (PROTOCOL, _) => 143 + k as u8,
            (_, 0) => UDP,
            _ => TCP,
        };
        let values = Flow {
            src: v4(id),
            dst: v4(id + 0x2000_0000),
            protocol,
            sport: port(id),
            dport: port(id + 1),
        };
        Self { fields, values }
    }

    fn has(&self, field: u8) -> bool {
        self.fields & field != 0
    }

    fn src(&self) -> Prefix {
        network(self.values.src, self.has(WIDE_SRC))
    }

    fn dst(&self) -> Prefix {
        network(self.values.dst, self.has(WIDE_DST))
    }

    fn matches(&self) -> Match {
        let v = &self.values;
        let last = v.dport + if self.has(WIDE_DPORT) { 15 } else { 0 };
        Match {
            src: within(self.src()).filter(|_| self.has(SRC)),
            dst: within(self.dst()).filter(|_| self.has(DST)),
            protocol: self.has(PROTOCOL).then(|| Ranges::single(v.protocol)),
            sport: self.has(SPORT).then(|| Ranges::single(v.sport)),
            dport: self.has(DPORT).then(|| Ranges::new([(v.dport, last)])),
            ..Match::default()
        }
    }

    /// A packet of `other`, with what the rule looks at taken from the rule.
    fn hit(&self, other: Flow) -> Headers {
        let v = &self.values;
        let pick = |field, own: u16, others| if self.has(field) { own } else { others };
        Flow {
            src: if self.has(SRC) {
                self.src().addr()
            } else {
                other.src
            },
            dst: if self.has(DST) {
                self.dst().addr()
            } else {
                other.dst
            },
            protocol: if self.has(PROTOCOL) {
                v.protocol
            } else {
                other.protocol
            },
            sport: pick(SPORT, v.sport, other.sport),
            dport: pick(DPORT, v.dport, other.dport),
        }
        .headers()
    }
}

fn network(address: IpAddr, wide: bool) -> Prefix {
    let IpAddr::V4(a) = address else {
        unreachable!("IPv4 only")
    };
    match wide {
        false => Prefix::host(address),
        true => Prefix::new(Ipv4Addr::from_bits(a.to_bits() & !0xff).into(), 24).expect("masked"),
    }
}

fn combinations(per_combination: u32) -> Result<Case, String> {
    let mut shapes = Vec::new();
    for (combination, fields) in (0..).zip(all()) {
        let count = match fields & (SRC | DST) {
            0 => per_combination.min(MOST_WITHOUT_ADDRESS),
            _ => per_combination,
        };
        shapes.extend((0..count).map(|k| Shape::new(combination, fields, k)));
    }
    let mut policy = Policy::builder();
    for (i, shape) in shapes.iter().enumerate() {
        // Spread, not grouped by combination.
        let mut rule = rule(i, mix32(i as u32), Action::Drop);
        rule.matches = shape.matches();
        policy = policy.rule(rule);
    }
    let policy = policy.build().map_err(|e| e.to_string())?;

    // Wide enough that random packets would fall into them.
    let taken: HashSet<Prefix> = shapes.iter().flat_map(|s| [s.src(), s.dst()]).collect();
    let mut random = Random::new(35);
    let mut stranger = |j: u32| {
        let free = |from: u32| {
            let mut candidates = (0..).map(|k| v4(from + j + (k << 20)));
            let is_free = |a: &IpAddr| !taken.contains(&network(*a, true));
            candidates.find(is_free).expect("an address outside")
        };
        Flow {
            src: free(0x7000_0000),
            dst: free(0x7100_0000),
            protocol: if random.below(2) == 0 { TCP } else { UDP },
            sport: random.within(FREE_PORTS.0, FREE_PORTS.1),
            dport: random.within(FREE_PORTS.0, FREE_PORTS.1),
        }
    };
    let strangers: Vec<Flow> = (0..1 << 16).map(&mut stranger).collect();
    let mut random = Random::new(36);
    let mut hit = |flow: &Flow| shapes[random.below(shapes.len() as u32) as usize].hit(*flow);
    let hits = strangers.iter().map(&mut hit).collect();
    let misses = strangers.iter().map(Flow::headers).collect();
    let (hit, miss) = match per_combination {
        1 => Default::default(),
        _ => (Target::new(35., 150.), Target::new(25., 40.)),
    };
    let tables = vec![Table::hit(hits, hit), Table::miss(misses, miss)];
    Ok(Case::new(policy, Floor::Hash(Vec::new()), tables))
}
