//! One change on the way to what the documents say.

use std::fmt::Write as _;

use serde_json::{Value, json};
use xdpgate_service::Failure;

use super::documents::{Entries, Kind};
use crate::client::remote::{Api, Call};

/// Entries that one request of JSON takes.
const REQUEST: usize = 10_000;

/// A change of one thing.
#[derive(Debug)]
pub(super) struct Step {
    kind: Kind,
    name: String,
    act: Act,
    /// What differs, a line each.
    lines: Vec<String>,
}

/// What is done. With a version it is done only if the thing has that still; with `None` only if it is not there.
#[derive(Debug)]
pub(super) enum Act {
    PutPolicy {
        text: String,
        version: Option<u64>,
    },
    PatchPolicy {
        patch: Value,
    },
    CreateSet {
        settings: Value,
        entries: Entries,
    },
    PatchSet {
        patch: Value,
    },
    PutEntries {
        entries: Entries,
    },
    /// A group or a feed.
    Put {
        content: Value,
        version: Option<u64>,
    },
    Delete {
        version: u64,
    },
}

impl Step {
    pub(super) fn new(kind: Kind, name: &str, act: Act, lines: Vec<String>) -> Self {
        Self {
            kind,
            name: name.to_owned(),
            act,
            lines,
        }
    }

    /// Whether it makes a thing.
    pub(super) fn is_new(&self) -> bool {
        matches!(
            self.act,
            Act::PutPolicy { version: None, .. }
                | Act::CreateSet { .. }
                | Act::Put { version: None, .. }
        )
    }

    pub(super) fn object(&self) -> String {
        format!("{} {}", self.kind.word(), self.name)
    }

    fn verb(&self) -> &'static str {
        match self.act {
            Act::Delete { .. } => "deleted",
            _ if self.is_new() => "created",
            _ => "changed",
        }
    }

    /// What it does, in words.
    pub(super) fn text(&self, would: bool) -> String {
        let would = if would { "would be " } else { "" };
        let mut text = format!("{}: {would}{}\n", self.object(), self.verb());
        for line in &self.lines {
            // Writing to a string does not fail.
            let _ = writeln!(text, "  {line}");
        }
        text
    }

    pub(super) fn json(&self) -> Value {
        json!({ "kind": self.kind.word(), "name": self.name, "effect": self.verb(), "differences": self.lines })
    }

    /// Does it, or only asks what it would do.
    pub(super) async fn run(&self, api: &Api, why: &str, dry_run: bool) -> Result<Value, Failure> {
        let send = async |call: Call<'_>| {
            let call = call.query_some("why", (!why.is_empty()).then_some(why));
            call.query_some("dry_run", dry_run.then_some("true"))
                .json()
                .await
        };
        let path = [self.kind.plural(), self.name.as_str()];
        match &self.act {
            Act::PutPolicy { text, version } => {
                let call = only_if(api.put(&path), *version);
                send(call.body("application/yaml", text.clone())).await
            }
            Act::PatchPolicy { patch } | Act::PatchSet { patch } => {
                send(api.patch(&path).value(patch)).await
            }
            Act::Put { content, version } => {
                send(only_if(api.put(&path), *version).value(content)).await
            }
            Act::Delete { version } => send(only_if(api.delete(&path), Some(*version))).await,
            Act::PutEntries { entries } => {
                let path = [path[0], path[1], "entries"];
                send(api.put(&path).body("text/plain", list(entries))).await
            }
            Act::CreateSet { settings, entries } => {
                let mut body = settings.clone();
                let few = entries.len() <= REQUEST;
                if few {
                    let one = |(prefix, at): (&_, &Option<jiff::Timestamp>)| match at {
                        Some(at) => json!({ "address": prefix_text(prefix), "expires": at }),
                        None => Value::from(prefix_text(prefix)),
                    };
                    body["entries"] = entries.iter().map(one).collect();
                }
                let created = send(api.post(&path[..1]).value(&body)).await?;
                if few || dry_run {
                    return Ok(created);
                }
                let path = [path[0], path[1], "entries"];
                send(api.put(&path).body("text/plain", list(entries))).await
            }
        }
    }
}

fn prefix_text(prefix: &xdpgate::policy::Prefix) -> String {
    prefix.to_string()
}

fn only_if(call: Call<'_>, version: Option<u64>) -> Call<'_> {
    match version {
        Some(version) => call.header("if-match", format!("\"{version}\"")),
        None => call.header("if-none-match", "*"),
    }
}

/// As a list: an address or prefix a line, and behind it its expiry if it has one.
pub(super) fn list(entries: &Entries) -> String {
    let mut text = String::new();
    for (prefix, at) in entries {
        // Writing to a string does not fail.
        let _ = match at {
            Some(at) => writeln!(text, "{prefix} {at}"),
            None => writeln!(text, "{prefix}"),
        };
    }
    text
}
