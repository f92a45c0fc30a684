//! Feeds over the API. What they bring is tested elsewhere; nothing runs them here.

use reqwest::Method;
use serde_json::{Value, json};

use super::server::Api;

#[tokio::test(flavor = "multi_thread")]
async fn r117_feeds_are_made_seen_and_deleted() {
    let api = Api::start().await;
    let content =
        json!({"source": {"kind": "url", "urls": ["https://lists.example/a"]}, "every": 600});
    let new = json!({"name": "bad", "content": content});
    // Where the controller goes is for admins to say.
    let refused = api
        .by(&api.operator, Method::POST, "/feeds", new.clone())
        .await;
    refused.refused(403, "forbidden");
    let made = api.post("/feeds", new.clone()).await.is(201);
    assert_eq!(made.header("location"), "/api/v1/feeds/bad");
    assert_eq!(made.header("etag"), "\"1\"");
    api.post("/feeds", new).await.is(409);

    let seen = api
        .by(&api.viewer, Method::GET, "/feeds/bad", Value::Null)
        .await
        .is(200)
        .json();
    assert_eq!(
        (&seen["health"], &seen["content"]["every"]),
        (&json!("new"), &json!(600))
    );
    assert_eq!(
        api.get("/feeds").await.is(200).json()["items"]
            .as_array()
            .unwrap()
            .len(),
        1
    );

    let mut unknown = content.clone();
    unknown["evry"] = json!(60);
    let problem = api.put("/feeds/bad", unknown).await.refused(422, "invalid");
    assert_eq!(problem["field"], "evry");
    let inside = json!({"source": {"kind": "url", "urls": ["https://169.254.169.254/latest"]}});
    let problem = api.put("/feeds/bad", inside).await;
    assert!(problem.text.contains("source.urls[0]"), "{}", problem.text);
    assert!(problem.status.is_client_error(), "{}", problem.text);
    let stale = api
        .request(Method::PUT, "/feeds/bad")
        .bearer_auth(&api.admin)
        .header("if-match", "\"7\"");
    let stale = api.send(stale.json(&content)).await;
    assert!(stale.status.is_client_error(), "{}", stale.text);

    api.by(&api.operator, Method::POST, "/feeds/bad/run", Value::Null)
        .await
        .is(202);
    let nothing = api
        .by(&api.operator, Method::POST, "/feeds/bad/accept", json!({}))
        .await;
    assert!(
        nothing.text.contains("nothing that it brought was refused"),
        "{}",
        nothing.text
    );
    api.delete("/feeds/bad").await.is(204);
    api.get("/feeds/bad").await.refused(404, "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn r118_an_address_names_its_country_and_sets() {
    let api = Api::start().await;
    for (set, entry) in [("country-de", "203.0.113.0/24"), ("bad", "203.0.113.7")] {
        let new = json!({"name": set, "entries": [{"address": entry}]});
        api.post("/sets", new).await.is(201);
    }
    let found = api.get("/lookup?address=203.0.113.7").await.is(200).json();
    assert_eq!(found["countries"], json!(["de"]));
    assert_eq!(found["sets"].as_array().unwrap().len(), 2, "{found}");
    assert_eq!(
        api.get("/lookup?address=192.0.2.1").await.json()["countries"],
        json!([])
    );
}
