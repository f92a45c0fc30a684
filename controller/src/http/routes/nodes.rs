//! Nodes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json as Answer;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::policies::waiting;
use crate::core::{Command, NodePatch, View};
use crate::domain::{Labels, Mode, Name, NodeRecord, Selector};
use crate::fleet::{Filter, Spot};
use crate::http::access::Caller;
use crate::http::extract::{Change, ChangeParams, Json, MergePatch, Params, Target};
use crate::http::find::word;
use crate::http::page::{Page, cursor, limit, place};
use crate::http::problem::{Problem, Refusals};
use crate::http::rules::Touched;
use crate::http::{App, Changed, tagged};
use crate::peers::Answered;

/// A node has this long to answer a question.
const ANSWER: Duration = Duration::from_secs(5);

/// Which nodes.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct NodeParams {
    /// Text in the id, name or a label, in upper or lower case.
    q: Option<String>,
    /// By their labels: `env=prod,tier in (a,b),!legacy`.
    #[param(value_type = Option<String>)]
    selector: Option<Selector>,
    /// Those of a group.
    #[param(value_type = Option<String>)]
    group: Option<Name>,
    /// Those in a state, as `fresh` or `offline`.
    state: Option<String>,
    /// Those whose daemon has this version.
    version: Option<String>,
    /// Those that are in maintenance, or not.
    maintenance: Option<bool>,
    /// `id` or `name`; with `-` in front the other way round.
    sort: Option<String>,
    /// How many, up to 1,000; 100 unless said.
    limit: Option<usize>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// A node.
#[derive(Serialize, utoipa::ToSchema)]
pub(in crate::http) struct NodeInfo {
    /// Its identity, for good.
    id: String,
    /// What people call it.
    name: String,
    /// Grows with each change; also the ETag.
    version: u64,
    /// The labels that count.
    #[schema(value_type = BTreeMap<String, String>)]
    labels: Labels,
    /// Those that operators gave it; they win over what the node brought.
    #[schema(value_type = BTreeMap<String, String>)]
    set_labels: Labels,
    /// Somebody works on it.
    maintenance: bool,
    /// It is shut out.
    revoked: bool,
    /// The groups that it is in, in the order in which they count.
    groups: Vec<String>,
    /// What it shall have.
    desired: Option<DesiredInfo>,
    /// Why the newest of that could not be made, so that it stays at the one before.
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<String>,
    /// How it is; `state` and `delivery` in lists, all that is known otherwise.
    #[schema(value_type = Object)]
    status: Value,
    /// When it joined, and by which token.
    created: Touched,
    /// Who changed it last.
    updated: Touched,
}

/// A page of nodes.
#[derive(Serialize, utoipa::ToSchema)]
pub(in crate::http) struct NodePage {
    #[serde(flatten)]
    page: Page<NodeInfo>,
    /// Of how many controllers the states are, where there may be several: nodes of those that do not answer are in state `unknown`.
    #[serde(skip_serializing_if = "Option::is_none")]
    controllers: Option<Answered>,
}

/// What a node shall have.
#[derive(Serialize, utoipa::ToSchema)]
pub(in crate::http) struct DesiredInfo {
    /// The canonical hash of its policy.
    hash: String,
    /// The number of the newest change.
    sequence: u64,
    /// `enforce`, `dry_run`, or absent: as the node has it.
    #[schema(value_type = Option<String>)]
    mode: Option<Mode>,
    /// The policies that it was made of, in their order, each with its version.
    #[schema(value_type = Vec<Object>)]
    policies: Vec<(Name, u64)>,
    /// How many rules that makes.
    rules: usize,
}

/// Changes of a node: what is not named stays.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct NodePatchBody {
    /// What people call it.
    name: Option<String>,
    /// Labels by operators: each is set, or cleared by null.
    #[serde(default)]
    set_labels: BTreeMap<String, Option<String>>,
    /// Whether somebody works on it.
    maintenance: Option<bool>,
}

/// What is revoked.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Revocation {
    /// One certificate, by its serial number; left out, the node is shut out whatever it has.
    serial: Option<String>,
}

/// Which rules.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct CounterParams {
    /// Their ids, with commas between, up to 1,000.
    rules: String,
}

impl NodeInfo {
    fn new(view: &View, node: &NodeRecord, status: Value) -> Self {
        let desired = view.desired(&node.id).map(|desired| DesiredInfo {
            hash: desired.hash.to_string(),
            sequence: desired.sequence,
            mode: desired.mode,
            policies: desired.policies.clone(),
            rules: desired.policy.rules().len(),
        });
        Self {
            id: node.id.to_string(),
            name: node.name.clone(),
            version: node.version,
            labels: node.labels(),
            set_labels: node.set_labels.clone(),
            maintenance: node.maintenance,
            revoked: node.revoked,
            groups: view
                .groups_of(&node.id)
                .iter()
                .map(|group| group.name.to_string())
                .collect(),
            desired,
            fault: view.fault(&node.id).map(ToString::to_string),
            status,
            created: (&node.created).into(),
            updated: (&node.updated).into(),
        }
    }
}

impl NodeParams {
    fn filter(self) -> Result<Filter, Problem> {
        let sort = ["id", "-id", "name", "-name"];
        word("sort", self.sort.as_deref(), &sort)?;
        let sort = self.sort.as_deref().unwrap_or("id");
        Ok(Filter {
            by_name: sort.ends_with("name"),
            descends: sort.starts_with('-'),
            limit: limit(self.limit)?,
            after: place(self.cursor.as_deref())?,
            text: self.q,
            selector: self.selector,
            group: self.group,
            state: self.state,
            version: self.version,
            maintenance: self.maintenance,
        })
    }
}

fn unknown() -> Value {
    json!({ "state": "never_connected" })
}

/// The nodes: filtered, sorted, one page of them.
#[utoipa::path(get, path = "/api/v1/nodes", tag = "nodes", params(NodeParams), responses((status = 200, body = NodePage), Refusals))]
pub(in crate::http) async fn list(
    State(app): State<App>,
    Params(params): Params<NodeParams>,
) -> Result<Answer<NodePage>, Problem> {
    let filter = params.filter()?;
    let view = app.core().view();
    let is_there = |group| view.groups().contains_key(group);
    if !filter.group.as_ref().is_none_or(is_there) {
        return Err(Problem::invalid("group", "there is no such group"));
    }
    let (found, controllers) = app.fleet().find(Arc::clone(&view), filter).await;
    let last = found.nodes.last().filter(|_| found.more);
    let next = last.map(|(spot, _)| cursor(spot));
    let work = move || {
        let info = |((_, id), status): (Spot, Value)| {
            let node = view.nodes().get(id.as_str())?;
            Some(NodeInfo::new(&view, node, status))
        };
        Ok(found.nodes.into_iter().filter_map(info).collect())
    };
    Ok(Answer(NodePage {
        page: Page {
            total: Some(found.total),
            next,
            items: waiting(work).await?,
        },
        controllers,
    }))
}

/// One node, with all that is known of it.
#[utoipa::path(get, path = "/api/v1/nodes/{node}", tag = "nodes", params(("node" = String, Path)),
    responses((status = 200, body = NodeInfo), Refusals))]
pub(in crate::http) async fn get(
    State(app): State<App>,
    Target(id): Target<Name>,
) -> Result<Response, Problem> {
    let view = app.core().view();
    let node = found(&view, &id)?;
    let status = app.fleet().status(&id).await.unwrap_or_else(unknown);
    // No 304 here: what is known of it changes without the version.
    Ok(tagged(
        &HeaderMap::new(),
        node.version,
        NodeInfo::new(&view, node, status),
    ))
}

/// Changes a node: what is not named stays.
#[utoipa::path(patch, path = "/api/v1/nodes/{node}", tag = "nodes", params(("node" = String, Path), ChangeParams),
    request_body(content = NodePatchBody, content_type = "application/merge-patch+json"),
    responses((status = 200, body = Changed), Refusals))]
pub(in crate::http) async fn patch(
    State(app): State<App>,
    Target(node): Target<Name>,
    change: Change,
    MergePatch(body): MergePatch<NodePatchBody>,
) -> Result<Response, Problem> {
    let patch = NodePatch {
        name: body.name,
        set_labels: body.set_labels,
        maintenance: body.maintenance,
        ..NodePatch::default()
    };
    app.change_one(change, vec![Command::PatchNode { node, patch }], None)
        .await
}

/// Removes a node. Its certificate is refused from then on; what it has in force stays until somebody stops it there.
#[utoipa::path(delete, path = "/api/v1/nodes/{node}", tag = "nodes", params(("node" = String, Path), ChangeParams),
    responses((status = 200, body = Changed), Refusals))]
pub(in crate::http) async fn remove(
    State(app): State<App>,
    Target(node): Target<Name>,
    change: Change,
) -> Result<Response, Problem> {
    app.change_one(change, vec![Command::DeleteNode { node }], None)
        .await
}

/// Sends a node all that it shall have, whatever it has.
#[utoipa::path(post, path = "/api/v1/nodes/{node}/sync", tag = "nodes", params(("node" = String, Path)),
    responses((status = 202, body = Object), Refusals))]
pub(in crate::http) async fn sync(
    State(app): State<App>,
    Target(id): Target<Name>,
) -> Result<(StatusCode, Answer<Value>), Problem> {
    found(&app.core().view(), &id)?;
    if !app.fleet().sync(&id).await {
        let problem = Problem::new(
            StatusCode::CONFLICT,
            "offline",
            format!("{id} is not connected"),
        );
        return Err(problem.mend("it gets what it lacks when it is back"));
    }
    Ok((StatusCode::ACCEPTED, Answer(json!({ "nodes": 1 }))))
}

/// Sends all nodes that are here all that they shall have.
#[utoipa::path(post, path = "/api/v1/sync", tag = "nodes", responses((status = 202, body = Object), Refusals))]
pub(in crate::http) async fn sync_all(State(app): State<App>) -> (StatusCode, Answer<Value>) {
    let (nodes, controllers) = app.fleet().sync_all().await;
    let mut answer = json!({ "nodes": nodes });
    if let Some(controllers) = controllers {
        answer["controllers"] = json!(controllers);
    }
    (StatusCode::ACCEPTED, Answer(answer))
}

/// Shuts a node out, or revokes one of its certificates. A token made for it lets it back in.
#[utoipa::path(post, path = "/api/v1/nodes/{node}/revoke", tag = "nodes", params(("node" = String, Path)),
    request_body = Revocation, responses((status = 204), Refusals))]
pub(in crate::http) async fn revoke(
    State(app): State<App>,
    Target(node): Target<Name>,
    caller: Caller,
    Json(body): Json<Revocation>,
) -> Result<StatusCode, Problem> {
    let actor = caller.actor();
    match body.serial {
        Some(serial) => {
            app.joining()
                .revoke_serial(&actor, &node, &serial, Timestamp::now())
                .await?;
        }
        None => {
            let patch = NodePatch {
                revoked: Some(true),
                ..NodePatch::default()
            };
            let commands = vec![Command::PatchNode { node, patch }];
            app.core()
                .execute(&actor, commands, &crate::core::Options::default())
                .await?;
        }
    }
    Ok(StatusCode::NO_CONTENT)
}

/// What a node shall have, as the text of a policy file with its sets in short.
#[utoipa::path(get, path = "/api/v1/nodes/{node}/policy", tag = "nodes", params(("node" = String, Path)),
    responses((status = 200, body = Object), Refusals))]
pub(in crate::http) async fn policy(
    State(app): State<App>,
    Target(id): Target<Name>,
) -> Result<Response, Problem> {
    let view = app.core().view();
    found(&view, &id)?;
    let desired = view
        .desired(&id)
        .ok_or_else(|| Problem::not_found(format!("node/{id}/policy")))?;
    let work = move || {
        let rules = desired.policy.rules().iter();
        let rules =
            rules.map(|rule| serde_json::from_str::<Value>(&rule.to_json()).unwrap_or_default());
        let sets = desired
            .policy
            .sets()
            .iter()
            .map(|(name, set)| json!({ "name": name.as_str(), "entries": set.len() }));
        Ok(json!({
            "hash": desired.hash.to_string(),
            "sequence": desired.sequence,
            "mode": desired.mode,
            "default": desired.policy.default_verdict().to_string(),
            "malformed": desired.policy.malformed().to_string(),
            "policies": desired.policies,
            "sets": sets.collect::<Vec<_>>(),
            "rules": rules.collect::<Vec<_>>(),
        }))
    };
    Ok(Answer(waiting(work).await?).into_response())
}

/// Counters of rules, asked of the node now.
#[utoipa::path(get, path = "/api/v1/nodes/{node}/counters", tag = "nodes", params(("node" = String, Path), CounterParams),
    responses((status = 200, body = Object), Refusals))]
pub(in crate::http) async fn counters(
    State(app): State<App>,
    Target(id): Target<Name>,
    Params(params): Params<CounterParams>,
) -> Result<Answer<Value>, Problem> {
    found(&app.core().view(), &id)?;
    let ids = params
        .rules
        .split(',')
        .map(str::trim)
        .filter(|id| !id.is_empty());
    let ids: Vec<String> = ids.map(str::to_owned).collect();
    let counters = app.fleet().rule_counters(&id, ids, ANSWER).await;
    Ok(Answer(counters?))
}

pub(super) fn found<'v>(view: &'v View, id: &Name) -> Result<&'v Arc<NodeRecord>, Problem> {
    view.nodes()
        .get(id)
        .ok_or_else(|| Problem::not_found(format!("node/{id}")))
}
