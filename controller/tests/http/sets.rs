//! Address sets and their import.

use reqwest::Method;
use serde_json::{Value, json};

use crate::server::{Answer, Api};

async fn import(api: &Api, path: &str, kind: &str, body: String) -> Answer {
    let request = api.request(Method::PUT, path).bearer_auth(&api.admin);
    api.send(request.header("content-type", kind).body(body))
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn r79_many_entries_come_as_a_stream_and_a_bad_line_changes_nothing() {
    let api = Api::start().await;
    api.post("/sets", json!({ "name": "bad", "default_expiry": null }))
        .await
        .is(201);
    let too_many: Vec<String> = (0..10_001u32)
        .map(|i| std::net::Ipv4Addr::from(i).to_string())
        .collect();
    let problem = api
        .post("/sets/bad/entries", json!({ "entries": too_many }))
        .await;
    let problem = problem.refused(413, "too_large");
    assert!(
        problem["mend"].as_str().unwrap().contains("PUT"),
        "{problem}"
    );

    let mut text = String::from("# a list\n\n");
    for i in 0..200_000u32 {
        text.push_str(&format!("{}\n", std::net::Ipv4Addr::from(0x0a00_0000 + i)));
    }
    text.push_str("2001:db8::/32 2040-01-01T00:00:00Z # with its end");
    import(&api, "/sets/bad/entries", "text/plain", text)
        .await
        .is(200);
    let set = api.get("/sets/bad").await.is(200).json();
    assert_eq!(set["entries"], 200_001);
    let found = api
        .get("/sets/bad/entries?address=2001:db8::7")
        .await
        .is(200)
        .json();
    assert_eq!(
        found["items"],
        json!([{ "address": "2001:db8::/32", "expires": "2040-01-01T00:00:00Z" }])
    );

    let lines = "{\"address\":\"203.0.113.7\"}\n{\"address\":\"203.0.113.8\",\"expires\":\"2040-01-01T00:00:00Z\"}\n";
    let kind = "application/x-ndjson";
    import(&api, "/sets/bad/entries?mode=add", kind, lines.to_owned())
        .await
        .is(200);
    assert_eq!(api.get("/sets/bad").await.json()["entries"], 200_003);
    for (kind, body, line) in [
        ("text/plain", "203.0.113.9\n203.0.113.300\n", "line 2"),
        ("text/plain", "203.0.113.9 tomorrow\n", "line 1"),
        (
            "application/x-ndjson",
            "{\"address\":\"203.0.113.9\"}\n{\"adress\":\"203.0.113.9\"}\n",
            "line 2.adress",
        ),
    ] {
        let problem = import(&api, "/sets/bad/entries", kind, body.to_owned()).await;
        assert_eq!(problem.refused(422, "invalid")["field"], line);
    }
    let endless = import(&api, "/sets/bad/entries", "text/plain", "x".repeat(100_000)).await;
    endless.refused(422, "invalid");
    assert_eq!(api.get("/sets/bad").await.json()["entries"], 200_003);
    import(
        &api,
        "/sets/bad/entries",
        "text/plain",
        "203.0.113.9\n".to_owned(),
    )
    .await
    .is(200);
    assert_eq!(api.get("/sets/bad").await.json()["entries"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn sets_are_made_changed_paged_and_kept_while_they_are_named() {
    let api = Api::start().await;
    let entries: Vec<String> = (0..250).map(|i| format!("203.0.113.{i}")).collect();
    api.post(
        "/sets",
        json!({ "name": "bad", "entries": entries, "comment": "c" }),
    )
    .await
    .is(201);
    let mut seen = Vec::new();
    let mut query = "limit=100".to_owned();
    loop {
        let page = api
            .get(&format!("/sets/bad/entries?{query}"))
            .await
            .is(200)
            .json();
        assert_eq!(page["total"], 250 - u64::from(!seen.is_empty()));
        seen.extend(
            page["items"]
                .as_array()
                .unwrap()
                .iter()
                .map(|e| e["address"].as_str().unwrap().to_owned()),
        );
        let Some(next) = page["next"].as_str() else {
            break;
        };
        query = format!("limit=100&cursor={next}");
        // One that was shown goes: nothing is left out for that.
        let gone = json!({ "entries": ["203.0.113.5"] });
        api.post("/sets/bad/entries/remove", gone).await.is(200);
    }
    assert_eq!(seen, entries);

    api.patch(
        "/sets/bad",
        json!({ "default_expiry": 3_600, "counters": "entry" }),
    )
    .await
    .is(200);
    api.post("/sets/bad/entries", json!({ "entries": ["198.51.100.1"] }))
        .await
        .is(200);
    let page = api
        .get("/sets/bad/entries?address=198.51.100.1")
        .await
        .is(200)
        .json();
    assert!(page["items"][0]["expires"].is_string(), "{page}");
    api.patch("/sets/bad", json!({ "default_expiry": null }))
        .await
        .is(200);
    let set = api.get("/sets/bad").await.is(200).json();
    assert_eq!(
        (&set["default_expiry"], &set["comment"]),
        (&Value::Null, &json!("c"))
    );
    assert_eq!(set["counters"], "entry");

    let rules = json!([{ "id": "r", "match": { "src": "@bad" }, "action": "drop" }]);
    api.post("/policies", json!({ "name": "web", "rules": rules }))
        .await
        .is(201);
    assert_eq!(
        api.get("/sets/bad").await.json()["used_by"],
        json!(["web/r"])
    );
    let problem = api.delete("/sets/bad").await.refused(409, "in_use");
    assert!(
        problem["detail"].as_str().unwrap().contains('r'),
        "{problem}"
    );
    let lookup = api.get("/lookup?address=203.0.113.7").await.is(200).json();
    assert_eq!(lookup["sets"][0]["set"], "bad");
    assert_eq!(lookup["rules"][0]["by"], "@bad");

    let versions = api.get("/sets/bad/versions?limit=1").await.is(200).json();
    let last = versions["items"][0]["version"].as_u64().unwrap();
    assert!(versions["next"].is_string());
    let diff = api
        .get(&format!("/sets/bad/diff?from=1&to={last}"))
        .await
        .is(200)
        .json();
    assert_eq!(
        (&diff["added_count"], &diff["removed_count"]),
        (&json!(1), &json!(1)),
        "{diff}"
    );
    api.post("/sets/bad/revert", json!({ "version": 1 }))
        .await
        .is(200);
    assert_eq!(api.get("/sets/bad").await.json()["entries"], 250);
    api.delete("/policies/web").await.is(200);
    api.delete("/sets/bad").await.is(200);
    api.get("/sets/bad").await.refused(404, "not_found");
}
