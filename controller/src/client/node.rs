//! `node`: the members of the fleet. `join-token`: what lets them in.

use std::time::Duration;

use clap::Subcommand;
use jiff::Timestamp;
use serde_json::json;
use xdpgate_service::{Failure, duration};

use super::change::Change;
use super::input;
use super::out::{answer, at_text, fields, list, print};
use super::remote::Api;

#[derive(Debug, Clone, Subcommand)]
#[command(after_help = "\
Examples:
  xdpgate-controller node list --selector tier=edge
  xdpgate-controller node show n-abcdefghijklmnop
  xdpgate-controller node label n-abcdefghijklmnop rack=7 old-")]
pub enum Node {
    /// List the nodes
    #[command(after_help = "\
Examples:
  xdpgate-controller node list --state offline
  xdpgate-controller node list --group edge --search fra")]
    List {
        /// Text in the id, name or a label
        #[arg(long, value_name = "TEXT")]
        search: Option<String>,
        /// By labels, as env=prod,tier in (a,b),!legacy
        #[arg(long, value_name = "SELECTOR")]
        selector: Option<String>,
        /// Those of a group
        #[arg(long, value_name = "GROUP")]
        group: Option<String>,
        /// Those in a state, as fresh or offline
        #[arg(long, value_name = "STATE")]
        state: Option<String>,
        /// Those whose daemon has this version
        #[arg(long, value_name = "VERSION")]
        version: Option<String>,
        /// At most so many
        #[arg(long, value_name = "NUMBER")]
        limit: Option<usize>,
    },
    /// Show all that is known of a node
    #[command(after_help = "Example:\n  xdpgate-controller node show n-abcdefghijklmnop --json")]
    Show {
        /// The node
        id: String,
    },
    /// Set and clear labels of a node; they win over those that it brought
    #[command(
        after_help = "Example:\n  xdpgate-controller node label n-abcdefghijklmnop rack=7 old-"
    )]
    Label {
        /// The node
        id: String,
        /// What to set; with - behind it, what to clear
        #[arg(required = true, value_name = "KEY=VALUE|KEY-")]
        labels: Vec<String>,
        #[command(flatten)]
        change: Change,
    },
    /// Say that somebody works on a node, so that nobody is alarmed
    #[command(
        after_help = "Example:\n  xdpgate-controller node maintenance n-abcdefghijklmnop on --why 'new disk'"
    )]
    Maintenance {
        /// The node
        id: String,
        /// on or off
        #[arg(value_parser = ["on", "off"], hide_possible_values = true)]
        state: String,
        #[command(flatten)]
        change: Change,
    },
    /// Send a node, or all, what they shall have, whatever they have
    #[command(
        after_help = "Examples:\n  xdpgate-controller node sync n-abcdefghijklmnop\n  xdpgate-controller node sync --all"
    )]
    Sync {
        /// The node
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        id: Option<String>,
        /// All that are connected
        #[arg(long)]
        all: bool,
    },
    /// Remove a node from the fleet; what it has in force stays
    #[command(after_help = "Example:\n  xdpgate-controller node remove n-abcdefghijklmnop")]
    Remove {
        /// The node
        id: String,
        #[command(flatten)]
        change: Change,
    },
    /// Shut a node out, whatever certificate it has, or one certificate of it
    #[command(after_help = "\
Examples:
  xdpgate-controller node revoke n-abcdefghijklmnop
  xdpgate-controller node revoke n-abcdefghijklmnop --serial 4f7a")]
    Revoke {
        /// The node
        id: String,
        /// Only the certificate with this serial number
        #[arg(long, value_name = "HEX")]
        serial: Option<String>,
    },
}

#[derive(Debug, Clone, Subcommand)]
#[command(after_help = "\
Examples:
  xdpgate-controller join-token new --uses 20 --label tier=edge
  xdpgate-controller join-token list
  xdpgate-controller join-token remove 3f2a")]
pub enum JoinToken {
    /// Make a token; it is told this once
    #[command(after_help = "\
Examples:
  xdpgate-controller join-token new
  xdpgate-controller join-token new --for 1d --uses 20 --label tier=edge --comment 'rack 7'
  xdpgate-controller join-token new --node n-abcdefghijklmnop      a node gets its identity back")]
    New {
        /// How long it is good
        #[arg(long = "for", id = "lifetime", value_name = "DURATION", value_parser = duration::parse, default_value = "1h")]
        lifetime: Duration,
        /// How many nodes it lets in
        #[arg(long, value_name = "NUMBER", default_value_t = 1)]
        uses: u32,
        /// A label that each of them gets; repeat it for more
        #[arg(long = "label", value_name = "KEY=VALUE")]
        labels: Vec<String>,
        /// A label that nodes may bring; repeat it for more [default: any]
        #[arg(long = "allow", value_name = "KEY")]
        allowed: Option<Vec<String>>,
        /// The group that it is for
        #[arg(long, value_name = "GROUP")]
        group: Option<String>,
        /// The node that gets its identity back
        #[arg(long, value_name = "NODE")]
        node: Option<String>,
        /// What it is for
        #[arg(long, value_name = "TEXT", default_value = "")]
        comment: String,
        /// How nodes dial the controller, for the lines that are printed [default: as its configuration says]
        #[arg(long, value_name = "HOST:PORT")]
        dial: Option<String>,
    },
    /// List the tokens, without their secrets
    #[command(after_help = "Example:\n  xdpgate-controller join-token list")]
    List,
    /// Revoke a token; nodes that came by it stay
    #[command(after_help = "Example:\n  xdpgate-controller join-token remove 3f2a")]
    Remove {
        /// What it is called by
        id: String,
    },
}

pub(super) async fn run(api: &Api, command: &Node) -> Result<(), Failure> {
    match command {
        Node::List {
            search,
            selector,
            group,
            state,
            version,
            limit,
        } => {
            let query = [
                ("q", search.clone()),
                ("selector", selector.clone()),
                ("group", group.clone()),
                ("state", state.clone()),
                ("version", version.clone()),
            ];
            let page = api.all(&["nodes"], &query, *limit).await?;
            let columns = [
                ("NODE", "/id"),
                ("NAME", "/name"),
                ("STATE", "/status/state"),
                ("HAS IT", "/status/delivery"),
                ("MODE", "/desired/mode"),
                ("PASS MODE", "/status/panic_off"),
                ("GROUPS", "/groups"),
                ("LABELS", "/labels"),
                ("MAINTENANCE", "/maintenance"),
                ("REVOKED", "/revoked"),
            ];
            list(api.json, &page, &columns)
        }
        Node::Show { id } => show(api, id).await,
        Node::Label { id, labels, change } => {
            let body = json!({ "set_labels": input::labels(labels, true)? });
            change
                .run(api, api.patch(&["nodes", id]).value(&body))
                .await
        }
        Node::Maintenance { id, state, change } => {
            let body = json!({ "maintenance": state == "on" });
            change
                .run(api, api.patch(&["nodes", id]).value(&body))
                .await
        }
        Node::Sync { id, .. } => {
            let call = match id {
                Some(id) => api.post(&["nodes", id, "sync"]),
                None => api.post(&["sync"]),
            };
            let sent = call.json().await?;
            answer(api.json, &sent, |sent| {
                format!(
                    "{} nodes are sent what they shall have\n",
                    at_text(sent, "/nodes"),
                )
            })
        }
        Node::Remove { id, change } => change.run(api, api.delete(&["nodes", id])).await,
        Node::Revoke { id, serial } => {
            let body = match serial {
                Some(serial) => json!({ "serial": serial }),
                None => json!({}),
            };
            api.post(&["nodes", id, "revoke"])
                .value(&body)
                .json()
                .await?;
            done(api, &format!("{id}: revoked\n"))
        }
    }
}

async fn show(api: &Api, id: &str) -> Result<(), Failure> {
    let node = api.get(&["nodes", id]).json().await?;
    answer(api.json, &node, |node| {
        let names = [
            ("node", "/id"),
            ("name", "/name"),
            ("state", "/status/state"),
            ("has it", "/status/delivery"),
            ("pass mode", "/status/panic_off"),
            ("why not", "/status/error"),
            ("address", "/status/address"),
            ("since", "/status/connected_since"),
            ("daemon", "/status/version"),
            ("kernel", "/status/kernel"),
            ("labels", "/labels"),
            ("groups", "/groups"),
            ("policies", "/desired/policies"),
            ("rules", "/desired/rules"),
            ("mode", "/desired/mode"),
            ("shall have", "/desired/hash"),
            ("has", "/status/has"),
            ("fault", "/fault"),
            ("maintenance", "/maintenance"),
            ("revoked", "/revoked"),
            ("joined", "/created"),
            ("changed", "/updated"),
        ];
        fields(node, &names)
    })
}

pub(super) async fn join_token(api: &Api, command: &JoinToken) -> Result<(), Failure> {
    match command {
        JoinToken::New {
            lifetime,
            uses,
            labels,
            allowed,
            group,
            node,
            comment,
            dial,
        } => {
            let body = json!({
                "comment": comment,
                "expires": Timestamp::now() + *lifetime,
                "uses": uses,
                "labels": input::labels(labels, false)?,
                "allowed": allowed,
                "group": group,
                "node": node,
            });
            let made = api.post(&["join-tokens"]).value(&body).json().await?;
            answer(api.json, &made, |made| {
                let dial = match (dial, made.get("dial").and_then(|dial| dial.as_array())) {
                    (None, Some(named)) if !named.is_empty() => {
                        let named = named.iter().filter_map(|host| host.as_str());
                        named.map(str::to_owned).collect()
                    }
                    (dial, _) => vec![dial.clone().unwrap_or_else(|| api.nodes())],
                };
                let urls: Vec<_> = dial.iter().map(|at| format!("\"https://{at}\"")).collect();
                let uses = match at_text(made, "/uses").as_str() {
                    "1" => "1 node".to_owned(),
                    uses => format!("{uses} nodes"),
                };
                // As it is: it is to be copied.
                let secret = made
                    .get("secret")
                    .and_then(serde_json::Value::as_str)
                    .unwrap_or_default();
                format!(
                    "{secret}\n\nIt is not told again. It is good until {} for {uses}. Put it into a file on the node that only root may read, \
                     and these lines into the configuration of xdpgated:\n\n[fleet]\ncontrollers = [{}]\n\
                     token_file = \"/etc/xdpgate/join-token\"\n",
                    at_text(made, "/expires"),
                    urls.join(", "),
                )
            })
        }
        JoinToken::List => {
            let page = api.get(&["join-tokens"]).json().await?;
            let columns = [
                ("TOKEN", "/id"),
                ("EXPIRES", "/expires"),
                ("USES", "/uses"),
                ("LEFT", "/uses_left"),
                ("LABELS", "/labels"),
                ("GROUP", "/group"),
                ("BY", "/created_by"),
                ("COMMENT", "/comment"),
            ];
            list(api.json, &page, &columns)
        }
        JoinToken::Remove { id } => {
            api.delete(&["join-tokens", id]).json().await?;
            done(api, &format!("{id}: revoked\n"))
        }
    }
}

/// Says that something is done that has no answer of its own.
pub(super) fn done(api: &Api, text: &str) -> Result<(), Failure> {
    match api.json {
        true => Ok(()),
        false => print(text),
    }
}
