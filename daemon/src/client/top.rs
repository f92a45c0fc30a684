//! `xdpgate top`: what passes and what drops, live.

mod keys;
mod live;
mod plain;
mod state;
mod view;

use std::io::{self, IsTerminal};
use std::time::Duration;

use clap::Args;

use super::args::Remote;
use super::duration;
use crate::Failure;

#[derive(Debug, Args)]
#[command(after_help = "\
Keys: q ends it, p pauses, s sorts by the next column, up and down scroll the rules.

Rates are those of the daemon's one sampler. Sources are of sampled frames: their order is right, their
counts are those of the samples. Where stdout is no terminal every sample is printed as text.

Examples:
  xdpgate top
  xdpgate top --once
  xdpgate top --json | jq -c '.stats.rates.interfaces[] | [.name, .rates.dropped.packets]'")]
pub(super) struct Top {
    /// How often; at least 100ms
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, default_value = "1s")]
    pub every: Duration,
    /// Print one screen as text and end
    #[arg(long)]
    pub once: bool,
    #[command(flatten)]
    pub remote: Remote,
}

pub(super) fn run(args: &Top) -> Result<(), Failure> {
    match args.once || args.remote.json || !io::stdout().is_terminal() {
        true => plain::run(args),
        false => live::run(args),
    }
}
