//! Metrics of one's own, without an exporter: a file for the textfile collector of node_exporter,
//! written anew every second.
//!
//! ```text
//! cargo run --example own_metrics -- INTERFACE SECONDS POLICY.yaml FILE.prom
//! ```

use std::error::Error;
use std::fmt::Write;
use std::fs;
use std::thread::sleep;
use std::time::Duration;

use xdpgate::{Firewall, IfIndex, ModePreference, Policy, Stats};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [interface, seconds, policy, file] = args.as_slice() else {
        return Err("usage: own_metrics INTERFACE SECONDS POLICY.yaml FILE.prom".into());
    };
    let firewall = Firewall::loader().dry_run(false).load()?;
    firewall.apply(&Policy::from_file(policy)?)?;
    firewall.attach(
        IfIndex::from_name(interface)?,
        ModePreference::BestAvailable,
    )?;
    println!("attached to {interface}");
    for _ in 0..seconds.parse::<u32>()? {
        sleep(Duration::from_secs(1));
        // Renamed when it is whole: whoever reads never finds half of it.
        let unfinished = format!("{file}.unfinished");
        fs::write(&unfinished, render(&firewall.stats())?)?;
        fs::rename(&unfinished, file)?;
    }
    Ok(())
}

/// All counters are of one moment, so that they add up.
fn render(stats: &Stats) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    writeln!(text, "# TYPE firewall_packets_total counter")?;
    for interface in &stats.interfaces {
        for count in interface.counts.iter() {
            writeln!(
                text,
                "firewall_packets_total{{interface=\"{}\",verdict=\"{}\",reason=\"{}\"}} {}",
                interface.name,
                count.disposition.as_str(),
                count.reason.as_str(),
                count.count.packets,
            )?;
        }
    }
    writeln!(text, "# TYPE firewall_rule_packets_total counter")?;
    for rule in &stats.rules {
        writeln!(
            text,
            "firewall_rule_packets_total{{rule=\"{}\"}} {}",
            rule.id, rule.matched.packets
        )?;
    }
    Ok(text)
}
