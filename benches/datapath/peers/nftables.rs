//! nftables: a table at the ingress hook of one device.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use xdpgate::policy::{Action, AddressItem, AddressMatch, Policy, Prefix, Ranges, Rule};

use super::{MISSING, command};

pub const NAME: &str = "nftables";

/// The protocols that have ports; `th` alone would read ports from any.
const WITH_PORTS: &str = "{ 6, 17, 33, 132, 136 }";

/// How often a file is tried.
const ATTEMPTS: u32 = 4;

/// Drops what comes from a set of these hosts, in the network namespace of this thread.
pub fn block_list(device: &str, hosts: &[Prefix], dir: &Path) -> Result<(), String> {
    let mut elements = String::new();
    for host in hosts {
        write!(elements, "{host},").expect("to memory");
    }
    let set = format!(
        "set block {{ type ipv4_addr; size {}; elements = {{ {elements} }}; }}",
        hosts.len()
    );
    load(device, &set, "ip saddr @block counter drop\n", dir)
}

/// The rules of a policy one by one, as many firewalls have them.
pub fn linear(device: &str, policy: &Policy, dir: &Path) -> Result<(), String> {
    let mut rules = String::new();
    for rule in policy.rules() {
        let line = statement(rule).ok_or_else(|| format!("cannot express rule {}", rule.id))?;
        rules.push_str(&line);
    }
    load(device, "", &rules, dir)
}

fn load(device: &str, set: &str, rules: &str, dir: &Path) -> Result<(), String> {
    let nft = command("nft").ok_or(MISSING)?;
    let table = format!("bench-{device}");
    // What an attempt before may have left is gone first.
    let text = format!(
        "table netdev {table}\ndelete table netdev {table}\n\
         table netdev {table} {{\n{set}\nchain ingress {{\n\
         type filter hook ingress device {device} priority 0; policy accept;\n{rules}}}\n}}\n"
    );
    let file = dir.join(format!("{device}.nft"));
    fs::write(&file, text).map_err(|e| e.to_string())?;
    let mut attempts = 0;
    loop {
        let output = Command::new(&nft).arg("-f").arg(&file).output();
        let output = output.map_err(|e| e.to_string())?;
        if output.status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let error = text.lines().find(|l| l.contains("Error")).unwrap_or("");
        attempts += 1;
        // Seen now and then on a busy machine, with files that are taken the next time.
        if attempts == ATTEMPTS || !error.contains("No buffer space available") {
            return Err(format!("nft refused it: {error}"));
        }
        thread::sleep(Duration::from_millis(300));
    }
}

/// A rule as a statement of nftables; `None` if it says what this does not translate.
fn statement(rule: &Rule) -> Option<String> {
    let m = &rule.matches;
    let mut text = String::new();
    for (field, address) in [("saddr", &m.src), ("daddr", &m.dst)] {
        if let Some(address) = address {
            write!(text, "ip {field} {} ", prefix(address)?).ok()?;
        }
    }
    match &m.protocol {
        Some(protocol) => write!(text, "ip protocol {} ", single(protocol)?).ok()?,
        None if m.sport.is_some() || m.dport.is_some() => {
            write!(text, "ip protocol {WITH_PORTS} ").ok()?;
        }
        None => {}
    }
    for (field, ports) in [("sport", &m.sport), ("dport", &m.dport)] {
        if let Some(ports) = ports {
            write!(text, "th {field} {} ", single(ports)?).ok()?;
        }
    }
    text.push_str(match rule.action {
        Action::Drop => "counter drop\n",
        Action::Pass => "accept\n",
        _ => return None,
    });
    Some(text)
}

fn prefix(address: &AddressMatch) -> Option<&Prefix> {
    match address.items.as_slice() {
        [AddressItem::Prefix(prefix)] if !address.negated => Some(prefix),
        _ => None,
    }
}

/// `a` or `a-b`.
fn single<T>(ranges: &Ranges<T>) -> Option<String>
where
    T: Copy + Ord + Into<u32> + TryFrom<u32>,
{
    match ranges.as_slice() {
        [(first, last)] if first == last => Some(Into::<u32>::into(*first).to_string()),
        [(first, last)] => Some(format!("{}-{}", (*first).into(), (*last).into())),
        _ => None,
    }
}
