//! What `nft -j list ...` prints: libnftables-json(5).

use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use xdpgate::policy::Prefix;

use super::{Found, ends, range};

pub(super) fn parse(
    text: &str,
    now: Timestamp,
    wanted: &dyn Fn(&str) -> bool,
) -> Result<Found, String> {
    let root: Value = serde_json::from_str(text).map_err(|e| format!("it is not JSON: {e}"))?;
    let objects = root["nftables"].as_array();
    let objects = objects.ok_or("it has no `nftables`: is it the output of nft -j?")?;
    let mut found = Found::default();
    for (number, object) in objects.iter().enumerate() {
        let place = format!("nftables[{number}]");
        for (kind, it) in object.as_object().into_iter().flatten() {
            let name = it["name"].as_str().unwrap_or_default();
            match kind.as_str() {
                // They hold nothing of their own.
                "metainfo" | "table" => {}
                "set" => {
                    if wanted(name) {
                        set(&mut found, &place, name, it, now);
                    }
                }
                // Of another set than the one that is asked for nothing is said.
                "map" if !wanted(name) => {}
                "map" => found.unknown(&place, format!("map {name}: only sets are converted")),
                _ if !wanted("") && kind != "element" => {}
                "rule" => {
                    let chain = it["chain"].as_str().unwrap_or_default();
                    let reason = format!("a rule of chain {chain}: only sets are converted");
                    found.unknown(&place, reason);
                }
                other => {
                    found.unknown(&place, format!("{other} {name}: only sets are converted"));
                }
            }
        }
    }
    Ok(found)
}

fn set(found: &mut Found, place: &str, name: &str, set: &Value, now: Timestamp) {
    match set["type"].as_str() {
        Some("ipv4_addr" | "ipv6_addr") => {}
        _ => {
            let reason = format!(
                "set {name} is of type {}, of which entries are no addresses alone",
                set["type"]
            );
            return found.unknown(place, reason);
        }
    }
    if !found.begin(place, name) {
        return;
    }
    let timeout = set["timeout"].as_i64();
    let entries = set["elem"].as_array().map_or(&[][..], Vec::as_slice);
    for (number, entry) in entries.iter().enumerate() {
        match member(entry, timeout, now) {
            Ok((prefixes, at)) => found.add(name, prefixes, at),
            Err(reason) => {
                found.unknown(
                    format!("{place}.set.elem[{number}]"),
                    format!("{entry}: {reason}"),
                );
            }
        }
    }
}

type Member = (Vec<Prefix>, Option<Timestamp>);

fn member(entry: &Value, timeout: Option<i64>, now: Timestamp) -> Result<Member, String> {
    let (value, left) = match entry.get("elem") {
        // `expires` is missing where state was left out of the listing (nft -s).
        Some(elem) => {
            let own = elem["expires"].as_i64().or(elem["timeout"].as_i64());
            (&elem["val"], own.or(timeout))
        }
        None => (entry, timeout),
    };
    let at = match left {
        None | Some(0) => None,
        Some(seconds) => Some(ends(now, SignedDuration::from_secs(seconds))?),
    };
    Ok((prefixes(value)?, at))
}

fn prefixes(value: &Value) -> Result<Vec<Prefix>, String> {
    let addr = |value: &Value| -> Result<IpAddr, String> {
        let text = value.as_str().ok_or("it is no address")?;
        text.parse().map_err(|_| format!("{text:?} is no address"))
    };
    if let Some(prefix) = value.get("prefix") {
        let addr = addr(&prefix["addr"])?;
        let len = prefix["len"]
            .as_u64()
            .and_then(|len| u8::try_from(len).ok());
        let prefix = len.and_then(|len| Prefix::new(addr, len));
        return Ok(vec![prefix.ok_or("it is no prefix")?]);
    }
    if let Some(range) = value.get("range") {
        return range::prefixes(addr(&range[0])?, addr(&range[1])?);
    }
    Ok(vec![Prefix::host(addr(value)?)])
}
