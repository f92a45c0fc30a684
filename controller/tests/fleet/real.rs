//! The service over a real core and SQLite file, and over mTLS.

use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{
    Certificate, Channel, ClientTlsConfig, Endpoint, Identity, ServerTlsConfig,
};
use xdpgate_api::fleet::v1::result::Reason;
use xdpgate_api::v1 as api;
use xdpgate_controller::core::{Command, PlanChoice};
use xdpgate_controller::domain::{Mode, Name};
use xdpgate_controller::fleet::testing::{ByHeader, Manners, NoMembers, Node, Order, Shared};
use xdpgate_controller::fleet::{
    Certificates, Config, Fleet, FleetService, Identify, Scope, State, server, targets,
};
use xdpgate_controller::rollout::{self, Executor, Plan, Planned, PlannedStage};

use crate::board::{id, until};
use crate::core;

async fn serve(
    core: &core::Fleet,
    identify: Arc<dyn Identify>,
    tls: Option<ServerTlsConfig>,
) -> (Fleet, std::net::SocketAddr, tokio::task::JoinHandle<()>) {
    let fleet = Fleet::start(
        Config::default(),
        targets(&core.core),
        Some(Arc::new(core.core.clone())),
        None,
    );
    let service = FleetService::new(fleet.clone(), identify, Arc::new(NoMembers));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut server = server();
    if let Some(tls) = tls {
        server = server.tls_config(tls).unwrap();
    }
    let serving = tokio::spawn(async move {
        let incoming = TcpListenerStream::new(listener);
        server
            .add_service(service)
            .serve_with_incoming(incoming)
            .await
            .unwrap();
    });
    (fleet, address, serving)
}

fn name(name: &str) -> Name {
    Name::new(name).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r83_a_command_reaches_the_nodes_that_it_concerns() {
    let core = core::Fleet::new().await;
    core.set("bad", &["203.0.113.7", "198.51.100.0/24"]).await;
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
    core.group("mail", "role=mail", &["mail"]).await;
    for (node, role) in [("w-1", "web"), ("w-2", "web"), ("m-1", "mail")] {
        core.node(node, &[("role", role)]).await;
    }
    let (fleet, address, serving) = serve(&core, Arc::new(ByHeader), None).await;
    let shared = Arc::<Shared>::default();
    let mut nodes = Vec::new();
    for node in ["w-1", "w-2", "m-1"] {
        let channel = Endpoint::from_shared(format!("http://{address}"))
            .unwrap()
            .connect()
            .await;
        nodes.push(Node::new(id(node), &shared).start(channel.unwrap()));
    }
    let revision = core.core.view().revision().0;
    until("all have it", || {
        fleet.progress(&Scope::Revision(revision)).applied == 3
    })
    .await;

    // An entry of a set, by a command: a delta of one change for those that have the policy.
    let command = Command::AddEntries {
        set: name("bad"),
        entries: vec![("192.0.2.1".parse().unwrap(), None)],
    };
    let outcome = core.with(vec![command], &Default::default()).await.unwrap();
    let scope = Scope::Revision(outcome.revision.0);
    let progress = fleet.wait(&scope, 1.0, Duration::from_secs(20)).await;
    assert_eq!((progress.seen, progress.applied), (true, 3), "{progress:?}");
    for (node, deltas) in nodes.iter().zip([1, 1, 0]) {
        let seen = node.seen.borrow().clone();
        assert_eq!(
            (seen.snapshots, seen.deltas, seen.changes),
            (1, deltas, deltas as usize)
        );
    }
    // A version of one policy: over its nodes.
    let version = core
        .policy(
            "mail",
            &["{ id: smtp, match: { dport: [25, 587] }, action: pass }"],
        )
        .await
        .version;
    let scope = Scope::Policy(name("mail"), version);
    let progress = fleet.wait(&scope, 1.0, Duration::from_secs(20)).await;
    assert_eq!(
        (progress.seen, progress.applied, progress.nodes()),
        (true, 1, 1)
    );
    // The kill switch.
    let command = Command::SetFleetMode {
        mode: Some(Mode::Enforce),
    };
    let outcome = core.with(vec![command], &Default::default()).await.unwrap();
    let progress = fleet
        .wait(
            &Scope::Revision(outcome.revision.0),
            1.0,
            Duration::from_secs(20),
        )
        .await;
    assert_eq!(progress.applied, 3, "{progress:?}");
    assert_eq!(nodes[2].seen.borrow().mode, i32::from(api::Mode::Enforce));
    // Groups, each for itself.
    until("fresh", || {
        fleet.overview_of(&name("web")).unwrap().fresh == 2
    })
    .await;
    assert_eq!(fleet.overview_of(&name("mail")).unwrap().nodes, 1);
    assert!(fleet.overview_of(&name("none")).is_none());
    // What nodes built has the digest of what the core wants.
    for node in nodes {
        let node = node.leave().await;
        let desired = core.core.view().desired(&node.id).unwrap();
        assert_eq!(node.policy().unwrap().hash(), desired.hash);
    }
    serving.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_who_its_certificate_says_until_that_is_revoked() {
    let core = core::Fleet::new().await;
    core.node("n-1", &[]).await;
    core.node("n-2", &[]).await;
    let authority_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&authority_key).unwrap().pem();
    let issuer = Issuer::new(params, authority_key);
    let issue = |common_name: &str, host: &[String]| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(host.to_vec()).unwrap();
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
        let certificate = params.signed_by(&key, &issuer).unwrap();
        Identity::from_pem(certificate.pem(), key.serialize_pem())
    };
    let tls = ServerTlsConfig::new()
        .identity(issue("controller", &["localhost".to_owned()]))
        .client_ca_root(Certificate::from_pem(&authority))
        .client_auth_optional(true);
    let (fleet, address, serving) = serve(&core, Arc::new(Certificates), Some(tls)).await;
    let dial = async |identity: Option<Identity>| -> Channel {
        let mut tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&authority))
            .domain_name("localhost");
        if let Some(identity) = identity {
            tls = tls.identity(identity);
        }
        let endpoint = Endpoint::from_shared(format!("https://{address}")).unwrap();
        endpoint.tls_config(tls).unwrap().connect().await.unwrap()
    };
    let shared = Arc::<Shared>::default();
    // What a header says counts for nothing: the certificate of n-1 is n-1.
    let node = Node::new(id("n-2"), &shared).start(dial(Some(issue("n-1", &[]))).await);
    until("n-1 is there", || {
        fleet.state(&id("n-1")).unwrap().0 == State::Unassigned
    })
    .await;
    assert_eq!(fleet.state(&id("n-2")).unwrap().0, State::NeverConnected);
    for identity in [None, Some(issue("n-3", &[])), Some(issue("no name/", &[]))] {
        let (_, status) = Node::new(id("n-1"), &shared)
            .start(dial(identity).await)
            .ended()
            .await;
        assert_eq!(status.code(), tonic::Code::Unauthenticated, "{status}");
    }
    let patch = xdpgate_controller::core::NodePatch {
        revoked: Some(true),
        ..Default::default()
    };
    core.run(Command::PatchNode {
        node: id("n-1"),
        patch,
    })
    .await
    .unwrap();
    let (_, status) = node.ended().await;
    assert_eq!(status.code(), tonic::Code::Unauthenticated, "{status}");
    serving.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r120_a_node_that_refuses_a_version_ends_its_rollout() {
    let core = core::Fleet::new().await;
    core.policy("web", &["{ id: base, match: { dport: 80 }, action: pass }"])
        .await;
    core.group("all", "", &["web"]).await;
    let names = ["n-1", "n-2", "n-3", "n-4"];
    for node in names {
        core.node(node, &[]).await;
    }
    let (fleet, address, serving) = serve(&core, Arc::new(ByHeader), None).await;
    let shared = Arc::<Shared>::default();
    let mut nodes = Vec::new();
    for node in names {
        let channel = Endpoint::from_shared(format!("http://{address}"))
            .unwrap()
            .connect()
            .await;
        nodes.push(Node::new(id(node), &shared).start(channel.unwrap()));
    }
    let revision = core.core.view().revision().0;
    until("all have it", || {
        fleet.progress(&Scope::Revision(revision)).applied == 4
    })
    .await;
    let config = rollout::Config {
        every: Duration::from_millis(20),
        look: Duration::ZERO,
        ..rollout::Config::new(name("c-1"))
    };
    let executor = Executor::new(core.core.clone(), Arc::new(fleet.clone()), config);
    let executing = tokio::spawn(executor.run());

    let stage = |reach| PlannedStage {
        reach,
        bake_seconds: 0,
    };
    let start = async |rollout: &str, rule: &str| {
        let canary = Planned::Nodes(vec!["n-2".to_owned()]);
        let plan = Plan {
            stages: vec![stage(canary), stage(Planned::All)],
            gates: Default::default(),
        };
        let commands = vec![
            Command::PutRule {
                policy: name("web"),
                rule: core::rule(rule),
            },
            Command::StartRollout {
                rollout: name(rollout),
                policy: name("web"),
                plan: PlanChoice::Given(plan),
            },
        ];
        core.with(commands, &Default::default()).await.unwrap();
    };
    let state = |rollout: &str| core.core.view().rollouts()[&name(rollout)].state;
    start("good", "{ id: one, match: { dport: 81 }, action: pass }").await;
    until("the first is done", || {
        state("good") == rollout::State::Done
    })
    .await;
    let wanted = core.core.view().desired(&id("n-4")).unwrap().hash;
    for node in &mut nodes {
        node.until("it has it", |seen| seen.hash == Some(wanted))
            .await;
    }

    let refuses = Manners {
        refuses: Some((Reason::Policy, "no such feature".to_owned())),
        ..Manners::default()
    };
    nodes[1].tell(Order::Behave(refuses)).await;
    start("bad", "{ id: two, match: { dport: 82 }, action: pass }").await;
    until("it goes back", || {
        state("bad") == rollout::State::RolledBack
    })
    .await;
    let view = core.core.view();
    let reason = view.rollouts()[&name("bad")].reason.clone().unwrap();
    assert!(reason.contains("n-2: no such feature"), "{reason}");
    // All have in force what they had; the three others were never sent anything else.
    for (node, deltas) in nodes.iter_mut().zip([1, 2, 1, 1]) {
        let seen = node.until("as before", |seen| seen.hash == Some(wanted));
        assert_eq!(seen.await.deltas, deltas);
    }
    executing.abort();
    serving.abort();
}
