//! Nodes: joining, registry, scope.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use xdpgate_controller::auth::AuthError;
use xdpgate_controller::auth::authority::identify;

use crate::server::{Api, join_request};

#[tokio::test(flavor = "multi_thread")]
async fn r81_a_rule_reaches_only_its_group() {
    let api = Api::start().await;
    let rule = json!({ "id": "r", "match": { "src": "203.0.113.7" }, "action": "drop" });
    api.post("/policies", json!({ "name": "edge", "rules": [rule] }))
        .await
        .is(201);
    let group = json!({ "name": "edge", "selector": "role=edge", "policies": ["edge"] });
    api.post("/groups", group).await.is(201);
    let (edge, _) = api.node(json!({ "role": "edge" })).await;
    let (core, _) = api.node(json!({ "role": "core" })).await;
    let packet = json!({ "src": "203.0.113.7", "dst": "192.0.2.1" });
    let judge = async |node: &str| {
        let said = api
            .post("/evaluate", json!({ "node": node, "packet": packet }))
            .await;
        said.is(200).json()["verdict"].as_str().unwrap().to_owned()
    };
    assert_eq!(
        (judge(&edge).await.as_str(), judge(&core).await.as_str()),
        ("drop", "pass")
    );
    let listed = api.get("/nodes?group=edge").await.is(200).json();
    assert_eq!(listed["total"], 1);
    assert_eq!(listed["items"][0]["id"], json!(edge));
    // A node that gets the label gets the rule.
    api.patch(
        &format!("/nodes/{core}"),
        json!({ "set_labels": { "role": "edge" } }),
    )
    .await
    .is(200);
    assert_eq!(judge(&core).await, "drop");
    assert_eq!(api.get("/groups/edge").await.json()["nodes"], 2);
    let policy = api
        .get(&format!("/nodes/{core}/policy"))
        .await
        .is(200)
        .json();
    assert_eq!(policy["rules"][0]["id"], "r");
    assert_eq!(
        api.get("/nodes?selector=role%3Dcore").await.json()["total"],
        0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn r86_nodes_come_change_and_go_at_run_time_with_ids_that_stay() {
    let api = Api::start().await;
    let (id, joined) = api.node(json!({ "env": "prod" })).await;
    assert_eq!(identify(&joined.certificate_chain[0]).unwrap().0, id);
    let path = format!("/nodes/{id}");
    let change = json!({ "name": "edge-1", "maintenance": true, "set_labels": { "rack": "7" } });
    let tag = api
        .patch(&path, change)
        .await
        .is(200)
        .header("etag")
        .to_owned();
    api.patch(&path, json!({ "set_labels": { "env": null } }))
        .await
        .is(200);
    let request = api
        .request(reqwest::Method::PATCH, &path)
        .bearer_auth(&api.admin);
    let stale = request
        .header("if-match", tag)
        .json(&json!({ "name": "other" }));
    api.send(stale).await.refused(412, "version_conflict");
    let before = api.get(&path).await.is(200).json();

    let api = api.restart().await;
    let node = api.get(&path).await.is(200).json();
    assert_eq!(node["name"], "edge-1");
    assert_eq!(
        (&node["maintenance"], &node["labels"]),
        (&json!(true), &json!({ "rack": "7" }))
    );
    for field in ["id", "version", "created", "groups"] {
        assert_eq!(node[field], before[field]);
    }
    let (_, serial) = identify(&joined.certificate_chain[0]).unwrap();
    api.joining.authorize(&id, &serial).unwrap();
    assert_eq!(api.get("/nodes?q=EDGE").await.json()["total"], 1);
    assert_eq!(api.get("/nodes?maintenance=false").await.json()["total"], 0);
    api.delete(&path).await.is(200);
    api.get(&path).await.refused(404, "not_found");
    assert!(
        api.joining.authorize(&id, &serial).is_err(),
        "its certificate is dead"
    );
    let actions = api.actions().await;
    for action in [
        "join_token.create",
        "join_token.use",
        "batch",
        "node.patch",
        "node.delete",
    ] {
        assert!(
            actions.iter().any(|a| a == action),
            "{action} in {actions:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_token_serves_once_also_for_two_at_once() {
    let api = Api::start().await;
    let made = api.post("/join-tokens", json!({})).await.is(201).json();
    let token = made["secret"].as_str().unwrap().to_owned();
    assert_eq!(token.split('.').count(), 4);
    assert_eq!(
        token.rsplit('.').next().unwrap(),
        api.joining.authority().fingerprint()
    );
    let join = async |token: &str, now: Timestamp| {
        api.joining
            .join(&join_request(token), "198.51.100.1", now)
            .await
    };
    let now = Timestamp::now();
    let late = join(&token, now + SignedDuration::from_hours(2)).await;
    assert!(matches!(late, Err(AuthError::Credentials(_))), "{late:?}");
    let mut wrong: Vec<&str> = token.split('.').collect();
    let swapped: String = wrong[2].chars().rev().collect();
    wrong[2] = &swapped;
    assert!(matches!(
        join(&wrong.join("."), now).await,
        Err(AuthError::Credentials(_))
    ));
    let answers = futures_util::future::join_all((0..8).map(|_| join(&token, now))).await;
    let (won, lost): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!((won.len(), lost.len()), (1, 7));
    assert!(
        lost.iter()
            .all(|l| matches!(l, Err(AuthError::Credentials(_)))),
        "{lost:?}"
    );
    assert!(join(&token, now).await.is_err(), "a replay");
    assert_eq!(api.get("/nodes").await.json()["total"], 1);

    // For several: exactly so many, whoever comes at once.
    let made = api
        .post("/join-tokens", json!({ "uses": 5 }))
        .await
        .is(201)
        .json();
    let token = made["secret"].as_str().unwrap().to_owned();
    let answers = futures_util::future::join_all((0..12).map(|_| join(&token, now))).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 5);
    assert_eq!(api.get("/nodes").await.json()["total"], 6);

    // A request that is no good costs no use.
    let made = api
        .post("/join-tokens", json!({ "allowed": ["env"] }))
        .await
        .is(201)
        .json();
    let token = made["secret"].as_str().unwrap().to_owned();
    let mut request = join_request(&token);
    request.labels.insert("role".into(), "edge".into());
    let refused = api.joining.join(&request, "x", now).await.unwrap_err();
    assert!(refused.to_string().starts_with("labels: "), "{refused}");
    request.labels.clear();
    request.csr.pop();
    assert!(
        api.joining
            .join(&request, "x", now)
            .await
            .unwrap_err()
            .to_string()
            .starts_with("csr: ")
    );
    join(&token, now).await.unwrap();

    let revoked = api.post("/join-tokens", json!({})).await.is(201).json();
    let path = format!("/join-tokens/{}", revoked["id"].as_str().unwrap());
    api.delete(&path).await.is(204);
    assert!(
        join(revoked["secret"].as_str().unwrap(), now)
            .await
            .is_err()
    );
    let wrong_group = api.post("/join-tokens", json!({ "group": "none" })).await;
    assert_eq!(wrong_group.refused(422, "invalid")["field"], "group");
}

#[tokio::test(flavor = "multi_thread")]
async fn revoked_and_renewed_certificates_are_told_apart() {
    let api = Api::start().await;
    let (id, joined) = api.node(json!({})).await;
    let (_, serial) = identify(&joined.certificate_chain[0]).unwrap();
    let now = Timestamp::now();
    let csr = join_request("").csr;
    let renewed = api.joining.renew(&id, &csr, "x", now).await.unwrap();
    let (same, newer) = identify(&renewed.certificate_chain[0]).unwrap();
    assert_eq!(same, id);
    assert_ne!(newer, serial);

    let mut views = api.core.watch();
    views.mark_unchanged();
    let path = format!("/nodes/{id}/revoke");
    api.post(&path, json!({ "serial": serial })).await.is(204);
    let revoked = async |serial: &str| {
        let dead = async {
            while api.joining.authorize(&id, serial).is_ok() {
                views.changed().await.unwrap();
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(10), dead)
            .await
            .expect("revoked");
    };
    let mut revoked = revoked;
    revoked(&serial).await;
    api.joining.authorize(&id, &newer).unwrap();
    api.post(&path, json!({})).await.is(204);
    revoked(&newer).await;
    api.by(&api.operator, reqwest::Method::POST, &path, json!({}))
        .await
        .refused(403, "forbidden");

    // A token made for it lets it back in, as who it was.
    let made = api
        .post("/join-tokens", json!({ "node": id }))
        .await
        .is(201)
        .json();
    let token = made["secret"].as_str().unwrap();
    let mut other = join_request(token);
    other.node_id = "n-aaaaaaaaaaaaaaaa".into();
    assert!(api.joining.join(&other, "x", now).await.is_err());
    let back = api
        .joining
        .join(&join_request(token), "x", now)
        .await
        .unwrap();
    assert_eq!(back.node_id, id);
    let (_, serial) = identify(&back.certificate_chain[0]).unwrap();
    api.joining.authorize(&id, &serial).unwrap();
    let mut revoked_again = api.joining.authorize(&id, &newer);
    for _ in 0..100 {
        if revoked_again.is_err() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        revoked_again = api.joining.authorize(&id, &newer);
    }
    assert!(revoked_again.is_err(), "the lost certificate stays dead");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_removed_does_not_hold_up_the_end_of_an_authority() {
    let api = Api::start().await;
    let (gone, _) = api.node(json!({})).await;
    api.post("/authority/rotate", json!({})).await.is(204);
    // One that has a certificate of the new one.
    let (stays, _) = api.node(json!({})).await;
    let now = Timestamp::now();
    api.joining.sweep(now).await.unwrap();
    let problem = api
        .post("/authority/retire", json!({}))
        .await
        .refused(409, "conflict");
    assert!(
        problem["detail"].as_str().unwrap().starts_with("1 nodes"),
        "{problem}"
    );
    api.delete(&format!("/nodes/{gone}")).await.is(200);
    api.joining.sweep(now).await.unwrap();
    api.post("/authority/retire", json!({})).await.is(204);
    // That of a member is still known.
    let key = xdpgate_controller::store::Key::new(format!("issued/{stays}"));
    let store = api.core.store();
    let kept = store.list("issued/", None, 10, None).await.unwrap();
    let keys: Vec<_> = kept.records.into_iter().map(|record| record.0).collect();
    assert_eq!(keys, [key.unwrap()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_of_nodes_that_are_not_here_is_said() {
    let api = Api::start().await;
    let (id, _) = api.node(json!({})).await;
    api.post(&format!("/nodes/{id}/sync"), Value::Null)
        .await
        .refused(409, "offline");
    api.get(&format!("/nodes/{id}/counters?rules=a"))
        .await
        .refused(409, "offline");
    api.get("/nodes/n-none/counters?rules=a")
        .await
        .refused(404, "not_found");
    assert_eq!(
        api.post("/sync", Value::Null).await.is(202).json()["nodes"],
        0
    );
    api.get("/changes/1?wait=99%25&timeout=1").await.is(200);
    assert_eq!(
        api.get("/changes/1?wait=199%25")
            .await
            .refused(422, "invalid")["field"],
        "wait"
    );
    api.get("/changes/one").await.refused(404, "not_found");
    api.put("/mode", json!({ "mode": "dry_run" })).await.is(200);
    assert_eq!(api.get("/mode").await.json()["mode"], "dry_run");
    assert_eq!(
        api.get(&format!("/nodes/{id}")).await.json()["desired"]["mode"],
        "dry_run"
    );
    assert_eq!(
        api.put("/mode", json!({})).await.refused(422, "invalid")["field"],
        "mode"
    );
    api.put("/mode", json!({ "mode": null })).await.is(200);
    assert_eq!(api.get("/mode").await.json()["mode"], Value::Null);
}
