//! API tokens.

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::auth::{Means, NewToken, Token};
use crate::domain::Role;
use crate::http::App;
use crate::http::access::Caller;
use crate::http::extract::{Json, Target};
use crate::http::page::Page;
use crate::http::problem::{Problem, Refusals};

/// A token to be.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct TokenBody {
    /// What it is for.
    name: String,
    /// What it may: not more than the caller.
    #[schema(value_type = String)]
    role: Role,
    /// When it ends; left out, it does not.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires: Option<Timestamp>,
}

/// A token that was made.
#[derive(Serialize, utoipa::ToSchema)]
pub(in crate::http) struct MadeToken {
    #[serde(flatten)]
    token: Token,
    /// The token itself, told this once.
    secret: String,
}

/// The own tokens; for admins all.
#[utoipa::path(get, path = "/api/v1/tokens", tag = "tokens", responses((status = 200, body = Page<Token>), Refusals))]
pub(in crate::http) async fn list(
    State(app): State<App>,
    caller: Caller,
) -> Result<Answer<Page<Token>>, Problem> {
    let tokens = app.auth().tokens(owner(&caller)).await?;
    let items: Vec<Token> = tokens.into_iter().map(|token| token.value).collect();
    let total = Some(items.len());
    Ok(Answer(Page {
        items,
        next: None,
        total,
    }))
}

/// Makes a token for the caller.
#[utoipa::path(post, path = "/api/v1/tokens", tag = "tokens", request_body = TokenBody,
    responses((status = 201, body = MadeToken), Refusals))]
pub(in crate::http) async fn create(
    State(app): State<App>,
    caller: Caller,
    Json(body): Json<TokenBody>,
) -> Result<Response, Problem> {
    if matches!(caller.identity.means, Means::Token { .. }) {
        return Err(Problem::forbidden(
            "an API token does not make others: log in for that",
        ));
    }
    let new = NewToken {
        name: body.name,
        role: body.role,
        expires: body.expires,
    };
    let (actor, user) = (caller.actor(), &caller.identity.user);
    let (token, secret) = app
        .auth()
        .create_token(&actor, user, new, Timestamp::now())
        .await?;
    let made = MadeToken {
        token,
        secret: secret.reveal().to_owned(),
    };
    Ok((StatusCode::CREATED, Answer(made)).into_response())
}

/// Revokes a token of the caller; admins any.
#[utoipa::path(delete, path = "/api/v1/tokens/{token}", tag = "tokens", params(("token" = String, Path)),
    responses((status = 204), Refusals))]
pub(in crate::http) async fn remove(
    State(app): State<App>,
    Target(id): Target<String>,
    caller: Caller,
) -> Result<StatusCode, Problem> {
    app.auth()
        .remove_token(&caller.actor(), &id, owner(&caller))
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

fn owner(caller: &Caller) -> Option<&str> {
    (caller.identity.role < Role::Admin).then_some(&*caller.identity.user)
}
