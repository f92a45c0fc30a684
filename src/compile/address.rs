//! The address index of one direction: prefix closure, outcomes, and the structures that find them.
//!
//! Every prefix of a set or an inline list is an entry with a *label* that says where it came from.
//! Entries are swept in order of address and length, with the covering prefixes on a stack. The
//! *outcome* of an entry stands for all prefixes that cover it (the prefix closure), not for the
//! longest one: that is how priority survives nesting.

use std::collections::HashMap;
use std::net::IpAddr;

use super::hosts;
use super::rows::{Row, RowPool};
use super::trie;
use super::{Kind, Refusal, allows};
use crate::abi::{AXIS_SRC, AddressAxis, AddressIndex, Line, NO_RULE, OUTCOME_BITS, Outcome};
use crate::image::ImageWriter;
use crate::policy::{
    AddressItem, AddressMatch, AddressSet, Family, Policy, PolicyError, Rule, SetName,
};

/// IPv4 or IPv6 addresses as numbers.
pub(super) trait Address: Copy + Ord + std::fmt::Debug {
    const FAMILY: Family;
    const WIDTH: u8;
    fn truncate(self, len: u8) -> Self;
    /// The number of an address of this family.
    fn of(addr: IpAddr) -> Option<Self>;
    /// The hosts and prefixes of this family in a set.
    fn of_set(set: &AddressSet) -> (&[Self], &[(Self, u8)]);
}

impl Address for u32 {
    const FAMILY: Family = Family::Ipv4;
    const WIDTH: u8 = 32;
    fn truncate(self, len: u8) -> Self {
        self & crate::policy::mask32(len)
    }
    fn of(addr: IpAddr) -> Option<Self> {
        match addr {
            IpAddr::V4(a) => Some(a.to_bits()),
            IpAddr::V6(_) => None,
        }
    }
    fn of_set(set: &AddressSet) -> (&[Self], &[(Self, u8)]) {
        (&set.v4_hosts, &set.v4_prefixes)
    }
}

impl Address for u128 {
    const FAMILY: Family = Family::Ipv6;
    const WIDTH: u8 = 128;
    fn truncate(self, len: u8) -> Self {
        self & crate::policy::mask128(len)
    }
    fn of(addr: IpAddr) -> Option<Self> {
        match addr {
            IpAddr::V4(_) => None,
            IpAddr::V6(a) => Some(a.to_bits()),
        }
    }
    fn of_set(set: &AddressSet) -> (&[Self], &[(Self, u8)]) {
        (&set.v6_hosts, &set.v6_prefixes)
    }
}

/// A prefix and where it came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry<A> {
    address: A,
    len: u8,
    label: u32,
}

/// A prefix and its outcome; `ancestors` of it have been emitted before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found<A> {
    pub(super) address: A,
    pub(super) len: u8,
    pub(super) outcome: u32,
}

/// What the sweep finds in one family.
struct Swept<A> {
    hosts: Vec<Found<A>>,
    prefixes: Vec<Found<A>>,
    miss: u32,
}

/// What being inside a label's prefixes does to the rules, in one family.
#[derive(Debug, Clone, Default)]
struct Effect {
    best: Option<u32>,
    set: Vec<usize>,
    clear: Vec<usize>,
}

pub(super) struct AddressAxisBuilder<'p> {
    policy: &'p Policy,
    direction: usize,
    /// Rules decided by this direction alone, and structured ones with their bit.
    rules: Vec<(u32, Option<usize>, &'p Rule)>,
    structured: usize,
    sources: Vec<Source<'p>>,
    labels: HashMap<&'p SetName, u32>,
    /// The labels of each of `rules`.
    rule_labels: Vec<Vec<u32>>,
}

/// Where the entries of a label come from.
enum Source<'p> {
    Set(&'p SetName),
    Inline(&'p AddressMatch),
}

impl<'p> AddressAxisBuilder<'p> {
    pub(super) fn new(
        policy: &'p Policy,
        rules: &[&'p Rule],
        kinds: &[Kind],
        structured: &[u32],
        direction: usize,
    ) -> Self {
        let mut builder = Self {
            policy,
            direction,
            rules: Vec::new(),
            structured: structured.len(),
            sources: Vec::new(),
            labels: HashMap::new(),
            rule_labels: Vec::new(),
        };
        let mut bit = 0;
        for ((number, rule), kind) in (0..).zip(rules).zip(kinds) {
            match kind {
                Kind::Structured => {
                    builder.add(number, Some(bit), rule);
                    bit += 1;
                }
                Kind::Address(d) if *d == direction => builder.add(number, None, rule),
                Kind::Address(_) => {}
            }
        }
        builder
    }

    /// Whether any rule depends on this direction.
    pub(super) fn is_needed(&self, axes: u32) -> bool {
        axes & (1 << self.direction) != 0 || self.rules.iter().any(|(_, bit, _)| bit.is_none())
    }

    fn address_match(&self, rule: &'p Rule) -> Option<&'p AddressMatch> {
        if self.direction == AXIS_SRC {
            rule.matches.src.as_ref()
        } else {
            rule.matches.dst.as_ref()
        }
    }

    fn add(&mut self, number: u32, bit: Option<usize>, rule: &'p Rule) {
        let mut labels = Vec::new();
        if let Some(m) = self.address_match(rule) {
            let mut inline = false;
            for item in &m.items {
                match item {
                    AddressItem::Prefix(_) => inline = true,
                    AddressItem::Set(name) => {
                        let next = self.sources.len() as u32;
                        let label = *self.labels.entry(name).or_insert(next);
                        if label == next {
                            self.sources.push(Source::Set(name));
                        }
                        labels.push(label);
                    }
                }
            }
            if inline {
                labels.push(self.sources.len() as u32);
                self.sources.push(Source::Inline(m));
            }
        }
        self.rules.push((number, bit, rule));
        self.rule_labels.push(labels);
    }

    pub(super) fn build(
        self,
        image: &mut ImageWriter,
        seed: [u64; 2],
    ) -> Result<AddressAxis, Refusal> {
        let mut outcomes = Outcomes::new(self.structured);
        let v4 = self.sweep::<u32>(&mut outcomes);
        let v6 = self.sweep::<u128>(&mut outcomes);
        if outcomes.list.len() >= 1 << OUTCOME_BITS {
            return Err(PolicyError::limit(
                None,
                format!(
                    "addresses fall into {} classes, the limit is {}",
                    outcomes.list.len(),
                    1 << OUTCOME_BITS
                ),
            )
            .mend("use fewer rules with nested or overlapping prefixes")
            .into());
        }
        let host4 = hosts::build4(&v4.hosts, seed)?;
        let hosts6: Vec<_> = v6.hosts.iter().map(|f| (f.address, 0, f.outcome)).collect();
        let host6 = hosts::build6(&hosts6, seed)?;
        let mut axis = AddressAxis {
            v4: write_hosts(&host4, v4.miss, image),
            v6: write_hosts(&host6, v6.miss, image),
            outcomes: 0,
            rows: 0,
        };
        drop((host4, host6));
        trie::write4(&v4.prefixes, &mut axis.v4, image)?;
        trie::write6(&v6.prefixes, &mut axis.v6, seed, image)?;
        if self.structured > 0 {
            axis.outcomes = image.section(&outcomes.list);
            axis.rows = outcomes.pool.write(image);
        }
        Ok(axis)
    }

    /// All entries of one family, sorted by address, length and label.
    fn entries<A: Address>(&self) -> Vec<Entry<A>> {
        let mut out = Vec::new();
        for (label, source) in (0..).zip(&self.sources) {
            let entry = |address, len| Entry {
                address,
                len,
                label,
            };
            match source {
                Source::Set(name) => {
                    let Some(set) = self.policy.sets().get(*name) else {
                        continue;
                    };
                    let (hosts, prefixes) = A::of_set(set);
                    out.reserve(hosts.len() + prefixes.len());
                    out.extend(hosts.iter().map(|a| entry(*a, A::WIDTH)));
                    out.extend(prefixes.iter().map(|(a, len)| entry(*a, *len)));
                }
                Source::Inline(m) => out.extend(m.items.iter().filter_map(|item| match item {
                    AddressItem::Prefix(p) => Some(entry(A::of(p.addr())?, p.len())),
                    AddressItem::Set(_) => None,
                })),
            }
        }
        // Stable, because it is fast on runs that are sorted already, as sets are.
        out.sort();
        out
    }

    /// What each label does, and the outcome outside of all of them.
    fn effects(&self, family: Family) -> (Vec<Effect>, u32, Row) {
        let mut effects = vec![Effect::default(); self.sources.len()];
        let mut best = NO_RULE;
        let mut row = Row::empty(self.structured);
        for ((number, bit, rule), labels) in self.rules.iter().zip(&self.rule_labels) {
            if !allows(rule, family) {
                continue;
            }
            let negated = self.address_match(rule).is_some_and(|m| m.negated);
            match bit {
                None if labels.is_empty() => best = best.min(*number),
                None => {
                    for label in labels {
                        let known = &mut effects[*label as usize].best;
                        *known = Some(known.map_or(*number, |n| n.min(*number)));
                    }
                }
                Some(bit) => {
                    if labels.is_empty() || negated {
                        row.set(*bit);
                    }
                    for label in labels {
                        let effect = &mut effects[*label as usize];
                        if negated {
                            &mut effect.clear
                        } else {
                            &mut effect.set
                        }
                        .push(*bit);
                    }
                }
            }
        }
        (effects, best, row)
    }

    fn sweep<A: Address>(&self, outcomes: &mut Outcomes) -> Swept<A> {
        let entries = self.entries::<A>();
        let (effects, best, row) = self.effects(A::FAMILY);
        let row = outcomes.pool.intern(&row);
        let mut base = outcomes.intern(Outcome { best, row });
        let mut steps = Steps {
            effects,
            known: HashMap::new(),
            last: None,
        };
        let mut hosts = Vec::new();
        let mut prefixes = Vec::new();
        let mut stack: Vec<Found<A>> = Vec::new();
        for group in entries.chunk_by(|a, b| a.address == b.address && a.len == b.len) {
            let Entry { address, len, .. } = group[0];
            while stack
                .last()
                .is_some_and(|top| address.truncate(top.len) != top.address)
            {
                stack.pop();
            }
            let parent = stack.last().map_or(base, |top| top.outcome);
            let outcome = group.iter().fold(parent, |outcome, entry| {
                steps.step(outcome, entry.label, outcomes)
            });
            let found = Found {
                address,
                len,
                outcome,
            };
            if len == 0 {
                base = outcome;
            } else if len == A::WIDTH {
                if outcome != parent {
                    hosts.push(found);
                }
            } else {
                stack.push(found);
                if outcome != parent {
                    prefixes.push(found);
                }
            }
        }
        Swept {
            hosts,
            prefixes,
            miss: base,
        }
    }
}

/// The distinct outcomes of a direction. Number 0 means "no entry" and is never handed out. Without
/// structured rules an outcome needs no record: its number is that of its rule + 1.
struct Outcomes {
    list: Vec<Outcome>,
    numbers: HashMap<Outcome, u32>,
    pool: RowPool,
}

impl Outcomes {
    fn new(structured: usize) -> Self {
        Self {
            list: vec![Outcome {
                best: NO_RULE,
                row: 0,
            }],
            numbers: HashMap::new(),
            pool: RowPool::new(structured),
        }
    }

    fn get(&self, number: u32) -> Outcome {
        if self.pool.is_trivial() {
            return Outcome {
                best: number - 1,
                row: 0,
            };
        }
        self.list[number as usize]
    }

    fn intern(&mut self, outcome: Outcome) -> u32 {
        if self.pool.is_trivial() {
            return outcome.best + 1;
        }
        *self.numbers.entry(outcome).or_insert_with(|| {
            self.list.push(outcome);
            (self.list.len() - 1) as u32
        })
    }
}

/// From an outcome, by entering one label, to the next; remembered, because a million entries of
/// one set all take the same step.
struct Steps {
    effects: Vec<Effect>,
    known: HashMap<(u32, u32), u32>,
    last: Option<((u32, u32), u32)>,
}

impl Steps {
    fn step(&mut self, from: u32, label: u32, outcomes: &mut Outcomes) -> u32 {
        if let Some((key, to)) = self.last
            && key == (from, label)
        {
            return to;
        }
        let effects = &self.effects;
        let to = *self.known.entry((from, label)).or_insert_with(|| {
            let effect = &effects[label as usize];
            let Outcome { best, row } = outcomes.get(from);
            let best = effect.best.map_or(best, |n| n.min(best));
            let row = if effect.set.is_empty() && effect.clear.is_empty() {
                row
            } else {
                let mut row = outcomes.pool.get(row).clone();
                effect.set.iter().for_each(|bit| row.set(*bit));
                effect.clear.iter().for_each(|bit| row.clear(*bit));
                outcomes.pool.intern(&row)
            };
            outcomes.intern(Outcome { best, row })
        });
        self.last = Some(((from, label), to));
        to
    }
}

fn write_hosts(table: &[Line], miss: u32, image: &mut ImageWriter) -> AddressIndex {
    let hosts = if table.is_empty() {
        0
    } else {
        image.section(table)
    };
    let host_lines = table.len() as u32;
    AddressIndex {
        hosts,
        host_lines,
        root: 0,
        blocks: 0,
        block_count: 0,
        miss,
    }
}
