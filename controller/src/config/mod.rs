//! The configuration: one struct for the file, one for each of its sections, in a file of its own. By the same
//! rules as the daemon's: [`xdpgate_service::config`].

mod api;
mod authority;
mod feeds;
mod nodes;
mod oidc;
mod peers;
mod store;

pub use api::Api;
pub use authority::Authority;
pub use feeds::{Feeds, Kubernetes};
pub use nodes::Nodes;
pub use oidc::Oidc;
pub use peers::Peers;
pub use store::{Etcd, Store};

use std::path::PathBuf;
use std::sync::LazyLock;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use xdpgate_service::config::{Configuration, Invalid, schema_of};
use xdpgate_service::logging::Log;

/// The configuration of xdpgate-controller: every key with its default. `xdpgate-controller serve --config FILE`
/// reads it, and `xdpgate-controller check --config FILE` says what is wrong in it.
///
/// What counts, the first that has the key: flags; the environment, XDPGATE_CONTROLLER_SECTION_KEY (as
/// XDPGATE_CONTROLLER_NODES_LISTEN; lists are separated by commas); this file; the default.
/// `xdpgate-controller config show` prints what is in force, and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the controller keeps what is its own: the SQLite file, unless `[store]` says otherwise.
    pub state_dir: PathBuf,
    /// Where it is kept what all controllers know.
    pub store: Store,
    /// REST for people and tools, and the web interface.
    pub api: Api,
    /// Login by an identity provider (OpenID Connect), beside that by a password. It is on when `issuer` is set.
    pub oidc: Oidc,
    /// gRPC for nodes.
    pub nodes: Nodes,
    /// What other controllers of the same etcd know this one by.
    pub peers: Peers,
    /// The embedded certificate authority of nodes and controllers.
    pub authority: Authority,
    /// What feeds may read: address lists that are made over the API.
    pub feeds: Feeds,
    /// What is logged on stderr, and in which form.
    pub log: Log,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            state_dir: PathBuf::from("/var/lib/xdpgate-controller"),
            store: Store::default(),
            api: Api::default(),
            oidc: Oidc::default(),
            nodes: Nodes::default(),
            peers: Peers::default(),
            authority: Authority::default(),
            feeds: Feeds::default(),
            log: Log::default(),
        }
    }
}

impl Configuration for Config {
    const PREFIX: &'static str = "XDPGATE_CONTROLLER_";
    const FILE_VARIABLE: &'static str = "XDPGATE_CONTROLLER_CONFIG";

    fn schema() -> &'static Value {
        static SCHEMA: LazyLock<Value> = LazyLock::new(schema_of::<Config>);
        &SCHEMA
    }

    fn invalid(&self) -> Vec<Invalid> {
        let mut invalid = self.store.invalid();
        invalid.extend(self.api.invalid());
        invalid.extend(self.oidc.invalid());
        invalid.extend(self.nodes.invalid());
        invalid.extend(self.peers.invalid(&self.nodes));
        invalid.extend(self.authority.invalid());
        invalid.extend(self.feeds.invalid());
        invalid
    }
}

/// Whether it is `HOST:PORT`, to be dialled.
fn is_host_and_port(text: &str) -> bool {
    let authority = text.parse::<axum::http::uri::Authority>();
    authority.is_ok_and(|a| a.port().is_some() && !a.as_str().contains('@'))
}

/// `ADDRESS:PORT`, or why not, with the key.
fn address(key: &str, text: &str) -> Result<std::net::SocketAddr, Invalid> {
    text.parse().map_err(|_| {
        let reason = format!("{text:?} is not ADDRESS:PORT, as 127.0.0.1:8080 or [::]:8443");
        Invalid::new(key, reason)
    })
}
