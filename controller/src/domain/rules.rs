//! The rules of a policy.

use std::sync::Arc;

use xdpgate::policy::{Rule, RuleId};

/// A rule, and which version of its policy touched it last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleState {
    /// The rule.
    pub rule: Rule,
    /// The version.
    pub version: u64,
}

/// Rules by id. A copy shares what it does not change.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rules(Arc<Vec<Arc<RuleState>>>);

impl Rules {
    /// Of rules in any order; the last one of an id counts.
    pub fn new(rules: impl IntoIterator<Item = RuleState>) -> Self {
        let mut rules: Vec<_> = rules.into_iter().map(Arc::new).collect();
        rules.reverse();
        rules.sort_by(|a, b| a.rule.id.cmp(&b.rule.id));
        rules.dedup_by(|a, b| a.rule.id == b.rule.id);
        Self(Arc::new(rules))
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All, by id.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<RuleState>> {
        self.0.iter()
    }

    /// The rule with this id.
    pub fn get(&self, id: &str) -> Option<&Arc<RuleState>> {
        self.place(id).ok().map(|place| &self.0[place])
    }

    /// With these rules put (`Some`) and removed (`None`), made in their order.
    pub fn edit(&mut self, changes: impl IntoIterator<Item = (RuleId, Option<RuleState>)>) {
        let rules = Arc::make_mut(&mut self.0);
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
    }

    /// What differs from `self` to `to`, by id: the rule here and the rule there. Costs a comparison of pointers for what
    /// both share.
    pub fn differences<'a>(
        &'a self,
        to: &'a Self,
    ) -> Vec<(Option<&'a Arc<RuleState>>, Option<&'a Arc<RuleState>>)> {
        let mut out = Vec::new();
        if Arc::ptr_eq(&self.0, &to.0) {
            return out;
        }
        let (mut a, mut b) = (self.0.iter().peekable(), to.0.iter().peekable());
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
        self.0.binary_search_by(|r| r.rule.id.as_str().cmp(id))
    }
}
