//! Groups: which policies are for which nodes.

use serde::{Deserialize, Serialize};

use super::{Mode, Name, Selector, Touch};

/// Nodes, by their labels, and what they shall have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// The name.
    pub name: Name,
    /// Grows with each change; for `expect`.
    pub version: u64,
    /// Which nodes.
    pub selector: Selector,
    /// What they have, in this order.
    #[serde(default)]
    pub policies: Vec<Name>,
    /// Groups of a lower rank come first, ties by name.
    #[serde(default)]
    pub rank: u32,
    /// The mode of its nodes; absent: as another group says, or as the node has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Who made it.
    pub created: Touch,
    /// Who changed it last.
    pub updated: Touch,
}
