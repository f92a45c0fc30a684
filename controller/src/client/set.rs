//! `set`: address sets.

use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use jiff::Timestamp;
use serde_json::{Value, json};
use xdpgate_service::{Failure, duration};

use super::change::Change;
use super::out::{answer, fields, list};
use super::policy::{diff, history};
use super::remote::Api;

/// How many entries one request takes.
const REQUEST: usize = 10_000;

#[derive(Debug, Clone, Subcommand)]
#[command(after_help = "\
Examples:
  xdpgate-controller set create bad --comment 'who scans us'
  xdpgate-controller set add bad 203.0.113.7 --expires 1h
  xdpgate-controller set import bad list.txt
  xdpgate-controller set entries bad --address 203.0.113.7")]
pub enum Set {
    /// List the sets
    #[command(after_help = "Example:\n  xdpgate-controller set list --search bad")]
    List {
        /// Text in the name or comment
        #[arg(long, value_name = "TEXT")]
        search: Option<String>,
    },
    /// Show a set, without its entries
    #[command(after_help = "Example:\n  xdpgate-controller set get bad")]
    Get {
        /// The set
        name: String,
    },
    /// Make a set
    #[command(after_help = "Example:\n  xdpgate-controller set create bad --default-expiry 1d")]
    Create {
        /// The set
        name: String,
        /// Free text
        #[arg(long, value_name = "TEXT")]
        comment: Option<String>,
        /// How long an entry lasts that comes without an expiry
        #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
        default_expiry: Option<Duration>,
        /// Count what each entry matches
        #[arg(long)]
        counters: bool,
        #[command(flatten)]
        why: super::change::Why,
    },
    /// Print the entries of a set
    #[command(after_help = "\
Examples:
  xdpgate-controller set entries bad --limit 20
  xdpgate-controller set entries bad --address 203.0.113.7     is it in, and by which entries?")]
    Entries {
        /// The set
        name: String,
        /// Only entries in which this address lies
        #[arg(long, value_name = "ADDRESS")]
        address: Option<String>,
        /// At most so many
        #[arg(long, value_name = "NUMBER")]
        limit: Option<usize>,
    },
    /// Add entries; what is there lasts as long as the longer of both
    #[command(
        after_help = "Example:\n  xdpgate-controller set add bad 203.0.113.7 2001:db8::/32 --expires 1h"
    )]
    Add {
        /// The set
        name: String,
        /// Addresses and prefixes
        #[arg(required = true, value_name = "PREFIX")]
        entries: Vec<String>,
        /// In how long they are not in the set any more
        #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
        expires: Option<Duration>,
        #[command(flatten)]
        change: Change,
    },
    /// Take entries out; only the very prefix, not what lies within
    #[command(after_help = "Example:\n  xdpgate-controller set remove bad 203.0.113.7")]
    Remove {
        /// The set
        name: String,
        /// Addresses and prefixes
        #[arg(required = true, value_name = "PREFIX")]
        entries: Vec<String>,
        #[command(flatten)]
        change: Change,
    },
    /// Replace the entries of a set by a list, or add it to them
    #[command(after_help = "\
A line has an address or prefix, and behind it its expiry if it has one; # begins a comment. Nothing changes if any line is
wrong. The file is sent as a stream: a million entries are no trouble.

Examples:
  xdpgate-controller set import bad list.txt --wait 99%
  xdpgate-controller set import bad more.txt --add
  curl -s https://feeds.example/list | xdpgate-controller set import bad -")]
    Import {
        /// The set
        name: String,
        /// The list; `-` is standard input
        file: PathBuf,
        /// Keep what is there
        #[arg(long)]
        add: bool,
        #[command(flatten)]
        change: Change,
    },
    /// Show the versions of a set: who, when, why and what
    #[command(after_help = "Example:\n  xdpgate-controller set history bad")]
    History {
        /// The set
        name: String,
    },
    /// Show what differs between two versions; exit code 1 if anything does
    #[command(after_help = "Example:\n  xdpgate-controller set diff bad 3 5")]
    Diff {
        /// The set
        name: String,
        /// The older version
        from: u64,
        /// The newer version
        to: u64,
    },
    /// Make a set as it was in a version, which makes a new version
    #[command(after_help = "Example:\n  xdpgate-controller set revert bad 3")]
    Revert {
        /// The set
        name: String,
        /// The version
        version: u64,
        #[command(flatten)]
        change: Change,
    },
    /// Delete a set that no rule names; its versions stay
    #[command(after_help = "Example:\n  xdpgate-controller set delete old")]
    Delete {
        /// The set
        name: String,
        #[command(flatten)]
        change: Change,
    },
}

pub(super) async fn run(api: &Api, command: &Set) -> Result<(), Failure> {
    match command {
        Set::List { search } => {
            let page = api.all(&["sets"], &[("q", search.clone())], None).await?;
            let columns = [
                ("SET", "/name"),
                ("VERSION", "/version"),
                ("ENTRIES", "/entries"),
                ("CHANGED", "/updated/at"),
                ("BY", "/updated/by"),
                ("COMMENT", "/comment"),
            ];
            list(api.json, &page, &columns)
        }
        Set::Get { name } => {
            let set = api.get(&["sets", name]).json().await?;
            answer(api.json, &set, |set| {
                let names = [
                    ("set", "/name"),
                    ("version", "/version"),
                    ("entries", "/entries"),
                    ("default expiry, s", "/default_expiry"),
                    ("counters", "/counters"),
                    ("comment", "/comment"),
                    ("used by", "/used_by"),
                    ("created", "/created"),
                    ("changed", "/updated"),
                ];
                fields(set, &names)
            })
        }
        Set::Create {
            name,
            comment,
            default_expiry,
            counters,
            why,
        } => {
            let body = json!({
                "name": name,
                "comment": comment,
                "default_expiry": default_expiry.map(|time| time.as_secs()),
                "counters": if *counters { "entry" } else { "none" },
            });
            why.run(api, api.post(&["sets"]).value(&body)).await
        }
        Set::Entries {
            name,
            address,
            limit,
        } => {
            let page = api
                .all(
                    &["sets", name, "entries"],
                    &[("address", address.clone())],
                    *limit,
                )
                .await?;
            list(
                api.json,
                &page,
                &[("ENTRY", "/address"), ("EXPIRES", "/expires")],
            )
        }
        Set::Add {
            name,
            entries,
            expires,
            change,
        } => {
            few(entries)?;
            let until = expires.map(|time| Timestamp::now() + time);
            let entry = |entry: &String| match until {
                Some(at) => json!({ "address": entry, "expires": at }),
                None => Value::from(entry.as_str()),
            };
            let body = json!({ "entries": entries.iter().map(entry).collect::<Vec<_>>() });
            change
                .run(api, api.post(&["sets", name, "entries"]).value(&body))
                .await
        }
        Set::Remove {
            name,
            entries,
            change,
        } => {
            few(entries)?;
            let call = api.post(&["sets", name, "entries", "remove"]);
            change
                .run(api, call.value(&json!({ "entries": entries })))
                .await
        }
        Set::Import {
            name,
            file,
            add,
            change,
        } => {
            let mode = if *add { "add" } else { "replace" };
            let call = api.put(&["sets", name, "entries"]).query("mode", mode);
            change
                .run(api, call.body("text/plain", stream(file).await?))
                .await
        }
        Set::History { name } => history(api, "sets", name).await,
        Set::Diff { name, from, to } => diff(api, "sets", name, *from, *to).await,
        Set::Revert {
            name,
            version,
            change,
        } => {
            let call = api
                .post(&["sets", name, "revert"])
                .value(&json!({ "version": version }));
            change.run(api, call).await
        }
        Set::Delete { name, change } => change.run(api, api.delete(&["sets", name])).await,
    }
}

fn few(entries: &[String]) -> Result<(), Failure> {
    match entries.len() {
        count if count > REQUEST => Err(Failure::input(
            "PREFIX",
            format!("{count} entries: import them from a file"),
        )),
        _ => Ok(()),
    }
}

/// A file as it is read.
pub(super) async fn stream(file: &std::path::Path) -> Result<reqwest::Body, Failure> {
    if file.as_os_str() == "-" {
        return Ok(super::input::read(file)?.into());
    }
    let open = tokio::fs::File::open(file).await;
    Ok(open.map_err(|e| Failure::input(file.display(), e))?.into())
}
