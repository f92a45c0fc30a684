//! Rules by pairs of address labels.
//!
//! What a rule asks of an address is a *label*. An address has few of them (the prefixes that cover
//! it), so a packet has few pairs of a source and a destination label, and fewer that some rule
//! asks for (Taylor, Turner: "ClassBench", INFOCOM 2005; Baboescu, Varghese, SIGCOMM 2001). A pair
//! leads to a short list of boxes: the protocol and the ranges of ports that are left to check.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::address::{Member, What};
use super::allot::{Place, is_conditional};
use super::{Refusal, hosts};
use crate::abi::{
    self, AXIS_DST, AXIS_SRC, BOX_CONDITIONAL, BOX_LAST, BOX_PORTS, LABEL_BIT, LIST_BOXES, Label,
    PAIR_KEY, PAIR_SPLIT, RuleBox, SPLIT_KEY, Shape,
};
use crate::image::ImageWriter;
use crate::policy::{AddressMatch, Family, Ranges, Rule};
use bytemuck::Zeroable;

/// What rules ask of the addresses of one direction.
#[derive(Debug, Default)]
struct Labels<'p> {
    numbers: HashMap<(Option<&'p AddressMatch>, Option<Family>), u32>,
    members: Vec<Member<'p>>,
    /// By label: how many rules name it.
    weights: Vec<u32>,
}

impl<'p> Labels<'p> {
    /// Labels count from 1.
    fn number(&mut self, address: Option<&'p AddressMatch>, family: Option<Family>) -> u32 {
        let next = self.numbers.len() as u32 + 1;
        let label = *self.numbers.entry((address, family)).or_insert(next);
        if label == next {
            self.weights.resize(next as usize + 1, 0);
            self.members.push(Member {
                what: What::Label(label),
                address,
                family,
            });
        }
        self.weights[label as usize] += 1;
        label
    }
}

/// The boxes of one pair.
#[derive(Debug, Default)]
struct Lists {
    all: Vec<RuleBox>,
    /// By destination port and protocol, if `all` would be too long.
    split: BTreeMap<(u16, u8), Vec<RuleBox>>,
}

/// The rules that are found by pairs.
#[derive(Debug)]
pub(super) struct Pairs<'p> {
    labels: [Labels<'p>; 2],
    lists: BTreeMap<(u32, u32), Lists>,
    /// By rule: its labels.
    rules: Vec<(u32, u32, u32)>,
}

impl<'p> Pairs<'p> {
    /// Takes the rules that have their place here. Those that do not fit are given back: a list has
    /// few boxes.
    pub(super) fn new(rules: &[&'p Rule], places: &[Place]) -> (Self, Vec<u32>) {
        let mut pairs = Self {
            labels: Default::default(),
            lists: BTreeMap::new(),
            rules: Vec::new(),
        };
        for ((number, rule), place) in (0..).zip(rules).zip(places) {
            let Place::Pair(class) = place else { continue };
            let m = &rule.matches;
            let src = pairs.labels[AXIS_SRC].number(m.src.as_ref(), m.family);
            let dst = pairs.labels[AXIS_DST].number(m.dst.as_ref(), None);
            pairs.rules.push((number, src, dst));
            let lists = pairs.lists.entry((src, dst)).or_default();
            lists.all.push(rule_box(number, rule, *class));
        }
        let mut surplus = Vec::new();
        for lists in pairs.lists.values_mut() {
            lists.shorten(&mut surplus);
        }
        (pairs, surplus)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    pub(super) fn members(&self, direction: usize) -> &[Member<'p>] {
        &self.labels[direction].members
    }

    /// By label of a direction: how many rules name it.
    pub(super) fn weights(&self, direction: usize) -> &[u32] {
        &self.labels[direction].weights
    }

    /// The rules that name one of these labels.
    pub(super) fn rules_of(&self, direction: usize, labels: &[u32]) -> Vec<u32> {
        let label = |rule: &(u32, u32, u32)| {
            if direction == AXIS_SRC {
                rule.1
            } else {
                rule.2
            }
        };
        let labels: HashSet<u32> = labels.iter().copied().collect();
        let named = self.rules.iter().filter(|r| labels.contains(&label(r)));
        named.map(|r| r.0).collect()
    }

    /// The ids of the labels of both directions and the bits of their partners, by label.
    pub(super) fn records(&self) -> [Vec<Label>; 2] {
        let mut partners = [AXIS_SRC, AXIS_DST].map(|d| vec![0; self.labels[d].weights.len()]);
        for (src, dst) in self.lists.keys() {
            partners[AXIS_SRC][*src as usize] += 1;
            partners[AXIS_DST][*dst as usize] += 1;
        }
        let bits = partners.map(|p| bits(&p));
        let id =
            |direction: usize, label: u32| label | bits[direction][label as usize] << LABEL_BIT;
        let mut records = [AXIS_SRC, AXIS_DST].map(|direction| {
            let labels = 0..self.labels[direction].weights.len() as u32;
            labels
                .map(|label| Label {
                    id: id(direction, label),
                    partners: 0,
                })
                .collect::<Vec<_>>()
        });
        for (src, dst) in self.lists.keys() {
            records[AXIS_SRC][*src as usize].partners |= 1 << bits[AXIS_DST][*dst as usize];
            records[AXIS_DST][*dst as usize].partners |= 1 << bits[AXIS_SRC][*src as usize];
        }
        records
    }

    /// Writes the table of pairs and the boxes.
    pub(super) fn write(
        &self,
        [srcs, dsts]: &[Vec<Label>; 2],
        seed: [u64; 2],
        shape: &mut Shape,
        image: &mut ImageWriter,
    ) -> Result<(), Refusal> {
        // Number 0 stands for "no boxes".
        let mut boxes = vec![RuleBox::zeroed()];
        let mut keys: Vec<(u128, u8, u32)> = Vec::new();
        let mut put = |list: &[RuleBox]| -> u32 {
            let Some((last, others)) = list.split_last() else {
                return 0;
            };
            let first = boxes.len() as u32;
            boxes.extend(others);
            boxes.push(RuleBox {
                rule: last.rule | BOX_LAST,
                ..*last
            });
            first
        };
        for ((src, dst), lists) in &self.lists {
            let (src, dst) = (srcs[*src as usize].id, dsts[*dst as usize].id);
            let pair = u128::from(src) << 96 | u128::from(dst) << 64;
            let mut value = put(&lists.all);
            for ((port, protocol), list) in &lists.split {
                let rest = u128::from(*port) << 32 | u128::from(*protocol);
                keys.push((pair | rest, SPLIT_KEY as u8, put(list)));
                value |= PAIR_SPLIT;
            }
            keys.push((pair, PAIR_KEY as u8, value));
        }
        let table = hosts::build6(&keys, seed)?;
        shape.features |= abi::FEATURE_PAIRS;
        shape.pairs = image.section(&table);
        shape.pair_lines = table.len() as u32;
        shape.boxes = image.section(&boxes);
        shape.split_pairs = u32::from(self.lists.values().any(|l| !l.split.is_empty()));
        Ok(())
    }
}

/// The bit by which each label is known to its partners. Those with the most partners have one of
/// their own: they cover nearly everything, and would let through what shares their bit.
fn bits(partners: &[u32]) -> Vec<u32> {
    const OWN: u32 = 8;
    let mut order: Vec<u32> = (0..partners.len() as u32).collect();
    order.sort_by_key(|label| std::cmp::Reverse(partners[*label as usize]));
    let mut bits = vec![0; partners.len()];
    for (rank, label) in (0..).zip(order) {
        bits[label as usize] = if rank < OWN {
            rank
        } else {
            OWN + label % (u32::BITS - OWN)
        };
    }
    bits
}

impl Lists {
    /// Splits a list that is too long by destination port and protocol; the rules that still do
    /// not fit are given back.
    fn shorten(&mut self, surplus: &mut Vec<u32>) {
        if self.all.len() > LIST_BOXES {
            let (exact, all) = std::mem::take(&mut self.all)
                .into_iter()
                .partition(|b| split_key(b).is_some());
            self.all = all;
            for rule_box in exact {
                let key = split_key(&rule_box).expect("it has one");
                self.split.entry(key).or_default().push(rule_box);
            }
        }
        for list in self.split.values_mut().chain([&mut self.all]) {
            let fit = list.len().min(LIST_BOXES);
            surplus.extend(list.drain(fit..).map(|b| b.rule & !BOX_CONDITIONAL));
        }
    }
}

/// The destination port and protocol of a box that names one of each.
fn split_key(b: &RuleBox) -> Option<(u16, u8)> {
    let (lo, hi) = (b.dport as u16, (b.dport >> 16) as u16);
    let protocol_mask = b.rest >> 9 & 0x1ff;
    (lo == hi && protocol_mask != 0).then_some((lo, b.rest as u8))
}

fn rule_box(number: u32, rule: &Rule, class: u32) -> RuleBox {
    let m = &rule.matches;
    let range = |r: &Option<Ranges<u16>>| match r.as_ref().map(Ranges::as_slice) {
        Some([(lo, hi)]) => u32::from(*lo) | u32::from(*hi) << 16,
        _ => 0xffff_0000,
    };
    let protocol = match m.protocol.as_ref().map(Ranges::as_slice) {
        Some([(lo, hi)]) if lo == hi => u32::from(*lo) | 0x1ff << 9,
        _ => 0,
    };
    let ports = if m.sport.is_some() || m.dport.is_some() {
        BOX_PORTS
    } else {
        0
    };
    let conditional = if is_conditional(rule) {
        BOX_CONDITIONAL
    } else {
        0
    };
    RuleBox {
        rule: number | conditional,
        sport: range(&m.sport),
        dport: range(&m.dport),
        rest: protocol | ports | class << 19,
    }
}
