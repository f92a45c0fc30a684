//! A control plane of one's own, without gRPC: commands come in on stdin, one a line.
//!
//! ```text
//! cargo run --example control_loop -- INTERFACE...
//! policy FILE          replace the policy, atomically
//! ban PREFIX SECONDS   drop what comes from there, from now on
//! unban PREFIX
//! add SET PREFIX       one more entry in a set of the policy
//! stats                what was dropped so far
//! enforce | dry-run    it begins as a dry run
//! ```
//!
//! An error is printed and nothing has changed; the end of the input detaches everything.

use std::error::Error;
use std::io::stdin;
use std::time::Duration;

use xdpgate::policy::{Change, SetName};
use xdpgate::{BanScope, Firewall, IfIndex, ModePreference, Policy, TransactionOptions};

fn main() -> Result<(), Box<dyn Error>> {
    let firewall = Firewall::loader().load()?;
    for interface in std::env::args().skip(1) {
        let ifindex = IfIndex::from_name(&interface)?;
        let attachment = firewall.attach(ifindex, ModePreference::BestAvailable)?;
        println!("{interface}: {} mode", attachment.mode);
    }
    for line in stdin().lines() {
        match command(&firewall, &line?) {
            Ok(said) => println!("{said}"),
            Err(error) => println!("error: {error}"),
        }
    }
    Ok(())
}

fn command(firewall: &Firewall, line: &str) -> Result<String, Box<dyn Error>> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words[..] {
        ["policy", file] => {
            let applied = firewall.apply(&Policy::from_file(file)?)?;
            Ok(format!("generation {} is in force", applied.generation))
        }
        ["ban", prefix, seconds] => {
            let ttl = Duration::from_secs(seconds.parse()?);
            let ban = firewall.ban(prefix.parse()?, BanScope::Source, ttl)?;
            Ok(format!("{} until {}", ban.prefix, ban.expires))
        }
        ["unban", prefix] => match firewall.unban(prefix.parse()?, BanScope::Source) {
            true => Ok(format!("{prefix} is not banned any more")),
            false => Ok(format!("{prefix} was not banned")),
        },
        ["add", set, prefix] => {
            let set = SetName::new(set).ok_or("that is not the name of a set")?;
            let change = Change::AddEntries(set, vec![(prefix.parse()?, None)]);
            let done = firewall.transact(&[change], TransactionOptions::default())?;
            Ok(format!("{:?}", done.effects))
        }
        ["stats"] => {
            let stats = firewall.stats();
            let dropped = stats.interfaces.iter().map(|i| i.counts.dropped().packets);
            Ok(format!("{} packets dropped", dropped.sum::<u64>()))
        }
        ["enforce"] | ["dry-run"] => {
            firewall.set_dry_run(words[0] == "dry-run");
            Ok(words[0].to_owned())
        }
        _ => Err(format!("{line:?} is not a command; see the head of this example").into()),
    }
}
