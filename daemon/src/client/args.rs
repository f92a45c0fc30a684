//! The command line of `xdpgate`. The arguments of a command are where the command is.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use xdpgate_api::v1::ModePreference;

use super::out::Color;
use super::{
    bans, entries, eval, events, fleet, interfaces, mode, pins, policy, rules, sets, shell, status,
    top,
};
use crate::endpoint::Endpoint;

/// Commands for the XDP firewall xdpgate: those that ask the daemon of this host, and those that
/// need none.
#[derive(Debug, Parser)]
#[command(name = "xdpgate", version, after_help = HELP)]
pub(super) struct Cli {
    /// Whether text is coloured
    #[arg(long, value_enum, value_name = "WHEN", global = true, default_value_t = Color::Auto)]
    #[arg(
        hide_possible_values = true,
        help = "Colour the text: auto, always or never"
    )]
    pub color: Color,
    #[command(subcommand)]
    pub command: Command,
}

const HELP: &str = "\
Exit codes: 0 done, 1 it did not work (`policy diff`: they differ), 2 wrong use or bad input.
With --json every command prints one object, and what follows a stream one object a line. Names
and values are those of the API, see `docs/cli.md`.

Examples:
  xdpgate policy check policy.yaml            is it right?
  xdpgate policy plan policy.yaml             what would it change?
  xdpgate policy apply policy.yaml --confirm-within 60s
  xdpgate confirm                             keep it
  xdpgate interfaces                          what is attached, and how
  xdpgate preflight eth0                      what stands in the way of native mode?
  xdpgate top                                 what passes and what drops, live
  xdpgate ban 203.0.113.7 --for 1h
  xdpgate panic-off                           drop nothing, at once
  xdpgate eval --policy policy.yaml --pcap traffic.pcap --oracle   try it, without root";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show what the daemon is doing: mode, policy, interfaces, programs
    Status(status::Status),
    /// Show the host, the process and the programs in the kernel
    System(status::System),
    /// Show the counters: verdicts by interface and reason, hits by rule
    Stats(status::Stats),
    /// Watch what passes and what drops: interfaces, rules and sources by rate
    Top(top::Top),
    /// Watch sampled frames that are dropped, or would be; save them for Wireshark
    Events(events::Events),
    /// Show the interfaces: what is attached and how, and why the others are not
    Interfaces(interfaces::List),
    /// Attach an interface, beside those that the daemon's configuration selects
    Attach(interfaces::Attach),
    /// Detach an interface; it stays so until it is attached again or the daemon is started anew
    Detach(interfaces::Detach),
    /// Say what attaching would come to, what stands in its way, and what mends it; changes nothing
    Preflight(interfaces::Preflight),
    /// Show how this node stands with its fleet
    #[command(subcommand)]
    Fleet(fleet::Fleet),
    /// Check, plan, apply, confirm, compare, convert or read back a policy
    #[command(subcommand)]
    Policy(policy::Policy),
    /// Show or change single rules of the policy in force
    #[command(subcommand)]
    Rule(rules::Rule),
    /// Show the rules in force: the same as `rule list`
    Rules(rules::List),
    /// Show, import or change address sets of the policy in force
    #[command(subcommand)]
    Set(sets::Set),
    /// Show which entries of a set were hit, the most hit first
    Entries(entries::Entries),
    /// Drop what comes from an address or prefix, from now on and for a time
    Ban(bans::BanArgs),
    /// Lift a ban, or all
    Unban(bans::UnbanArgs),
    /// Show the bans in force
    Bans(bans::List),
    /// Drop for real what is judged as drop
    Enforce(mode::Enforce),
    /// Judge and count, but drop nothing
    DryRun(mode::DryRun),
    /// Drop nothing from now on, whatever happens, also if the daemon is gone
    PanicOff(mode::PanicOff),
    /// Keep the change that waits for its confirmation: the same as `policy confirm`
    Confirm(policy::Confirm),
    /// Have the daemon read its configuration file again
    Reload(mode::Reload),
    /// End the daemon; what is pinned goes on judging without it, unless --detach is given
    Stop(mode::Stop),
    /// Judge the frames of a capture file by a policy, or by the one that is in force
    Eval(eval::Eval),
    /// Load the program with a policy and pin it, attached to nothing (root)
    Load(pins::Load),
    /// Remove what `load` or a daemon that is gone has pinned; detaches its interfaces (root)
    Unload(pins::Unload),
    /// Print what makes a shell complete these commands
    Completions(shell::Completions),
    /// Write the manual pages of xdpgate and xdpgated
    Man(shell::Man),
}

/// Which daemon, and in which form.
#[derive(Debug, Clone, Args)]
pub(super) struct Remote {
    /// Where the daemon listens: unix:PATH, https://HOST:PORT or http://LOOPBACK:PORT
    #[arg(long, value_name = "WHERE", env = "XDPGATE_SERVER", default_value = Endpoint::DEFAULT)]
    pub server: Endpoint,
    /// With https: the CA of the daemon's certificate, in PEM
    #[arg(long, value_name = "FILE", env = "XDPGATE_CA")]
    pub ca: Option<PathBuf>,
    /// With https: our certificate, in PEM
    #[arg(long, value_name = "FILE", env = "XDPGATE_CERT", requires = "key")]
    pub cert: Option<PathBuf>,
    /// With https: the key of our certificate; only its owner may read the file
    #[arg(long, value_name = "FILE", env = "XDPGATE_KEY", requires = "cert")]
    pub key: Option<PathBuf>,
    /// With https: the name in the daemon's certificate, if it is not HOST
    #[arg(long, value_name = "NAME", env = "XDPGATE_SERVER_NAME")]
    pub server_name: Option<String>,
    /// A file that holds a token; or set XDPGATE_TOKEN to the token itself
    #[arg(long, value_name = "FILE", env = "XDPGATE_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Where in the receive path the program may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Mode {
    /// The best that the interface has: offload, native, generic
    Best,
    /// In the driver, or not at all
    Native,
    /// In the network stack: slower
    Generic,
    /// On the network card, or not at all
    Offload,
}

impl From<Mode> for ModePreference {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Best => Self::BestAvailable,
            Mode::Native => Self::Native,
            Mode::Generic => Self::Generic,
            Mode::Offload => Self::Offload,
        }
    }
}
