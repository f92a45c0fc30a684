//! Policies and rules.

use reqwest::Method;
use serde_json::{Value, json};

use crate::server::Api;

fn rule(id: &str) -> Value {
    json!({ "id": id, "match": { "src": "203.0.113.7" }, "action": "drop" })
}

async fn with_policy() -> Api {
    let api = Api::start().await;
    api.post("/policies", json!({ "name": "web" }))
        .await
        .is(201);
    api
}

#[tokio::test(flavor = "multi_thread")]
async fn r44_of_two_identical_creates_at_once_one_wins() {
    let api = with_policy().await;
    for round in 0..10 {
        let (policy, group) = (format!("p{round}"), format!("g{round}"));
        let bodies = [
            ("/policies", json!({ "name": policy })),
            ("/policies/web/rules", rule(&format!("r{round}"))),
            (
                "/sets",
                json!({ "name": policy, "entries": ["203.0.113.7"] }),
            ),
            ("/groups", json!({ "name": group, "selector": "" })),
        ];
        for (path, body) in bodies {
            let create = || api.post(path, body.clone());
            let (a, b) = tokio::join!(create(), create());
            let mut answers = [a, b];
            answers.sort_by_key(|answer| answer.status);
            let [won, lost] = answers;
            won.is(201);
            lost.refused(409, "already_exists");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r75_omitted_null_and_value_are_told_apart_in_every_field() {
    let api = with_policy().await;
    let path = "/policies/web/rules/r";
    // The field, two values, and what is there once it is cleared.
    let fields: Vec<(&str, Value, Value, Option<Value>)> = vec![
        ("name", json!("one"), json!("two"), None),
        ("comment", json!("why"), json!("because"), None),
        (
            "labels",
            json!({ "owner": "web" }),
            json!({ "owner": "db" }),
            None,
        ),
        (
            "expires",
            json!("2040-01-01T00:00:00Z"),
            json!("2041-01-01T00:00:00Z"),
            None,
        ),
        ("enabled", json!(false), json!(true), None),
        ("mode", json!("monitor"), json!("enforce"), None),
        ("interfaces", json!(["eth0"]), json!(["eth1", "wan*"]), None),
        (
            "match",
            json!({ "src": "203.0.113.9" }),
            json!({ "dst": "203.0.113.8" }),
            None,
        ),
        ("priority", json!(70), json!(80), Some(json!(10))),
    ];
    for (field, one, two, cleared) in fields {
        api.put(path, json!({ "id": "r", "action": "drop" }))
            .await
            .is(200);
        let get = async || api.get(path).await.is(200).json();
        api.patch(path, json!({ field: one })).await.is(200);
        let shown = get().await;
        let is = |shown: &Value, value: &Value| shown.get(field) == Some(value);
        let by_default = field == "enabled" || field == "mode";
        assert!(is(&shown, &one) || by_default, "{field}: {shown}");
        // Omitted: another field changes, this one stays.
        let other = if field == "comment" {
            "name"
        } else {
            "comment"
        };
        api.patch(path, json!({ other: "x" })).await.is(200);
        assert_eq!(get().await.get(field), shown.get(field), "{field} stays");
        api.patch(path, json!({ field: two })).await.is(200);
        let changed = get().await;
        assert_ne!(changed.get(field), shown.get(field), "{field} is another");
        api.patch(path, json!({ field: null })).await.is(200);
        let shown = get().await;
        assert_eq!(
            shown.get(field),
            cleared.as_ref(),
            "{field} is cleared: {shown}"
        );
        assert_eq!(shown[other], "x");
    }
    // What a rule cannot be without cannot be cleared, nor can the id change.
    api.patch(path, json!({ "action": null }))
        .await
        .refused(422, "invalid");
    api.patch(path, json!({ "id": "other" }))
        .await
        .refused(422, "invalid");
    let problem = api
        .patch(path, json!({ "colour": "red" }))
        .await
        .refused(422, "invalid");
    assert_eq!(problem["field"], "colour", "{problem}");

    // Settings of a policy likewise.
    let settings = async || api.get("/policies/web").await.json()["settings"].clone();
    let ssh = json!({ "ssh_from": ["192.0.2.0/24"] });
    let set = json!({ "default": "drop", "malformed": "drop", "failsafe": ssh, "comment": "c" });
    api.patch("/policies/web", set).await.is(200);
    api.patch("/policies/web", json!({ "malformed": null }))
        .await
        .is(200);
    let shown = settings().await;
    assert_eq!(
        (&shown["default"], shown.get("malformed")),
        (&json!("drop"), None),
        "{shown}"
    );
    assert_eq!(shown["failsafe"]["ssh_from"], json!(["192.0.2.0/24"]));
    api.patch(
        "/policies/web",
        json!({ "failsafe": null, "default": "pass" }),
    )
    .await
    .is(200);
    let shown = settings().await;
    assert_eq!(
        (&shown["default"], shown.get("failsafe")),
        (&json!("pass"), None),
        "{shown}"
    );
    let problem = api
        .patch("/policies/web", json!({ "defualt": "drop" }))
        .await
        .refused(422, "invalid");
    assert_eq!(problem["field"], "defualt");
}

#[tokio::test(flavor = "multi_thread")]
async fn r76_a_disabled_rule_is_on_no_node() {
    let api = with_policy().await;
    api.post("/policies/web/rules", rule("r")).await.is(201);
    api.post(
        "/groups",
        json!({ "name": "all", "selector": "", "policies": ["web"] }),
    )
    .await
    .is(201);
    let (node, _) = api.node(json!({})).await;
    let packet =
        json!({ "src": "203.0.113.7", "dst": "192.0.2.1", "protocol": "tcp", "dport": 80 });
    let judge = async |api: &Api| {
        let said = api
            .post("/evaluate", json!({ "node": node, "packet": packet }))
            .await;
        said.is(200).json()
    };
    assert_eq!(judge(&api).await["verdict"], "drop");
    let switch = |op: &str| json!({ "operations": [{ "op": op, "id": "r" }] });
    api.post("/policies/web/batch", switch("disable"))
        .await
        .is(200);
    let said = judge(&api).await;
    assert_eq!(
        (&said["verdict"], &said["rule"]),
        (&json!("pass"), &Value::Null)
    );
    assert_eq!(said["near"], json!([{ "rule": "r", "but_for": "enabled" }]));
    let api = api.restart().await;
    assert_eq!(judge(&api).await["verdict"], "pass");
    api.post("/policies/web/batch", switch("enable"))
        .await
        .is(200);
    assert_eq!(judge(&api).await["rule"], "r");
}

#[tokio::test(flavor = "multi_thread")]
async fn r78_name_source_and_comment_come_back_and_are_found() {
    let api = with_policy().await;
    for i in 0..30 {
        let mut body = rule(&format!("r{i:02}"));
        body["priority"] = json!(100 - i);
        body["name"] = json!(format!("Name {i}"));
        body["comment"] = json!(if i == 7 {
            "From the Resolvers' team"
        } else {
            "none"
        });
        body["labels"] = json!({ "source": if i % 2 == 0 { "feed" } else { "person" } });
        body["match"]["src"] = json!(format!("203.0.113.{i}"));
        api.post("/policies/web/rules", body.clone()).await.is(201);
        let shown = api
            .get(&format!("/policies/web/rules/r{i:02}"))
            .await
            .is(200)
            .json();
        for field in ["name", "comment", "labels", "priority"] {
            assert_eq!(shown[field], body[field]);
        }
    }
    let found = async |query: &str| -> Vec<String> {
        let page = api
            .get(&format!("/policies/web/rules?{query}"))
            .await
            .is(200)
            .json();
        let items = page["items"].as_array().unwrap();
        items
            .iter()
            .map(|item| item["id"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(found("q=resolvers").await, ["r07"]);
    assert_eq!(found("q=NAME+29").await, ["r29"]);
    assert_eq!(found("label=source%3Dperson").await.len(), 15);
    assert_eq!(found("q=source%3Dfeed&address=203.0.113.4").await, ["r04"]);
    assert_eq!(found("address=198.51.100.1").await.len(), 0);
    assert_eq!(found("action=pass").await.len(), 0);
    // Lower priorities first, in pages that fit together.
    let mut query = "limit=7".to_owned();
    let (mut all, mut pages) = (Vec::new(), 0);
    loop {
        let page = api
            .get(&format!("/policies/web/rules?{query}"))
            .await
            .is(200)
            .json();
        assert_eq!(page["total"], 30);
        all.extend(
            page["items"]
                .as_array()
                .unwrap()
                .iter()
                .map(|item| item["id"].clone()),
        );
        pages += 1;
        let Some(next) = page["next"].as_str() else {
            break;
        };
        query = format!("limit=7&cursor={next}");
    }
    let expected: Vec<Value> = (0..30).rev().map(|i| json!(format!("r{i:02}"))).collect();
    assert_eq!((all, pages), (expected, 5));
    assert_eq!(found("sort=-id&limit=2").await, ["r29", "r28"]);
    assert_eq!(
        api.get("/policies/web/rules?sort=colour")
            .await
            .refused(422, "invalid")["field"],
        "sort"
    );
    assert_eq!(
        api.get("/policies/web/rules?colour=red")
            .await
            .refused(400, "invalid")["field"],
        "colour"
    );
    let lookup = api.get("/lookup?address=203.0.113.4").await.is(200).json();
    assert_eq!(lookup["rules"][0]["rule"], "r04");
}

#[tokio::test(flavor = "multi_thread")]
async fn r79_a_batch_has_a_limit_and_says_what_became_of_each() {
    let api = with_policy().await;
    let create = |i: usize| {
        let mut body = rule(&format!("r{i}"));
        body["match"]["src"] = json!(format!("10.0.{}.{}", i / 250, i % 250));
        json!({ "op": "create", "rule": body })
    };
    let many: Vec<Value> = (0..1_001).map(create).collect();
    let problem = api
        .post("/policies/web/batch", json!({ "operations": many }))
        .await;
    let problem = problem.refused(413, "too_large");
    assert_eq!(problem["field"], "operations");
    assert!(
        problem["detail"].as_str().unwrap().contains("1000"),
        "{problem}"
    );
    let made = api
        .post(
            "/policies/web/batch",
            json!({ "operations": many[..1_000] }),
        )
        .await
        .is(200);
    assert_eq!(made.json()["effects"].as_array().unwrap().len(), 1_000);
    assert_eq!(api.get("/policies/web").await.json()["rules"], 1_000);

    // All or nothing, or each by itself.
    let mixed = json!([
        { "op": "delete", "id": "r0" },
        { "op": "create", "rule": rule("r1") },
        { "op": "create", "rule": { "id": "bad", "action": "drpo" } },
        { "op": "patch", "id": "r2", "patch": { "comment": "x" } },
    ]);
    let whole = api
        .post("/policies/web/batch", json!({ "operations": mixed }))
        .await;
    assert!(whole.status.is_client_error(), "{}", whole.text);
    assert_eq!(api.get("/policies/web").await.json()["rules"], 1_000);
    let partial = json!({ "operations": mixed, "partial": true });
    let answer = api
        .post("/policies/web/batch", partial)
        .await
        .is(207)
        .json();
    let effects = answer["effects"].as_array().unwrap();
    assert_eq!(effects.len(), 4);
    assert_eq!(effects[0]["effect"], "removed");
    assert_eq!(effects[1]["error"]["code"], "already_exists");
    assert_eq!(effects[2]["error"]["code"], "invalid");
    assert!(
        effects[2]["error"]["field"]
            .as_str()
            .unwrap()
            .starts_with("operations[2].rule"),
        "{answer}"
    );
    assert_eq!(effects[3]["effect"], "replaced");
    assert_eq!(
        api.get("/policies/web/rules/r2").await.json()["comment"],
        "x"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_guard_changes_and_idempotency_keys_make_them_once() {
    let api = with_policy().await;
    let first = api.post("/policies/web/rules", rule("r")).await.is(201);
    assert_eq!(first.header("location"), "/api/v1/policies/web/rules/r");
    let shown = api.get("/policies/web/rules/r").await.is(200);
    let tag = shown.header("etag").to_owned();
    let again = api
        .request(Method::GET, "/policies/web/rules/r")
        .bearer_auth(&api.admin);
    let again = api.send(again.header("if-none-match", &tag)).await.is(304);
    assert_eq!(again.text, "");
    let put = |tag: &str, comment: &str| {
        let mut body = rule("r");
        body["comment"] = json!(comment);
        let request = api
            .request(Method::PUT, "/policies/web/rules/r")
            .bearer_auth(&api.admin);
        request.header("if-match", tag.to_owned()).json(&body)
    };
    let second = api.send(put(&tag, "one")).await.is(200);
    let problem = api
        .send(put(&tag, "two"))
        .await
        .refused(412, "version_conflict");
    assert_eq!(format!("\"{}\"", problem["version"]), second.header("etag"));
    api.send(put("W/\"1\"", "two"))
        .await
        .refused(412, "version_conflict");
    let absent = api
        .request(Method::PUT, "/policies/web/rules/r")
        .bearer_auth(&api.admin);
    let absent = absent.header("if-none-match", "*").json(&rule("r"));
    api.send(absent).await.refused(412, "version_conflict");
    assert_eq!(
        api.get("/policies/web/rules/r").await.json()["comment"],
        "one"
    );

    let keyed = |body: Value| {
        let request = api
            .request(Method::POST, "/policies/web/rules")
            .bearer_auth(&api.admin);
        request.header("idempotency-key", "k1").json(&body)
    };
    let once = api.send(keyed(rule("s"))).await.is(201).json();
    let twice = api.send(keyed(rule("s"))).await.is(201).json();
    assert_eq!(
        (&once["repeated"], &twice["repeated"]),
        (&json!(false), &json!(true))
    );
    assert_eq!(once["revision"], twice["revision"]);
    api.send(keyed(rule("t"))).await.refused(409, "conflict");
    // Where the answer of the first cannot be told again, a key is refused.
    for path in ["/tokens", "/join-tokens", "/users"] {
        let body = json!({ "name": "x", "role": "viewer" });
        let body = if path == "/join-tokens" {
            json!({})
        } else {
            body
        };
        let request = api
            .request(Method::POST, path)
            .bearer_auth(&api.admin)
            .json(&body);
        api.send(request.header("idempotency-key", "k2"))
            .await
            .refused(400, "invalid");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_has_text_versions_a_diff_and_a_way_back() {
    let api = with_policy().await;
    let text = "version: 1\ndefault: drop\nfailsafe: { ssh_from: [\"192.0.2.0/24\"] }\nrules:\n  - { id: a, match: { dport: 53 }, action: pass }\n";
    let put = |text: &str, query: &str| {
        let request = api
            .request(Method::PUT, &format!("/policies/web{query}"))
            .bearer_auth(&api.admin);
        request
            .header("content-type", "application/yaml")
            .body(text.to_owned())
    };
    api.send(put(text, "?why=because")).await.is(200);
    let shown = api.get("/policies/web/text").await.is(200);
    assert!(
        shown.text.contains("default: drop\n") && shown.text.contains("192.0.2.0/24"),
        "{}",
        shown.text
    );
    let answer = api.send(put(&shown.text, "")).await.is(200).json();
    assert_eq!(
        answer["effects"][0]["effect"], "unchanged",
        "its own text changes nothing"
    );
    let problem = api
        .send(put("version: 1\nrules:\n  - { id: a, action: drpo }\n", ""))
        .await;
    let problem = problem.refused(422, "invalid");
    assert!(
        problem["field"].as_str().unwrap().contains("action"),
        "{problem}"
    );

    api.post("/policies/web/rules", rule("b")).await.is(201);
    let versions = api.get("/policies/web/versions").await.is(200).json();
    assert_eq!(versions["items"][1]["why"], "because", "{versions}");
    let last = api.get("/policies/web").await.json()["version"]
        .as_u64()
        .unwrap();
    let diff = api
        .get(&format!("/policies/web/diff?from={}&to={last}", last - 1))
        .await
        .is(200)
        .json();
    assert_eq!(diff["added"], json!(["b"]));
    assert!(diff["text"].as_str().unwrap().contains("rule b added"));
    let blame = api.get("/policies/web/rules/b/blame").await.is(200).json();
    assert_eq!(blame["version"], last);
    api.post("/policies/web/revert", json!({ "version": last - 1 }))
        .await
        .is(200);
    api.get("/policies/web/rules/b")
        .await
        .refused(404, "not_found");

    api.post(
        "/groups",
        json!({ "name": "all", "selector": "", "policies": ["web"] }),
    )
    .await
    .is(201);
    api.node(json!({})).await;
    let plan = api
        .request(Method::POST, "/policies/web/plan")
        .bearer_auth(&api.viewer);
    let plan = plan
        .header("content-type", "application/yaml")
        .body("version: 1\n");
    let plan = api.send(plan).await.is(200).json();
    assert_eq!(plan["plans"][0]["nodes"], 1, "{plan}");
    assert!(
        plan["plans"][0]["text"].as_str().unwrap().contains('a'),
        "{plan}"
    );
    api.get("/policies/web/rules/a").await.is(200);
    api.delete("/policies/web").await.refused(409, "in_use");
    api.delete("/groups/all").await.is(200);
    api.delete("/policies/web").await.is(200);
    api.get("/policies/web").await.refused(404, "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_named_with_its_field() {
    let api = with_policy().await;
    let cases = [
        (
            json!({ "id": "r", "action": "drop", "colour": 1 }),
            "colour",
        ),
        (
            json!({ "id": "r", "action": "drop", "match": { "dport": 70_000 } }),
            "match.dport",
        ),
        (
            json!({ "id": "r", "action": "drop", "match": { "src": "203.0.113.7/24" } }),
            "match.src",
        ),
        (json!({ "id": "r", "action": "drop", "name": null }), "name"),
    ];
    for (body, field) in cases {
        let problem = api
            .post("/policies/web/rules", body)
            .await
            .refused(422, "invalid");
        assert_eq!(problem["field"], field, "{problem}");
    }
    let unknown = json!({ "id": "r", "action": "drop", "match": { "src": "@nothing" } });
    let problem = api.post("/policies/web/rules", unknown).await;
    assert!(
        problem.status.is_client_error() && problem.text.contains("nothing"),
        "{}",
        problem.text
    );
    let problem = api
        .post("/policies", json!({ "name": "x", "colour": 1 }))
        .await
        .refused(422, "invalid");
    assert_eq!(problem["field"], "colour");
    let problem = api
        .post("/policies", json!({}))
        .await
        .refused(422, "invalid");
    assert_eq!(problem["field"], "name");
    api.get("/policies/no%20name")
        .await
        .refused(404, "not_found");
    api.post("/policies?dry_rnu=true", json!({ "name": "x" }))
        .await
        .refused(400, "invalid");
    let put = api
        .put(
            "/policies/web/rules/r",
            json!({ "id": "s", "action": "drop" }),
        )
        .await;
    assert_eq!(put.refused(422, "invalid")["field"], "id");
}

#[tokio::test(flavor = "multi_thread")]
async fn packets_are_judged_by_fields_and_by_frames() {
    let api = with_policy().await;
    let body = json!({ "id": "dns", "match": { "src": "203.0.113.0/24", "protocol": "udp", "dport": 53 }, "action": "drop" });
    api.post("/policies/web/rules", body).await.is(201);
    let packet = |dport: u16| json!({ "src": "203.0.113.9", "dst": "192.0.2.1", "protocol": "udp", "sport": 999, "dport": dport });
    let ask = async |question: Value| api.post("/evaluate", question).await;
    let said = ask(json!({ "policy": "web", "packet": packet(53) }))
        .await
        .is(200)
        .json();
    assert_eq!(
        (&said["verdict"], &said["rule"], &said["reason"]),
        (&json!("drop"), &json!("dns"), &json!("rule"))
    );
    let said = ask(json!({ "policy": "web", "packet": packet(54) }))
        .await
        .is(200)
        .json();
    assert_eq!(said["verdict"], "pass");
    assert_eq!(said["near"], json!([{ "rule": "dns", "but_for": "dport" }]));
    let frame =
        "020000000002 020000000001 0800 4500001c0000000040110000cb007109c0000201 03e7003500080000";
    let said = ask(json!({ "policy": "web", "frame": frame }))
        .await
        .is(200)
        .json();
    assert_eq!(said["rule"], "dns", "{said}");
    for wrong in [
        json!({ "policy": "web" }),
        json!({ "policy": "web", "frame": "0g" }),
        json!({ "packet": packet(53) }),
        json!({ "policy": "web", "packet": { "src": "203.0.113.9", "dst": "::1" } }),
    ] {
        ask(wrong).await.refused(422, "invalid");
    }
    ask(json!({ "policy": "nothing", "packet": packet(53) }))
        .await
        .refused(404, "not_found");
}
