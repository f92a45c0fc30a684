//! `xdpgate load` and `unload`: the program with a policy, pinned, attached to nothing.

use std::path::PathBuf;

use clap::Args;
use xdpgate::Frags;

use super::policy;
use crate::Failure;

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
#[command(after_help = "Examples:\n  xdpgate unload --pin /sys/fs/bpf/xdpgate-test")]
pub(super) struct Unload {
    /// The directory that was given to `load`, or of the daemon: /sys/fs/bpf/xdpgate
    #[arg(long, value_name = "DIR")]
    pub pin: PathBuf,
}

pub(super) fn load(args: &Load) -> Result<(), Failure> {
    let policy = policy::read(&args.policy)?;
    let frags = match args.no_frags {
        true => Frags::Off,
        false => Frags::Auto,
    };
    let firewall = policy::loader(&policy)
        .dry_run(args.dry_run)
        .frags(frags)
        .load()
        .map_err(Failure::operation)?;
    firewall
        .apply(&policy)
        .map_err(|e| crate::not_applied(&args.policy, &e))?;
    firewall.pin(&args.pin).map_err(Failure::operation)
}

pub(super) fn unload(args: &Unload) -> Result<(), Failure> {
    xdpgate::unpin(&args.pin).map_err(Failure::operation)
}
