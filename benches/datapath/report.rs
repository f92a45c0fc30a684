//! What was measured, as a table or as JSON.

use serde::Serialize;

use xdpgate::ProgramFacts;

use crate::batches::{Summary, ms};
use crate::harness::BATCH;
use crate::machine::Machine;

/// Everything of one run.
#[derive(Serialize)]
pub struct Report {
    machine: Machine,
    /// How many batches each subject has.
    batches: usize,
    packets_per_batch: u32,
    quick: bool,
    packets: Vec<PacketRow>,
    policies: Vec<PolicyRow>,
    build: Vec<BuildRow>,
    receive: Vec<ReceiveRow>,
    refused: Vec<Refusal>,
    /// Of all programs that were loaded, those of interfaces and those of policies.
    most_verified_insns: Option<u32>,
    slowest_load_ms: f64,
    #[serde(skip)]
    human: bool,
    #[serde(skip)]
    wrong: bool,
}

/// What a program takes for a packet, or why there is no figure.
#[derive(Serialize)]
pub struct Cost {
    pub name: &'static str,
    /// Nanoseconds over the empty program.
    pub net_ns: Option<Summary>,
    /// Of the medians.
    pub ratio_to_floor: Option<f64>,
    pub failed: Option<String>,
}

/// Nanoseconds a packet of one table of flows.
#[derive(Serialize)]
pub struct PacketRow {
    pub case: String,
    pub packets: &'static str,
    pub working_set: &'static str,
    pub flows: usize,
    pub empty_ns: Summary,
    pub floor: Cost,
    pub xdpgate: Cost,
    pub target_ns: Option<f64>,
    pub peers: Vec<Cost>,
}

/// What a policy costs to put in force.
#[derive(Serialize)]
pub struct PolicyRow {
    pub case: String,
    pub rules: usize,
    pub entries: usize,
    pub compile_ms: f64,
    pub publish_ms: f64,
    /// Of publishing: from opening the object to the program in the kernel.
    pub load_ms: f64,
    pub image_bytes: usize,
    pub bytes_per_entry: f64,
    pub verified_insns: Option<u32>,
}

/// One figure of the control plane.
#[derive(Serialize)]
pub struct BuildRow {
    pub what: String,
    pub unit: &'static str,
    pub value: Summary,
    pub target: Option<f64>,
}

/// Through the receive path of a veth pair.
#[derive(Serialize)]
pub struct ReceiveRow {
    pub case: String,
    pub packets: &'static str,
    pub filter: &'static str,
    /// What the receiving thread spends on a packet, driver and all.
    pub receiver_ns: Option<Summary>,
    /// Millions of packets a second that came through the ring.
    pub mpps: Option<f64>,
    /// How many times the time of xdpgate.
    pub times_xdpgate: Option<f64>,
    pub failed: Option<String>,
}

#[derive(Serialize)]
struct Refusal {
    case: String,
    reason: String,
}

impl Report {
    pub fn new(human: bool, quick: bool, batches: usize) -> Self {
        let report = Self {
            machine: Machine::here(),
            batches,
            packets_per_batch: BATCH,
            quick,
            packets: Vec::new(),
            policies: Vec::new(),
            build: Vec::new(),
            receive: Vec::new(),
            refused: Vec::new(),
            most_verified_insns: None,
            slowest_load_ms: 0.,
            human,
            wrong: false,
        };
        let m = &report.machine;
        report.say(&format!(
            "{}, {} CPUs, Linux {}, clang {}, load {}, {batches} batches",
            m.cpu, m.cpus, m.kernel, m.clang, m.load_average
        ));
        report
    }

    /// A line of the human table.
    fn say(&self, line: &str) {
        if self.human {
            println!("{line}");
        } else {
            eprintln!("{line}");
        }
    }

    pub fn begin_packets(&self) {
        self.say(&format!(
            "\n{:<28} {:<11} {:>6} {:>11} {:>11} {:>6} {:>7}  others: net ns (x floor)",
            "nanoseconds a packet", "packets", "empty", "floor", "xdpgate", "ratio", "target"
        ));
        self.say(&format!(
            "{:<28} {:<11} {:>6} {:>11} {:>11} {:>6} {:>7}",
            "", "", "ns", "net ns, p95", "net ns, p95", "", "net ns"
        ));
    }

    pub fn packet(&mut self, row: PacketRow) {
        let target = row.target_ns.map_or("-".into(), |t| format!("{t:.0}"));
        let ratio = row
            .xdpgate
            .ratio_to_floor
            .map_or("-".into(), |r| format!("{r:.2}"));
        let peers: Vec<String> = row.peers.iter().map(Cost::as_peer).collect();
        self.say(&format!(
            "{:<28} {:<11} {:>6.0} {:>11} {:>11} {:>6} {:>7}  {}",
            row.case,
            format!("{} {}", row.working_set, row.packets),
            row.empty_ns.median,
            row.floor.figures(),
            row.xdpgate.figures(),
            ratio,
            target,
            peers.join("; ")
        ));
        if let Some(reason) = &row.xdpgate.failed {
            self.say(&format!("  xdpgate: {reason}"));
        }
        self.packets.push(row);
    }

    pub fn policy(&mut self, row: PolicyRow) {
        self.policies.push(row);
    }

    pub fn end_packets(&self) {
        if self.policies.is_empty() {
            return;
        }
        self.say(&format!(
            "\n{:<28} {:>8} {:>9} {:>11} {:>11} {:>9} {:>10} {:>8} {:>9}",
            "policies",
            "rules",
            "entries",
            "compile",
            "publish",
            "load",
            "image",
            "per",
            "verified"
        ));
        for row in &self.policies {
            self.say(&format!(
                "{:<28} {:>8} {:>9} {:>8.1} ms {:>8.1} ms {:>6.1} ms {:>7.2} MB {:>6.1} B {:>9}",
                row.case,
                row.rules,
                row.entries,
                row.compile_ms,
                row.publish_ms,
                row.load_ms,
                row.image_bytes as f64 / 1e6,
                row.bytes_per_entry,
                row.verified_insns.map_or("-".into(), |n| n.to_string()),
            ));
        }
        let most = self
            .most_verified_insns
            .map_or("-".into(), |n| n.to_string());
        self.say(&format!(
            "any program: most verified {most} (aim < 100000), slowest load {:.1} ms (aim < 100)",
            self.slowest_load_ms
        ));
    }

    /// A program was loaded.
    pub fn loaded(&mut self, program: &ProgramFacts) {
        self.most_verified_insns = self.most_verified_insns.max(program.verified_insns);
        self.slowest_load_ms = self.slowest_load_ms.max(ms(program.load));
    }

    pub fn begin_build(&self) {
        self.say(&format!(
            "\n{:<52} {:>10} {:>10} {:>9}",
            "control plane", "median", "p95", "target"
        ));
    }

    pub fn build(&mut self, row: BuildRow) {
        let target = row.target.map_or("-".into(), |t| format!("{t:.0}"));
        self.say(&format!(
            "{:<52} {:>10.1} {:>10.1} {:>9} {}",
            row.what, row.value.median, row.value.p95, target, row.unit
        ));
        self.build.push(row);
    }

    pub fn begin_receive(&self) {
        self.say(&format!(
            "\n{:<28} {:<7} {:<14} {:>10} {:>10} {:>7} {:>9}",
            "receive path of a veth", "packets", "filter", "ns/packet", "p95", "Mpps", "x xdpgate"
        ));
    }

    pub fn receive(&mut self, row: ReceiveRow) {
        let start = format!("{:<28} {:<7} {:<14}", row.case, row.packets, row.filter);
        self.say(&match (&row.receiver_ns, &row.failed) {
            (Some(ns), _) => format!(
                "{start} {:>10.0} {:>10.0} {:>7.2} {:>9}",
                ns.median,
                ns.p95,
                row.mpps.unwrap_or_default(),
                row.times_xdpgate.map_or("-".into(), |t| format!("{t:.2}"))
            ),
            (None, failed) => format!("{start} {}", failed.as_deref().unwrap_or("-")),
        });
        self.receive.push(row);
    }

    pub fn refused(&mut self, case: &str, reason: String) {
        self.say(&format!("{case:<28} refused: {reason}"));
        self.refused.push(Refusal {
            case: case.to_owned(),
            reason,
        });
    }

    /// A verdict was not what it must be.
    pub fn judged_wrongly(&mut self) {
        self.wrong = true;
    }

    /// Writes the document, if one was asked for. Whether all verdicts were right.
    pub fn finish(self) -> bool {
        if !self.human {
            println!(
                "{}",
                serde_json::to_string_pretty(&self).expect("plain data")
            );
        }
        !self.wrong
    }
}

impl Cost {
    pub fn failed(name: &'static str, reason: impl Into<String>) -> Self {
        Self {
            name,
            net_ns: None,
            ratio_to_floor: None,
            failed: Some(reason.into()),
        }
    }

    fn figures(&self) -> String {
        self.net_ns
            .map_or("-".into(), |ns| format!("{:.0}, {:.0}", ns.median, ns.p95))
    }

    fn as_peer(&self) -> String {
        match (&self.net_ns, &self.failed) {
            (Some(ns), _) => {
                let ratio = self.ratio_to_floor.unwrap_or_default();
                format!("{} {:.0} ({ratio:.2})", self.name, ns.median)
            }
            (None, reason) => format!("{}: {}", self.name, reason.as_deref().unwrap_or("-")),
        }
    }
}
