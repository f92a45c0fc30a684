//! The client commands against a running controller: logins, policies, rules, sets, groups, tokens, the kill switch.

mod common;

use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use common::controller::{Controller, PASSWORD};

const WEB: &str = "\
version: 1
default: drop
rules:
  - { id: https, match: { protocol: tcp, dport: 443 }, action: pass }
  - { id: block-bad, priority: 10, match: { src: '@bad' }, action: drop }
";

#[test]
fn a_login_is_kept_and_revoked() {
    let controller = Controller::start();
    let who = controller.ok(&["whoami"]);
    assert!(who.contains("admin"), "{who}");
    let kept = controller.dir().join("config/xdpgate/controller.toml");
    let mode = std::fs::metadata(&kept).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let text = std::fs::read_to_string(&kept).unwrap();
    assert!(text.contains("xgt_") && !text.contains(PASSWORD), "{text}");
    // The token is sent to its controller and none other.
    let (code, error) = controller.fails(&["whoami", "--server", "http://127.0.0.1:9"]);
    assert_eq!(code, 1);
    assert!(error.contains("is a controller running there"), "{error}");

    // A file that others may read is not used.
    std::fs::set_permissions(&kept, std::fs::Permissions::from_mode(0o644)).unwrap();
    let (code, error) = controller.fails(&["whoami"]);
    assert_eq!(code, 2);
    assert!(error.contains("chmod 600"), "{error}");
    std::fs::set_permissions(&kept, std::fs::Permissions::from_mode(0o600)).unwrap();

    controller.ok(&["logout"]);
    assert!(!std::fs::read_to_string(&kept).unwrap().contains("xgt_"));
    let (code, error) = controller.fails(&["policy", "list"]);
    assert_eq!(code, 1);
    assert!(error.contains("xdpgate-controller login"), "{error}");
    // What was revoked is of no use, wherever it was copied to.
    let token = text
        .split('"')
        .find(|part| part.starts_with("xgt_"))
        .unwrap();
    let output = controller
        .command(&["whoami"])
        .env("XDPGATE_CONTROLLER_TOKEN", token)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_wrong_password_and_a_wrong_place_are_refused() {
    let controller = Controller::start();
    let wrong = controller.file("wrong", "not the password at all");
    let (code, error) = controller.fails(&["login", "--password-file", wrong.to_str().unwrap()]);
    assert_eq!(code, 1, "{error}");
    assert!(!error.contains("not the password"), "{error}");
    let (code, error) = controller.fails(&["policy", "list", "--server", "http://192.0.2.1:8480"]);
    assert_eq!(code, 2);
    assert!(error.contains("https"), "{error}");
    let (code, _) = controller.fails(&["policy", "lst"]);
    assert_eq!(code, 2);
}

#[test]
fn policies_rules_sets_and_groups() {
    let controller = Controller::start();
    let file = controller.file("web.yaml", WEB);
    let file = file.to_str().unwrap();

    // It names a set that is not there.
    let (code, error) = controller.fails(&["policy", "apply", "web", file]);
    assert_eq!(code, 1);
    assert!(error.contains("bad"), "{error}");
    controller.ok(&["set", "create", "bad", "--comment", "who scans us"]);
    controller.ok(&[
        "set",
        "add",
        "bad",
        "203.0.113.7",
        "2001:db8::/32",
        "--why",
        "they scan",
    ]);
    let said = controller.ok(&["policy", "apply", "web", file, "--why", "first"]);
    assert_eq!(said, "policy/web: created, version 1\n");
    assert_eq!(
        controller.ok(&["policy", "apply", "web", file]),
        "policy/web: unchanged, version 1\n"
    );

    // A bad file is not sent, and its place is named.
    let broken = controller.file(
        "broken.yaml",
        "version: 1\nrules:\n  - { id: a, action: drp }\n",
    );
    let (code, error) = controller.fails(&["policy", "apply", "web", broken.to_str().unwrap()]);
    assert_eq!(code, 2);
    assert!(
        error.contains("broken.yaml") && error.contains("3:22"),
        "{error}"
    );

    controller.ok(&[
        "rule",
        "set",
        "web",
        "https",
        "priority=500",
        "comment=for customers",
    ]);
    controller.ok(&[
        "rule",
        "add",
        "web",
        "{ id: telnet, match: { protocol: tcp, dport: 23 }, action: drop }",
    ]);
    controller.ok(&[
        "rule",
        "disable",
        "web",
        "telnet",
        "--why",
        "a customer needs it",
    ]);
    assert_eq!(
        controller.json(&["rule", "get", "web", "telnet"])["enabled"],
        false
    );
    assert_eq!(
        controller.json(&["rule", "get", "web", "https"])["priority"],
        500
    );
    let rules = controller.ok(&["rule", "list", "web"]);
    let order: Vec<usize> = ["block-bad", "telnet", "https"]
        .iter()
        .map(|id| rules.find(id).unwrap())
        .collect();
    assert!(order.is_sorted(), "{rules}");
    let found = controller.json(&["rule", "list", "web", "--address", "203.0.113.7"]);
    assert_eq!(found["items"].as_array().unwrap().len(), 1, "{found}");
    controller.ok(&["rule", "remove", "web", "telnet"]);

    let history = controller.ok(&["policy", "history", "web"]);
    assert!(
        history.contains("first") && history.contains("a customer needs it"),
        "{history}"
    );
    let code = controller
        .run(&["policy", "diff", "web", "1", "2"])
        .status
        .code();
    assert_eq!(code, Some(1));
    assert_eq!(
        controller
            .run(&["policy", "diff", "web", "2", "2"])
            .status
            .code(),
        Some(0)
    );
    controller.ok(&["policy", "revert", "web", "1"]);
    let (code, error) = controller.fails(&["policy", "revert", "web", "2", "--expect", "1"]);
    assert_eq!(code, 1);
    assert!(error.contains("policy/web"), "{error}");

    controller.ok(&[
        "group",
        "apply",
        "edge",
        "--selector",
        "tier=edge",
        "--policy",
        "web",
    ]);
    controller.ok(&["group", "apply", "edge", "--rank", "7"]);
    let groups = controller.json(&["group", "list"]);
    assert_eq!(groups["items"][0]["rank"], 7);
    assert_eq!(groups["items"][0]["policies"][0], "web");
    let (code, error) = controller.fails(&["policy", "delete", "web"]);
    assert_eq!(code, 1);
    assert!(error.contains("edge"), "{error}");

    let found = controller.ok(&["lookup", "203.0.113.7"]);
    assert!(
        found.contains("bad") && found.contains("block-bad"),
        "{found}"
    );
    let packet = [
        "--src",
        "203.0.113.7",
        "--dst",
        "192.0.2.1",
        "--protocol",
        "tcp",
        "--dport",
        "443",
    ];
    let said = controller.ok(&[&["evaluate", "--policy", "web"][..], &packet].concat());
    assert!(
        said.contains("drop") && said.contains("block-bad"),
        "{said}"
    );

    // More pages than one.
    let list: String = (0..2_500)
        .map(|i| format!("10.{}.{}.1\n", i / 250, i % 250))
        .collect();
    let list = controller.file("list", &list);
    controller.ok(&["set", "import", "bad", list.to_str().unwrap()]);
    let entries = controller.json(&["set", "entries", "bad"]);
    assert_eq!(entries["items"].as_array().unwrap().len(), 2_500);
    assert!(entries.get("next").is_none());
    let few = controller.json(&["set", "entries", "bad", "--limit", "3"]);
    assert_eq!(few["items"].as_array().unwrap().len(), 3);
    controller.ok(&["set", "revert", "bad", "2"]);
    assert_eq!(controller.json(&["set", "get", "bad"])["entries"], 2);
}

#[test]
fn the_kill_switch_the_audit_log_and_events() {
    let controller = Controller::start();
    let mut events = controller.command(&["events", "--kind", "change", "--count", "1", "--json"]);
    let mut events = events.stdout(Stdio::piped()).spawn().unwrap();
    assert_eq!(controller.ok(&["mode"]), "as the groups say\n");
    // Until the stream is open nobody hears it, so it is said again.
    let modes = ["dry-run", "enforce"].iter().cycle();
    for mode in modes.take(600) {
        controller.ok(&["mode", mode, "--why", "we drop customers"]);
        if events.try_wait().unwrap().is_some() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let ended = events.try_wait().unwrap();
    if ended.is_none() {
        events.kill().unwrap();
    }
    let output = events.wait_with_output().unwrap();
    let event: serde_json::Value =
        serde_json::from_slice(&output.stdout).expect("a change is told");
    assert_eq!(event["event"], "change");
    controller.ok(&["mode", "dry-run"]);
    assert_eq!(controller.json(&["mode"])["mode"], "dry_run");
    assert!(controller.ok(&["status"]).contains("dry_run"));
    let changed = controller.json(&["mode", "as-groups"]);
    let revision = changed["revision"].to_string();
    assert!(
        controller
            .ok(&["changes", &revision, "--wait", "99%", "--timeout", "1s"])
            .contains("0 of 0")
    );
    let audit = controller.ok(&["audit", "--limit", "500"]);
    assert!(
        audit.contains("we drop customers") && audit.contains("admin"),
        "{audit}"
    );
    assert!(!audit.contains(PASSWORD));
    let top = controller.ok(&["top", "--count", "2", "--every", "10ms"]);
    assert!(top.contains("nodes:"), "{top}");
    // No terminal: one table, and that is all.
    let top = controller.ok(&["top", "--every", "10ms"]);
    assert_eq!(top.matches("nodes:").count(), 1, "{top}");
}

#[test]
fn users_tokens_and_join_tokens() {
    let controller = Controller::start();
    let password = controller.file("anna.password", "a long word for anna");
    let password = password.to_str().unwrap();
    controller.ok(&[
        "user",
        "add",
        "anna",
        "--role",
        "viewer",
        "--password-file",
        password,
    ]);
    let args = [
        "token",
        "new",
        "--user",
        "anna",
        "--password-file",
        password,
        "--name",
        "ci",
        "--role",
        "viewer",
    ];
    let token = controller.ok(&args);
    let token = controller.file("token", token.trim());
    let token = token.to_str().unwrap();
    let who = controller.ok(&["whoami", "--token-file", token]);
    assert!(who.contains("anna") && who.contains("viewer"), "{who}");
    let (code, error) = controller.fails(&["mode", "dry-run", "--token-file", token]);
    assert_eq!(code, 1);
    assert!(error.contains("operator"), "{error}");
    let made = controller.ok(&["user", "add", "bert", "--role", "operator"]);
    assert!(made.contains("good once"), "{made}");
    controller.ok(&["user", "remove", "anna"]);
    let (code, _) = controller.fails(&["whoami", "--token-file", token]);
    assert_eq!(code, 1);

    let made = controller.ok(&["join-token", "new", "--uses", "3", "--label", "tier=edge"]);
    assert!(made.contains("for 3 nodes."), "{made}");
    let other = controller.ok(&["join-token", "new", "--dial", "c.example:1"]);
    assert!(other.contains("for 1 node.") && other.contains("\"https://c.example:1\""));
    let other = other.split('.').nth(1).unwrap();
    controller.ok(&["join-token", "remove", other]);
    let secret = made.lines().next().unwrap();
    assert!(secret.starts_with("xgj1."), "{made}");
    let lines = &made[made.find("[fleet]").unwrap()..];
    let fleet: toml::Table = toml::from_str(lines).unwrap();
    assert_eq!(
        fleet["fleet"]["controllers"][0].as_str().unwrap(),
        format!("https://{}", controller.nodes)
    );
    let tokens = controller.ok(&["join-token", "list"]);
    let id = secret.split('.').nth(1).unwrap();
    let own = secret.split('.').nth(2).unwrap();
    assert!(tokens.contains(id) && !tokens.contains(own), "{tokens}");
    assert!(tokens.contains("tier=edge"), "{tokens}");
    controller.ok(&["join-token", "remove", id]);
    assert_eq!(controller.ok(&["node", "list"]), "none\n");
    // Nothing that is secret is in the log.
    let log = controller.log();
    assert!(!log.contains(own) && !log.contains("xgt_"), "{log}");
}

#[test]
fn a_feed_is_made_run_accepted_switched_off_and_removed() {
    let controller = Controller::start();
    assert_eq!(controller.ok(&["feed", "list"]), "none\n");
    let list = |count: u32| {
        let lines: String = (0..count).map(|i| format!("203.0.113.{i}\n")).collect();
        controller.file("lists/bad.txt", &lines);
    };
    list(20);
    let (code, error) = controller.fails(&["feed", "add", "bad"]);
    assert_eq!(code, 2);
    assert!(error.contains("--url"), "{error}");
    let limit = ["--limit", "max_entries=50", "--every", "1d"];
    let add = ["feed", "add", "bad", "--path", "bad.txt", "--why", "scans"];
    let said = controller.ok(&[&add[..], &limit[..]].concat());
    assert_eq!(said, "feed bad: created\n");
    controller.ok(&["feed", "run", "bad", "--wait", "30s"]);
    let set = controller.json(&["set", "get", "bad"]);
    assert_eq!(set["entries"], 20);

    // It shrinks by more than half: refused, said, and taken once somebody has looked at it.
    list(5);
    let (code, error) = controller.fails(&["feed", "run", "bad", "--wait", "30s"]);
    assert_eq!(code, 1);
    assert!(error.contains("1 of its sets"), "{error}");
    let shown = controller.ok(&["feed", "show", "bad"]);
    assert!(shown.contains("refused"), "{shown}");
    let listed = controller.ok(&["feed", "list"]);
    assert!(
        listed.contains("failing") && listed.contains("bad.txt"),
        "{listed}"
    );
    controller.ok(&["feed", "accept", "bad"]);
    let end = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while controller.json(&["set", "get", "bad"])["entries"] != 5 {
        assert!(std::time::Instant::now() < end, "{}", controller.log());
        std::thread::sleep(std::time::Duration::from_millis(200));
    }

    let change = ["every=7200", "limits.min_entries=2", "comment=ours"];
    controller.ok(&[&["feed", "change", "bad"], &change[..]].concat());
    let feed = controller.json(&["feed", "show", "bad"]);
    assert_eq!(feed["content"]["every"], 7200);
    assert_eq!(feed["content"]["limits"]["min_entries"], 2);
    assert_eq!(
        feed["content"]["limits"]["max_entries"], 50,
        "the others stay"
    );
    controller.ok(&["feed", "disable", "bad", "--why", "it lists us"]);
    let feed = controller.json(&["feed", "show", "bad"]);
    assert_eq!(feed["health"], "disabled");
    assert_eq!(feed["updated"]["why"], "it lists us");
    controller.ok(&["feed", "enable", "bad"]);
    assert_ne!(
        controller.json(&["feed", "show", "bad"])["health"],
        "disabled"
    );
    controller.ok(&["feed", "remove", "bad"]);
    assert_eq!(controller.ok(&["feed", "list"]), "none\n");
    assert_eq!(
        controller.json(&["set", "get", "bad"])["entries"],
        5,
        "its set stays"
    );
}

#[test]
fn plans_of_rollouts_are_shown_as_they_are_taken() {
    let controller = Controller::start();
    let web = controller.file("web.yaml", "version: 1\nrules: []\n");
    let web = web.to_str().unwrap();
    let shown = controller.ok(&["rollout", "plan", "show", "default"]);
    let plan = shown.replace("600", "900");
    assert_ne!(plan, shown);
    let file = controller.file("careful.yaml", &plan);
    let file = file.to_str().unwrap();
    controller.ok(&["rollout", "plan", "apply", "careful", file]);
    assert_eq!(controller.ok(&["rollout", "plan", "show", "careful"]), plan);
    let plans = controller.ok(&["rollout", "plan", "list"]);
    assert!(
        plans.contains("careful") && plans.contains("default"),
        "{plans}"
    );
    let (code, error) = controller.fails(&["rollout", "plan", "apply", "bad", web]);
    assert_eq!(code, 1);
    assert!(error.contains("version"), "{error}");
    controller.ok(&["rollout", "plan", "delete", "careful"]);
    let (code, _) = controller.fails(&["rollout", "plan", "show", "careful"]);
    assert_eq!(code, 1);

    // Rollouts themselves: controller/tests/http/rollouts.rs, where there are nodes, and scripts/demo-fleet.
    assert_eq!(controller.ok(&["rollout", "list"]), "none\n");
    let apply = ["policy", "apply", "web", web, "--rollout", "default"];
    let (code, error) = controller.fails(&apply);
    assert_eq!(code, 1);
    assert!(error.contains("rollout"), "{error}");
}

#[test]
fn the_documentation_names_every_command() {
    let output = std::process::Command::new(common::controller::PROGRAM)
        .arg("--help")
        .output()
        .unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let list = help
        .split("Commands:")
        .nth(1)
        .unwrap()
        .split("\n\n")
        .next()
        .unwrap();
    let commands = list
        .lines()
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let docs = include_str!("../../docs/controller-cli.md");
    let mut count = 0;
    for command in commands
        .filter_map(|line| line.split_whitespace().next())
        .filter(|c| *c != "help")
    {
        assert!(
            docs.contains(&format!("`{command}`")),
            "docs/controller-cli.md does not name {command}"
        );
        count += 1;
    }
    assert!(count > 20, "{help}");
}
