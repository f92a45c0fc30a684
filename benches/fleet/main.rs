//! How a controller bears many nodes: real processes, real sockets, real TLS.
//!
//! `make bench-fleet NODES=10000`; `docs/scale.md` says what the figures mean. A short run is a test: `tests/fleet_scale.rs`.

#![allow(unreachable_pub, missing_docs, reason = "a program, not a library")]

mod controller;
mod crowd;
mod fetcher;
mod figures;
mod ground;
mod scenarios;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use scenarios::Scale;

/// Bears a controller many nodes?
#[derive(Debug, Parser)]
#[command(name = "fleet")]
struct Options {
    /// How many nodes
    #[arg(long, default_value_t = 10_000)]
    nodes: usize,
    /// How long they are idle, in seconds
    #[arg(long, default_value_t = 60)]
    idle: u64,
    /// Changes of one rule, of which the median counts
    #[arg(long, default_value_t = 5)]
    changes: usize,
    /// Rules of the three policies; the first is that of all nodes but 20
    #[arg(long, num_args = 3, default_values_t = [100, 10_000, 100_000])]
    rules: Vec<usize>,
    /// Entries of a set that change at once
    #[arg(long, default_value_t = 100_000)]
    entries: u32,
    /// Entries of a set that new nodes fetch
    #[arg(long, default_value_t = 1_000_000)]
    snapshot: u32,
    /// New nodes that fetch it
    #[arg(long, default_value_t = 100)]
    fetchers: usize,
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    // Each node is a socket here and one in the controller, which inherits the limit.
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let needed = 2 * options.nodes as u64 + 1_000;
        let raised = setrlimit(Resource::RLIMIT_NOFILE, hard.min(needed), hard);
        if raised.is_err() || hard < options.nodes as u64 + 500 {
            eprintln!("fleet: {hard} file descriptors are too few: ulimit -Hn {needed}");
            return ExitCode::FAILURE;
        }
    }
    let scale = Scale {
        nodes: options.nodes,
        rules: [options.rules[0], options.rules[1], options.rules[2]],
        entries: options.entries,
        snapshot: (options.snapshot, options.fetchers),
        idle: Duration::from_secs(options.idle),
        changes: options.changes,
    };
    let program = Path::new(env!("CARGO_BIN_EXE_xdpgate-controller"));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let wrong = runtime.block_on(scenarios::run(program, scale));
    for line in &wrong {
        eprintln!("fleet: {line}");
    }
    if wrong.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
