//! What all changes have: why, on which version, and waiting for the nodes.

use std::time::Duration;

use serde_json::Value;
use xdpgate_service::{Failure, duration};

use super::out::{at_text, print, print_json};
use super::remote::{Api, Call};

/// Why a change is made, and how long its nodes are waited for.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Why {
    /// Why, for the history and the audit log
    #[arg(long, value_name = "TEXT")]
    pub why: Option<String>,
    #[command(flatten)]
    pub wait: Wait,
}

/// For how many nodes to wait.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Wait {
    /// Wait until so large a share of the nodes has it in force; exit code 1 if not
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub wait: Option<String>,
    /// For how long, up to 5m [default: 30s]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub timeout: Option<Duration>,
}

/// A change of one thing.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Change {
    /// Only if it has this version still
    #[arg(long, value_name = "VERSION")]
    pub expect: Option<u64>,
    #[command(flatten)]
    pub why: Why,
}

fn share(text: &str) -> Result<String, String> {
    let percent = text
        .strip_suffix('%')
        .and_then(|percent| percent.parse::<f64>().ok());
    match percent {
        Some(percent) if (0.0..=100.0).contains(&percent) => Ok(text.to_owned()),
        _ => Err("write it as 99%".to_owned()),
    }
}

impl Wait {
    /// Asks how far something has come, now or when the share is reached.
    pub(super) fn query<'a>(&self, call: Call<'a>) -> Call<'a> {
        call.query_some("wait", self.wait.as_deref())
            .query_some("timeout", self.timeout.map(|t| t.as_secs()))
    }

    /// Says how far something has come; an error if a share was asked for that is not reached.
    pub(super) fn say(&self, api: &Api, progress: &Value) -> Result<(), Failure> {
        match api.json {
            true => print_json(progress)?,
            false => print(&text(progress))?,
        }
        let Some(wanted) = &self.wait else {
            return Ok(());
        };
        let share: f64 = wanted.trim_end_matches('%').parse().unwrap_or(100.0);
        let (applied, all) = (count(progress, "applied"), total(progress));
        // 99 of 100 is 99 %, however it is rounded.
        match applied as f64 * 100.0 + 1e-6 >= share * all as f64 {
            true => Ok(()),
            false => Err(Failure::operation(format!(
                "{applied} of {all} nodes have it, and that is not {wanted}"
            ))),
        }
    }
}

impl Why {
    /// The change, with its reason.
    pub(super) fn on<'a>(&self, call: Call<'a>) -> Call<'a> {
        call.query_some("why", self.why.as_deref())
    }

    /// Makes the change, says what came of it, and waits for the nodes.
    pub(super) async fn run(&self, api: &Api, call: Call<'_>) -> Result<(), Failure> {
        let changed = self.on(call).json().await?;
        said(api, &changed)?;
        self.follow(api, &changed).await
    }

    /// Waits for the nodes, if that is asked for.
    pub(super) async fn follow(&self, api: &Api, changed: &Value) -> Result<(), Failure> {
        let revision = changed.get("revision").and_then(Value::as_u64);
        let (Some(revision), Some(_)) = (revision, &self.wait.wait) else {
            return Ok(());
        };
        let revision = revision.to_string();
        let progress = self
            .wait
            .query(api.get(&["changes", &revision]))
            .json()
            .await?;
        self.wait.say(api, &progress)
    }
}

impl Change {
    /// Makes the change, says what came of it, and waits for the nodes.
    pub(super) async fn run(&self, api: &Api, call: Call<'_>) -> Result<(), Failure> {
        let call = match self.expect {
            Some(version) => call.header("if-match", format!("\"{version}\"")),
            None => call,
        };
        self.why.run(api, call).await
    }
}

/// Says what came of a change.
pub(super) fn said(api: &Api, changed: &Value) -> Result<(), Failure> {
    if api.json {
        return print_json(changed);
    }
    let effects = changed
        .get("effects")
        .and_then(Value::as_array)
        .map_or(&[][..], Vec::as_slice);
    let mut text: String = effects
        .iter()
        .map(|effect| effect_text(effect) + "\n")
        .collect();
    text += &plans(changed);
    print(&text)
}

/// What would change at the nodes, in words.
pub(super) fn plans(changed: &Value) -> String {
    let plans = changed
        .get("plans")
        .and_then(Value::as_array)
        .map_or(&[][..], Vec::as_slice);
    let one = |plan: &Value| {
        let head = format!(
            "{} nodes with {}:",
            at_text(plan, "/nodes"),
            at_text(plan, "/policies")
        );
        let text = plan.get("text").and_then(Value::as_str).unwrap_or_default();
        let lines: String = text.lines().map(|line| format!("  {line}\n")).collect();
        format!("{head}\n{lines}")
    };
    plans.iter().map(one).collect()
}

fn effect_text(done: &Value) -> String {
    let object = at_text(done, "/object");
    let what = match at_text(done, "/effect").as_str() {
        "entries" => format!("{} entries changed", at_text(done, "/entries")),
        other => other.to_owned(),
    };
    format!("{object}: {what}, version {}", at_text(done, "/version"))
}

fn count(progress: &Value, part: &str) -> u64 {
    match progress.get(part) {
        Some(Value::Array(nodes)) => nodes.len() as u64,
        Some(number) => number.as_u64().unwrap_or(0),
        None => 0,
    }
}

fn total(progress: &Value) -> u64 {
    ["applied", "refused", "pending", "offline"]
        .iter()
        .map(|part| count(progress, part))
        .sum()
}

/// How far it has come, and who refused it.
fn text(progress: &Value) -> String {
    let seen = progress
        .get("seen")
        .and_then(Value::as_bool)
        .unwrap_or(true);
    let mut text = format!(
        "{} of {} nodes have it; refused {}, pending {}, offline {}{}\n",
        count(progress, "applied"),
        total(progress),
        count(progress, "refused"),
        count(progress, "pending"),
        count(progress, "offline"),
        if seen {
            ""
        } else {
            "; this controller has not seen it yet"
        },
    );
    let refused = progress
        .get("refused")
        .and_then(Value::as_array)
        .map_or(&[][..], Vec::as_slice);
    for node in refused.iter().take(20) {
        text += &format!(
            "  {}: {}: {}\n",
            at_text(node, "/0"),
            at_text(node, "/1"),
            at_text(node, "/2")
        );
    }
    text
}
