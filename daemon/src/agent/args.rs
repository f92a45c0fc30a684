//! The command line of `xdpgated`.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use serde_json::Value;

use super::access::TokenCommand;
use super::config::{
    Config, Configuration, Loaded, Mode, Override, PinMode, Problem, environment, load,
};
use crate::endpoint::Endpoint;
use xdpgate_service::logging;

/// Keeps an XDP firewall on network interfaces and serves its API.
///
/// Without --enforce this is a dry run: every frame is judged and counted, none is dropped. What
/// would have been dropped is in `xdpgate stats` as would_drop.
#[derive(Debug, Clone, Parser)]
#[command(name = "xdpgated", version, after_help = HELP, args_conflicts_with_subcommands = true)]
pub(super) struct Cli {
    #[command(flatten)]
    pub args: Args,
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What the program does in place of running.
#[derive(Debug, Clone, Subcommand)]
pub(super) enum Command {
    /// Run; the same as without a command
    Run(Args),
    /// Say all that is wrong in configuration and policy, and touch nothing
    #[command(after_help = CHECK_HELP)]
    Check(Args),
    /// Print the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Make tokens for the API
    #[command(subcommand)]
    Token(TokenCommand),
}

/// What is printed of the configuration.
#[derive(Debug, Clone, Subcommand)]
pub(super) enum ConfigCommand {
    /// The file with every key, its default and what it is
    #[command(after_help = PRINT_HELP)]
    PrintDefault,
    /// The JSON Schema of the file
    #[command(after_help = SCHEMA_HELP)]
    Schema,
    /// What is in force, and where it comes from
    #[command(after_help = SHOW_HELP)]
    Show(Args),
}

/// The flags of the daemon.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// The configuration file; without one all is as its defaults have it
    #[arg(long, value_name = "FILE", env = Config::FILE_VARIABLE)]
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
    #[arg(long, value_enum, value_name = "WHETHER")]
    pub pin: Option<PinMode>,
    /// The directory of the pins [default: /sys/fs/bpf/xdpgate]
    #[arg(long, value_name = "DIR")]
    pub pin_root: Option<PathBuf>,
    /// Where the policy is saved [default: /var/lib/xdpgate]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// How many rules a policy may have, together with the one that it replaces [default: 16384]
    #[arg(long, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub max_rules: Option<u32>,
    /// Where to serve /metrics, /healthz and /readyz over HTTP: a loopback ADDRESS:PORT or unix:PATH
    /// [default: nowhere]
    #[arg(long, value_name = "WHERE")]
    pub metrics_listen: Option<String>,
    /// How it logs.
    #[command(flatten)]
    pub log: logging::Flags,
}

impl Args {
    /// The configuration with these flags, the environment and the file.
    ///
    /// # Errors
    ///
    /// All that is wrong.
    pub(super) fn load(&self) -> Result<Loaded, Vec<Problem>> {
        load(
            self.config.as_deref(),
            &environment::<Config>(),
            &self.overrides(),
        )
    }

    /// What the flags say of keys.
    fn overrides(&self) -> Vec<Override> {
        let path = |path: &PathBuf| Value::from(path.to_string_lossy());
        let said = [
            (
                "--enforce",
                "enforce",
                self.enforce.then_some(Value::Bool(true)),
            ),
            (
                "--listen",
                "api.listen",
                (!self.listen.is_empty()).then(|| {
                    let all = self.listen.iter().map(ToString::to_string);
                    all.collect::<Vec<_>>().into()
                }),
            ),
            (
                "--insecure-loopback",
                "api.insecure_loopback",
                self.insecure_loopback.then_some(Value::Bool(true)),
            ),
            (
                "--metrics-listen",
                "metrics.listen",
                self.metrics_listen.clone().map(Value::from),
            ),
            ("--policy", "policy", self.policy.as_ref().map(path)),
            (
                "--state-dir",
                "state_dir",
                self.state_dir.as_ref().map(path),
            ),
            ("--max-rules", "max_rules", self.max_rules.map(Value::from)),
            (
                "--mode",
                "interfaces.mode",
                self.mode.map(|mode| serde_json::json!(mode)),
            ),
            (
                "--pin",
                "pins.pinning",
                self.pin.map(|pin| serde_json::json!(pin)),
            ),
            ("--pin-root", "pins.root", self.pin_root.as_ref().map(path)),
        ];
        Override::of(said.into_iter().chain(self.log.said()))
    }
}

const HELP: &str = "\
Without --interface it attaches all physical interfaces, and those that appear later, or as the
configuration file says. For each key of the file counts, the first that has it: flags, the environment
(XDPGATED_ and the key, as XDPGATED_INTERFACES_MODE), the file, the default. SIGHUP reads it again.

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

const CHECK_HELP: &str = "\
Exit codes: 0 all is well, 2 something is wrong: a line for each, with file, line, key and reason.

Examples:
  xdpgated check --config /etc/xdpgate/xdpgated.toml
  xdpgated check --policy policy.yaml --mode native";

const PRINT_HELP: &str = "\
Example:
  xdpgated config print-default > /etc/xdpgate/xdpgated.toml";

const SCHEMA_HELP: &str = "\
Example:
  xdpgated config schema > xdpgated.schema.json      for editors that check TOML by a schema";

const SHOW_HELP: &str = "\
Behind each value that is not the default is its flag, its variable, or its line of the file.

Examples:
  xdpgated config show --config /etc/xdpgate/xdpgated.toml
  XDPGATED_INTERFACES_MODE=native xdpgated config show";
