//! Live events.

use std::time::Duration;

use futures_util::StreamExt as _;
use reqwest::Method;
use serde_json::{Value, json};
use xdpgate_controller::http::Options;

use crate::server::Api;

/// Reads events of a stream until one holds.
async fn until(response: reqwest::Response, holds: impl Fn(&str) -> bool) -> String {
    let mut stream = response.bytes_stream();
    let mut text = String::new();
    let read = async {
        while let Some(chunk) = stream.next().await {
            text.push_str(&String::from_utf8_lossy(&chunk.unwrap()));
            if holds(&text) {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(20), read).await;
    assert!(holds(&text), "{text}");
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_told_and_what_was_missed_is_sent_again() {
    let api = Api::start().await;
    let open = |last: Option<&str>| {
        let mut request = api.request(Method::GET, "/events").bearer_auth(&api.viewer);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        request.send()
    };
    let stream = open(None).await.unwrap();
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    let made = api
        .post("/policies", json!({ "name": "a" }))
        .await
        .is(201)
        .json();
    let revision = format!("\"revision\":{}", made["revision"]);
    let text = until(stream, |text| text.contains(&revision)).await;
    assert!(text.contains("event: change"), "{text}");
    let ids = |text: &str| -> Vec<String> {
        text.lines()
            .filter_map(|line| line.strip_prefix("id: "))
            .map(str::to_owned)
            .collect()
    };
    let last = ids(&text).pop().unwrap();

    let missed = api
        .post("/policies", json!({ "name": "b" }))
        .await
        .is(201)
        .json();
    let missed = format!("\"revision\":{}", missed["revision"]);
    let text = until(open(Some(&last)).await.unwrap(), |text| {
        text.contains(&missed)
    })
    .await;
    assert!(
        !text.contains("event: lost") && !ids(&text).contains(&last),
        "{text}"
    );
    until(open(Some("n-other.3")).await.unwrap(), |text| {
        text.contains("event: lost")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_bounded_and_places_come_back() {
    let options = Options {
        streams_per_user: 2,
        streams: 3,
        ..Options::default()
    };
    let api = Api::with(options).await;
    let open = |token: &str| {
        api.request(Method::GET, "/events")
            .bearer_auth(token)
            .send()
    };
    let first = open(&api.viewer).await.unwrap();
    let _second = open(&api.viewer).await.unwrap();
    assert_eq!(open(&api.viewer).await.unwrap().status(), 429);
    let _third = open(&api.operator).await.unwrap();
    assert_eq!(open(&api.admin).await.unwrap().status(), 429);
    drop(first);
    let again = async {
        let mut n = 0;
        while open(&api.admin).await.unwrap().status() != 200 {
            // The server learns of it when it writes.
            n += 1;
            api.post("/policies", json!({ "name": format!("p{n}") }))
                .await
                .is(201);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), again)
        .await
        .expect("the place comes back");
    api.by(&api.viewer, Method::GET, "/policies", Value::Null)
        .await
        .is(200);
}
