//! What one packet costs, and what a policy costs to compile and publish.
//!
//! `cargo bench --bench datapath [-- FILTER...]` as root. Prints nanoseconds a packet over the
//! empty program, measured in the same run and interleaved, for one warm flow (`hot`) and for a
//! random working set (`rnd`), and the ratio to the floor: parse + one lookup in the kernel's own
//! hash (or LPM trie). Publish ratios, not nanoseconds: machines are noisy.

#![allow(unreachable_pub, missing_docs, reason = "a program, not a library")]

mod cases;
mod harness;

use cases::Case;
use harness::{Harness, Subject};
use libbpf_rs::Program;
use xdpgate::Firewall;

const ROUNDS: usize = 9;
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;

fn main() {
    if !nix::unistd::Uid::effective().is_root() {
        println!("skipped: needs root");
        return;
    }
    let filters: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with("--"))
        .collect();
    let dir = std::env::temp_dir().join(format!("xdpgate-bench-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a folder for the harness");
    let harness = Harness::compile(&dir).expect("the harness");
    harness::settle();

    println!(
        "{:<18} {:<9} {:>8} {:>8} {:>8} {:>7}",
        "case", "packets", "empty", "floor", "xdpgate", "ratio"
    );
    println!(
        "{:<18} {:<9} {:>8} {:>8} {:>8} {:>7}",
        "", "", "ns", "net ns", "net ns", ""
    );
    let mut built = Vec::new();
    for (name, make) in all() {
        let wanted = filters.is_empty() || filters.iter().any(|f| name.contains(f.as_str()));
        if let Some(case) = wanted.then(make).flatten() {
            built.push(measure(&harness, &case));
        }
    }
    println!(
        "\n{:<18} {:>9} {:>9} {:>10} {:>11} {:>9} {:>9}",
        "case", "entries", "compile", "publish", "image", "per entry", "verified"
    );
    for line in built {
        println!("{line}");
    }
    if let Err(e) = std::fs::remove_dir_all(&dir) {
        eprintln!("{}: {e}", dir.display());
    }
}

type Make = Box<dyn Fn() -> Option<Case>>;

fn all() -> Vec<(&'static str, Make)> {
    vec![
        ("no rules v4", Box::new(|| Some(cases::no_rules(false)))),
        ("no rules v6", Box::new(|| Some(cases::no_rules(true)))),
        ("v4 hosts 1", Box::new(|| Some(cases::hosts(1, false)))),
        ("v4 hosts 1k", Box::new(|| Some(cases::hosts(1000, false)))),
        ("ipsum", Box::new(cases::ipsum)),
        (
            "v4 hosts 1M",
            Box::new(|| Some(cases::hosts(1_000_000, false))),
        ),
        ("v6 hosts 1k", Box::new(|| Some(cases::hosts(1000, true)))),
        (
            "v6 hosts 1M",
            Box::new(|| Some(cases::hosts(1_000_000, true))),
        ),
        (
            "v4 prefixes 1k",
            Box::new(|| Some(cases::prefixes(1000, false))),
        ),
        (
            "v4 prefixes 100k",
            Box::new(|| Some(cases::prefixes(100_000, false))),
        ),
        (
            "v6 prefixes 100k",
            Box::new(|| Some(cases::prefixes(100_000, true))),
        ),
    ]
}

/// Prints the packet costs of a case and returns the line of what building it cost.
fn measure(harness: &Harness, case: &Case) -> String {
    let policy = case.policy();
    let firewall = Firewall::loader().dry_run(false).load().expect("load");
    let mut applied = firewall.apply(&policy).expect("apply");
    for _ in 0..4 {
        let again = firewall.apply(&policy).expect("apply");
        if again.compile + again.publish < applied.compile + applied.publish {
            applied = again;
        }
    }
    let ours = Subject {
        name: "xdpgate",
        fd: Program::fd_from_id(firewall.program_info().entry.id).expect("the entry program"),
    };
    let floor = harness.own(
        if case.has_prefixes() {
            "floor_lpm"
        } else {
            "floor_hash"
        },
        &case.entries,
    );
    for (kind, flows, verdict) in [
        ("hit", &case.hits, XDP_DROP),
        ("miss", &case.misses, XDP_PASS),
    ] {
        if flows.is_empty() {
            continue;
        }
        let empty = harness.own(
            if verdict == XDP_DROP {
                "empty_drop"
            } else {
                "empty_pass"
            },
            &[],
        );
        for (set, flows) in [("hot", &flows[..1]), ("rnd", &flows[..])] {
            let subjects = [&empty, &floor, &ours];
            let m = harness.measure(&subjects, flows, case.v6, verdict, ROUNDS);
            let net = |i: usize| {
                let mut net: Vec<f64> = m[i]
                    .rounds
                    .iter()
                    .zip(&m[0].rounds)
                    .map(|(a, b)| a - b)
                    .collect();
                net.sort_by(f64::total_cmp);
                net[net.len() / 2]
            };
            println!(
                "{:<18} {:<9} {:>8.0} {:>8.0} {:>8.0} {:>7.2}",
                case.name,
                format!("{set} {kind}"),
                m[0].median(),
                net(1),
                net(2),
                net(2) / net(1)
            );
        }
    }
    let entries = case.entries.len();
    format!(
        "{:<18} {:>9} {:>6.1} ms {:>7.1} ms {:>9.2} MB {:>7.1} B {:>9}",
        case.name,
        entries,
        ms(applied.compile),
        ms(applied.publish),
        applied.image_bytes as f64 / 1e6,
        applied.image_bytes as f64 / entries.max(1) as f64,
        applied.verified_insns.map_or("-".into(), |n| n.to_string()),
    )
}

fn ms(d: std::time::Duration) -> f64 {
    d.as_secs_f64() * 1e3
}
