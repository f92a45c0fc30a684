//! Sampled drops: live, or as a file for Wireshark.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::sse::{Event as Told, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, BoxStream, SelectAll, StreamExt as _};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout, timeout_at};
use xdpgate::{PcapngFrame, PcapngWriter};
use xdpgate_api::v1::{Event, WatchEventsRequest, WatchEventsResponse};

use super::live::{CHECK, HEARTBEAT, place};
use super::nodes::found;
use crate::domain::Name;
use crate::http::App;
use crate::http::access::{Caller, again};
use crate::http::events::Listening;
use crate::http::extract::{Params, Target};
use crate::http::problem::{Problem, Refusals};

/// Nodes of one stream.
const NODES: usize = 32;
/// Frames of a second that a node sends at most, and unless said otherwise.
const RATE: (u32, u32) = (1_000, 100);
/// Frames of a file, and how many seconds it takes: at most, and unless said.
const FRAMES: (usize, usize) = (10_000, 1_000);
const SECONDS: (u64, u64) = (60, 10);

/// Which drops.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct DropParams {
    /// Of which nodes, up to 32, separated by commas.
    nodes: String,
    /// Only those of this rule.
    rule: Option<String>,
    /// Only those of this reason: `rule`, `ban`, `rate_limit`, `malformed`, ...
    reason: Option<String>,
    /// Only those of this interface.
    interface: Option<String>,
    /// How many a second at most of each node, up to 1,000; 100 unless said.
    per_second: Option<u32>,
}

/// Which drops of one node, and how many.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct CaptureParams {
    /// Only those of this rule.
    rule: Option<String>,
    /// Only those of this reason: `rule`, `ban`, `rate_limit`, `malformed`, ...
    reason: Option<String>,
    /// Only those of this interface.
    interface: Option<String>,
    /// The file ends after so many frames, up to 10,000; 1,000 unless said.
    frames: Option<usize>,
    /// The file ends after so many seconds, up to 60; 10 unless said.
    seconds: Option<u64>,
}

type Sampled = (Name, WatchEventsResponse);

/// A stream and where it is.
struct Reader {
    app: App,
    headers: HeaderMap,
    caller: Caller,
    reason: Option<String>,
    from: SelectAll<BoxStream<'static, Sampled>>,
    waiting: std::vec::IntoIter<Told>,
    /// How many each node has lost.
    lost: HashMap<Name, u64>,
    checked: Instant,
    _place: Listening,
}

/// Sampled drops, as server-sent events `drop`, as they are judged; `lost` says how many of a node were left out because they
/// were read too slowly. The stream ends when all of its nodes have gone, or when the session or the token is no good any more.
#[utoipa::path(get, path = "/api/v1/drops", tag = "events", params(DropParams),
    responses((status = 200, body = String, content_type = "text/event-stream"), Refusals))]
pub(in crate::http) async fn live(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    Params(params): Params<DropParams>,
) -> Result<Response, Problem> {
    let per_second = params.per_second.unwrap_or(RATE.1);
    if !(1..=RATE.0).contains(&per_second) {
        let detail = format!("1 to {} frames a second", RATE.0);
        return Err(Problem::invalid("per_second", detail));
    }
    let mut nodes = Vec::new();
    for node in params.nodes.split(',').map(str::trim) {
        let node = Name::new(node).map_err(|e| Problem::invalid("nodes", e.to_string()))?;
        if !nodes.contains(&node) {
            nodes.push(node);
        }
    }
    if nodes.len() > NODES {
        let detail = format!("{} nodes: one stream is of up to {NODES}", nodes.len());
        return Err(Problem::invalid("nodes", detail));
    }
    let place = place(&app, &caller)?;
    let mut from = SelectAll::new();
    for node in nodes {
        let request = WatchEventsRequest {
            total_per_second: per_second,
            rule: params.rule.clone(),
            interface: params.interface.clone(),
            ..WatchEventsRequest::default()
        };
        let events = watch(&app, &node, request)?;
        from.push(events.map(move |events| (node.clone(), events)).boxed());
    }
    let reader = Reader {
        app,
        headers,
        caller,
        reason: params.reason,
        from,
        waiting: Vec::new().into_iter(),
        lost: HashMap::new(),
        checked: Instant::now(),
        _place: place,
    };
    let stream = stream::unfold(reader, async |mut reader| {
        let event = reader.next().await?;
        Some((Ok::<_, Infallible>(event), reader))
    });
    let alive = KeepAlive::new().interval(HEARTBEAT).text("alive");
    Ok(Sse::new(stream).keep_alive(alive).into_response())
}

impl Reader {
    /// The next event; `None` at the end.
    async fn next(&mut self) -> Option<Told> {
        loop {
            if self.checked.elapsed() >= CHECK {
                again(&self.app, &self.headers, &self.caller).await.ok()?;
                self.checked = Instant::now();
            }
            if let Some(event) = self.waiting.next() {
                return Some(event);
            }
            if let Ok(sampled) = timeout(CHECK, self.from.next()).await {
                let (node, events) = sampled?;
                self.take(&node, events);
            }
        }
    }

    fn take(&mut self, node: &Name, sampled: WatchEventsResponse) {
        let reason = self.reason.as_deref();
        let events = sampled.events.iter().filter(|e| is_of(e, reason));
        let told = |kind: &str, data: Value| Told::default().event(kind).data(data.to_string());
        let mut waiting: Vec<_> = events.map(|e| told("drop", shown(node, e))).collect();
        let lost = self.lost.entry(node.clone()).or_default();
        if sampled.lost > *lost {
            let more = sampled.lost - *lost;
            waiting.push(told("lost", json!({ "node": node, "events": more })));
            *lost = sampled.lost;
        }
        self.waiting = waiting.into_iter();
    }
}

/// Sampled drops of a node from now on, as a pcapng file, which Wireshark and tshark open: the first 128 bytes of each frame, and why
/// it was dropped as its comment.
#[utoipa::path(get, path = "/api/v1/nodes/{node}/drops.pcapng", tag = "nodes", params(("node" = String, Path), CaptureParams),
    responses((status = 200, body = Vec<u8>, content_type = "application/x-pcapng"), Refusals))]
pub(in crate::http) async fn capture(
    State(app): State<App>,
    Target(node): Target<Name>,
    caller: Caller,
    Params(params): Params<CaptureParams>,
) -> Result<Response, Problem> {
    let frames = params.frames.unwrap_or(FRAMES.1);
    if !(1..=FRAMES.0).contains(&frames) {
        let detail = format!("1 to {} frames make a file", FRAMES.0);
        return Err(Problem::invalid("frames", detail));
    }
    let seconds = params.seconds.unwrap_or(SECONDS.1);
    if !(1..=SECONDS.0).contains(&seconds) {
        let detail = format!("a file takes 1 to {} s", SECONDS.0);
        return Err(Problem::invalid("seconds", detail));
    }
    let (_place, _large) = (place(&app, &caller)?, app.large_body()?);
    let request = WatchEventsRequest {
        per_rule_per_second: RATE.0,
        total_per_second: RATE.0,
        rule: params.rule,
        interface: params.interface,
    };
    let mut sampled = watch(&app, &node, request)?;
    let failed = |e: io::Error| Problem::unavailable(format!("the file: {e}"));
    let mut file = PcapngWriter::new(Vec::new()).map_err(failed)?;
    let (until, mut left) = (Instant::now() + Duration::from_secs(seconds), frames);
    while left > 0
        && let Ok(Some(sampled)) = timeout_at(until, sampled.next()).await
    {
        let events = sampled.events.iter();
        for event in events
            .filter(|e| is_of(e, params.reason.as_deref()))
            .take(left)
        {
            write(&mut file, event).map_err(failed)?;
            left -= 1;
        }
    }
    let mut response = Response::new(Body::from(file.into_inner()));
    let kind = HeaderValue::from_static("application/x-pcapng");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    // A name has nothing that a header cannot have.
    let name = format!("attachment; filename=\"{node}-drops.pcapng\"");
    if let Ok(name) = HeaderValue::from_str(&name) {
        response
            .headers_mut()
            .insert(header::CONTENT_DISPOSITION, name);
    }
    Ok(response)
}

fn watch(
    app: &App,
    node: &Name,
    request: WatchEventsRequest,
) -> Result<BoxStream<'static, WatchEventsResponse>, Problem> {
    found(&app.core().view(), node)?;
    Ok(app.fleet().drops(node, request)?)
}

fn is_of(event: &Event, reason: Option<&str>) -> bool {
    reason.is_none_or(|reason| event.reason == reason)
}

fn time(event: &Event) -> Option<Timestamp> {
    let time = event.time.as_ref()?;
    Timestamp::new(time.seconds, time.nanos).ok()
}

/// `drop` or `would_drop`.
fn disposition(event: &Event) -> String {
    let name = event.disposition().as_str_name();
    name.trim_start_matches("DISPOSITION_").to_ascii_lowercase()
}

fn shown(node: &Name, event: &Event) -> Value {
    json!({
        "node": node,
        "time": time(event),
        "interface": event.interface,
        "queue": event.queue,
        "disposition": disposition(event),
        "reason": event.reason,
        "rule": event.rule,
        "generation": event.generation,
        "length": event.length,
        "source": event.source,
        "destination": event.destination,
        "protocol": event.protocol,
        "source_port": event.source_port,
        "destination_port": event.destination_port,
    })
}

fn write(file: &mut PcapngWriter<Vec<u8>>, event: &Event) -> io::Result<()> {
    let rule = event.rule.as_ref().map(|rule| format!(" rule={rule}"));
    let comment = format!(
        "{}{} reason={} generation={} queue={}",
        disposition(event),
        rule.unwrap_or_default(),
        event.reason,
        event.generation,
        event.queue
    );
    file.write_frame(&PcapngFrame {
        time: time(event).unwrap_or_default(),
        ifindex: event.ifindex,
        interface: Some(event.interface.as_str()).filter(|name| !name.is_empty()),
        length: event.length,
        data: &event.data,
        comment: &comment,
    })
}
