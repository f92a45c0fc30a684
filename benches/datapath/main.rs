//! What one packet costs, and what a policy costs to compile and publish.
//!
//! `cargo bench --bench datapath -- --help` says what can be asked; `docs/benchmarks.md` how it
//! measures and what the columns mean.

#![allow(unreachable_pub, missing_docs, reason = "a program, not a library")]

mod batches;
mod builds;
mod case;
mod cases;
mod flow;
mod harness;
mod machine;
mod numbers;
mod options;
mod packets;
mod peers;
mod receive;
mod report;

use std::path::PathBuf;
use std::process::ExitCode;

use harness::Harness;
use options::{HELP, Options, Part};
use report::Report;

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(wrong) => {
            eprintln!("datapath: {wrong}");
            return ExitCode::from(2);
        }
    };
    if options.help {
        println!("{HELP}");
        return ExitCode::SUCCESS;
    }
    if options.list {
        cases::all()
            .iter()
            .for_each(|case| println!("{}", case.name));
        return ExitCode::SUCCESS;
    }
    if !nix::unistd::Uid::effective().is_root() {
        eprintln!("skipped: needs root");
        return ExitCode::SUCCESS;
    }
    // Refusals are in the report; libbpf would write lines between its own.
    libbpf_rs::set_print(None);
    let scratch = Scratch::new();
    let harness = Harness::compile(&scratch.0).expect("the harness");
    let mut report = Report::new(!options.json, options.quick, options.batches());
    harness::settle(1);
    if options.wants(Part::Packets) {
        packets::run(&harness, &options, &mut report);
    }
    if options.wants(Part::Build) {
        builds::run(&harness, &scratch.0, &options, &mut report);
    }
    if options.wants(Part::Receive) {
        receive::run(&harness, &scratch.0, &options, &mut report);
    }
    match report.finish() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// A folder that is gone at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let dir = std::env::temp_dir().join(format!("xdpgate-bench-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a folder for the harness");
        Self(dir)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(e) = std::fs::remove_dir_all(&self.0) {
            eprintln!("{}: {e}", self.0.display());
        }
    }
}
