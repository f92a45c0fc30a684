//! What `ipset save` prints: a line `create SET TYPE ...` for each set, then a line `add SET ENTRY ...`
//! for each entry.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use xdpgate::policy::Prefix;

use super::{Found, ends, range};

/// A set that entries are added to, or why they are not.
struct Created {
    /// The length that bare addresses have: that of `netmask`.
    netmask: Option<u8>,
    known: bool,
}

pub(super) fn parse(text: &str, now: Timestamp, wanted: &dyn Fn(&str) -> bool) -> Found {
    let mut found = Found::default();
    let mut created: HashMap<&str, Created> = HashMap::new();
    for (number, line) in (1..).zip(text.lines()) {
        let place = format!("line {number}");
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            [] => {}
            [first, ..] if first.starts_with('#') => {}
            ["create" | "-N", name, kind, ref options @ ..] => {
                if wanted(name) {
                    let set = create(&mut found, &place, name, kind, options);
                    created.insert(name, set);
                }
            }
            ["add" | "-A", name, entry, ref options @ ..] => {
                if !wanted(name) {
                    continue;
                }
                if options.contains(&"nomatch") {
                    // Without it the set would hold more than it did.
                    let reason = format!(
                        "{entry} is an exception (nomatch), so set {name} is left out as a whole"
                    );
                    found.unknown(&place, reason);
                    found.sets.remove(name);
                    if let Some(set) = created.get_mut(name) {
                        set.known = false;
                    }
                    continue;
                }
                match created.get(name) {
                    None => found.unknown(&place, format!("set {name} was not created before")),
                    // It was named when it was created.
                    Some(set) if !set.known => {}
                    Some(set) => match member(entry, options, set, now) {
                        Ok((prefixes, at)) => found.add(name, prefixes, at),
                        Err(reason) => found.unknown(&place, format!("{entry}: {reason}")),
                    },
                }
            }
            ["COMMIT"] => {}
            [command, ..] => {
                found.unknown(&place, format!("{command:?} is no line of `ipset save`"))
            }
        }
    }
    found
}

fn create(found: &mut Found, place: &str, name: &str, kind: &str, options: &[&str]) -> Created {
    let mut set = Created {
        netmask: None,
        known: false,
    };
    if !matches!(kind, "hash:ip" | "hash:net" | "bitmap:ip") {
        let reason =
            format!("set {name} is of type {kind}, of which entries are no addresses alone");
        found.unknown(place, reason);
        return set;
    }
    let value = |name: &str| {
        let at = options.iter().position(|option| *option == name)?;
        options.get(at + 1).copied()
    };
    if value("bitmask").is_some() {
        found.unknown(place, format!("set {name}: a bitmask is no prefix"));
        return set;
    }
    if let Some(mask) = value("netmask") {
        set.netmask = mask.parse().ok();
        if set.netmask.is_none() {
            found.unknown(
                place,
                format!("set {name}: netmask {mask:?} is no prefix length"),
            );
            return set;
        }
    }
    set.known = found.begin(place, name);
    set
}

type Member = (Vec<Prefix>, Option<Timestamp>);

fn member(entry: &str, options: &[&str], set: &Created, now: Timestamp) -> Result<Member, String> {
    let prefixes = match entry.split_once('-') {
        Some((first, last)) => {
            let addr = |text: &str| text.parse().map_err(|_| "it is no range of addresses");
            range::prefixes(addr(first)?, addr(last)?)?
        }
        None => {
            let prefix: Prefix = entry.parse().map_err(|e| format!("{e}"))?;
            let prefix = match set.netmask {
                Some(len) if prefix.is_host() => Prefix::new(prefix.addr(), len)
                    .ok_or_else(|| format!("it has bits beyond netmask {len}"))?,
                _ => prefix,
            };
            vec![prefix]
        }
    };
    // A comment may hold any words, and is the last that is printed.
    let before_comment = options.iter().take_while(|option| **option != "comment");
    let options: Vec<&str> = before_comment.copied().collect();
    let timeout = options.iter().position(|option| *option == "timeout");
    let at = match timeout.map(|at| options.get(at + 1).copied().unwrap_or_default()) {
        // 0 stands for never.
        None | Some("0") => None,
        Some(text) => {
            let seconds = text.parse::<u32>();
            let seconds =
                seconds.map_err(|_| format!("timeout {text:?} is no number of seconds"))?;
            Some(ends(now, SignedDuration::from_secs(seconds.into()))?)
        }
    };
    Ok((prefixes, at))
}
