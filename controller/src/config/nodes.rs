//! `[nodes]`: gRPC for nodes.

use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xdpgate_service::config::Invalid;

/// gRPC for nodes, always with TLS, by certificates of the embedded authority.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Nodes {
    /// Where, as ADDRESS:PORT.
    pub listen: String,
    /// Under which names and addresses nodes dial this controller, as HOST:PORT: they are in its certificate.
    /// Default: `listen`.
    #[schemars(example = &["controller-1.example:8443"])]
    pub advertise: Vec<String>,
    /// How often a node says how it is, in seconds.
    #[schemars(range(min = 1, max = 3600))]
    pub heartbeat_seconds: u32,
    /// How many nodes may be connected at one time.
    #[schemars(range(min = 1))]
    pub max_sessions: u32,
}

impl Default for Nodes {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8443".to_owned(),
            advertise: Vec::new(),
            heartbeat_seconds: 10,
            max_sessions: 20_000,
        }
    }
}

impl Nodes {
    /// Where it is served.
    ///
    /// # Errors
    /// It is not ADDRESS:PORT.
    pub fn address(&self) -> Result<SocketAddr, Invalid> {
        super::address("nodes.listen", &self.listen)
    }

    /// Hosts and ports under which nodes dial, those of `advertise` or `listen`.
    pub fn advertised(&self) -> Vec<String> {
        match self.advertise.as_slice() {
            [] => vec![self.listen.clone()],
            named => named.to_vec(),
        }
    }

    pub(super) fn invalid(&self) -> Vec<Invalid> {
        let mut invalid: Vec<Invalid> = Vec::new();
        match self.address() {
            Err(error) => invalid.push(error),
            Ok(address) if address.ip().is_unspecified() && self.advertise.is_empty() => {
                invalid.push(Invalid::new(
                    "nodes.advertise",
                    format!("name how nodes dial this controller, as HOST:PORT: {address} is no address to dial"),
                ));
            }
            Ok(_) => {}
        }
        for (index, host) in self.advertise.iter().enumerate() {
            if !super::is_host_and_port(host) {
                let key = format!("nodes.advertise[{index}]");
                invalid.push(Invalid::new(key, format!("{host:?} is not HOST:PORT")));
            }
        }
        invalid
    }
}
