//! Attaches interfaces as they appear and prints what happens, in dry run.
//!
//! ```text
//! cargo run --example auto_attach -- [NAME...]
//! ```
//!
//! Without names it takes all hardware; with names (or globs such as `veth*`) those alone.

use std::error::Error;

use xdpgate::{AutoEvent, Decision, Firewall, Selector};

fn main() -> Result<(), Box<dyn Error>> {
    let names: Vec<String> = std::env::args().skip(1).collect();
    let selector = match names.is_empty() {
        true => Selector::physical(),
        false => names.into_iter().fold(Selector::none(), Selector::include),
    };
    let firewall = Firewall::loader().load()?;
    let auto = firewall.auto_attach(selector)?;
    let events = auto.events();
    for entry in auto.interfaces() {
        let name = &entry.interface.name;
        match (entry.decision, entry.attachment, entry.error) {
            (_, Some(attachment), _) => println!("{name}: attached in {} mode", attachment.mode),
            (_, None, Some(error)) => println!("{name}: {error}"),
            (Decision::Skip(reason), None, None) => println!("{name}: skipped: {reason}"),
            (Decision::Attach, None, None) => println!("{name}: about to be attached"),
        }
    }
    for event in events {
        match event {
            AutoEvent::Attached { attachment, took } => {
                let name = attachment.name;
                println!("{name}: attached in {} mode, {took:?}", attachment.mode);
            }
            AutoEvent::Detached { attachment, why } => {
                println!("{}: detached: {why:?}", attachment.name);
            }
            AutoEvent::Failed { error, .. } => println!("{error}"),
            AutoEvent::Skipped {
                interface, reason, ..
            } => println!("{interface}: skipped: {reason}"),
            AutoEvent::Renamed { from, to, .. } => println!("{from}: is named {to} now"),
            other => println!("{other:?}"),
        }
    }
    Ok(())
}
