//! What a controller knows without having seen it: what nodes had before it started; and what a change makes it look at.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Endpoint};
use xdpgate_controller::core::{Command, Work};
use xdpgate_controller::fleet::testing::{ByHeader, NoMembers, Node, Running, Shared};
use xdpgate_controller::fleet::{Config, Fleet, FleetService, Scope, Targets, server, targets};

use crate::board::{id, until};
use crate::core;

/// A controller over a core, until it is dropped.
struct Controller {
    fleet: Fleet,
    address: std::net::SocketAddr,
    serving: tokio::task::JoinHandle<()>,
}

impl Controller {
    async fn start(core: &core::Fleet) -> Self {
        let past = Arc::new(core.core.clone());
        let fleet = Fleet::start(Config::default(), targets(&core.core), Some(past), None);
        let service = FleetService::new(fleet.clone(), Arc::new(ByHeader), Arc::new(NoMembers));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let incoming = TcpListenerStream::new(listener);
        let serving = server().add_service(service).serve_with_incoming(incoming);
        Self {
            fleet,
            address,
            serving: tokio::spawn(async move { serving.await.unwrap() }),
        }
    }

    async fn dial(&self) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).unwrap();
        endpoint.connect().await.unwrap()
    }

    async fn run(&self, node: Node) -> Running {
        node.start(self.dial().await)
    }

    /// Waits until so many nodes have what they shall have.
    async fn applied(&self, core: &core::Fleet, nodes: usize) {
        let revision = Scope::Revision(core.core.view().revision().0);
        until("all have it", || {
            self.fleet.progress(&revision).applied == nodes
        })
        .await;
    }

    async fn stop(self) {
        self.serving.abort();
        // Its sessions end when it is gone.
        let _ = self.serving.await;
        self.fleet.drain(Duration::ZERO, Duration::ZERO).await;
        until("no session", || self.fleet.sessions() == 0).await;
    }
}

fn looked_at(core: &core::Fleet) -> Targets {
    Targets::new(core.core.view(), tokio::time::Instant::now())
}

fn put(policy: &str, rule: &str) -> Command {
    Command::PutRule {
        policy: core::name(policy),
        rule: core::rule(rule),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_controller_sends_a_delta_to_a_node_that_is_behind() {
    let core = core::Fleet::new().await;
    let entries: Vec<String> = (0..2000_u32)
        .map(|n| format!("10.{}.{}.0/24", n >> 8, n & 255))
        .collect();
    let entries: Vec<&str> = entries.iter().map(String::as_str).collect();
    core.set("bad", &entries).await;
    core.policy(
        "web",
        &["{ id: block, match: { src: '@bad' }, action: drop }"],
    )
    .await;
    core.policy(
        "mail",
        &["{ id: smtp, match: { dport: 25 }, action: pass }"],
    )
    .await;
    core.group("web", "role=web", &["web"]).await;
    core.group("all", "", &["mail"]).await;
    core.node("one", &[("role", "web")]).await;
    core.node("far", &[("role", "web")]).await;
    let controller = Controller::start(&core).await;
    let shared = Arc::<Shared>::default();
    let one = controller.run(Node::new(id("one"), &shared)).await;
    let far = controller.run(Node::new(id("far"), &shared)).await;
    controller.applied(&core, 2).await;
    let far = far.leave().await;
    // What the other one misses: too many versions to look for what it has.
    for n in 0..20 {
        core.run(put(
            "mail",
            &format!("{{ id: n, match: {{ dport: {} }}, action: pass }}", 100 + n),
        ))
        .await
        .unwrap();
    }
    controller.applied(&core, 1).await;
    let one = one.leave().await;
    assert_eq!((one.seen().snapshots, far.seen().snapshots), (1, 1));
    let deltas = one.seen().deltas;

    // A rule and an entry change while nobody is there, and the controller knows nothing of before.
    core.run(put(
        "mail",
        "{ id: smtp, match: { dport: 587 }, action: pass }",
    ))
    .await
    .unwrap();
    let entries = vec![("192.0.2.1".parse().unwrap(), None)];
    let set = core::name("bad");
    core.run(Command::AddEntries { set, entries })
        .await
        .unwrap();
    controller.stop().await;
    let core = core.restart().await;
    let controller = Controller::start(&core).await;
    let one = controller.run(one).await;
    let far = controller.run(far).await;
    controller.applied(&core, 2).await;
    let seen = one.seen.borrow().clone();
    assert_eq!((seen.snapshots, seen.deltas), (1, deltas + 1), "a delta");
    assert_eq!(far.seen.borrow().snapshots, 2, "a snapshot");
    let hash = core.core.view().desired(&id("one")).unwrap().hash;
    assert_eq!(
        (seen.hash, far.seen.borrow().hash),
        (Some(hash), Some(hash))
    );
    controller.serving.abort();
}

#[tokio::test]
async fn a_change_of_a_rule_looks_at_profiles_and_not_at_nodes() {
    const NODES: usize = 60;
    let core = core::Fleet::new().await;
    for role in ["web", "mail", "dns"] {
        core.policy(role, &["{ id: base, match: { dport: 80 }, action: pass }"])
            .await;
        core.group(role, &format!("role={role}"), &[role]).await;
    }
    for n in 0..NODES {
        let role = ["web", "mail", "dns"][n % 3];
        core.node(&format!("n-{n}"), &[("role", role)]).await;
    }
    let before = looked_at(&core);
    core.run(put(
        "web",
        "{ id: base, match: { dport: 443 }, action: pass }",
    ))
    .await
    .unwrap();
    let after = looked_at(&core);
    let desired =
        |targets: &Targets, node: &str| targets.get(&id(node)).unwrap().desired.unwrap().hash;
    assert_ne!(desired(&before, "n-0"), desired(&after, "n-0"));
    assert_eq!(desired(&before, "n-1"), desired(&after, "n-1"));
    let work = Work {
        nodes: 0,
        profiles: 3,
    };
    assert_eq!(after.view.work(), work);
    assert_eq!(after.desired.len(), 3);
    let shared =
        Arc::ptr_eq(&before.nodes, &after.nodes) && Arc::ptr_eq(&before.profiles, &after.profiles);
    assert!(shared, "the maps of nodes are made anew");
    // One node.
    core.node("n-0", &[("role", "dns")]).await;
    let work = Work {
        nodes: 1,
        profiles: 3,
    };
    assert_eq!(core.core.view().work(), work);
    let after = looked_at(&core);
    assert_eq!(desired(&after, "n-0"), desired(&after, "n-2"));
    // Only a group concerns all of them.
    core.group("web", "role=web", &["dns"]).await;
    assert_eq!(core.core.view().work().nodes, NODES);
}
