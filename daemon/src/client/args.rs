//! The command line of `xdpgate`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use xdpgate_api::v1::ModePreference;

use crate::endpoint::Endpoint;

/// Commands for the XDP firewall xdpgate: those that ask the daemon of this host, and those that
/// need none.
#[derive(Debug, Parser)]
#[command(name = "xdpgate", version, after_help = HELP)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

const HELP: &str = "\
Exit codes: 0 done, 1 it did not work, 2 wrong use or bad input (policy, capture file).

Examples:
  xdpgate policy check policy.yaml            is it right?
  xdpgate policy apply policy.yaml --plan     what would it change?
  xdpgate policy apply policy.yaml
  xdpgate interfaces                          what is attached, and how
  xdpgate preflight eth0                      what stands in the way of native mode?
  xdpgate stats                               what passed, what dropped, by which rule
  xdpgate eval --policy policy.yaml --pcap traffic.pcap --oracle   try it, without root";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show what the daemon is doing: policy, interfaces, programs
    Status(Remote),
    /// Show the counters: verdicts by interface and reason, hits by rule
    Stats(Remote),
    /// Show the interfaces: what is attached and how, and why the others are not
    Interfaces(Remote),
    /// Attach an interface, beside those that the daemon's configuration selects
    Attach(Attach),
    /// Detach an interface; it stays so until it is attached again or the daemon is started anew
    Detach(Detach),
    /// Say what attaching would come to, what stands in its way, and what mends it; changes nothing
    Preflight(Preflight),
    /// End the daemon; what is pinned goes on judging without it, unless --detach is given
    Stop(Stop),
    /// Check, apply or read back a policy
    #[command(subcommand)]
    Policy(Policy),
    /// Judge the frames of a capture file by a policy, without a daemon or an interface
    Eval(Eval),
    /// Load the program with a policy and pin it, attached to nothing (root)
    Load(Load),
    /// Remove what `load` or a daemon that is gone has pinned; detaches its interfaces (root)
    Unload(Unload),
}

/// Which daemon, and in which form.
#[derive(Debug, Args)]
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

#[derive(Debug, Args)]
pub(super) struct Attach {
    /// The interface
    pub name: String,
    /// Which modes it may have
    #[arg(long, value_enum, default_value_t = Mode::Best)]
    pub mode: Mode,
    #[command(flatten)]
    pub remote: Remote,
}

#[derive(Debug, Args)]
pub(super) struct Detach {
    /// The interface
    pub name: String,
    #[command(flatten)]
    pub remote: Remote,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  xdpgate preflight                       those that are attached or selected
  xdpgate preflight eth0 --mode native")]
pub(super) struct Preflight {
    /// Interfaces; without any those that are attached or selected
    pub names: Vec<String>,
    /// Which modes they may have
    #[arg(long, value_enum, default_value_t = Mode::Best)]
    pub mode: Mode,
    #[command(flatten)]
    pub remote: Remote,
}

#[derive(Debug, Args)]
pub(super) struct Stop {
    /// Detach every interface and remove all pins: every packet passes, and nothing is left
    #[arg(long)]
    pub detach: bool,
    #[command(flatten)]
    pub remote: Remote,
}

#[derive(Debug, Subcommand)]
pub(super) enum Policy {
    /// Say whether a policy file is right, without a daemon
    Check(Check),
    /// Replace the daemon's policy, all or nothing
    Apply(Apply),
    /// Print the policy in force, in canonical form
    Get(Remote),
}

#[derive(Debug, Args)]
pub(super) struct Check {
    /// The policy file
    pub file: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Lists that the policy names by `file` are read here and sent along.

Examples:
  xdpgate policy apply policy.yaml --plan
  xdpgate policy apply policy.yaml --server http://127.0.0.1:50051")]
pub(super) struct Apply {
    /// The policy file
    pub file: PathBuf,
    /// Only say what would change
    #[arg(long)]
    pub plan: bool,
    #[command(flatten)]
    pub remote: Remote,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The frames go through the XDP program in this kernel (root), or with --oracle through the pure
evaluator (no root), whose clock is the file's timestamps. In the kernel the time is now, and a rate
limit answers as with a full budget; on all else the two agree on every frame.

With --json one line a frame:
  {\"index\":0,\"verdict\":\"drop\",\"rule\":\"block-bad\",\"reason\":\"rule\",\"monitored\":[]}

Capture files: pcap in both byte orders, micro- and nanoseconds; pcapng. Ethernet only.

Examples:
  xdpgate eval --policy policy.yaml --pcap traffic.pcap --oracle
  xdpgate eval --policy policy.yaml --pcap traffic.pcap --json | grep '\"verdict\":\"drop\"'")]
pub(super) struct Eval {
    /// The policy file
    #[arg(long, value_name = "FILE")]
    pub policy: PathBuf,
    /// The capture file
    #[arg(long, value_name = "FILE")]
    pub pcap: PathBuf,
    /// Print one JSON object per frame
    #[arg(long)]
    pub json: bool,
    /// The interface by which the frames come in; without it rules that name interfaces do not
    /// match
    #[arg(long, value_name = "NAME")]
    pub interface: Option<String>,
    /// Use the pure evaluator in place of the kernel
    #[arg(long)]
    pub oracle: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The entry program is pinned at DIR/xdpgate, what it needs beside it. DIR must be on a BPF file
system; it is made if it is not there. Without --dry-run the program drops.

Examples:
  xdpgate load --policy policy.yaml --pin /sys/fs/bpf/xdpgate-test
  bpftool prog show pinned /sys/fs/bpf/xdpgate-test/xdpgate
  xdpgate unload --pin /sys/fs/bpf/xdpgate-test")]
pub(super) struct Load {
    /// The policy file
    #[arg(long, value_name = "FILE")]
    pub policy: PathBuf,
    /// The directory for the pins
    #[arg(long, value_name = "DIR")]
    pub pin: PathBuf,
    /// Load the form for frames in one buffer, also where the kernel can take several: it can be
    /// tail-called by programs of that form
    #[arg(long)]
    pub no_frags: bool,
    /// Judge and count, but drop nothing
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Debug, Args)]
pub(super) struct Unload {
    /// The directory that was given to `load`, or of the daemon: /sys/fs/bpf/xdpgate
    #[arg(long, value_name = "DIR")]
    pub pin: PathBuf,
}
