//! Flows: the first 64 bytes of L3, which the harness writes into the test frame.

use std::net::{IpAddr, Ipv4Addr};

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;

/// The length of the test frame unless a case wants another.
pub const FRAME: usize = 14 + 64;

pub type Headers = [u8; 64];

/// What of a packet is written into its headers.
#[derive(Clone, Copy)]
pub struct Flow {
    pub src: IpAddr,
    pub dst: IpAddr,
    pub protocol: u8,
    pub sport: u16,
    pub dport: u16,
}

impl Flow {
    /// TCP from this source to one fixed server.
    pub fn from_source(src: IpAddr, sport: u16) -> Self {
        let dst = match src {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::new(198, 18, 0, 1)),
            IpAddr::V6(_) => "2001:db8::1".parse().expect("an address"),
        };
        Self {
            src,
            dst,
            protocol: TCP,
            sport,
            dport: 443,
        }
    }

    /// The headers of a packet of 64 bytes. Both addresses are of one family.
    pub fn headers(&self) -> Headers {
        let mut b = [0; 64];
        let l4 = match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                b[..4].copy_from_slice(&[0x45, 0, 0, 64]);
                b[8..10].copy_from_slice(&[64, self.protocol]);
                b[12..16].copy_from_slice(&src.octets());
                b[16..20].copy_from_slice(&dst.octets());
                20
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                b[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, 24, self.protocol, 64]);
                b[8..24].copy_from_slice(&src.octets());
                b[24..40].copy_from_slice(&dst.octets());
                40
            }
            _ => panic!("one family per flow"),
        };
        match self.protocol {
            TCP => b[l4 + 12..l4 + 14].copy_from_slice(&[0x50, 0x02]),
            UDP => b[l4 + 5] = 64 - l4 as u8,
            _ => return b,
        }
        b[l4..l4 + 2].copy_from_slice(&self.sport.to_be_bytes());
        b[l4 + 2..l4 + 4].copy_from_slice(&self.dport.to_be_bytes());
        b
    }
}

/// The frame around headers; what is beyond them is filler.
pub fn frame(headers: Option<&Headers>, v6: bool, length: usize) -> Vec<u8> {
    let mut frame = vec![2; length];
    frame[12..14].copy_from_slice(if v6 { &[0x86, 0xdd] } else { &[0x08, 0x00] });
    if let Some(headers) = headers {
        frame[14..FRAME].copy_from_slice(headers);
    }
    frame
}
