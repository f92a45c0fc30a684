//! Logging in and out.

use axum::Json as Answer;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::auth::{Identity, Means, Secret};
use crate::http::access::{COOKIE, Caller};
use crate::http::extract::Json;
use crate::http::problem::{Problem, Refusals};
use crate::http::{App, peer};

/// Who logs in.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Credentials {
    /// The user.
    user: String,
    /// The password.
    password: String,
}

/// Who calls.
#[derive(Serialize, utoipa::ToSchema)]
pub(in crate::http) struct Me {
    /// The user, or the owner of the token.
    user: String,
    /// What this call may: `viewer`, `operator` or `admin`.
    role: String,
    /// The token, if it is called by one.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    /// What requests of this session that change something carry as X-CSRF-Token.
    #[serde(skip_serializing_if = "Option::is_none")]
    csrf_token: Option<String>,
    /// Whether only a password can be chosen before anything else.
    must_change_password: bool,
}

impl From<&Identity> for Me {
    fn from(identity: &Identity) -> Self {
        let (user, role) = (identity.user.clone(), identity.role.to_string());
        match &identity.means {
            Means::Session {
                csrf,
                must_change_password,
                ..
            } => Self {
                user,
                role,
                token: None,
                csrf_token: Some(csrf.reveal().to_owned()),
                must_change_password: *must_change_password,
            },
            Means::Token { id } => Self {
                user,
                role,
                token: Some(id.clone()),
                csrf_token: None,
                must_change_password: false,
            },
        }
    }
}

/// Begins a session: its cookie is in the answer.
#[utoipa::path(post, path = "/api/v1/session", tag = "session", security(), request_body = Credentials,
    responses((status = 201, body = Me), Refusals))]
pub(in crate::http) async fn login(
    State(app): State<App>,
    request: Request,
) -> Result<Response, Problem> {
    use axum::extract::FromRequest as _;
    let address = peer(request.extensions());
    let Json(body) = Json::<Credentials>::from_request(request, &app).await?;
    let password = Secret::new(body.password);
    let login = app
        .auth()
        .login(&body.user, password, address, Timestamp::now())
        .await?;
    let me = Answer(Me::from(&login.identity));
    Ok((
        StatusCode::CREATED,
        set_cookie(login.cookie.reveal(), ""),
        me,
    )
        .into_response())
}

/// Who calls, and what this call may.
#[utoipa::path(get, path = "/api/v1/session", tag = "session", responses((status = 200, body = Me), Refusals))]
pub(in crate::http) async fn me(caller: Caller) -> Answer<Me> {
    Answer(Me::from(&caller.identity))
}

/// Ends the session.
#[utoipa::path(delete, path = "/api/v1/session", tag = "session", responses((status = 204), Refusals))]
pub(in crate::http) async fn logout(
    State(app): State<App>,
    caller: Caller,
) -> Result<Response, Problem> {
    let Means::Session { digest, .. } = &caller.identity.means else {
        let problem = Problem::invalid("", "an API token is not a session");
        return Err(problem.mend("revoke it by DELETE /api/v1/tokens/{token}"));
    };
    app.auth().logout(&caller.actor(), digest).await?;
    Ok((StatusCode::NO_CONTENT, set_cookie("", "; Max-Age=0")).into_response())
}

/// A new password.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct NewPassword {
    /// The one that is good now.
    current_password: String,
    /// The one that is to be: 12 characters or more.
    new_password: String,
}

/// Changes the own password. All sessions of the user end, this one too.
#[utoipa::path(put, path = "/api/v1/session/password", tag = "session", request_body = NewPassword,
    responses((status = 204), Refusals))]
pub(in crate::http) async fn password(
    State(app): State<App>,
    caller: Caller,
    Json(body): Json<NewPassword>,
) -> Result<Response, Problem> {
    if !matches!(caller.identity.means, Means::Session { .. }) {
        return Err(Problem::forbidden(
            "a password is changed in a session, not by an API token",
        ));
    }
    let (current, new) = (
        Secret::new(body.current_password),
        Secret::new(body.new_password),
    );
    let (actor, now) = (caller.actor(), Timestamp::now());
    app.auth()
        .change_password(&actor, caller.address, current, new, now)
        .await?;
    Ok((StatusCode::NO_CONTENT, set_cookie("", "; Max-Age=0")).into_response())
}

pub(super) fn set_cookie(value: &str, more: &str) -> [(header::HeaderName, HeaderValue); 1] {
    let text = format!("{COOKIE}={value}; Path=/; Secure; HttpOnly; SameSite=Strict{more}");
    let mut value = HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""));
    value.set_sensitive(true);
    [(header::SET_COOKIE, value)]
}
