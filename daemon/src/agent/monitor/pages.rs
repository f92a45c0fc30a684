//! What is served.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State as Of;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::timeout;
use xdpgate::Firewall;

use super::{State, process};

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(10);
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";

pub(super) fn router(state: Arc<State>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(health))
        .route("/readyz", get(ready))
        .fallback(|| async {
            said(
                StatusCode::NOT_FOUND,
                "there are /metrics, /healthz, /readyz",
            )
        })
        .with_state(state)
}

/// All metrics in the text format of Prometheus. While there is no firewall yet, those of the process.
async fn metrics(Of(state): Of<Arc<State>>) -> Response {
    let text = in_turn(&state.reading, {
        let state = Arc::clone(&state);
        move || {
            if let Some(firewall) = state.firewall() {
                firewall.record_metrics(state.options);
            }
            let mut text = state.exporter.render();
            text.push_str(&process::exposition());
            text
        }
    });
    match text.await {
        Ok(text) => ([(header::CONTENT_TYPE, TEXT_FORMAT)], text).into_response(),
        Err(reason) => said(StatusCode::SERVICE_UNAVAILABLE, reason),
    }
}

/// Whether the process answers, and the policy in force is what judges.
async fn health(Of(state): Of<Arc<State>>) -> Response {
    let Some(firewall) = state.firewall() else {
        return said(StatusCode::OK, "ok");
    };
    let found = in_turn(&state.asking, move || {
        firewall.health().map_err(|e| e.to_string())
    });
    match found.await {
        Ok(Ok(())) => said(StatusCode::OK, "ok"),
        Ok(Err(reason)) => said(StatusCode::SERVICE_UNAVAILABLE, &reason),
        Err(reason) => said(StatusCode::SERVICE_UNAVAILABLE, reason),
    }
}

/// Whether all is up: attached, and the API served.
async fn ready(Of(state): Of<Arc<State>>) -> Response {
    if state.stopping.get().is_some() {
        return said(StatusCode::SERVICE_UNAVAILABLE, "stopping");
    }
    match state.firewall.get() {
        Some(_) => said(StatusCode::OK, "ready"),
        None => said(StatusCode::SERVICE_UNAVAILABLE, "starting"),
    }
}

impl State {
    fn firewall(&self) -> Option<Arc<Firewall>> {
        self.firewall.get()?.upgrade()
    }
}

/// Runs something that may block, one at a time. What takes too long keeps its turn until it ends, so
/// that no more than one thread ever waits.
async fn in_turn<T: Send + 'static>(
    turn: &Arc<Mutex<()>>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, &'static str> {
    let answer = async {
        let mine: OwnedMutexGuard<()> = Arc::clone(turn).lock_owned().await;
        let work = tokio::task::spawn_blocking(move || {
            let _mine = mine;
            work()
        });
        work.await.map_err(|_| "it panicked: please report this")
    };
    let late = Err("no answer in time: what was asked before is still under way");
    timeout(ANSWER, answer).await.unwrap_or(late)
}

fn said(status: StatusCode, text: &str) -> Response {
    let plain = [(header::CONTENT_TYPE, PLAIN)];
    (status, plain, format!("{text}\n")).into_response()
}
