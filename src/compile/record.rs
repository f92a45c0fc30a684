//! Rule records: what is done with a packet once its rule is known.

use super::Clock;
use crate::abi::{self, Limit, RuleExtra, RuleRecord, Shape};
use crate::image::ImageWriter;
use crate::policy::{Action, Mode, PolicyError, Rule};
use bytemuck::Zeroable;

/// Extras that a record can number.
const MAX_EXTRAS: usize = 1 << (32 - abi::RULE_EXTRA);

/// Writes the records of all rules, and the extras of those that have one.
pub(super) fn write(
    rules: &[&Rule],
    counter_slots: &[u32],
    clock: &Clock,
    shape: &mut Shape,
    image: &mut ImageWriter,
) -> Result<(), PolicyError> {
    let mut extras: Vec<RuleExtra> = Vec::new();
    let mut records = Vec::with_capacity(rules.len());
    for (number, rule) in rules.iter().enumerate() {
        let mut flags = flags(rule);
        if let Some(extra) = extra(rule, clock) {
            if extras.len() == MAX_EXTRAS {
                return Err(PolicyError::limit(
                    None,
                    format!("more than {MAX_EXTRAS} rules that expire or limit rates"),
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
    shape.extra_count = extras.len() as u32;
    if !extras.is_empty() {
        shape.extras = image.section(&extras);
    }
    Ok(())
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
    if rule.expires.is_some() {
        flags |= abi::RULE_CONDITIONAL;
    }
    flags
}

/// `None` for a rule whose record says all.
fn extra(rule: &Rule, clock: &Clock) -> Option<RuleExtra> {
    rule.expires?;
    Some(RuleExtra {
        expires: rule.expires.map_or(Clock::NEVER, |at| clock.ticks_at(at)),
        limit: Limit::zeroed(),
        ..RuleExtra::zeroed()
    })
}
