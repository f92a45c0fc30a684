//! A core over a real SQLite file.

use std::sync::Arc;

use tempfile::TempDir;
use xdpgate::policy::Rule;
use xdpgate_controller::core::{
    Actor, Command, CommandError, Core, Effect, GroupContent, Options, Outcome, SetContent,
};
use xdpgate_controller::domain::{Labels, Name, PolicyContent, Role};
use xdpgate_controller::store::sqlite::Sqlite;

pub struct Fleet {
    pub core: Core,
    folder: TempDir,
}

impl Fleet {
    pub async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let core = open(&folder).await;
        Self { core, folder }
    }

    /// As after a restart of the controller.
    pub async fn restart(self) -> Self {
        let Self { core, folder } = self;
        drop(core);
        let core = open(&folder).await;
        Self { core, folder }
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

async fn open(folder: &TempDir) -> Core {
    let path = folder.path().join("controller.db");
    // The file of a core that was dropped a moment ago is free soon.
    for _ in 0..500 {
        if let Ok(store) = Sqlite::open(&path) {
            return Core::open(Arc::new(store)).await.expect("a core");
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("{} stays in use", path.display());
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
