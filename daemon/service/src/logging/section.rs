//! `[log]` of the configuration.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::Said;

/// What is logged on stderr, and in which form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// off, error, warn, info, debug or trace. `RUST_LOG` in the environment says it in more detail, and
    /// goes before this.
    pub level: Level,
    /// text, or json: one object on each line.
    pub format: Format,
}

/// How much is logged.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Nothing
    Off,
    /// What failed
    Error,
    /// What is not as it should be
    Warn,
    /// What was done, nothing that comes with each packet, rule or ban
    #[default]
    Info,
    /// Each step, of the library too
    Debug,
    /// All
    Trace,
}

/// The form of a line.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For people: time, level, where it comes from, message
    #[default]
    Text,
    /// For machines: an object with time, level, target, message and what it is about
    Json,
}

impl From<Level> for log::LevelFilter {
    fn from(level: Level) -> Self {
        match level {
            Level::Off => Self::Off,
            Level::Error => Self::Error,
            Level::Warn => Self::Warn,
            Level::Info => Self::Info,
            Level::Debug => Self::Debug,
            Level::Trace => Self::Trace,
        }
    }
}

/// The flags of a server that say how it logs; they go before `[log]`.
#[derive(Debug, Clone, clap::Args)]
pub struct Flags {
    /// What to log on stderr: off, error, warn, info, debug or trace; RUST_LOG says it in more detail
    /// [default: info]
    #[arg(
        long,
        value_name = "LEVEL",
        value_enum,
        ignore_case = true,
        hide_possible_values = true
    )]
    pub log_level: Option<Level>,
    /// The form of the log: text, or json with one object on each line [default: text]
    #[arg(
        long,
        value_name = "FORM",
        value_enum,
        ignore_case = true,
        hide_possible_values = true
    )]
    pub log_format: Option<Format>,
}

impl Flags {
    /// What they say, for [`Override::of`](crate::config::Override::of).
    pub fn said(&self) -> [Said; 2] {
        let level = self.log_level.map(|level| serde_json::json!(level));
        let format = self.log_format.map(|format| serde_json::json!(format));
        [
            ("--log-level", "log.level", level),
            ("--log-format", "log.format", format),
        ]
    }
}
