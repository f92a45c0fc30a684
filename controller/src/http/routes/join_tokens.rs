//! Tokens by which nodes join.

use axum::Json as Answer;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::auth::join::{JoinToken, NewJoinToken};
use crate::domain::{Labels, Name};
use crate::http::App;
use crate::http::access::Caller;
use crate::http::extract::{Json, Target, no_key};
use crate::http::page::Page;
use crate::http::problem::{Problem, Refusals};

/// A token to be.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct JoinTokenBody {
    /// What it is for.
    #[serde(default)]
    comment: String,
    /// When it ends; an hour from now unless said.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires: Option<Timestamp>,
    /// How many nodes it brings in; 1 unless said.
    uses: Option<u32>,
    /// Labels that each node gets, as if an operator had set them.
    #[serde(default)]
    #[schema(value_type = std::collections::BTreeMap<String, String>)]
    labels: Labels,
    /// The labels that nodes may bring; left out: any.
    allowed: Option<Vec<String>>,
    /// The group that it is for: its selector must hold for the labels.
    #[schema(value_type = Option<String>)]
    group: Option<Name>,
    /// A node that was a member before and gets its identity back.
    #[schema(value_type = Option<String>)]
    node: Option<Name>,
}

/// A token that was made.
#[derive(Serialize, utoipa::ToSchema)]
pub(in crate::http) struct MadeJoinToken {
    #[serde(flatten)]
    token: JoinToken,
    /// The token itself, told this once.
    secret: String,
    /// Hosts and ports under which nodes dial controllers.
    dial: Vec<String>,
}

/// All tokens, without their secrets.
#[utoipa::path(get, path = "/api/v1/join-tokens", tag = "join tokens",
    responses((status = 200, body = Page<JoinToken>), Refusals))]
pub(in crate::http) async fn list(
    State(app): State<App>,
) -> Result<Answer<Page<JoinToken>>, Problem> {
    let items = app.joining().tokens().await?;
    let total = Some(items.len());
    Ok(Answer(Page {
        items,
        next: None,
        total,
    }))
}

/// Makes a token.
#[utoipa::path(post, path = "/api/v1/join-tokens", tag = "join tokens", request_body = JoinTokenBody,
    responses((status = 201, body = MadeJoinToken), Refusals))]
pub(in crate::http) async fn create(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    Json(body): Json<JoinTokenBody>,
) -> Result<Response, Problem> {
    no_key(&headers)?;
    let new = NewJoinToken {
        comment: body.comment,
        expires: body.expires,
        uses: body.uses,
        labels: body.labels,
        allowed: body.allowed,
        group: body.group,
        node: body.node,
    };
    let (token, secret) = app
        .joining()
        .create_token(&caller.actor(), new, Timestamp::now())
        .await?;
    let made = MadeJoinToken {
        token,
        secret: secret.reveal().to_owned(),
        dial: app.0.options.dial.clone(),
    };
    Ok((StatusCode::CREATED, Answer(made)).into_response())
}

/// Revokes a token. Nodes that came by it stay.
#[utoipa::path(delete, path = "/api/v1/join-tokens/{token}", tag = "join tokens", params(("token" = String, Path)),
    responses((status = 204), Refusals))]
pub(in crate::http) async fn remove(
    State(app): State<App>,
    Target(id): Target<String>,
    caller: Caller,
) -> Result<StatusCode, Problem> {
    app.joining().remove_token(&caller.actor(), &id).await?;
    Ok(StatusCode::NO_CONTENT)
}
