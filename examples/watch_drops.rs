//! Applies a policy to one interface and writes samples of what it drops to a pcapng file.
//!
//! ```text
//! cargo run --example watch_drops -- INTERFACE SECONDS POLICY.yaml FILE.pcapng
//! ```

use std::error::Error;
use std::fs::File;
use std::io::BufWriter;
use std::time::{Duration, Instant};

use xdpgate::{EventOptions, Firewall, IfIndex, ModePreference, NextError, PcapngWriter, Policy};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [interface, seconds, policy, file] = args.as_slice() else {
        return Err("usage: watch_drops INTERFACE SECONDS POLICY.yaml FILE.pcapng".into());
    };
    let mut file = PcapngWriter::new(BufWriter::new(File::create(file)?))?;
    let firewall = Firewall::loader().dry_run(false).load()?;
    firewall.apply(&Policy::from_file(policy)?)?;
    let mut events = firewall.events(EventOptions::default())?;
    firewall.attach(
        IfIndex::from_name(interface)?,
        ModePreference::BestAvailable,
    )?;
    println!("watching {interface}");

    let end = Instant::now() + Duration::from_secs(seconds.parse()?);
    loop {
        match events.next_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(event) => file.write(&event)?,
            Err(NextError::Timeout) => break,
            Err(error) => return Err(error.into()),
        }
    }
    file.flush()?;
    println!("{:?}, lost here: {}", firewall.event_stats(), events.lost());
    Ok(())
}
