//! `xdpgate policy failsafe`: the management traffic that passes before any rule.

use clap::{Args, ValueEnum};
use xdpgate::policy::Prefix;
use xdpgate_api::v1::{self, change};

use super::args::Remote;
use super::change::{self as changes, Guard};
use super::out::answer;
use crate::Failure;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Whether {
    /// IPv6 neighbour discovery, DHCP, and SSH from --ssh-from
    On,
    /// Nothing: every frame is judged by the rules
    None,
}

#[derive(Debug, Args)]
#[command(after_help = "\
It is replaced as a whole: prefixes that are not named again are out. Without --ssh-from this is
refused while there are some; --no-ssh says that they are to go.

Examples:
  xdpgate policy failsafe on --ssh-from 192.0.2.0/24 --ssh-from 2001:db8:5::/48
  xdpgate policy failsafe on --no-ssh --confirm-within 60s
  xdpgate policy failsafe none --confirm-within 60s")]
pub(super) struct Failsafe {
    /// Whether management traffic passes before any rule
    #[arg(value_name = "on|none", hide_possible_values = true)]
    pub whether: Whether,
    /// Sources whose SSH, TCP to port 22, passes; may be repeated
    #[arg(long, value_name = "PREFIX")]
    pub ssh_from: Vec<Prefix>,
    /// SSH from nowhere: the prefixes that are there are out
    #[arg(long, conflicts_with = "ssh_from")]
    pub no_ssh: bool,
    #[command(flatten)]
    pub guard: Guard,
    #[command(flatten)]
    pub remote: Remote,
}

pub(super) fn run(args: &Failsafe) -> Result<(), Failure> {
    let failsafe = v1::Failsafe {
        none: args.whether == Whether::None,
        ssh_from: args.ssh_from.iter().map(Prefix::to_string).collect(),
        no_ssh: args.no_ssh,
    };
    let change = v1::Change {
        change: Some(change::Change::Failsafe(failsafe)),
    };
    let done = changes::make(&args.remote, &args.guard, vec![change])?;
    answer(args.remote.json, &done, |done| {
        changes::text("failsafe", done)
    })
}
