//! What the controller finds when it starts: policies, groups, sets, members with certificates, and a token for REST.
//!
//! It is put into the store by the library, before the controller opens it: to join ten thousand nodes one by one
//! would measure joining.

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use xdpgate::policy::{AddressSetBuilder, EntryCounters, Prefix, Rule};
use xdpgate_controller::auth::authority::Authority;
use xdpgate_controller::auth::{Auth, NewToken, Options as AuthOptions};
use xdpgate_controller::core::{Actor, Command, Core, GroupContent, Options, SetContent};
use xdpgate_controller::domain::{Labels, Name, NodeId, PolicyContent, Role};
use xdpgate_controller::store::Store;
use xdpgate_controller::store::sqlite::Sqlite;

/// A transaction has up to 100 records, and a node takes two of them.
const TOGETHER: usize = 40;

/// A kind of node: the value of its label `kind`, which is also the name of its group and policy.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    pub name: &'static str,
    pub nodes: usize,
    pub rules: usize,
    /// Its policy names this set, of so many entries.
    pub set: Option<(&'static str, u32)>,
}

/// A node that may dial.
pub struct Member {
    pub id: NodeId,
    pub kind: &'static str,
    pub tls: Arc<ClientConfig>,
}

/// What was laid.
pub struct Ground {
    pub members: Vec<Member>,
    pub token: String,
}

/// An address that is another for each number.
pub fn address(n: u32) -> Prefix {
    Prefix::host(n.wrapping_mul(0x9e37_79b1).to_be_bytes().into())
}

/// A rule as fleets have them.
pub fn rule(n: usize, port: u16) -> String {
    let [_, a, b, c] = u32::try_from(n).unwrap_or_default().to_be_bytes();
    format!(
        "{{\"id\": \"rule-{n}\", \"priority\": {}, \"comment\": \"seen by detector {c}\", \
         \"match\": {{\"src\": \"10.{a}.{b}.{c}\", \"protocol\": \"tcp\", \"dport\": {port}}}, \"action\": \"drop\"}}",
        n + 10
    )
}

pub fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

fn actor() -> Actor {
    Actor {
        name: "admin".to_owned(),
        role: Role::Admin,
        origin: "local".to_owned(),
    }
}

/// Lays the ground in a file.
pub async fn lay(file: &Path, kinds: &[Kind]) -> Ground {
    let store: Arc<dyn Store> = Arc::new(Sqlite::open(file).expect("a store"));
    let core = Core::open(Arc::clone(&store)).await.expect("a core");
    let auth = Auth::new(Arc::clone(&store), AuthOptions::default());
    let now = Timestamp::now();
    auth.first_admin(None, now).await.expect("a first user");
    let new = NewToken {
        name: "bench".to_owned(),
        role: Role::Admin,
        expires: None,
    };
    let token = auth.create_token(&actor(), "admin", new, now).await;
    let token = token.expect("a token").1.reveal().to_owned();
    for kind in kinds {
        execute(&core, policy(kind)).await;
    }
    let authority = Authority::open(store, None, None, now)
        .await
        .expect("an authority");
    let mut members = Vec::new();
    let mut commands = Vec::new();
    let identities = Identities::new(&authority);
    for kind in kinds {
        for n in 0..kind.nodes {
            let id = NodeId::new(format!("{}-{n:05}", kind.name)).expect("a name");
            commands.push(Command::RegisterNode {
                node: id.clone(),
                name: id.to_string(),
                own_labels: Labels::from([("kind".to_owned(), kind.name.to_owned())]),
            });
            if commands.len() == TOGETHER {
                execute(&core, std::mem::take(&mut commands)).await;
            }
            members.push(Member {
                tls: identities.of(&id),
                kind: kind.name,
                id,
            });
        }
    }
    if !commands.is_empty() {
        execute(&core, commands).await;
    }
    Ground { members, token }
}

async fn execute(core: &Core, commands: Vec<Command>) {
    let outcome = core.execute(&actor(), commands, &Options::default()).await;
    for effect in outcome.expect("commands").effects {
        effect.expect("a command");
    }
}

fn policy(kind: &Kind) -> Vec<Command> {
    let parse = |text: String| Rule::from_yaml(&text).expect("a rule");
    let mut rules: Vec<Rule> = (0..kind.rules).map(|n| parse(rule(n, 443))).collect();
    let mut commands = Vec::new();
    if let Some((set, entries)) = kind.set {
        let text = format!("{{id: listed, priority: 5, match: {{src: \"@{set}\"}}, action: drop}}");
        rules.push(parse(text));
        let mut builder = AddressSetBuilder::default();
        for n in 0..entries {
            builder.push(address(n), None);
        }
        let content = SetContent {
            entries: Arc::new(builder.build(EntryCounters::None)),
            ..SetContent::default()
        };
        let set = name(set);
        commands.push(Command::CreateSet { set, content });
    }
    let content = PolicyContent {
        rules,
        ..PolicyContent::default()
    };
    let policy = name(kind.name);
    commands.push(Command::CreatePolicy {
        policy: policy.clone(),
        content,
    });
    let content = GroupContent {
        selector: format!("kind={}", kind.name).parse().expect("a selector"),
        policies: vec![policy.clone()],
        ..GroupContent::default()
    };
    commands.push(Command::CreateGroup {
        group: policy,
        content,
    });
    commands
}

/// Makes certificates. All nodes have one key, which saves time and changes nothing that is measured.
struct Identities<'a> {
    authority: &'a Authority,
    key: KeyPair,
    request: Vec<u8>,
    roots: Arc<RootCertStore>,
}

impl<'a> Identities<'a> {
    fn new(authority: &'a Authority) -> Self {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        let request = CertificateParams::default().serialize_request(&key);
        let mut roots = RootCertStore::empty();
        for certificate in authority.certificates() {
            roots.add(certificate).expect("a root");
        }
        Self {
            request: request.expect("a request").der().to_vec(),
            authority,
            key,
            roots: Arc::new(roots),
        }
    }

    fn of(&self, node: &NodeId) -> Arc<ClientConfig> {
        let made = self
            .authority
            .issue_node(node.as_str(), &self.request, Timestamp::now());
        let chain = made.expect("a certificate").chain;
        let chain = chain.into_iter().map(CertificateDer::from).collect();
        let key = PrivateKeyDer::Pkcs8(self.key.serialize_der().into());
        let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(Arc::clone(&self.roots))
            .with_client_auth_cert(chain, key)
            .expect("an identity");
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.resumption = Resumption::disabled();
        Arc::new(config)
    }
}
