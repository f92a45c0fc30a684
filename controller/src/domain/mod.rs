//! What a fleet is made of: policies, address sets, groups and nodes. Pure: nothing here reads or writes.

pub mod diff;
mod group;
mod labels;
mod name;
mod node;
mod policy;
mod rules;
mod selector;
mod set;

pub use group::Group;
pub use labels::{Labels, LabelsError, check_labels};
pub use name::{Name, NameError, NodeId};
pub use node::NodeRecord;
pub use policy::{PolicyContent, PolicyState, Settings};
pub use rules::{Difference, RuleState, Rules, set_names};
pub use selector::{Selector, SelectorError};
pub use set::SetState;

use serde::{Deserialize, Serialize};

/// Who changed a thing, when and why, and which version came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Touch {
    /// The user, token or part of the controller.
    pub by: String,
    /// When.
    pub at: jiff::Timestamp,
    /// Why, in the words of who did it; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

/// Whether nodes carry verdicts out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// They do.
    Enforce,
    /// They judge and count, and let all pass.
    DryRun,
}

/// What a user may do. Each may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Look at everything but secrets.
    Viewer,
    /// Change policies, sets, groups, rollouts and nodes.
    Operator,
    /// Change users, tokens, the authority and the settings of the fleet.
    Admin,
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Enforce => "enforce",
            Self::DryRun => "dry_run",
        })
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        })
    }
}
