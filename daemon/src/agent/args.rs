//! The command line of `xdpgated`.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use xdpgate::{AttachMode, ModePreference};

use crate::endpoint::Endpoint;

/// Keeps an XDP firewall on network interfaces and serves its API.
///
/// Without --enforce this is a dry run: every frame is judged and counted, none is dropped. What
/// would have been dropped is in `xdpgate stats` as would_drop.
#[derive(Debug, Parser)]
#[command(name = "xdpgated", version, after_help = HELP)]
pub(super) struct Args {
    /// An interface to filter; repeat it for more. All are attached, or none
    #[arg(long = "interface", value_name = "NAME", required = true)]
    pub interfaces: Vec<String>,
    /// The policy to start with; without one everything passes until `xdpgate policy apply`
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// Drop for real
    #[arg(long)]
    pub enforce: bool,
    /// Where in the receive path to run
    #[arg(long, value_enum, default_value_t = Mode::Best)]
    pub mode: Mode,
    /// Where to serve the API: unix:PATH (only its owner may use it) or a loopback ADDRESS:PORT
    /// (every user of this host may)
    #[arg(long, value_name = "WHERE", default_value = Endpoint::DEFAULT)]
    pub listen: Endpoint,
    /// How many rules a policy may have, together with the one that it replaces
    #[arg(long, value_name = "N", default_value_t = 16_384)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub max_rules: u32,
    /// What to log on stderr; RUST_LOG says it in more detail
    #[arg(long, value_name = "LEVEL", value_parser = log_level, default_value = "info")]
    pub log_level: log::LevelFilter,
}

const HELP: &str = "\
It runs until SIGINT or SIGTERM, and then leaves nothing behind.
Exit codes: 0 stopped by a signal, 1 it did not work, 2 wrong use or bad policy. When it cannot start
nothing has changed.

Examples:
  xdpgated --interface eth0 --policy policy.yaml
  xdpgate stats                                  what would have been dropped?
  xdpgated --interface eth0 --policy policy.yaml --enforce
  xdpgated --interface eth0 --interface eth1 --mode native --listen 127.0.0.1:50051";

/// Where in the receive path the program may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Mode {
    /// Native where the driver can, else generic
    Best,
    /// In the driver, or not at all
    Native,
    /// In the network stack: slower
    Generic,
}

impl From<Mode> for ModePreference {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Best => Self::BestAvailable,
            Mode::Native => Self::Exactly(AttachMode::Native),
            Mode::Generic => Self::Exactly(AttachMode::Generic),
        }
    }
}

fn log_level(text: &str) -> Result<log::LevelFilter, String> {
    text.parse()
        .map_err(|_| "it is one of off, error, warn, info, debug, trace".to_owned())
}
