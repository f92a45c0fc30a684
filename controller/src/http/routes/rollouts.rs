//! Rollouts, and the plans that are kept for them.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde::{Deserialize, Serialize};

use crate::core::{Command, PlanChoice, View};
use crate::domain::{Labels, Name};
use crate::http::extract::{Change, ChangeParams, Json, Params, Target};
use crate::http::page::{Page, limit, page, place};
use crate::http::problem::{Problem, Refusals};
use crate::http::{App, Changed, tagged};
use crate::rollout::{self, Plan, Reached, Rollout, StageNodes, Start};

/// Which rollouts.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct RolloutParams {
    /// Those of this policy.
    policy: Option<String>,
    /// Only those that go on (`true`), or that are over (`false`).
    active: Option<bool>,
    /// How many, up to 1,000; 100 unless said.
    limit: Option<usize>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// A rollout, and what is seen of it now.
#[derive(Serialize, utoipa::ToSchema)]
pub(in crate::http) struct RolloutInfo {
    /// The record, with its history; `version` is also the ETag.
    #[serde(flatten)]
    rollout: Rollout,
    /// While it goes on: the nodes as all controllers see them together, as this one knows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    observed: Option<rollout::Observed>,
    /// While it goes on: what it waits for, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    waits: Option<String>,
}

/// A plan by its name, or whole.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(untagged)]
pub(in crate::http) enum PlanBody {
    /// The one that is kept under this name; `default` is always there.
    #[schema(value_type = String)]
    Named(Name),
    /// This one.
    Given(Plan),
}

/// A rollout to be.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct NewRollout {
    /// Its name; made up if absent.
    #[schema(value_type = Option<String>)]
    name: Option<Name>,
    /// The policy, whose newest version is rolled out.
    #[schema(value_type = String)]
    policy: Name,
    /// How: `default` if absent.
    plan: Option<PlanBody>,
}

/// A plan that is kept under a name.
#[derive(Serialize, utoipa::ToSchema)]
pub(in crate::http) struct PlanInfo {
    /// The name.
    name: String,
    /// Grows with each change; also the ETag. 0: nobody has changed it.
    version: u64,
    /// The plan.
    plan: Plan,
}

/// Rollouts, the newest first.
#[utoipa::path(get, path = "/api/v1/rollouts", tag = "rollouts", params(RolloutParams),
    responses((status = 200, body = Page<RolloutInfo>), Refusals))]
pub(in crate::http) async fn list(
    State(app): State<App>,
    Params(params): Params<RolloutParams>,
) -> Result<Answer<Page<RolloutInfo>>, Problem> {
    let view = app.core().view();
    let holds = |rollout: &&Arc<Rollout>| {
        let policy = params.policy.as_ref();
        policy.is_none_or(|policy| *policy == rollout.policy)
            && params
                .active
                .is_none_or(|active| active == rollout.is_active())
    };
    let found: Vec<_> = view.rollouts().values().filter(holds).cloned().collect();
    let key = |rollout: &Arc<Rollout>| {
        let started = rollout.events.first().map(|event| event.at);
        (started, rollout.id.clone())
    };
    let after = place(params.cursor.as_deref())?;
    let page = page(found, after, limit(params.limit)?, true, key);
    Ok(Answer(Page {
        items: page.items.iter().map(|one| info(&app, one)).collect(),
        next: page.next,
        total: page.total,
    }))
}

/// A rollout: its stages, its history, and what is seen of its nodes.
#[utoipa::path(get, path = "/api/v1/rollouts/{rollout}", tag = "rollouts", params(("rollout" = String, Path)),
    responses((status = 200, body = RolloutInfo), Refusals))]
pub(in crate::http) async fn get(
    State(app): State<App>,
    Target(rollout): Target<Name>,
) -> Result<Response, Problem> {
    let view = app.core().view();
    let found = view.rollouts().get(&rollout);
    let found = found.ok_or_else(|| Problem::not_found(format!("rollout/{rollout}")))?;
    // What is seen changes without a new version, so this is never answered with 304.
    Ok(tagged(&HeaderMap::new(), found.version, info(&app, found)))
}

/// Rolls out the newest version of a policy, where nodes have a former one. To change a policy and roll that out at once,
/// make the change with `?rollout=PLAN`.
#[utoipa::path(post, path = "/api/v1/rollouts", tag = "rollouts", params(ChangeParams), request_body = NewRollout,
    responses((status = 201, body = Changed), Refusals))]
pub(in crate::http) async fn start(
    State(app): State<App>,
    change: Change,
    Json(body): Json<NewRollout>,
) -> Result<Response, Problem> {
    let rollout = body.name.unwrap_or_else(|| change.rollout_name());
    let new = format!("/api/v1/rollouts/{rollout}");
    let command = Command::StartRollout {
        rollout,
        policy: body.policy,
        plan: choice(body.plan),
    };
    app.change_one(change, vec![command], Some(new)).await
}

/// How many nodes each stage of a plan would reach. Which ones a percentage chooses is another for each rollout, so the number may
/// differ by some.
#[utoipa::path(post, path = "/api/v1/rollouts/preview", tag = "rollouts", request_body = NewRollout,
    responses((status = 200, body = Vec<StageNodes>), Refusals))]
pub(in crate::http) async fn preview(
    State(app): State<App>,
    Json(body): Json<NewRollout>,
) -> Result<Answer<Vec<StageNodes>>, Problem> {
    let view = app.core().view();
    let plan = match choice(body.plan) {
        PlanChoice::Given(plan) => plan,
        PlanChoice::Named(name) => plan_of(&view, &name)?.plan,
    };
    let policy = &body.policy;
    let object = || Problem::not_found(format!("policy/{policy}"));
    let from = view.released(policy).ok_or_else(object)?;
    let id = body.name.as_ref().map_or("preview", Name::as_str);
    let start = Start {
        id,
        policy: policy.as_str(),
        from,
        to: from + 1,
        plan: &plan,
        by: "",
        why: "",
        now: jiff::Timestamp::now(),
    };
    let candidates = view.nodes_with(policy).filter(|node| !node.maintenance);
    let rollout = Rollout::start(&start, candidates.map(|node| node.id.as_str()));
    let rollout = rollout.map_err(|error| Problem::invalid(error.field, error.reason))?;
    let nodes = view.nodes_with(policy);
    let nodes: Vec<(&str, Labels)> = nodes.map(|n| (n.id.as_str(), n.labels())).collect();
    let reached = Reached::new(Arc::new(rollout));
    let nodes = nodes.iter().map(|(id, labels)| (*id, labels));
    Ok(Answer(reached.preview(nodes)))
}

/// Holds a rollout where it is; nodes keep what they have.
#[utoipa::path(post, path = "/api/v1/rollouts/{rollout}/pause", tag = "rollouts", params(("rollout" = String, Path), ChangeParams),
    responses((status = 200, body = Changed), Refusals))]
pub(in crate::http) async fn pause(
    State(app): State<App>,
    Target(rollout): Target<Name>,
    change: Change,
) -> Result<Response, Problem> {
    turn(&app, rollout, change, rollout::Change::Pause).await
}

/// Lets a rollout go on where it was.
#[utoipa::path(post, path = "/api/v1/rollouts/{rollout}/resume", tag = "rollouts", params(("rollout" = String, Path), ChangeParams),
    responses((status = 200, body = Changed), Refusals))]
pub(in crate::http) async fn resume(
    State(app): State<App>,
    Target(rollout): Target<Name>,
    change: Change,
) -> Result<Response, Problem> {
    turn(&app, rollout, change, rollout::Change::Resume).await
}

/// Ends a rollout: all nodes get the former version.
#[utoipa::path(post, path = "/api/v1/rollouts/{rollout}/abort", tag = "rollouts", params(("rollout" = String, Path), ChangeParams),
    responses((status = 200, body = Changed), Refusals))]
pub(in crate::http) async fn abort(
    State(app): State<App>,
    Target(rollout): Target<Name>,
    change: Change,
) -> Result<Response, Problem> {
    turn(&app, rollout, change, rollout::Change::Abort).await
}

/// Gives the newest version of a policy to all nodes at once, where a rollout ended with the former one.
#[utoipa::path(post, path = "/api/v1/policies/{policy}/release", tag = "rollouts", params(("policy" = String, Path), ChangeParams),
    responses((status = 200, body = Changed), Refusals))]
pub(in crate::http) async fn release(
    State(app): State<App>,
    Target(policy): Target<Name>,
    change: Change,
) -> Result<Response, Problem> {
    app.change_one(change, vec![Command::ReleasePolicy { policy }], None)
        .await
}

/// The plans that are kept, by name; `default` is always there.
#[utoipa::path(get, path = "/api/v1/rollout-plans", tag = "rollouts",
    responses((status = 200, body = Vec<PlanInfo>), Refusals))]
pub(in crate::http) async fn plans(State(app): State<App>) -> Answer<Vec<PlanInfo>> {
    let view = app.core().view();
    let names = view.rollout_plans().keys();
    let mut plans: Vec<_> = names.filter_map(|name| plan_of(&view, name).ok()).collect();
    if !plans.iter().any(|plan| plan.name == DEFAULT) {
        plans.push(unchanged_default());
        plans.sort_by(|a, b| a.name.cmp(&b.name));
    }
    Answer(plans)
}

/// A plan.
#[utoipa::path(get, path = "/api/v1/rollout-plans/{plan}", tag = "rollouts", params(("plan" = String, Path)),
    responses((status = 200, body = PlanInfo), Refusals))]
pub(in crate::http) async fn plan(
    State(app): State<App>,
    Target(plan): Target<Name>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let plan = plan_of(&app.core().view(), &plan)?;
    Ok(tagged(&headers, plan.version, plan))
}

/// Keeps a plan under a name. Rollouts that go on are not changed by it.
#[utoipa::path(put, path = "/api/v1/rollout-plans/{plan}", tag = "rollouts", params(("plan" = String, Path), ChangeParams),
    request_body = Plan, responses((status = 200, body = Changed), Refusals))]
pub(in crate::http) async fn put_plan(
    State(app): State<App>,
    Target(plan): Target<Name>,
    change: Change,
    Json(content): Json<Plan>,
) -> Result<Response, Problem> {
    app.change_one(
        change,
        vec![Command::PutRolloutPlan { plan, content }],
        None,
    )
    .await
}

/// Removes a plan; without one of its own, `default` is that of the program.
#[utoipa::path(delete, path = "/api/v1/rollout-plans/{plan}", tag = "rollouts", params(("plan" = String, Path), ChangeParams),
    responses((status = 200, body = Changed), Refusals))]
pub(in crate::http) async fn remove_plan(
    State(app): State<App>,
    Target(plan): Target<Name>,
    change: Change,
) -> Result<Response, Problem> {
    app.change_one(change, vec![Command::DeleteRolloutPlan { plan }], None)
        .await
}

const DEFAULT: &str = "default";

fn unchanged_default() -> PlanInfo {
    PlanInfo {
        name: DEFAULT.to_owned(),
        version: 0,
        plan: Plan::default(),
    }
}

fn plan_of(view: &View, name: &Name) -> Result<PlanInfo, Problem> {
    match view.rollout_plans().get(name) {
        Some(named) => Ok(PlanInfo {
            name: name.to_string(),
            version: named.version,
            plan: named.plan.clone(),
        }),
        None if name.as_str() == DEFAULT => Ok(unchanged_default()),
        None => Err(Problem::not_found(format!("rollout-plan/{name}"))),
    }
}

fn choice(body: Option<PlanBody>) -> PlanChoice {
    match body {
        Some(PlanBody::Given(plan)) => PlanChoice::Given(plan),
        Some(PlanBody::Named(name)) => PlanChoice::Named(name),
        None => PlanChoice::default(),
    }
}

fn info(app: &App, rollout: &Arc<Rollout>) -> RolloutInfo {
    let look = app.look(&rollout.id);
    let (observed, waits) = look.map(|look| (look.observed, look.waits)).unzip();
    RolloutInfo {
        rollout: Rollout::clone(rollout),
        observed,
        waits: waits.filter(|waits| !waits.is_empty()),
    }
}

async fn turn(
    app: &App,
    rollout: Name,
    change: Change,
    turn: rollout::Change,
) -> Result<Response, Problem> {
    let command = Command::ChangeRollout {
        rollout,
        change: turn,
    };
    app.change_one(change, vec![command], None).await
}
