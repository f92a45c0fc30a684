//! About the controller itself.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde_json::{Value, json};

use crate::http::App;
use crate::http::problem::{Problem, Refusals};
use crate::store::Key;

/// The OpenAPI document.
#[derive(Debug, Clone)]
pub(in crate::http) struct DocumentText(pub(in crate::http) Arc<str>);

/// This document.
#[utoipa::path(get, path = "/api/v1/openapi.json", tag = "about", security(), responses((status = 200, body = Object), Refusals))]
pub(in crate::http) async fn document(Extension(text): Extension<DocumentText>) -> Response {
    let kind = [(header::CONTENT_TYPE, "application/json")];
    (kind, text.0.to_string()).into_response()
}

/// Whether the process answers.
#[utoipa::path(get, path = "/api/v1/health", tag = "about", security(), responses((status = 200, body = Object), Refusals))]
pub(in crate::http) async fn health() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

/// Whether the store answers too, so that requests can be sent here.
#[utoipa::path(get, path = "/api/v1/ready", tag = "about", security(), responses((status = 200, body = Object), Refusals))]
pub(in crate::http) async fn ready(State(app): State<App>) -> Result<Json<Value>, Problem> {
    let Some(key) = Key::new("setting/mode") else {
        return Err(Problem::unavailable("the store"));
    };
    let within = std::time::Duration::from_secs(5);
    match tokio::time::timeout(within, app.core().store().get(&key)).await {
        Ok(Ok(_)) => Ok(Json(json!({ "status": "ready" }))),
        Ok(Err(error)) => {
            log::warn!("not ready: {error}");
            Err(Problem::unavailable("the store does not answer"))
        }
        Err(_) => Err(Problem::unavailable("the store does not answer")),
    }
}

/// The controllers of this fleet, each with its `state`: `here` (it answers this), `connected`, `unreachable` (it is there and does not
/// answer this one), `gone`. There are none where the store is a file of its own.
#[utoipa::path(get, path = "/api/v1/controllers", tag = "about", responses((status = 200, body = Object), Refusals))]
pub(in crate::http) async fn controllers(State(app): State<App>) -> Json<Value> {
    Json(json!({ "items": app.fleet().controllers().await }))
}

/// Metrics of the controller, for Prometheus.
#[utoipa::path(get, path = "/api/v1/metrics", tag = "about", responses((status = 200, body = String, content_type = "text/plain"), Refusals))]
pub(in crate::http) async fn metrics(State(app): State<App>) -> Result<Response, Problem> {
    let metrics = app.0.metrics.clone();
    let metrics = metrics.ok_or_else(|| Problem::not_found("metrics"))?;
    let page = tokio::task::spawn_blocking(move || metrics.page()).await;
    let page = page.map_err(|_| Problem::unavailable("the metrics could not be read"))?;
    let kind = [(
        header::CONTENT_TYPE,
        "text/plain; version=0.0.4; charset=utf-8",
    )];
    Ok((kind, page).into_response())
}
