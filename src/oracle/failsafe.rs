//! Management traffic that passes before any rule; what it is, [`Failsafe`] says.

use std::net::IpAddr;

use crate::management::{self, Management};
use crate::packet::Packet;
use crate::policy::{Failsafe, Family};

const UDP: u8 = 17;

/// Whether the packet is management traffic that this failsafe lets through.
pub(super) fn passes(failsafe: &Failsafe, of_host: &[Management], packet: &Packet) -> bool {
    failsafe.enabled
        && (neighbour_discovery(packet)
            || dhcpv4(packet)
            || dhcpv6(packet)
            || management::passes(failsafe, of_host, packet))
}

/// Hop limit 255 shows that no router has forwarded it (RFC 4861).
fn neighbour_discovery(packet: &Packet) -> bool {
    packet.family() == Family::Ipv6
        && packet.ttl == 255
        && packet
            .icmp
            .is_some_and(|(icmp_type, _)| (133..=137).contains(&icmp_type))
}

fn dhcpv4(packet: &Packet) -> bool {
    packet.family() == Family::Ipv4
        && packet.protocol == Some(UDP)
        && packet
            .ports
            .is_some_and(|(s, d)| [67, 68].contains(&s) && [67, 68].contains(&d))
}

fn dhcpv6(packet: &Packet) -> bool {
    let link_local = match packet.src {
        IpAddr::V4(_) => false,
        IpAddr::V6(a) => a.is_unicast_link_local(),
    };
    link_local
        && packet.protocol == Some(UDP)
        && packet.ports.is_some_and(|(_, d)| [546, 547].contains(&d))
}
