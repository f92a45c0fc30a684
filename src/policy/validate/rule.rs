//! What one rule must hold to.

use globset::Glob;

use super::super::address::shorten;
use super::super::error::{PolicyError, PolicyErrorKind};
use super::super::fields::{FragmentMatch, Ranges, VlanMatch};
use super::super::names::{RATES, name_of};
use super::super::rule::{Action, Match, RateLimit, RateScope, Rule};
use super::{ItemError, Sets, family};

use PolicyErrorKind::{Contradiction, InvalidValue};

/// Protocols whose header starts with two ports.
const WITH_PORTS: [u8; 5] = [6, 17, 33, 132, 136];
const TCP: u8 = 6;

/// An interface name has at most 15 bytes in Linux (IFNAMSIZ); a glob may take more to write.
const MAX_NAME: usize = 15;
const MAX_GLOB: usize = 64;

/// Checks a rule but for its id.
pub(super) fn check(rule: &Rule, sets: &Sets<'_>) -> Result<(), ItemError> {
    check_values(&rule.matches)?;
    check_header(&rule.matches)?;
    family::check(&rule.matches, sets)?;
    if let Action::RateLimit(limit) = &rule.action {
        check_rate_limit(limit).map_err(|e| e.in_field("action.rate_limit"))?;
    }
    if rule
        .expires
        .is_some_and(|t| t < jiff::Timestamp::UNIX_EPOCH)
    {
        return Err(invalid("before 1970").in_field("expires").into());
    }
    for name in &rule.interfaces {
        check_interface(name).map_err(|e| ItemError {
            item: name.clone(),
            error: e.in_field("interfaces"),
        })?;
    }
    Ok(())
}

fn invalid(reason: impl Into<std::borrow::Cow<'static, str>>) -> PolicyError {
    PolicyError::new(InvalidValue, reason)
}

fn contradiction(field: &str, reason: impl Into<std::borrow::Cow<'static, str>>) -> PolicyError {
    PolicyError::new(Contradiction, reason).in_field(field)
}

/// Each field by itself.
fn check_values(m: &Match) -> Result<(), PolicyError> {
    check_ranges(m.protocol.as_ref(), u8::MAX, "match.protocol")?;
    check_ranges(m.sport.as_ref(), u16::MAX, "match.sport")?;
    check_ranges(m.dport.as_ref(), u16::MAX, "match.dport")?;
    check_ranges(m.length.as_ref(), u32::MAX, "match.length")?;
    check_ranges(m.ttl.as_ref(), u8::MAX, "match.ttl")?;
    check_ranges(m.dscp.as_ref(), 63, "match.dscp")?;
    check_single(m.length.as_ref(), "match.length")?;
    check_single(m.ttl.as_ref(), "match.ttl")?;
    if let Some(VlanMatch::Ids(ids)) = &m.vlan {
        check_ranges(Some(ids), 4095, "match.vlan")?;
    }
    if let Some(flags) = m.tcp_flags {
        if flags.mask == 0 {
            return Err(invalid("no flag is named").in_field("match.tcp_flags"));
        }
        if flags.value & !flags.mask != 0 {
            let reason = "a flag must be set that is not looked at";
            return Err(invalid(reason).in_field("match.tcp_flags"));
        }
    }
    if m.anomaly.is_some_and(|a| !a.bad_fragment && !a.invalid) {
        return Err(invalid("no anomaly is named").in_field("match.anomaly"));
    }
    Ok(())
}

fn check_ranges<T>(ranges: Option<&Ranges<T>>, max: T, field: &str) -> Result<(), PolicyError>
where
    T: Copy + Ord + Into<u32> + TryFrom<u32> + std::fmt::Display,
{
    let Some(ranges) = ranges else { return Ok(()) };
    if ranges.is_empty() {
        return Err(invalid("no value is left to match").in_field(field));
    }
    for (lo, hi) in ranges.as_slice() {
        if lo > hi {
            let reason = format!("the range {lo}-{hi} is reversed");
            return Err(invalid(reason)
                .mend(format!("write {hi}-{lo}"))
                .in_field(field));
        }
        if *hi > max {
            return Err(invalid(format!("{hi} is above {max}")).in_field(field));
        }
    }
    Ok(())
}

/// Length and TTL are one number or range in the format.
fn check_single<T>(ranges: Option<&Ranges<T>>, field: &str) -> Result<(), PolicyError>
where
    T: Copy + Ord + Into<u32> + TryFrom<u32>,
{
    match ranges {
        Some(ranges) if ranges.as_slice().len() > 1 => Err(invalid("more than one range")
            .mend("use one rule for each")
            .in_field(field)),
        _ => Ok(()),
    }
}

/// Fields that need a header which other fields rule out.
fn check_header(m: &Match) -> Result<(), PolicyError> {
    let may_be = |protocol| m.protocol.as_ref().is_none_or(|p| p.contains(protocol));
    let ports = [("match.sport", &m.sport), ("match.dport", &m.dport)];
    let mut needs_l4 = ports
        .into_iter()
        .filter(|(_, p)| p.is_some())
        .map(|(field, _)| field);
    if let Some(field) = needs_l4.next() {
        if !WITH_PORTS.into_iter().any(may_be) {
            return Err(contradiction(field, "the protocol has no ports")
                .mend("ports are of tcp, udp, dccp, sctp and udplite"));
        }
        later_fragment(m, field)?;
    }
    if m.tcp_flags.is_some() {
        if !may_be(TCP) {
            return Err(contradiction("match.tcp_flags", "the protocol is not tcp"));
        }
        later_fragment(m, "match.tcp_flags")?;
    }
    if m.icmp.is_some() {
        let protocol = m.protocol.as_ref().map(Ranges::as_slice);
        if !matches!(protocol, Some([(1, 1)] | [(58, 58)])) {
            return Err(
                contradiction("match.icmp", "the protocol is not icmp or icmpv6")
                    .mend("add `protocol: icmp` or `protocol: icmpv6`"),
            );
        }
        later_fragment(m, "match.icmp")?;
    }
    let bad_fragment_only = m.anomaly.is_some_and(|a| a.bad_fragment && !a.invalid);
    if bad_fragment_only && m.fragment == Some(FragmentMatch::None) {
        let reason = "bad_fragment is of fragments, but match.fragment is none";
        return Err(contradiction("match.anomaly", reason));
    }
    Ok(())
}

fn later_fragment(m: &Match, field: &str) -> Result<(), PolicyError> {
    if m.fragment == Some(FragmentMatch::Later) {
        let reason = "a later fragment has no such header, but match.fragment is later";
        return Err(contradiction(field, reason));
    }
    Ok(())
}

fn check_rate_limit(limit: &RateLimit) -> Result<(), PolicyError> {
    if limit.rate == 0 {
        let unit = name_of(RATES, &limit.unit);
        let mend = "use the action `drop` to let nothing pass";
        return Err(invalid("a rate of 0").mend(mend).in_field(unit));
    }
    if limit.burst == 0 {
        return Err(invalid("a burst of 0 lets nothing pass").in_field("burst"));
    }
    if let RateScope::Source { v4, v6 } = limit.scope {
        for (len, max, family) in [(v4, 32, "v4"), (v6, 128, "v6")] {
            if len == 0 || len > max {
                let reason = format!("the prefix length {family} must be from 1 to {max}");
                return Err(invalid(reason).in_field("per"));
            }
        }
    }
    Ok(())
}

fn check_interface(name: &str) -> Result<(), PolicyError> {
    let is_glob = name.contains(['*', '?', '[', ']']);
    let max = if is_glob { MAX_GLOB } else { MAX_NAME };
    let shown = shorten(name);
    let reason = if name.is_empty() || name.len() > max {
        format!("{shown:?} is not of 1 to {max} bytes")
    } else if let Some(c) = name.chars().find(|c| !may_be_in_name(*c, is_glob)) {
        format!("{shown:?} has {c:?} in it")
    } else if is_glob && Glob::new(name).is_err() {
        format!("{shown:?} is not a glob")
    } else {
        return Ok(());
    };
    Err(invalid(reason).mend("names are as in `ip link`, globs may use * ? [a-z]"))
}

/// What Linux refuses in a name, and what else means something in a glob.
fn may_be_in_name(c: char, is_glob: bool) -> bool {
    match c {
        '/' | ':' | '\\' | '{' | '}' | ',' => false,
        '!' => is_glob,
        c => !c.is_whitespace() && !c.is_control(),
    }
}
