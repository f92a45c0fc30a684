//! Users.

use axum::Json as Answer;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::auth::{NewUser, Secret, User, UserPatch};
use crate::domain::Role;
use crate::http::access::Caller;
use crate::http::extract::{Json, MergePatch, Target, expected};
use crate::http::page::Page;
use crate::http::problem::{Problem, Refusals};
use crate::http::{App, tag, tagged};

/// A user to be.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct UserBody {
    /// `[a-z0-9._-]{1,64}`.
    name: String,
    /// `viewer`, `operator` or `admin`.
    #[schema(value_type = String)]
    role: Role,
    /// Left out, a one-time password is made up.
    password: Option<String>,
}

/// A user that was made.
#[derive(Serialize, utoipa::ToSchema)]
pub(in crate::http) struct MadeUser {
    #[serde(flatten)]
    user: User,
    /// Told this once; the first thing to do with it is to choose another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    one_time_password: Option<String>,
}

/// Changes of a user: what is not named stays.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct UserPatchBody {
    /// What the user may.
    #[schema(value_type = Option<String>)]
    role: Option<Role>,
    /// Whether the user is kept out.
    disabled: Option<bool>,
}

/// A one-time password.
#[derive(Serialize, utoipa::ToSchema)]
pub(in crate::http) struct OneTime {
    /// Told this once.
    one_time_password: String,
}

/// All users.
#[utoipa::path(get, path = "/api/v1/users", tag = "users", responses((status = 200, body = Page<User>), Refusals))]
pub(in crate::http) async fn list(State(app): State<App>) -> Result<Answer<Page<User>>, Problem> {
    let users = app.auth().users().await?;
    let items: Vec<User> = users.into_iter().map(|user| user.value).collect();
    let total = Some(items.len());
    Ok(Answer(Page {
        items,
        next: None,
        total,
    }))
}

/// Makes a user.
#[utoipa::path(post, path = "/api/v1/users", tag = "users", request_body = UserBody,
    responses((status = 201, body = MadeUser), Refusals))]
pub(in crate::http) async fn create(
    State(app): State<App>,
    caller: Caller,
    Json(body): Json<UserBody>,
) -> Result<Response, Problem> {
    let new = NewUser {
        name: body.name,
        role: body.role,
        password: body.password.map(Secret::new),
    };
    let (user, one_time) = app
        .auth()
        .create_user(&caller.actor(), new, Timestamp::now())
        .await?;
    let headers = [(header::ETAG, tag(user.revision.0))];
    let made = MadeUser {
        user: user.value,
        one_time_password: one_time.map(|secret| secret.reveal().to_owned()),
    };
    Ok((StatusCode::CREATED, headers, Answer(made)).into_response())
}

/// One user.
#[utoipa::path(get, path = "/api/v1/users/{user}", tag = "users", params(("user" = String, Path)),
    responses((status = 200, body = User), Refusals))]
pub(in crate::http) async fn get(
    State(app): State<App>,
    Target(name): Target<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let user = app.auth().user(&name).await?;
    Ok(tagged(&headers, user.revision.0, user.value))
}

/// Changes a user, whose sessions end.
#[utoipa::path(patch, path = "/api/v1/users/{user}", tag = "users", params(("user" = String, Path)),
    request_body(content = UserPatchBody, content_type = "application/merge-patch+json"),
    responses((status = 200, body = User), Refusals))]
pub(in crate::http) async fn patch(
    State(app): State<App>,
    Target(name): Target<String>,
    headers: HeaderMap,
    caller: Caller,
    MergePatch(body): MergePatch<UserPatchBody>,
) -> Result<Response, Problem> {
    let patch = UserPatch {
        role: body.role,
        disabled: body.disabled,
    };
    let expect = expected(&headers)?;
    let user = app
        .auth()
        .update_user(&caller.actor(), &name, &patch, expect)
        .await;
    let user = user.map_err(|error| precondition(error, expect))?;
    Ok(tagged(&HeaderMap::new(), user.revision.0, user.value))
}

/// Removes a user, whose sessions and tokens die too.
#[utoipa::path(delete, path = "/api/v1/users/{user}", tag = "users", params(("user" = String, Path)),
    responses((status = 204), Refusals))]
pub(in crate::http) async fn remove(
    State(app): State<App>,
    Target(name): Target<String>,
    headers: HeaderMap,
    caller: Caller,
) -> Result<StatusCode, Problem> {
    let expect = expected(&headers)?;
    let removed = app.auth().remove_user(&caller.actor(), &name, expect).await;
    removed.map_err(|error| precondition(error, expect))?;
    Ok(StatusCode::NO_CONTENT)
}

/// Ends all sessions of a user.
#[utoipa::path(delete, path = "/api/v1/users/{user}/sessions", tag = "users", params(("user" = String, Path)),
    responses((status = 204), Refusals))]
pub(in crate::http) async fn end_sessions(
    State(app): State<App>,
    Target(name): Target<String>,
    caller: Caller,
) -> Result<StatusCode, Problem> {
    app.auth().end_sessions(&caller.actor(), &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Gives a user a one-time password in place of the old one.
#[utoipa::path(post, path = "/api/v1/users/{user}/reset-password", tag = "users", params(("user" = String, Path)),
    responses((status = 200, body = OneTime), Refusals))]
pub(in crate::http) async fn reset_password(
    State(app): State<App>,
    Target(name): Target<String>,
    caller: Caller,
) -> Result<Answer<OneTime>, Problem> {
    let secret = app
        .auth()
        .reset_password(&caller.actor(), &name, Timestamp::now())
        .await?;
    Ok(Answer(OneTime {
        one_time_password: secret.reveal().to_owned(),
    }))
}

/// A version that was expected and is not there is 412, other conflicts are 409.
fn precondition(error: crate::auth::AuthError, expect: Option<u64>) -> Problem {
    match error {
        crate::auth::AuthError::Conflict(text)
            if expect.is_some() && text.contains("meanwhile") =>
        {
            Problem::new(StatusCode::PRECONDITION_FAILED, "version_conflict", text)
        }
        other => other.into(),
    }
}
