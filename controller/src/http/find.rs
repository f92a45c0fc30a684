//! Looking for rules and entries.

use std::net::IpAddr;

use jiff::Timestamp;
use serde::Deserialize;
use xdpgate::policy::{Action, AddressItem, AddressMatch, Mode, Rule, SetName};

use super::problem::Problem;
use crate::core::View;
use crate::domain::{Name, RuleState};

/// Which rules of a policy, and in which order.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct RuleParams {
    /// Text in the id, name, comment or a label, in upper or lower case.
    q: Option<String>,
    /// A label, as `owner` or `owner=web`.
    label: Option<String>,
    /// An address that is a source or destination of the rule, by whatever prefix or set.
    #[param(value_type = Option<String>)]
    address: Option<IpAddr>,
    /// `drop`, `pass`, `count` or `rate_limit`.
    action: Option<String>,
    /// `enforce` or `monitor`.
    mode: Option<String>,
    /// Whether it is enabled.
    enabled: Option<bool>,
    /// Whether it has expired.
    expired: Option<bool>,
    /// `priority` (as they are evaluated), `id`, `name` or `updated`; with `-` in front the other way round.
    pub(super) sort: Option<String>,
    /// How many, up to 1,000; 100 unless said.
    pub(super) limit: Option<usize>,
    /// `next` of the page before.
    pub(super) cursor: Option<String>,
}

impl RuleParams {
    /// Refuses words that are none.
    pub(super) fn check(&self) -> Result<(), Problem> {
        word(
            "action",
            self.action.as_deref(),
            &["drop", "pass", "count", "rate_limit"],
        )?;
        word("mode", self.mode.as_deref(), &["enforce", "monitor"])?;
        let sort = self
            .sort
            .as_deref()
            .map(|sort| sort.trim_start_matches('-'));
        word("sort", sort, &["priority", "id", "name", "updated"])
    }

    /// Whether a rule is looked for.
    pub(super) fn holds(&self, view: &View, rule: &Rule, now: Timestamp) -> bool {
        let has = |text: &Option<String>, q: &str| {
            text.as_ref()
                .is_some_and(|text| text.to_lowercase().contains(q))
        };
        let q = self.q.as_ref().is_none_or(|q| {
            let q = q.to_lowercase();
            let labels = || {
                rule.labels
                    .iter()
                    .any(|(k, v)| format!("{k}={v}").to_lowercase().contains(&q))
            };
            rule.id.as_str().to_lowercase().contains(&q)
                || has(&rule.name, &q)
                || has(&rule.comment, &q)
                || labels()
        });
        let label = self
            .label
            .as_ref()
            .is_none_or(|label| match label.split_once('=') {
                Some((name, value)) => rule.labels.get(name).is_some_and(|own| own == value),
                None => rule.labels.contains_key(label),
            });
        let action = match &rule.action {
            Action::Drop => "drop",
            Action::Pass => "pass",
            Action::Count => "count",
            Action::RateLimit(_) => "rate_limit",
        };
        let mode = if rule.mode == Mode::Monitor {
            "monitor"
        } else {
            "enforce"
        };
        let expired = rule.expires.is_some_and(|at| now >= at);
        q && label
            && self.action.as_ref().is_none_or(|a| a == action)
            && self.mode.as_ref().is_none_or(|m| m == mode)
            && self.enabled.is_none_or(|e| e == rule.enabled)
            && self.expired.is_none_or(|e| e == expired)
            && self
                .address
                .is_none_or(|a| !touches(view, rule, a).is_empty())
    }

    /// By what a rule is sorted; whether the other way round is in [`Self::descends`].
    pub(super) fn key(&self, state: &RuleState) -> (u64, String, String) {
        let rule = &state.rule;
        let id = rule.id.to_string();
        match self
            .sort
            .as_deref()
            .map_or("priority", |sort| sort.trim_start_matches('-'))
        {
            "id" => (0, String::new(), id),
            "name" => (0, rule.name.clone().unwrap_or_default(), id),
            "updated" => (state.version, String::new(), id),
            _ => (rule.priority.into(), String::new(), id),
        }
    }

    pub(super) fn descends(&self) -> bool {
        self.sort.as_ref().is_some_and(|sort| sort.starts_with('-'))
    }
}

/// Refuses a word that is none of these.
pub(super) fn word(field: &str, given: Option<&str>, words: &[&str]) -> Result<(), Problem> {
    match given {
        Some(given) if !words.contains(&given) => {
            let detail = format!("{given:?} is not known");
            Err(Problem::invalid(field, detail).mend(format!("take {}", words.join(", "))))
        }
        _ => Ok(()),
    }
}

/// The sets that a rule names.
pub(super) fn sets_of(rule: &Rule) -> impl Iterator<Item = &SetName> {
    let items = sides(rule).flat_map(|(_, side)| &side.items);
    items.filter_map(|item| match item {
        AddressItem::Set(name) => Some(name),
        AddressItem::Prefix(_) => None,
    })
}

/// Where a rule names an address: the side, and by what. Not where it names it with `not`.
pub(super) fn touches(view: &View, rule: &Rule, address: IpAddr) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    for (side, asked) in sides(rule) {
        for item in &asked.items {
            let (holds, text) = match item {
                AddressItem::Prefix(prefix) => (prefix.contains(address), prefix.to_string()),
                AddressItem::Set(name) => {
                    let set = Name::new(name.as_str())
                        .ok()
                        .and_then(|name| view.sets().get(&name));
                    let holds = set.is_some_and(|set| set.entries.contains(address));
                    (holds, format!("@{}", name.as_str()))
                }
            };
            if holds && !asked.negated {
                found.push((side, text));
            }
        }
    }
    found
}

fn sides(rule: &Rule) -> impl Iterator<Item = (&'static str, &AddressMatch)> {
    let (src, dst) = (rule.matches.src.as_ref(), rule.matches.dst.as_ref());
    src.map(|side| ("src", side))
        .into_iter()
        .chain(dst.map(|side| ("dst", side)))
}
