//! Ports, TCP flags and ICMP types.

use crate::policy::Family;

use super::{Fragment, Packet, be16};

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const DCCP: u8 = 33;
const ICMPV6: u8 = 58;
const SCTP: u8 = 132;
const UDP_LITE: u8 = 136;

/// Reads the L4 header at the start of `bytes`, which end where the IP packet or the frame ends.
/// Protocols that are not known have no L4 fields and are never malformed.
pub(super) fn parse(packet: &mut Packet, protocol: u8, bytes: &[u8]) {
    let minimum = match (protocol, packet.family()) {
        (TCP, _) => 20,
        (UDP | UDP_LITE, _) => 8,
        (SCTP | DCCP, _) => 12,
        (ICMP, Family::Ipv4) | (ICMPV6, Family::Ipv6) => 8,
        _ => return,
    };
    if bytes.len() < minimum {
        packet.malformed = true;
        packet.bad_fragment |= packet.fragment == Fragment::First;
        return;
    }
    if matches!(protocol, ICMP | ICMPV6) {
        packet.icmp = Some((bytes[0], bytes[1]));
        return;
    }
    packet.ports = Some((be16(bytes, 0), be16(bytes, 2)));
    if protocol == TCP {
        packet.tcp_flags = Some(bytes[13]);
        packet.invalid |= bytes[12] >> 4 < 5;
    }
}
