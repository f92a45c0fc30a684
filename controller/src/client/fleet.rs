//! What is asked of the fleet as a whole: status, numbers, look-ups, the kill switch, the audit log.

use std::time::Duration;

use clap::Args;
use serde_json::{Map, Value, json};
use xdpgate_service::{Failure, duration};

use super::change::{Wait, Why};
use super::out::{answer, at_text, fields, list, print, print_json, table};
use super::remote::Api;

/// A range of the numbers.
#[derive(Debug, Clone, Args)]
pub struct Stats {
    /// Only the nodes of a group
    #[arg(long, value_name = "GROUP")]
    pub group: Option<String>,
}

/// How the numbers are watched.
#[derive(Debug, Clone, Args)]
pub struct Top {
    /// How often
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, default_value = "2s")]
    pub every: Duration,
    /// So many times; without it until it is interrupted, or once where the output is no terminal
    #[arg(long, value_name = "NUMBER")]
    pub count: Option<u64>,
}

/// The kill switch.
#[derive(Debug, Clone, Args)]
pub struct Mode {
    /// dry-run, enforce or as-groups; without one it is shown
    #[arg(value_parser = ["dry-run", "enforce", "as-groups"], hide_possible_values = true)]
    pub mode: Option<String>,
    #[command(flatten)]
    why: Why,
}

/// How far a change has come.
#[derive(Debug, Clone, Args)]
pub struct Changes {
    /// The revision, as a change says it with --json
    #[arg(required_unless_present = "policy", conflicts_with = "policy")]
    pub revision: Option<u64>,
    /// In place of it, the newest version of a policy
    #[arg(long, value_name = "POLICY")]
    pub policy: Option<String>,
    #[command(flatten)]
    wait: Wait,
}

/// A packet, and what judges it.
#[derive(Debug, Clone, Args)]
pub struct Evaluate {
    /// A policy, as if a node had only this one
    #[arg(
        long,
        value_name = "POLICY",
        required_unless_present = "node",
        conflicts_with = "node"
    )]
    pub policy: Option<String>,
    /// What a node shall have
    #[arg(long, value_name = "NODE")]
    pub node: Option<String>,
    /// An Ethernet frame in hexadecimal digits, in place of the fields
    #[arg(long, value_name = "HEX", conflicts_with_all = ["src", "dst"])]
    pub frame: Option<String>,
    /// The source address
    #[arg(long, value_name = "ADDRESS", required_unless_present = "frame")]
    pub src: Option<String>,
    /// The destination address
    #[arg(long, value_name = "ADDRESS", required_unless_present = "frame")]
    pub dst: Option<String>,
    /// The protocol, by name or number
    #[arg(long, value_name = "PROTOCOL")]
    pub protocol: Option<String>,
    /// The source port
    #[arg(long, value_name = "PORT")]
    pub sport: Option<u16>,
    /// The destination port
    #[arg(long, value_name = "PORT")]
    pub dport: Option<u16>,
    /// The TCP flags, as a number
    #[arg(long, value_name = "NUMBER")]
    pub tcp_flags: Option<u8>,
    /// The length of the IP packet
    #[arg(long, value_name = "BYTES")]
    pub length: Option<u32>,
    /// The interface that it comes by
    #[arg(long, value_name = "NAME")]
    pub interface: Option<String>,
}

/// Which entries of the audit log.
#[derive(Debug, Clone, Args)]
pub struct Audit {
    /// Those by this user, token or part of the controller
    #[arg(long, value_name = "NAME")]
    pub actor: Option<String>,
    /// Those of an action, as rule.create, or of all that begin so, as rule.
    #[arg(long, value_name = "ACTION")]
    pub action: Option<String>,
    /// Those about a thing, as policy/web, and all below it
    #[arg(long, value_name = "OBJECT")]
    pub object: Option<String>,
    /// Those of so long ago or less
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub since: Option<Duration>,
    /// At most so many
    #[arg(long, value_name = "NUMBER", default_value_t = 50)]
    pub limit: usize,
}

pub(super) async fn status(api: &Api) -> Result<(), Failure> {
    let stats = api.get(&["stats"]).json().await?;
    let mode = api.get(&["mode"]).json().await?;
    let count = async |kind: &str| -> Result<Value, Failure> {
        let page = api.get(&[kind]).query("limit", 1).json().await?;
        Ok(page.get("total").cloned().unwrap_or_default())
    };
    let (policies, sets, groups) = (
        count("policies").await?,
        count("sets").await?,
        count("groups").await?,
    );
    let status = json!({
        "server": api.server(),
        "mode": mode.get("mode"),
        "policies": policies,
        "sets": sets,
        "groups": groups,
        "stats": stats,
    });
    answer(api.json, &status, |status| {
        let names = [
            ("controller", "/server"),
            ("mode of all", "/mode"),
            ("policies", "/policies"),
            ("sets", "/sets"),
            ("groups", "/groups"),
        ];
        let mut text = fields(status, &names);
        if status.get("mode").is_none_or(Value::is_null) {
            text = text.replacen("policies:", "mode of all: as groups\npolicies:", 1);
        }
        text + &numbers(&stats)
    })
}

pub(super) async fn controllers(api: &Api) -> Result<(), Failure> {
    let columns = [
        ("NAME", "/name"),
        ("STATE", "/state"),
        ("ADDRESS", "/address"),
        ("VERSION", "/version"),
        ("SINCE", "/since"),
    ];
    list(api.json, &api.get(&["controllers"]).json().await?, &columns)
}

/// The numbers of the fleet or a group.
fn numbers(stats: &Value) -> String {
    let names = [
        ("nodes", "/nodes"),
        ("online", "/online"),
        ("up to date", "/applied"),
        ("drift", "/drift"),
        ("pass mode", "/panic_off"),
        ("bans", "/bans"),
        ("state", "/state"),
        ("controllers that answer", "/controllers/answered"),
        ("of", "/controllers/known"),
    ];
    let mut text = fields(stats, &names);
    if let Some(states) = stats.get("states").and_then(Value::as_object) {
        let some = states.iter().filter(|(_, count)| count.as_u64() != Some(0));
        let some: Map<String, Value> = some
            .map(|(state, count)| (state.clone(), count.clone()))
            .collect();
        if !some.is_empty() {
            text += &format!("states:     {}\n", super::out::plain(&Value::Object(some)));
        }
    }
    text
}

/// Rates and rules.
fn rates(stats: &Value) -> String {
    let mut text = String::new();
    if let Some(rates) = stats.get("rates").and_then(Value::as_object) {
        let rows: Vec<Value> = rates
            .iter()
            .map(|(name, rate)| json!({ "name": name, "rate": rate }))
            .collect();
        text += &format!(
            "\n{}",
            table(&rows, &[("RATE", "/name"), ("PER SECOND", "/rate")])
        );
    }
    if let Some(rules) = stats
        .get("top_rules")
        .and_then(Value::as_array)
        .filter(|rules| !rules.is_empty())
    {
        let first = rules[0].as_object();
        let names: Vec<(String, String)> = first
            .into_iter()
            .flat_map(|rule| rule.keys())
            .map(|key| (key.to_uppercase().replace('_', " "), format!("/{key}")))
            .collect();
        let columns: Vec<(&str, &str)> = names
            .iter()
            .map(|(head, at)| (head.as_str(), at.as_str()))
            .collect();
        text += &format!("\n{}", table(rules, &columns));
    }
    text
}

pub(super) async fn stats(api: &Api, args: &Stats) -> Result<(), Failure> {
    let call = match &args.group {
        Some(group) => api.get(&["stats", "groups", group]),
        None => api.get(&["stats"]),
    };
    let stats = call.json().await?;
    answer(api.json, &stats, |stats| {
        let mut text = numbers(stats) + &rates(stats);
        if let Some(counts) = stats
            .get("counts")
            .and_then(Value::as_array)
            .filter(|rows| !rows.is_empty())
        {
            let columns = [
                ("REASON", "/reason"),
                ("FATE", "/fate"),
                ("PACKETS", "/packets"),
                ("BYTES", "/bytes"),
            ];
            text += &format!("\n{}", table(counts, &columns));
        }
        text
    })
}

pub(super) async fn top(api: &Api, args: &Top) -> Result<(), Failure> {
    use std::io::IsTerminal as _;
    let is_terminal = std::io::stdout().is_terminal();
    let clears = is_terminal && !api.json;
    let most = args.count.or((!is_terminal).then_some(1));
    let mut turn = 0;
    loop {
        let stats = api.get(&["stats"]).json().await?;
        if api.json {
            super::out::raw(&format!("{stats}\n"))?;
        } else {
            let clear = if clears { "\x1b[2J\x1b[H" } else { "" };
            print(&format!("{clear}{}{}", numbers(&stats), rates(&stats)))?;
        }
        turn += 1;
        if most.is_some_and(|most| turn >= most) {
            return Ok(());
        }
        tokio::time::sleep(args.every).await;
    }
}

pub(super) async fn mode(api: &Api, args: &Mode) -> Result<(), Failure> {
    let mode = match args.mode.as_deref() {
        None => {
            let mode = api.get(&["mode"]).json().await?;
            return answer(api.json, &mode, |mode| {
                match at_text(mode, "/mode").as_str() {
                    "" => "as the groups say\n".to_owned(),
                    mode => format!("{mode}, whatever the groups say\n"),
                }
            });
        }
        Some("dry-run") => json!("dry_run"),
        Some("enforce") => json!("enforce"),
        Some(_) => Value::Null,
    };
    args.why
        .run(api, api.put(&["mode"]).value(&json!({ "mode": mode })))
        .await
}

pub(super) async fn changes(api: &Api, args: &Changes) -> Result<(), Failure> {
    let revision = args.revision.unwrap_or_default().to_string();
    let call = match &args.policy {
        Some(policy) => api.get(&["policies", policy, "progress"]),
        None => api.get(&["changes", &revision]),
    };
    let progress = args.wait.query(call).json().await?;
    args.wait.say(api, &progress)
}

pub(super) async fn lookup(api: &Api, address: &str) -> Result<(), Failure> {
    let found = api
        .get(&["lookup"])
        .query("address", address)
        .json()
        .await?;
    answer(api.json, &found, |found| {
        let part = |name: &str| {
            found
                .get(name)
                .and_then(Value::as_array)
                .map_or(&[][..], Vec::as_slice)
        };
        let sets = table(
            part("sets"),
            &[("SET", "/set"), ("NOW", "/now"), ("ENTRIES", "/entries")],
        );
        let columns = [
            ("POLICY", "/policy"),
            ("RULE", "/rule"),
            ("SIDE", "/side"),
            ("BY", "/by"),
            ("ENABLED", "/enabled"),
            ("PRIORITY", "/priority"),
        ];
        format!("sets:\n{sets}\nrules:\n{}", table(part("rules"), &columns))
    })
}

pub(super) async fn evaluate(api: &Api, args: &Evaluate) -> Result<(), Failure> {
    let mut body = json!({ "policy": args.policy, "node": args.node, "interface": args.interface });
    match &args.frame {
        Some(frame) => body["frame"] = frame.as_str().into(),
        None => {
            let protocol = args.protocol.as_ref().map(|text| match text.parse::<u8>() {
                Ok(number) => json!(number),
                Err(_) => json!(text),
            });
            body["packet"] = json!({
                "src": args.src,
                "dst": args.dst,
                "protocol": protocol,
                "sport": args.sport,
                "dport": args.dport,
                "tcp_flags": args.tcp_flags,
                "length": args.length,
            });
        }
    }
    let said = api.post(&["evaluate"]).value(&body).json().await?;
    answer(api.json, &said, |said| {
        let near = said
            .get("near")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        let names = [
            ("verdict", "/verdict"),
            ("reason", "/reason"),
            ("rule", "/rule"),
            ("monitored", "/monitored"),
        ];
        let mut text = fields(said, &names);
        if !near.is_empty() {
            text += &format!(
                "\n{}",
                table(&near, &[("CAME CLOSE", "/rule"), ("BUT FOR", "/but_for")])
            );
        }
        text
    })
}

pub(super) async fn audit(api: &Api, args: &Audit) -> Result<(), Failure> {
    let since = args
        .since
        .map(|time| (jiff::Timestamp::now() - time).to_string());
    let query = [
        ("actor", args.actor.clone()),
        ("action", args.action.clone()),
        ("object", args.object.clone()),
        ("since", since),
    ];
    let page = api.all(&["audit"], &query, Some(args.limit)).await?;
    if api.json {
        return print_json(&page);
    }
    let columns = [
        ("AT", "/at"),
        ("ACTOR", "/actor"),
        ("FROM", "/origin"),
        ("ACTION", "/action"),
        ("OBJECT", "/object"),
        ("DETAIL", "/detail"),
    ];
    list(false, &page, &columns)
}
