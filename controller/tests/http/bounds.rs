//! What one client may take: time, bytes, places.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use xdpgate_controller::http::Options;

use crate::server::Api;

/// What comes back until the connection ends, and after how long it did.
async fn until_closed(mut stream: TcpStream) -> (String, Duration) {
    let begin = Instant::now();
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut bytes)).await;
    let _ = read.expect("the connection ends");
    (
        String::from_utf8_lossy(&bytes).into_owned(),
        begin.elapsed(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_that_do_not_come_end_and_hold_nobody_up() {
    let options = Options {
        header_within: Duration::from_secs(1),
        ..Options::default()
    };
    let api = Api::with(options).await;
    let mut slow = Vec::new();
    for i in 0..100 {
        let mut stream = TcpStream::connect(api.address).await.unwrap();
        if i % 2 == 0 {
            stream
                .write_all(b"GET /api/v1/health HTTP/1.1\r\nhost: x\r\nx-a: ")
                .await
                .unwrap();
        }
        slow.push(stream);
    }
    api.get("/health").await.is(200);
    for stream in slow {
        let (_, took) = until_closed(stream).await;
        assert!(took < Duration::from_secs(30), "{took:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_has_so_many_connections_and_no_more() {
    let options = Options {
        connections_per_client: 8,
        ..Options::default()
    };
    let api = Api::with(options).await;
    let mut held = Vec::new();
    for _ in 0..8 {
        held.push(TcpStream::connect(api.address).await.unwrap());
    }
    // Accepted in order: the ninth is closed at once.
    let ninth = TcpStream::connect(api.address).await.unwrap();
    let (text, _) = until_closed(ninth).await;
    assert_eq!(text, "");
    drop(held);
    let again = async {
        while api.request(Method::GET, "/health").send().await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), again)
        .await
        .expect("places come back");
}

#[tokio::test(flavor = "multi_thread")]
async fn r79_bodies_that_are_too_large_are_refused_before_they_are_read() {
    let api = Api::start().await;
    api.post("/policies", json!({ "name": "web" }))
        .await
        .is(201);
    // By what it says it has, without sending it.
    let mut stream = TcpStream::connect(api.address).await.unwrap();
    let head = format!(
        "POST /api/v1/policies HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
         content-length: 99999999999\r\nconnection: close\r\n\r\n",
        api.admin
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let (text, _) = until_closed(stream).await;
    assert!(text.starts_with("HTTP/1.1 413"), "{text}");
    assert!(text.contains("\"code\":\"too_large\""), "{text}");

    // By what it sends, without saying how much it is.
    let chunk = bytes::Bytes::from(vec![b' '; 64 << 10]);
    let endless =
        futures_util::stream::iter((0..1_000).map(move |_| Ok::<_, std::io::Error>(chunk.clone())));
    let request = api
        .request(Method::POST, "/policies/web/rules")
        .bearer_auth(&api.admin);
    let request = request.header("content-type", "application/json");
    let sent = request
        .body(reqwest::Body::wrap_stream(endless))
        .send()
        .await;
    // The answer may be lost behind what is still being sent.
    if let Ok(answer) = sent {
        assert_eq!(answer.status(), 413);
    }
    api.get("/policies/web").await.is(200);

    let head = format!("/policies?q={}", "x".repeat(60_000));
    let refused = api
        .request(Method::GET, &head)
        .bearer_auth(&api.admin)
        .send()
        .await;
    assert!(refused.is_err() || refused.unwrap().status().as_u16() >= 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn deep_json_is_refused_and_nothing_falls_over() {
    let api = Api::start().await;
    api.post("/policies", json!({ "name": "web" }))
        .await
        .is(201);
    let bodies = [
        ("[".repeat(500_000), 422),
        ("{\"a\":".repeat(100_000), 400),
        ("\"".to_owned(), 400),
        (String::new(), 400),
    ];
    for (body, status) in bodies {
        let request = api
            .request(Method::POST, "/policies/web/rules")
            .bearer_auth(&api.admin);
        let request = request
            .header("content-type", "application/json")
            .body(body);
        api.send(request).await.refused(status, "invalid");
    }
    let yaml = format!("a: {}", "[".repeat(100_000));
    let request = api
        .request(Method::PUT, "/policies/web")
        .bearer_auth(&api.admin);
    let request = request
        .header("content-type", "application/yaml")
        .body(yaml);
    api.send(request).await.refused(422, "invalid");
    api.get("/health").await.is(200);
}
