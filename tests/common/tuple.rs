//! 5-tuples, the 31 shapes in which a rule can ask for one, and the neighbours that it must miss.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use xdpgate::policy::{AddressMatch, Match, Ranges};

use super::packet::{Frame, addressed};
use super::rows::within;

/// A shape is a bit for each field that a rule asks for, in the order of [`FIELDS`].
pub const SHAPES: RangeInclusive<u32> = 1..=31;

const FIELDS: [&str; 5] = ["src", "dst", "protocol", "sport", "dport"];

/// A 5-tuple of TCP, UDP or another protocol with ports. What rules ask of its addresses leaves the
/// last `open` bits open.
#[derive(Debug, Clone, Copy)]
pub struct Tuple {
    src: IpAddr,
    dst: IpAddr,
    protocol: u8,
    sport: u16,
    dport: u16,
    open: u32,
}

impl Tuple {
    /// TCP and UDP over both families, with so many open bits in each.
    pub fn of_each_kind(open4: u32, open6: u32) -> [Self; 4] {
        let of = |src: &str, dst: &str, protocol, open| Self {
            src: src.parse().expect("an address"),
            dst: dst.parse().expect("an address"),
            protocol,
            sport: 40000,
            dport: 80,
            open,
        };
        [
            of("192.0.2.1", "198.51.100.10", TCP, open4),
            of("192.0.2.1", "198.51.100.10", UDP, open4),
            of("2001:db8::1", "2001:db8:1::10", TCP, open6),
            of("2001:db8::1", "2001:db8:1::10", UDP, open6),
        ]
    }

    /// One for each shape, such that what the shape asks for is of no other shape's tuple and of none
    /// of their neighbours.
    pub fn own(shape: u32, base: &str, open: u32) -> Self {
        let base: IpAddr = base.parse().expect("an address");
        let port = 2 * shape as u16;
        Self {
            // The bit behind the open ones is for neighbours.
            src: turned(base, open + 1, shape),
            dst: turned(base, open + 1, shape + 32),
            protocol: match shape {
                // The one that asks for a protocol alone.
                0b00100 => DCCP,
                even if even % 2 == 0 => TCP,
                _ => UDP,
            },
            sport: 40000 + port,
            dport: 20000 + port,
            open,
        }
    }

    /// IPv6 comes with a tag or an extension header.
    pub fn frame(&self) -> Frame {
        let packet = addressed(self.src, self.dst);
        let packet = match (self.src.is_ipv4(), self.protocol) {
            (true, _) => packet,
            (false, TCP) => packet.tag(0x8100, 1),
            (false, _) => packet.options_header(0, 1),
        };
        match self.protocol {
            TCP => packet.tcp(self.sport, self.dport),
            other => packet.ports(other, self.sport, self.dport),
        }
    }

    /// What a rule of this shape asks for.
    pub fn asked(&self, shape: u32) -> Match {
        let has = |field| asks(shape, field);
        Match {
            src: has("src").then(|| around(self.src, self.open)),
            dst: has("dst").then(|| around(self.dst, self.open)),
            protocol: has("protocol").then(|| Ranges::single(self.protocol)),
            sport: has("sport").then(|| Ranges::single(self.sport)),
            dport: has("dport").then(|| Ranges::single(self.dport)),
            ..Match::default()
        }
    }

    /// Frames that differ in one field each, and whether they fit the shape all the same: it does not
    /// ask for the field, or the address is still within its prefix.
    pub fn neighbours(&self, shape: u32) -> Vec<(&'static str, bool, Frame)> {
        let mutations = self.frame().mutations();
        assert_eq!(mutations.len(), FIELDS.len());
        let is_within = |field| self.open > 0 && ["src", "dst"].contains(&field);
        let mut out: Vec<_> = mutations
            .into_iter()
            .map(|(field, frame)| (field, is_within(field) || !asks(shape, field), frame))
            .collect();
        if self.open > 0 {
            let [src, dst] = [self.src, self.dst].map(|inside| turned(inside, self.open, 1));
            out.push(("src", !asks(shape, "src"), Self { src, ..*self }.frame()));
            out.push(("dst", !asks(shape, "dst"), Self { dst, ..*self }.frame()));
        }
        out
    }
}

fn asks(shape: u32, field: &str) -> bool {
    let position = FIELDS.iter().position(|f| *f == field);
    shape & 1 << position.expect("a field") != 0
}

/// The address with bits turned: those of `mask`, the last of which is `bit` places from the end.
fn turned(address: IpAddr, bit: u32, mask: u32) -> IpAddr {
    match address {
        IpAddr::V4(a) => IpAddr::V4((a.to_bits() ^ mask << bit).into()),
        IpAddr::V6(a) => IpAddr::V6((a.to_bits() ^ u128::from(mask) << bit).into()),
    }
}

/// The prefix around an address that leaves its last bits open.
fn around(address: IpAddr, open: u32) -> AddressMatch {
    let (first, width) = match address {
        IpAddr::V4(a) => (IpAddr::V4((a.to_bits() >> open << open).into()), 32),
        IpAddr::V6(a) => (IpAddr::V6((a.to_bits() >> open << open).into()), 128),
    };
    within(&format!("{first}/{}", width - open))
}

const TCP: u8 = 6;
const UDP: u8 = 17;
const DCCP: u8 = 33;
