//! `rollout`: versions of policies that reach nodes stage by stage, and the plans by which they do.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use xdpgate_service::Failure;

use super::change::Why;
use super::out::{answer, at_text, fields, list, print, raw, table};
use super::remote::Api;
use super::{input, yaml};

/// How often `watch` asks.
const EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Subcommand)]
#[command(after_help = "\
A rollout brings the newest version of a policy to its nodes stage by stage. Between stages it waits until all nodes of a
stage have the version and have been well for the stage's time. If more nodes than a gate allows refuse it, lose their link
or drop much more than before, all go back to the former version by themselves.

The newest version reaches all nodes at once unless it is made as part of a rollout, so `start` is for a policy whose nodes
still have a former one, as after `abort`. A change and its rollout are one request: `policy apply web.yaml --rollout default`.

Examples:
  xdpgate-controller policy apply web web.yaml --rollout default
  xdpgate-controller rollout list --active
  xdpgate-controller rollout watch r-web-7
  xdpgate-controller rollout abort r-web-7 --why 'customers see errors'")]
pub enum Rollout {
    /// Roll out the newest version of a policy
    #[command(after_help = "\
Examples:
  xdpgate-controller rollout start web --preview            how many nodes would each stage reach?
  xdpgate-controller rollout start web --plan careful --why 'merge 4711' --watch")]
    Start(Start),
    /// List rollouts, the newest first
    #[command(after_help = "Example:\n  xdpgate-controller rollout list --policy web --active")]
    List {
        /// Only those of this policy
        #[arg(long, value_name = "POLICY")]
        policy: Option<String>,
        /// Only those that go on
        #[arg(long)]
        active: bool,
    },
    /// Show a rollout: its stages, what is seen of its nodes, what happened
    #[command(after_help = "Example:\n  xdpgate-controller rollout show r-web-7")]
    Show {
        /// The rollout
        rollout: String,
    },
    /// Follow a rollout until it is over; exit code 1 if its version did not reach all
    #[command(after_help = "\
A paused rollout is waited for too. With --json there is a line of JSON for each step.

Example:
  xdpgate-controller rollout watch r-web-7 && echo all have it")]
    Watch {
        /// The rollout
        rollout: String,
    },
    /// Hold a rollout where it is; nodes keep what they have
    #[command(after_help = "Example:\n  xdpgate-controller rollout pause r-web-7 --why lunch")]
    Pause(Turn),
    /// Let a paused rollout go on
    #[command(after_help = "Example:\n  xdpgate-controller rollout resume r-web-7")]
    Resume(Turn),
    /// End a rollout: all nodes get the former version
    #[command(after_help = "\
After that changes of parts of the policy are refused, since they would bring what was taken back: apply the policy
whole, revert it, start the rollout anew, or `rollout release` the policy.

Example:
  xdpgate-controller rollout abort r-web-7 --why 'customers see errors'")]
    Abort(Turn),
    /// Give the newest version of a policy to all nodes at once, where a rollout ended with the former one
    #[command(after_help = "Example:\n  xdpgate-controller rollout release web --wait 99%")]
    Release {
        /// The policy
        policy: String,
        #[command(flatten)]
        why: Why,
    },
    /// Show and change the plans that rollouts follow
    #[command(subcommand)]
    Plan(Plan),
}

/// A rollout to be.
#[derive(Debug, Clone, Args)]
pub struct Start {
    /// The policy
    policy: String,
    /// The plan by its name [default: default]
    #[arg(long, value_name = "PLAN", conflicts_with = "plan_file")]
    plan: Option<String>,
    /// A plan of its own, as `rollout plan show` prints it; `-` is standard input
    #[arg(long, value_name = "FILE")]
    plan_file: Option<PathBuf>,
    /// Its name [default: made up]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Only say how many nodes each stage would reach
    #[arg(long, conflicts_with = "watch")]
    preview: bool,
    /// Follow it until it is over; exit code 1 if its version did not reach all
    #[arg(long)]
    watch: bool,
    /// Why, for the history and the audit log
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,
}

/// A rollout that is turned.
#[derive(Debug, Clone, Args)]
pub struct Turn {
    /// The rollout
    rollout: String,
    #[command(flatten)]
    why: Why,
}

#[derive(Debug, Clone, Subcommand)]
pub enum Plan {
    /// List the plans; `default` is always there
    #[command(after_help = "Example:\n  xdpgate-controller rollout plan list")]
    List,
    /// Show a plan, in the form that `plan apply` takes
    #[command(
        after_help = "Example:\n  xdpgate-controller rollout plan show default >careful.yaml"
    )]
    Show {
        /// The plan
        plan: String,
    },
    /// Keep a plan under a name; rollouts that go on are not changed by it
    #[command(after_help = "\
A plan is YAML or JSON:
  stages:                                 each reaches these beside those before it; the last one all
    - { reach: { count: 1 }, bake_seconds: 300 }
    - { reach: { selector: 'site=ams' }, bake_seconds: 600 }
    - { reach: { percent: 50 }, bake_seconds: 600 }
    - { reach: all }
  gates: { max_refused: 0, max_lost: 1 }  more nodes than that end it; absent: as by default

Example:
  xdpgate-controller rollout plan apply careful careful.yaml")]
    Apply {
        /// The plan
        plan: String,
        /// Its file; `-` is standard input
        file: PathBuf,
        #[command(flatten)]
        change: super::change::Change,
    },
    /// Remove a plan; `default` becomes what it is without one
    #[command(after_help = "Example:\n  xdpgate-controller rollout plan delete careful")]
    Delete {
        /// The plan
        plan: String,
        #[command(flatten)]
        change: super::change::Change,
    },
}

pub(super) async fn run(api: &Api, command: &Rollout) -> Result<(), Failure> {
    match command {
        Rollout::Start(args) => start(api, args).await,
        Rollout::List { policy, active } => {
            let query = [
                ("policy", policy.clone()),
                ("active", active.then(|| "true".to_owned())),
            ];
            let page = api.all(&["rollouts"], &query, None).await?;
            let columns = [
                ("ROLLOUT", "/id"),
                ("POLICY", "/policy"),
                ("FROM", "/from"),
                ("TO", "/to"),
                ("STATE", "/state"),
                ("STAGE", "/stage"),
                ("SINCE", "/since"),
                ("REASON", "/reason"),
            ];
            list(api.json, &page, &columns)
        }
        Rollout::Show { rollout } => {
            let found = api.get(&["rollouts", rollout]).json().await?;
            answer(api.json, &found, shown)
        }
        Rollout::Watch { rollout } => watch(api, rollout).await,
        Rollout::Pause(turn) => turned(api, turn, "pause").await,
        Rollout::Resume(turn) => turned(api, turn, "resume").await,
        Rollout::Abort(turn) => turned(api, turn, "abort").await,
        Rollout::Release { policy, why } => {
            why.run(api, api.post(&["policies", policy, "release"]))
                .await
        }
        Rollout::Plan(command) => plan(api, command).await,
    }
}

async fn turned(api: &Api, turn: &Turn, how: &str) -> Result<(), Failure> {
    let call = api.post(&["rollouts", &turn.rollout, how]);
    turn.why.run(api, call).await
}

async fn start(api: &Api, args: &Start) -> Result<(), Failure> {
    let mut body = json!({ "policy": args.policy });
    if let Some(name) = &args.name {
        body["name"] = name.as_str().into();
    }
    match (&args.plan, &args.plan_file) {
        (Some(plan), _) => body["plan"] = plan.as_str().into(),
        (None, Some(file)) => body["plan"] = plan_file(file)?,
        (None, None) => {}
    }
    if args.preview {
        let stages = api.post(&["rollouts", "preview"]).value(&body);
        return answer(api.json, &stages.json().await?, |stages| {
            let rows = stages.as_array().map_or(&[][..], Vec::as_slice);
            let columns = [
                ("REACH", "/stage/reach"),
                ("NODES", "/nodes"),
                ("NEW", "/more"),
                ("BAKE SECONDS", "/stage/bake_seconds"),
            ];
            table(rows, &columns)
        });
    }
    let call = api.post(&["rollouts"]).value(&body);
    let call = call.query_some("why", args.why.as_deref());
    let response = call.send().await?;
    let place = response.headers().get("location");
    let place = place.and_then(|place| place.to_str().ok()?.rsplit('/').next());
    let rollout = place.unwrap_or_default().to_owned();
    if args.watch {
        return watch(api, &rollout).await;
    }
    let found = api.get(&["rollouts", &rollout]).json().await?;
    answer(api.json, &found, |_| {
        format!("rollout {rollout}: started\n")
    })
}

/// Says each step until it is over.
async fn watch(api: &Api, rollout: &str) -> Result<(), Failure> {
    let mut said = String::new();
    loop {
        let found = api.get(&["rollouts", rollout]).json().await?;
        let line = step(&found);
        if line != said {
            match api.json {
                true => raw(&format!("{found}\n"))?,
                false => print(&line)?,
            }
            said = line;
        }
        match at_text(&found, "/state").as_str() {
            "running" | "paused" => tokio::time::sleep(EVERY).await,
            "done" => return Ok(()),
            state => {
                let reason = at_text(&found, "/reason");
                let error = format!("rollout {rollout}: {state}: {reason}");
                return Err(Failure::operation(error));
            }
        }
    }
}

/// How far it is, in one line.
fn step(rollout: &Value) -> String {
    let number = |at: &str| {
        rollout
            .pointer(at)
            .and_then(Value::as_u64)
            .unwrap_or_default()
    };
    let stage = number("/stage");
    let stages = rollout.pointer("/stages").and_then(Value::as_array);
    let mut line = format!(
        "{}: stage {} of {} ({})",
        at_text(rollout, "/state"),
        stage + 1,
        stages.map_or(0, Vec::len),
        at_text(rollout, &format!("/stages/{stage}/reach")),
    );
    if rollout.get("observed").is_some() {
        // Writing to a string does not fail.
        let _ = write!(
            line,
            ", {} of {} nodes have it, refused {}, lost {}",
            number("/observed/applied"),
            number("/observed/reached"),
            number("/observed/refused/count"),
            number("/observed/lost/count"),
        );
    }
    for at in ["/waits", "/reason"] {
        let text = at_text(rollout, at);
        if !text.is_empty() {
            let _ = write!(line, "; {text}");
        }
    }
    line + "\n"
}

fn shown(rollout: &Value) -> String {
    let mut text = fields(
        rollout,
        &[
            ("rollout", "/id"),
            ("policy", "/policy"),
            ("from", "/from"),
            ("to", "/to"),
            ("state", "/state"),
            ("since", "/since"),
            ("reason", "/reason"),
            ("waits", "/waits"),
        ],
    );
    text += &step(rollout);
    let stage = rollout.get("stage").and_then(Value::as_u64);
    let rows = |name: &str| {
        let rows = rollout.get(name).and_then(Value::as_array);
        rows.map_or(&[][..], Vec::as_slice)
    };
    let stages = rows("stages").iter().zip(0_u64..).map(|(one, number)| {
        let here = Some(number) == stage;
        json!({ "number": number + 1, "here": if here { "*" } else { "" }, "stage": one })
    });
    let columns = [
        ("", "/here"),
        ("STAGE", "/number"),
        ("REACH", "/stage/reach"),
        ("BAKE SECONDS", "/stage/bake_seconds"),
    ];
    text += &table(&stages.collect::<Vec<_>>(), &columns);
    let columns = [
        ("TIME", "/at"),
        ("BY", "/by"),
        ("WHAT", "/what"),
        ("REASON", "/reason"),
    ];
    text + &table(rows("events"), &columns)
}

fn plan_file(file: &std::path::Path) -> Result<Value, Failure> {
    let text = input::read(file)?;
    yaml::value(&text).map_err(|e| Failure::input(file.display(), e))
}

async fn plan(api: &Api, command: &Plan) -> Result<(), Failure> {
    match command {
        Plan::List => {
            let plans = api.get(&["rollout-plans"]).json().await?;
            answer(api.json, &plans, |plans| {
                let rows = plans.as_array().map_or(&[][..], Vec::as_slice);
                let columns = [
                    ("PLAN", "/name"),
                    ("VERSION", "/version"),
                    ("STAGES", "/plan/stages"),
                ];
                table(rows, &columns)
            })
        }
        Plan::Show { plan } => {
            let found = api.get(&["rollout-plans", plan]).json().await?;
            answer(api.json, &found, |found| plan_text(&found["plan"]))
        }
        Plan::Apply { plan, file, change } => {
            let body = plan_file(file)?;
            let call = api.put(&["rollout-plans", plan]).value(&body);
            change.run(api, call).await
        }
        Plan::Delete { plan, change } => {
            change.run(api, api.delete(&["rollout-plans", plan])).await
        }
    }
}

/// A plan as YAML, a stage a line. JSON is YAML.
fn plan_text(plan: &Value) -> String {
    let mut text = "stages:\n".to_owned();
    for stage in plan["stages"].as_array().into_iter().flatten() {
        // Writing to a string does not fail.
        let _ = writeln!(text, "  - {stage}");
    }
    text + &format!("gates: {}\n", plan["gates"])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{plan_text, step};
    use crate::client::yaml;
    use crate::rollout::Plan;

    #[test]
    fn a_plan_is_read_back_as_it_was() {
        let plan = serde_json::to_value(Plan::default()).unwrap();
        assert_eq!(yaml::value(&plan_text(&plan)).unwrap(), plan);
    }

    #[test]
    fn a_step_is_one_line() {
        let rollout = json!({
            "state": "running", "stage": 1, "stages": [{ "reach": { "nodes": ["n"] } }, { "reach": { "percent": 10 } }],
            "observed": { "applied": 2, "reached": 3, "refused": { "count": 1 }, "lost": { "count": 0 } },
            "waits": "1 node has not answered",
        });
        assert_eq!(
            step(&rollout),
            "running: stage 2 of 2 (percent=10), 2 of 3 nodes have it, refused 1, lost 0; 1 node has not answered\n"
        );
    }
}
