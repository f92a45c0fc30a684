//! Millions of entries at once, as a stream that is never held as a whole.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use futures_util::StreamExt as _;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;
use xdpgate::policy::{AddressSetBuilder, Prefix};

use super::policies::waiting;
use super::sets::FullEntry;
use crate::core::{Command, Options, SetContent};
use crate::domain::Name;
use crate::http::access::Caller;
use crate::http::extract::{Change, Params, Target, check_type, expected, parse};
use crate::http::find::word;
use crate::http::problem::{Problem, Refusals};
use crate::http::{App, Changed};

/// The most entries of an import.
const MOST: usize = 10_000_000;
/// The longest line.
const LINE: usize = 512;
/// Something comes within this time, or the import ends.
const PAUSE: Duration = Duration::from_secs(30);
/// Progress is told each so many lines.
const TOLD: usize = 100_000;

/// How entries are imported.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct ImportParams {
    /// `replace` what is there (as unless said), or `add` to it.
    mode: Option<String>,
    /// Why, for the history and the audit log.
    #[serde(default)]
    why: String,
    /// Only say what would change.
    #[serde(default)]
    dry_run: bool,
}

/// Reads lines of a body.
struct Lines {
    set: Name,
    json: bool,
    builder: AddressSetBuilder,
    added: Option<Vec<(Prefix, Option<Timestamp>)>>,
    line: usize,
}

/// Replaces the entries of a set, or adds to them, by a stream: `text/plain` with an address or prefix a line, and
/// behind it its expiry if it has one, or `application/x-ndjson` with `{"address": ..., "expires": ...}` a line. Empty lines
/// and what is behind a `#` do not count. Progress is told as `import` by `/api/v1/events`.
#[utoipa::path(put, path = "/api/v1/sets/{set}/entries", tag = "sets", params(("set" = String, Path), ImportParams),
    request_body(content = String, content_type = "text/plain"),
    responses((status = 200, body = Changed), Refusals))]
pub(in crate::http) async fn import(
    State(app): State<App>,
    Target(set): Target<Name>,
    Params(params): Params<ImportParams>,
    caller: Caller,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Problem> {
    word("mode", params.mode.as_deref(), &["replace", "add"])?;
    check_type(&headers, &["text/plain", "application/x-ndjson"])?;
    let kind = headers
        .get(CONTENT_TYPE)
        .map_or(&b""[..], |value| value.as_bytes());
    let add = params.mode.as_deref() == Some("add");
    let options = Options {
        expect: expected(&headers)?,
        why: params.why,
        dry_run: params.dry_run,
        ..Options::default()
    };
    super::sets::found(&app.core().view(), &set)?;
    let _place = app.large_body()?;

    let mut lines = Lines {
        set: set.clone(),
        json: kind.starts_with(b"application/"),
        builder: AddressSetBuilder::default(),
        added: add.then(Vec::new),
        line: 0,
    };
    lines.read(&app, request).await?;
    let command = match lines.added {
        Some(entries) => Command::AddEntries { set, entries },
        None => {
            let view = app.core().view();
            let before = super::sets::found(&view, &set)?.clone();
            let builder = lines.builder;
            let entries = waiting(move || Ok(builder.build(before.counters()))).await?;
            let before = super::sets::found(&view, &set)?;
            let content = SetContent {
                entries: Arc::new(entries),
                default_expiry: before.default_expiry,
                comment: before.comment.clone(),
            };
            Command::PutSet { set, content }
        }
    };
    app.change_one(Change { caller, options }, vec![command], None)
        .await
}

impl Lines {
    async fn read(&mut self, app: &App, request: Request) -> Result<(), Problem> {
        let limit = app.0.options.import;
        let mut body = request.into_body().into_data_stream();
        let (mut held, mut bytes) = (Vec::new(), 0);
        loop {
            let next = tokio::time::timeout(PAUSE, body.next())
                .await
                .map_err(|_| {
                    let detail = format!("nothing came for {} s", PAUSE.as_secs());
                    Problem::new(StatusCode::REQUEST_TIMEOUT, "timeout", detail)
                })?;
            let Some(chunk) = next else { break };
            let chunk = chunk.map_err(|_| {
                let detail = "the body ended before its end: nothing was changed";
                Problem::new(StatusCode::BAD_REQUEST, "invalid", detail)
            })?;
            bytes += chunk.len();
            if bytes > limit {
                return Err(Problem::too_large(format!(
                    "the body is larger than {limit} bytes"
                )));
            }
            held.extend_from_slice(&chunk);
            let end = held
                .iter()
                .rposition(|b| *b == b'\n')
                .map_or(0, |end| end + 1);
            self.lines(app, &held[..end])?;
            held.drain(..end);
            if held.len() > LINE {
                return Err(self.bad("the line is longer than 512 bytes"));
            }
            // A large chunk takes a while.
            tokio::task::yield_now().await;
        }
        self.lines(app, &held)
    }

    fn lines(&mut self, app: &App, bytes: &[u8]) -> Result<(), Problem> {
        for line in bytes.split_inclusive(|b| *b == b'\n') {
            self.line += 1;
            let line = std::str::from_utf8(line).map_err(|_| self.bad("the line is not UTF-8"))?;
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let (prefix, expires) = self.entry(line)?;
            match &mut self.added {
                Some(added) => added.push((prefix, expires)),
                None => self.builder.push(prefix, expires),
            }
            let count = self.added.as_ref().map_or(self.builder.pushed(), Vec::len);
            if count > MOST {
                return Err(Problem::too_large(format!("more than {MOST} entries")));
            }
            if count % TOLD == 0 {
                let set = self.set.as_str();
                app.0
                    .hub
                    .push(json!({ "event": "import", "set": set, "entries": count }));
            }
        }
        Ok(())
    }

    fn entry(&self, line: &str) -> Result<(Prefix, Option<Timestamp>), Problem> {
        let (address, expires) = if self.json {
            let entry: FullEntry = parse(line.as_bytes()).map_err(|problem| self.at(problem))?;
            (entry.address, entry.expires)
        } else {
            let mut words = line.split_whitespace();
            let address = words.next().unwrap_or_default().to_owned();
            let expires = words.next().map(str::parse::<Timestamp>).transpose();
            let expires = expires.map_err(|_| {
                self.bad("what is behind the address is not a time, as 2030-01-01T00:00:00Z")
            })?;
            if words.next().is_some() {
                return Err(self.bad("a line is an address, and its expiry if it has one"));
            }
            (address, expires)
        };
        let prefix = address
            .parse::<Prefix>()
            .map_err(|error| self.bad(&error.to_string()))?;
        Ok((prefix, expires))
    }

    fn bad(&self, detail: &str) -> Problem {
        Problem::invalid(format!("line {}", self.line), detail).mend("nothing was changed")
    }

    fn at(&self, problem: Problem) -> Problem {
        problem.within(&format!("line {}", self.line))
    }
}
