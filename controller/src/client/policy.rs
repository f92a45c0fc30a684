//! `policy`: what nodes shall enforce.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use xdpgate_service::Failure;

use super::change::{Change, said};
use super::input;
use super::out::{self, answer, list};
use super::remote::Api;
use crate::domain::PolicyContent;

#[derive(Debug, Clone, Subcommand)]
#[command(after_help = "\
Examples:
  xdpgate-controller policy apply web web.yaml --plan
  xdpgate-controller policy apply web web.yaml --wait 99% --why 'ticket 4711'
  xdpgate-controller policy history web
  xdpgate-controller policy revert web 3")]
pub enum Policy {
    /// List the policies
    #[command(after_help = "Example:\n  xdpgate-controller policy list --search web")]
    List {
        /// Text in the name or comment
        #[arg(long, value_name = "TEXT")]
        search: Option<String>,
    },
    /// Print a policy as a policy file
    #[command(after_help = "Example:\n  xdpgate-controller policy get web > web.yaml")]
    Get {
        /// The policy
        name: String,
    },
    /// Make a policy what a file says, new or in place of what is there
    #[command(after_help = APPLY)]
    Apply(Apply),
    /// Show the versions of a policy: who, when, why and what
    #[command(after_help = "Example:\n  xdpgate-controller policy history web")]
    History {
        /// The policy
        name: String,
    },
    /// Show what differs between two versions; exit code 1 if anything does
    #[command(after_help = "Example:\n  xdpgate-controller policy diff web 3 5")]
    Diff {
        /// The policy
        name: String,
        /// The older version
        from: u64,
        /// The newer version
        to: u64,
    },
    /// Make a policy as it was in a version, which makes a new version
    #[command(
        after_help = "Example:\n  xdpgate-controller policy revert web 3 --why 'it dropped too much'"
    )]
    Revert {
        /// The policy
        name: String,
        /// The version
        version: u64,
        #[command(flatten)]
        change: Change,
    },
    /// Delete a policy that no group names; its versions stay
    #[command(after_help = "Example:\n  xdpgate-controller policy delete old")]
    Delete {
        /// The policy
        name: String,
        #[command(flatten)]
        change: Change,
    },
}

const APPLY: &str = "\
The file is a policy file without sets of its own: sets are the fleet's. It is checked before anything is sent.

Examples:
  xdpgate-controller policy apply web web.yaml --plan       what would it change at the nodes?
  xdpgate-controller policy apply web web.yaml --wait 99%
  generate-policy | xdpgate-controller policy apply web -";

/// A policy and its file.
#[derive(Debug, Clone, Args)]
pub struct Apply {
    /// The policy
    pub name: String,
    /// The file; `-` is standard input
    pub file: PathBuf,
    /// Only say what would change at the nodes
    #[arg(long)]
    pub plan: bool,
    /// Bring it to the nodes stage by stage, by this plan; `default` is always there
    #[arg(long, value_name = "PLAN", conflicts_with = "plan")]
    pub rollout: Option<String>,
    #[command(flatten)]
    change: Change,
}

pub(super) async fn run(api: &Api, command: &Policy) -> Result<(), Failure> {
    match command {
        Policy::List { search } => {
            let page = api
                .all(&["policies"], &[("q", search.clone())], None)
                .await?;
            let columns = [
                ("POLICY", "/name"),
                ("VERSION", "/version"),
                ("RULES", "/rules"),
                ("DEFAULT", "/settings/default"),
                ("GROUPS", "/groups"),
                ("CHANGED", "/updated/at"),
                ("BY", "/updated/by"),
            ];
            list(api.json, &page, &columns)
        }
        Policy::Get { name } if api.json => {
            out::print_json(&api.get(&["policies", name]).json().await?)
        }
        Policy::Get { name } => out::raw(&api.get(&["policies", name, "text"]).text().await?),
        Policy::Apply(args) => apply(api, args).await,
        Policy::History { name } => history(api, "policies", name).await,
        Policy::Diff { name, from, to } => diff(api, "policies", name, *from, *to).await,
        Policy::Revert {
            name,
            version,
            change,
        } => {
            let call = api
                .post(&["policies", name, "revert"])
                .value(&json!({ "version": version }));
            change.run(api, call).await
        }
        Policy::Delete { name, change } => change.run(api, api.delete(&["policies", name])).await,
    }
}

async fn apply(api: &Api, args: &Apply) -> Result<(), Failure> {
    let text = input::read(&args.file)?;
    check(&args.file, &text)?;
    let (kind, path) = ("application/yaml", ["policies", &args.name, "plan"]);
    if args.plan {
        let changed = api.post(&path).body(kind, text).json().await?;
        return said(api, &changed);
    }
    let call = api.put(&path[..2]).body(kind, text);
    let call = call.query_some("rollout", args.rollout.as_deref());
    args.change.run(api, call).await
}

/// Refuses a file that is at fault, with the place.
pub(super) fn check(file: &Path, text: &str) -> Result<PolicyContent, Failure> {
    PolicyContent::from_yaml(text).map_err(|error| Failure::policy(file, &error))
}

/// Shows the versions of a policy or set.
pub(super) async fn history(api: &Api, kind: &str, name: &str) -> Result<(), Failure> {
    let page = api.all(&[kind, name, "versions"], &[], Some(1_000)).await?;
    let columns = [
        ("VERSION", "/version"),
        ("AT", "/at"),
        ("BY", "/by"),
        ("COUNT", "/count"),
        ("DELETED", "/deleted"),
        ("WHY", "/why"),
        ("CHANGED", "/changed"),
    ];
    list(api.json, &page, &columns)
}

/// Shows what differs between two versions of a policy or set.
pub(super) async fn diff(
    api: &Api,
    kind: &str,
    name: &str,
    from: u64,
    to: u64,
) -> Result<(), Failure> {
    let call = api
        .get(&[kind, name, "diff"])
        .query("from", from)
        .query("to", to);
    let value = call.json().await?;
    let text = value
        .get("text")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .trim_end();
    answer(api.json, &value, |_| match text {
        "" => "nothing differs\n".to_owned(),
        text => format!("{text}\n"),
    })?;
    match same(&value) {
        true => Ok(()),
        false => Err(Failure::Differs),
    }
}

/// Whether a diff has nothing in it.
fn same(diff: &Value) -> bool {
    let empty = |value: &Value| match value {
        Value::Array(items) => items.is_empty(),
        Value::Number(number) => number.as_u64() == Some(0),
        // The words.
        _ => true,
    };
    diff.as_object()
        .is_none_or(|parts| parts.values().all(empty))
}
