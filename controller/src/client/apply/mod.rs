//! `apply` and `export`: the fleet as files, for a repository that says what there is.

mod compare;
mod documents;
mod export;
mod steps;

use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use xdpgate_service::Failure;

use super::change::{Why, plans};
use super::out::{print, print_json};
use super::remote::Api;
use steps::Step;

pub(super) use export::export;

/// Files, and what is done with them.
#[derive(Debug, Clone, Args)]
pub struct Apply {
    /// A file, or a directory of which all *.yaml and *.yml count; `-` is standard input; repeat it for more
    #[arg(short, long = "file", value_name = "FILE|DIR", required = true)]
    pub file: Vec<PathBuf>,
    /// Delete what an earlier `apply` made and no file names any more
    #[arg(long)]
    pub prune: bool,
    /// Whose files these are, so that --prune leaves alone what others made
    #[arg(long, value_name = "NAME", default_value = "default", value_parser = owner)]
    pub owner: String,
    /// Only say what would be done, and what that would change at the nodes
    #[arg(long, conflicts_with = "diff")]
    pub plan: bool,
    /// Only say what differs; exit code 1 if anything does
    #[arg(long)]
    pub diff: bool,
    #[command(flatten)]
    why: Why,
}

/// Where the fleet is written to.
#[derive(Debug, Clone, Args)]
pub struct Export {
    /// The directory; it is made, or is empty
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
    /// Take a directory that has files; those of things that are gone are removed from policies, sets, groups and feeds
    #[arg(long)]
    pub replace: bool,
}

pub(super) const APPLY_HELP: &str = "\
A file has documents of YAML, with --- between them: `kind: Policy`, `Set`, `Group` or `Feed`, a `name`, and then what it
is made of.
A policy is as in a policy file. A set has `entries`, or `file` with a list beside it; without either its entries stay as
they are. A group has `selector`, `policies`, `rank` and `mode`; a feed has `source` and what `feed show --json` has under
`content`. All are checked before anything is sent. What names others
is changed after them, and what is deleted goes last. Each change is made whole or not at all; the first one that is refused
ends it, and what was done is said. What is as the files say is not touched, so it can be repeated at will.

Examples:
  xdpgate-controller apply -f fleet/ --diff
  xdpgate-controller apply -f fleet/ --plan --prune
  xdpgate-controller apply -f fleet/ --prune --wait 99% --why 'merge 4711'
  xdpgate-controller apply -f web.yaml -f bad.yaml";

pub(super) const EXPORT_HELP: &str = "\
It writes a file for each policy, set, group and feed, in the form that `apply` takes. Sets of more than 1,000 entries have a
list beside them; the entries of sets that a feed fills are the feed's and are left out. Nodes, users, history and keys are not in it: for these there is `backup`.

Examples:
  xdpgate-controller export -o fleet/
  xdpgate-controller export -o fleet/ --replace && git -C fleet diff";

fn owner(text: &str) -> Result<String, String> {
    let fine = (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    match fine {
        true => Ok(text.to_owned()),
        false => Err("1 to 64 of a-z A-Z 0-9 . _ -".to_owned()),
    }
}

/// By this the creation of a thing is known as that of `apply`.
fn mark(owner: &str) -> String {
    format!("[apply {owner}]")
}

pub(super) async fn apply(api: &Api, args: &Apply) -> Result<(), Failure> {
    let documents = documents::read(&args.file)?;
    let steps = compare::steps(api, &documents, args.prune.then(|| mark(&args.owner))).await?;
    if args.diff || args.plan {
        return preview(api, args, &steps).await;
    }
    let why = args.why.why.clone().unwrap_or_default();
    let created = format!("{why} {}", mark(&args.owner));
    let mut last = None;
    let mut done = Vec::new();
    for step in &steps {
        let why = if step.is_new() {
            created.trim()
        } else {
            why.as_str()
        };
        match step.run(api, why, false).await {
            Ok(changed) => last = Some(changed),
            Err(failure) => {
                let made = done.len();
                let all = steps.len();
                return Err(Failure::operation(format!(
                    "{}: {failure}; {made} of {all} changes were made: mend it and apply again",
                    step.object()
                )));
            }
        }
        done.push(step.json());
        if !api.json {
            print(&step.text(false))?;
        }
    }
    match (api.json, done.len()) {
        (true, _) => print_json(&json!({ "changes": done, "last": last }))?,
        (false, 0) => print("all is as the files say\n")?,
        (false, _) => {}
    }
    match &last {
        Some(changed) => args.why.follow(api, changed).await,
        None => Ok(()),
    }
}

/// Says what would be done.
async fn preview(api: &Api, args: &Apply, steps: &[Step]) -> Result<(), Failure> {
    let mut all = Vec::new();
    for step in steps {
        let mut one = step.json();
        let mut text = step.text(true);
        if args.plan {
            match step.run(api, "", true).await {
                Ok(changed) => {
                    text += &plans(&changed);
                    one["plans"] = changed.get("plans").cloned().unwrap_or_default();
                }
                // Most often what it names is made by an earlier step.
                Err(failure) => {
                    text += &format!("  not known yet at the nodes: {failure}\n");
                    one["refused"] = failure.to_string().into();
                }
            }
        }
        all.push(one);
        if !api.json {
            print(&text)?;
        }
    }
    match (api.json, all.len()) {
        (true, _) => print_json(&json!({ "changes": all }))?,
        (false, 0) => print("all is as the files say\n")?,
        (false, _) => {}
    }
    match args.diff && !steps.is_empty() {
        true => Err(Failure::Differs),
        false => Ok(()),
    }
}
