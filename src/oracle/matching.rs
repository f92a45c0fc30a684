//! Whether a packet is what a rule asks for.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;

use crate::packet::{Fragment, Packet};
use crate::policy::{
    AddressItem, AddressMatch, AddressSet, Anomalies, FragmentMatch, Match, SetName, VlanMatch,
};

/// Whether every part of the match holds at this time. A part that asks for what the packet does not have
/// (ports, flags, ...) does not hold, whatever it asks.
pub(super) fn holds(
    m: &Match,
    packet: &Packet,
    sets: &BTreeMap<SetName, AddressSet>,
    at: Timestamp,
) -> bool {
    let inside = |m: &AddressMatch, addr| address(m, addr, sets, at);
    asked(&m.src, |a| inside(a, packet.src))
        && asked(&m.dst, |a| inside(a, packet.dst))
        && asked(&m.family, |f| *f == packet.family())
        && asked(&m.protocol, |r| {
            packet.protocol.is_some_and(|p| r.contains(p))
        })
        && asked(&m.sport, |r| {
            packet.ports.is_some_and(|(s, _)| r.contains(s))
        })
        && asked(&m.dport, |r| {
            packet.ports.is_some_and(|(_, d)| r.contains(d))
        })
        && asked(&m.tcp_flags, |t| {
            packet.tcp_flags.is_some_and(|f| f & t.mask == t.value)
        })
        && asked(&m.icmp, |i| {
            packet.icmp.is_some_and(|(icmp_type, code)| {
                icmp_type == i.icmp_type && asked(&i.code, |c| *c == code)
            })
        })
        && asked(&m.length, |r| r.contains(packet.length))
        && asked(&m.fragment, |f| fragment(*f, packet.fragment))
        && asked(&m.vlan, |v| vlan(v, packet.vlan))
        && asked(&m.ttl, |r| r.contains(packet.ttl))
        && asked(&m.dscp, |r| r.contains(packet.dscp))
        && asked(&m.anomaly, |a| anomaly(*a, packet))
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
