//! Groups.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde::{Deserialize, Serialize};

use super::policies::ListParams;
use crate::core::{Command, GroupContent, View};
use crate::domain::{Group, Mode, Name, Selector};
use crate::http::extract::{Change, ChangeParams, Json, Params, Target};
use crate::http::page::Page;
use crate::http::problem::{Problem, Refusals};
use crate::http::rules::Touched;
use crate::http::{App, Changed, tagged};

/// A group.
#[derive(Serialize, utoipa::ToSchema)]
pub(in crate::http) struct GroupInfo {
    /// The name.
    name: String,
    /// Grows with each change; also the ETag.
    version: u64,
    /// Which nodes, by their labels: `env=prod,tier in (a,b),!legacy`.
    selector: String,
    /// What they have, in this order.
    policies: Vec<String>,
    /// Groups of a lower rank come first.
    rank: u32,
    /// The mode of its nodes: `enforce`, `dry_run`, or absent.
    #[schema(value_type = Option<String>)]
    mode: Option<Mode>,
    /// Free text.
    comment: Option<String>,
    /// How many nodes are in it.
    nodes: usize,
    /// Who made it.
    created: Touched,
    /// Who changed it last.
    updated: Touched,
}

/// What a group is made of.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct GroupBody {
    /// Which nodes, by their labels; empty: all.
    #[schema(value_type = String)]
    selector: Selector,
    /// What they have, in this order.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    policies: Vec<Name>,
    /// Groups of a lower rank come first.
    #[serde(default)]
    rank: u32,
    /// The mode of its nodes.
    #[schema(value_type = Option<String>)]
    mode: Option<Mode>,
    /// Free text.
    comment: Option<String>,
}

/// A group to be.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct NewGroup {
    /// `[a-zA-Z0-9._-]{1,64}`.
    #[schema(value_type = String)]
    name: Name,
    /// Which nodes, by their labels; empty: all.
    #[schema(value_type = String)]
    selector: Selector,
    /// What they have, in this order.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    policies: Vec<Name>,
    /// Groups of a lower rank come first.
    #[serde(default)]
    rank: u32,
    /// The mode of its nodes.
    #[schema(value_type = Option<String>)]
    mode: Option<Mode>,
    /// Free text.
    comment: Option<String>,
}

impl GroupInfo {
    fn new(view: &View, group: &Group) -> Self {
        let nodes = view
            .nodes()
            .values()
            .filter(|node| group.selector.holds(&node.labels()));
        Self {
            name: group.name.to_string(),
            version: group.version,
            selector: group.selector.to_string(),
            policies: group.policies.iter().map(Name::to_string).collect(),
            rank: group.rank,
            mode: group.mode,
            comment: group.comment.clone(),
            nodes: nodes.count(),
            created: (&group.created).into(),
            updated: (&group.updated).into(),
        }
    }
}

/// The groups.
#[utoipa::path(get, path = "/api/v1/groups", tag = "groups", params(ListParams),
    responses((status = 200, body = Page<GroupInfo>), Refusals))]
pub(in crate::http) async fn list(
    State(app): State<App>,
    Params(params): Params<ListParams>,
) -> Result<Answer<Page<GroupInfo>>, Problem> {
    let view = app.core().view();
    let all = view.groups().values();
    let all = all.filter(|group| params.holds(&group.name, group.comment.as_ref()));
    let found = params.page(all.cloned().collect(), |group: &Arc<Group>| {
        group.name.to_string()
    })?;
    super::policies::waiting(move || Ok(Answer(found.map(|group| GroupInfo::new(&view, &group)))))
        .await
}

/// Makes a group.
#[utoipa::path(post, path = "/api/v1/groups", tag = "groups", params(ChangeParams), request_body = NewGroup,
    responses((status = 201, body = Changed), Refusals))]
pub(in crate::http) async fn create(
    State(app): State<App>,
    change: Change,
    Json(body): Json<NewGroup>,
) -> Result<Response, Problem> {
    let (group, new) = (body.name.clone(), format!("/api/v1/groups/{}", body.name));
    let content = GroupContent {
        selector: body.selector,
        policies: body.policies,
        rank: body.rank,
        mode: body.mode,
        comment: body.comment,
    };
    app.change_one(
        change,
        vec![Command::CreateGroup { group, content }],
        Some(new),
    )
    .await
}

/// One group.
#[utoipa::path(get, path = "/api/v1/groups/{group}", tag = "groups", params(("group" = String, Path)),
    responses((status = 200, body = GroupInfo), Refusals))]
pub(in crate::http) async fn get(
    State(app): State<App>,
    Target(name): Target<Name>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let view = app.core().view();
    let group = view.groups().get(&name);
    let group = group.ok_or_else(|| Problem::not_found(format!("group/{name}")))?;
    Ok(tagged(
        &headers,
        group.version,
        GroupInfo::new(&view, group),
    ))
}

/// Replaces a group, or makes it.
#[utoipa::path(put, path = "/api/v1/groups/{group}", tag = "groups", params(("group" = String, Path), ChangeParams),
    request_body = GroupBody, responses((status = 200, body = Changed), Refusals))]
pub(in crate::http) async fn put(
    State(app): State<App>,
    Target(group): Target<Name>,
    change: Change,
    Json(body): Json<GroupBody>,
) -> Result<Response, Problem> {
    let content = GroupContent {
        selector: body.selector,
        policies: body.policies,
        rank: body.rank,
        mode: body.mode,
        comment: body.comment,
    };
    app.change_one(change, vec![Command::PutGroup { group, content }], None)
        .await
}

/// Removes a group: its nodes lose what they have by it.
#[utoipa::path(delete, path = "/api/v1/groups/{group}", tag = "groups", params(("group" = String, Path), ChangeParams),
    responses((status = 200, body = Changed), Refusals))]
pub(in crate::http) async fn remove(
    State(app): State<App>,
    Target(group): Target<Name>,
    change: Change,
) -> Result<Response, Problem> {
    app.change_one(change, vec![Command::DeleteGroup { group }], None)
        .await
}
