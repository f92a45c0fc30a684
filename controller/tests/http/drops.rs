//! Sampled drops of a node that is connected: live, and as a file.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use reqwest::Method;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Endpoint;
use xdpgate_api::v1::{Disposition, Event, WatchEventsResponse};
use xdpgate_controller::domain::Name;
use xdpgate_controller::fleet::testing::{ByHeader, Node, Order, Running, Shared};
use xdpgate_controller::fleet::{FleetService, server};

use crate::server::Api;

/// A node that is connected, and its id.
async fn connected(api: &Api) -> (Running, String) {
    let members = Arc::new(api.joining.clone());
    let service = FleetService::new(api.fleet.clone(), Arc::new(ByHeader), members);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = TcpListenerStream::new(listener);
    tokio::spawn(server().add_service(service).serve_with_incoming(incoming));
    let endpoint = Endpoint::new(format!("http://{address}")).unwrap();
    let (id, _) = api.node(json!({})).await;
    let node = Node::new(Name::new(id.clone()).unwrap(), &Arc::new(Shared::default()));
    let running = node.start(endpoint.connect().await.unwrap());
    running
        .until("the session", |seen| seen.hash.is_some())
        .await;
    (running, id)
}

fn dropped(reason: &str, rule: Option<&str>, source: &str) -> Event {
    Event {
        time: Some(prost_types::Timestamp {
            seconds: 1_800_000_000,
            nanos: 5,
        }),
        ifindex: 3,
        interface: "eth0".to_owned(),
        disposition: Disposition::Drop.into(),
        reason: reason.to_owned(),
        rule: rule.map(str::to_owned),
        generation: 7,
        length: 1_000,
        data: vec![0xab; 128],
        source: source.to_owned(),
        ..Event::default()
    }
}

fn sampled(lost: u64) -> Order {
    Order::Events(WatchEventsResponse {
        events: vec![
            dropped("rule", Some("block-bad"), "203.0.113.7"),
            dropped("malformed", None, "203.0.113.8"),
        ],
        lost,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn drops_are_seen_as_they_are_sampled_and_who_misses_some_is_told() {
    let api = Api::start().await;
    let (node, id) = connected(&api).await;
    let path = format!("/drops?nodes={id}&reason=rule");
    let answer = api
        .request(Method::GET, &path)
        .bearer_auth(&api.viewer)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let mut stream = answer.bytes_stream();
    let mut text = String::new();
    let read = async {
        let mut told = tokio::time::interval(Duration::from_millis(50));
        while !text.contains("event: lost") {
            tokio::select! {
                bytes = stream.next() => text += &String::from_utf8_lossy(&bytes.unwrap().unwrap()),
                // The question has come at some time.
                _ = told.tick() => node.tell(sampled(4)).await,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), read)
        .await
        .expect("drops come");
    let line = text
        .lines()
        .find(|line| line.starts_with("data: "))
        .unwrap();
    let first: serde_json::Value = serde_json::from_str(&line["data: ".len()..]).unwrap();
    assert_eq!(
        (&first["node"], &first["rule"]),
        (&json!(id), &json!("block-bad")),
        "{first}"
    );
    assert_eq!(first["disposition"], "drop", "{first}");
    assert_eq!(first["source"], "203.0.113.7");
    assert!(!text.contains("malformed"), "the filter holds: {text}");
    assert!(
        text.contains(&format!("{{\"node\":\"{id}\",\"events\":4}}")),
        "{text}"
    );

    for (path, status, code) in [
        ("/drops?nodes=nobody", 404, "not_found"),
        ("/drops?nodes=", 422, "invalid"),
        (
            &format!("/drops?nodes={id}&per_second=1001"),
            422,
            "invalid",
        ),
    ] {
        api.get(path).await.refused(status, code);
    }
    let many: Vec<String> = (0..33).map(|i| format!("n-{i}")).collect();
    let path = format!("/drops?nodes={}", many.join(","));
    api.get(&path).await.refused(422, "invalid");
    let (offline, _) = api.node(json!({})).await;
    api.get(&format!("/drops?nodes={offline}"))
        .await
        .refused(409, "offline");
}

#[tokio::test(flavor = "multi_thread")]
async fn drops_are_a_file_for_wireshark() {
    let api = Api::start().await;
    let (node, id) = connected(&api).await;
    let path = format!("/nodes/{id}/drops.pcapng?frames=5&seconds=30&reason=rule");
    let request = api.request(Method::GET, &path).bearer_auth(&api.viewer);
    let mut file =
        tokio::spawn(async move { request.send().await.unwrap().bytes().await.unwrap() });
    let mut told = tokio::time::interval(Duration::from_millis(50));
    let file = loop {
        tokio::select! {
            file = &mut file => break file.unwrap(),
            _ = told.tick() => node.tell(sampled(0)).await,
        }
    };
    let mut blocks = Vec::new();
    let mut rest = &file[..];
    // The length of a block is its second word.
    while let Some((kind, body)) = rest.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*body.first_chunk().unwrap()) as usize;
        blocks.push((u32::from_le_bytes(*kind), &rest[..length]));
        rest = &rest[length..];
    }
    let kinds: Vec<u32> = blocks.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, [0x0a0d_0d0a, 1, 6, 6, 6, 6, 6]);
    let frame = blocks[2].1;
    let comment = b"drop rule=block-bad reason=rule generation=7 queue=0";
    assert!(frame.windows(comment.len()).any(|part| part == comment));
    assert!(frame.windows(128).any(|part| part == [0xab; 128]));
    api.get(&format!("/nodes/{id}/drops.pcapng?seconds=61"))
        .await
        .refused(422, "invalid");
    api.get(&format!("/nodes/{id}/drops.pcapng?frames=10001"))
        .await
        .refused(422, "invalid");
}
