//! `xdpgate rule` and `rules`: single rules of the policy in force.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use clap::{Args, Subcommand};
use xdpgate_api::v1::{Change, EnableRule, ListRulesRequest, ListRulesResponse, change};

use super::args::Remote;
use super::change::{self as changes, Guard};
use super::out::{WARN, answer, print, print_json};
use super::table::{Align, Cell, Table};
use super::{json, remote};
use crate::Failure;

#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  xdpgate rule list --search dns
  xdpgate rule put '{ id: block-dns, match: { protocol: udp, dport: 53 }, action: drop }'
  xdpgate rule disable block-dns --confirm-within 60s")]
pub(super) enum Rule {
    /// List rules in evaluation order with their counters
    List(List),
    /// Show all of one rule
    Show(Show),
    /// Add a rule, or replace the one with its id, which keeps its counters
    Put(Put),
    /// Take out rules
    Remove(Named),
    /// Switch rules on
    Enable(Named),
    /// Switch rules off
    Disable(Named),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  xdpgate rules                               the same as: xdpgate rule list
  xdpgate rules --search dns --label owner=web
  xdpgate rules --address 203.0.113.7         rules that look for this address
  xdpgate rules --json | jq -r '.rules[].id'")]
pub(super) struct List {
    /// Only those whose id, name, comment or match has this text in it
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    pub search: String,
    /// Only those that look for this address as source or destination
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value = "",
        hide_default_value = true
    )]
    pub address: String,
    /// Only those with this label: NAME or NAME=VALUE; repeat it for more
    #[arg(long = "label", value_name = "LABEL")]
    pub labels: Vec<String>,
    #[command(flatten)]
    pub remote: Remote,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  xdpgate rule show block-dns")]
pub(super) struct Show {
    /// The id of the rule
    pub id: String,
    #[command(flatten)]
    pub remote: Remote,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  xdpgate rule put rule.yaml
  xdpgate rule put '{ id: block-dns, match: { protocol: udp, dport: 53 }, action: drop }'
  jq -c .rules[0] policy.json | xdpgate rule put -")]
pub(super) struct Put {
    /// A file with the rule, the rule itself, or - for stdin; YAML or JSON as in a policy file
    #[arg(value_name = "FILE-OR-TEXT")]
    pub rule: String,
    #[command(flatten)]
    pub guard: Guard,
    #[command(flatten)]
    pub remote: Remote,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Several are changed at once, or none.

Examples:
  xdpgate rule disable block-dns
  xdpgate rule enable block-dns
  xdpgate rule remove block-dns block-ntp --confirm-within 60s")]
pub(super) struct Named {
    /// The ids of the rules
    #[arg(required = true)]
    pub ids: Vec<String>,
    #[command(flatten)]
    pub guard: Guard,
    #[command(flatten)]
    pub remote: Remote,
}

pub(super) fn run(command: &Rule) -> Result<(), Failure> {
    match command {
        Rule::List(args) => list(args),
        Rule::Show(args) => show(args),
        Rule::Put(args) => put(args),
        Rule::Remove(args) => each(args, |id| change::Change::RemoveRule(id.to_owned())),
        Rule::Enable(args) => each(args, |id| switch(id, true)),
        Rule::Disable(args) => each(args, |id| switch(id, false)),
    }
}

fn switch(id: &str, enabled: bool) -> change::Change {
    change::Change::EnableRule(EnableRule {
        id: id.to_owned(),
        enabled,
    })
}

pub(super) fn list(args: &List) -> Result<(), Failure> {
    let request = ListRulesRequest {
        search: args.search.clone(),
        address: args.address.clone(),
        labels: args.labels.clone(),
        page_size: 1000,
        page_token: String::new(),
    };
    let all = pages(&args.remote, &request)?;
    answer(args.remote.json, &all, list_text)
}

/// All pages as one.
fn pages(server: &Remote, request: &ListRulesRequest) -> Result<ListRulesResponse, Failure> {
    remote::session(server, async |mut client| {
        let mut all = ListRulesResponse::default();
        loop {
            let mut request = request.clone();
            request.page_token = all.next_page_token.clone();
            let page = client.list_rules(request).await;
            let page = page.map_err(|status| remote::refused(server, &status))?;
            let page = page.into_inner();
            all.rules.extend(page.rules);
            all.next_page_token = page.next_page_token;
            (all.generation, all.total) = (page.generation, page.total);
            if all.next_page_token.is_empty() {
                return Ok(all);
            }
        }
    })
}

fn list_text(all: &ListRulesResponse) -> String {
    if all.rules.is_empty() {
        return "no rule fits\n".to_owned();
    }
    let mut table = Table::new(&[
        ("PRIORITY", Align::Right),
        ("RULE", Align::Left),
        ("ACTION", Align::Left),
        ("PACKETS", Align::Right),
        ("DROPPED", Align::Right),
        ("WOULD DROP", Align::Right),
        ("MATCH", Align::Left),
    ]);
    for rule in &all.rules {
        let stats = rule.stats.clone().unwrap_or_default();
        let (action, matches) = action_and_match(&rule.json);
        table.row([
            rule.priority.to_string().into(),
            rule.id.clone().into(),
            match rule.enabled {
                true => action.into(),
                false => Cell::styled(WARN, format!("{action} (off)")),
            },
            stats.packets.to_string().into(),
            stats.dropped_packets.to_string().into(),
            stats.would_drop_packets.to_string().into(),
            matches.into(),
        ]);
    }
    table.to_string()
}

/// The action and the match of a rule, short enough for a line.
fn action_and_match(rule: &str) -> (String, String) {
    let rule: serde_json::Value = serde_json::from_str(rule).unwrap_or_default();
    let mut action = match &rule["action"] {
        serde_json::Value::String(name) => name.clone(),
        serde_json::Value::Object(one) => one.keys().next().cloned().unwrap_or_default(),
        _ => "-".to_owned(),
    };
    if rule["mode"] == "monitor" {
        action += " (monitor)";
    }
    let matches = match rule.get("match").and_then(|m| m.as_object()) {
        Some(parts) if !parts.is_empty() => parts
            .iter()
            .map(|(name, value)| match value.as_str() {
                Some(text) => format!("{name} {text}"),
                None => format!("{name} {value}"),
            })
            .collect::<Vec<_>>()
            .join(", "),
        _ => "everything".to_owned(),
    };
    let mut short: String = matches.chars().take(MATCH_WIDTH).collect();
    if short.len() < matches.len() {
        short += " ...";
    }
    (action, short)
}

/// Longer ones are cut in the table; `rule show` has all of it.
const MATCH_WIDTH: usize = 60;

fn show(args: &Show) -> Result<(), Failure> {
    let request = ListRulesRequest {
        search: args.id.clone(),
        page_size: 1000,
        ..Default::default()
    };
    let all = pages(&args.remote, &request)?;
    let rule = all.rules.iter().find(|rule| rule.id == args.id);
    let rule = rule.ok_or_else(|| {
        Failure::operation(format!(
            "there is no rule {:?}; `xdpgate rules` lists them",
            args.id
        ))
    })?;
    if args.remote.json {
        return print_json(&json::of(rule)?);
    }
    let text: serde_json::Value = serde_json::from_str(&rule.json).map_err(Failure::operation)?;
    let text = serde_json::to_string_pretty(&text).map_err(Failure::operation)?;
    let stats = rule.stats.clone().unwrap_or_default();
    print(&format!(
        "{text}\npackets {}, dropped {}, would have been dropped {}\n",
        stats.packets, stats.dropped_packets, stats.would_drop_packets
    ))
}

fn put(args: &Put) -> Result<(), Failure> {
    let text = text_of(&args.rule)?;
    let change = Change {
        change: Some(change::Change::PutRule(text)),
    };
    let done = changes::make(&args.remote, &args.guard, vec![change]);
    let done = done.map_err(|failure| of_rule(&args.rule, failure))?;
    answer(args.remote.json, &done, |done| changes::text("rule", done))
}

/// What the daemon found wrong with the only change is wrong with the rule that was given.
fn of_rule(given: &str, failure: Failure) -> Failure {
    let name = match given {
        "-" => "stdin",
        text if Path::new(text).exists() => text,
        _ => "rule",
    };
    match failure {
        Failure::Faults(faults) => {
            let fault = |fault: &String| match fault.strip_prefix("changes[0].put_rule") {
                Some(rest) => format!("{name}: {}", rest.trim_start_matches(['.', ':', ' '])),
                None => fault.clone(),
            };
            Failure::Faults(faults.iter().map(fault).collect())
        }
        other => other,
    }
}

/// The text of a rule: of a file, of stdin, or as it is.
fn text_of(given: &str) -> Result<String, Failure> {
    if given == "-" {
        let mut text = String::new();
        let read = io::stdin().lock().read_to_string(&mut text);
        return read.map(|_| text).map_err(|e| Failure::input("stdin", e));
    }
    // A rule has a colon behind its id.
    if given.contains(": ") && !Path::new(given).exists() {
        return Ok(given.to_owned());
    }
    fs::read_to_string(given).map_err(|e| Failure::input(given, e))
}

fn each(args: &Named, make: impl Fn(&str) -> change::Change) -> Result<(), Failure> {
    let change = |id: &String| Change {
        change: Some(make(id)),
    };
    let all = args.ids.iter().map(change).collect();
    let done = changes::make(&args.remote, &args.guard, all)?;
    answer(args.remote.json, &done, |done| {
        if done.repeated {
            return changes::repeated();
        }
        let lines = args.ids.iter().zip(&done.effects);
        let mut text: String = lines
            .map(|(id, effect)| format!("rule {id}: {}\n", changes::effect_text(effect)))
            .collect();
        text += &changes::after(done.applied.as_ref(), done.confirm_by, done.generation);
        text
    })
}

#[cfg(test)]
mod tests {
    use super::action_and_match;

    #[test]
    fn a_rule_fits_on_a_line() {
        let rule =
            r#"{"action":"drop","id":"r","match":{"dport":53,"src":"@bad"},"mode":"monitor"}"#;
        let (action, matches) = action_and_match(rule);
        assert_eq!(
            (action.as_str(), matches.as_str()),
            ("drop (monitor)", "dport 53, src @bad")
        );
        let limit = r#"{"action":{"rate_limit":{"packets_per_second":1}}}"#;
        assert_eq!(
            action_and_match(limit),
            ("rate_limit".to_owned(), "everything".to_owned())
        );
    }
}
