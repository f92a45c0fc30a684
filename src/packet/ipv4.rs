//! The IPv4 header (RFC 791).

use std::net::{IpAddr, Ipv4Addr};

use super::{Fragment, Packet, be16, l4};

const MIN_HEADER: usize = 20;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET_MASK: u16 = 0x1fff;

/// Parses the IPv4 packet at `l3`; `None` if there is no usable header.
pub(super) fn parse(frame: &[u8], l3: usize) -> Option<Packet> {
    if frame.len() - l3 < MIN_HEADER || frame[l3] >> 4 != 4 {
        return None;
    }
    let address = |at: usize| {
        let octets = [frame[at], frame[at + 1], frame[at + 2], frame[at + 3]];
        IpAddr::V4(Ipv4Addr::from(octets))
    };
    let protocol = frame[l3 + 9];
    let total = usize::from(be16(frame, l3 + 2));
    let word = be16(frame, l3 + 6);
    let offset = usize::from(word & OFFSET_MASK);
    let fragment = match (offset, word & MORE_FRAGMENTS) {
        (0, 0) => Fragment::None,
        (0, _) => Fragment::First,
        _ => Fragment::Later,
    };
    let mut packet = Packet {
        vlan: None,
        src: address(l3 + 12),
        dst: address(l3 + 16),
        protocol: Some(protocol),
        length: total as u32,
        ttl: frame[l3 + 8],
        dscp: frame[l3 + 1] >> 2,
        fragment,
        ports: None,
        tcp_flags: None,
        icmp: None,
        bad_fragment: false,
        invalid: false,
        malformed: false,
    };

    let header = usize::from(frame[l3] & 0x0f) * 4;
    if header < MIN_HEADER || total < header {
        packet.invalid = true;
        packet.malformed = true;
        return Some(packet);
    }
    if fragment != Fragment::None {
        packet.bad_fragment = offset * 8 + (total - header) > 65535;
    }
    if frame.len() - l3 < header {
        packet.malformed = true;
        return Some(packet);
    }
    if fragment != Fragment::Later {
        let end = frame.len().min(l3 + total);
        l4::parse(&mut packet, protocol, &frame[l3 + header..end]);
    }
    Some(packet)
}
