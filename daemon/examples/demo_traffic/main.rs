//! The traffic of `make demo`: sends it from one network namespace to another, counts what arrives,
//! and holds that and the daemon's counters against what must be.
//!
//! Prints a line for each flow, fields between tabs: what, sent, arrived, verdict, decided by.
//! Exits with 1 and says what is wrong if a claim does not hold.

mod check;
mod flow;
mod frame;
mod net;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use check::Counters;
use flow::Flow;
use net::Namespace;

/// What the demo has set up.
#[derive(Debug, Parser)]
struct Args {
    /// The network namespace that traffic comes from
    #[arg(long)]
    source: String,
    /// The network namespace of the protected host
    #[arg(long)]
    host: String,
    /// The interface on either end of the link
    #[arg(long)]
    link: String,
    /// The client `xdpgate`
    #[arg(long)]
    client: PathBuf,
    /// Where the daemon listens
    #[arg(long)]
    server: String,
    /// The block list
    #[arg(long)]
    list: PathBuf,
    /// An address of the list that the source has
    #[arg(long)]
    listed: String,
    /// Another one, which a rule lets pass
    #[arg(long)]
    partner: String,
    /// Whether the daemon drops for real
    #[arg(long)]
    enforced: bool,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo_traffic: {error}");
            ExitCode::FAILURE
        }
    }
}

type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

fn run(args: &Args) -> Result<()> {
    let source = Namespace::open(&args.source)?;
    let host = Namespace::open(&args.host)?;
    let counters = Counters::new(&args.client, &args.server);
    let list = std::fs::read_to_string(&args.list)?;
    let link = net::Link::open(&source, &host, &args.link)?;

    let mut wrong = Vec::new();
    for flow in Flow::all(&list, &args.listed, &args.partner)? {
        let before = counters.read()?;
        let seen = flow.send(&source, &host, &link, || {
            // Sockets and frames are through when the counters have them.
            Ok(counters.read()?.since(&before).has(&flow, args.enforced))
        })?;
        let moved = counters.read()?.since(&before);
        println!(
            "{}\t{}\t{}\t{}",
            flow.what,
            seen.sent,
            seen.arrived,
            moved.verdict(&flow)
        );
        wrong.extend(check::faults(&flow, &seen, &moved, args.enforced));
    }
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(wrong.join("; ").into()),
    }
}
