//! The IPv6 header and its extension headers (RFC 8200).

use std::net::{IpAddr, Ipv6Addr};

use super::{Fragment, MAX_EXTENSION_HEADERS, Packet, be16, l4};

const HEADER: usize = 40;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;
const MOBILITY: u8 = 135;
const HIP: u8 = 139;
const SHIM6: u8 = 140;
const FRAGMENT_HEADER: usize = 8;

/// Parses the IPv6 packet at `l3`; `None` if there is no usable header.
pub(super) fn parse(frame: &[u8], l3: usize) -> Option<Packet> {
    if frame.len() - l3 < HEADER || frame[l3] >> 4 != 6 {
        return None;
    }
    let address = |at: usize| {
        let mut octets = [0; 16];
        octets.copy_from_slice(&frame[at..at + 16]);
        IpAddr::V6(Ipv6Addr::from(octets))
    };
    let payload = usize::from(be16(frame, l3 + 4));
    let next = frame[l3 + 6];
    let mut packet = Packet {
        vlan: None,
        src: address(l3 + 8),
        dst: address(l3 + 24),
        protocol: None,
        length: (payload + HEADER) as u32,
        ttl: frame[l3 + 7],
        // The traffic class straddles the first two bytes; DSCP is its upper six bits.
        dscp: ((be16(frame, l3) >> 6) & 0x3f) as u8,
        fragment: Fragment::None,
        ports: None,
        tcp_flags: None,
        icmp: None,
        bad_fragment: false,
        invalid: false,
        malformed: false,
    };
    // Where the packet ends by its header. A jumbogram (RFC 2675) says 0 and has its length in a
    // hop-by-hop option, which is not read: it ends with the frame.
    let jumbo = payload == 0 && next == HOP_BY_HOP;
    let claimed = if jumbo {
        frame.len()
    } else {
        l3 + HEADER + payload
    };
    let end = frame.len().min(claimed);
    walk(&mut packet, frame, l3 + HEADER, next, end, claimed);
    Some(packet)
}

/// Walks the extension chain from `at` and parses what it ends in.
fn walk(packet: &mut Packet, frame: &[u8], at: usize, next: u8, end: usize, claimed: usize) {
    let (mut at, mut next) = (at, next);
    for _ in 0..MAX_EXTENSION_HEADERS {
        if !is_extension(next) {
            break;
        }
        if at + 2 > end || at + size(next, frame[at + 1]) > end {
            packet.malformed = true;
            packet.bad_fragment |= packet.fragment == Fragment::First;
            return;
        }
        let header = at;
        at += size(next, frame[at + 1]);
        if next == FRAGMENT {
            let word = be16(frame, header + 2);
            let offset = usize::from(word >> 3);
            let more = word & 1 != 0;
            if offset != 0 || more {
                packet.fragment = if offset != 0 {
                    Fragment::Later
                } else {
                    Fragment::First
                };
                packet.bad_fragment |= offset * 8 + (claimed - at) > 65535;
            }
            if offset != 0 {
                packet.protocol = Some(frame[header]);
                return;
            }
        }
        next = frame[header];
    }
    if is_extension(next) {
        packet.malformed = true;
        return;
    }
    packet.protocol = Some(next);
    l4::parse(packet, next, &frame[at..end]);
}

/// Whether a header has a next one. ESP (50) and no next header (59) have none that can be read.
fn is_extension(header: u8) -> bool {
    matches!(
        header,
        HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION | MOBILITY | HIP | SHIM6
    )
}

/// The size of an extension header by its second byte.
fn size(header: u8, length: u8) -> usize {
    match header {
        FRAGMENT => FRAGMENT_HEADER,
        AUTHENTICATION => (usize::from(length) + 2) * 4,
        _ => (usize::from(length) + 1) * 8,
    }
}
