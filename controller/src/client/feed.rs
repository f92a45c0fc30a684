//! `feed`: lists that others publish, as sets.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep};
use xdpgate_service::{Failure, duration};

use super::input;
use super::out::{answer, at_text, fields, print, print_json, table};
use super::remote::{Api, Call, items};

/// How often `run --wait` asks.
const EVERY: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, Subcommand)]
#[command(after_help = "\
A feed keeps an address set that somebody else publishes: it is fetched every hour or as often as it says, judged, and
becomes a new version of the set if it differs. What is wrong or differs too much leaves the set as it is.

Examples:
  xdpgate-controller feed add drop --url https://www.spamhaus.org/drop/drop_v4.json
  xdpgate-controller feed list
  xdpgate-controller feed accept drop                  it did shrink by so much: take it")]
pub enum Feed {
    /// List the feeds, and how they are doing
    #[command(after_help = "Example:\n  xdpgate-controller feed list")]
    List,
    /// Show a feed: what it is, and how each of its sets is doing
    #[command(after_help = "Example:\n  xdpgate-controller feed show drop")]
    Show {
        /// The feed
        name: String,
    },
    /// Make a feed; it is run soon (admin)
    #[command(after_help = "\
The set that it fills has the name of the feed unless --set says otherwise. With {country} in URLs or paths it is one set for
each country: country-de and so on.

Examples:
  xdpgate-controller feed add drop --url https://www.spamhaus.org/drop/drop_v4.json --every 12h
  xdpgate-controller feed add ipsum --url https://example.org/ipsum.txt --format ipsum --at-least 3 --expiry 7d
  xdpgate-controller feed add geo --path 'country-{country}.cidr' --country de --country nl
  xdpgate-controller feed add cluster --kubernetes")]
    Add(Add),
    /// Change fields of a feed; null clears one (admin)
    #[command(after_help = "\
Examples:
  xdpgate-controller feed change drop every=7200
  xdpgate-controller feed change drop limits.max_shrink_percent=80 comment=null")]
    Change {
        /// The feed
        name: String,
        /// A field and its value, as limits.max_entries=5000
        #[arg(value_name = "FIELD=VALUE", required = true)]
        sets: Vec<String>,
        #[command(flatten)]
        why: Reason,
    },
    /// Run a feed now
    #[command(after_help = "\
With --wait it says what became of each set, and the exit code is 1 if one was not taken.

Example:
  xdpgate-controller feed run drop --wait 1m")]
    Run {
        /// The feed
        name: String,
        /// Wait until it has run, for up to this time
        #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
        wait: Option<Duration>,
    },
    /// Take what was refused only because it differs too much from before
    #[command(after_help = "\
The next run, which is at once, takes it if it still has about as many entries.

Example:
  xdpgate-controller feed accept geo --set country-de")]
    Accept {
        /// The feed
        name: String,
        /// One of its sets [default: all that were refused for their size]
        #[arg(long, value_name = "SET")]
        set: Option<String>,
    },
    /// Run a feed again that was switched off (admin)
    #[command(after_help = "Example:\n  xdpgate-controller feed enable drop")]
    Enable {
        /// The feed
        name: String,
        #[command(flatten)]
        why: Reason,
    },
    /// Switch a feed off; its sets stay as they are (admin)
    #[command(after_help = "Example:\n  xdpgate-controller feed disable drop --why 'it lists us'")]
    Disable {
        /// The feed
        name: String,
        #[command(flatten)]
        why: Reason,
    },
    /// Remove a feed; its sets stay as they are (admin)
    #[command(after_help = "Example:\n  xdpgate-controller feed remove drop")]
    Remove {
        /// The feed
        name: String,
        #[command(flatten)]
        why: Reason,
    },
}

/// Why a feed is changed.
#[derive(Debug, Clone, Args)]
pub struct Reason {
    /// Why, for the history and the audit log
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,
}

/// A feed to be.
#[derive(Debug, Clone, Args)]
#[command(group = clap::ArgGroup::new("source").required(true).args(["urls", "paths", "kubernetes"]))]
pub struct Add {
    /// The feed
    name: String,
    /// Where it comes from, https://; repeat it for more, which make one list
    #[arg(long = "url", value_name = "URL")]
    urls: Vec<String>,
    /// A file below `[feeds] directory` of the controller; repeat it for more
    #[arg(long = "path", value_name = "PATH")]
    paths: Vec<String>,
    /// The addresses of a Kubernetes cluster's nodes and pods, as `[feeds.kubernetes]` says
    #[arg(long)]
    kubernetes: bool,
    /// Its form: auto, list, ipsum or drop_json [default: auto]
    #[arg(long, value_name = "FORMAT", value_parser = ["auto", "list", "ipsum", "drop_json"], hide_possible_values = true)]
    format: Option<String>,
    /// With ipsum: on how many lists an address must be
    #[arg(long, value_name = "NUMBER")]
    at_least: Option<u32>,
    /// The set that it fills [default: the name of the feed]
    #[arg(long, value_name = "SET")]
    set: Option<String>,
    /// A code of two letters that {country} stands for; repeat it for more
    #[arg(long = "country", value_name = "CODE")]
    countries: Vec<String>,
    /// How often it is run [default: 1h]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    every: Option<Duration>,
    /// How long an entry lasts since it was last seen [default: as the set says, or for good]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    expiry: Option<Duration>,
    /// After how long without a good run it is stale [default: three times --every]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    max_age: Option<Duration>,
    /// What it may bring, as max_entries=5000; repeat it for more. `feed show --json` has all of them
    #[arg(long = "limit", value_name = "FIELD=VALUE")]
    limits: Vec<String>,
    /// Free text
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,
    #[command(flatten)]
    why: Reason,
}

impl Reason {
    fn on<'a>(&self, call: Call<'a>) -> Call<'a> {
        call.query_some("why", self.why.as_deref())
    }
}

pub(super) async fn run(api: &Api, command: &Feed) -> Result<(), Failure> {
    match command {
        Feed::List => {
            let page = api.all(&["feeds"], &[], None).await?;
            answer(api.json, &page, |page| {
                let rows: Vec<Value> = items(page).iter().map(row).collect();
                let columns = [
                    ("FEED", "/name"),
                    ("HEALTH", "/health"),
                    ("SOURCE", "/source"),
                    ("SETS", "/sets"),
                    ("ENTRIES", "/entries"),
                    ("LAST GOOD", "/last_good"),
                    ("NEXT", "/next"),
                    ("PROBLEM", "/problem"),
                ];
                table(&rows, &columns)
            })
        }
        Feed::Show { name } => {
            let found = api.get(&["feeds", name]).json().await?;
            answer(api.json, &found, shown)
        }
        Feed::Add(args) => {
            let body = json!({ "name": args.name, "content": content(args)? });
            let call = api.post(&["feeds"]).value(&body);
            said(api, name_of(&args.why.on(call).json().await?), "created")
        }
        Feed::Change { name, sets, why } => {
            let patch = input::patch(sets)?;
            change(api, name, &patch, why).await
        }
        Feed::Run { name, wait } => run_now(api, name, *wait).await,
        Feed::Accept { name, set } => {
            let call = api.post(&["feeds", name, "accept"]);
            call.value(&json!({ "set": set })).json().await?;
            said(api, name.clone(), "accepted, and runs")
        }
        Feed::Enable { name, why } => change(api, name, &json!({ "enabled": true }), why).await,
        Feed::Disable { name, why } => change(api, name, &json!({ "enabled": false }), why).await,
        Feed::Remove { name, why } => {
            why.on(api.delete(&["feeds", name])).json().await?;
            said(api, name.clone(), "removed")
        }
    }
}

fn name_of(feed: &Value) -> String {
    at_text(feed, "/name")
}

fn said(api: &Api, name: String, what: &str) -> Result<(), Failure> {
    match api.json {
        true => print_json(&json!({ "feed": name, "effect": what })),
        false => print(&format!("feed {name}: {what}\n")),
    }
}

/// What the API takes.
fn content(args: &Add) -> Result<Value, Failure> {
    let source = match (args.kubernetes, args.urls.is_empty()) {
        (true, _) => json!({ "kind": "kubernetes" }),
        (false, false) => json!({ "kind": "url", "urls": args.urls }),
        (false, true) => json!({ "kind": "file", "paths": args.paths }),
    };
    let mut content = Map::new();
    content.insert("source".to_owned(), source);
    let seconds = |of: Option<Duration>| of.map(|time| time.as_secs().into());
    let limits = (!args.limits.is_empty()).then(|| input::patch(&args.limits));
    for (field, value) in [
        ("format", args.format.as_deref().map(Value::from)),
        ("at_least", args.at_least.map(Value::from)),
        ("set", args.set.as_deref().map(Value::from)),
        (
            "countries",
            (!args.countries.is_empty()).then(|| args.countries.as_slice().into()),
        ),
        ("every", seconds(args.every)),
        ("expiry", seconds(args.expiry)),
        ("max_age", seconds(args.max_age)),
        ("limits", limits.transpose()?),
        ("comment", args.comment.as_deref().map(Value::from)),
    ] {
        if let Some(value) = value {
            content.insert(field.to_owned(), value);
        }
    }
    Ok(Value::Object(content))
}

/// Changes fields of a feed, if nobody else changed it meanwhile.
async fn change(api: &Api, name: &str, patch: &Value, why: &Reason) -> Result<(), Failure> {
    let found = api.get(&["feeds", name]).json().await?;
    let mut content = found.get("content").cloned().unwrap_or_default();
    merge(&mut content, patch);
    let version = at_text(&found, "/version");
    let call = api.put(&["feeds", name]).value(&content);
    let call = call.header("if-match", format!("\"{version}\""));
    let made = why.on(call).json().await?;
    let version = at_text(&made, "/version");
    said(api, name_of(&made), &format!("changed, version {version}"))
}

/// As RFC 7396.
fn merge(into: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = Value::Object(Map::new());
    }
    for (field, value) in patch {
        match (into.as_object_mut(), value) {
            (Some(fields), Value::Null) => drop(fields.remove(field)),
            (Some(fields), value) => merge(fields.entry(field).or_insert(Value::Null), value),
            (None, _) => {}
        }
    }
}

async fn run_now(api: &Api, name: &str, wait: Option<Duration>) -> Result<(), Failure> {
    let before = api.get(&["feeds", name]).json().await?;
    api.post(&["feeds", name, "run"]).json().await?;
    let Some(wait) = wait else {
        return said(api, name.to_owned(), "is run soon");
    };
    let end = Instant::now() + wait;
    loop {
        let now = api.get(&["feeds", name]).json().await?;
        if now.get("ran") != before.get("ran") && now.get("running").is_none_or(Value::is_null) {
            answer(api.json, &now, shown)?;
            let sets = now["sets"].as_array().into_iter().flatten();
            let bad = sets
                .filter(|set| matches!(at_text(set, "/outcome").as_str(), "refused" | "failed"))
                .count();
            let error = at_text(&now, "/error");
            return match (bad, error.is_empty()) {
                (0, true) => Ok(()),
                (_, false) => Err(Failure::operation(format!("feed {name}: {error}"))),
                (bad, _) => Err(Failure::operation(format!(
                    "feed {name}: {bad} of its sets were not taken"
                ))),
            };
        }
        if Instant::now() > end {
            let error = format!("feed {name}: it has not run within {wait:.0?}");
            return Err(Failure::operation(error));
        }
        sleep(EVERY).await;
    }
}

/// A feed in a list.
fn row(feed: &Value) -> Value {
    let sets = feed["sets"].as_array().map_or(&[][..], Vec::as_slice);
    let entries = sets.iter().filter_map(|set| set["entries"].as_u64());
    // The oldest one says how old all may be.
    let good = sets.iter().map(|set| at_text(set, "/last_good")).min();
    let problem = sets.iter().map(|set| at_text(set, "/error"));
    let problem = std::iter::once(at_text(feed, "/error")).chain(problem);
    json!({
        "name": feed["name"],
        "health": feed["health"],
        "source": places(feed),
        "sets": sets.len(),
        "entries": entries.sum::<u64>(),
        "last_good": good,
        "next": feed["next"],
        "problem": problem.into_iter().find(|text| !text.is_empty()),
    })
}

/// Where it comes from, in words.
fn places(feed: &Value) -> String {
    for at in ["/content/source/urls", "/content/source/paths"] {
        let text = at_text(feed, at);
        if !text.is_empty() {
            return text;
        }
    }
    at_text(feed, "/content/source/kind")
}

fn shown(feed: &Value) -> String {
    let mut text = fields(
        feed,
        &[
            ("feed", "/name"),
            ("version", "/version"),
            ("health", "/health"),
            ("source", "/content/source"),
            ("format", "/content/format"),
            ("every", "/content/every"),
            ("expiry", "/content/expiry"),
            ("comment", "/content/comment"),
            ("ran", "/ran"),
            ("running", "/running"),
            ("next", "/next"),
            ("failures", "/failures"),
            ("error", "/error"),
            ("changed by", "/updated/by"),
        ],
    );
    let columns = [
        ("SET", "/set"),
        ("ENTRIES", "/entries"),
        ("LAST GOOD", "/last_good"),
        ("LAST TRY", "/last_try"),
        ("OUTCOME", "/outcome"),
        ("FOUND", "/found"),
        ("ACCEPTABLE", "/acceptable"),
        ("ERROR", "/error"),
    ];
    text += &table(
        feed["sets"].as_array().map_or(&[][..], Vec::as_slice),
        &columns,
    );
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::merge;

    #[test]
    fn null_clears_and_objects_go_together() {
        let mut feed =
            json!({ "every": 1, "comment": "x", "limits": { "max_bytes": 1, "min_entries": 2 } });
        merge(
            &mut feed,
            &json!({ "comment": null, "limits": { "max_bytes": 9 }, "expiry": 5 }),
        );
        let expected =
            json!({ "every": 1, "limits": { "max_bytes": 9, "min_entries": 2 }, "expiry": 5 });
        assert_eq!(feed, expected);
    }
}
