//! The calls about the policy as a whole, and its rules.

use std::collections::HashMap;

use tonic::{Code, Status};
use xdpgate::policy::{Atomicity, Change, RuleQuery};
use xdpgate::{Generation, Plan, Policy};
use xdpgate_api::v1;

use super::safety::{Guard, confirm_by};
use super::{Shared, page};
use crate::agent::convert::{self, Wrong};
use crate::agent::fault::{self, Fault};

pub(super) fn apply(
    shared: &Shared,
    request: &v1::ApplyPolicyRequest,
) -> Result<v1::ApplyPolicyResponse, Status> {
    let guard = Guard::new(
        request.expected_generation,
        &request.idempotency_key,
        request.confirm_within.as_ref(),
    )?;
    let policy = Policy::from_yaml(&request.yaml).map_err(|e| fault::policy(&e))?;
    let _change = shared.lock_changes();
    let applied = shared.firewall.apply_with(&policy, guard.apply());
    let applied = applied.map_err(|e| fault::transaction(&e, |_| "yaml".to_owned()))?;
    if applied.repeated {
        return Ok(v1::ApplyPolicyResponse {
            hash: policy.hash().to_string(),
            applied: Some(convert::applied(&applied)),
            confirm_by: confirm_by(&shared.firewall, applied.generation),
            repeated: true,
            plan: None,
        });
    }
    crate::agent::log_applied(&applied);
    let mut plan = Plan::between(applied.previous.as_deref(), &policy);
    plan.image_bytes = Some(applied.image_bytes);
    Ok(v1::ApplyPolicyResponse {
        plan: Some(convert::plan(plan)),
        hash: policy.hash().to_string(),
        applied: Some(convert::applied(&applied)),
        confirm_by: confirm_by(&shared.firewall, applied.generation),
        repeated: false,
    })
}

pub(super) fn plan(
    shared: &Shared,
    request: &v1::PlanPolicyRequest,
) -> Result<v1::PlanPolicyResponse, Status> {
    let policy = Policy::from_yaml(&request.yaml).map_err(|e| fault::policy(&e))?;
    let (before, generation) = shared.firewall.in_force().unzip();
    let planned = shared.firewall.plan(&policy);
    let planned = planned.map_err(|e| fault::apply(&e))?;
    // From the policy of the generation that is told; another may have come since.
    let mut plan = Plan::between(before.as_deref(), &policy);
    plan.image_bytes = planned.image_bytes;
    let estimate = shared.firewall.estimate(&policy);
    let estimate = estimate.map_err(|e| fault::apply(&e))?;
    Ok(v1::PlanPolicyResponse {
        plan: Some(convert::plan(plan)),
        hash: policy.hash().to_string(),
        generation: generation.map_or(0, Generation::get),
        estimate: estimate.map(convert::estimate),
    })
}

pub(super) fn get(shared: &Shared) -> Result<v1::GetPolicyResponse, Status> {
    let (policy, generation) = shared.firewall.in_force().ok_or_else(|| {
        let message = "there is no policy yet; `xdpgate policy apply FILE` brings one";
        Status::from(Fault::new(Code::NotFound, "NO_POLICY", message))
    })?;
    Ok(v1::GetPolicyResponse {
        yaml: policy.to_yaml(),
        hash: policy.hash().to_string(),
        generation: generation.get(),
    })
}

pub(super) fn change(
    shared: &Shared,
    request: &v1::ChangePolicyRequest,
) -> Result<v1::ChangePolicyResponse, Status> {
    let path = |index: usize| path(request, index);
    let guard = Guard::new(
        request.expected_generation,
        &request.idempotency_key,
        request.confirm_within.as_ref(),
    )?;
    let parsed = parse_changes(request);
    let wrong: Vec<&Wrong> = parsed.iter().filter_map(|p| p.as_ref().err()).collect();
    if !request.partial && !wrong.is_empty() {
        return Err(malformed(&wrong));
    }
    // Of each change that is made, where it stands in the request; and of each that is none.
    let (mut places, mut changes, mut refused) = (Vec::new(), Vec::new(), Vec::new());
    for (index, parsed) in parsed.into_iter().enumerate() {
        match parsed {
            Ok(change) => {
                places.push(index);
                changes.push(change);
            }
            Err(wrong) => refused.push((index, wrong)),
        }
    }
    let path = |index: usize| path(places[index]);
    let atomicity = match request.partial {
        true => Atomicity::Partial,
        false => Atomicity::AllOrNothing,
    };
    let options = guard.transaction().atomicity(atomicity);
    let _change = shared.lock_changes();
    let done = shared.firewall.transact(&changes, options);
    let done = done.map_err(|e| fault::transaction(&e, path))?;
    if let Some(applied) = &done.applied {
        crate::agent::log_applied(applied);
    }
    let by = done
        .generation
        .and_then(|g| confirm_by(&shared.firewall, g));
    if done.repeated {
        return Ok(v1::ChangePolicyResponse {
            generation: done.generation.map_or(0, Generation::get),
            confirm_by: by,
            repeated: true,
            ..Default::default()
        });
    }
    let (mut made, mut refused) = (done.effects.iter(), refused.into_iter().peekable());
    let effects = (0..request.changes.len()).map(|index| {
        match refused.next_if(|(place, _)| *place == index) {
            None => made.next().map_or_else(v1::Effect::default, |effect| {
                convert::effect(effect, |error| fault::change(error, &path(error.index())))
            }),
            Some((_, wrong)) => v1::Effect {
                kind: v1::effect::Kind::Refused.into(),
                error: Some(format!("{}: {}", wrong.path, wrong.what)),
                ..Default::default()
            },
        }
    });
    Ok(v1::ChangePolicyResponse {
        effects: effects.collect(),
        generation: done.generation.map_or(0, Generation::get),
        applied: done.applied.as_ref().map(convert::applied),
        confirm_by: by,
        repeated: false,
    })
}

/// Each change, or what is wrong with it.
pub(super) fn parse_changes(request: &v1::ChangePolicyRequest) -> Vec<Result<Change, Wrong>> {
    let changes = request.changes.iter().enumerate();
    changes
        .map(|(index, change)| convert::change(&path(request, index), change))
        .collect()
}

/// The path of a change in its request.
fn path(request: &v1::ChangePolicyRequest, index: usize) -> String {
    let name = convert::change_name(&request.changes[index]);
    format!("changes[{index}].{name}")
}

/// Changes that are none: each is told.
pub(super) fn malformed(wrong: &[&Wrong]) -> Status {
    let first = wrong.first().map(|w| format!("{}: {}", w.path, w.what));
    let message = first.unwrap_or_default() + &fault::more(wrong.len());
    let fault = Fault::new(Code::InvalidArgument, "CHANGE_INVALID", message);
    let fault = wrong
        .iter()
        .fold(fault, |fault, w| fault.violation(&w.path, &w.what));
    fault.into()
}

pub(super) fn list_rules(
    shared: &Shared,
    request: &v1::ListRulesRequest,
) -> Result<v1::ListRulesResponse, Status> {
    let size = page::size(request.page_size, 100, 1000)?;
    let query = query(request)?;
    let question = (&request.search, &request.address, &request.labels);
    let Some((policy, generation)) = shared.firewall.in_force() else {
        shared.tokens.offset(&request.page_token, 0, question)?;
        return Ok(v1::ListRulesResponse::default());
    };
    let version = generation.get();
    let begin = shared
        .tokens
        .offset(&request.page_token, version, question)?;
    let found: Vec<_> = policy.find_rules(&query).collect();
    let end = found.len().min(begin.saturating_add(size));
    let page = found.get(begin..end).unwrap_or_default();
    let stats = shared
        .recent
        .get(&shared.firewall, std::time::Duration::ZERO);
    let stats: HashMap<&str, &v1::RuleStats> =
        stats.rules.iter().map(|rule| (&*rule.id, rule)).collect();
    let rules = page.iter().map(|rule| v1::Rule {
        id: rule.id.to_string(),
        priority: rule.priority,
        json: rule.to_json(),
        enabled: rule.enabled,
        stats: stats.get(rule.id.as_str()).map(|stats| (*stats).clone()),
    });
    Ok(v1::ListRulesResponse {
        rules: rules.collect(),
        next_page_token: match end < found.len() {
            true => shared.tokens.make(version, question, end),
            false => String::new(),
        },
        generation: version,
        total: found.len() as u64,
    })
}

pub(super) fn query(request: &v1::ListRulesRequest) -> Result<RuleQuery, Status> {
    let mut query = RuleQuery::default().text(&request.search);
    if !request.address.is_empty() {
        let parsed = request.address.parse();
        query = query.address(parsed.map_err(|_| {
            let what = format!(
                "{:?} is no address: write 203.0.113.7 or 2001:db8::1",
                request.address
            );
            Wrong::new("address", what)
        })?);
    }
    for (index, label) in request.labels.iter().enumerate() {
        query = match label.split_once('=') {
            Some((name, value)) => query.label(name, Some(value)),
            None if !label.is_empty() => query.label(label, None),
            None => {
                let path = format!("labels[{index}]");
                return Err(Wrong::new(path, "it is empty: write owner or owner=web").into());
            }
        };
    }
    Ok(query)
}
