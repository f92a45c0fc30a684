//! The configuration: one struct for the file, one for each of its sections, in a file of its own.
//!
//! What the keys mean, and their defaults, is said once: in the docs and the `Default` of these structs.
//! `xdpgated config print-default` and `config schema` print it, and what is read is checked against it before
//! a section checks itself ([`xdpgate_service::config`]). A new section is a struct with
//! `#[serde(default, deny_unknown_fields)]`, a field of [`Config`], and a line in [`Config::invalid`].

mod api;
mod bridge;
mod interfaces;
mod pins;

pub(super) use api::{Api, Tls};
pub(super) use bridge::Bridge;
pub(super) use interfaces::{Interfaces, Mode};
pub(super) use pins::{PinMode, Pins};
pub(super) use xdpgate_service::config::{
    Configuration, Invalid, Override, Problem, default_file, differences, effective, environment,
    json_schema, keep, load,
};

use std::path::PathBuf;
use std::sync::LazyLock;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::fleet::Section as Fleet;
use super::monitor::Metrics;
use xdpgate_service::logging::Log;

/// The configuration of xdpgated: every key with its default. `xdpgated --config FILE` reads it, and
/// `xdpgated check --config FILE` says what is wrong in it.
///
/// What counts, the first that has the key: flags; the environment, XDPGATED_SECTION_KEY (as
/// XDPGATED_INTERFACES_MODE; lists are separated by commas); this file; the default. `xdpgated config
/// show` prints what is in force, and where it comes from. SIGHUP and `xdpgate reload` read it again;
/// docs/service.md says which keys take effect at once.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Config {
    /// Drop for real at each start, unless it is in pass mode. Until then everything is judged and
    /// counted, and nothing is dropped, or a mode that was chosen by a call holds.
    pub enforce: bool,
    /// The policy for as long as none is saved in state_dir: a first start. Default: none, everything
    /// passes.
    #[schemars(example = &"/etc/xdpgate/policy.yaml")]
    pub policy: Option<PathBuf>,
    /// Where the policy in force is saved, so that it comes back after a restart, and the original
    /// settings of the ports of bridges.
    pub state_dir: PathBuf,
    /// How many rules a policy may have, together with the one that it replaces.
    #[schemars(range(min = 1))]
    pub max_rules: u32,
    /// How many interfaces may be attached at one time.
    #[schemars(range(min = 1))]
    pub max_interfaces: u16,
    /// How many bans may be in force at one time; one of both directions is two.
    pub max_bans: u32,
    pub api: Api,
    pub interfaces: Interfaces,
    pub pins: Pins,
    pub bridge: Vec<Bridge>,
    pub log: Log,
    pub metrics: Metrics,
    pub fleet: Fleet,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enforce: false,
            policy: None,
            state_dir: PathBuf::from("/var/lib/xdpgate"),
            max_rules: 16_384,
            max_interfaces: 256,
            max_bans: 65_536,
            api: Api::default(),
            interfaces: Interfaces::default(),
            pins: Pins::default(),
            bridge: Vec::new(),
            log: Log::default(),
            metrics: Metrics::default(),
            fleet: Fleet::default(),
        }
    }
}

/// A configuration that was read and is right.
pub(super) type Loaded = xdpgate_service::config::Loaded<Config>;

impl Configuration for Config {
    const PREFIX: &'static str = "XDPGATED_";
    const FILE_VARIABLE: &'static str = "XDPGATED_CONFIG";

    fn schema() -> &'static Value {
        static SCHEMA: LazyLock<Value> =
            LazyLock::new(xdpgate_service::config::schema_of::<Config>);
        &SCHEMA
    }

    fn invalid(&self) -> Vec<Invalid> {
        let mut invalid = Vec::new();
        for checked in [
            self.api.endpoints().map(drop),
            self.metrics.endpoint().map(drop),
            self.fleet.check(),
        ] {
            invalid.extend(checked.err().map(|reason| Invalid::named(&reason)));
        }
        invalid.extend(self.interfaces.invalid());
        invalid.extend(bridge::invalid(&self.bridge));
        invalid
    }
}
