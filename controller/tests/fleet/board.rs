//! A controller's service of nodes on a real socket, and what it tells them to have.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Endpoint};
use xdpgate::Policy;
use xdpgate::policy::{Atomicity, Change, Prefix, Rule};
use xdpgate_controller::core::{Desired, Profile};
use xdpgate_controller::domain::{Mode, Name, NodeId, NodeRecord, Touch};
use xdpgate_controller::fleet::testing::{ByHeader, NoMembers, Node, Running, Shared};
use xdpgate_controller::fleet::{
    Config, Fleet, FleetService, Progress, Scope, Signer, Targets, server,
};

pub(crate) struct Board {
    pub(crate) fleet: Fleet,
    pub(crate) shared: Arc<Shared>,
    pub(crate) address: SocketAddr,
    targets: watch::Sender<Arc<Targets>>,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Board {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Heartbeats come often and states are awaited shortly, so that tests are short; bounds on load are far away.
pub(crate) fn config() -> Config {
    let mut config = Config {
        answer_within: Duration::from_secs(60),
        messages_per_second: 10_000,
        messages_burst: 10_000,
        ..Config::default()
    };
    config.health.every = Duration::from_millis(250);
    config
}

pub(crate) fn id(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

pub(crate) fn rule(text: &str) -> Change {
    Change::PutRule(Rule::from_yaml(text).unwrap())
}

/// Of so many rules, each for another address.
pub(crate) fn policy(rules: u32) -> Policy {
    let mut builder = Policy::builder();
    let text = "{ id: r, match: { src: 192.0.2.1 }, action: drop }";
    let like = Rule::from_yaml(text).unwrap();
    for i in 0..rules {
        let mut rule = like.clone();
        rule.id = xdpgate::policy::RuleId::new(&format!("r-{i}")).unwrap();
        rule.priority = i / 16;
        let address = Prefix::host(std::net::Ipv4Addr::from(0x0a00_0000 + i).into());
        let source = rule.matches.src.as_mut().unwrap();
        source.items = vec![xdpgate::policy::AddressItem::Prefix(address)];
        builder = builder.rule(rule);
    }
    builder.build().unwrap()
}

fn record(node: &NodeId) -> NodeRecord {
    let touch = Touch {
        by: "test".to_owned(),
        at: jiff::Timestamp::UNIX_EPOCH,
        why: String::new(),
    };
    NodeRecord {
        id: node.clone(),
        version: 1,
        name: node.to_string(),
        own_labels: BTreeMap::default(),
        set_labels: BTreeMap::default(),
        maintenance: false,
        revoked: false,
        revoked_serials: Vec::new(),
        created: touch.clone(),
        updated: touch,
    }
}

impl Board {
    pub(crate) async fn start(config: Config, signer: Option<Arc<dyn Signer>>) -> Self {
        Self::of_store("epoch-1", config, signer).await
    }

    pub(crate) async fn of_store(
        epoch: &str,
        config: Config,
        signer: Option<Arc<dyn Signer>>,
    ) -> Self {
        let first = Targets {
            epoch: epoch.into(),
            ..Targets::default()
        };
        let (targets, receiver) = watch::channel(Arc::new(first));
        let fleet = Fleet::start(config, receiver, None, signer);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = FleetService::new(fleet.clone(), Arc::new(ByHeader), Arc::new(NoMembers));
        let server = tokio::spawn(async move {
            let incoming = TcpListenerStream::new(listener);
            server()
                .add_service(service)
                .serve_with_incoming(incoming)
                .await
                .unwrap();
        });
        Self {
            fleet,
            shared: Arc::default(),
            address,
            targets,
            server,
        }
    }

    /// These nodes shall have a policy; all others what they had. Returns the revision.
    pub(crate) fn set(&self, nodes: &[&str], policy: &Policy, mode: Option<Mode>) -> u64 {
        self.assign(nodes, &["web"], policy, mode)
    }

    /// No policy is assigned to these nodes any more.
    pub(crate) fn unassign(&self, nodes: &[&str], mode: Option<Mode>) -> u64 {
        self.assign(nodes, &[], &Policy::default(), mode)
    }

    fn assign(&self, nodes: &[&str], names: &[&str], policy: &Policy, mode: Option<Mode>) -> u64 {
        self.edit(|targets| {
            let sequence = targets.revision;
            let names = names.iter().map(|name| Name::new(*name).unwrap());
            let desired = Arc::new(Desired {
                sequence,
                hash: policy.hash(),
                policy: Arc::new(policy.clone()),
                mode,
                policies: names.map(|name| (name, sequence)).collect(),
            });
            let profile = Arc::new(Profile {
                policies: vec![(Name::new("web").unwrap(), Some(sequence))],
                mode,
            });
            let records = Arc::make_mut(&mut targets.nodes);
            let profiles = Arc::make_mut(&mut targets.profiles);
            for node in nodes.iter().map(|node| id(node)) {
                let new = || Arc::new(record(&node));
                records.entry(node.clone()).or_insert_with(new);
                profiles.insert(node, profile.clone());
            }
            targets.desired.insert(profile, desired);
        })
    }

    /// Changes what the policy of these nodes is, as one change. Returns the revision and the policy.
    pub(crate) fn change(&self, nodes: &[&str], changes: &[Change]) -> (u64, Policy) {
        let before = self.wanted(nodes[0]);
        let changed = before.policy.change(changes, Atomicity::AllOrNothing);
        let policy = changed.unwrap().policy;
        (self.set(nodes, &policy, before.mode), policy)
    }

    pub(crate) fn edit(&self, edit: impl FnOnce(&mut Targets)) -> u64 {
        let mut targets = Targets::clone(&self.targets.borrow());
        targets.revision += 1;
        edit(&mut targets);
        let revision = targets.revision;
        self.targets.send_replace(Arc::new(targets));
        revision
    }

    pub(crate) fn edit_record(&self, node: &str, edit: impl FnOnce(&mut NodeRecord)) {
        self.edit(|targets| {
            let records = Arc::make_mut(&mut targets.nodes);
            edit(Arc::make_mut(records.get_mut(node).unwrap()));
        });
    }

    pub(crate) fn wanted(&self, node: &str) -> Arc<Desired> {
        let targets = self.targets.borrow();
        targets.get(&id(node)).unwrap().desired.unwrap().clone()
    }

    pub(crate) async fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).unwrap();
        endpoint.connect().await.unwrap()
    }

    pub(crate) fn node(&self, name: &str) -> Node {
        Node::new(id(name), &self.shared)
    }

    pub(crate) async fn run(&self, node: Node) -> Running {
        node.start(self.channel().await)
    }

    /// Waits until so many nodes have a change in force.
    pub(crate) async fn applied(&self, revision: u64, nodes: usize) -> Progress {
        let progress = || self.fleet.progress(&Scope::Revision(revision));
        until("the change", || progress().applied == nodes).await;
        progress()
    }
}

/// Waits until something is so.
pub(crate) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what} did not come about within 20 s");
}
