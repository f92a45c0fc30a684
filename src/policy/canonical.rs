//! The canonical text of a policy.

use std::fmt::{self, Display, Write};

use super::address::{AddressItem, AddressMatch, Family, Prefix};
use super::fields::{IcmpMatch, ProtocolName, Ranges, TcpFlags, TcpFlagsMatch, VlanMatch};
use super::names::{COUNTERS, FAMILIES, FRAGMENTS, MODES, RATES, VERDICTS, name_of};
use super::rule::{Action, Match, Mode, RateLimit, RateScope, Rule};
use super::set::{AddressSet, EntryCounters};
use super::{Failsafe, Policy};

impl Policy {
    /// The policy in canonical form, which [`Policy::from_yaml`] reads back as an equal policy.
    ///
    /// Rules are in evaluation order with their priorities, presets are expanded, ranges merged,
    /// set entries sorted and all in the text, whatever file they came from, those that expire last.
    /// What is as by default is left out, but for `version`, `default`, `malformed` and `failsafe`.
    ///
    /// ```
    /// use xdpgate::Policy;
    ///
    /// let policy = Policy::from_yaml("
    /// version: 1
    /// rules: [{ id: acks, match: { preset: tcp_ack, dport: [443, 80, 81] }, action: count }]
    /// ")?;
    /// assert_eq!(policy.to_yaml(), "\
    /// version: 1
    /// default: pass
    /// malformed: pass
    /// failsafe: {}
    /// rules:
    ///   - id: acks
    ///     priority: 10
    ///     match:
    ///       protocol: tcp
    ///       dport: [80-81, 443]
    ///       tcp_flags: \"!SYN,ACK\"
    ///     action: count
    /// ");
    /// assert_eq!(Policy::from_yaml(&policy.to_yaml())?, policy);
    /// # Ok::<(), xdpgate::PolicyError>(())
    /// ```
    pub fn to_yaml(&self) -> String {
        let entries: usize = self.sets.values().map(AddressSet::len).sum();
        let mut out = String::with_capacity(256 * (self.rules.len() + 1) + 24 * entries);
        // Writing to a string does not fail.
        let _ = write_policy(&mut out, self);
        out
    }
}

fn write_policy(out: &mut String, policy: &Policy) -> fmt::Result {
    writeln!(out, "version: 1")?;
    writeln!(out, "default: {}", name_of(VERDICTS, &policy.default))?;
    writeln!(out, "malformed: {}", name_of(VERDICTS, &policy.malformed))?;
    match &policy.failsafe {
        Failsafe { enabled: false, .. } => writeln!(out, "failsafe: none")?,
        Failsafe { ssh_from, .. } if ssh_from.is_empty() => writeln!(out, "failsafe: {{}}")?,
        Failsafe { ssh_from, .. } => {
            let prefixes = Flow(ssh_from.iter().map(|p| Address(*p)));
            writeln!(out, "failsafe:\n  ssh_from: {prefixes:#}")?;
        }
    }
    if !policy.sets.is_empty() {
        writeln!(out, "sets:")?;
    }
    for (name, set) in &policy.sets {
        writeln!(out, "  {}:", Word(name.as_str()))?;
        if set.counters() != EntryCounters::None {
            writeln!(out, "    counters: {}", name_of(COUNTERS, &set.counters()))?;
        }
        writeln!(out, "    entries:")?;
        for (prefix, expires) in set.entries() {
            let entry = Address(prefix);
            match expires {
                None => writeln!(out, "      - {entry}")?,
                Some(at) => writeln!(out, "      - {{entry: {entry}, expires: {at}}}")?,
            }
        }
    }
    if !policy.rules.is_empty() {
        writeln!(out, "rules:")?;
    }
    policy
        .rules
        .iter()
        .try_for_each(|rule| write_rule(out, rule))
}

/// The rule as an item of the list of rules.
pub(super) fn write_rule(out: &mut String, rule: &Rule) -> fmt::Result {
    writeln!(out, "  - id: {}", Word(rule.id.as_str()))?;
    writeln!(out, "    priority: {}", rule.priority)?;
    if rule.matches != Match::default() {
        writeln!(out, "    match:")?;
        write_match(out, &rule.matches)?;
    }
    write_action(out, &rule.action)?;
    if rule.mode != Mode::Enforce {
        writeln!(out, "    mode: {}", name_of(MODES, &rule.mode))?;
    }
    if !rule.enabled {
        writeln!(out, "    enabled: false")?;
    }
    if let Some(expires) = rule.expires {
        writeln!(out, "    expires: {expires}")?;
    }
    if !rule.interfaces.is_empty() {
        writeln!(
            out,
            "    interfaces: {:#}",
            Flow(rule.interfaces.iter().map(|i| Text(i)))
        )?;
    }
    if let Some(name) = &rule.name {
        writeln!(out, "    name: {}", Text(name))?;
    }
    if let Some(comment) = &rule.comment {
        writeln!(out, "    comment: {}", Text(comment))?;
    }
    if !rule.labels.is_empty() {
        writeln!(out, "    labels:")?;
    }
    rule.labels
        .iter()
        .try_for_each(|(key, value)| write_label(out, key, value))
}

fn write_label(out: &mut String, key: &str, value: &str) -> fmt::Result {
    // What stands before a colon may be 1024 characters long in YAML, escapes included.
    let (key, value) = (Text(key).to_string(), Text(value));
    if key.len() < 1000 {
        writeln!(out, "      {key}: {value}")
    } else {
        writeln!(out, "      ? {key}\n      : {value}")
    }
}

pub(super) fn write_match(out: &mut String, m: &Match) -> fmt::Result {
    let mut field = |key: &str, value: Option<&dyn Display>| match value {
        Some(value) => writeln!(out, "      {key}: {value}"),
        None => Ok(()),
    };
    /// `Option<impl Display>` as the optional trait object that `field` takes.
    macro_rules! shown {
        ($value:expr) => {
            $value.as_ref().map(|v| v as &dyn Display)
        };
    }
    field("src", shown!(m.src.as_ref().map(Addresses)))?;
    field("dst", shown!(m.dst.as_ref().map(Addresses)))?;
    field(
        "family",
        shown!(m.family.as_ref().map(|f| name_of(FAMILIES, f))),
    )?;
    field(
        "protocol",
        shown!(m.protocol.as_ref().map(|p| Flow(each(p).map(Protocol)))),
    )?;
    field(
        "sport",
        shown!(
            m.sport
                .as_ref()
                .map(|p| Flow(p.as_slice().iter().map(Range)))
        ),
    )?;
    field(
        "dport",
        shown!(
            m.dport
                .as_ref()
                .map(|p| Flow(p.as_slice().iter().map(Range)))
        ),
    )?;
    field("tcp_flags", shown!(m.tcp_flags.map(Flags)))?;
    field("icmp", shown!(m.icmp.map(Icmp)))?;
    field("length", shown!(m.length))?;
    field(
        "fragment",
        shown!(m.fragment.as_ref().map(|f| name_of(FRAGMENTS, f))),
    )?;
    match &m.vlan {
        None => {}
        Some(VlanMatch::None) => field("vlan", Some(&"none"))?,
        Some(VlanMatch::Any) => field("vlan", Some(&"any"))?,
        Some(VlanMatch::Ids(ids)) => field("vlan", Some(&Flow(each(ids))))?,
    }
    field("ttl", shown!(m.ttl))?;
    field("dscp", shown!(m.dscp.as_ref().map(|d| Flow(each(d)))))?;
    let anomalies = m.anomaly.map(|a| match (a.bad_fragment, a.invalid) {
        (true, true) => "[bad_fragment, invalid]",
        (true, false) => "bad_fragment",
        (false, _) => "invalid",
    });
    field("anomaly", shown!(anomalies))
}

fn write_action(out: &mut String, action: &Action) -> fmt::Result {
    let RateLimit {
        unit,
        rate,
        burst,
        scope,
    } = match action {
        Action::Drop => return writeln!(out, "    action: drop"),
        Action::Pass => return writeln!(out, "    action: pass"),
        Action::Count => return writeln!(out, "    action: count"),
        Action::RateLimit(limit) => limit,
    };
    writeln!(
        out,
        "    action:\n      rate_limit:\n        {}: {rate}",
        name_of(RATES, unit)
    )?;
    writeln!(out, "        burst: {burst}")?;
    match scope {
        RateScope::Rule => Ok(()),
        RateScope::Source { v4: 32, v6: 128 } => writeln!(out, "        per: source"),
        RateScope::Source { v4, v6 } => {
            writeln!(out, "        per: {{source: {{v4: {v4}, v6: {v6}}}}}")
        }
    }
}

/// A list in brackets; its only item alone unless `{:#}` asks for the brackets.
struct Flow<I>(I);

impl<I: Iterator<Item: Display> + Clone> Display for Flow<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut items = self.0.clone();
        if let (false, Some(item), None) = (f.alternate(), items.next(), items.next()) {
            return write!(f, "{item}");
        }
        f.write_char('[')?;
        for (i, item) in self.0.clone().enumerate() {
            write!(f, "{}{item}", if i > 0 { ", " } else { "" })?;
        }
        f.write_char(']')
    }
}

/// Every value of a set of numbers.
fn each<T>(ranges: &Ranges<T>) -> impl Iterator<Item = u32> + Clone
where
    T: Copy + Ord + Into<u32> + TryFrom<u32>,
{
    ranges
        .as_slice()
        .iter()
        .flat_map(|(lo, hi)| (*lo).into()..=(*hi).into())
}

/// IPv6 is quoted: `fe80::` would be a key.
struct Address(Prefix);

impl Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.family() {
            Family::Ipv4 => write!(f, "{}", self.0),
            Family::Ipv6 => write!(f, "\"{}\"", self.0),
        }
    }
}

struct Addresses<'a>(&'a AddressMatch);

impl Display for Addresses<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let items = Flow(self.0.items.iter().map(Item));
        if self.0.negated {
            write!(f, "{{not: {items}}}")
        } else {
            write!(f, "{items}")
        }
    }
}

#[derive(Clone)]
struct Item<'a>(&'a AddressItem);

impl Display for Item<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            AddressItem::Prefix(prefix) => Address(*prefix).fmt(f),
            AddressItem::Set(name) => write!(f, "\"@{name}\""),
        }
    }
}

struct Protocol(u32);

impl Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match u8::try_from(self.0).ok().and_then(ProtocolName::of) {
            Some(name) => f.write_str(name),
            None => write!(f, "{}", self.0),
        }
    }
}

struct Range<'a, T>(&'a (T, T));

impl<T: Display + PartialEq> Display for Range<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            (lo, hi) if lo == hi => write!(f, "{lo}"),
            (lo, hi) => write!(f, "{lo}-{hi}"),
        }
    }
}

struct Flags(TcpFlagsMatch);

impl Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = TcpFlags::ALL
            .iter()
            .filter(|(_, bit)| self.0.mask & bit != 0);
        f.write_char('"')?;
        for (i, (name, bit)) in named.enumerate() {
            let comma = if i > 0 { "," } else { "" };
            let not = if self.0.value & bit == 0 { "!" } else { "" };
            write!(f, "{comma}{not}{name}")?;
        }
        f.write_char('"')
    }
}

struct Icmp(IcmpMatch);

impl Display for Icmp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{type: {}", self.0.icmp_type)?;
        if let Some(code) = self.0.code {
            write!(f, ", code: {code}")?;
        }
        f.write_char('}')
    }
}

/// An id or name, quoted unless every YAML reader takes it as text.
struct Word<'a>(&'a str);

impl Display for Word<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let special = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
        let plain = self.0.starts_with(|c: char| c.is_ascii_alphabetic())
            && !special.iter().any(|s| s.eq_ignore_ascii_case(self.0));
        if plain {
            f.write_str(self.0)
        } else {
            write!(f, "\"{}\"", self.0)
        }
    }
}

/// Text of the user in double quotes, on one line.
struct Text<'a>(&'a str);

impl Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for c in self.0.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                '\n' => f.write_str("\\n")?,
                '\t' => f.write_str("\\t")?,
                '\u{2028}' | '\u{2029}' | '\u{fffe}' | '\u{ffff}' | '\u{feff}' => {
                    write!(f, "\\u{:04x}", u32::from(c))?;
                }
                c if c.is_control() => write!(f, "\\u{:04x}", u32::from(c))?,
                c => f.write_char(c)?,
            }
        }
        f.write_char('"')
    }
}
