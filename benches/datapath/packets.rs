//! Nanoseconds a packet: every case, its floor, and who else can do it.

use std::time::{Duration, Instant};

use libbpf_rs::{MapHandle, Program};
use xdpgate::policy::Policy;
use xdpgate::{Applied, Firewall, Loader, Verdict};

use crate::batches::{Batches, Summary, ms};
use crate::case::{Case, Expected, Table};
use crate::cases;
use crate::harness::{self, Harness, Replay, Shape, Subject, flow_map};
use crate::options::Options;
use crate::peers::xdp_filter;
use crate::report::{Cost, PacketRow, PolicyRow, Report};

/// As many flows as many caches have lines for.
const WARM_FLOWS: usize = 4096;

pub fn run(harness: &Harness, options: &Options, report: &mut Report) {
    report.begin_packets();
    for recipe in cases::all() {
        if !options.selects(&recipe.name) {
            continue;
        }
        let result = recipe.make().and_then(|case| {
            let subjects = Subjects::load(harness, &recipe.name, &case, report)?;
            for table in &case.tables {
                subjects.judge(harness, &recipe.name, &case, table, options, report)?;
            }
            Ok(())
        });
        if let Err(reason) = result {
            report.refused(&recipe.name, reason);
        }
    }
    report.end_packets();
}

/// A firewall that has room for the policy.
pub fn firewall_for(rules: usize) -> Result<Firewall, String> {
    loader_for(rules)?.load().map_err(|e| e.to_string())
}

fn loader_for(rules: usize) -> Result<Loader, String> {
    let room = u32::try_from(rules + 1).map_err(|e| e.to_string())?;
    Ok(Firewall::loader().dry_run(false).max_rules(room.max(1024)))
}

/// The fastest of several applications, within a second or two, and how long its program took to
/// load. Before each there is another policy, so that nothing can be built on.
fn apply(
    firewall: &Firewall,
    case: &Case,
    report: &mut Report,
) -> Result<(Applied, Duration), String> {
    let started = Instant::now();
    let other = Policy::builder().build().map_err(|e| e.to_string())?;
    let mut apply = || {
        firewall.apply(&other).map_err(|e| e.to_string())?;
        let applied = firewall.apply(&case.policy).map_err(|e| e.to_string())?;
        let program = firewall.program_info().policy.unwrap_or_default();
        report.loaded(&program);
        Ok::<_, String>((applied, program.load))
    };
    let mut best = apply()?;
    for _ in 0..4 {
        if started.elapsed() > Duration::from_secs(1) {
            break;
        }
        let again = apply()?;
        if again.0.compile + again.0.publish < best.0.compile + best.0.publish {
            best = again;
        }
    }
    Ok(best)
}

/// The programs that are compared in one case.
struct Subjects {
    /// Keeps its programs in the kernel.
    _firewall: Firewall,
    ours: Subject,
    floor: Subject,
    peers: Vec<(&'static str, Result<Subject, String>)>,
}

impl Subjects {
    fn load(
        harness: &Harness,
        name: &str,
        case: &Case,
        report: &mut Report,
    ) -> Result<Self, String> {
        let mut loader = loader_for(case.policy.rules().len())?;
        if !case.remembers {
            loader = loader.remember_flows(0);
        }
        let firewall = loader.load().map_err(|e| e.to_string())?;
        report.loaded(&firewall.program_info().entry);
        let (applied, load) = apply(&firewall, case, report)?;
        report.policy(PolicyRow {
            case: name.to_owned(),
            rules: case.policy.rules().len(),
            entries: case.entries,
            compile_ms: ms(applied.compile),
            publish_ms: ms(applied.publish),
            load_ms: ms(load),
            image_bytes: applied.image_bytes,
            bytes_per_entry: applied.image_bytes as f64 / case.entries.max(1) as f64,
            verified_insns: applied.verified_insns,
        });
        let entry = Program::fd_from_id(firewall.program_info().entry.id);
        let ours = Subject {
            name: "xdpgate",
            fd: entry.map_err(|e| e.to_string())?,
        };
        let listed = case.block_list.iter();
        let peers = listed
            .map(|hosts| (xdp_filter::NAME, xdp_filter::load(hosts)))
            .collect();
        Ok(Self {
            _firewall: firewall,
            ours,
            floor: harness.floor(&case.floor),
            peers,
        })
    }

    fn judge(
        &self,
        harness: &Harness,
        name: &str,
        case: &Case,
        table: &Table,
        options: &Options,
        report: &mut Report,
    ) -> Result<(), String> {
        let flows = flow_map(&table.flows);
        let verdict = match table.expected {
            Expected::All(verdict) => verdict,
            Expected::Oracle => Verdict::Pass,
        };
        let empty = harness.empty(verdict);
        let expected = case.expected(table, case.sample(table));
        let shape = Shape {
            v6: case.v6,
            frame: case.frame,
        };
        let check = |subject: &Subject| -> Result<(), String> {
            let replay = harness.replay(subject, &flows, table.flows.len(), shape)?;
            replay.warm(table.flows.len())?;
            match replay.wrong(&expected)? {
                0 => Ok(()),
                wrong => Err(format!("{wrong} of {} verdicts are wrong", expected.len())),
            }
        };
        let ours = check(&self.ours);
        if ours.is_err() {
            report.judged_wrongly();
        }
        let mut running = vec![&empty, &self.floor];
        running.extend(ours.is_ok().then_some(&self.ours));
        let mut failed = Vec::new();
        for (name, peer) in &self.peers {
            match peer
                .as_ref()
                .map_err(String::clone)
                .and_then(|p| check(p).map(|()| p))
            {
                Ok(peer) => running.push(peer),
                Err(reason) => failed.push((*name, reason)),
            }
        }
        for (working_set, count) in working_sets(table) {
            let batches = batches(harness, &running, &flows, count, shape, options)?;
            let costs = costs(&running, &batches);
            let mut costs = costs.into_iter();
            let floor = costs.next().expect("the floor is measured always");
            let xdpgate = match &ours {
                Ok(()) => costs.next().expect("measured"),
                Err(reason) => Cost::failed("xdpgate", reason),
            };
            let unavailable = failed
                .iter()
                .map(|(name, reason)| Cost::failed(name, reason));
            report.packet(PacketRow {
                case: name.to_owned(),
                packets: table.packets,
                working_set,
                flows: count,
                empty_ns: batches[0].summary(),
                floor,
                xdpgate,
                target_ns: match working_set {
                    "hot" => table.target.hot,
                    "4k" => None,
                    _ => table.target.rnd,
                },
                peers: costs.chain(unavailable).collect(),
            });
        }
        Ok(())
    }
}

fn batches(
    harness: &Harness,
    running: &[&Subject],
    flows: &MapHandle,
    count: usize,
    shape: Shape,
    options: &Options,
) -> Result<Vec<Batches>, String> {
    let replays: Result<Vec<Replay>, String> = running
        .iter()
        .map(|s| harness.replay(s, flows, count, shape))
        .collect();
    let replays = replays?;
    for replay in &replays {
        replay.warm(count)?;
    }
    harness::measure(&replays, options.batches())
}

/// Which part of a table is judged again and again.
fn working_sets(table: &Table) -> Vec<(&'static str, usize)> {
    let all = table.flows.len();
    match table.expected {
        Expected::Oracle => vec![("all", all)],
        Expected::All(_) => vec![("hot", 1), ("4k", WARM_FLOWS.min(all)), ("rnd", all)],
    }
}

/// The costs of all but the first, which is the empty program; the floor is first of them.
fn costs(running: &[&Subject], batches: &[Batches]) -> Vec<Cost> {
    let net: Vec<Summary> = batches[1..]
        .iter()
        .map(|b| b.over(&batches[0]).summary())
        .collect();
    let floor = net[0].median;
    let named = running[1..].iter().zip(&net);
    let cost = |(subject, ns): (&&Subject, &Summary)| Cost {
        name: subject.name,
        net_ns: Some(*ns),
        ratio_to_floor: (floor > 0.).then(|| ns.median / floor),
        failed: None,
    };
    named.map(cost).collect()
}
