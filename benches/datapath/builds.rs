//! What the control plane takes: large policies, and small changes of them.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::time::Instant;

use libbpf_rs::Program;
use xdpgate::policy::{Change, Policy, Prefix};
use xdpgate::{Applied, Firewall, TransactionOptions, Verdict};

use crate::batches::{Batches, ms};
use crate::case::block_list;
use crate::cases;
use crate::flow::{FRAME, Flow};
use crate::harness::{Harness, Shape, Subject, flow_map};
use crate::numbers::v4;
use crate::options::Options;
use crate::packets::firewall_for;
use crate::report::{BuildRow, Report};

const MILLION: u32 = 1_000_000;

/// How many entries a small change replaces.
const CHANGED: u32 = 100;

pub fn run(harness: &Harness, dir: &Path, options: &Options, report: &mut Report) {
    report.begin_build();
    let bench = Bench {
        harness,
        dir,
        rounds: if options.quick { 2 } else { 11 },
    };
    let mut part = |name: &str, body: &dyn Fn(&Bench<'_>) -> Result<Vec<BuildRow>, String>| {
        if !options.selects(name) {
            return;
        }
        match body(&bench) {
            Ok(rows) => rows.into_iter().for_each(|row| report.build(row)),
            Err(reason) => report.refused(name, reason),
        }
    };
    part("import 1M addresses, YAML set", &|b| b.import("YAML set"));
    part("import 1M addresses, list file", &|b| b.import("list file"));
    part("change 100 in 1M addresses", &|b| b.change());
    for size in ["10k", "100k"] {
        for seed in ["acl1", "fw1", "ipc1"] {
            let name = format!("ClassBench {seed} {size}");
            part(&name, &|b| {
                b.compile(&name, if size == "10k" { 250. } else { 3000. })
            });
        }
    }
    for (name, what, target) in [
        ("v4 hosts 1M", "v4 host", 14.),
        ("v6 hosts 1M", "v6 host", 32.),
        ("five-tuples 1M", "five-tuple", 40.),
    ] {
        let title = format!("image bytes per {what} at 1M");
        part(&title, &|_| image(name, &title, target));
    }
}

struct Bench<'a> {
    harness: &'a Harness,
    dir: &'a Path,
    rounds: usize,
}

impl Bench<'_> {
    /// From text to a packet judged by it.
    fn import(&self, form: &str) -> Result<Vec<BuildRow>, String> {
        let (file, policy_text) = (self.dir.join("hosts.txt"), self.dir.join("policy.yaml"));
        let addresses = |indent: &str| {
            let mut text = String::new();
            for i in 0..MILLION {
                writeln!(text, "{indent}{}", v4(i)).expect("to memory");
            }
            text
        };
        let set = match form {
            "list file" => {
                fs::write(&file, addresses("")).map_err(|e| e.to_string())?;
                "    file: hosts.txt\n".to_owned()
            }
            _ => format!("    entries:\n{}", addresses("      - ")),
        };
        let rules = "rules:\n  - { id: block, match: { src: \"@block\" }, action: drop }\n";
        let text = format!("version: 1\nsets:\n  block:\n{set}{rules}");
        fs::write(&policy_text, text).map_err(|e| e.to_string())?;

        let firewall = firewall_for(1)?;
        let other = Policy::builder().build().map_err(|e| e.to_string())?;
        let (mut total, mut applying) = (Batches::default(), Batches::default());
        for _ in 0..self.rounds {
            // Nothing to build on.
            firewall.apply(&other).map_err(|e| e.to_string())?;
            let started = Instant::now();
            let policy = Policy::from_file(&policy_text).map_err(|e| e.to_string())?;
            let applied = firewall.apply(&policy).map_err(|e| e.to_string())?;
            total.0.push(ms(started.elapsed()));
            applying.0.push(ms(applied.compile + applied.publish));
        }
        self.check(&firewall, MILLION - 1, Verdict::Drop)?;
        self.check(&firewall, MILLION, Verdict::Pass)?;
        let what = format!("1M addresses, {form} -> judged");
        let of_which = format!("{what}, of which compile + publish");
        Ok(vec![row(what, total, 500.), row(of_which, applying, 200.)])
    }

    /// A policy that differs in a few entries: given whole, by a transaction, and for comparison
    /// where there is nothing to build on.
    fn change(&self) -> Result<Vec<BuildRow>, String> {
        let of = |first: u32| {
            let hosts = (first..MILLION + first).map(|i| Prefix::host(v4(i)));
            block_list(&hosts.collect::<Vec<_>>()).map_err(|e| e.to_string())
        };
        let policies = [of(0)?, of(CHANGED)?];
        let firewall = firewall_for(1)?;
        let [mut whole, mut given, mut transacted] = <[Batches; 3]>::default();
        for _ in 0..self.rounds.min(5) {
            let fresh = firewall_for(1)?;
            let started = Instant::now();
            fresh.apply(&policies[1]).map_err(|e| e.to_string())?;
            whole.0.push(ms(started.elapsed()));
        }
        firewall.apply(&policies[1]).map_err(|e| e.to_string())?;
        for round in 0..self.rounds.next_multiple_of(2) {
            let started = Instant::now();
            let applied = firewall.apply(&policies[round % 2]);
            given.0.push(ms(started.elapsed()));
            reused(&applied.map_err(|e| e.to_string())?)?;
        }
        self.check(&firewall, 0, Verdict::Pass)?;
        self.check(&firewall, MILLION + CHANGED - 1, Verdict::Drop)?;
        let set = policies[0].sets().keys().next().expect("the list");
        let hosts = |first: u32| (first..first + CHANGED / 2).map(|i| Prefix::host(v4(i)));
        for round in 0..self.rounds as u32 {
            // What is taken out is what was added last, but for the first time.
            let (old, new) = (
                2 * MILLION + round * CHANGED,
                2 * MILLION + (round + 1) * CHANGED,
            );
            let changes = [
                Change::RemoveEntries(set.clone(), hosts(old).collect()),
                Change::AddEntries(set.clone(), hosts(new).map(|p| (p, None)).collect()),
            ];
            let started = Instant::now();
            let done = firewall.transact(&changes, TransactionOptions::default());
            transacted.0.push(ms(started.elapsed()));
            let done = done.map_err(|e| e.to_string())?;
            reused(&done.applied.ok_or("nothing changed")?)?;
        }
        let name = format!("{CHANGED} changes in 1M addresses");
        Ok(vec![
            row(format!("{name}, policy given whole"), given, 50.),
            row(format!("{name}, by a transaction"), transacted, 50.),
            BuildRow {
                target: None,
                ..row(format!("{name}, nothing to build on"), whole, 0.)
            },
        ])
    }

    fn compile(&self, name: &str, target: f64) -> Result<Vec<BuildRow>, String> {
        let case = cases::starting_with(name)?;
        let firewall = firewall_for(case.policy.rules().len())?;
        let mut taken = Batches::default();
        let other = Policy::builder().build().map_err(|e| e.to_string())?;
        for _ in 0..self.rounds.min(5) {
            firewall.apply(&other).map_err(|e| e.to_string())?;
            let applied = firewall.apply(&case.policy).map_err(|e| e.to_string())?;
            taken.0.push(ms(applied.compile + applied.publish));
        }
        Ok(vec![row(
            format!("{name}: compile + publish"),
            taken,
            target,
        )])
    }

    /// Whether the policy in force is the one that was applied.
    fn check(&self, firewall: &Firewall, source: u32, verdict: Verdict) -> Result<(), String> {
        let entry = Program::fd_from_id(firewall.program_info().entry.id);
        let subject = Subject {
            name: "xdpgate",
            fd: entry.map_err(|e| e.to_string())?,
        };
        let flows = flow_map(&[Flow::from_source(v4(source), 1024).headers()]);
        let shape = Shape {
            v6: false,
            frame: FRAME,
        };
        let replay = self.harness.replay(&subject, &flows, 1, shape)?;
        match replay.wrong(&[verdict])? {
            0 => Ok(()),
            _ => Err(format!(
                "{} was not judged {verdict:?} after apply",
                v4(source)
            )),
        }
    }
}

/// Whether a policy was built on the one before.
fn reused(applied: &Applied) -> Result<(), String> {
    let hosts = applied.changed_hosts;
    hosts.map(drop).ok_or_else(|| "compiled as a whole".into())
}

fn row(what: String, values: Batches, target: f64) -> BuildRow {
    BuildRow {
        what,
        unit: "ms",
        value: values.summary(),
        target: Some(target),
    }
}

fn image(name: &str, what: &str, target: f64) -> Result<Vec<BuildRow>, String> {
    let case = cases::starting_with(name)?;
    let firewall = firewall_for(case.policy.rules().len())?;
    let applied = firewall.apply(&case.policy).map_err(|e| e.to_string())?;
    let per_entry = Batches(vec![applied.image_bytes as f64 / case.entries as f64]);
    Ok(vec![BuildRow {
        unit: "B",
        ..row(what.to_owned(), per_entry, target)
    }])
}
