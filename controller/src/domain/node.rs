//! Registered nodes.

use serde::{Deserialize, Serialize};

use super::{Labels, NodeId, Touch};

/// A member of the fleet, as the store has it. What it is doing now is known by its session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Its identity, for good.
    pub id: NodeId,
    /// Grows with each change; for `expect`.
    pub version: u64,
    /// What people call it; need not be unique.
    pub name: String,
    /// Labels that the node brought.
    #[serde(default)]
    pub own_labels: Labels,
    /// Labels that operators gave it; they win.
    #[serde(default)]
    pub set_labels: Labels,
    /// Somebody works on it: it gets its states, and nobody is alarmed when it is away.
    #[serde(default)]
    pub maintenance: bool,
    /// It is shut out, whatever certificate it has.
    #[serde(default)]
    pub revoked: bool,
    /// Serial numbers, in hexadecimal, of its certificates that are revoked.
    #[serde(default)]
    pub revoked_serials: Vec<String>,
    /// When it joined, and by which token.
    pub created: Touch,
    /// Who changed it last.
    pub updated: Touch,
}

impl NodeRecord {
    /// The labels that count: those of operators over those of the node.
    pub fn labels(&self) -> Labels {
        let mut labels = self.own_labels.clone();
        labels.extend(self.set_labels.clone());
        labels
    }
}
