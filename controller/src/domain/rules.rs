//! The rules of a policy.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use xdpgate::policy::{AddressItem, Rule, RuleId, SetName};

use super::Name;

/// A rule, and which version of its policy touched it last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleState {
    /// The rule.
    pub rule: Rule,
    /// The version.
    pub version: u64,
}

/// Rules by id. A copy shares what it does not change.
#[derive(Debug, Clone, Default)]
pub struct Rules(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    rules: Vec<Arc<RuleState>>,
    /// The sets that they name, once that was asked.
    sets: OnceLock<BTreeSet<Name>>,
}

/// A rule as it was and as it is; absent if it came or went.
pub type Difference<'a> = (Option<&'a Arc<RuleState>>, Option<&'a Arc<RuleState>>);

impl Rules {
    /// Of rules in any order; the last one of an id counts.
    pub fn new(rules: impl IntoIterator<Item = RuleState>) -> Self {
        let mut rules: Vec<_> = rules.into_iter().map(Arc::new).collect();
        rules.reverse();
        rules.sort_by(|a, b| a.rule.id.cmp(&b.rule.id));
        rules.dedup_by(|a, b| a.rule.id == b.rule.id);
        Self::sorted(rules)
    }

    fn sorted(rules: Vec<Arc<RuleState>>) -> Self {
        Self(Arc::new(Inner {
            rules,
            sets: OnceLock::new(),
        }))
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.rules.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.rules.is_empty()
    }

    /// All, by id.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<RuleState>> {
        self.0.rules.iter()
    }

    /// The rule with this id.
    pub fn get(&self, id: &str) -> Option<&Arc<RuleState>> {
        self.place(id).ok().map(|place| &self.0.rules[place])
    }

    /// With these rules put (`Some`) and removed (`None`), made in their order.
    pub fn edit(&mut self, changes: impl IntoIterator<Item = (RuleId, Option<RuleState>)>) {
        let mut rules = self.0.rules.clone();
        for (id, state) in changes {
            let place = rules.binary_search_by(|r| r.rule.id.as_str().cmp(id.as_str()));
            match (place, state) {
                (Ok(place), Some(state)) => rules[place] = Arc::new(state),
                (Err(place), Some(state)) => rules.insert(place, Arc::new(state)),
                (Ok(place), None) => {
                    rules.remove(place);
                }
                (Err(_), None) => {}
            }
        }
        *self = Self::sorted(rules);
    }

    /// The sets that they name.
    pub fn sets(&self) -> &BTreeSet<Name> {
        self.0.sets.get_or_init(|| {
            let rules = self.0.rules.iter();
            let names: BTreeSet<&SetName> =
                rules.flat_map(|state| set_names(&state.rule)).collect();
            let names = names
                .into_iter()
                .filter_map(|name| Name::new(name.as_str()).ok());
            names.collect()
        })
    }

    /// What differs from `self` to `to`, by id: the rule here and the rule there. Costs a comparison of pointers for what
    /// both share.
    pub fn differences<'a>(&'a self, to: &'a Self) -> Vec<Difference<'a>> {
        let mut out = Vec::new();
        if Arc::ptr_eq(&self.0, &to.0) {
            return out;
        }
        let (mut a, mut b) = (self.0.rules.iter().peekable(), to.0.rules.iter().peekable());
        loop {
            match (a.peek(), b.peek()) {
                (None, None) => return out,
                (Some(x), Some(y)) if Arc::ptr_eq(x, y) => {
                    a.next();
                    b.next();
                }
                (Some(x), Some(y)) if x.rule.id == y.rule.id => {
                    if x.rule != y.rule {
                        out.push((a.next(), b.next()));
                    } else {
                        a.next();
                        b.next();
                    }
                }
                (Some(x), Some(y)) if x.rule.id > y.rule.id => out.push((None, b.next())),
                (Some(_), _) => out.push((a.next(), None)),
                (None, Some(_)) => out.push((None, b.next())),
            }
        }
    }

    fn place(&self, id: &str) -> Result<usize, usize> {
        self.0
            .rules
            .binary_search_by(|r| r.rule.id.as_str().cmp(id))
    }
}

/// The sets that a rule names.
pub fn set_names(rule: &Rule) -> impl Iterator<Item = &SetName> {
    let addresses = [&rule.matches.src, &rule.matches.dst];
    let items = addresses.into_iter().flatten().flat_map(|m| &m.items);
    items.filter_map(|item| match item {
        AddressItem::Set(name) => Some(name),
        AddressItem::Prefix(_) => None,
    })
}

impl PartialEq for Rules {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.rules == other.0.rules
    }
}

impl Eq for Rules {}
