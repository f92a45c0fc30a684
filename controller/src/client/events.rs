//! `events`: what happens, as it happens.

use std::time::Duration;

use clap::Args;
use futures_util::StreamExt as _;
use serde_json::Value;
use xdpgate_service::Failure;

use super::out::{plain, print, raw};
use super::remote::Api;

/// How long until it is tried again.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest event.
const LONGEST: usize = 1 << 20;

/// Which events.
#[derive(Debug, Clone, Args)]
pub struct Events {
    /// Only events of this kind; repeat it for more: change, online, offline, applied, refused, drift, progress, import ...
    #[arg(long = "kind", value_name = "KIND")]
    pub kinds: Vec<String>,
    /// So many, then end
    #[arg(long, value_name = "NUMBER")]
    pub count: Option<u64>,
}

/// Follows the stream; goes on where it was if it breaks.
pub(super) async fn run(api: &Api, args: &Events) -> Result<(), Failure> {
    let mut last: Option<String> = None;
    let mut left = args.count;
    // The first time it has to work: a mistake is not tried again and again.
    let mut first = true;
    while left != Some(0) {
        let mut call = api.get(&["events"]).header("accept", "text/event-stream");
        if let Some(id) = &last {
            call = call.header("last-event-id", id.clone());
        }
        let answer = match call.send().await {
            Ok(answer) => answer,
            Err(failure) if first => return Err(failure),
            Err(failure) => {
                eprintln!("warning: {failure}; trying again");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        first = false;
        let mut body = answer.bytes_stream();
        let mut held = Vec::new();
        while let Some(Ok(chunk)) = body.next().await {
            held.extend_from_slice(&chunk);
            while let Some(end) = held.windows(2).position(|two| two == b"\n\n") {
                let block: Vec<u8> = held.drain(..end + 2).collect();
                let event = Event::parse(&String::from_utf8_lossy(&block));
                last = event.id.clone().or(last);
                if event.data.is_empty()
                    || !(args.kinds.is_empty() || args.kinds.contains(&event.kind))
                {
                    continue;
                }
                event.print(api.json)?;
                left = left.map(|left| left.saturating_sub(1));
                if left == Some(0) {
                    return Ok(());
                }
            }
            if held.len() > LONGEST {
                return Err(Failure::operation(
                    "an event is larger than a MiB: is that a controller?",
                ));
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

/// A server-sent event.
#[derive(Debug, Default, PartialEq, Eq)]
struct Event {
    kind: String,
    data: String,
    id: Option<String>,
}

impl Event {
    fn parse(block: &str) -> Self {
        let mut event = Self::default();
        for line in block.lines() {
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match name {
                "event" => event.kind = value.to_owned(),
                "id" => event.id = Some(value.to_owned()),
                "data" if event.data.is_empty() => event.data = value.to_owned(),
                "data" => event.data = format!("{}\n{value}", event.data),
                // A comment, or what is new.
                _ => {}
            }
        }
        event
    }

    fn print(&self, as_json: bool) -> Result<(), Failure> {
        if as_json {
            return raw(&format!("{}\n", self.data));
        }
        let mut value: Value =
            serde_json::from_str(&self.data).unwrap_or_else(|_| self.data.as_str().into());
        if let Value::Object(fields) = &mut value {
            fields.remove("event");
        }
        let now = jiff::Timestamp::now();
        print(&format!("{now:.0}  {:<10}  {}\n", self.kind, plain(&value)))
    }
}

#[cfg(test)]
mod tests {
    use super::Event;

    #[test]
    fn blocks() {
        let event = Event::parse("event: change\ndata: {\"a\":1}\nid: x.7\n\n");
        let expected = Event {
            kind: "change".to_owned(),
            data: "{\"a\":1}".to_owned(),
            id: Some("x.7".to_owned()),
        };
        assert_eq!(event, expected);
        assert_eq!(Event::parse(": alive\n\n"), Event::default());
    }
}
