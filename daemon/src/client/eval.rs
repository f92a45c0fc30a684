//! `xdpgate eval`: a policy tried on a capture file.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::thread;

use clap::Args;
use serde::Serialize;
use tokio::sync::mpsc;
use tonic::Status;
use tonic_types::StatusExt;
use xdpgate::oracle::Oracle;
use xdpgate::{ApplyError, Evaluation, Firewall, LoadError, Policy, Verdict};
use xdpgate_api::v1::{self, EvaluateRequest};

use super::args::Remote;
use super::capture::Capture;
use super::{policy, remote};
use crate::Failure;

#[derive(Debug, Args)]
#[command(after_help = "\
With --policy the frames go through the XDP program in this kernel (root), or with --oracle through
the pure evaluator (no root), whose clock is the file's timestamps. Without --policy the daemon is
asked: its policy in force judges them, and nothing is counted or changed. In the kernel the time is
now, and a rate limit answers as with a full budget, the daemon's as with what is left; on all else
they agree on every frame.

With --json one line a frame:
  {\"index\":0,\"verdict\":\"drop\",\"rule\":\"block-bad\",\"reason\":\"rule\",\"monitored\":[]}

Capture files: pcap in both byte orders, micro- and nanoseconds; pcapng. Ethernet only.

Examples:
  xdpgate eval --pcap traffic.pcap --interface eth0
  xdpgate eval --policy policy.yaml --pcap traffic.pcap --oracle
  xdpgate eval --policy policy.yaml --pcap traffic.pcap --json | grep '\"verdict\":\"drop\"'")]
pub(super) struct Eval {
    /// The policy file; without one the policy that is in force in the daemon
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// The capture file
    #[arg(long, value_name = "FILE")]
    pub pcap: PathBuf,
    /// The interface by which the frames come in; without it rules that name interfaces do not
    /// match
    #[arg(long, value_name = "NAME")]
    pub interface: Option<String>,
    /// Use the pure evaluator in place of the kernel
    #[arg(long, requires = "policy")]
    pub oracle: bool,
    #[command(flatten)]
    pub remote: Remote,
}

pub(super) fn run(args: &Eval) -> Result<(), Failure> {
    let read = |file| policy::read(file).map(|policy| (file, policy));
    let policy = args.policy.as_deref().map(read).transpose()?;
    let capture = Capture::open(&args.pcap)?;
    let mut report = Report::new(args.remote.json);
    match (&policy, args.oracle) {
        (None, _) => by_daemon(args, &capture, &mut report)?,
        (Some((_, policy)), true) => {
            let mut oracle = Oracle::new(policy);
            capture.for_each(|frame| {
                let said = oracle.evaluate(frame.bytes, frame.at, args.interface.as_deref());
                report.line(&Line::of(frame.index, &said))
            })?;
        }
        (Some((file, policy)), false) => {
            let firewall = in_kernel(file, policy)?;
            capture.for_each(|frame| {
                let said = match &args.interface {
                    None => firewall.evaluate(frame.bytes),
                    Some(name) => firewall.evaluate_on(name, frame.bytes),
                };
                let said = said.map_err(|e| {
                    Failure::operation(format!(
                        "{}: {e}; --oracle can judge it",
                        capture.place(frame.index)
                    ))
                })?;
                report.line(&Line::of(frame.index, &said))
            })?;
        }
    }
    report.finish()
}

/// Has the daemon judge the frames, some at a time: the file may be larger than memory.
fn by_daemon(args: &Eval, capture: &Capture, report: &mut Report) -> Result<(), Failure> {
    let (send, mut batches) = mpsc::channel(1);
    thread::scope(|scope| {
        let reader = scope.spawn(move || read_batches(capture, &send));
        let asked = remote::session(&args.remote, async move |mut client| {
            let mut index = 0;
            while let Some(frames) = batches.recv().await {
                let request = EvaluateRequest {
                    frames,
                    interface: args.interface.clone(),
                };
                let said = client.evaluate(request).await;
                let said = said.map_err(|status| match frame_at_fault(&status) {
                    Some((n, why)) => {
                        Failure::operation(format!("{}: {why}", capture.place(index + n)))
                    }
                    None => remote::refused(&args.remote, &status),
                })?;
                for said in said.into_inner().results {
                    report.line(&Line::told(index, &said))?;
                    index += 1;
                }
            }
            Ok(())
        });
        let read = reader
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        asked.and(read)
    })
}

/// Which frame of a request the daemon does not judge, and why.
fn frame_at_fault(status: &Status) -> Option<(u64, String)> {
    let violations = status.get_details_bad_request()?.field_violations;
    violations.into_iter().find_map(|violation| {
        let n = violation.field.strip_prefix("frames[")?.strip_suffix(']')?;
        Some((n.parse().ok()?, violation.description))
    })
}

/// Frames of one request, as they are in the file. The other end is gone if the daemon refuses.
fn read_batches(capture: &Capture, send: &mpsc::Sender<Vec<Vec<u8>>>) -> Result<(), Failure> {
    let gone = |_| Failure::operation("nobody waits for more frames");
    let (mut batch, mut bytes) = (Vec::new(), 0);
    capture.for_each(|frame| {
        if bytes + frame.bytes.len() > BATCH_BYTES && !batch.is_empty() {
            bytes = 0;
            send.blocking_send(std::mem::take(&mut batch))
                .map_err(gone)?;
        }
        bytes += frame.bytes.len() + OF_EACH;
        batch.push(frame.bytes.to_vec());
        Ok(())
    })?;
    match batch.is_empty() {
        true => Ok(()),
        false => send.blocking_send(batch).map_err(gone),
    }
}

/// Of frames in one request: so that a client with the least budget of calls is not slow, and other calls
/// do not wait for long.
const BATCH_BYTES: usize = 256 << 10;

/// What a frame takes in a request beside its bytes, at most; a file may have many that are empty.
const OF_EACH: usize = 8;

/// A firewall with this policy that is attached to nothing.
fn in_kernel(file: &Path, policy: &Policy) -> Result<Firewall, Failure> {
    let firewall = policy::loader(policy)
        .dry_run(true)
        .load()
        .map_err(|e| match e {
            LoadError::Capability(_) => Failure::operation(format!("{e}, or use --oracle")),
            _ => Failure::operation(e),
        })?;
    firewall.apply(policy).map_err(|e| match &e {
        ApplyError::Policy(fault) => {
            Failure::input(file.display(), format!("{fault}; --oracle can judge it"))
        }
        _ => crate::not_applied(file, &e),
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
    reason: &'a str,
    monitored: Vec<&'a str>,
}

const PASS: &str = "pass";
const DROP: &str = "drop";

impl<'a> Line<'a> {
    fn of(index: u64, said: &'a Evaluation) -> Self {
        Self {
            index,
            verdict: match said.verdict {
                Verdict::Pass => PASS,
                Verdict::Drop => DROP,
            },
            rule: said.rule.as_ref().map(|id| id.as_str()),
            reason: said.reason.as_str(),
            monitored: said.monitored.iter().map(|id| id.as_str()).collect(),
        }
    }

    /// Likewise, as a daemon says it.
    fn told(index: u64, said: &'a v1::Evaluation) -> Self {
        Self {
            index,
            verdict: match said.verdict() {
                v1::Verdict::Drop => DROP,
                v1::Verdict::Pass | v1::Verdict::Unspecified => PASS,
            },
            rule: said.rule.as_deref(),
            reason: &said.reason,
            monitored: said.monitored.iter().map(String::as_str).collect(),
        }
    }
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

    fn line(&mut self, line: &Line<'_>) -> Result<(), Failure> {
        match line.verdict {
            PASS => self.passed += 1,
            _ => self.dropped += 1,
        }
        self.write(line).map_err(|e| Failure::output(&e))
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
