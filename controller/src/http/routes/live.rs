//! Live events.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::Value;

use crate::http::App;
use crate::http::access::{Caller, again};
use crate::http::events::{Listening, Numbered};
use crate::http::problem::{Problem, Refusals};

/// How often it is asked whether the session still is good.
pub(super) const CHECK: Duration = Duration::from_secs(15);
/// A comment, so that what is between knows that the stream lives.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(15);

/// A stream and where it is.
struct Reader {
    app: App,
    headers: HeaderMap,
    caller: Caller,
    news: tokio::sync::watch::Receiver<u64>,
    /// The number of the last event that was sent.
    at: u64,
    waiting: std::vec::IntoIter<Numbered>,
    lost: bool,
    _place: Listening,
}

/// What happens, as server-sent events: `change` (a new revision), `online`, `offline`, `applied`, `refused`, `silent`, `drift`,
/// `progress`, `import`, `feed`. After `Last-Event-ID` what came meanwhile is sent; `lost` says that some of it is not kept any more. The stream
/// ends when the session or the token does.
#[utoipa::path(get, path = "/api/v1/events", tag = "events",
    responses((status = 200, body = String, content_type = "text/event-stream"), Refusals))]
pub(in crate::http) async fn events(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let place = place(&app, &caller)?;
    let news = app.0.hub.watch();
    let last = headers
        .get("last-event-id")
        .and_then(|value| value.to_str().ok());
    let (at, lost) = match last.map(|id| id.rsplit_once('.')) {
        None => (app.0.hub.last(), false),
        Some(Some((boot, number))) if boot == app.0.boot => match number.parse() {
            Ok(number) => (number, false),
            Err(_) => (app.0.hub.last(), true),
        },
        // Of another process.
        Some(_) => (app.0.hub.last(), true),
    };
    let reader = Reader {
        app,
        headers,
        caller,
        news,
        at,
        waiting: Vec::new().into_iter(),
        lost,
        _place: place,
    };
    let stream = stream::unfold(reader, async |mut reader| {
        let event = reader.next().await?;
        Some((Ok::<_, Infallible>(event), reader))
    });
    let alive = KeepAlive::new().interval(HEARTBEAT).text("alive");
    Ok(Sse::new(stream).keep_alive(alive).into_response())
}

/// A place for one more stream.
pub(super) fn place(app: &App, caller: &Caller) -> Result<Listening, Problem> {
    app.0.hub.listen(&caller.identity.user).ok_or_else(|| {
        let detail = "too many streams of events are open: close one";
        Problem::too_many(detail, Duration::from_secs(5))
    })
}

impl Reader {
    /// The next event; `None` when the session is no good any more.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if std::mem::take(&mut self.lost) {
                return Some(Event::default().event("lost").data("{}").id(self.id()));
            }
            if let Some((number, event)) = self.waiting.next() {
                self.at = number;
                let kind = event
                    .get("event")
                    .and_then(Value::as_str)
                    .unwrap_or("event");
                return Some(
                    Event::default()
                        .event(kind)
                        .data(event.to_string())
                        .id(self.id()),
                );
            }
            self.news.borrow_and_update();
            let next = self.app.0.hub.after(self.at);
            self.lost = next.lost;
            self.waiting = next.events.into_iter();
            if self.lost || !self.waiting.as_slice().is_empty() {
                continue;
            }
            // Quiet: wait for news, and see now and then whether the caller still may.
            match tokio::time::timeout(CHECK, self.news.changed()).await {
                Ok(Ok(())) => (),
                Ok(Err(_)) => return None,
                Err(_) => again(&self.app, &self.headers, &self.caller).await.ok()?,
            }
        }
    }

    fn id(&self) -> String {
        format!("{}.{}", self.app.0.boot, self.at)
    }
}
