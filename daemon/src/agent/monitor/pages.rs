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
use xdpgate_service::process;

use super::State;

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
    let text = in_turn(&state.reading, state.patience, {
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
    let found = in_turn(&state.asking, state.patience, move || {
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
    patience: Duration,
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
    timeout(patience, answer).await.unwrap_or(late)
}

fn said(status: StatusCode, text: &str) -> Response {
    let plain = [(header::CONTENT_TYPE, PLAIN)];
    (status, plain, format!("{text}\n")).into_response()
}

#[cfg(test)]
mod tests {
    use std::sync::{OnceLock, Weak};

    use axum::body::Body;
    use axum::http::Request;
    use metrics_exporter_prometheus::PrometheusBuilder;
    use tower::ServiceExt;
    use xdpgate::MetricsOptions;

    use super::*;

    fn state() -> State {
        State {
            firewall: OnceLock::new(),
            stopping: OnceLock::new(),
            exporter: PrometheusBuilder::new().build_recorder().handle(),
            options: MetricsOptions::default(),
            reading: Arc::default(),
            patience: Duration::from_secs(10),
            asking: Arc::default(),
        }
    }

    /// Status and text of a page.
    async fn page(state: &Arc<State>, path: &str) -> (u16, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let answer = router(Arc::clone(state)).oneshot(request).await.unwrap();
        let status = answer.status().as_u16();
        let body = axum::body::to_bytes(answer.into_body(), 1 << 20).await;
        (status, String::from_utf8(body.unwrap().to_vec()).unwrap())
    }

    #[tokio::test]
    async fn it_is_ready_between_start_and_stop() {
        let state = Arc::new(state());
        let ready = (200, "ready\n".to_owned());
        assert_eq!(
            page(&state, "/readyz").await,
            (503, "starting\n".to_owned())
        );
        // The process answers, and what it will judge by is not there yet.
        assert_eq!(page(&state, "/healthz").await.0, 200);
        let (status, text) = page(&state, "/metrics").await;
        assert_eq!(status, 200);
        assert!(text.contains("process_open_fds "), "{text}");
        state.firewall.set(Weak::new()).unwrap();
        assert_eq!(page(&state, "/readyz").await, ready);
        state.stopping.set(()).unwrap();
        assert_eq!(
            page(&state, "/readyz").await,
            (503, "stopping\n".to_owned())
        );
    }

    #[tokio::test]
    async fn what_takes_too_long_is_said() {
        let patience = Duration::from_millis(20);
        let state = Arc::new(State {
            patience,
            ..state()
        });
        let _under_way = Arc::clone(&state.reading).lock_owned().await;
        let (status, text) = page(&state, "/metrics").await;
        assert_eq!(status, 503);
        assert!(text.contains("under way"), "{text}");
    }
}
