//! The bytes of a frame.

use std::net::IpAddr;

use super::{Frame, L4};

impl Frame {
    /// The bytes, header by header.
    pub fn layers(&self) -> Vec<(String, Vec<u8>)> {
        let mut layers = vec![(
            "Ethernet".to_owned(),
            vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1],
        )];
        for (ethertype, tci) in &self.tags {
            push16(&mut layers, *ethertype);
            layers.push((format!("tag {}", tci & 0x0fff), tci.to_be_bytes().to_vec()));
        }
        push16(
            &mut layers,
            self.ethertype
                .unwrap_or(if self.is_ipv6() { 0x86dd } else { 0x0800 }),
        );

        let l4 = self.l4_bytes();
        match self.addresses {
            Some((IpAddr::V4(src), IpAddr::V4(dst))) => {
                let header = self.ipv4(src.octets(), dst.octets(), l4.len() + self.payload.len());
                layers.push((format!("IPv4 {src} > {dst}"), header));
            }
            Some((IpAddr::V6(src), IpAddr::V6(dst))) => {
                let header = self.ipv6(src.octets(), dst.octets(), l4.len() + self.payload.len());
                layers.push((format!("IPv6 {src} > {dst}"), header));
                for (i, (number, bytes)) in self.extensions.iter().enumerate() {
                    let mut bytes = bytes.clone();
                    bytes[0] = self.extensions.get(i + 1).map_or(self.upper(), |(n, _)| *n);
                    layers.push((format!("extension header {number}"), bytes));
                }
            }
            _ => {}
        }
        layers.push((self.l4.to_string(), l4));
        layers.push(("payload".to_owned(), self.payload.clone()));
        layers.push(("padding".to_owned(), vec![0xff; self.padding]));

        let mut left = self.keep;
        for (_, bytes) in &mut layers {
            bytes.truncate(left);
            left -= bytes.len();
        }
        layers.retain(|(_, bytes)| !bytes.is_empty());
        layers
    }

    pub(super) fn is_ipv6(&self) -> bool {
        self.addresses.is_some_and(|(src, _)| src.is_ipv6())
    }

    /// The number of the L4 protocol.
    pub(super) fn upper(&self) -> u8 {
        self.protocol.unwrap_or(match self.l4 {
            L4::None => 59,
            L4::Tcp { .. } => 6,
            L4::Ports { protocol, .. } => protocol,
            L4::Icmp { .. } => {
                if self.is_ipv6() {
                    58
                } else {
                    1
                }
            }
        })
    }

    fn ipv4(&self, src: [u8; 4], dst: [u8; 4], payload: usize) -> Vec<u8> {
        let header = 20 + self.options;
        let ihl = self.ihl.unwrap_or((header / 4) as u8);
        let total = self
            .length
            .unwrap_or((header + payload) as u16)
            .to_be_bytes();
        let fragment = self.fragment.to_be_bytes();
        let mut bytes = vec![self.version.unwrap_or(4) << 4 | ihl, self.dscp << 2];
        bytes.extend([total[0], total[1], 0, 1, fragment[0], fragment[1]]);
        bytes.extend([self.ttl, self.upper(), 0, 0]);
        bytes.extend(src);
        bytes.extend(dst);
        bytes.resize(header, 1);
        let sum = checksum(&bytes);
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    fn ipv6(&self, src: [u8; 16], dst: [u8; 16], payload: usize) -> Vec<u8> {
        let chain: usize = self.extensions.iter().map(|(_, bytes)| bytes.len()).sum();
        let length = self
            .length
            .unwrap_or((chain + payload) as u16)
            .to_be_bytes();
        let first = self
            .extensions
            .first()
            .map_or(self.upper(), |(number, _)| *number);
        let mut bytes = vec![
            self.version.unwrap_or(6) << 4 | self.dscp >> 2,
            self.dscp << 6,
            0,
            0,
        ];
        bytes.extend([length[0], length[1], first, self.ttl]);
        bytes.extend(src);
        bytes.extend(dst);
        bytes
    }

    fn l4_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let check = match self.l4 {
            L4::None => return bytes,
            L4::Tcp {
                sport,
                dport,
                flags,
                offset,
            } => {
                bytes.extend(sport.to_be_bytes());
                bytes.extend(dport.to_be_bytes());
                bytes.extend([
                    0,
                    0,
                    0,
                    1,
                    0,
                    0,
                    0,
                    0,
                    offset << 4,
                    flags,
                    0xff,
                    0xff,
                    0,
                    0,
                    0,
                    0,
                ]);
                16
            }
            L4::Ports {
                protocol,
                sport,
                dport,
            } => {
                bytes.extend(sport.to_be_bytes());
                bytes.extend(dport.to_be_bytes());
                if matches!(protocol, 17 | 136) {
                    bytes.extend((8 + self.payload.len() as u16).to_be_bytes());
                    bytes.extend([0, 0]);
                } else {
                    bytes.extend([0; 8]);
                }
                // SCTP and DCCP are nobody's to check here.
                if matches!(protocol, 17 | 136) {
                    6
                } else {
                    return bytes;
                }
            }
            L4::Icmp { icmp_type, code } => {
                bytes.extend([icmp_type, code, 0, 0, 0, 0, 0, 1]);
                2
            }
        };
        let sum = self.l4_checksum(&bytes);
        bytes[check..check + 2].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    fn l4_checksum(&self, header: &[u8]) -> u16 {
        let mut bytes = Vec::new();
        let length = (header.len() + self.payload.len()) as u16;
        match self.addresses {
            Some((IpAddr::V4(_), _)) if matches!(self.l4, L4::Icmp { .. }) => {}
            Some((IpAddr::V4(src), IpAddr::V4(dst))) => {
                bytes.extend(src.octets());
                bytes.extend(dst.octets());
                bytes.extend([0, self.upper()]);
                bytes.extend(length.to_be_bytes());
            }
            Some((IpAddr::V6(src), IpAddr::V6(dst))) => {
                bytes.extend(src.octets());
                bytes.extend(dst.octets());
                bytes.extend([0, 0]);
                bytes.extend(length.to_be_bytes());
                bytes.extend([0, 0, 0, self.upper()]);
            }
            _ => {}
        }
        bytes.extend(header);
        bytes.extend(&self.payload);
        match (checksum(&bytes), self.l4) {
            // In UDP 0 means none (RFC 768).
            (0, L4::Ports { .. }) => 0xffff,
            (sum, _) => sum,
        }
    }
}

impl std::fmt::Display for L4 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => Ok(()),
            Self::Tcp {
                sport,
                dport,
                flags,
                ..
            } => {
                write!(f, "TCP {sport} > {dport} flags {flags:#04x}")
            }
            Self::Ports {
                protocol,
                sport,
                dport,
            } => {
                write!(f, "protocol {protocol} {sport} > {dport}")
            }
            Self::Icmp { icmp_type, code } => write!(f, "ICMP type {icmp_type} code {code}"),
        }
    }
}

fn push16(layers: &mut [(String, Vec<u8>)], value: u16) {
    layers
        .last_mut()
        .expect("Ethernet")
        .1
        .extend(value.to_be_bytes());
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let word = |w: &[u8]| u32::from(u16::from_be_bytes([w[0], w.get(1).copied().unwrap_or(0)]));
    let mut sum: u32 = bytes.chunks(2).map(word).fold(0, u32::wrapping_add);
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
