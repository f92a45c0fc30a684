//! What every request passes: a name, a line in the log, headers, bounds.

use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::forwarded::check_host;
use super::problem::Problem;
use super::{App, REQUEST, peer};
use crate::auth::network;
use crate::metrics::{HTTP_DURATION, HTTP_REQUESTS};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Nothing of this API is a page: it loads nothing, and nobody frames it.
const HEADERS: [(HeaderName, &str); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::CACHE_CONTROL, "no-store"),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
];

/// Names the request, and writes what became of it to the log: never the query or a header, which may have secrets.
pub(super) async fn named(request: Request, next: Next) -> Response {
    let id = crate::auth::short_id();
    let begin = Instant::now();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let route = request.extensions().get::<MatchedPath>().cloned();
    let peer = peer(request.extensions());
    let mut response = REQUEST.scope(id.clone(), next.run(request)).await;
    let status = response.status().as_u16();
    let took = begin.elapsed();
    let path = route.as_ref().map_or(path.as_str(), MatchedPath::as_str);
    log::debug!(request = id.as_str(), method:display = method, path = path, status = status, peer:display = peer, took:? = took; "request");
    let class = route_class(route.as_ref().map(MatchedPath::as_str));
    metrics::counter!(HTTP_REQUESTS, "class" => class.clone(), "status" => status_class(status))
        .increment(1);
    metrics::histogram!(HTTP_DURATION, "class" => class).record(took.as_secs_f64());
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

/// The first part of a route below `/api/v1/`: there are as many as [`TABLE`](super::TABLE) has. What is no route is `none`.
fn route_class(route: Option<&str>) -> String {
    let below = route.and_then(|route| route.strip_prefix("/api/v1/"));
    let first = below.and_then(|below| below.split('/').next());
    first.unwrap_or("none").to_owned()
}

fn status_class(status: u16) -> &'static str {
    match status / 100 {
        1 | 2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    }
}

/// Security headers, on every answer.
pub(super) async fn headers(State(app): State<App>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    }
    if app.0.options.tls {
        let value = HeaderValue::from_static("max-age=31536000; includeSubDomains");
        headers.insert(header::STRICT_TRANSPORT_SECURITY, value);
    }
    response
}

/// Only by our own names; so many requests at once, and so many of one client. A stream counts until its head is sent; streams are bounded by
/// themselves.
pub(super) async fn bound(State(app): State<App>, request: Request, next: Next) -> Response {
    let second = Duration::from_secs(1);
    if let Err(problem) = check_host(request.headers(), app.0.options.names.as_deref()) {
        return problem.into_response();
    }
    let Some(_mine) = app.0.clients.enter(network(peer(request.extensions()))) else {
        return Problem::too_many("too many requests of this address at once", second)
            .into_response();
    };
    let Ok(_place) = app.0.requests.try_acquire() else {
        return Problem::unavailable("too many requests at once: try again").into_response();
    };
    next.run(request).await
}
