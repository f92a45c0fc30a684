//! Who may call what: one table, and the guard in front of every route.

use std::net::IpAddr;

use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use jiff::Timestamp;
use subtle::ConstantTimeEq as _;

use super::problem::Problem;
use super::{App, peer};
use crate::auth::{Identity, Means, Secret};
use crate::core::Actor;
use crate::domain::Role;

/// The cookie of a session. The prefix makes browsers take it only from this very host, over TLS.
pub(super) const COOKIE: &str = "__Host-xdpgate";
/// What requests that change something carry, if they are known by the cookie.
pub(super) const CSRF: &str = "x-csrf-token";

/// Who may call a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anybody.
    Open,
    /// Anybody, also a browser that another site sends here.
    Elsewhere,
    /// Whoever is logged in, also before a one-time password is changed.
    Own,
    /// Whoever has this role or one above it.
    From(Role),
}

use Access::{Elsewhere, From, Open, Own};
use Role::{Admin, Operator, Viewer};

/// The routes, and who may call them. What is not in it is refused to all.
pub const TABLE: &[(&str, &str, Access)] = &[
    ("GET", "/api/v1/openapi.json", Open),
    ("GET", "/api/v1/health", Open),
    ("GET", "/api/v1/ready", Open),
    ("GET", "/api/v1/login/methods", Open),
    ("GET", "/api/v1/login/oidc", Open),
    ("GET", "/api/v1/login/oidc/callback", Elsewhere),
    ("POST", "/api/v1/session", Open),
    ("GET", "/api/v1/session", Own),
    ("DELETE", "/api/v1/session", Own),
    ("PUT", "/api/v1/session/password", Own),
    ("GET", "/api/v1/sessions", Own),
    ("DELETE", "/api/v1/sessions/{session}", Own),
    ("GET", "/api/v1/users", From(Admin)),
    ("POST", "/api/v1/users", From(Admin)),
    ("GET", "/api/v1/users/{user}", From(Admin)),
    ("PATCH", "/api/v1/users/{user}", From(Admin)),
    ("DELETE", "/api/v1/users/{user}", From(Admin)),
    ("GET", "/api/v1/users/{user}/sessions", From(Admin)),
    ("DELETE", "/api/v1/users/{user}/sessions", From(Admin)),
    ("POST", "/api/v1/users/{user}/reset-password", From(Admin)),
    ("GET", "/api/v1/tokens", From(Viewer)),
    ("POST", "/api/v1/tokens", From(Viewer)),
    ("DELETE", "/api/v1/tokens/{token}", From(Viewer)),
    ("GET", "/api/v1/policies", From(Viewer)),
    ("POST", "/api/v1/policies", From(Operator)),
    ("GET", "/api/v1/policies/{policy}", From(Viewer)),
    ("PUT", "/api/v1/policies/{policy}", From(Operator)),
    ("PATCH", "/api/v1/policies/{policy}", From(Operator)),
    ("DELETE", "/api/v1/policies/{policy}", From(Operator)),
    ("GET", "/api/v1/policies/{policy}/text", From(Viewer)),
    ("GET", "/api/v1/policies/{policy}/versions", From(Viewer)),
    ("GET", "/api/v1/policies/{policy}/diff", From(Viewer)),
    ("POST", "/api/v1/policies/{policy}/revert", From(Operator)),
    ("POST", "/api/v1/policies/{policy}/plan", From(Viewer)),
    ("POST", "/api/v1/policies/{policy}/release", From(Operator)),
    ("GET", "/api/v1/rollouts", From(Viewer)),
    ("POST", "/api/v1/rollouts", From(Operator)),
    ("POST", "/api/v1/rollouts/preview", From(Viewer)),
    ("GET", "/api/v1/rollouts/{rollout}", From(Viewer)),
    ("POST", "/api/v1/rollouts/{rollout}/pause", From(Operator)),
    ("POST", "/api/v1/rollouts/{rollout}/resume", From(Operator)),
    ("POST", "/api/v1/rollouts/{rollout}/abort", From(Operator)),
    ("GET", "/api/v1/rollout-plans", From(Viewer)),
    ("GET", "/api/v1/rollout-plans/{plan}", From(Viewer)),
    ("PUT", "/api/v1/rollout-plans/{plan}", From(Operator)),
    ("DELETE", "/api/v1/rollout-plans/{plan}", From(Operator)),
    ("GET", "/api/v1/policies/{policy}/rules", From(Viewer)),
    ("POST", "/api/v1/policies/{policy}/rules", From(Operator)),
    ("POST", "/api/v1/policies/{policy}/batch", From(Operator)),
    (
        "GET",
        "/api/v1/policies/{policy}/rules/{rule}",
        From(Viewer),
    ),
    (
        "PUT",
        "/api/v1/policies/{policy}/rules/{rule}",
        From(Operator),
    ),
    (
        "PATCH",
        "/api/v1/policies/{policy}/rules/{rule}",
        From(Operator),
    ),
    (
        "DELETE",
        "/api/v1/policies/{policy}/rules/{rule}",
        From(Operator),
    ),
    (
        "GET",
        "/api/v1/policies/{policy}/rules/{rule}/blame",
        From(Viewer),
    ),
    ("GET", "/api/v1/sets", From(Viewer)),
    ("POST", "/api/v1/sets", From(Operator)),
    ("GET", "/api/v1/sets/{set}", From(Viewer)),
    ("PATCH", "/api/v1/sets/{set}", From(Operator)),
    ("DELETE", "/api/v1/sets/{set}", From(Operator)),
    ("GET", "/api/v1/sets/{set}/entries", From(Viewer)),
    ("POST", "/api/v1/sets/{set}/entries", From(Operator)),
    ("PUT", "/api/v1/sets/{set}/entries", From(Operator)),
    ("POST", "/api/v1/sets/{set}/entries/remove", From(Operator)),
    ("GET", "/api/v1/sets/{set}/versions", From(Viewer)),
    ("GET", "/api/v1/sets/{set}/diff", From(Viewer)),
    ("POST", "/api/v1/sets/{set}/revert", From(Operator)),
    ("GET", "/api/v1/groups", From(Viewer)),
    ("POST", "/api/v1/groups", From(Operator)),
    ("GET", "/api/v1/groups/{group}", From(Viewer)),
    ("PUT", "/api/v1/groups/{group}", From(Operator)),
    ("DELETE", "/api/v1/groups/{group}", From(Operator)),
    ("GET", "/api/v1/feeds", From(Viewer)),
    ("POST", "/api/v1/feeds", From(Admin)),
    ("GET", "/api/v1/feeds/{feed}", From(Viewer)),
    ("PUT", "/api/v1/feeds/{feed}", From(Admin)),
    ("DELETE", "/api/v1/feeds/{feed}", From(Admin)),
    ("POST", "/api/v1/feeds/{feed}/run", From(Operator)),
    ("POST", "/api/v1/feeds/{feed}/accept", From(Operator)),
    ("GET", "/api/v1/controllers", From(Viewer)),
    ("GET", "/api/v1/nodes", From(Viewer)),
    ("GET", "/api/v1/nodes/{node}", From(Viewer)),
    ("PATCH", "/api/v1/nodes/{node}", From(Operator)),
    ("DELETE", "/api/v1/nodes/{node}", From(Operator)),
    ("POST", "/api/v1/nodes/{node}/sync", From(Operator)),
    ("POST", "/api/v1/nodes/{node}/revoke", From(Admin)),
    ("GET", "/api/v1/nodes/{node}/policy", From(Viewer)),
    ("GET", "/api/v1/nodes/{node}/counters", From(Viewer)),
    ("GET", "/api/v1/nodes/{node}/drops.pcapng", From(Viewer)),
    ("GET", "/api/v1/drops", From(Viewer)),
    ("POST", "/api/v1/sync", From(Operator)),
    ("GET", "/api/v1/join-tokens", From(Operator)),
    ("POST", "/api/v1/join-tokens", From(Operator)),
    ("DELETE", "/api/v1/join-tokens/{token}", From(Operator)),
    ("GET", "/api/v1/authority", From(Viewer)),
    ("POST", "/api/v1/authority/rotate", From(Admin)),
    ("POST", "/api/v1/authority/retire", From(Admin)),
    ("GET", "/api/v1/stats", From(Viewer)),
    ("GET", "/api/v1/stats/history", From(Viewer)),
    ("GET", "/api/v1/stats/groups/{group}", From(Viewer)),
    ("GET", "/api/v1/changes/{revision}", From(Viewer)),
    ("GET", "/api/v1/policies/{policy}/progress", From(Viewer)),
    ("GET", "/api/v1/lookup", From(Viewer)),
    ("POST", "/api/v1/evaluate", From(Viewer)),
    ("GET", "/api/v1/mode", From(Viewer)),
    ("PUT", "/api/v1/mode", From(Operator)),
    ("GET", "/api/v1/audit", From(Admin)),
    ("GET", "/api/v1/events", From(Viewer)),
    ("GET", "/api/v1/metrics", From(Viewer)),
];

/// Who calls, from where.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) identity: Identity,
    pub(super) address: IpAddr,
}

impl Caller {
    /// As who changes are written down.
    pub(super) fn actor(&self) -> Actor {
        self.identity.actor(self.address)
    }

    /// Refuses callers below a role, where the answer depends on more than the route.
    pub(super) fn need(&self, role: Role) -> Result<(), Problem> {
        if self.identity.role >= role {
            return Ok(());
        }
        let own = self.identity.role;
        Err(Problem::forbidden(format!(
            "this takes the role {role}, and yours is {own}"
        )))
    }
}

impl FromRequestParts<App> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Problem> {
        let caller = parts.extensions.get::<Self>().cloned();
        caller.ok_or_else(|| Problem::unauthenticated("log in, or send an API token"))
    }
}

/// Lets through who may call the route.
pub(super) async fn guard(State(app): State<App>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    match check(&app, &parts).await {
        Ok(caller) => {
            if let Some(caller) = caller {
                parts.extensions.insert(caller);
            }
            next.run(Request::from_parts(parts, body)).await
        }
        Err(problem) => problem.into_response(),
    }
}

async fn check(app: &App, request: &Parts) -> Result<Option<Caller>, Problem> {
    let path = request
        .extensions
        .get::<MatchedPath>()
        .map_or("", MatchedPath::as_str);
    // HEAD is answered by the handlers of GET.
    let method = match &request.method {
        &Method::HEAD => &Method::GET,
        method => method,
    };
    let row = TABLE
        .iter()
        .find(|(m, p, _)| *m == method.as_str() && *p == path);
    let Some((_, _, access)) = row else {
        return Err(Problem::forbidden("nobody may call this"));
    };
    match access {
        Open => return cross_site(&request.headers).map(|()| None),
        Elsewhere => return Ok(None),
        Own | From(_) => {}
    }
    let (address, headers) = (peer(&request.extensions), &request.headers);
    let identity = identify(app, headers, address).await?;
    let safe = matches!(*method, Method::GET | Method::OPTIONS);
    if let Means::Session {
        csrf,
        must_change_password,
        ..
    } = &identity.means
    {
        if !safe {
            check_csrf(headers, csrf)?;
        }
        if *must_change_password && *access != Own {
            let detail = "the password was made up by somebody else";
            let problem = Problem::new(
                axum::http::StatusCode::FORBIDDEN,
                "password_change_required",
                detail,
            );
            return Err(problem.mend("choose your own by PUT /api/v1/session/password"));
        }
    }
    let caller = Caller { identity, address };
    if let From(role) = access {
        caller.need(*role)?;
    }
    Ok(Some(caller))
}

/// By the token if there is one, else by the cookie.
async fn identify(app: &App, headers: &HeaderMap, address: IpAddr) -> Result<Identity, Problem> {
    let now = Timestamp::now();
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let text = value.to_str().unwrap_or_default();
        let Some((scheme, token)) = text.split_once(' ') else {
            return Err(Problem::unauthenticated(
                "send Authorization: Bearer and an API token",
            ));
        };
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(Problem::unauthenticated(
                "send Authorization: Bearer and an API token",
            ));
        }
        return Ok(app
            .auth()
            .token(&Secret::new(token.trim()), address, now)
            .await?);
    }
    match cookie(headers, COOKIE) {
        Some(cookie) => Ok(app.auth().session(&Secret::new(cookie), now).await?),
        None => Err(Problem::unauthenticated("log in, or send an API token")),
    }
}

/// The value of a cookie.
pub(super) fn cookie<'h>(headers: &'h HeaderMap, wanted: &str) -> Option<&'h str> {
    let all = headers.get_all(header::COOKIE).iter();
    let pairs = all
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(';'));
    let mut named = pairs.filter_map(|pair| pair.trim().split_once('='));
    named
        .find(|(name, _)| *name == wanted)
        .map(|(_, value)| value)
}

fn check_csrf(headers: &HeaderMap, csrf: &Secret) -> Result<(), Problem> {
    cross_site(headers)?;
    let sent = headers.get(CSRF).map_or(&b""[..], |value| value.as_bytes());
    if bool::from(sent.ct_eq(csrf.reveal().as_bytes())) {
        return Ok(());
    }
    let detail = "the header X-CSRF-Token is missing or not that of this session";
    Err(
        Problem::new(axum::http::StatusCode::FORBIDDEN, "csrf", detail)
            .mend("send csrf_token of GET /api/v1/session"),
    )
}

/// Refuses what a browser sends for another site.
fn cross_site(headers: &HeaderMap) -> Result<(), Problem> {
    match headers.get("sec-fetch-site").map(|value| value.as_bytes()) {
        Some(b"cross-site" | b"same-site") => {
            let detail = "the request comes from another site";
            Err(Problem::new(
                axum::http::StatusCode::FORBIDDEN,
                "csrf",
                detail,
            ))
        }
        _ => Ok(()),
    }
}

/// Whether a caller that was let in before still is.
pub(super) async fn again(app: &App, headers: &HeaderMap, caller: &Caller) -> Result<(), Problem> {
    let now = identify(app, headers, caller.address).await?;
    Caller {
        identity: now,
        address: caller.address,
    }
    .need(Role::Viewer)
}
