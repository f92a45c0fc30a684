//! Who is logged in.

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use jiff::Timestamp;
use serde::Serialize;

use crate::auth::{Means, Role, Session};
use crate::http::App;
use crate::http::access::Caller;
use crate::http::extract::Target;
use crate::http::problem::{Problem, Refusals};

/// A session.
#[derive(Serialize, utoipa::ToSchema)]
pub(in crate::http) struct Shown {
    /// The session.
    #[serde(flatten)]
    session: Session,
    /// Whether it is the one by which this is asked.
    current: bool,
}

/// One's own sessions, the newest first.
#[utoipa::path(get, path = "/api/v1/sessions", tag = "session", responses((status = 200, body = Vec<Shown>), Refusals))]
pub(in crate::http) async fn own(
    State(app): State<App>,
    caller: Caller,
) -> Result<Answer<Vec<Shown>>, Problem> {
    list(&app, &caller, &caller.identity.user).await
}

/// The sessions of a user, the newest first.
#[utoipa::path(get, path = "/api/v1/users/{user}/sessions", tag = "users", params(("user" = String, Path)),
    responses((status = 200, body = Vec<Shown>), Refusals))]
pub(in crate::http) async fn of_user(
    State(app): State<App>,
    Target(name): Target<String>,
    caller: Caller,
) -> Result<Answer<Vec<Shown>>, Problem> {
    list(&app, &caller, &name).await
}

/// Ends one session: one's own, or, by an admin, that of anybody.
#[utoipa::path(delete, path = "/api/v1/sessions/{session}", tag = "session", params(("session" = String, Path)),
    responses((status = 204), Refusals))]
pub(in crate::http) async fn end(
    State(app): State<App>,
    Target(id): Target<String>,
    caller: Caller,
) -> Result<StatusCode, Problem> {
    let of = (caller.identity.role < Role::Admin).then_some(&*caller.identity.user);
    app.auth().end_session(&caller.actor(), &id, of).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn list(app: &App, caller: &Caller, user: &str) -> Result<Answer<Vec<Shown>>, Problem> {
    let current = match &caller.identity.means {
        Means::Session { digest, .. } => Some(digest),
        Means::Token { .. } => None,
    };
    let sessions = app.auth().sessions(user, Timestamp::now()).await?;
    let shown = sessions.into_iter().map(|session| Shown {
        current: Some(&session.id) == current,
        session,
    });
    Ok(Answer(shown.collect()))
}
