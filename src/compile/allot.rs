//! Which structure finds which rule.

use std::collections::HashMap;

use super::axis;
use crate::abi::{AXIS_DST, AXIS_SRC, EXTRA_CLASSES, MAX_ROWED};
use crate::policy::{
    Action, AddressItem, AddressMatch, Match, Mode, PolicyError, Prefix, Ranges, Rule,
};

/// Where a rule is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In the outcome of an address of this direction: nothing else matters.
    Address(usize),
    /// In the table of IPv4 five-tuples.
    Exact,
    /// In the lists of a pair of address labels; the rest is of this class.
    Pair(u32),
    /// In the rows of bits.
    Row,
}

/// The places of all rules, and the classes of what pairs leave to be checked.
#[derive(Debug)]
pub(super) struct Allotment {
    pub(super) places: Vec<Place>,
    /// By class: what a packet must be besides addresses, protocol and ports. Class 0 asks nothing.
    pub(super) classes: Vec<Match>,
}

/// Finds a place for every rule. Up to `rows_up_to` rules that need more than one address go into
/// the rows, all of them, unless all are of one five-tuple each; beyond that only those that nothing
/// else can hold.
pub(super) fn allot(rules: &[&Rule], rows_up_to: usize) -> Allotment {
    let mut classes = Classes::default();
    let by_address =
        |rule: &Rule| address_alone(rule).filter(|_| !is_passive(rule) && !is_scoped(rule));
    let others: Vec<&&Rule> = rules.iter().filter(|r| by_address(r).is_none()).collect();
    let are_exact = others.iter().all(|r| is_exact(r) && !is_passive(r));
    let are_few = others.len() <= rows_up_to && !are_exact;
    let places = rules
        .iter()
        .map(|rule| match by_address(rule) {
            Some(direction) => Place::Address(direction),
            None if are_few || is_passive(rule) => Place::Row,
            None if is_exact(rule) => Place::Exact,
            None => match pair_class(rule).and_then(|m| classes.number(m)) {
                Some(class) => Place::Pair(class),
                None => Place::Row,
            },
        })
        .collect();
    Allotment {
        places,
        classes: classes.list,
    }
}

impl Allotment {
    /// The rules of the rows, in order.
    pub(super) fn rowed(&self) -> Vec<u32> {
        let places = (0..).zip(&self.places);
        places
            .filter(|(_, p)| **p == Place::Row)
            .map(|(n, _)| n)
            .collect()
    }

    /// Moves rules into the rows.
    pub(super) fn move_to_rows(&mut self, rules: &[u32]) {
        for number in rules {
            self.places[*number as usize] = Place::Row;
        }
    }

    /// Whether the rows can hold theirs.
    pub(super) fn check(&self, rules: &[&Rule]) -> Result<(), PolicyError> {
        let rowed = self.rowed();
        if rowed.len() <= MAX_ROWED {
            return Ok(());
        }
        let passive = rowed
            .iter()
            .filter(|n| is_passive(rules[**n as usize]))
            .count();
        Err(PolicyError::limit(
            None,
            format!(
                "{} rules need the general classifier, the limit is {MAX_ROWED}: {passive} of them only \
                 count or are in monitor mode, the others have negated or many overlapping \
                 addresses, lists of ports or many kinds of further fields",
                rowed.len()
            ),
        )
        .mend("merge rules that differ only in addresses by naming an address set")
        .about(&rules[rowed[MAX_ROWED] as usize].id))
    }
}

/// Whether evaluation goes on behind the rule.
pub(super) fn is_passive(rule: &Rule) -> bool {
    rule.action == Action::Count || rule.mode == Mode::Monitor
}

pub(super) fn is_scoped(rule: &Rule) -> bool {
    !rule.interfaces.is_empty()
}

/// Whether more than the packet says if the rule holds.
pub(super) fn is_conditional(rule: &Rule) -> bool {
    rule.expires.is_some() || is_scoped(rule)
}

/// The direction whose address alone decides.
fn address_alone(rule: &Rule) -> Option<usize> {
    let m = &rule.matches;
    if axis::constrains_fields(m) || has_negation(m) {
        return None;
    }
    match (&m.src, &m.dst) {
        (Some(_), Some(_)) => None,
        (None, Some(_)) => Some(AXIS_DST),
        _ => Some(AXIS_SRC),
    }
}

fn has_negation(m: &Match) -> bool {
    let negated = |a: &Option<AddressMatch>| a.as_ref().is_some_and(|a| a.negated);
    negated(&m.src) || negated(&m.dst)
}

/// Whether one IPv4 five-tuple and nothing else matches.
fn is_exact(rule: &Rule) -> bool {
    exact_key(rule).is_some() && !is_conditional(rule)
}

/// The addresses, and ports and protocol, of a rule that one IPv4 five-tuple matches.
pub(super) fn exact_key(rule: &Rule) -> Option<u128> {
    let m = &rule.matches;
    let host = |a: &Option<AddressMatch>| match a.as_ref().map(|a| (a.negated, &a.items[..])) {
        Some((false, [AddressItem::Prefix(p)])) => host4(*p),
        _ => None,
    };
    let rest = Match {
        src: None,
        dst: None,
        family: None,
        protocol: None,
        sport: None,
        dport: None,
        ..m.clone()
    };
    if rest != Match::default() {
        return None;
    }
    let (src, dst) = (host(&m.src)?, host(&m.dst)?);
    let (sport, dport) = (one(&m.sport)?, one(&m.dport)?);
    let protocol = one(&m.protocol)?;
    Some(
        u128::from(src) << 96
            | u128::from(dst) << 64
            | u128::from(sport) << 48
            | u128::from(dport) << 32
            | u128::from(protocol),
    )
}

fn host4(prefix: Prefix) -> Option<u32> {
    match prefix.addr() {
        std::net::IpAddr::V4(a) if prefix.is_host() => Some(a.to_bits()),
        _ => None,
    }
}

fn one<T: Copy + Ord + Into<u32> + TryFrom<u32>>(ranges: &Option<Ranges<T>>) -> Option<T> {
    match ranges.as_ref()?.as_slice() {
        [(lo, hi)] if lo == hi => Some(*lo),
        _ => None,
    }
}

/// What a box cannot say of a rule: everything but addresses, one protocol and one range of each
/// port. `None` for a rule that cannot stand in the lists of a pair.
fn pair_class(rule: &Rule) -> Option<Match> {
    let m = &rule.matches;
    if has_negation(m) {
        return None;
    }
    let is_range = |r: &Option<Ranges<u16>>| r.as_ref().is_some_and(|r| r.as_slice().len() == 1);
    Some(Match {
        src: None,
        dst: None,
        family: None,
        protocol: m.protocol.clone().filter(|_| one(&m.protocol).is_none()),
        sport: m.sport.clone().filter(|_| !is_range(&m.sport)),
        dport: m.dport.clone().filter(|_| !is_range(&m.dport)),
        ..m.clone()
    })
}

#[derive(Debug)]
struct Classes {
    list: Vec<Match>,
    numbers: HashMap<Match, u32>,
}

impl Default for Classes {
    fn default() -> Self {
        Self {
            list: vec![Match::default()],
            numbers: HashMap::from([(Match::default(), 0)]),
        }
    }
}

impl Classes {
    /// The number of a class; `None` if there are too many.
    fn number(&mut self, class: Match) -> Option<u32> {
        if let Some(number) = self.numbers.get(&class) {
            return Some(*number);
        }
        let number = self.list.len();
        if number == EXTRA_CLASSES {
            return None;
        }
        self.list.push(class.clone());
        self.numbers.insert(class, number as u32);
        Some(number as u32)
    }
}
