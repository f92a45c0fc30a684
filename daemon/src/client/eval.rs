//! `xdpgate eval`: a policy tried on a capture file.

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use xdpgate::oracle::Oracle;
use xdpgate::{ApplyError, Evaluation, Firewall, LoadError, Policy, Verdict};

use super::capture::{Capture, Frame};
use super::policy;
use crate::failure::Failure;

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

pub(super) fn run(args: &Eval) -> Result<(), Failure> {
    let policy = policy::read(&args.policy)?;
    let capture = Capture::open(&args.pcap)?;
    let mut report = Report::new(args.json);
    if args.oracle {
        let mut oracle = Oracle::new(&policy);
        capture.for_each(|frame| {
            let said = oracle.evaluate(frame.bytes, frame.at, args.interface.as_deref());
            report.frame(&frame, &said)
        })?;
    } else {
        let firewall = in_kernel(args, &policy)?;
        capture.for_each(|frame| {
            let said = match &args.interface {
                None => firewall.evaluate(frame.bytes),
                Some(name) => firewall.evaluate_on(name, frame.bytes),
            };
            let said = said.map_err(|e| {
                Failure::operation(format!(
                    "{}: {e}; --oracle can judge it",
                    capture.place(&frame)
                ))
            })?;
            report.frame(&frame, &said)
        })?;
    }
    report.finish()
}

/// A firewall with this policy that is attached to nothing.
fn in_kernel(args: &Eval, policy: &Policy) -> Result<Firewall, Failure> {
    let firewall = policy::loader(policy)
        .dry_run(true)
        .load()
        .map_err(|e| match e {
            LoadError::Capability(_) => Failure::operation(format!("{e}, or use --oracle")),
            _ => Failure::operation(e),
        })?;
    firewall.apply(policy).map_err(|e| match &e {
        ApplyError::Policy(fault) => Failure::input(
            args.policy.display(),
            format!("{fault}; --oracle can judge it"),
        ),
        _ => Failure::apply(&args.policy, &e),
    })?;
    Ok(firewall)
}

/// Prints what became of each frame.
struct Report {
    out: BufWriter<io::StdoutLock<'static>>,
    json: bool,
    passed: u64,
    dropped: u64,
}

/// The line of a frame, as `policy-format` fixes it.
#[derive(Serialize)]
struct Line<'a> {
    index: u64,
    verdict: &'static str,
    rule: Option<&'a str>,
    reason: &'static str,
    monitored: Vec<&'a str>,
}

impl Report {
    fn new(json: bool) -> Self {
        Self {
            out: BufWriter::new(io::stdout().lock()),
            json,
            passed: 0,
            dropped: 0,
        }
    }

    fn frame(&mut self, frame: &Frame<'_>, said: &Evaluation) -> Result<(), Failure> {
        let line = Line {
            index: frame.index,
            verdict: match said.verdict {
                Verdict::Pass => "pass",
                Verdict::Drop => "drop",
            },
            rule: said.rule.as_ref().map(|id| id.as_str()),
            reason: said.reason.as_str(),
            monitored: said.monitored.iter().map(|id| id.as_str()).collect(),
        };
        match said.verdict {
            Verdict::Pass => self.passed += 1,
            Verdict::Drop => self.dropped += 1,
        }
        self.write(&line).map_err(|e| Failure::output(&e))
    }

    fn write(&mut self, line: &Line<'_>) -> io::Result<()> {
        if self.json {
            serde_json::to_writer(&mut self.out, line)?;
            return self.out.write_all(b"\n");
        }
        if line.index == 0 {
            writeln!(self.out, "  FRAME  VERDICT  REASON      RULE")?;
        }
        let (index, verdict, reason) = (line.index, line.verdict, line.reason);
        let mut text = format!(
            "{index:>7}  {verdict:<7}  {reason:<10}  {}",
            line.rule.unwrap_or("")
        );
        if !line.monitored.is_empty() {
            text += &format!("  (monitored: {})", line.monitored.join(", "));
        }
        writeln!(self.out, "{}", text.trim_end())
    }

    fn finish(mut self) -> Result<(), Failure> {
        let summary = match self.json {
            true => Ok(()),
            false => writeln!(
                self.out,
                "{} frames: {} pass, {} drop",
                self.passed + self.dropped,
                self.passed,
                self.dropped
            ),
        };
        summary
            .and_then(|()| self.out.flush())
            .map_err(|e| Failure::output(&e))
    }
}
