//! The streams of what happens: sampled frames, and what is done about interfaces.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tonic::Status;
use xdpgate::{AutoEvents, Event, EventOptions, EventStream, Firewall, NextError};
use xdpgate_api::v1;

use super::stream::{Answers, Over, Sink, Streams};
use crate::agent::{convert, fault};

/// How long may pass until it is seen that a stream is over.
const PATIENCE: Duration = Duration::from_millis(200);

/// How long the first frame of a message waits for others, and how many there may be.
const GATHER: Duration = Duration::from_millis(20);
const MOST_TOGETHER: usize = 256;

/// The sampled frames for somebody in this process.
#[derive(Debug)]
pub(in crate::agent) struct EventSource {
    firewall: Arc<Firewall>,
    streams: Streams,
}

impl EventSource {
    pub(in crate::agent) fn new(firewall: Arc<Firewall>) -> Self {
        Self {
            firewall,
            streams: Streams::default(),
        }
    }

    /// As the call `WatchEvents`, until it is dropped.
    pub(in crate::agent) fn watch(
        &self,
        request: v1::WatchEventsRequest,
    ) -> Result<Answers<v1::WatchEventsResponse>, Status> {
        stream(&self.firewall, &self.streams, request)
    }
}

/// Frames from now on, as a stream of answers.
pub(super) fn stream(
    firewall: &Arc<Firewall>,
    streams: &Streams,
    request: v1::WatchEventsRequest,
) -> Result<Answers<v1::WatchEventsResponse>, Status> {
    let events = open(firewall, &request)?;
    let losses = Losses {
        before: firewall.event_stats().lost,
    };
    let firewall = Arc::downgrade(firewall);
    let lost = move || Some(firewall.upgrade()?.event_stats().lost);
    streams.open(move |sink| drop(watch(lost, events, &losses, &request, sink)))
}

/// Frames from now on.
fn open(firewall: &Firewall, request: &v1::WatchEventsRequest) -> Result<EventStream, Status> {
    let mut options = EventOptions::default();
    if request.per_rule_per_second > 0 {
        options = options.per_rule_per_second(request.per_rule_per_second);
    }
    if request.total_per_second > 0 {
        options = options.total_per_second(request.total_per_second);
    }
    firewall.events(options).map_err(|e| fault::event(&e))
}

/// Frames that were lost: by this stream because it is read slowly, and before it.
struct Losses {
    /// Of the kernel's buffer, when the stream began.
    before: u64,
}

/// Sends sampled frames until the stream is over. Who reads slowly leaves them in the queue of the
/// library, which is bounded and counts what it loses.
fn watch(
    lost_in_kernel: impl Fn() -> Option<u64>,
    mut events: EventStream,
    losses: &Losses,
    request: &v1::WatchEventsRequest,
    mut sink: Sink<v1::WatchEventsResponse>,
) -> Result<(), Over> {
    let is_wanted = |event: &Event| {
        let rule = request.rule.as_deref();
        let interface = request.interface.as_deref();
        rule.is_none_or(|rule| event.rule.as_ref().is_some_and(|id| id.as_str() == rule))
            && interface.is_none_or(|name| event.interface.as_deref() == Some(name))
    };
    let mut told = 0;
    loop {
        let mut gathered = Vec::new();
        let mut until = Instant::now() + PATIENCE;
        while gathered.len() < MOST_TOGETHER {
            match events.next_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(event) if is_wanted(&event) => {
                    if gathered.is_empty() {
                        until = Instant::now() + GATHER;
                    }
                    gathered.push(convert::event(event));
                }
                Ok(_) => {}
                Err(NextError::Timeout) => break,
                Err(_) if gathered.is_empty() => return Ok(()),
                Err(_) => break,
            }
        }
        let in_kernel = lost_in_kernel().unwrap_or(losses.before);
        let lost = events.lost() + in_kernel.saturating_sub(losses.before);
        if gathered.is_empty() && lost == told {
            sink.sleep(Duration::ZERO)?;
            continue;
        }
        told = lost;
        sink.send(v1::WatchEventsResponse {
            events: gathered,
            lost,
        })?;
    }
}

/// Sends what is done about interfaces until the stream is over.
pub(super) fn watch_interfaces(
    mut events: AutoEvents,
    mut sink: Sink<v1::WatchInterfacesResponse>,
) -> Result<(), Over> {
    sink.send(v1::WatchInterfacesResponse {
        kind: v1::watch_interfaces_response::Kind::Started.into(),
        time: Some(convert::now()),
        ..Default::default()
    })?;
    let mut told = 0;
    loop {
        match events.next_timeout(PATIENCE) {
            Ok(event) => {
                let lost = events.lost();
                sink.send(v1::WatchInterfacesResponse {
                    lost: lost - told,
                    time: Some(convert::now()),
                    ..convert::auto_event(event)
                })?;
                told = lost;
            }
            Err(NextError::Timeout) => sink.sleep(Duration::ZERO)?,
            Err(_) => return Ok(()),
        }
    }
}
