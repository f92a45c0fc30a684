//! The authority of the fleet's certificates.

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use jiff::Timestamp;
use serde::Deserialize;

use crate::auth::authority::AuthorityInfo;
use crate::http::App;
use crate::http::access::Caller;
use crate::http::extract::Json;
use crate::http::page::Page;
use crate::http::problem::{Problem, Refusals};

/// How the old authority is retired.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Retirement {
    /// Also while nodes have certificates of it: those then have to join anew.
    #[serde(default)]
    force: bool,
}

/// The trusted authorities, the oldest first; no keys.
#[utoipa::path(get, path = "/api/v1/authority", tag = "authority", responses((status = 200, body = Page<AuthorityInfo>), Refusals))]
pub(in crate::http) async fn list(State(app): State<App>) -> Answer<Page<AuthorityInfo>> {
    let items = app.joining().authority().list();
    let total = Some(items.len());
    Answer(Page {
        items,
        next: None,
        total,
    })
}

/// Makes a new authority beside the old one; nodes get their certificates of it from now on.
#[utoipa::path(post, path = "/api/v1/authority/rotate", tag = "authority", responses((status = 204), Refusals))]
pub(in crate::http) async fn rotate(
    State(app): State<App>,
    caller: Caller,
) -> Result<StatusCode, Problem> {
    app.joining()
        .authority()
        .rotate(&caller.actor(), Timestamp::now())
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Ends the trust in the old authority, once no node has a certificate of it.
#[utoipa::path(post, path = "/api/v1/authority/retire", tag = "authority", request_body = Retirement,
    responses((status = 204), Refusals))]
pub(in crate::http) async fn retire(
    State(app): State<App>,
    caller: Caller,
    Json(body): Json<Retirement>,
) -> Result<StatusCode, Problem> {
    app.joining()
        .authority()
        .retire(&caller.actor(), body.force)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
