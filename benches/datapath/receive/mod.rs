//! Through a real receive path: frames that come out of a veth, filtered by XDP in native mode or by
//! nftables at ingress. What the receiving thread spends on a packet is what counts.

mod wire;

use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use libbpf_rs::{MapHandle, Xdp, XdpFlags};
use xdpgate::{Firewall, ModePreference, Verdict};

use crate::batches::Batches;
use crate::case::{Case, Table};
use crate::cases;
use crate::harness::{Harness, Subject, flow_map, settle};
use crate::options::Options;
use crate::packets::firewall_for;
use crate::peers::nftables;
use crate::peers::xdp_filter;
use crate::report::{ReceiveRow, Report};
use wire::{Lane, Pair};

/// How long each stretch of traffic is.
const STRETCH: Duration = Duration::from_millis(200);

/// How many flows are checked one by one; whole batches of live frames.
const SAMPLE: usize = 256;

/// The sender's CPU; the receiver has the other.
const SENDER_CPU: usize = 0;

pub fn run(harness: &Harness, dir: &Path, options: &Options, report: &mut Report) {
    report.begin_receive();
    let done = wire::in_namespace(|| {
        settle(SENDER_CPU);
        for recipe in cases::all() {
            let kinds = kinds(&recipe.name);
            if kinds.is_empty() || !options.selects(&recipe.name) {
                continue;
            }
            let case = match recipe.make() {
                Ok(case) => case,
                Err(reason) => {
                    report.refused(&recipe.name, reason);
                    continue;
                }
            };
            for table in case.tables.iter().filter(|t| kinds.contains(&t.packets)) {
                let contest = Contest {
                    harness,
                    dir,
                    name: &recipe.name,
                    case: &case,
                    table,
                };
                contest.run(options, report);
            }
        }
    });
    if let Err(reason) = done {
        report.refused("receive path", reason);
    }
}

/// Which tables of a case are sent.
fn kinds(name: &str) -> &'static [&'static str] {
    match name {
        "v4 hosts 1k" => &["hit", "miss"],
        "v4 hosts 100k" | "v4 hosts 1M" => &["hit"],
        _ if !name.starts_with("ClassBench") => &[],
        // A linear chain of that many takes a millisecond a packet, and shows nothing new.
        _ if name.contains("100k") => &[],
        _ => &["trace"],
    }
}

/// One table of flows and all who filter it.
struct Contest<'a> {
    harness: &'a Harness,
    dir: &'a Path,
    name: &'a str,
    case: &'a Case,
    table: &'a Table,
}

/// A filter in force on a lane.
struct Filter {
    name: &'static str,
    lane: Lane,
    /// Keeps its programs in the kernel.
    _firewall: Option<Firewall>,
}

impl Contest<'_> {
    fn run(&self, options: &Options, report: &mut Report) {
        let flows = flow_map(&self.table.flows);
        let expected = self.case.expected(self.table, SAMPLE);
        let mut running: Vec<(Filter, Batches, Batches)> = Vec::new();
        let mut failed = Vec::new();
        for (number, name) in ["bare", "floor", "xdpgate", xdp_filter::NAME, nftables::NAME]
            .into_iter()
            .filter(|name| self.can(name))
            .enumerate()
        {
            let checked = self.filter(number, name, &flows).and_then(|filter| {
                // The bare verdict is the limit, and judges nothing.
                if name != "bare" {
                    filter.check(&expected)?;
                }
                Ok(filter)
            });
            match checked {
                Ok(filter) => running.push((filter, Batches::default(), Batches::default())),
                Err(reason) => {
                    if name == "xdpgate" && reason.ends_with(WRONG) {
                        report.judged_wrongly();
                    }
                    failed.push((name, reason));
                }
            }
        }
        let rounds = if options.quick { 3 } else { 13 };
        for round in 0..rounds {
            for i in 0..running.len() {
                let i = (i + round) % running.len();
                let (filter, ns, mpps) = &mut running[i];
                // One that fails has fewer figures than others; none at all is said below.
                if let Ok(stretch) = filter.lane.run(STRETCH) {
                    ns.0.push(stretch.receiver_ns);
                    mpps.0.push(stretch.mpps);
                }
            }
        }
        self.say(&running, failed, report);
    }

    fn say(
        &self,
        running: &[(Filter, Batches, Batches)],
        failed: Vec<(&'static str, String)>,
        report: &mut Report,
    ) {
        let row = |filter| ReceiveRow {
            case: self.name.to_owned(),
            packets: self.table.packets,
            filter,
            receiver_ns: None,
            mpps: None,
            times_xdpgate: None,
            failed: None,
        };
        let measured = |(_, ns, _): &&(Filter, Batches, Batches)| !ns.0.is_empty();
        let ours = running
            .iter()
            .filter(measured)
            .find(|(f, ..)| f.name == "xdpgate");
        let ours = ours.map(|(_, ns, _)| ns.summary().median);
        for (filter, ns, mpps) in running.iter().filter(measured) {
            let ns = ns.summary();
            report.receive(ReceiveRow {
                receiver_ns: Some(ns),
                mpps: Some(mpps.summary().median),
                times_xdpgate: ours.map(|ours| ns.median / ours),
                ..row(filter.name)
            });
        }
        for (filter, reason) in failed {
            report.receive(ReceiveRow {
                failed: Some(reason),
                ..row(filter)
            });
        }
    }

    /// Whether a filter can express the case at all.
    fn can(&self, name: &str) -> bool {
        match name {
            "bare" => self.table.packets != "trace",
            "floor" | xdp_filter::NAME => self.case.block_list.is_some(),
            _ => true,
        }
    }

    fn filter(
        &self,
        number: usize,
        name: &'static str,
        flows: &MapHandle,
    ) -> Result<Filter, String> {
        let pair = Pair::new(number)?;
        let mut own = None;
        let bare = |verdict| attach(&pair, &self.harness.empty(verdict));
        match name {
            "xdpgate" => {
                let firewall = firewall_for(self.case.policy.rules().len())?;
                firewall
                    .apply(&self.case.policy)
                    .map_err(|e| e.to_string())?;
                let native = ModePreference::Exactly(xdpgate::AttachMode::Native);
                let index = pair.receiver_index()?;
                firewall.attach(index, native).map_err(|e| e.to_string())?;
                own = Some(firewall);
            }
            "floor" => attach(&pair, &self.harness.floor(&self.case.floor))?,
            xdp_filter::NAME => {
                let hosts = self.case.block_list.as_deref().unwrap_or_default();
                attach(&pair, &xdp_filter::load(hosts)?)?;
            }
            nftables::NAME => {
                // It needs a veth that receives by NAPI, as a network card does.
                bare(Verdict::Pass)?;
                match &self.case.block_list {
                    Some(hosts) => nftables::block_list(&pair.receiver, hosts, self.dir)?,
                    None => nftables::linear(&pair.receiver, &self.case.policy, self.dir)?,
                }
            }
            _ => bare(if self.table.packets == "hit" {
                Verdict::Drop
            } else {
                Verdict::Pass
            })?,
        }
        let lane = Lane::new(self.harness, pair, flows, self.table.flows.len())?;
        Ok(Filter {
            name,
            lane,
            _firewall: own,
        })
    }
}

/// How a complaint about verdicts ends.
const WRONG: &str = "verdicts are wrong";

impl Filter {
    /// Whether it passes as many of the first flows as it must.
    fn check(&self, expected: &[Verdict]) -> Result<(), String> {
        let before = self.lane.pair.passed()?;
        self.lane.send_each_once(expected.len())?;
        let passed = self.lane.pair.passed()? - before;
        let wanted = expected.iter().filter(|v| **v == Verdict::Pass).count();
        match passed == wanted as u64 {
            true => Ok(()),
            false => Err(format!(
                "passed {passed} of {}, not {wanted}: {WRONG}",
                expected.len()
            )),
        }
    }
}

fn attach(pair: &Pair, subject: &Subject) -> Result<(), String> {
    let index = pair.receiver_index()?.get() as i32;
    let xdp = Xdp::new(subject.fd.as_fd());
    xdp.attach(index, XdpFlags::DRV_MODE)
        .map_err(|e| format!("attach: {e}"))
}
