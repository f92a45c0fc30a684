//! `rule`: single rules of a policy.

use clap::Subcommand;
use serde_json::json;
use xdpgate_service::Failure;

use super::change::Change;
use super::input;
use super::out::{list, print_json};
use super::remote::Api;

#[derive(Debug, Clone, Subcommand)]
#[command(after_help = "\
Examples:
  xdpgate-controller rule list web --address 203.0.113.7
  xdpgate-controller rule add web '{ id: block-bad, match: { src: \"@bad\" }, action: drop }'
  xdpgate-controller rule set web block-bad priority=10 comment=null
  xdpgate-controller rule disable web block-bad --wait 99%")]
pub enum Rule {
    /// List rules, in the order in which they are evaluated
    #[command(after_help = "\
Examples:
  xdpgate-controller rule list web --search ssh
  xdpgate-controller rule list web --label owner=team-a --sort -updated")]
    List {
        /// The policy
        policy: String,
        /// Text in the id, name, comment or a label
        #[arg(long, value_name = "TEXT")]
        search: Option<String>,
        /// A label, as owner or owner=web
        #[arg(long, value_name = "LABEL")]
        label: Option<String>,
        /// An address that the rule names, by whatever prefix or set
        #[arg(long, value_name = "ADDRESS")]
        address: Option<String>,
        /// drop, pass, count or rate_limit
        #[arg(long, value_name = "ACTION")]
        action: Option<String>,
        /// Only those that are enabled (true), or not (false)
        #[arg(long, value_name = "BOOL")]
        enabled: Option<bool>,
        /// priority, id, name or updated; with - in front the other way round
        #[arg(long, value_name = "BY", allow_hyphen_values = true)]
        sort: Option<String>,
        /// At most so many
        #[arg(long, value_name = "NUMBER")]
        limit: Option<usize>,
    },
    /// Print a rule as JSON
    #[command(after_help = "Example:\n  xdpgate-controller rule get web block-bad")]
    Get {
        /// The policy
        policy: String,
        /// The rule
        id: String,
    },
    /// Add a rule
    #[command(after_help = "\
Examples:
  xdpgate-controller rule add web '{ id: no-telnet, match: { protocol: tcp, dport: 23 }, action: drop }'
  xdpgate-controller rule add web - < rule.yaml")]
    Add {
        /// The policy
        policy: String,
        /// The rule in YAML, as in a policy file; `-` is standard input
        rule: String,
        #[command(flatten)]
        change: Change,
    },
    /// Change fields of a rule; the others stay
    #[command(after_help = "\
A value is YAML; null clears the field. Dots go into a field.

Examples:
  xdpgate-controller rule set web no-telnet priority=10 comment=null
  xdpgate-controller rule set web no-telnet 'match.dport=[23, 2323]'")]
    Set {
        /// The policy
        policy: String,
        /// The rule
        id: String,
        /// What to set
        #[arg(required = true, value_name = "FIELD=VALUE")]
        fields: Vec<String>,
        #[command(flatten)]
        change: Change,
    },
    /// Enable a rule
    #[command(after_help = "Example:\n  xdpgate-controller rule enable web no-telnet")]
    Enable(One),
    /// Disable a rule; it stays in the policy
    #[command(
        after_help = "Example:\n  xdpgate-controller rule disable web no-telnet --why 'a customer needs it'"
    )]
    Disable(One),
    /// Remove a rule
    #[command(after_help = "Example:\n  xdpgate-controller rule remove web no-telnet")]
    Remove(One),
    /// Show who changed a rule last: when and why
    #[command(after_help = "Example:\n  xdpgate-controller rule blame web no-telnet")]
    Blame {
        /// The policy
        policy: String,
        /// The rule
        id: String,
    },
}

/// A rule, and its change.
#[derive(Debug, Clone, clap::Args)]
pub struct One {
    /// The policy
    pub policy: String,
    /// The rule
    pub id: String,
    #[command(flatten)]
    change: Change,
}

impl One {
    fn path(&self) -> [&str; 4] {
        ["policies", &self.policy, "rules", &self.id]
    }

    async fn switch(&self, api: &Api, enabled: bool) -> Result<(), Failure> {
        let call = api
            .patch(&self.path())
            .value(&json!({ "enabled": enabled }));
        self.change.run(api, call).await
    }
}

pub(super) async fn run(api: &Api, command: &Rule) -> Result<(), Failure> {
    match command {
        Rule::List {
            policy,
            search,
            label,
            address,
            action,
            enabled,
            sort,
            limit,
        } => {
            let query = [
                ("q", search.clone()),
                ("label", label.clone()),
                ("address", address.clone()),
                ("action", action.clone()),
                ("enabled", enabled.map(|enabled| enabled.to_string())),
                ("sort", sort.clone()),
            ];
            let page = api
                .all(&["policies", policy, "rules"], &query, *limit)
                .await?;
            let columns = [
                ("PRIORITY", "/priority"),
                ("RULE", "/id"),
                ("ACTION", "/action"),
                ("MATCH", "/match"),
                ("ENABLED", "/enabled"),
                ("VERSION", "/version"),
                ("COMMENT", "/comment"),
            ];
            list(api.json, &page, &columns)
        }
        Rule::Get { policy, id } => {
            print_json(&api.get(&["policies", policy, "rules", id]).json().await?)
        }
        Rule::Add {
            policy,
            rule,
            change,
        } => {
            let call = api
                .post(&["policies", policy, "rules"])
                .value(&input::rule(rule)?);
            change.run(api, call).await
        }
        Rule::Set {
            policy,
            id,
            fields,
            change,
        } => {
            let call = api.patch(&["policies", policy, "rules", id]);
            change.run(api, call.value(&input::patch(fields)?)).await
        }
        Rule::Enable(one) => one.switch(api, true).await,
        Rule::Disable(one) => one.switch(api, false).await,
        Rule::Remove(one) => one.change.run(api, api.delete(&one.path())).await,
        Rule::Blame { policy, id } => {
            let blame = api
                .get(&["policies", policy, "rules", id, "blame"])
                .json()
                .await?;
            super::out::answer(api.json, &blame, |blame| {
                let names = [
                    ("version", "/version"),
                    ("at", "/at"),
                    ("by", "/by"),
                    ("why", "/why"),
                    ("changed", "/changed"),
                ];
                super::out::fields(blame, &names)
            })
        }
    }
}
