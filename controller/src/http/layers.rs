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
    metrics::counter!("xdpgate_controller_http_requests_total", "status" => class(status))
        .increment(1);
    metrics::histogram!("xdpgate_controller_http_request_seconds").record(took.as_secs_f64());
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

fn class(status: u16) -> &'static str {
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
