//! What `nft list ...` prints as text. Only the shape of blocks and the inside of address sets are
//! understood: all else is named.

use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use xdpgate::policy::Prefix;

use super::{Found, ends, range};
use crate::client::duration;

pub(super) fn parse(text: &str, now: Timestamp, wanted: &dyn Fn(&str) -> bool) -> Found {
    let mut found = Found::default();
    let mut lines = (1usize..).zip(text.lines()).peekable();
    while let Some((number, line)) = lines.next() {
        let line = line.trim();
        let place = format!("line {number}");
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            [] | ["}"] => {}
            [first, ..] if first.starts_with('#') => {}
            ["table", .., "{"] => {}
            ["set", name, "{"] => {
                let body = block(&mut lines);
                if wanted(name) {
                    set(&mut found, &place, name, &body, now);
                }
            }
            [kind, name, .., "{"] => {
                block(&mut lines);
                let asked = match kind {
                    "map" => wanted(name),
                    _ => wanted(""),
                };
                if asked {
                    found.unknown(&place, format!("{kind} {name}: only sets are converted"));
                }
            }
            _ => found.unknown(&place, format!("{line:?} is no line of a set")),
        }
    }
    found
}

/// The lines of a block, up to the brace that ends it, with their numbers.
fn block<'t>(lines: &mut impl Iterator<Item = (usize, &'t str)>) -> Vec<(usize, &'t str)> {
    let mut depth = 1;
    let mut body = Vec::new();
    for (number, line) in lines {
        let mut quoted = false;
        for letter in line.chars() {
            match letter {
                '"' => quoted = !quoted,
                '{' if !quoted => depth += 1,
                '}' if !quoted => depth -= 1,
                _ => {}
            }
        }
        if depth == 0 {
            break;
        }
        body.push((number, line));
    }
    body
}

fn set(found: &mut Found, place: &str, name: &str, body: &[(usize, &str)], now: Timestamp) {
    let value = |key: &str| {
        let mut lines = body.iter().map(|(_, line)| line.trim());
        lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))
    };
    match value("type").map(str::trim) {
        Some("ipv4_addr" | "ipv6_addr") => {}
        other => {
            let kind = other.or(value("typeof")).unwrap_or("no type");
            let reason =
                format!("set {name} is of type {kind}, of which entries are no addresses alone");
            return found.unknown(place, reason);
        }
    }
    let timeout = match value("timeout").map(left).transpose() {
        Ok(timeout) => timeout,
        Err(reason) => return found.unknown(place, format!("set {name}: {reason}")),
    };
    if !found.begin(place, name) {
        return;
    }
    for (number, entry) in elements(body) {
        match member(&entry, timeout, now) {
            Ok((prefixes, at)) => found.add(name, prefixes, at),
            Err(reason) => found.unknown(format!("line {number}"), format!("{entry}: {reason}")),
        }
    }
}

/// What is between the braces of `elements = { ... }`, at commas that are in no quotes, each with the
/// line on which it begins.
fn elements(body: &[(usize, &str)]) -> Vec<(usize, String)> {
    let mut all = Vec::new();
    let mut inside = false;
    let mut quoted = false;
    let mut entry = String::new();
    let mut at = 0;
    for (number, line) in body {
        let line = match (inside, line.trim().strip_prefix("elements = {")) {
            (false, Some(rest)) => {
                inside = true;
                rest
            }
            (true, _) => line,
            (false, None) => continue,
        };
        for letter in line.chars().chain(std::iter::once(' ')) {
            match letter {
                '"' => quoted = !quoted,
                ',' | '}' if !quoted => {
                    let text = entry.trim().to_owned();
                    if !text.is_empty() {
                        all.push((at, text));
                    }
                    entry.clear();
                    if letter == '}' {
                        return all;
                    }
                    continue;
                }
                _ => {}
            }
            if entry.trim().is_empty() && !letter.is_whitespace() {
                at = *number;
            }
            entry.push(letter);
        }
    }
    all
}

type Member = (Vec<Prefix>, Option<Timestamp>);

/// `203.0.113.1-203.0.113.9 timeout 1d2h expires 1d1h59m59s comment "scan"`.
fn member(entry: &str, timeout: Option<SignedDuration>, now: Timestamp) -> Result<Member, String> {
    let plain = entry.split('"').next().unwrap_or_default();
    let words: Vec<&str> = plain.split_whitespace().collect();
    let after = |key: &str| {
        let at = words.iter().position(|word| *word == key)?;
        words.get(at + 1).copied()
    };
    // `expires` is missing where state was left out of the listing (nft -s).
    let own = after("expires")
        .or(after("timeout"))
        .map(left)
        .transpose()?;
    let at = match own.or(timeout) {
        None => None,
        Some(left) if left.is_zero() => None,
        Some(left) => Some(ends(now, left)?),
    };
    if words.get(1) == Some(&".") {
        return Err("it is several values, and not an address alone".to_owned());
    }
    let value = words.first().copied().unwrap_or_default();
    let prefixes = match value.split_once('-') {
        Some((first, last)) => {
            let addr = |text: &str| -> Result<IpAddr, String> {
                text.parse().map_err(|_| format!("{text:?} is no address"))
            };
            range::prefixes(addr(first)?, addr(last)?)?
        }
        None => vec![value.parse::<Prefix>().map_err(|e| e.to_string())?],
    };
    Ok((prefixes, at))
}

/// `1d1h59m59s960ms`.
fn left(text: &str) -> Result<SignedDuration, String> {
    let text = text.trim();
    // nft prints 0s for an entry that never expires in a set with a timeout.
    let duration = duration::parse(text).map_err(|e| format!("{text:?}: {e}"))?;
    SignedDuration::try_from(duration).map_err(|_| format!("{text:?} is too long"))
}
