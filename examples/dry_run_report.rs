//! Tries a policy on live traffic without dropping anything, and reports what it would have dropped.
//!
//! ```text
//! cargo run --example dry_run_report -- INTERFACE SECONDS POLICY.yaml
//! ```

use std::collections::BTreeMap;
use std::error::Error;
use std::time::{Duration, Instant};

use xdpgate::packet::Parsed;
use xdpgate::{EventOptions, Firewall, IfIndex, ModePreference, NextError, Policy};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [interface, seconds, file] = args.as_slice() else {
        return Err("usage: dry_run_report INTERFACE SECONDS POLICY.yaml".into());
    };
    let policy = Policy::from_file(file)?;
    // A firewall is loaded in dry run unless told otherwise.
    let firewall = Firewall::loader().load()?;
    println!("{}", firewall.plan(&policy)?);
    firewall.apply(&policy)?;
    let mut samples = firewall.events(EventOptions::default())?;
    firewall.attach(
        IfIndex::from_name(interface)?,
        ModePreference::BestAvailable,
    )?;
    println!("watching {interface}");

    let end = Instant::now() + Duration::from_secs(seconds.parse()?);
    let mut sources: BTreeMap<String, u64> = BTreeMap::new();
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        match samples.next_timeout(left) {
            Ok(event) => {
                if let Parsed::Ip(ip) = event.packet() {
                    *sources.entry(ip.src.to_string()).or_default() += 1;
                }
            }
            Err(NextError::Timeout) => break,
            Err(error) => return Err(error.into()),
        }
    }

    let stats = firewall.stats();
    let seen = &stats.interfaces[0].counts;
    let (all, would_drop) = (seen.total().packets, seen.would_drop().packets);
    println!("{all} packets, of these {would_drop} would have been dropped");
    for rule in stats.rules.iter().filter(|rule| rule.would_drop > 0) {
        println!(
            "rule {}: {} would have been dropped",
            rule.id, rule.would_drop
        );
    }
    let mut sources: Vec<(u64, String)> = sources.into_iter().map(|(s, n)| (n, s)).collect();
    sources.sort_unstable_by(|a, b| b.cmp(a));
    for (samples, source) in sources.into_iter().take(10) {
        println!("source {source}: {samples} samples");
    }
    Ok(())
}
