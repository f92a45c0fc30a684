//! Dashboard, alerts and the page about them name what a real daemon exports, and Prometheus' own tool
//! finds nothing wrong. These tests need root.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::daemon::Daemon;
use common::namespace::Namespace;
use common::scrape::Scrape;
use common::tools::has_tool;
use common::{Scratch, is_root, text};
use serde_json::Value;

const POLICY: &str = "
version: 1
failsafe: none
rules:
  - { id: block, match: { src: 192.0.2.2, dport: 9000, protocol: udp }, action: drop }
";

fn docs(file: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    root.expect("the workspace").join("docs").join(file)
}

fn read(file: &str) -> String {
    fs::read_to_string(docs(file)).expect("it is there")
}

/// What a daemon exports after some traffic.
fn exported() -> Scrape {
    let host = Namespace::new();
    let neighbour = host.neighbour(("xg0", "192.0.2.1/24"), ("nb0", "192.0.2.2/24"));
    let scratch = Scratch::new();
    let socket = scratch.path("metrics.sock");
    let metrics = format!("unix:{}", text(&socket));
    let policy = scratch.file("policy.yaml", POLICY);
    let arguments = ["--interface", "xg0", "--policy", &policy];
    let metrics = ["--metrics-listen", &metrics];
    let daemon = Daemon::start(&host, &scratch, &[&arguments[..], &metrics].concat());
    let sender = neighbour.run(|| UdpSocket::bind("192.0.2.2:0"));
    let sender = sender.expect("a socket");
    for _ in 0..10 {
        sender.send_to(b"x", "192.0.2.1:9000").expect("sent");
    }
    daemon.ask(&["policy", "plan", &policy]).ok();
    daemon.ask(&["policy", "apply", &policy]).ok();
    Scrape::of(&socket)
}

fn has_promtool() -> bool {
    has_tool("promtool", "--monitoring")
}

/// What promtool says, with this as its input.
fn promtool(arguments: &[&str], input: &str) -> String {
    let mut command = Command::new("promtool");
    command.args(arguments).stdin(Stdio::piped());
    let piped = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().expect("promtool");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(input.as_bytes()).expect("it reads");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    let said = [output.stdout, output.stderr].map(|o| String::from_utf8_lossy(&o).into_owned());
    let said = said.concat();
    assert!(output.status.success(), "promtool {arguments:?}: {said}");
    said
}

/// The words in a text that begin like a metric; those of recording rules have a colon.
fn named(text: &str) -> BTreeSet<String> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let words = text.split(|c| !is_word(c));
    let metrics = words.filter(|w| w.starts_with("xdpgate_") || w.starts_with("process_"));
    metrics.map(str::to_owned).collect()
}

/// Every metric that is named there, with its type. Names of groups and files are none.
#[track_caller]
fn assert_exported(place: &str, text: &str, types: &BTreeMap<String, String>) -> usize {
    let names = named(text);
    for name in &names {
        let is_part = |end: &str| {
            let whole = name.strip_suffix(end).and_then(|whole| types.get(whole));
            whole.is_some_and(|kind| kind == "histogram")
        };
        let is_known =
            types.contains_key(name) || ["_bucket", "_sum", "_count"].map(is_part).contains(&true);
        assert!(is_known, "{place} names {name}, which nobody exports");
    }
    names.len()
}

/// The expressions of all panels and variables.
fn expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Array(values) => values.iter().for_each(|v| expressions(v, found)),
        Value::Object(fields) => {
            for (key, value) in fields {
                match value {
                    Value::String(text) if key == "expr" => found.push(text.clone()),
                    value => expressions(value, found),
                }
            }
        }
        _ => {}
    }
}

#[test]
fn r130_dashboard_alerts_and_page_name_what_is_exported() {
    if !is_root() {
        return;
    }
    let scrape = exported();
    let types = scrape.types();
    let dashboard = read("monitoring/grafana-dashboard.json");
    assert!(assert_exported("the dashboard", &dashboard, &types) > 30);
    let alerts = read("monitoring/alerts.yaml");
    assert!(assert_exported("an alert", &alerts, &types) > 8);
    assert_exported(
        "a test of alerts",
        &read("monitoring/alerts_test.yaml"),
        &types,
    );

    // Each panel shows something and says what.
    let dashboard: Value = serde_json::from_str(&dashboard).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("a list");
    for panel in panels.iter().filter(|p| p["type"] != "row") {
        let targets = panel["targets"].as_array().expect("a list");
        assert!(!targets.is_empty(), "{panel}");
        for target in targets {
            let expression = target["expr"].as_str().expect("a text");
            assert!(!named(expression).is_empty(), "{expression}");
        }
        assert_ne!(
            panel["description"].as_str().unwrap_or_default(),
            "",
            "{panel}"
        );
    }
    let mut rules = String::from("groups:\n  - name: panels\n    rules:\n");
    let mut found = Vec::new();
    expressions(&dashboard, &mut found);
    assert!(found.len() > 40, "{found:?}");
    for (n, expression) in found.iter().enumerate() {
        let mut expression = expression.clone();
        for (variable, value) in [
            ("$__rate_interval", "5m"),
            ("$__range", "1h"),
            ("$instance", ".*"),
            ("$interface", ".*"),
        ] {
            expression = expression.replace(variable, value);
        }
        assert!(!expression.contains('$'), "{expression}");
        let expression = Value::from(expression);
        rules += &format!("      - {{ record: 'panel:{n}', expr: {expression} }}\n");
    }
    let scratch = Scratch::new();
    if has_promtool() {
        promtool(&["check", "rules", &scratch.file("panels.yaml", rules)], "");
    }
}

#[test]
fn r130_the_page_has_every_metric() {
    if !is_root() {
        return;
    }
    let scrape = exported();
    let page = read("monitoring.md");
    let mut rows: BTreeMap<String, (String, BTreeSet<String>)> = BTreeMap::new();
    for line in page.lines().filter(|l| l.starts_with("| `")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let labels = cells[3].split(", ").filter(|l| !l.is_empty());
        let labels = labels.map(str::to_owned).collect();
        let name = cells[1].trim_matches('`').to_owned();
        assert!(cells[4..6].iter().all(|c| !c.is_empty()), "{line}");
        let twice = rows.insert(name, (cells[2].to_owned(), labels));
        assert_eq!(twice, None, "{line}");
    }
    let types = scrape.types();
    for (name, kind) in &types {
        let (documented, labels) = rows.get(name).unwrap_or_else(|| panic!("{name}: no row"));
        assert_eq!(documented, kind, "{name}");
        assert_eq!(*labels, scrape.labels(name), "{name}");
        assert!(scrape.text.contains(&format!("# HELP {name} ")), "{name}");
    }
    for name in rows.keys() {
        assert!(
            types.contains_key(name),
            "{name} is on the page, and nobody exports it"
        );
    }
}

#[test]
fn r95_r130_promtool_finds_nothing() {
    if !is_root() || !has_promtool() {
        return;
    }
    let alerts = text(&docs("monitoring/alerts.yaml"));
    promtool(&["check", "rules", "--lint-fatal", &alerts], "");
    promtool(
        &["test", "rules", &text(&docs("monitoring/alerts_test.yaml"))],
        "",
    );
    let said = promtool(&["check", "metrics"], &exported().text);
    assert_eq!(said, "");
}
