//! Finding rules and entries, a page at a time.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use xdpgate::policy::{Action, AddressItem, AddressMatch, Mode, Prefix, Rule, RuleId};

use super::View;
use crate::domain::{Name, RuleState, set_names};

/// Which rules are looked for: those that meet all that is asked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RuleFilter {
    /// Rules of this policy only.
    pub policy: Option<Name>,
    /// Text in the id, name, comment or a label, in upper or lower case.
    pub text: Option<String>,
    /// A label, and its value if one is given.
    pub labels: Vec<(String, Option<String>)>,
    /// An address that a source or destination of the rule holds, by whatever prefix or set; with `not`, one that none of those
    /// named holds.
    pub address: Option<IpAddr>,
    /// A set that the rule names.
    pub set: Option<Name>,
    /// What the rule does: `drop`, `pass`, `count` or `rate_limit`.
    pub action: Option<ActionKind>,
    /// Whether the action is carried out.
    pub mode: Option<Mode>,
    /// Whether the rule is enabled.
    pub enabled: Option<bool>,
    /// Whether the rule has expired at this time, or has not.
    pub expired: Option<(bool, Timestamp)>,
}

/// What a rule does, without how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the words of the policy format")]
pub enum ActionKind {
    Drop,
    Pass,
    Count,
    RateLimit,
}

/// In which order rules are listed; ties by policy and id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RuleOrder {
    /// As they are evaluated: by priority, then by id.
    #[default]
    Priority,
    /// By id.
    Id,
    /// Those of the highest version of their policy, which were changed last, come first.
    Updated,
}

/// After which rule a page begins. It stays good when rules come and go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleCursor {
    /// Its priority, or the version that touched it, as the order asks for.
    pub rank: u64,
    /// Its policy.
    pub policy: Name,
    /// Its id.
    pub rule: RuleId,
}

/// A rule that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundRule {
    /// Its policy.
    pub policy: Name,
    /// The rule.
    pub state: Arc<RuleState>,
}

/// Some of what was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found<T, C> {
    /// These, in order.
    pub items: Vec<T>,
    /// How many there are on all pages.
    pub total: usize,
    /// What the next page begins after; `None`: this is the last one.
    pub next: Option<C>,
}

/// An entry of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundEntry {
    /// The address or prefix.
    pub prefix: Prefix,
    /// When it expires.
    pub expires: Option<Timestamp>,
}

/// Which entries are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EntryFilter {
    /// Those that hold this address.
    pub address: Option<IpAddr>,
    /// Whether the entry has expired at this time, or has not.
    pub expired: Option<(bool, Timestamp)>,
}

/// What has to do with an address.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Touching {
    /// The sets that hold it, each with the entries that do.
    pub sets: BTreeMap<Name, Vec<FoundEntry>>,
    /// The rules that ask for a source or destination and for which it is one.
    pub rules: Vec<FoundRule>,
}

impl View {
    /// Rules that a filter asks for, after a cursor, up to `limit`.
    pub fn find_rules(
        &self,
        filter: &RuleFilter,
        order: RuleOrder,
        after: Option<&RuleCursor>,
        limit: usize,
    ) -> Found<FoundRule, RuleCursor> {
        let filter = Ready::new(self, filter);
        let mut all = Vec::new();
        for (name, policy) in &*self.policies {
            if filter
                .filter
                .policy
                .as_ref()
                .is_none_or(|asked| asked == name)
            {
                let rules = policy.rules.iter().filter(|state| filter.fits(&state.rule));
                all.extend(rules.map(|state| (name, state)));
            }
        }
        let total = all.len();
        if let Some(after) = after {
            let place = (after.rank, &after.policy, &after.rule);
            all.retain(|(name, state)| {
                let this = (rank(order, state), *name, &state.rule.id);
                compare(order, this, place) == Ordering::Greater
            });
        }
        all.sort_unstable_by(|(a, x), (b, y)| {
            let x = (rank(order, x), *a, &x.rule.id);
            compare(order, x, (rank(order, y), *b, &y.rule.id))
        });
        let more = all.len() > limit;
        all.truncate(limit);
        let cursor = all
            .last()
            .filter(|_| more)
            .map(|(policy, state)| RuleCursor {
                rank: rank(order, state),
                policy: (*policy).clone(),
                rule: state.rule.id.clone(),
            });
        let items = all.into_iter().map(|(policy, state)| FoundRule {
            policy: policy.clone(),
            state: Arc::clone(state),
        });
        Found {
            items: items.collect(),
            total,
            next: cursor,
        }
    }

    /// Entries of a set, in the order of family, address and prefix length, after an entry, up to `limit`; `None` if there is no
    /// such set.
    pub fn find_entries(
        &self,
        set: &Name,
        filter: &EntryFilter,
        after: Option<Prefix>,
        limit: usize,
    ) -> Option<Found<FoundEntry, Prefix>> {
        let set = self.sets.get(set)?;
        let fits = |entry: &(Prefix, Option<Timestamp>)| {
            filter
                .address
                .is_none_or(|address| entry.0.contains(address))
                && has_expired(filter.expired, entry.1)
        };
        let mut all: Vec<_> = set.entries.entries().filter(fits).collect();
        let total = all.len();
        if let Some(after) = after {
            all.retain(|(prefix, _)| place(*prefix) > place(after));
        }
        let more = all.len() > limit;
        if more {
            all.select_nth_unstable_by_key(limit, |(prefix, _)| place(*prefix));
            all.truncate(limit);
        }
        all.sort_unstable_by_key(|(prefix, _)| place(*prefix));
        let next = all.last().filter(|_| more).map(|(prefix, _)| *prefix);
        let items = all
            .into_iter()
            .map(|(prefix, expires)| FoundEntry { prefix, expires });
        Some(Found {
            items: items.collect(),
            total,
            next,
        })
    }

    /// The sets that hold an address and the rules that it is a source or destination of, expired ones too; up to `limit` rules,
    /// and up to `limit` entries of each set.
    pub fn touching(&self, address: IpAddr, limit: usize) -> Touching {
        let filter = EntryFilter {
            address: Some(address),
            ..EntryFilter::default()
        };
        let holding = self
            .sets
            .iter()
            .filter(|(_, set)| set.entries.contains(address));
        let sets = holding.filter_map(|(name, _)| {
            let found = self.find_entries(name, &filter, None, limit)?;
            Some((name.clone(), found.items))
        });
        let rules = RuleFilter {
            address: Some(address),
            ..RuleFilter::default()
        };
        Touching {
            sets: sets.collect(),
            rules: self
                .find_rules(&rules, RuleOrder::Priority, None, limit)
                .items,
        }
    }
}

/// A filter, with what is asked once and not for each rule.
struct Ready<'a> {
    filter: &'a RuleFilter,
    text: Option<String>,
    /// The sets that hold the address.
    holding: BTreeSet<&'a str>,
}

impl<'a> Ready<'a> {
    fn new(view: &'a View, filter: &'a RuleFilter) -> Self {
        let holds = |address| {
            let sets = view.sets.iter();
            sets.filter(move |(_, set)| set.entries.contains(address))
        };
        let holding = filter.address.into_iter().flat_map(holds);
        Self {
            filter,
            text: filter.text.as_ref().map(|text| text.to_lowercase()),
            holding: holding.map(|(name, _)| name.as_str()).collect(),
        }
    }

    fn fits(&self, rule: &Rule) -> bool {
        let filter = self.filter;
        let label = |(name, value): &(String, Option<String>)| {
            let found = rule.labels.get(name);
            found.is_some_and(|found| value.as_ref().is_none_or(|value| value == found))
        };
        let names = |set: &Name| set_names(rule).any(|name| name.as_str() == set.as_str());
        filter.enabled.is_none_or(|enabled| enabled == rule.enabled)
            && filter.mode.is_none_or(|mode| mode == rule.mode)
            && filter
                .action
                .is_none_or(|action| action == ActionKind::of(&rule.action))
            && has_expired(filter.expired, rule.expires)
            && filter.labels.iter().all(label)
            && filter.set.as_ref().is_none_or(names)
            && filter
                .address
                .is_none_or(|address| self.looks_for(rule, address))
            && self.text.as_ref().is_none_or(|text| is_in(rule, text))
    }

    fn looks_for(&self, rule: &Rule, address: IpAddr) -> bool {
        let holds = |item: &AddressItem| match item {
            AddressItem::Prefix(prefix) => prefix.contains(address),
            AddressItem::Set(name) => self.holding.contains(name.as_str()),
        };
        let meets = |wanted: &AddressMatch| wanted.items.iter().any(holds) != wanted.negated;
        let asked = [&rule.matches.src, &rule.matches.dst];
        asked.into_iter().flatten().any(meets)
    }
}

fn is_in(rule: &Rule, text: &str) -> bool {
    let has = |words: &str| words.to_lowercase().contains(text);
    let mut words = [&rule.name, &rule.comment].into_iter().flatten();
    let mut labels = rule.labels.iter();
    has(rule.id.as_str())
        || words.any(|words| has(words))
        || labels.any(|(name, value)| has(name) || has(value))
}

fn has_expired(asked: Option<(bool, Timestamp)>, expires: Option<Timestamp>) -> bool {
    asked.is_none_or(|(expired, now)| expired == expires.is_some_and(|at| at <= now))
}

impl ActionKind {
    /// Of an action.
    pub fn of(action: &Action) -> Self {
        match action {
            Action::Drop => Self::Drop,
            Action::Pass => Self::Pass,
            Action::Count => Self::Count,
            Action::RateLimit(_) => Self::RateLimit,
        }
    }
}

/// What rules are sorted by first. The version that touched a rule stands for the time: over several policies these are
/// numbers of their own.
fn rank(order: RuleOrder, state: &RuleState) -> u64 {
    match order {
        RuleOrder::Priority => state.rule.priority.into(),
        RuleOrder::Id => 0,
        RuleOrder::Updated => state.version,
    }
}

type Place<'a> = (u64, &'a Name, &'a RuleId);

fn compare(order: RuleOrder, a: Place<'_>, b: Place<'_>) -> Ordering {
    let rank = match order {
        RuleOrder::Updated => b.0.cmp(&a.0),
        _ => a.0.cmp(&b.0),
    };
    rank.then_with(|| (a.2, a.1).cmp(&(b.2, b.1)))
}

/// Where an entry comes in the order of its set.
fn place(prefix: Prefix) -> (IpAddr, u8) {
    (prefix.addr(), prefix.len())
}
