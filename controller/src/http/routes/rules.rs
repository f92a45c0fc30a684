//! Rules of a policy.

use axum::Json as Answer;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value};
use xdpgate::policy::RuleId;

use super::policies::{found, waiting};
use crate::core::{Command, MAX_COMMANDS};
use crate::domain::Name;
use crate::http::extract::{Change, ChangeParams, Json, MergePatch, Params, Target};
use crate::http::find::RuleParams;
use crate::http::page::{limit, page, place};
use crate::http::problem::{Problem, Refusals};
use crate::http::rules::{rule, shown};
use crate::http::{App, Changed, Done, tagged};

/// Several changes of rules, made together.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Batch {
    /// Up to 1,000, made in their order.
    operations: Vec<Operation>,
    /// Make those that can be made; otherwise all or none are.
    #[serde(default)]
    partial: bool,
}

/// One change of a rule.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case", tag = "op")]
pub(in crate::http) enum Operation {
    /// A new rule.
    Create {
        /// The rule.
        #[schema(value_type = Object)]
        rule: Map<String, Value>,
    },
    /// A rule, new or in place of the one with its id.
    Put {
        /// The rule.
        #[schema(value_type = Object)]
        rule: Map<String, Value>,
    },
    /// Some fields of a rule.
    Patch {
        /// Its id.
        id: String,
        /// A JSON merge patch.
        #[schema(value_type = Object)]
        patch: Map<String, Value>,
    },
    /// Switches a rule on.
    Enable {
        /// Its id.
        id: String,
    },
    /// Switches a rule off.
    Disable {
        /// Its id.
        id: String,
    },
    /// Removes a rule.
    Delete {
        /// Its id.
        id: String,
    },
}

/// The rules of a policy: filtered, sorted, one page of them.
#[utoipa::path(get, path = "/api/v1/policies/{policy}/rules", tag = "rules", params(("policy" = String, Path), RuleParams),
    responses((status = 200, body = Page<Object>), Refusals))]
pub(in crate::http) async fn list(
    State(app): State<App>,
    Target(name): Target<Name>,
    Params(params): Params<RuleParams>,
) -> Result<Response, Problem> {
    params.check()?;
    let (limit, after) = (limit(params.limit)?, place(params.cursor.as_deref())?);
    let view = app.core().view();
    found(&view, &name)?;
    let work = move || {
        let policy = found(&view, &name)?;
        let now = Timestamp::now();
        let rules = policy
            .rules
            .iter()
            .filter(|state| params.holds(&view, &state.rule, now));
        let found = page(rules.collect(), after, limit, params.descends(), |state| {
            params.key(state)
        });
        Ok(found.map(|state| shown(state)))
    };
    Ok(Answer(waiting(work).await?).into_response())
}

/// Makes a rule.
#[utoipa::path(post, path = "/api/v1/policies/{policy}/rules", tag = "rules", params(("policy" = String, Path), ChangeParams),
    request_body = Object, responses((status = 201, body = Changed), Refusals))]
pub(in crate::http) async fn create(
    State(app): State<App>,
    Target(policy): Target<Name>,
    change: Change,
    Json(body): Json<Map<String, Value>>,
) -> Result<Response, Problem> {
    let rule = rule(body, None)?;
    let new = format!("/api/v1/policies/{policy}/rules/{}", rule.id);
    app.change_one(
        change,
        vec![Command::CreateRule { policy, rule }],
        Some(new),
    )
    .await
}

/// One rule.
#[utoipa::path(get, path = "/api/v1/policies/{policy}/rules/{rule}", tag = "rules",
    params(("policy" = String, Path), ("rule" = String, Path)), responses((status = 200, body = Object), Refusals))]
pub(in crate::http) async fn get(
    State(app): State<App>,
    Target((policy, id)): Target<(Name, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let view = app.core().view();
    let state = found(&view, &policy)?.rules.get(&id);
    let state = state.ok_or_else(|| Problem::not_found(format!("policy/{policy}/rule/{id}")))?;
    Ok(tagged(&headers, state.version, shown(state)))
}

/// Replaces a rule, or makes it.
#[utoipa::path(put, path = "/api/v1/policies/{policy}/rules/{rule}", tag = "rules",
    params(("policy" = String, Path), ("rule" = String, Path), ChangeParams),
    request_body = Object, responses((status = 200, body = Changed), Refusals))]
pub(in crate::http) async fn put(
    State(app): State<App>,
    Target((policy, id)): Target<(Name, String)>,
    change: Change,
    Json(body): Json<Map<String, Value>>,
) -> Result<Response, Problem> {
    let rule = rule(body, Some(&id))?;
    app.change_one(change, vec![Command::PutRule { policy, rule }], None)
        .await
}

/// Changes fields of a rule: what is not named stays, null clears.
#[utoipa::path(patch, path = "/api/v1/policies/{policy}/rules/{rule}", tag = "rules",
    params(("policy" = String, Path), ("rule" = String, Path), ChangeParams),
    request_body(content = Object, content_type = "application/merge-patch+json"),
    responses((status = 200, body = Changed), Refusals))]
pub(in crate::http) async fn patch(
    State(app): State<App>,
    Target((policy, id)): Target<(Name, String)>,
    change: Change,
    MergePatch(patch): MergePatch<Map<String, Value>>,
) -> Result<Response, Problem> {
    let rule = rule_id(&policy, &id)?;
    app.change_one(
        change,
        vec![Command::PatchRule {
            policy,
            rule,
            patch,
        }],
        None,
    )
    .await
}

/// Removes a rule.
#[utoipa::path(delete, path = "/api/v1/policies/{policy}/rules/{rule}", tag = "rules",
    params(("policy" = String, Path), ("rule" = String, Path), ChangeParams),
    responses((status = 200, body = Changed), Refusals))]
pub(in crate::http) async fn remove(
    State(app): State<App>,
    Target((policy, id)): Target<(Name, String)>,
    change: Change,
) -> Result<Response, Problem> {
    let rule = rule_id(&policy, &id)?;
    app.change_one(change, vec![Command::DeleteRule { policy, rule }], None)
        .await
}

/// Which version of the policy touched a rule last: who, when, why.
#[utoipa::path(get, path = "/api/v1/policies/{policy}/rules/{rule}/blame", tag = "rules",
    params(("policy" = String, Path), ("rule" = String, Path)), responses((status = 200, body = Object), Refusals))]
pub(in crate::http) async fn blame(
    State(app): State<App>,
    Target((policy, id)): Target<(Name, String)>,
) -> Result<Response, Problem> {
    let rule = rule_id(&policy, &id)?;
    Ok(Answer(app.core().blame(&policy, &rule).await?).into_response())
}

/// Makes up to 1,000 changes of rules as one. With `partial` the answer is 207 if some were refused.
#[utoipa::path(post, path = "/api/v1/policies/{policy}/batch", tag = "rules", params(("policy" = String, Path), ChangeParams),
    request_body = Batch, responses((status = 200, body = Changed), (status = 207, body = Changed), Refusals))]
pub(in crate::http) async fn batch(
    State(app): State<App>,
    Target(policy): Target<Name>,
    mut change: Change,
    Json(body): Json<Batch>,
) -> Result<Response, Problem> {
    let count = body.operations.len();
    if count == 0 || count > MAX_COMMANDS {
        let detail = format!("{count} operations: a batch has 1 to {MAX_COMMANDS}");
        let problem = Problem::too_large(detail).field("operations");
        return Err(problem.mend("send several batches, or the policy as a whole by PUT"));
    }
    change.options.partial = body.partial;
    // What cannot even be read keeps its place in the answer.
    let mut unread: Vec<Option<Problem>> = Vec::with_capacity(count);
    let mut commands = Vec::with_capacity(count);
    for (i, operation) in body.operations.into_iter().enumerate() {
        let read = command(&policy, operation);
        match read.map_err(|problem| problem.within(&format!("operations[{i}]"))) {
            Ok(command) => {
                commands.push(command);
                unread.push(None);
            }
            Err(problem) if body.partial => unread.push(Some(problem)),
            Err(problem) => return Err(problem),
        }
    }
    let mut changed = match commands.is_empty() {
        true => Changed {
            revision: app.core().view().revision().0,
            ..Changed::default()
        },
        false => Changed::from(app.change(change, commands).await?),
    };
    let mut made = std::mem::take(&mut changed.effects).into_iter();
    let effects = unread.into_iter().map(|problem| match problem {
        Some(problem) => Some(Done::refused(problem)),
        None => made.next(),
    });
    changed.effects = effects.flatten().collect();
    let refused = changed.effects.iter().any(|done| done.error.is_some());
    let status = if refused {
        StatusCode::MULTI_STATUS
    } else {
        StatusCode::OK
    };
    Ok((status, Answer(changed)).into_response())
}

fn command(policy: &Name, operation: Operation) -> Result<Command, Problem> {
    let policy = policy.clone();
    let id = |id: String| rule_id(&policy, &id).map_err(|problem| problem.field("id"));
    Ok(match operation {
        Operation::Create { rule: fields } => {
            let rule = rule(fields, None).map_err(|problem| problem.within("rule"))?;
            Command::CreateRule { policy, rule }
        }
        Operation::Put { rule: fields } => {
            let rule = rule(fields, None).map_err(|problem| problem.within("rule"))?;
            Command::PutRule { policy, rule }
        }
        Operation::Patch { id: own, patch } => {
            let rule = id(own)?;
            Command::PatchRule {
                policy,
                rule,
                patch,
            }
        }
        Operation::Enable { id: own } => {
            let rule = id(own)?;
            Command::EnableRule {
                policy,
                rule,
                enabled: true,
            }
        }
        Operation::Disable { id: own } => {
            let rule = id(own)?;
            Command::EnableRule {
                policy,
                rule,
                enabled: false,
            }
        }
        Operation::Delete { id: own } => {
            let rule = id(own)?;
            Command::DeleteRule { policy, rule }
        }
    })
}

fn rule_id(policy: &Name, id: &str) -> Result<RuleId, Problem> {
    RuleId::new(id).ok_or_else(|| {
        let shown: String = id.chars().take(80).collect();
        Problem::not_found(format!("policy/{policy}/rule/{shown}"))
    })
}
