//! Rule records: what is done with a packet once its rule is known.

use super::allot::is_conditional;
use super::entries::CountedSets;
use super::{Clock, limit};
use crate::abi::{self, Limit, RuleExtra, RuleRecord, Shape};
use crate::image::ImageWriter;
use crate::policy::{Action, Mode, PolicyError, Rule};
use bytemuck::Zeroable;

/// Extras that a record can number.
const MAX_EXTRAS: usize = 1 << (32 - abi::RULE_EXTRA);

/// Writes the records of all rules, and the extras of those that have one. Returns the interface
/// scopes by bit: names and globs.
pub(super) fn write(
    rules: &[&Rule],
    counted: &CountedSets<'_>,
    counter_slots: &[u32],
    clock: &Clock,
    shape: &mut Shape,
    image: &mut ImageWriter,
) -> Result<Vec<Vec<String>>, PolicyError> {
    let mut scopes = Vec::new();
    let mut extras: Vec<RuleExtra> = Vec::new();
    let mut records = Vec::with_capacity(rules.len());
    for (number, rule) in rules.iter().enumerate() {
        let mut flags = flags(rule);
        let scope = scope(rule, &mut scopes)?;
        let sets = [&rule.matches.src, &rule.matches.dst].map(|a| counted.mask(a.as_ref()));
        if sets != [0; 2] {
            flags |= abi::RULE_ENTRIES;
        }
        if let Some(extra) = extra(rule, scope, sets, clock)? {
            if extras.len() == MAX_EXTRAS {
                return Err(PolicyError::limit(
                    None,
                    format!(
                        "more than {MAX_EXTRAS} rules that expire, limit rates, are for some \
                         interfaces or count by entries"
                    ),
                )
                .about(&rule.id));
            }
            flags |= (extras.len() as u32) << abi::RULE_EXTRA;
            extras.push(extra);
        }
        records.push(RuleRecord {
            flags,
            counter: counter_slots.get(number).copied().unwrap_or(0),
        });
    }
    shape.rules = image.section(&records);
    shape.rule_count = records.len() as u32;
    if !extras.is_empty() {
        shape.extras = image.section(&extras);
    }
    if !scopes.is_empty() {
        shape.features |= abi::FEATURE_SCOPES;
    }
    Ok(scopes)
}

/// The bit of the interfaces that a rule is for; 0: all.
fn scope(rule: &Rule, scopes: &mut Vec<Vec<String>>) -> Result<u64, PolicyError> {
    if rule.interfaces.is_empty() {
        return Ok(0);
    }
    let known = scopes.iter().position(|list| *list == rule.interfaces);
    let bit = known.unwrap_or_else(|| {
        scopes.push(rule.interfaces.clone());
        scopes.len() - 1
    });
    if bit >= u64::BITS as usize {
        let reason = "more than 64 different lists of interfaces";
        return Err(PolicyError::limit(None, reason)
            .mend("let rules for the same interfaces name them alike")
            .about(&rule.id)
            .in_field("interfaces"));
    }
    Ok(1 << bit)
}

fn flags(rule: &Rule) -> u32 {
    let mut flags = match rule.action {
        Action::Drop => abi::RULE_DROP,
        Action::Pass => 0,
        Action::Count => abi::RULE_PASSIVE,
        Action::RateLimit(_) => abi::RULE_LIMIT,
    };
    if rule.mode == Mode::Monitor {
        flags |= abi::RULE_PASSIVE;
    }
    if is_conditional(rule) {
        flags |= abi::RULE_CONDITIONAL;
    }
    flags
}

/// `None` for a rule whose record says all.
fn extra(
    rule: &Rule,
    scopes: u64,
    [src_sets, dst_sets]: [u64; 2],
    clock: &Clock,
) -> Result<Option<RuleExtra>, PolicyError> {
    let limit = match &rule.action {
        Action::RateLimit(limit) => Some(limit::compile(limit, &rule.id, clock)?),
        _ => None,
    };
    if limit.is_none() && !is_conditional(rule) && src_sets | dst_sets == 0 {
        return Ok(None);
    }
    Ok(Some(RuleExtra {
        scopes,
        expires: rule.expires.map_or(Clock::NEVER, |at| clock.ticks_at(at)),
        limit: limit.unwrap_or(Limit::zeroed()),
        src_sets,
        dst_sets,
    }))
}
