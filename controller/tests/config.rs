//! The configuration, by the binary alone: no root, and nothing of the machine is touched.

use std::fs;
use std::process::{Command, Output};

const CONTROLLER: &str = env!("CARGO_BIN_EXE_xdpgate-controller");

/// Runs the program with no variables but these.
fn run(variables: &[(&str, &str)], arguments: &[&str]) -> Output {
    let mut command = Command::new(CONTROLLER);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("XDPGATE_CONTROLLER_")) {
        command.env_remove(name);
    }
    command.envs(variables.iter().copied()).args(arguments);
    command.output().expect("xdpgate-controller")
}

/// Asserts that there is an error with these words for each, and no other.
#[track_caller]
fn refused(output: &Output, expected: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    let lines: Vec<&str> = stderr.lines().collect();
    assert_eq!(lines.len(), expected.len(), "{stderr}");
    for (line, expected) in lines.iter().zip(expected) {
        assert!(line.starts_with("error: "), "{line}");
        assert!(line.contains(expected), "no {expected:?} in: {line}");
    }
}

#[test]
fn the_file_that_is_shipped_is_what_the_types_say() {
    let printed = run(&[], &["config", "print-default"]).stdout;
    let shipped = fs::read(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/xdpgate-controller.toml"
    ));
    assert!(
        printed == shipped.unwrap(),
        "print it anew: xdpgate-controller config print-default > controller/xdpgate-controller.toml"
    );
}

#[test]
fn r73_insecure_settings_are_refused_by_key() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("controller.toml");
    let text = "\
[api]
listen = \"0.0.0.0:8480\"
[nodes]
listen = \"0.0.0.0:8443\"
heartbeat_seconds = 0
[store.etcd]
endpoints = [\"http://etcd.example:2379\"]
[authority]
nodedays = 3
";
    fs::write(&file, text).unwrap();
    let checked = run(&[], &["check", "--config", file.to_str().unwrap()]);
    refused(
        &checked,
        &[
            ":2: api.listen: 0.0.0.0:8480 is not a loopback address",
            ":3: nodes.advertise: name how nodes dial",
            ":5: nodes.heartbeat_seconds: 0 is not a whole number",
            ":7: store.etcd.endpoints[0]: http://etcd.example:2379: in the clear only on loopback",
            ":9: authority.nodedays: there is no such key; did you mean node_days?",
        ],
    );
    let checked = run(
        &[("XDPGATE_CONTROLLER_API_LISTEN", "here")],
        &["check", "--etcd", "http://127.0.0.1:2379"],
    );
    refused(
        &checked,
        &["XDPGATE_CONTROLLER_API_LISTEN: api.listen: \"here\" is not ADDRESS:PORT"],
    );
}

#[test]
fn flags_go_before_the_environment() {
    let shown = run(
        &[
            (
                "XDPGATE_CONTROLLER_NODES_ADVERTISE",
                "a.example:1, b.example:2",
            ),
            ("XDPGATE_CONTROLLER_NODES_LISTEN", "127.0.0.1:1"),
        ],
        &["config", "show", "--nodes-listen", "127.0.0.1:2"],
    );
    let text = String::from_utf8(shown.stdout).unwrap();
    for said in [
        "listen = \"127.0.0.1:2\"  # --nodes-listen",
        "advertise = [\"a.example:1\", \"b.example:2\"]  # XDPGATE_CONTROLLER_NODES_ADVERTISE",
    ] {
        assert!(text.lines().any(|line| line == said), "{text}");
    }
}
