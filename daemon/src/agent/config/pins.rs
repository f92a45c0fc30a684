//! `[pins]`: what outlives the daemon.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xdpgate::Pinning;

/// By pins in a BPF file system the firewall goes on judging when the daemon ends, in whatever way, and
/// the next one takes over without a gap.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::agent) struct Pins {
    /// Whether the firewall outlives the daemon.
    pub pinning: PinMode,
    /// The directory of the pins.
    pub root: PathBuf,
    /// Whether a BPF file system may be mounted at /sys/fs/bpf.
    pub mount_bpffs: bool,
}

/// Whether the firewall outlives the daemon.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub(in crate::agent) enum PinMode {
    /// If there is a BPF file system, or one can be mounted
    Auto,
    /// Or do not start
    Require,
    /// No; what was pinned before is taken over and its pins are removed
    Off,
}

impl Default for Pins {
    fn default() -> Self {
        Self {
            pinning: PinMode::Auto,
            root: PathBuf::from("/sys/fs/bpf/xdpgate"),
            mount_bpffs: true,
        }
    }
}

impl From<PinMode> for Pinning {
    fn from(mode: PinMode) -> Self {
        match mode {
            PinMode::Auto => Self::Auto,
            PinMode::Require => Self::Require,
            PinMode::Off => Self::Off,
        }
    }
}
