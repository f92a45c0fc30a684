//! Ways to log in, and the one by an identity provider.

use axum::Json as Answer;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::session::set_cookie;
use crate::auth::oidc::{Back, LOGIN, Oidc};
use crate::http::access::cookie;
use crate::http::extract::Params;
use crate::http::problem::{Problem, Refusals};
use crate::http::{App, peer};

/// The cookie of a login that is under way. Browsers send it when they come back from the provider.
const COOKIE: &str = "__Host-xdpgate-login";

/// Ways to log in.
#[derive(Serialize, utoipa::ToSchema)]
pub(in crate::http) struct Methods {
    /// By a password: POST /api/v1/session.
    password: bool,
    /// By an identity provider, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    oidc: Option<Provider>,
}

/// An identity provider.
#[derive(Serialize, utoipa::ToSchema)]
pub(in crate::http) struct Provider {
    /// What people call it.
    name: String,
    /// Where a browser begins.
    start: &'static str,
}

/// Where a login by the provider ends.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct StartParams {
    /// The path of the interface that is shown then; `/` unless said.
    return_to: Option<String>,
}

/// What the provider sends along.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct CallbackParams {
    /// For a token.
    code: Option<String>,
    /// What it was given.
    state: Option<String>,
    /// Why it did not let the user in.
    error: Option<String>,
}

/// The ways to log in that there are.
#[utoipa::path(get, path = "/api/v1/login/methods", tag = "session", security(), responses((status = 200, body = Methods), Refusals))]
pub(in crate::http) async fn methods(State(app): State<App>) -> Answer<Methods> {
    let oidc = app.0.oidc.get().map(|oidc| Provider {
        name: oidc.name().to_owned(),
        start: "/api/v1/login/oidc",
    });
    Answer(Methods {
        password: true,
        oidc,
    })
}

/// Sends a browser to the identity provider.
#[utoipa::path(get, path = "/api/v1/login/oidc", tag = "session", security(), params(StartParams),
    responses((status = 303), Refusals))]
pub(in crate::http) async fn start(
    State(app): State<App>,
    Params(params): Params<StartParams>,
) -> Result<Response, Problem> {
    let return_to = params.return_to.unwrap_or_else(|| "/".to_owned());
    if !is_path(&return_to) {
        let detail = "a path of this server, as /nodes, of up to 512 characters";
        return Err(Problem::invalid("return_to", detail));
    }
    let begun = provider(&app)?.begin(&return_to, Timestamp::now()).await?;
    Ok((
        StatusCode::SEE_OTHER,
        kept(begun.cookie.reveal(), LOGIN.as_secs()),
        location(&begun.location)?,
    )
        .into_response())
}

/// Begins a session for whoever comes back from the identity provider, and sends the browser to the interface. The session is as one that
/// was begun by a password.
#[utoipa::path(get, path = "/api/v1/login/oidc/callback", tag = "session", security(), params(CallbackParams),
    responses((status = 303), Refusals))]
pub(in crate::http) async fn callback(
    State(app): State<App>,
    headers: HeaderMap,
    Query(params): Query<CallbackParams>,
    request: Request,
) -> Result<Response, Problem> {
    let oidc = provider(&app)?;
    if let Some(error) = &params.error {
        // Whatever it says, it is not to be shown as ours.
        log::info!("the identity provider let nobody in: {error:?}");
        let detail = "the identity provider did not let you in";
        return Err(Problem::unauthenticated(detail));
    }
    let kept_before = cookie(&headers, COOKIE);
    let (Some(code), Some(state), Some(cookie)) = (&params.code, &params.state, kept_before) else {
        let detail = "this browser has begun no such login: begin again";
        return Err(Problem::unauthenticated(detail));
    };
    let (address, now) = (peer(request.extensions()), Timestamp::now());
    // Each attempt asks the provider.
    let attempt = app.auth().attempt(address, now)?;
    let back = Back {
        cookie,
        state,
        code,
    };
    let (who, return_to) = oidc.end(back, now).await?;
    attempt.succeeded();
    let login = app.auth().external_login(who, address, now).await?;
    let mut response = (
        StatusCode::SEE_OTHER,
        set_cookie(login.cookie.reveal(), ""),
        location(&return_to)?,
    )
        .into_response();
    let [(name, value)] = kept("", 0);
    response.headers_mut().append(name, value);
    Ok(response)
}

fn provider(app: &App) -> Result<&Oidc, Problem> {
    let oidc = app.0.oidc.get();
    oidc.ok_or_else(|| Problem::not_found("login/oidc").mend("GET /api/v1/login/methods"))
}

/// Whether a browser that is sent there stays here.
fn is_path(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_graphic() && b != b'\\';
    text.starts_with('/') && !text.starts_with("//") && text.len() <= 512 && text.bytes().all(plain)
}

fn kept(value: &str, seconds: i64) -> [(HeaderName, HeaderValue); 1] {
    let text =
        format!("{COOKIE}={value}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age={seconds}");
    let mut value = HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""));
    value.set_sensitive(true);
    [(header::SET_COOKIE, value)]
}

fn location(to: &str) -> Result<[(HeaderName, HeaderValue); 1], Problem> {
    let value = HeaderValue::from_str(to);
    let value = value.map_err(|_| Problem::unavailable("the provider's address is no address"))?;
    Ok([(header::LOCATION, value)])
}

#[cfg(test)]
mod tests {
    use super::is_path;

    #[test]
    fn a_browser_is_sent_to_paths_of_this_server_only() {
        for path in ["/", "/nodes?q=a%20b#top", "/a//b"] {
            assert!(is_path(path), "{path}");
        }
        for path in [
            "",
            "nodes",
            "//evil.example",
            "/\\evil.example",
            "https://x",
            "/a\r\nb",
            "/a b",
        ] {
            assert!(!is_path(path), "{path:?}");
        }
        assert!(!is_path(&format!("/{}", "a".repeat(512))));
    }
}
