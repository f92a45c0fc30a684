//! Rollouts over the API; that they go on by themselves is in tests/rollout.rs.

use serde_json::{Value, json};

use crate::server::Api;

fn rule(id: &str) -> Value {
    json!({ "id": id, "match": { "src": "203.0.113.7" }, "action": "drop" })
}

/// A policy that some nodes have.
async fn fleet(nodes: usize) -> Api {
    let api = Api::start().await;
    api.post("/policies", json!({ "name": "web" }))
        .await
        .is(201);
    api.post("/policies/web/rules", rule("base")).await.is(201);
    let group = json!({ "name": "all", "selector": "", "policies": ["web"] });
    api.post("/groups", group).await.is(201);
    for _ in 0..nodes {
        api.node(json!({ "zone": "a" })).await;
    }
    api
}

/// A change that is rolled out, and the name of its rollout.
async fn rolled_out(api: &Api, id: &str) -> String {
    let path = "/policies/web/rules?rollout=default&why=ticket";
    let answer = api.post(path, rule(id)).await.is(201).json();
    let object = answer["effects"][1]["object"].as_str().unwrap();
    object.strip_prefix("rollout/").unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn r120_a_change_is_rolled_out_by_the_same_request() {
    let api = fleet(4).await;
    let name = rolled_out(&api, "new").await;
    let path = format!("/rollouts/{name}");
    let rollout = api.get(&path).await.is(200).json();
    assert_eq!(rollout["policy"], "web");
    assert_eq!((&rollout["from"], &rollout["to"]), (&json!(2), &json!(3)));
    assert_eq!(rollout["state"], "running");
    assert_eq!(
        rollout["stages"].as_array().unwrap().len(),
        4,
        "the plan that is always there"
    );
    assert_eq!(
        rollout["stages"][0]["reach"]["nodes"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(rollout["events"][0]["what"], "started");
    assert_eq!(rollout["events"][0]["by"], api_user(&api).await);
    assert_eq!(rollout["events"][0]["reason"], "ticket");
    let reached = api.core.view();
    let versions = reached
        .nodes()
        .keys()
        .map(|node| reached.desired(node).unwrap().policies[0].1);
    assert_eq!(versions.filter(|version| *version == 3).count(), 1);

    let second = api
        .post("/policies/web/rules?rollout=default", rule("b"))
        .await;
    let problem = second.refused(409, "conflict");
    assert!(
        problem["detail"].as_str().unwrap().contains(&name),
        "{problem}"
    );
    let elsewhere = api.post(
        "/sets?rollout=default",
        json!({ "name": "s", "entries": ["192.0.2.1"] }),
    );
    assert_eq!(elsewhere.await.is(422).json()["field"], "rollout");
}

async fn api_user(api: &Api) -> Value {
    let view = api.core.view();
    json!(view.groups().values().next().unwrap().created.by)
}

#[tokio::test(flavor = "multi_thread")]
async fn r120_rollouts_are_paused_resumed_and_aborted_with_reasons() {
    let api = fleet(2).await;
    let name = rolled_out(&api, "new").await;
    let path = format!("/rollouts/{name}");
    let turn = async |what: &str| {
        api.post(&format!("{path}/{what}?why=lunch"), json!({}))
            .await
    };
    turn("pause").await.is(200);
    let paused = api.get(&path).await.is(200);
    assert_eq!(paused.header("etag"), "\"2\"");
    assert_eq!(paused.json()["state"], "paused");
    assert_eq!(paused.json()["reason"], "lunch");
    turn("resume").await.is(200);
    turn("abort").await.is(200);
    turn("resume").await.refused(409, "conflict");
    let active = api.get("/rollouts?active=true").await.is(200).json();
    assert_eq!(active["total"], 0);
    let of_web = api.get("/rollouts?policy=web").await.is(200).json();
    assert_eq!(of_web["items"][0]["state"], "aborted");
    assert_eq!(of_web["items"][0]["events"].as_array().unwrap().len(), 4);

    // What was aborted comes with no other change, and by a word of its own.
    let problem = api
        .post("/policies/web/rules", rule("b"))
        .await
        .refused(409, "conflict");
    assert!(
        problem["mend"]
            .as_str()
            .unwrap()
            .contains("revert to version 2"),
        "{problem}"
    );
    let again = json!({ "policy": "web" });
    let started = api.post("/rollouts", again).await.is(201);
    let location = started.header("location").replace("/api/v1", "");
    assert_eq!(api.get(&location).await.is(200).json()["to"], 3);
    api.post(&format!("{location}/abort"), json!({}))
        .await
        .is(200);
    api.post("/policies/web/release", json!({})).await.is(200);
    let view = api.core.view();
    let node = view.nodes().keys().next().unwrap();
    assert_eq!(view.desired(node).unwrap().policies[0].1, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn r120_plans_are_kept_and_looked_at_before_they_are_used() {
    let api = fleet(10).await;
    let all = json!({ "reach": "all" });
    let plan = json!({ "stages": [{ "reach": { "count": 3 }, "bake_seconds": 60 }, { "reach": { "selector": "zone=a" } }, all] });
    let preview = api
        .post(
            "/rollouts/preview",
            json!({ "policy": "web", "plan": plan }),
        )
        .await
        .is(200)
        .json();
    let more: Vec<_> = preview
        .as_array()
        .unwrap()
        .iter()
        .map(|s| &s["more"])
        .collect();
    assert_eq!(more, [&json!(3), &json!(7), &json!(0)], "{preview}");

    api.put("/rollout-plans/slow", plan).await.is(200);
    let names = |plans: &Value| -> Vec<String> {
        let plans = plans.as_array().unwrap().iter();
        plans
            .map(|plan| plan["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let plans = api.get("/rollout-plans").await.is(200).json();
    assert_eq!(names(&plans), ["default", "slow"]);
    let wrong = json!({ "stages": [{ "reach": { "percent": 50 } }] });
    let problem = api.put("/rollout-plans/slow", wrong).await.is(422).json();
    assert_eq!(problem["field"], "stages[0].reach", "{problem}");
    let path = "/policies/web/rules?rollout=slow";
    api.post(path, rule("new")).await.is(201);
    let rollouts = api.get("/rollouts").await.is(200).json();
    let first = &rollouts["items"][0]["stages"][0];
    assert_eq!(first["bake_seconds"], 60);
    assert_eq!(first["reach"]["nodes"].as_array().unwrap().len(), 3);
    api.delete("/rollout-plans/slow").await.is(200);
    api.post("/policies/web/rules?rollout=slow", rule("x"))
        .await
        .is(409);
    api.get("/rollout-plans/slow").await.is(404);
}

/// Runs a command of the client as the administrator: exit code, what it prints, what it complains.
async fn client(api: &Api, args: &[&str]) -> (Option<i32>, String, String) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_xdpgate-controller"));
    command
        .args(args)
        .env(
            "XDPGATE_CONTROLLER_SERVER",
            format!("http://{}", api.address),
        )
        .env("XDPGATE_CONTROLLER_TOKEN", &api.admin)
        .env("XDG_CONFIG_HOME", "/nonexistent");
    let ran = tokio::task::spawn_blocking(move || command.output());
    let output = ran.await.unwrap().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_shows_pauses_resumes_aborts_and_releases() {
    let api = fleet(4).await;
    let ok = async |args: &[&str]| {
        let (code, out, error) = client(&api, args).await;
        assert_eq!(code, Some(0), "{args:?}: {out}{error}");
        out
    };
    let preview = ok(&["rollout", "start", "web", "--preview"]).await;
    assert!(preview.contains("percent=10"), "{preview}");
    let name = rolled_out(&api, "new").await;
    let list = ok(&["rollout", "list", "--active"]).await;
    assert!(list.contains(&name) && list.contains("running"), "{list}");
    assert_eq!(ok(&["rollout", "list", "--policy", "none"]).await, "none\n");

    ok(&["rollout", "pause", &name, "--why", "lunch"]).await;
    let shown = ok(&["rollout", "show", &name]).await;
    assert!(shown.contains("paused: stage 1 of 4"), "{shown}");
    assert!(
        shown.contains("lunch") && shown.contains("percent=50"),
        "{shown}"
    );
    ok(&["rollout", "resume", &name]).await;
    let rollout = api.get(&format!("/rollouts/{name}")).await.json();
    assert_eq!(rollout["state"], "running");

    // Who watches hears the end, and that it was not a good one.
    let watching = ["rollout", "watch", &name];
    let (watched, _) = tokio::join!(client(&api, &watching), async {
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        ok(&["rollout", "abort", &name, "--why", "errors"]).await
    });
    let (code, out, error) = watched;
    assert_eq!(code, Some(1), "{out}{error}");
    assert!(error.contains("aborted: errors"), "{error}");
    assert!(
        out.lines().last().unwrap().starts_with("aborted: "),
        "{out}"
    );

    // Its nodes have the former version until somebody says otherwise.
    let start = [
        "rollout", "start", "web", "--name", "again", "--why", "mended",
    ];
    assert_eq!(ok(&start).await, "rollout again: started\n");
    ok(&["rollout", "abort", "again"]).await;
    ok(&["rollout", "release", "web", "--why", "it was the network"]).await;
    let view = api.core.view();
    let mut versions = view
        .nodes()
        .keys()
        .map(|n| view.desired(n).unwrap().policies[0].1);
    assert!(versions.all(|version| version == 3));
    let (code, _, error) = client(&api, &["rollout", "show", "none"]).await;
    assert_eq!(code, Some(1), "{error}");
}
