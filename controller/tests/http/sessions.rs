//! Sessions one by one, and feeds in the stream of events.

use std::time::Duration;

use futures_util::StreamExt as _;
use reqwest::Method;
use serde_json::{Value, json};

use crate::server::Api;

#[tokio::test(flavor = "multi_thread")]
async fn r90_sessions_are_listed_and_ended_one_by_one() {
    let api = Api::start().await;
    let (first, second) = (api.session("vera").await, api.session("vera").await);
    let other = api.session("oscar").await;
    let own = api
        .within(&first, Method::GET, "/sessions", Value::Null)
        .await;
    let own = own.is(200).json();
    let own = own.as_array().unwrap();
    assert_eq!(own.len(), 2, "{own:?}");
    assert_eq!(
        (&own[0]["current"], &own[1]["current"]),
        (&json!(false), &json!(true))
    );
    assert_eq!(own[0]["address"], "127.0.0.1");
    let of_second = own[0]["id"].as_str().unwrap();
    // What is shown is no cookie.
    assert!(!second.cookie.contains(of_second));

    // Not another user's, and not without the token against forgery.
    let path = format!("/sessions/{of_second}");
    let refused = api.within(&other, Method::DELETE, &path, Value::Null).await;
    refused.refused(404, "not_found");
    let request = api
        .request(Method::DELETE, &path)
        .header("cookie", &first.cookie);
    api.send(request).await.refused(403, "csrf");
    api.within(&first, Method::DELETE, &path, Value::Null)
        .await
        .is(204);
    api.within(&second, Method::GET, "/session", Value::Null)
        .await
        .is(401);
    api.within(&first, Method::GET, "/session", Value::Null)
        .await
        .is(200);
    api.within(&first, Method::DELETE, &path, Value::Null)
        .await
        .is(404);

    // An admin sees and ends those of any user; nobody else does.
    let vera = api.get("/users/vera/sessions").await.is(200).json();
    assert_eq!(vera.as_array().unwrap().len(), 1, "{vera}");
    let listed = api
        .within(&other, Method::GET, "/users/vera/sessions", Value::Null)
        .await;
    listed.refused(403, "forbidden");
    let path = format!("/sessions/{}", vera[0]["id"].as_str().unwrap());
    api.delete(&path).await.is(204);
    api.within(&first, Method::GET, "/session", Value::Null)
        .await
        .is(401);
    assert_eq!(
        api.actions()
            .await
            .iter()
            .filter(|a| *a == "session.end")
            .count(),
        2
    );
    api.delete("/sessions/x%2Fy").await.is(404);
}

#[tokio::test(flavor = "multi_thread")]
async fn news_of_feeds_are_among_the_events() {
    let api = Api::start().await;
    let events = api.request(Method::GET, "/events").bearer_auth(&api.viewer);
    let events = events.send().await.unwrap();
    let feed = json!({
        "name": "bad",
        "content": { "source": { "kind": "url", "urls": ["https://lists.invalid/a"] }, "every": 600 },
    });
    let made = api.post("/feeds", feed).await;
    assert!(made.status.is_success(), "{}", made.text);
    // There is no such server: it fails, and says so.
    let running = tokio::spawn(api.feeds.clone().run());
    api.post("/feeds/bad/run", Value::Null).await.is(202);
    let mut stream = events.bytes_stream();
    let mut text = String::new();
    let read = async {
        while !text.contains("event: feed") {
            let bytes = stream.next().await.unwrap().unwrap();
            text.push_str(&String::from_utf8_lossy(&bytes));
        }
    };
    let read = tokio::time::timeout(Duration::from_secs(30), read).await;
    running.abort();
    assert!(read.is_ok(), "{text}");
    assert!(text.contains("\"what\":\"failed\""), "{text}");
}
