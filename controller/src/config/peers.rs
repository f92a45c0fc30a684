//! `[peers]`: what other controllers know this one by.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xdpgate_service::config::Invalid;

use super::{Nodes, is_host_and_port};
use crate::domain::Name;

/// What other controllers of the same etcd know this one by.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Peers {
    /// Its name: the same after a restart, and of no other controller. Default: made of the first of nodes.advertise.
    #[schemars(example = &"controller-1")]
    pub name: Option<String>,
    /// Where they reach the listener of nodes of this very controller, not one of several behind a load balancer, as
    /// HOST:PORT. Default: the first of nodes.advertise.
    #[schemars(example = &"controller-1.internal:8443")]
    pub address: Option<String>,
}

impl Peers {
    /// The name of this controller.
    ///
    /// # Errors
    /// None can be made.
    pub fn name(&self, nodes: &Nodes) -> Result<Name, Invalid> {
        let made = || self.address(nodes).replace([':', '[', ']'], "-");
        let name = self.name.clone().unwrap_or_else(made);
        Name::new(name.trim_matches('-')).map_err(|e| Invalid::new("peers.name", e.to_string()))
    }

    /// Where other controllers reach it.
    pub fn address(&self, nodes: &Nodes) -> String {
        let first = || nodes.advertised().into_iter().next();
        self.address.clone().or_else(first).unwrap_or_default()
    }

    pub(super) fn invalid(&self, nodes: &Nodes) -> Vec<Invalid> {
        let mut invalid: Vec<Invalid> = self.name(nodes).err().into_iter().collect();
        if let Some(address) = &self.address
            && !is_host_and_port(address)
        {
            let reason = format!("{address:?} is not HOST:PORT");
            invalid.push(Invalid::new("peers.address", reason));
        }
        invalid
    }
}
