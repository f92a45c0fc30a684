//! `xdpgate entries`: the counters of the entries of a set.

use clap::Args;
use xdpgate_api::v1::{GetEntryCountersRequest, GetEntryCountersResponse};

use super::args::Remote;
use super::out::answer;
use super::table::{Align, Table};
use super::{remote, units};
use crate::Failure;

#[derive(Debug, Args)]
#[command(after_help = "\
The set must have `counters: entry` in the policy.

Examples:
  xdpgate entries bad-hosts
  xdpgate entries bad-hosts --limit 10 --json | jq -r '.entries[].prefix'")]
pub(super) struct Entries {
    /// The set
    pub set: String,
    /// How many at most
    #[arg(long, value_name = "N", default_value_t = 100)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: u32,
    #[command(flatten)]
    pub remote: Remote,
}

pub(super) fn run(args: &Entries) -> Result<(), Failure> {
    let request = GetEntryCountersRequest {
        set: args.set.clone(),
        limit: args.limit,
    };
    let said = remote::call(&args.remote, async |mut client| {
        client.get_entry_counters(request).await
    })?;
    answer(args.remote.json, &said, text)
}

fn text(said: &GetEntryCountersResponse) -> String {
    let mut table = Table::new(&[
        ("ENTRY", Align::Left),
        ("PACKETS", Align::Right),
        ("BYTES", Align::Right),
    ]);
    for entry in &said.entries {
        table.row([
            entry.prefix.clone(),
            entry.packets.to_string(),
            units::bytes(entry.bytes),
        ]);
    }
    format!(
        "{table}{} of {} entries that were hit\n",
        said.entries.len(),
        said.hit
    )
}
