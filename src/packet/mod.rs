//! The packet parser: from the bytes of an Ethernet frame to what rules may ask about.
//!
//! The XDP program (`bpf/parsing.h`) mirrors this code step by step, and a frame corpus holds the
//! two together; so it is simple and literal, and a change here is a change there.
//!
//! ```text
//! Ethernet -> 0-2 tags -> IPv4 (options) ----------------------+-> TCP UDP SCTP ICMP ...
//!                      -> IPv6 -> 0-8 extension headers -------+
//! ```
//!
//! What cannot be parsed is said as exactly as possible: [`Parsed::Malformed`] when there is no
//! usable L3 header, [`Packet::malformed`] when there is one and something behind it is cut off.

mod ipv4;
mod ipv6;
mod l4;

use std::net::IpAddr;

use crate::policy::Family;

/// How many VLAN tags are skipped; a frame with more is [`Parsed::VlanDepth`].
pub const MAX_TAGS: usize = 2;

/// How many IPv6 extension headers are walked, AH and fragment headers included.
pub const MAX_EXTENSION_HEADERS: usize = 8;

/// The ethertypes of a tag: 802.1Q, 802.1ad, and what some vendors used before it.
pub const TAG_TYPES: [u16; 3] = [0x8100, 0x88a8, 0x9100];

const ETHERNET_HEADER: usize = 14;
const TAG_HEADER: usize = 4;
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;

/// What an Ethernet frame holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed {
    /// Neither IPv4 nor IPv6: ARP, LLDP, EAPOL, an 802.3 length, ...
    NonIp,
    /// More than [`MAX_TAGS`] tags.
    VlanDepth,
    /// No usable L3 header: cut off, or of another version than the ethertype says.
    Malformed,
    /// An IPv4 or IPv6 packet.
    Ip(Packet),
}

/// What a packet shows to rules. A part that is `None` was not there or could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// The id of the outermost tag, 0-4095; `None` when untagged.
    pub vlan: Option<u16>,
    /// The source address.
    pub src: IpAddr,
    /// The destination address, of the same family as `src`.
    pub dst: IpAddr,
    /// IPv4 protocol, or the IPv6 header that ends the extension chain; `None` when the end of
    /// the chain was not reached.
    pub protocol: Option<u8>,
    /// L3 length by the IP header: IPv4 total length, IPv6 payload length + 40.
    pub length: u32,
    /// TTL or hop limit.
    pub ttl: u8,
    /// DSCP, 0-63.
    pub dscp: u8,
    /// The fragment state.
    pub fragment: Fragment,
    /// Source and destination port of TCP, UDP, UDP-Lite, SCTP and DCCP.
    pub ports: Option<(u16, u16)>,
    /// The TCP flags (byte 13 of the TCP header).
    pub tcp_flags: Option<u8>,
    /// ICMP or ICMPv6 type and code.
    pub icmp: Option<(u8, u8)>,
    /// A fragment that ends past 65,535, or a first fragment too short for its L4 header.
    pub bad_fragment: bool,
    /// A header length below the minimum, a total length below the header, or a TCP data offset
    /// below 5.
    pub invalid: bool,
    /// Something behind the L3 header is cut off or contradicts it: there are no L4 fields.
    pub malformed: bool,
}

/// Which part of a fragmented packet this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Fragment {
    /// Not a fragment, or an atomic one (RFC 6946).
    #[default]
    None,
    /// Offset 0 with more fragments to come.
    First,
    /// Offset above 0: there is no L4 header in it.
    Later,
}

impl Packet {
    /// The family of both addresses.
    pub fn family(&self) -> Family {
        if self.src.is_ipv4() {
            Family::Ipv4
        } else {
            Family::Ipv6
        }
    }
}

impl Parsed {
    /// Parses an Ethernet frame, of any length and content.
    pub fn from_frame(frame: &[u8]) -> Self {
        if frame.len() < ETHERNET_HEADER {
            return Self::Malformed;
        }
        let mut ethertype = be16(frame, ETHERNET_HEADER - 2);
        let mut l3 = ETHERNET_HEADER;
        let mut vlan = None;
        for _ in 0..MAX_TAGS {
            if !TAG_TYPES.contains(&ethertype) {
                break;
            }
            if frame.len() < l3 + TAG_HEADER {
                return Self::Malformed;
            }
            vlan = vlan.or(Some(be16(frame, l3) & 0x0fff));
            ethertype = be16(frame, l3 + 2);
            l3 += TAG_HEADER;
        }
        let packet = match ethertype {
            t if TAG_TYPES.contains(&t) => return Self::VlanDepth,
            ETHERTYPE_IPV4 => ipv4::parse(frame, l3),
            ETHERTYPE_IPV6 => ipv6::parse(frame, l3),
            _ => return Self::NonIp,
        };
        packet.map_or(Self::Malformed, |p| Self::Ip(Packet { vlan, ..p }))
    }

    /// The packet, if the frame holds one.
    pub fn packet(&self) -> Option<&Packet> {
        match self {
            Self::Ip(packet) => Some(packet),
            _ => None,
        }
    }
}

/// Two bytes in network order; the caller has checked that they are there.
fn be16(frame: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([frame[at], frame[at + 1]])
}
