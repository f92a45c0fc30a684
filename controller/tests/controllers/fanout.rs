//! Whichever controller is asked, the answer is of all nodes.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use jiff::Timestamp;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tonic::Code;
use xdpgate_api::fleet::v1::fleet_client::FleetClient;
use xdpgate_api::fleet::v1::peers_client::PeersClient;
use xdpgate_api::fleet::v1::{FollowRequest, QueryRequest, RenewRequest};
use xdpgate_api::v1::RuleStats;
use xdpgate_controller::auth::authority::client_config;
use xdpgate_controller::fleet::testing::{Manners, Node, Running, Shared};

use crate::common::controller::PROGRAM;
use crate::common::controllers::{Controllers, dial, node};

const SOON: Duration = Duration::from_secs(20);

/// A node that has its session at a controller.
async fn at(
    controllers: &Controllers,
    number: usize,
    member: usize,
    shared: &Arc<Shared>,
) -> Running {
    let id = node(number);
    let channel = dial(controllers.tls(&id), &controllers.members[member].nodes).await;
    let counters = vec![RuleStats {
        id: "base".to_owned(),
        packets: 1_000 + number as u64,
        ..RuleStats::default()
    }];
    let manners = Manners {
        counters,
        ..Manners::default()
    };
    Node::new(id, shared)
        .with(manners)
        .start(channel.expect("a connection"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r121_what_one_controller_knows_all_answer() {
    let Some(controllers) = Controllers::start(2, 1, 6).await else {
        return;
    };
    let shared = Arc::<Shared>::default();
    // Four at the first, one at the second, one nowhere.
    let mut nodes = Vec::new();
    for number in 0..5 {
        nodes.push(at(&controllers, number, usize::from(number == 4), &shared).await);
    }
    for member in 0..2 {
        controllers
            .until("the overview", SOON, async || {
                let stats = controllers.get(member, "/stats").await?;
                let states = &stats["states"];
                let is = stats["nodes"] == 6
                    && stats["online"] == 5
                    && stats["applied"] == 5
                    && states["fresh"] == 5
                    && states["never_connected"] == 1
                    && stats["controllers"] == json!({ "answered": 2, "known": 2 });
                is.then_some(())
            })
            .await;
        let group = controllers
            .get(member, "/stats/groups/all")
            .await
            .expect("a group");
        assert_eq!((&group["nodes"], &group["online"]), (&json!(6), &json!(5)));
        let by = controllers.get(member, "/nodes/n-4").await.expect("a node");
        assert_eq!(by["status"]["controller"], "c-1");
        assert_eq!(by["status"]["state"], "fresh");
        assert_eq!(by["status"]["numbers"]["attached"], 0);
        let never = controllers.get(member, "/nodes/n-5").await.expect("a node");
        assert_eq!(never["status"]["state"], "never_connected");
        assert_eq!(never["status"].get("controller"), None);
    }
    lists(&controllers).await;
    changes(&controllers, &mut nodes).await;
    asked(&controllers, &mut nodes).await;
    moved(&controllers, &mut nodes, &shared).await;
    creates(&controllers).await;
    strangers(&controllers).await;
    gone(&controllers).await;
}

/// Pages go over the nodes of all, in one order, with each node once.
async fn lists(controllers: &Controllers) {
    for member in 0..2 {
        for (sort, descends) in [("id", false), ("-name", true)] {
            let (mut found, mut cursor) = (Vec::new(), String::new());
            loop {
                let path = format!("/nodes?state=fresh&limit=2&sort={sort}{cursor}");
                let page = controllers.get(member, &path).await.expect("a page");
                assert_eq!(page["total"], 5);
                assert_eq!(page["controllers"], json!({ "answered": 2, "known": 2 }));
                let items = page["items"].as_array().expect("items");
                found.extend(
                    items
                        .iter()
                        .map(|item| item["id"].as_str().expect("an id").to_owned()),
                );
                match page["next"].as_str() {
                    Some(next) => cursor = format!("&cursor={next}"),
                    None => break,
                }
            }
            let mut wanted: Vec<_> = (0..5).map(|number| node(number).to_string()).collect();
            if descends {
                wanted.reverse();
            }
            assert_eq!(found, wanted, "{sort} at {member}");
        }
        let total = async |query: &str| {
            let page = controllers.get(member, &format!("/nodes?{query}")).await;
            page.expect("a page")["total"].clone()
        };
        assert_eq!(total("state=never_connected").await, 1);
        assert_eq!(total("version=0.1.0").await, 5);
        assert_eq!(total("q=n-4.example").await, 1);
        assert_eq!(total("group=all").await, 6);
        assert_eq!(total("selector=no=such").await, 0);
    }
}

/// Each controller says of a change at the other one how far it has come, and tells of it.
async fn changes(controllers: &Controllers, nodes: &mut [Running]) {
    let events = events(controllers, 1).await;
    let rule = json!({ "id": "one", "match": { "src": "203.0.113.1" }, "action": "drop" });
    let made = controllers
        .send(0, Method::POST, "/policies/web/rules", Some(&rule), None)
        .await;
    let (status, made) = made.expect("an answer");
    assert_eq!(status, StatusCode::CREATED, "{made}");
    for member in 0..2 {
        let path = format!("/changes/{}?wait=83%25&timeout=20", made["revision"]);
        let far = controllers.get(member, &path).await.expect("progress");
        assert_eq!(
            (&far["seen"], &far["applied"]),
            (&json!(true), &json!(5)),
            "{far}"
        );
        assert_eq!(far["offline"], json!(["n-5"]));
        let path = "/policies/web/progress";
        let far = controllers.get(member, path).await.expect("progress");
        assert_eq!(far["applied"], 5, "{far}");
    }
    let wanted = controllers
        .core
        .view()
        .desired(&node(0))
        .expect("a state")
        .hash;
    for node in nodes {
        node.until("it has it", |seen| seen.hash == Some(wanted))
            .await;
    }
    // What happened at nodes of the first was told by the second, and how far it has come over all.
    let text = tokio::time::timeout(
        SOON,
        events.heard(|text| {
            text.contains("\"n-0\"") && text.contains("\"n-4\"") && text.contains("\"applied\":5")
        }),
    );
    text.await.expect("events of both in time");
}

/// A stream of events that is open.
struct Events(futures_util::stream::BoxStream<'static, String>);

async fn events(controllers: &Controllers, member: usize) -> Events {
    let url = format!("{}/api/v1/events", controllers.members[member].url());
    let client = reqwest::Client::new();
    let answer = client.get(url).bearer_auth(&controllers.token).send().await;
    let bytes = answer.expect("a stream").bytes_stream();
    Events(
        bytes
            .map(|part| String::from_utf8_lossy(&part.expect("a part")).into_owned())
            .boxed(),
    )
}

impl Events {
    async fn heard(mut self, is_all: impl Fn(&str) -> bool) {
        let mut text = String::new();
        while !is_all(&text) {
            text += &self.0.next().await.expect("it goes on");
        }
    }
}

/// Questions reach a node through any controller.
async fn asked(controllers: &Controllers, nodes: &mut [Running]) {
    for member in 0..2 {
        for number in [0, 4] {
            let path = format!("/nodes/n-{number}/counters?rules=base");
            let counters = controllers.get(member, &path).await.expect("counters");
            assert_eq!(counters["rules"][0]["packets"], 1_000 + number);
            let before = nodes[number].seen.borrow().snapshots;
            let path = format!("/nodes/n-{number}/sync");
            let sent = controllers
                .send(member, Method::POST, &path, None, None)
                .await;
            assert_eq!(sent.expect("an answer").0, StatusCode::ACCEPTED);
            nodes[number]
                .until("a snapshot", |seen| seen.snapshots > before)
                .await;
        }
        let many = controllers
            .get(member, "/nodes/n-5/counters?rules=base")
            .await;
        assert_eq!(many, None, "it is nowhere");
        let all = controllers
            .send(member, Method::POST, "/sync", None, None)
            .await;
        assert_eq!(all.expect("an answer").1["nodes"], 5);
    }
}

/// A node begins a session at another controller while the first one takes its old session for alive.
async fn moved(controllers: &Controllers, nodes: &mut Vec<Running>, shared: &Arc<Shared>) {
    let again = at(controllers, 0, 1, shared).await;
    let before = std::mem::replace(&mut nodes[0], again);
    // The first controller ends the old one, since it hears of the new one.
    let (_, status) = tokio::time::timeout(SOON, before.ended())
        .await
        .expect("it is ended");
    assert!(status.message().contains("another session"), "{status:?}");
    // Longer than three heartbeats.
    for _ in 0..50 {
        for member in 0..2 {
            let one = controllers.get(member, "/nodes/n-0").await.expect("a node");
            assert_eq!(one["status"]["controller"], "c-1", "{one}");
            let state = one["status"]["state"].as_str().expect("a state");
            assert!(["connecting", "fresh"].contains(&state), "{one}");
            let stats = controllers.get(member, "/stats").await.expect("numbers");
            assert_eq!(stats["states"]["offline"], 0, "{stats}");
            assert_eq!(stats["nodes"], 6);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let stats = controllers.get(0, "/stats").await.expect("numbers");
    assert_eq!(stats["online"], 5);
}

/// Of two identical creates at two controllers one wins.
async fn creates(controllers: &Controllers) {
    for round in 0..10 {
        let body = json!({ "name": format!("race-{round}") });
        let create =
            |member| controllers.send(member, Method::POST, "/policies", Some(&body), None);
        let (a, b) = tokio::join!(create(0), create(1));
        let mut statuses = [a.expect("an answer").0, b.expect("an answer").0];
        statuses.sort();
        assert_eq!(statuses, [StatusCode::CREATED, StatusCode::CONFLICT]);
    }
}

/// A node is no controller, and a controller is no node.
async fn strangers(controllers: &Controllers) {
    let address = &controllers.members[0].nodes;
    let channel = dial(controllers.tls(&node(1)), address)
        .await
        .expect("a connection");
    let mut client = PeersClient::new(channel);
    let question = "\"history\"".to_owned();
    let refused = client
        .query(QueryRequest { question })
        .await
        .expect_err("a node asks");
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused:?}");
    let refused = client
        .follow(FollowRequest {})
        .await
        .expect_err("a node follows");
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused:?}");

    // Also one that has the name of a node.
    for name in ["c-9", "n-1"] {
        let config = client_config(&controllers.authority, name, Timestamp::now());
        let channel = dial(Arc::new(config.expect("a certificate")), address).await;
        let channel = channel.expect("a connection");
        let mut peers = PeersClient::new(channel.clone());
        let question = "\"history\"".to_owned();
        peers
            .query(QueryRequest { question })
            .await
            .expect("a controller asks");
        let mut client = FleetClient::new(channel);
        let refused = client.renew(RenewRequest::default()).await;
        let refused = refused.expect_err("a controller renews as a node");
        assert_eq!(refused.code(), Code::Unauthenticated, "{refused:?}");
        let messages = tokio_stream::iter([]);
        let refused = client
            .session(messages)
            .await
            .expect_err("a controller as a node");
        assert_eq!(refused.code(), Code::Unauthenticated, "{refused:?}");
    }
}

/// A controller that is killed: first the answers say that they are of one of two, then it is gone, and its nodes are offline.
async fn gone(controllers: &Controllers) {
    let listed = std::process::Command::new(PROGRAM)
        .args([
            "controllers",
            "--server",
            &controllers.members[0].url(),
            "--json",
        ])
        .env("XDPGATE_CONTROLLER_TOKEN", &controllers.token)
        .output()
        .expect("the client");
    let listed: Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    let row = |listed: &Value, number: usize| {
        let row = &listed["items"][number];
        (row["name"].clone(), row["state"].clone())
    };
    assert_eq!(row(&listed, 0), (json!("c-0"), json!("here")));
    assert_eq!(row(&listed, 1), (json!("c-1"), json!("connected")));

    controllers.members[1].kill();
    let partial = json!({ "answered": 1, "known": 2 });
    controllers
        .until("the answer is partial", SOON, async || {
            let stats = controllers.get(0, "/stats").await?;
            (stats["controllers"] == partial && stats["nodes"] == 6).then_some(())
        })
        .await;
    let one = controllers.get(0, "/nodes/n-4").await.expect("a node");
    assert_eq!(one["status"]["state"], "unknown");
    let page = controllers.get(0, "/nodes").await.expect("a page");
    assert_eq!(
        (&page["total"], &page["controllers"]),
        (&json!(6), &partial)
    );
    assert_eq!(page["items"][4]["status"]["state"], "unknown");
    controllers
        .until("it is gone", Duration::from_secs(40), async || {
            let stats = controllers.get(0, "/stats").await?;
            let alone = stats["controllers"] == json!({ "answered": 1, "known": 1 });
            (alone && stats["states"]["offline"] == 2).then_some(())
        })
        .await;
    let one = controllers.get(0, "/nodes/n-4").await.expect("a node");
    assert_eq!(one["status"]["state"], "offline");
    let listed = controllers.get(0, "/controllers").await.expect("a list");
    assert_eq!(row(&listed, 1), (json!("c-1"), json!("gone")));
}
