//! One rule.

use std::collections::BTreeMap;

use super::super::error::{PolicyErrorKind, Subject};
use super::super::names::{MODES, RATES};
use super::super::rule::{Action, RateLimit, RateScope, RateUnit, Rule, RuleId};
use super::matches::{is_all_protocols, matches};
use super::read::{Result, printable, quote};
use super::tree::{Node, Value};

const KEYS: &[&str] = &[
    "id",
    "priority",
    "match",
    "action",
    "mode",
    "enabled",
    "expires",
    "interfaces",
    "name",
    "comment",
    "labels",
];

/// The prefix lengths of `per: source`, and the IPv6 one of `per: source/24`: a /64 is what one
/// host can have as its own.
const HOST_V4: u8 = 32;
const HOST_V6: u8 = 128;
const SITE_V6: u8 = 64;

/// The rule at `index`, from 0.
pub(super) fn rule(node: &Node<'_>, index: usize) -> Result<Rule> {
    // The id first, so that every other error can name it.
    let id = node.value("id").map(id).and_then(Result::ok);
    let subject = id.map_or(Subject::RuleAt(index + 1), Subject::Rule);
    fields_of(node, index).map_err(|e| e.about(subject))
}

fn fields_of(node: &Node<'_>, index: usize) -> Result<Rule> {
    let fields = node.fields(KEYS)?;
    let id = fields.require("id", "give each rule an id of its own", id)?;
    let priority = fields.read("priority", |n| n.number(u32::MAX.into()))?;
    let mend = "one of drop, pass, count, rate_limit";
    let action = fields.require("action", mend, action)?;
    let mut rule = Rule::new(
        id,
        priority.unwrap_or_else(|| default_priority(index)),
        action,
    );
    let is_open = |node: &Node<'_>| rule.action == Action::Pass && is_all_protocols(node);
    if let Some(node) = fields.read("match", Ok)?.filter(|node| is_open(node)) {
        let error = node
            .invalid("all protocols and nothing else: everything passes")
            .mend("say whom to let in; leave match out if everybody is meant");
        return Err(error.in_field("protocol").in_field("match"));
    }
    rule.matches = fields.read("match", matches)?.unwrap_or_default();
    rule.mode = fields.read("mode", |n| n.word(MODES))?.unwrap_or_default();
    rule.enabled = fields.read("enabled", Node::truth)?.unwrap_or(true);
    rule.expires = fields.read("expires", Node::expires)?;
    rule.interfaces = fields.read("interfaces", interfaces)?.unwrap_or_default();
    rule.name = fields.read("name", Node::free_text)?;
    rule.comment = fields.read("comment", Node::free_text)?;
    rule.labels = fields.read("labels", labels)?.unwrap_or_default();
    Ok(rule)
}

fn default_priority(index: usize) -> u32 {
    u32::try_from(index + 1)
        .unwrap_or(u32::MAX)
        .saturating_mul(10)
}

fn id(node: &Node<'_>) -> Result<RuleId> {
    let text = node.text("an id")?;
    RuleId::new(text).ok_or_else(|| {
        node.invalid(format!("{} is not an id", quote(text)))
            .mend("ids are 1 to 64 of a-z A-Z 0-9 . _ -")
    })
}

fn action(node: &Node<'_>) -> Result<Action> {
    if let Value::Map(_) = node.value {
        let fields = node.fields(&["rate_limit"])?;
        return fields
            .require("rate_limit", "write {rate_limit: {...}}", rate_limit)
            .map(Action::RateLimit);
    }
    match node.text("drop, pass, count or {rate_limit: ...}")? {
        "drop" => Ok(Action::Drop),
        "pass" => Ok(Action::Pass),
        "count" => Ok(Action::Count),
        "rate_limit" => Err(node
            .error(PolicyErrorKind::MissingKey, "a rate is missing")
            .mend("write {rate_limit: {packets_per_second: 1000}}")),
        other => Err(node
            .invalid(format!("{} is not an action", quote(other)))
            .mend("known are drop, pass, count and {rate_limit: {...}}")),
    }
}

fn rate_limit(node: &Node<'_>) -> Result<RateLimit> {
    let fields = node.fields(&["packets_per_second", "bits_per_second", "burst", "per"])?;
    let mut rate: Option<(RateUnit, u64)> = None;
    for (key, unit) in RATES {
        let Some(value) = fields.read(key, |n| n.number(u64::MAX))? else {
            continue;
        };
        if rate.replace((*unit, value)).is_some() {
            return Err(node
                .error(PolicyErrorKind::Contradiction, "two rates")
                .mend("give packets_per_second or bits_per_second, or use two rules"));
        }
    }
    let (unit, rate) = rate.ok_or_else(|| {
        node.error(PolicyErrorKind::MissingKey, "a rate is missing")
            .mend("give packets_per_second or bits_per_second")
    })?;
    Ok(RateLimit {
        unit,
        rate,
        burst: fields
            .read("burst", |n| n.number(u64::MAX))?
            .unwrap_or(rate),
        scope: fields.read("per", scope)?.unwrap_or(RateScope::Rule),
    })
}

fn scope(node: &Node<'_>) -> Result<RateScope> {
    if let Value::Map(_) = node.value {
        let mend = "write {source: {v4: 24, v6: 64}}";
        return node.fields(&["source"])?.require("source", mend, |source| {
            let fields = source.fields(&["v4", "v6"])?;
            Ok(RateScope::Source {
                v4: fields.require("v4", mend, |n| n.number(u8::MAX.into()))?,
                v6: fields.require("v6", mend, |n| n.number(u8::MAX.into()))?,
            })
        });
    }
    let wanted = "rule, source, source/24 or {source: {v4: 24, v6: 64}}";
    match node.text(wanted)? {
        "rule" => Ok(RateScope::Rule),
        "source" => Ok(RateScope::Source {
            v4: HOST_V4,
            v6: HOST_V6,
        }),
        text => {
            let len = text
                .strip_prefix("source/")
                .filter(|t| !t.starts_with(['0', '+']));
            match len.and_then(|t| t.parse().ok()).filter(|l| *l <= HOST_V4) {
                Some(v4) => Ok(RateScope::Source { v4, v6: SITE_V6 }),
                None => Err(node
                    .invalid(format!("{} is not known", quote(text)))
                    .mend(format!("write {wanted}"))),
            }
        }
    }
}

fn interfaces(node: &Node<'_>) -> Result<Vec<String>> {
    let items = node.list("a list of interface names")?;
    items
        .iter()
        .map(|n| n.text("an interface name").map(str::to_owned))
        .collect()
}

fn labels(node: &Node<'_>) -> Result<BTreeMap<String, String>> {
    let label = |e: &super::tree::Entry<'_>| {
        let value = e
            .node
            .free_text()
            .map_err(|error| error.in_field(&printable(&e.key)))?;
        Ok((e.key.clone().into_owned(), value))
    };
    node.entries()?.iter().map(label).collect()
}
