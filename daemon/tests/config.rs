//! The configuration, by the binary alone: no root, and nothing of the machine is touched.

mod common;

use std::process::Command;

use common::{Ended, Scratch, XDPGATED, command};
use serde_json::Value;

/// Runs `xdpgated` with no variables but these.
fn xdpgated(variables: &[(&str, &str)], arguments: &[&str]) -> Ended {
    let mut command = clean();
    command.envs(variables.iter().copied()).args(arguments);
    command.output().expect("xdpgated").into()
}

fn clean() -> Command {
    let mut command = command(XDPGATED);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("XDPGATED_")) {
        command.env_remove(name);
    }
    command
}

/// Asserts that there is an error for each of these, with these words, and no other.
#[track_caller]
fn refused(ended: &Ended, expected: &[&[&str]]) {
    assert_eq!(ended.code, Some(2), "{ended}");
    assert_eq!(ended.stdout, "", "{ended}");
    for (line, words) in ended.stderr.lines().zip(expected) {
        assert!(line.starts_with("error: "), "{line}");
        for word in *words {
            assert!(line.contains(word), "no {word:?} in: {line}");
        }
    }
    assert_eq!(ended.stderr.lines().count(), expected.len(), "{ended}");
}

#[test]
fn the_file_that_is_shipped_is_what_the_types_say() {
    let shipped = include_str!("../xdpgated.toml");
    let printed = xdpgated(&[], &["config", "print-default"]).ok();
    assert_eq!(
        shipped, printed,
        "write it anew: xdpgated config print-default > daemon/xdpgated.toml"
    );
}

#[test]
fn the_shipped_file_changes_nothing_and_is_right() {
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/xdpgated.toml");
    xdpgated(&[], &["check", "--config", shipped]).ok();
    let with = xdpgated(&[], &["config", "show", "--config", shipped]).ok();
    let without = xdpgated(&[], &["config", "show"]).ok();
    let values = |shown: &str| -> Vec<String> {
        let value = |line: &str| line.split("  # ").next().unwrap_or_default().to_owned();
        shown.lines().map(value).collect()
    };
    assert_eq!(values(&with), values(&without));
}

/// What is commented out is right too once the comment sign is gone.
#[test]
fn examples_in_the_file_are_right() {
    let shipped = include_str!("../xdpgated.toml");
    let is_example = |line: &str| {
        let line = line.strip_prefix("# ")?;
        let key = line.split(" = ").next()?;
        let is_key = key.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        let is_table = line.starts_with('[') && line.ends_with(']');
        ((line.contains(" = ") && is_key) || is_table).then(|| line.to_owned())
    };
    let mut examples = 0;
    let text: Vec<String> = shipped
        .lines()
        .map(|line| {
            let example = is_example(line);
            examples += usize::from(example.is_some());
            example.unwrap_or_else(|| line.to_owned())
        })
        .collect();
    assert!(examples >= 6, "{examples}");
    let scratch = Scratch::new();
    let policy = scratch.file("policy.yaml", "version: 1\n");
    let text = text.join("\n").replace("/etc/xdpgate/policy.yaml", &policy);
    let file = scratch.file("all.toml", text);
    xdpgated(&[], &["check", "--config", &file]).ok();
}

#[test]
fn r73_each_bad_key_gives_file_line_key_and_reason() {
    let scratch = Scratch::new();
    let file = scratch.file(
        "bad.toml",
        "enfroce = true\n\
         max_rules = 0\n\
         max_interfaces = 70000\n\
         policyy = 'x'\n\
         mode = 'native'\n\
         [interfaces]\n\
         class = 'physicl'\n\
         include = ['eth0', 'eth[']\n\
         family = 'ipx'\n\
         mode = 'natve'\n\
         only_up = 'yes'\n\
         drivers = 'i40e'\n\
         [pins]\n\
         pinning = true\n\
         [[bridge]]\n\
         outer = 'a'\n\
         [[bridge]]\n\
         outer = 'b'\n\
         inner = 'c'\n\
         filtr = 'both'\n",
    );
    let ended = xdpgated(&[], &["check", "--config", &file]);
    refused(
        &ended,
        &[
            &["bad.toml:1: enfroce: ", "did you mean enforce?"],
            &["bad.toml:2: max_rules: ", "from 1 to"],
            &["bad.toml:3: max_interfaces: ", "65535"],
            &["bad.toml:4: policyy: ", "did you mean policy?"],
            &["bad.toml:5: mode: ", "[interfaces]"],
            &["bad.toml:7: interfaces.class: ", "physical, all or none"],
            &["bad.toml:8: interfaces.include[1]: ", "eth["],
            &["bad.toml:9: interfaces.family: ", "ipx"],
            &["bad.toml:10: interfaces.mode: ", "did you mean native?"],
            &["bad.toml:11: interfaces.only_up: ", "true or false"],
            &["bad.toml:12: interfaces.drivers: ", "list"],
            &["bad.toml:14: pins.pinning: ", "auto, require, off"],
            &["bad.toml:15: bridge[0].inner: ", "missing"],
            &["bad.toml:20: bridge[1].filtr: ", "did you mean filter?"],
        ],
    );
    // The daemon refuses it for the same reasons, before it does anything, on one line.
    let ended = xdpgated(&[], &["--config", &file]);
    ended.refused(2, &["bad.toml:1: enfroce", "bad.toml:20: bridge[1].filtr"]);
}

#[test]
fn r73_a_file_that_is_no_toml_gives_its_lines() {
    let scratch = Scratch::new();
    let file = scratch.file(
        "bad.toml",
        "enforce = true\nlisten = \nmax_rules = 1 2\nenforce = false\n",
    );
    let ended = xdpgated(&[], &["check", "--config", &file]);
    refused(
        &ended,
        &[
            &["bad.toml:2: "],
            &["bad.toml:3: "],
            &["bad.toml:4: ", "duplicate"],
        ],
    );
    let missing = xdpgated(&[], &["check", "--config", "/nonexistent/x.toml"]);
    refused(&missing, &[&["/nonexistent/x.toml: "]]);
}

#[test]
fn r73_a_port_is_in_one_bridge() {
    let scratch = Scratch::new();
    let file = scratch.file(
        "bad.toml",
        "[[bridge]]\nouter = 'a'\ninner = 'b'\n[[bridge]]\nouter = 'b'\ninner = 'b'\n",
    );
    let ended = xdpgated(&[], &["check", "--config", &file]);
    refused(
        &ended,
        &[
            &["bad.toml:5: bridge[1].outer: ", "b is a port already"],
            &["bad.toml:6: bridge[1].inner: "],
        ],
    );
}

#[test]
fn r73_the_policy_is_checked_too() {
    let scratch = Scratch::new();
    let policy = scratch.file(
        "policy.yaml",
        "version: 1\nrules: [{ id: a, action: drip }]\n",
    );
    let ended = xdpgated(&[], &["check", "--policy", &policy]);
    refused(&ended, &[&["policy.yaml", "drip"]]);
}

#[test]
fn flags_come_before_variables_before_the_file_before_defaults() {
    let scratch = Scratch::new();
    let file = scratch.file(
        "x.toml",
        "max_rules = 1\nmax_interfaces = 1\n[interfaces]\nrescan_seconds = 1\n\
         exclude = ['lo']\n",
    );
    let variables = [
        ("XDPGATED_CONFIG", file.as_str()),
        ("XDPGATED_MAX_RULES", "2"),
        ("XDPGATED_MAX_INTERFACES", "2"),
        ("XDPGATED_INTERFACES_INCLUDE", "eth0, eth1"),
        // As if it were not there.
        ("XDPGATED_API_LISTEN", ""),
    ];
    let shown = xdpgated(&variables, &["config", "show", "--max-rules", "3"]).ok();
    let from_file = |line: &str| format!("{line}  # {file}:4");
    for line in [
        "max_rules = 3  # --max-rules",
        "max_interfaces = 2  # XDPGATED_MAX_INTERFACES",
        &from_file("rescan_seconds = 1"),
        "include = [\"eth0\", \"eth1\"]  # XDPGATED_INTERFACES_INCLUDE",
        "class = \"physical\"",
        "listen = [\"unix:/run/xdpgate/xdpgated.sock\"]",
    ] {
        assert!(shown.lines().any(|l| l == line), "no {line:?} in:\n{shown}");
    }
}

/// Every key of a section has its variable; lists of tables have none.
#[test]
fn every_key_has_a_variable() {
    let schema = xdpgated(&[], &["config", "schema"]).ok();
    let schema: Value = serde_json::from_str(&schema).expect("JSON");
    let mut tried = 0;
    for (section, inside) in schema["properties"].as_object().expect("keys") {
        for (key, inside) in inside["properties"].as_object().into_iter().flatten() {
            let is_table = inside["properties"].is_object() || inside["anyOf"].is_array();
            if is_table || inside["items"]["type"] == "object" {
                continue;
            }
            let variable = format!("XDPGATED_{section}_{key}").to_uppercase();
            let is_list = inside["type"] == "array";
            let (value, dotted) = (
                if is_list { "eth[" } else { "¿" },
                format!("{section}.{key}"),
            );
            let ended = xdpgated(&[(&variable, value)], &["config", "show"]);
            let named = [&ended.stdout, &ended.stderr].into_iter().any(|said| {
                said.contains(&format!("# {variable}"))
                    || said.contains(&format!("{variable}: {dotted}"))
            });
            assert!(named, "{variable}: {ended}");
            tried += 1;
        }
    }
    assert!(tried >= 15, "{tried}");
}

#[test]
fn variables_are_checked_like_the_file() {
    let ended = xdpgated(&[("XDPGATED_INTERFACES_MODE", "fast")], &["check"]);
    refused(
        &ended,
        &[&["XDPGATED_INTERFACES_MODE: interfaces.mode: ", "fast"]],
    );
    let ended = xdpgated(&[("XDPGATED_MAX_RULES", "many")], &["check"]);
    refused(&ended, &[&["XDPGATED_MAX_RULES: max_rules: ", "many"]]);
    // Whoever runs it may have variables of that form for other purposes.
    let ended = xdpgated(&[("XDPGATED_INTERFACE_MODE", "native")], &["check"]);
    assert_eq!(ended.code, Some(0), "{ended}");
    assert!(
        ended
            .stderr
            .contains("did you mean XDPGATED_INTERFACES_MODE?"),
        "{ended}"
    );
}

/// What is right and still opens more than one would think is said before the start too, with the mend.
#[test]
fn check_warns_of_an_api_that_everybody_reaches() {
    let scratch = Scratch::new();
    let drops = scratch.file("policy.yaml", "version: 1\ndefault: drop\nfailsafe: none\n");
    let check = |more: &str| {
        let config = format!(
            "policy = '{drops}'\n[api]\nlisten = ['https://0.0.0.0:50051']\n{more}\
             [api.tls]\ncertificate = 'c'\nkey = 'k'\nclient_ca = 'a'\n\
             [[api.clients]]\nname = 'ops'\nrole = 'admin'\n"
        );
        let config = scratch.file("xdpgated.toml", config);
        let ended = xdpgated(&[], &["check", "--config", &config]);
        assert_eq!(ended.code, Some(0), "{ended}");
        ended.stderr
    };
    let said = check("");
    let mend = "name the prefixes of those who manage this node in api.reachable_from";
    assert!(said.contains("warning: https://0.0.0.0:50051: port 50051 passes from everywhere"));
    assert!(said.contains(mend), "{said}");
    assert!(said.contains("id: allow-api"), "{said}");
    assert_eq!(said.lines().count(), 2, "{said}");
    let said = check("reachable_from = ['192.0.2.0/24']\n");
    assert!(!said.contains(mend), "{said}");
    let said = check("reachable_from = []\n");
    assert!(
        !said.contains(mend) && said.contains("id: allow-api"),
        "{said}"
    );
}
