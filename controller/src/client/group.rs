//! `group`: which policies are for which nodes.

use clap::Subcommand;
use serde_json::{Map, Value, json};
use xdpgate_service::Failure;

use super::change::Change;
use super::out::list;
use super::remote::Api;

#[derive(Debug, Clone, Subcommand)]
#[command(after_help = "\
Examples:
  xdpgate-controller group apply edge --selector 'tier=edge,!legacy' --policy base --policy web
  xdpgate-controller group apply edge --mode dry_run
  xdpgate-controller group list")]
pub enum Group {
    /// List the groups
    #[command(after_help = "Example:\n  xdpgate-controller group list")]
    List,
    /// Make a group, or change one: what is not named stays
    #[command(after_help = "\
Examples:
  xdpgate-controller group apply all --selector '' --policy base
  xdpgate-controller group apply edge --selector 'tier in (edge,lb)' --policy base --policy web --rank 10
  xdpgate-controller group apply edge --mode none        as each node has it")]
    Apply {
        /// The group
        name: String,
        /// Which nodes, by their labels, as env=prod,tier in (a,b),!legacy; '' is all
        #[arg(long, value_name = "SELECTOR")]
        selector: Option<String>,
        /// What they have; repeat it for more, which come in this order
        #[arg(long = "policy", value_name = "POLICY")]
        policies: Option<Vec<String>>,
        /// Groups of a lower rank come first
        #[arg(long, value_name = "NUMBER")]
        rank: Option<u32>,
        /// The mode of its nodes: enforce, dry_run, or none
        #[arg(long, value_name = "MODE", value_parser = ["enforce", "dry_run", "none"], hide_possible_values = true)]
        mode: Option<String>,
        /// Free text
        #[arg(long, value_name = "TEXT")]
        comment: Option<String>,
        #[command(flatten)]
        change: Change,
    },
    /// Delete a group
    #[command(after_help = "Example:\n  xdpgate-controller group delete edge")]
    Delete {
        /// The group
        name: String,
        #[command(flatten)]
        change: Change,
    },
}

pub(super) async fn run(api: &Api, command: &Group) -> Result<(), Failure> {
    match command {
        Group::List => {
            let page = api.all(&["groups"], &[], None).await?;
            let columns = [
                ("GROUP", "/name"),
                ("RANK", "/rank"),
                ("SELECTOR", "/selector"),
                ("POLICIES", "/policies"),
                ("MODE", "/mode"),
                ("NODES", "/nodes"),
                ("COMMENT", "/comment"),
            ];
            list(api.json, &page, &columns)
        }
        Group::Apply {
            name,
            selector,
            policies,
            rank,
            mode,
            comment,
            change,
        } => {
            let before = api.get(&["groups", name]).found().await?;
            let mut body = before.as_ref().map(content).unwrap_or_default();
            if before.is_none() && selector.is_none() {
                return Err(Failure::input(
                    "--selector",
                    "a new group takes one; '' is all nodes",
                ));
            }
            let mut put = |field: &str, value: Option<Value>| {
                if let Some(value) = value {
                    body.insert(field.to_owned(), value);
                }
            };
            put("selector", selector.as_ref().map(|s| s.as_str().into()));
            put("policies", policies.as_ref().map(|p| p.as_slice().into()));
            put("rank", rank.map(Into::into));
            put("comment", comment.as_ref().map(|c| c.as_str().into()));
            let mode = mode.as_deref();
            put(
                "mode",
                mode.map(|mode| {
                    if mode == "none" {
                        Value::Null
                    } else {
                        mode.into()
                    }
                }),
            );
            // What was read is what is changed.
            let version = before
                .as_ref()
                .and_then(|group| group.get("version")?.as_u64());
            let change = Change {
                expect: change.expect.or(version),
                why: change.why.clone(),
            };
            change
                .run(api, api.put(&["groups", name]).value(&Value::Object(body)))
                .await
        }
        Group::Delete { name, change } => change.run(api, api.delete(&["groups", name])).await,
    }
}

/// What a group is made of, of what the API says about it.
pub(super) fn content(group: &Value) -> Map<String, Value> {
    let fields = ["selector", "policies", "rank", "mode", "comment"];
    let part = |field: &str| Some((field.to_owned(), group.get(field)?.clone()));
    let mut content: Map<String, Value> = fields.into_iter().filter_map(part).collect();
    content.retain(|_, value| !value.is_null());
    content.entry("selector").or_insert(json!(""));
    content
}
