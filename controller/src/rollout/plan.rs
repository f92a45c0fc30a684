//! The stages of a rollout, and which nodes each reaches.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use xxhash_rust::xxh3::xxh3_64;

/// A stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// Which nodes have the new version from this stage on.
    pub reach: Reach,
    /// How long all of them must have had it, and be well, before the next stage, in seconds.
    #[serde(default)]
    pub bake_seconds: u32,
}

/// Which nodes a stage reaches, beside those of the stages before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// These nodes, by their ids: the canary, also where a number was asked for.
    Nodes(Vec<String>),
    /// So many percent, the same ones as long as the rollout lasts; nodes that join meanwhile included.
    Percent(u8),
    /// Those whose labels a selector chooses, as `zone=a`.
    Selector(String),
    /// Every node.
    All,
}

impl Reach {
    pub(super) fn holds(&self, rollout: &str, node: &str, selects: &impl Fn(&str) -> bool) -> bool {
        match self {
            Self::Nodes(nodes) => nodes.iter().any(|n| n == node),
            Self::Percent(percent) => {
                // Of 2^64 places the first so many percent.
                let limit = u128::from(*percent) * (1 << 64) / 100;
                u128::from(rank(rollout, node)) < limit
            }
            Self::Selector(selector) => selects(selector),
            Self::All => true,
        }
    }
}

/// The place of a node in the order in which a rollout reaches nodes: the same on every controller, another one for
/// each rollout, so that it is not always the same nodes that go first.
pub fn rank(rollout: &str, node: &str) -> u64 {
    xxh3_64(format!("{rollout}/{node}").as_bytes())
}
