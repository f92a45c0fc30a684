//! A core over a real store: a SQLite file, or etcd in the tests of `core_etcd`.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::Mutex;
use xdpgate::policy::Rule;
use xdpgate_controller::core::{
    Actor, Command, CommandError, Core, Effect, GroupContent, Options, Outcome, SetContent,
};
use xdpgate_controller::domain::{Labels, Name, PolicyContent, Role};
use xdpgate_controller::store::Store;
use xdpgate_controller::store::etcd::Etcd;
use xdpgate_controller::store::sqlite::Sqlite;

use super::etcd::Cluster;

/// Whether these are the tests of `core_etcd`.
const OVER_ETCD: bool = matches!(env!("CARGO_CRATE_NAME").as_bytes(), b"core_etcd");

/// One etcd for the tests that run at one time, each with a prefix of its own.
static SHARED: Mutex<Weak<Cluster>> = Mutex::const_new(Weak::new());

/// Where the store of a test is.
pub enum Place {
    File(TempDir),
    Etcd(Arc<Cluster>, String),
}

impl Place {
    pub async fn new() -> Self {
        match OVER_ETCD {
            true => match shared().await {
                Some(cluster) => Self::Etcd(cluster, format!("/{:016x}/", rand::random::<u64>())),
                None => Self::file(),
            },
            false => Self::file(),
        }
    }

    fn file() -> Self {
        Self::File(tempfile::tempdir().expect("a folder"))
    }

    pub async fn open(&self) -> Arc<dyn Store> {
        match self {
            Self::Etcd(cluster, prefix) => {
                let mut options = cluster.options();
                options.prefix.clone_from(prefix);
                Arc::new(Etcd::open(options).await.expect("a store"))
            }
            Self::File(folder) => {
                let path = folder.path().join("controller.db");
                // The file of a core that was dropped a moment ago is free soon.
                for _ in 0..500 {
                    if let Ok(store) = Sqlite::open(&path) {
                        return Arc::new(store);
                    }
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                panic!("{} stays in use", path.display());
            }
        }
    }
}

async fn shared() -> Option<Arc<Cluster>> {
    let mut shared = SHARED.lock().await;
    if let Some(cluster) = shared.upgrade() {
        return Some(cluster);
    }
    let cluster = Arc::new(Cluster::start(1).await?);
    *shared = Arc::downgrade(&cluster);
    Some(cluster)
}

pub struct Fleet {
    pub core: Core,
    place: Place,
}

impl Fleet {
    pub async fn new() -> Self {
        let place = Place::new().await;
        let core = open(&place).await;
        Self { core, place }
    }

    /// As after a restart of the controller.
    pub async fn restart(self) -> Self {
        let Self { core, place } = self;
        drop(core);
        let core = open(&place).await;
        Self { core, place }
    }

    pub async fn run(&self, command: Command) -> Result<Effect, CommandError> {
        let outcome = self.with(vec![command], &Options::default()).await?;
        outcome
            .effects
            .into_iter()
            .next()
            .expect("one command has one effect")
    }

    pub async fn with(
        &self,
        commands: Vec<Command>,
        options: &Options,
    ) -> Result<Outcome, CommandError> {
        self.core.execute(&actor(), commands, options).await
    }

    pub async fn policy(&self, policy: &str, rules: &[&str]) -> Effect {
        let content = PolicyContent {
            rules: rules.iter().map(|text| rule(text)).collect(),
            ..PolicyContent::default()
        };
        let policy = name(policy);
        self.run(Command::PutPolicy { policy, content })
            .await
            .expect("a policy")
    }

    pub async fn set(&self, set: &str, entries: &[&str]) -> Effect {
        let set = name(set);
        self.run(Command::PutSet {
            set,
            content: content(entries),
        })
        .await
        .expect("a set")
    }

    pub async fn group(&self, group: &str, selector: &str, policies: &[&str]) -> Effect {
        let content = GroupContent {
            selector: selector.parse().expect("a selector"),
            policies: policies.iter().map(|policy| name(policy)).collect(),
            ..GroupContent::default()
        };
        let group = name(group);
        self.run(Command::PutGroup { group, content })
            .await
            .expect("a group")
    }

    pub async fn node(&self, node: &str, labels: &[(&str, &str)]) -> Effect {
        let command = Command::RegisterNode {
            node: name(node),
            name: format!("{node}.example"),
            own_labels: self::labels(labels),
        };
        self.run(command).await.expect("a node")
    }

    /// The ids of the rules that a node shall have.
    pub fn rules_of(&self, node: &str) -> Vec<String> {
        let desired = self
            .core
            .view()
            .desired(&name(node))
            .expect("a desired state");
        desired
            .policy
            .rules()
            .iter()
            .map(|rule| rule.id.to_string())
            .collect()
    }
}

async fn open(place: &Place) -> Core {
    Core::open(place.open().await).await.expect("a core")
}

pub fn actor() -> Actor {
    Actor {
        name: "ann".to_owned(),
        role: Role::Operator,
        origin: "local".to_owned(),
    }
}

pub fn name(text: &str) -> Name {
    Name::new(text).expect(text)
}

pub fn rule(text: &str) -> Rule {
    Rule::from_yaml(text).expect(text)
}

pub fn content(entries: &[&str]) -> SetContent {
    let entries = entries.iter().map(|text| text.parse().expect(text));
    SetContent {
        entries: Arc::new(xdpgate::policy::AddressSet::from_prefixes(entries)),
        ..SetContent::default()
    }
}

pub fn labels(labels: &[(&str, &str)]) -> Labels {
    let labels = labels.iter();
    labels
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .collect()
}
