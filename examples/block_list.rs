//! Blocks prefixes on one interface and prints what was counted, with no daemon around.
//!
//! ```text
//! cargo run --example block_list -- INTERFACE SECONDS PREFIX...
//! ```

use std::error::Error;
use std::time::Duration;

use xdpgate::policy::{Action, AddressItem, AddressMatch, Policy, Rule, RuleId};
use xdpgate::{Firewall, IfIndex, ModePreference};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [interface, seconds, prefixes @ ..] = args.as_slice() else {
        return Err("usage: block_list INTERFACE SECONDS PREFIX...".into());
    };
    let mut rule = Rule::new(RuleId::new("block").ok_or("a rule id")?, 10, Action::Drop);
    let items: Result<_, _> = prefixes
        .iter()
        .map(|p| p.parse().map(AddressItem::Prefix))
        .collect();
    rule.matches.src = Some(AddressMatch {
        negated: false,
        items: items?,
    });
    let policy = Policy::builder().rule(rule).build()?;

    let firewall = Firewall::loader().dry_run(false).load()?;
    firewall.apply(&policy)?;
    let attachment = firewall.attach(
        IfIndex::from_name(interface)?,
        ModePreference::BestAvailable,
    )?;
    println!("attached to {interface}: {}", attachment.mode);
    for _ in 0..seconds.parse::<u32>()? {
        std::thread::sleep(Duration::from_secs(1));
        let stats = firewall.stats();
        for rule in &stats.rules {
            println!(
                "{}: {} packets, {} dropped",
                rule.id, rule.matched.packets, rule.dropped
            );
        }
    }
    Ok(())
}
