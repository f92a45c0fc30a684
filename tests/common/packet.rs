//! Builds Ethernet frames, honest ones and lying ones.
//!
//! ```ignore
//! let frame = ip("192.0.2.1", "198.51.100.10").tag(0x8100, 10).tcp(40000, 80).flags(SYN).build();
//! ```
//!
//! Lengths and checksums are right unless a setter says otherwise.

mod bytes;

use std::net::IpAddr;

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const ACK: u8 = 0x10;

/// A frame being built.
#[derive(Debug, Clone)]
pub struct Frame {
    tags: Vec<(u16, u16)>,
    ethertype: Option<u16>,
    addresses: Option<(IpAddr, IpAddr)>,
    version: Option<u8>,
    ihl: Option<u8>,
    length: Option<u16>,
    ttl: u8,
    dscp: u8,
    fragment: u16,
    options: usize,
    extensions: Vec<(u8, Vec<u8>)>,
    protocol: Option<u8>,
    l4: L4,
    payload: Vec<u8>,
    padding: usize,
    keep: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum L4 {
    None,
    Tcp {
        sport: u16,
        dport: u16,
        flags: u8,
        offset: u8,
    },
    Ports {
        protocol: u8,
        sport: u16,
        dport: u16,
    },
    Icmp {
        icmp_type: u8,
        code: u8,
    },
}

/// An IPv4 or IPv6 packet between two addresses of one family.
pub fn ip(src: &str, dst: &str) -> Frame {
    addressed(
        src.parse().expect("an address"),
        dst.parse().expect("an address"),
    )
}

/// A UDP frame from this source; if it is IPv4 of 82 bytes, else of 102.
pub fn udp_from(src: &str) -> Vec<u8> {
    let dst = if src.contains(':') {
        "2001:db8:ffff::1"
    } else {
        "198.51.100.1"
    };
    ip(src, dst).udp(1000, 2000).payload(&[0; 40]).build()
}

/// As [`ip`], of addresses that are parsed already.
pub fn addressed(src: IpAddr, dst: IpAddr) -> Frame {
    assert_eq!(src.is_ipv4(), dst.is_ipv4());
    Frame {
        addresses: Some((src, dst)),
        ..ethernet(0)
    }
}

/// A frame with this ethertype and, until [`Frame::payload`], nothing behind it.
pub fn ethernet(ethertype: u16) -> Frame {
    Frame {
        tags: Vec::new(),
        ethertype: (ethertype != 0).then_some(ethertype),
        addresses: None,
        version: None,
        ihl: None,
        length: None,
        ttl: 64,
        dscp: 0,
        fragment: 0,
        options: 0,
        extensions: Vec::new(),
        protocol: None,
        l4: L4::None,
        payload: Vec::new(),
        padding: 0,
        keep: usize::MAX,
    }
}

/// Setters; those of a header do nothing when the frame does not have it.
impl Frame {
    /// Adds a tag inside of those added before.
    pub fn tag(mut self, ethertype: u16, tci: u16) -> Self {
        self.tags.push((ethertype, tci));
        self
    }

    /// Says another ethertype than that of the packet.
    pub fn ethertype(self, ethertype: u16) -> Self {
        Self {
            ethertype: Some(ethertype),
            ..self
        }
    }

    /// Says another IP version.
    pub fn version(self, version: u8) -> Self {
        Self {
            version: Some(version),
            ..self
        }
    }

    /// Says another IPv4 header length, in units of 4 bytes.
    pub fn ihl(self, ihl: u8) -> Self {
        Self {
            ihl: Some(ihl),
            ..self
        }
    }

    /// Says another IPv4 total length or IPv6 payload length.
    pub fn length(self, length: u16) -> Self {
        Self {
            length: Some(length),
            ..self
        }
    }

    pub fn ttl(self, ttl: u8) -> Self {
        Self { ttl, ..self }
    }

    pub fn dscp(self, dscp: u8) -> Self {
        Self { dscp, ..self }
    }

    /// IPv4 options: this many bytes, a multiple of 4, no-operation all of them.
    pub fn options(self, options: usize) -> Self {
        Self { options, ..self }
    }

    /// A fragment: `offset` in units of 8 bytes; for IPv6 a fragment header at this place.
    pub fn fragment(mut self, offset: u16, more: bool) -> Self {
        if self.is_ipv6() {
            let [hi, lo] = (offset << 3 | u16::from(more)).to_be_bytes();
            return self.extension(44, vec![0, 0, hi, lo, 0, 0, 0, 1]);
        }
        self.fragment = offset & 0x1fff | if more { 0x2000 } else { 0 };
        self
    }

    /// Sets IPv4's "don't fragment", which does not make it a fragment.
    pub fn dont_fragment(mut self) -> Self {
        self.fragment |= 0x4000;
        self
    }

    /// Adds an IPv6 extension header of this number and these bytes, the first of which becomes
    /// the number of the next header.
    pub fn extension(mut self, number: u8, bytes: Vec<u8>) -> Self {
        self.extensions.push((number, bytes));
        self
    }

    /// Adds an IPv6 hop-by-hop header (0), routing header (43) or the like of `8 * units` bytes.
    pub fn options_header(self, number: u8, units: u8) -> Self {
        let mut bytes = vec![0; usize::from(units) * 8];
        bytes[1] = units - 1;
        self.extension(number, bytes)
    }

    /// Adds an IPv6 authentication header of `4 * words` bytes.
    pub fn authentication(self, words: u8) -> Self {
        let mut bytes = vec![0; usize::from(words) * 4];
        bytes[1] = words - 2;
        self.extension(51, bytes)
    }

    /// Says another protocol or last next header than that of the L4 header.
    pub fn protocol(self, protocol: u8) -> Self {
        Self {
            protocol: Some(protocol),
            ..self
        }
    }

    pub fn tcp(self, sport: u16, dport: u16) -> Self {
        Self {
            l4: L4::Tcp {
                sport,
                dport,
                flags: ACK,
                offset: 5,
            },
            ..self
        }
    }

    pub fn flags(mut self, set: u8) -> Self {
        if let L4::Tcp { flags, .. } = &mut self.l4 {
            *flags = set;
        }
        self
    }

    /// Says another TCP header length, in units of 4 bytes.
    pub fn data_offset(mut self, words: u8) -> Self {
        if let L4::Tcp { offset, .. } = &mut self.l4 {
            *offset = words;
        }
        self
    }

    pub fn udp(self, sport: u16, dport: u16) -> Self {
        self.ports(17, sport, dport)
    }

    /// UDP (17), UDP-Lite (136), SCTP (132) or DCCP (33), or ports where there should be none.
    pub fn ports(self, protocol: u8, sport: u16, dport: u16) -> Self {
        Self {
            l4: L4::Ports {
                protocol,
                sport,
                dport,
            },
            ..self
        }
    }

    /// ICMP or ICMPv6, by the family.
    pub fn icmp(self, icmp_type: u8, code: u8) -> Self {
        Self {
            l4: L4::Icmp { icmp_type, code },
            ..self
        }
    }

    /// What follows the last header.
    pub fn payload(self, payload: &[u8]) -> Self {
        Self {
            payload: payload.to_vec(),
            ..self
        }
    }

    /// Bytes behind the packet that its length does not count, each of them 0xff.
    pub fn padding(self, padding: usize) -> Self {
        Self { padding, ..self }
    }

    /// Cuts the frame off after this many bytes, without a change to any length.
    pub fn truncate(self, keep: usize) -> Self {
        Self { keep, ..self }
    }
}

impl Frame {
    /// The bytes.
    pub fn build(&self) -> Vec<u8> {
        self.layers()
            .into_iter()
            .flat_map(|(_, bytes)| bytes)
            .collect()
    }

    /// The frame with one field of its 5-tuple changed, for each field that it has; the rest of
    /// it, and so its family, stays.
    pub fn mutations(&self) -> Vec<(&'static str, Self)> {
        let mut out = Vec::new();
        if let Some((src, dst)) = self.addresses {
            out.push((
                "src",
                Self {
                    addresses: Some((neighbour(src), dst)),
                    ..self.clone()
                },
            ));
            out.push((
                "dst",
                Self {
                    addresses: Some((src, neighbour(dst))),
                    ..self.clone()
                },
            ));
        }
        let (number, sport, dport) = match self.l4 {
            L4::Tcp { sport, dport, .. } => (17, sport, dport),
            L4::Ports {
                protocol: 17,
                sport,
                dport,
            } => (132, sport, dport),
            L4::Ports { sport, dport, .. } => (17, sport, dport),
            L4::None | L4::Icmp { .. } => return out,
        };
        out.push(("protocol", self.clone().ports(number, sport, dport)));
        let with = |s, d| match self.l4 {
            L4::Tcp { flags, offset, .. } => Self {
                l4: L4::Tcp {
                    sport: s,
                    dport: d,
                    flags,
                    offset,
                },
                ..self.clone()
            },
            _ => self.clone().ports(self.upper(), s, d),
        };
        out.push(("sport", with(sport ^ 1, dport)));
        out.push(("dport", with(sport, dport ^ 1)));
        out
    }
}

/// The address with its last bit turned.
fn neighbour(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(a) => IpAddr::V4((a.to_bits() ^ 1).into()),
        IpAddr::V6(a) => IpAddr::V6((a.to_bits() ^ 1).into()),
    }
}
