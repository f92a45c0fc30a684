//! The `match` of a rule.

use super::super::address::{AddressItem, AddressMatch, Prefix, PrefixParseError, SetName};
use super::super::error::PolicyErrorKind;
use super::super::fields::{
    Anomalies, IcmpMatch, ProtocolName, Ranges, TcpFlags, TcpFlagsMatch, VlanMatch,
};
use super::super::names::{FAMILIES, FRAGMENTS, PRESETS, value_of};
use super::super::rule::Match;
use super::super::suggest;
use super::read::{Fields, Result, quote};
use super::tree::{Node, Value};

use PolicyErrorKind::Contradiction;

const KEYS: &[&str] = &[
    "src",
    "dst",
    "family",
    "protocol",
    "sport",
    "dport",
    "tcp_flags",
    "icmp",
    "length",
    "fragment",
    "vlan",
    "ttl",
    "dscp",
    "anomaly",
    "preset",
];

const MAX_PORT: u64 = 0xffff;
const MAX_VLAN: u64 = 4095;
const MAX_DSCP: u64 = 63;
const TCP: u8 = 6;

pub(super) fn matches(node: &Node<'_>) -> Result<Match> {
    let fields = node.fields(KEYS)?;
    let mut m = Match {
        src: fields.read("src", addresses)?,
        dst: fields.read("dst", addresses)?,
        family: fields.read("family", |n| n.word(FAMILIES))?,
        protocol: fields.read("protocol", protocol)?.flatten(),
        sport: fields.read("sport", ports)?,
        dport: fields.read("dport", ports)?,
        tcp_flags: fields.read("tcp_flags", tcp_flags)?,
        icmp: fields.read("icmp", icmp)?,
        length: fields.read("length", |n| Ok(Ranges::new([n.range(u32::MAX.into())?])))?,
        fragment: fields.read("fragment", |n| n.word(FRAGMENTS))?,
        vlan: fields.read("vlan", vlan)?,
        ttl: fields.read("ttl", |n| Ok(Ranges::new([n.range(u8::MAX.into())?])))?,
        dscp: fields.read("dscp", |n| numbers(n, MAX_DSCP))?,
        anomaly: fields.read("anomaly", anomaly)?,
    };
    expand_preset(&fields, &mut m).map_err(|e| e.in_field("preset"))?;
    Ok(m)
}

/// An address or prefix.
pub(super) fn prefix(node: &Node<'_>) -> Result<Prefix> {
    prefix_in(node, node.text("an address or prefix")?)
}

fn prefix_in(node: &Node<'_>, text: &str) -> Result<Prefix> {
    text.parse()
        .map_err(|e: PrefixParseError| node.invalid(e.to_string()))
}

/// What `{not: ...}` holds, or the node itself.
fn negation<'n, 'a>(node: &'n Node<'a>) -> Result<(bool, &'n Node<'a>)> {
    if !node.is_mapping() {
        return Ok((false, node));
    }
    let inner = node
        .fields(&["not"])?
        .require("not", "write {not: ...}", Ok)?;
    Ok((true, inner))
}

fn in_negation<T>(negated: bool, result: Result<T>) -> Result<T> {
    if negated {
        result.map_err(|e| e.in_field("not"))
    } else {
        result
    }
}

fn addresses(node: &Node<'_>) -> Result<AddressMatch> {
    let (negated, node) = negation(node)?;
    let items = node
        .one_or_more()
        .and_then(|items| items.iter().map(address).collect());
    Ok(AddressMatch {
        negated,
        items: in_negation(negated, items)?,
    })
}

fn address(node: &Node<'_>) -> Result<AddressItem> {
    let text = node.text("an address, a prefix or a \"@set\"")?;
    match text.strip_prefix('@') {
        None => prefix_in(node, text).map(AddressItem::Prefix),
        Some(name) => SetName::new(name).map(AddressItem::Set).ok_or_else(|| {
            node.invalid(format!("{} is not the name of a set", quote(text)))
                .mend("names are 1 to 64 of a-z A-Z 0-9 . _ -")
        }),
    }
}

/// Whether a match asks for all protocols and for nothing else.
pub(super) fn is_all_protocols(node: &Node<'_>) -> bool {
    let alone = matches!(&node.value, Value::Map(entries) if entries.len() == 1);
    alone && node.value("protocol").is_some_and(is_all)
}

fn is_all(node: &Node<'_>) -> bool {
    matches!(&node.value, Value::Scalar(text) if text == "all")
}

/// `None` for `all`: no constraint.
fn protocol(node: &Node<'_>) -> Result<Option<Ranges<u8>>> {
    if is_all(node) {
        return Ok(None);
    }
    let numbers = node.one_or_more()?.iter().map(protocol_number);
    let numbers: Vec<u8> = numbers.collect::<Result<_>>()?;
    Ok(Some(Ranges::new(numbers.into_iter().map(|n| (n, n)))))
}

fn protocol_number(node: &Node<'_>) -> Result<u8> {
    let text = node.text("a protocol name or number")?;
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return node.number(u8::MAX.into());
    }
    ProtocolName::number(text).ok_or_else(|| {
        let names = || ProtocolName::ALL.iter().map(|(n, _)| *n);
        let error = node.invalid(format!("{} is not a known protocol", quote(text)));
        error.mend(match suggest::nearest(text, names()) {
            Some(near) if near.eq_ignore_ascii_case(text) => {
                format!("names are lower case: write {near}")
            }
            Some(near) => format!("did you mean \"{near}\"? A number from 0 to 255 does too"),
            None if text == "all" => "`all` cannot be one of a list".to_owned(),
            None => {
                let names: Vec<_> = names().collect();
                format!(
                    "known are all, {} and the numbers from 0 to 255",
                    names.join(", ")
                )
            }
        })
    })
}

fn ports(node: &Node<'_>) -> Result<Ranges<u16>> {
    let (negated, node) = negation(node)?;
    let ranges = node.one_or_more();
    let ranges = ranges.and_then(|items| items.iter().map(|n| n.range(MAX_PORT)).collect());
    let ranges: Vec<(u16, u16)> = in_negation(negated, ranges)?;
    let ranges = Ranges::new(ranges);
    Ok(if negated {
        ranges.complement(u16::MAX)
    } else {
        ranges
    })
}

/// A number or a list of numbers.
fn numbers<T>(node: &Node<'_>, max: u64) -> Result<Ranges<T>>
where
    T: Copy + Ord + Into<u32> + TryFrom<u32> + TryFrom<u64>,
{
    let numbers = node.one_or_more()?.iter().map(|n| n.number(max));
    let numbers: Vec<T> = numbers.collect::<Result<_>>()?;
    Ok(Ranges::new(numbers.into_iter().map(|n| (n, n))))
}

fn tcp_flags(node: &Node<'_>) -> Result<TcpFlagsMatch> {
    let text = node.text("TCP flags, as in \"SYN,!ACK\"")?;
    let mut flags = TcpFlagsMatch { mask: 0, value: 0 };
    for word in text.split(',').map(str::trim) {
        let (name, set) = match word.strip_prefix('!') {
            Some(name) => (name, false),
            None => (word, true),
        };
        let bit = value_of(TcpFlags::ALL, name).ok_or_else(|| {
            let names: Vec<_> = TcpFlags::ALL.iter().map(|(n, _)| *n).collect();
            node.invalid(format!("{} is not a TCP flag", quote(name)))
                .mend(format!("flags are {}, with ! for clear", names.join(", ")))
        })?;
        if flags.mask & bit != 0 {
            let was_set = flags.value & bit != 0;
            return Err(if was_set == set {
                node.error(PolicyErrorKind::Duplicate, format!("{word} is there twice"))
            } else {
                node.error(
                    Contradiction,
                    format!("{name} and !{name} cannot both hold"),
                )
            });
        }
        flags.mask |= bit;
        flags.value |= if set { bit } else { 0 };
    }
    Ok(flags)
}

fn icmp(node: &Node<'_>) -> Result<IcmpMatch> {
    let fields = node.fields(&["type", "code"])?;
    Ok(IcmpMatch {
        icmp_type: fields.require("type", "write {type: 8}", |n| n.number(u8::MAX.into()))?,
        code: fields.read("code", |n| n.number(u8::MAX.into()))?,
    })
}

fn vlan(node: &Node<'_>) -> Result<VlanMatch> {
    match &node.value {
        Value::Scalar(text) if text == "none" => Ok(VlanMatch::None),
        Value::Scalar(text) if text == "any" => Ok(VlanMatch::Any),
        _ => numbers(node, MAX_VLAN)
            .map(VlanMatch::Ids)
            .map_err(|e| e.mend("a VLAN is an id, a list of ids, none or any")),
    }
}

fn anomaly(node: &Node<'_>) -> Result<Anomalies> {
    let mut anomalies = Anomalies::default();
    for item in node.one_or_more()? {
        // The word picks the field.
        match item.word(&[("bad_fragment", true), ("invalid", false)])? {
            true => anomalies.bad_fragment = true,
            false => anomalies.invalid = true,
        }
    }
    Ok(anomalies)
}

fn expand_preset(fields: &Fields<'_, '_>, m: &mut Match) -> Result<()> {
    let Some(node) = fields.get("preset") else {
        return Ok(());
    };
    let flags = node.word(PRESETS)?;
    if m.tcp_flags.is_some() {
        return Err(node
            .error(Contradiction, "a preset and match.tcp_flags")
            .mend("write all flags in tcp_flags"));
    }
    if m.protocol.as_ref().is_some_and(|p| !p.contains(TCP)) {
        return Err(node.error(
            Contradiction,
            "a preset is of TCP, but match.protocol is not",
        ));
    }
    m.tcp_flags = Some(flags);
    m.protocol.get_or_insert(Ranges::single(TCP));
    Ok(())
}

/// Which key of the text gave rise to a field that the text may not have.
pub(super) fn written_as(field: &str) -> Option<&'static str> {
    (field == "tcp_flags").then_some("preset")
}
