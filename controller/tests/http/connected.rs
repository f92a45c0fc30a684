//! The API with a node that is connected.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Endpoint;
use xdpgate_api::fleet::v1::fleet_client::FleetClient;
use xdpgate_controller::domain::Name;
use xdpgate_controller::fleet::testing::{ByHeader, Node, Shared};
use xdpgate_controller::fleet::{FleetService, server};

use crate::server::{Api, join_request};

#[tokio::test(flavor = "multi_thread")]
async fn a_node_joins_connects_and_what_it_does_is_seen() {
    let api = Api::start().await;
    let members = Arc::new(api.joining.clone());
    let service = FleetService::new(api.fleet.clone(), Arc::new(ByHeader), members);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = TcpListenerStream::new(listener);
    let serving = tokio::spawn(server().add_service(service).serve_with_incoming(incoming));
    let channel = Endpoint::new(format!("http://{address}"))
        .unwrap()
        .connect()
        .await
        .unwrap();

    let token = json!({ "labels": { "role": "edge" } });
    let token = api.post("/join-tokens", token).await.is(201).json();
    let secret = token["secret"].as_str().unwrap();
    let mut client = FleetClient::new(channel.clone());
    let joined = client
        .join(join_request(secret))
        .await
        .unwrap()
        .into_inner();
    let replay = client.join(join_request(secret)).await.unwrap_err();
    assert_eq!(replay.code(), tonic::Code::Unauthenticated, "{replay}");
    let id = joined.node_id;
    let path = format!("/nodes/{id}");
    assert_eq!(
        api.get(&path).await.json()["status"]["state"],
        "never_connected"
    );

    let group = json!({ "name": "edge", "selector": "role=edge" });
    api.post("/groups", group).await.is(201);
    let events = api
        .request(Method::GET, "/events")
        .bearer_auth(&api.viewer)
        .send()
        .await
        .unwrap();
    let node = Node::new(Name::new(id.clone()).unwrap(), &Arc::new(Shared::default()));
    let running = node.start(channel);
    // The group has no policy yet, so nothing is sent.
    let unassigned = async {
        while api.get(&path).await.json()["status"]["state"] != "unassigned" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let here = tokio::time::timeout(Duration::from_secs(20), unassigned).await;
    here.expect("the session");

    let rule = json!({ "id": "r", "match": { "src": "203.0.113.7" }, "action": "drop" });
    api.post("/policies", json!({ "name": "web", "rules": [rule] }))
        .await
        .is(201);
    let put = json!({ "selector": "role=edge", "policies": ["web"] });
    let changed = api.put("/groups/edge", put).await.is(200).json();
    let wait = format!("/changes/{}?wait=100%25&timeout=20", changed["revision"]);
    let progress = api.get(&wait).await.is(200).json();
    assert_eq!(
        (&progress["applied"], &progress["seen"]),
        (&json!(1), &json!(true)),
        "{progress}"
    );
    let progress = api
        .get("/policies/web/progress?wait=1&timeout=20")
        .await
        .is(200)
        .json();
    assert_eq!(progress["applied"], 1, "{progress}");

    let shown = api.get(&path).await.is(200).json();
    assert_eq!(shown["status"]["delivery"], "applied", "{shown}");
    assert_eq!(shown["status"]["has"], shown["desired"]["hash"], "{shown}");
    let listed = api.get("/nodes?group=edge").await.is(200).json();
    assert_eq!(
        listed["items"][0]["status"]["delivery"], "applied",
        "{listed}"
    );
    assert_eq!(api.get("/stats").await.is(200).json()["nodes"], 1);
    assert_eq!(
        api.get("/stats/groups/edge").await.is(200).json()["nodes"],
        1
    );
    api.post(&format!("{path}/sync"), Value::Null).await.is(202);
    assert_eq!(
        api.post("/sync", Value::Null).await.is(202).json()["nodes"],
        1
    );

    let mut events = events.bytes_stream();
    let mut text = String::new();
    let read = async {
        while !text.contains("event: applied") {
            text.push_str(&String::from_utf8_lossy(
                &events.next().await.unwrap().unwrap(),
            ));
        }
    };
    let read = tokio::time::timeout(Duration::from_secs(20), read).await;
    assert!(read.is_ok() && text.contains(&id), "{text}");

    // Shut out: the session ends by itself.
    api.post(&format!("{path}/revoke"), json!({})).await.is(204);
    let ended = tokio::time::timeout(Duration::from_secs(20), running.ended()).await;
    let (_, status) = ended.expect("the session ends");
    assert_eq!(status.code(), tonic::Code::Unauthenticated, "{status}");
    assert_eq!(api.get(&path).await.json()["status"]["state"], "revoked");
    serving.abort();
}
