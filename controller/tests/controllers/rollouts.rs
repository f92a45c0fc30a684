//! A rollout goes on when the controller that takes it further dies.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::common::controllers::{Controllers, node};

const NODES: usize = 12;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r121_a_rollout_goes_on_when_controllers_die() {
    let Some(controllers) = Controllers::start(3, 1, NODES).await else {
        return;
    };
    let crowd = controllers.crowd(NODES);
    let applied = async |member, many| {
        let stats = controllers.get(member, "/stats").await?;
        (stats["applied"] == many && stats["online"] == many).then_some(())
    };
    controllers
        .until(
            "all have the first version",
            Duration::from_secs(60),
            async || applied(0, NODES).await,
        )
        .await;
    // Rollouts that began before a controller did wait for its nodes for a minute: this one begins after all of them.
    tokio::time::sleep(Duration::from_secs(6)).await;
    let rule = json!({ "id": "new", "match": { "src": "203.0.113.1" }, "action": "drop" });
    let stage = |reach: Value, bake: u32| json!({ "reach": reach, "bake_seconds": bake });
    let plan = json!({ "stages": [
        stage(json!({ "count": 2 }), 3), stage(json!({ "percent": 50 }), 3), stage(json!("all"), 0),
    ] });
    let put = controllers
        .send(0, Method::PUT, "/rollout-plans/quick", Some(&plan), None)
        .await;
    let (status, answer) = put.expect("an answer");
    assert!(status.is_success(), "{answer}");
    let path = "/policies/web/rules?rollout=quick";
    let made = controllers
        .send(0, Method::POST, path, Some(&rule), None)
        .await;
    let (status, made) = made.expect("an answer");
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let object = made["effects"][1]["object"]
        .as_str()
        .expect("a rollout")
        .to_owned();
    let path = format!("/{}", object.replacen("rollout/", "rollouts/", 1));

    // One is killed in the first stage, and one comes back in the second.
    controllers.members[0].kill();
    let began = Instant::now();
    let stage_of = async |member| {
        let rollout = controllers.get(member, &path).await?;
        assert_ne!(rollout["state"], "rolled_back", "{rollout}");
        Some((
            rollout["stage"].as_u64()?,
            rollout["state"].as_str()?.to_owned(),
        ))
    };
    controllers
        .until("the second stage", Duration::from_secs(90), async || {
            stage_of(1).await.filter(|(stage, _)| *stage >= 1)
        })
        .await;
    controllers.members[0].start();
    let is_done = |(_, state): &(u64, String)| state == "done";
    controllers
        .until("the end", Duration::from_secs(90), async || {
            stage_of(2).await.filter(is_done)
        })
        .await;
    println!("done {:?} after the kill", began.elapsed());
    let wanted = controllers
        .core
        .view()
        .desired(&node(0))
        .expect("a state")
        .hash;
    for seen in &crowd.seen {
        let mut seen = seen.clone();
        let has = seen.wait_for(|seen| seen.hash == Some(wanted));
        let has = tokio::time::timeout(Duration::from_secs(20), has).await;
        assert!(has.is_ok(), "a node has not the new version");
    }
    // No step was made twice, and no node was taken for lost.
    let rollout = controllers.get(1, &path).await.expect("the rollout");
    let events = rollout["events"].as_array().expect("events");
    let events: Vec<_> = events
        .iter()
        .map(|event| event["what"].as_str().unwrap_or(""))
        .collect();
    assert_eq!(
        events,
        ["started", "advanced", "advanced", "finished"],
        "{rollout}"
    );
}
