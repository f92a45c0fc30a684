//! Whether a packet is what a rule asks for.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;

use crate::packet::{Fragment, Packet};
use crate::policy::{
    AddressItem, AddressMatch, AddressSet, Anomalies, FragmentMatch, IcmpMatch, Match, Ranges,
    SetName, TcpFlagsMatch, VlanMatch,
};

/// Whether every part of the match holds at this time. A part that asks for what the packet does not have
/// (ports, flags, ...) does not hold, whatever it asks.
pub(super) fn holds(
    m: &Match,
    packet: &Packet,
    sets: &BTreeMap<SetName, AddressSet>,
    at: Timestamp,
) -> bool {
    each(m, packet, sets, at, |_, holds| holds)
}

/// The parts that do not hold, by the names that they have in a policy.
pub(super) fn misses(
    m: &Match,
    packet: &Packet,
    sets: &BTreeMap<SetName, AddressSet>,
    at: Timestamp,
) -> Vec<&'static str> {
    let mut missed = Vec::new();
    each(m, packet, sets, at, |part, holds| {
        if !holds {
            missed.push(part);
        }
        true
    });
    missed
}

/// Tells of each part whether it holds, as long as the answer is to go on.
fn each(
    m: &Match,
    packet: &Packet,
    sets: &BTreeMap<SetName, AddressSet>,
    at: Timestamp,
    mut told: impl FnMut(&'static str, bool) -> bool,
) -> bool {
    let inside = |m: &AddressMatch, addr| address(m, addr, sets, at);
    let (sport, dport) = (packet.ports.map(|p| p.0), packet.ports.map(|p| p.1));
    let has = |part: &Option<Ranges<u16>>, port: Option<u16>| {
        asked(part, |r| port.is_some_and(|p| r.contains(p)))
    };
    let protocol = |r: &Ranges<u8>| packet.protocol.is_some_and(|p| r.contains(p));
    let flags = |t: &TcpFlagsMatch| packet.tcp_flags.is_some_and(|f| f & t.mask == t.value);
    let icmp = |i: &IcmpMatch| {
        packet.icmp.is_some_and(|(icmp_type, code)| {
            icmp_type == i.icmp_type && asked(&i.code, |c| *c == code)
        })
    };
    told("src", asked(&m.src, |a| inside(a, packet.src)))
        && told("dst", asked(&m.dst, |a| inside(a, packet.dst)))
        && told("family", asked(&m.family, |f| *f == packet.family()))
        && told("protocol", asked(&m.protocol, protocol))
        && told("sport", has(&m.sport, sport))
        && told("dport", has(&m.dport, dport))
        && told("tcp_flags", asked(&m.tcp_flags, flags))
        && told("icmp", asked(&m.icmp, icmp))
        && told("length", asked(&m.length, |r| r.contains(packet.length)))
        && told(
            "fragment",
            asked(&m.fragment, |f| fragment(*f, packet.fragment)),
        )
        && told("vlan", asked(&m.vlan, |v| vlan(v, packet.vlan)))
        && told("ttl", asked(&m.ttl, |r| r.contains(packet.ttl)))
        && told("dscp", asked(&m.dscp, |r| r.contains(packet.dscp)))
        && told("anomaly", asked(&m.anomaly, |a| anomaly(*a, packet)))
}

/// A part that is not asked for always holds.
fn asked<T>(part: &Option<T>, holds: impl FnOnce(&T) -> bool) -> bool {
    part.as_ref().is_none_or(holds)
}

fn address(
    m: &AddressMatch,
    addr: IpAddr,
    sets: &BTreeMap<SetName, AddressSet>,
    at: Timestamp,
) -> bool {
    let inside = m.items.iter().any(|item| match item {
        AddressItem::Prefix(prefix) => prefix.contains(addr),
        AddressItem::Set(name) => sets.get(name).is_some_and(|set| set.contains_at(addr, at)),
    });
    inside != m.negated
}

fn fragment(m: FragmentMatch, state: Fragment) -> bool {
    match m {
        FragmentMatch::None => state == Fragment::None,
        FragmentMatch::First => state == Fragment::First,
        FragmentMatch::Later => state == Fragment::Later,
        FragmentMatch::Any => state != Fragment::None,
    }
}

fn vlan(m: &VlanMatch, tag: Option<u16>) -> bool {
    match m {
        VlanMatch::None => tag.is_none(),
        VlanMatch::Any => tag.is_some(),
        VlanMatch::Ids(ids) => tag.is_some_and(|id| ids.contains(id)),
    }
}

fn anomaly(m: Anomalies, packet: &Packet) -> bool {
    (m.bad_fragment && packet.bad_fragment) || (m.invalid && packet.invalid)
}
