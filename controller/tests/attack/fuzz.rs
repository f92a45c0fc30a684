//! Schemathesis against the OpenAPI document: nothing that it says brings the controller down, and answers are as the
//! document has them.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;

use crate::controller::Controller;
use crate::peer::rest;

/// Streams that do not end, a file that takes a while, and a text in YAML, which is a string to clients but not to Schemathesis.
const OTHERS: &str = "/(events|drops|drops\\.pcapng|text)$";
/// What ends the token by which it calls, or locks its user out.
const OWN: &str = "/(session|sessions/|session/password|tokens/|users/|login/)";

/// A Python that has schemathesis. `None`, said aloud, where it cannot be had; under CI it can.
fn schemathesis() -> Option<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let made = Command::new(root.join("scripts/python-with"))
        .arg("controller/tests/python/schemathesis.txt")
        .output()
        .unwrap();
    if made.status.success() {
        let python = String::from_utf8(made.stdout).unwrap();
        return Some(python.trim().trim_end_matches("python").to_owned() + "schemathesis");
    }
    let error = String::from_utf8_lossy(&made.stderr);
    assert!(std::env::var_os("CI").is_none(), "{error}");
    println!("skipped: {error}");
    None
}

fn run(program: &str, controller: &Controller, token: &str, seconds: &str, more: &[&str]) {
    let ran = Command::new(program)
        .current_dir(controller.dir())
        .arg("run")
        .arg(format!("{}/api/v1/openapi.json", controller.url))
        .arg(format!("--header=Authorization: Bearer {token}"))
        .args([
            "--seed",
            "7",
            "--phases",
            "coverage,fuzzing",
            "--continue-on-failure",
        ])
        .args([
            "--max-time",
            seconds,
            "--request-timeout",
            "20",
            "--warnings",
            "off",
        ])
        // The schema has not all that a value has to be, as that a name is of letters.
        .args(["--exclude-checks", "positive_data_acceptance"])
        .args(more)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{said}\n{}", controller.log());
    assert!(said.contains("Tested: "), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_the_document_allows_is_answered_as_it_says() {
    let Some(program) = schemathesis() else {
        return;
    };
    let controller = Controller::start();
    // The names that it tries first are there.
    for (path, body) in [
        (
            "/policies",
            json!({ "name": "0", "rules": [{ "id": "0", "match": { "src": "203.0.113.7" }, "action": "drop" }] }),
        ),
        ("/sets", json!({ "name": "0", "entries": ["203.0.113.7"] })),
        ("/groups", json!({ "name": "0", "selector": "a=b" })),
    ] {
        let (status, answer) = rest(&controller, Method::POST, path, body).await;
        assert_eq!(status, 201, "{answer}");
    }
    let begin = Instant::now();
    let token = controller.token();
    let not = ["--exclude-path-regex", OTHERS, "--exclude-path-regex", OWN];
    run(
        &program,
        &controller,
        &token,
        "35",
        &[&not[..], &["-n", "10"]].concat(),
    );
    // Last, with a token that may end.
    let new = json!({ "name": "fuzz", "role": "admin" });
    let (_, made) = rest(&controller, Method::POST, "/tokens", new).await;
    let secret = made["secret"].as_str().or(made["token"].as_str()).unwrap();
    run(
        &program,
        &controller,
        secret,
        "10",
        &["--include-path-regex", OWN, "-n", "5"],
    );
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(90), "{took:?}");
    let health = reqwest::get(format!("{}/api/v1/health", controller.url))
        .await
        .unwrap();
    assert_eq!(health.status(), 200);
    assert!(
        !controller.log().contains("panicked"),
        "{}",
        controller.log()
    );
}
