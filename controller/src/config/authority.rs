//! `[authority]`: the embedded certificate authority of nodes and controllers.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xdpgate_service::config::Invalid;

/// The embedded certificate authority of nodes and controllers, made at the first start.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Authority {
    /// A file of 32 random bytes by which private keys are encrypted in the store; only the owner may read it. All
    /// controllers need the same. Default: they are stored as they are, and who reads the store has them.
    #[schemars(example = &"/etc/xdpgate/authority.key")]
    pub key_file: Option<PathBuf>,
    /// How long the certificate of a node lasts, in days; it is renewed after two thirds.
    #[schemars(range(min = 1, max = 3650))]
    pub node_days: u32,
    /// Whether states are signed with the key of the fleet: nodes refuse what it did not sign, from the time that they know it.
    pub sign: bool,
}

impl Default for Authority {
    fn default() -> Self {
        Self {
            key_file: None,
            node_days: 90,
            sign: true,
        }
    }
}

impl Authority {
    pub(super) fn invalid(&self) -> Vec<Invalid> {
        match &self.key_file {
            Some(path) if path.as_os_str().is_empty() => {
                vec![Invalid::new(
                    "authority.key_file",
                    "it is empty: leave it out, or name a file",
                )]
            }
            _ => Vec::new(),
        }
    }
}
