//! The command line of `xdpgated`.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use serde::Deserialize;
use xdpgate::{AttachMode, ModePreference};

use super::access::TokenCommand;
use super::config::PinMode;
use super::logging::{Format, Level, Log};
use crate::endpoint::Endpoint;

/// Keeps an XDP firewall on network interfaces and serves its API.
///
/// Without --enforce this is a dry run: every frame is judged and counted, none is dropped. What
/// would have been dropped is in `xdpgate stats` as would_drop.
#[derive(Debug, Clone, Parser)]
#[command(name = "xdpgated", version, after_help = HELP, args_conflicts_with_subcommands = true)]
pub(super) struct Args {
    /// The configuration file; without one all is as its defaults have it
    #[arg(long, value_name = "FILE", env = "XDPGATED_CONFIG")]
    pub config: Option<PathBuf>,
    /// An interface to filter, in place of those that the configuration selects; repeat it for more.
    /// All are attached, or none
    #[arg(long = "interface", value_name = "NAME")]
    pub interfaces: Vec<String>,
    /// The policy for as long as none is saved; without one everything passes until `xdpgate policy
    /// apply`
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// Drop for real
    #[arg(long)]
    pub enforce: bool,
    /// Where in the receive path to run [default: best]
    #[arg(long, value_enum)]
    pub mode: Option<Mode>,
    /// Where to serve the API: unix:PATH, https://ADDRESS:PORT (the configuration has the certificates) or
    /// a loopback ADDRESS:PORT in the clear; repeat it for more [default:
    /// unix:/run/xdpgate/xdpgated.sock]
    #[arg(long, value_name = "WHERE")]
    pub listen: Vec<Endpoint>,
    /// Let every user of this host change everything by a loopback ADDRESS:PORT of --listen
    #[arg(long)]
    pub insecure_loopback: bool,
    /// Whether the filter outlives the daemon, by pins [default: auto]
    #[arg(long, value_enum, value_name = "WHETHER", env = "XDPGATED_PIN")]
    pub pin: Option<PinMode>,
    /// The directory of the pins [default: /sys/fs/bpf/xdpgate]
    #[arg(long, value_name = "DIR", env = "XDPGATED_PIN_ROOT")]
    pub pin_root: Option<PathBuf>,
    /// Where the policy is saved [default: /var/lib/xdpgate]
    #[arg(long, value_name = "DIR", env = "XDPGATED_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
    /// How many rules a policy may have, together with the one that it replaces [default: 16384]
    #[arg(long, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub max_rules: Option<u32>,
    /// Where to serve /metrics, /healthz and /readyz over HTTP: a loopback ADDRESS:PORT or unix:PATH
    /// [default: nowhere]
    #[arg(long, value_name = "WHERE")]
    pub metrics_listen: Option<String>,
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
    #[command(subcommand)]
    pub command: Option<Command>,
}

impl Args {
    /// How to log, where the configuration says `from_file`.
    pub(super) fn log(&self, from_file: Log) -> Log {
        Log {
            level: self.log_level.unwrap_or(from_file.level),
            format: self.log_format.unwrap_or(from_file.format),
        }
    }
}

/// What the program does in place of being a daemon.
#[derive(Debug, Clone, Subcommand)]
pub(super) enum Command {
    /// Make tokens for the API
    #[command(subcommand)]
    Token(TokenCommand),
}

const HELP: &str = "\
Without --interface it attaches all physical interfaces, and those that appear later, or as the
configuration file says. Flags come before the file.

It runs until SIGINT, SIGTERM or `xdpgate stop`. What is pinned goes on judging then, as after a crash,
and the next xdpgated takes over without a gap. `xdpgate stop --detach` leaves nothing behind.
Exit codes: 0 stopped, 1 it did not work, 2 wrong use, bad configuration or bad policy. When it cannot
start nothing has changed.

Examples:
  xdpgated                                       all physical interfaces, dry run
  xdpgate interfaces                             which are they, and in which mode?
  xdpgate policy apply policy.yaml
  xdpgate stats                                  what would have been dropped?
  xdpgated --enforce
  xdpgated --metrics-listen 127.0.0.1:29187      curl http://127.0.0.1:29187/metrics
  xdpgated --interface eth0 --policy policy.yaml --mode native
  xdpgated --config xdpgated.toml --listen https://0.0.0.0:50051    the file has [api.tls]
  xdpgated token new --name grafana --role viewer";

/// Where in the receive path the program may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Mode {
    /// The best that the interface has: offload, native, generic
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
