//! Nodes and pods of a cluster, from what its API server answered.

use axum::body::Body;
use axum::http::Response;
use serde_json::{Value, json};
use xdpgate_controller::feed::{ApiServer, FeedContent, Outcome, Settings, Source};

use super::server::{Asked, Server, status};
use super::{World, settings};

/// Two pages in the form of an API server of version 1.33, of a cluster of kind with both families; of the images of nodes,
/// most are left out.
const FIRST: &str = include_str!("nodes-1.json");
const SECOND: &str = include_str!("nodes-2.json");

struct Cluster {
    world: World,
    api: Server,
    folder: tempfile::TempDir,
}

fn page(text: impl Into<Body>) -> Response<Body> {
    Response::new(text.into())
}

fn of_query<'a>(asked: &'a Asked, name: &str) -> Option<&'a str> {
    let pairs = asked.uri.query()?.split('&');
    pairs
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
}

/// As the API server answers: only who is known, and page by page.
fn recorded(asked: &Asked) -> Response<Body> {
    if asked.header("authorization") != Some("Bearer first") {
        return status(401);
    }
    assert!(of_query(asked, "limit").is_some_and(|limit| limit.parse::<u32>().is_ok()));
    match of_query(asked, "continue") {
        None => page(FIRST),
        Some("eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6NDA5Nn0") => page(SECOND),
        Some(other) => panic!("no such page: {other}"),
    }
}

impl Cluster {
    async fn new() -> Self {
        let api = Server::new().await;
        let folder = tempfile::tempdir().unwrap();
        let token_file = folder.path().join("token");
        std::fs::write(&token_file, "first\n").unwrap();
        let server = ApiServer {
            url: api.url.clone(),
            token_file,
            ca: folder.path().join("ca.crt"),
        };
        let world = World::with(Settings {
            kubernetes: Some(server),
            ..settings()
        })
        .await;
        world
            .put("cluster", &FeedContent::new(Source::Kubernetes {}))
            .await;
        Self { world, api, folder }
    }

    async fn last(&self) -> (Outcome, String) {
        let last = self
            .world
            .set_status("cluster", "kubernetes")
            .await
            .last_try
            .unwrap();
        (last.outcome, last.error.unwrap_or_default())
    }

    fn entries(&self) -> Vec<String> {
        let mut entries: Vec<_> = self
            .world
            .set("kubernetes")
            .entries
            .iter()
            .map(|entry| entry.to_string())
            .collect();
        entries.sort();
        entries
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r119_nodes_and_pods_of_two_pages() {
    let mut cluster = Cluster::new().await;
    cluster.api.serve("/api/v1/nodes", recorded);
    cluster.world.run().await;
    assert_eq!(cluster.last().await, (Outcome::Replaced, String::new()));
    // Both families; a node that has no pods' prefix; an address outside; a name that is none.
    let expected = [
        "10.244.0.0/24",
        "10.244.1.0/24",
        "172.18.0.2",
        "172.18.0.3",
        "172.18.0.4",
        "203.0.113.40",
        "fc00:f853:ccd:e793::2",
        "fc00:f853:ccd:e793::3",
        "fd00:10:244:1::/64",
        "fd00:10:244::/64",
    ];
    assert_eq!(cluster.entries(), expected);
    assert_eq!(cluster.api.asked().len(), 2);
    cluster.world.round().await;
    assert_eq!(cluster.last().await.0, Outcome::Unchanged);
    assert_eq!(cluster.world.set("kubernetes").version, 1);

    // What it is for: a rule before all others, on every node.
    let pass = "{ id: cluster, priority: 1, match: { src: '@kubernetes' }, action: pass }";
    cluster.world.fleet.policy("cluster", &[pass]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r119_a_list_that_is_gone_is_read_from_the_beginning() {
    let mut cluster = Cluster::new().await;
    // The first time, what is continued is too old.
    let gone = std::sync::atomic::AtomicBool::new(false);
    cluster.api.serve("/api/v1/nodes", move |asked| {
        let is_second = of_query(asked, "continue").is_some();
        if is_second && !gone.swap(true, std::sync::atomic::Ordering::Relaxed) {
            return status(410);
        }
        recorded(asked)
    });
    cluster.world.run().await;
    assert_eq!(cluster.last().await, (Outcome::Replaced, String::new()));
    assert_eq!(cluster.entries().len(), 10);
    assert_eq!(cluster.api.asked().len(), 4);
    // It is so each time: that is a failure, and not a loop.
    cluster
        .api
        .serve("/api/v1/nodes", |asked| match of_query(asked, "continue") {
            Some(_) => status(410),
            None => recorded(asked),
        });
    cluster.world.round().await;
    let (outcome, error) = cluster.last().await;
    assert_eq!(outcome, Outcome::Failed);
    assert!(error.contains("410"), "{error}");
    assert_eq!(cluster.api.asked().len(), 10);
    assert_eq!(cluster.entries().len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn r119_what_the_api_server_refuses_leaves_what_is_known() {
    let mut cluster = Cluster::new().await;
    cluster.api.serve("/api/v1/nodes", recorded);
    cluster.world.run().await;
    let token = cluster.folder.path().join("token");
    let one = |address: &str| {
        let node = json!({"metadata": {"name": "n"}, "status": {"addresses": [{"type": "InternalIP", "address": address}]}});
        json!({"metadata": {}, "items": [node]})
    };
    let list = |value: Value| move |_: &Asked| page(value.to_string());
    std::fs::write(&token, "second").unwrap();
    cluster.world.round().await;
    let (outcome, error) = cluster.last().await;
    assert_eq!(outcome, Outcome::Failed);
    assert!(
        error.contains("401") && error.contains("token_file"),
        "{error}"
    );
    assert!(!error.contains("second"), "no token in a status: {error}");
    cluster.api.serve("/api/v1/nodes", |_| status(403));
    cluster.world.round().await;
    assert!(cluster.last().await.1.contains("403"));
    cluster
        .api
        .serve("/api/v1/nodes", |_| page("{\"kind\":\"Status\"}"));
    cluster.world.round().await;
    assert!(cluster.last().await.1.contains("no list of nodes"));
    cluster.api.serve("/api/v1/nodes", list(one("ip-10-0-0-1")));
    cluster.world.round().await;
    assert!(
        cluster
            .last()
            .await
            .1
            .contains("node n: \"ip-10-0-0-1\" is not an address")
    );
    // Most nodes are gone at once: perhaps somebody looked at another cluster.
    cluster.api.serve("/api/v1/nodes", list(one("10.0.0.1")));
    cluster.world.round().await;
    assert_eq!(cluster.last().await.0, Outcome::Refused);
    cluster
        .api
        .serve("/api/v1/nodes", list(json!({"metadata": {}, "items": []})));
    cluster.world.round().await;
    assert_eq!(cluster.last().await.0, Outcome::Refused);
    assert_eq!(cluster.entries().len(), 10);
    assert_eq!(cluster.world.set("kubernetes").version, 1);
    // The token was renewed: it is read anew.
    std::fs::write(&token, "first").unwrap();
    cluster.api.serve("/api/v1/nodes", recorded);
    cluster.world.round().await;
    assert_eq!(cluster.last().await.0, Outcome::Unchanged);
    std::fs::remove_file(&token).unwrap();
    cluster.world.round().await;
    assert!(cluster.last().await.1.contains("token"));
}

#[tokio::test(flavor = "multi_thread")]
async fn r119_a_node_from_a_server_that_knows_one_prefix_only() {
    let cluster = Cluster::new().await;
    let node = json!({
        "metadata": {"name": "old"}, "spec": {"podCIDR": "10.1.2.0/24"},
        "status": {"addresses": [{"type": "Hostname", "address": "old"}, {"type": "InternalIP", "address": "10.0.0.7"}]},
    });
    let list = json!({"metadata": {"resourceVersion": "1"}, "items": [node]}).to_string();
    cluster
        .api
        .serve("/api/v1/nodes", move |_| page(list.clone()));
    cluster.world.run().await;
    assert_eq!(cluster.entries(), ["10.0.0.7", "10.1.2.0/24"]);
}
