//! `[[bridge]]`: pairs of ports.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xdpgate::Filter;

use super::Invalid;

/// Transparent bridges: what comes in by one port and is not dropped goes out by the other, in the
/// driver.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::agent) struct Bridge {
    /// The port to the outside.
    #[schemars(example = &"eth1")]
    pub outer: String,
    /// The port to what is protected.
    #[schemars(example = &"eth2")]
    pub inner: String,
    /// Which direction is judged.
    #[serde(default)]
    pub filter: Direction,
}

/// Which direction of a bridge is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::agent) enum Direction {
    /// What comes in by outer
    Inbound,
    /// What comes in by inner
    Outbound,
    /// What comes in by either
    #[default]
    Both,
}

impl From<Direction> for Filter {
    fn from(direction: Direction) -> Self {
        match direction {
            Direction::Inbound => Self::Inbound,
            Direction::Outbound => Self::Outbound,
            Direction::Both => Self::Both,
        }
    }
}

/// A port is in one bridge, and once.
pub(super) fn invalid(bridges: &[Bridge]) -> Vec<Invalid> {
    let mut invalid = Vec::new();
    let mut seen: Vec<&str> = Vec::new();
    for (index, bridge) in bridges.iter().enumerate() {
        for (key, port) in [("outer", &bridge.outer), ("inner", &bridge.inner)] {
            if seen.contains(&port.as_str()) {
                let key = format!("bridge[{index}].{key}");
                invalid.push(Invalid::new(key, format!("{port} is a port already")));
            }
            seen.push(port);
        }
    }
    invalid
}
