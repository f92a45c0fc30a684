//! Random frames: mostly packets between addresses of the [pools](super::pool), some of them
//! damaged, some no packets at all.

use std::net::IpAddr;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::strategy::Union;

use super::packet::{Frame, addressed, ethernet};
use super::pool;

/// Any frame: valid, lying, with bytes changed, cut off, stacked tags, long chains, not IP, random
/// bytes. Some are shorter than an Ethernet header, which `BPF_PROG_TEST_RUN` refuses.
pub fn frame() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        12 => valid_frame().prop_map(|f| f.build()),
        4 => lying_frame().prop_map(|f| f.build()),
        4 => (valid_frame(), vec((any::<Index>(), any::<u8>()), 1..4)).prop_map(|(f, changes)| {
            let mut bytes = f.build();
            for (at, value) in changes {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            bytes
        }),
        4 => (lying_frame(), any::<Index>()).prop_map(|(f, keep)| {
            let mut bytes = f.build();
            bytes.truncate(keep.index(bytes.len() + 1));
            bytes
        }),
        1 => (tags(0..4), select(&[0x0806u16, 0x88cc, 0x888e, 0x0026, 0x8847][..])).prop_map(
            |(tags, ethertype)| tagged(ethernet(ethertype), tags).payload(&[0; 46]).build()
        ),
        1 => vec(any::<u8>(), 0..200),
    ]
}

/// A well-formed packet with at most two tags and eight extension headers, every byte where its
/// headers say.
pub fn valid_frame() -> impl Strategy<Value = Frame> {
    any::<bool>().prop_flat_map(|v6| {
        (
            tags(0..3),
            l3(v6),
            extensions(v6, 0..8),
            l4(),
            vec(any::<u8>(), 0..40),
            fragment(),
        )
            .prop_map(|(tags, l3, extensions, l4, payload, fragment)| {
                let mut frame = tagged(l3, tags);
                for extension in extensions {
                    frame = extension.add(frame);
                }
                if let Some((offset, more)) = fragment {
                    frame = frame.fragment(offset, more);
                }
                l4.add(frame).payload(&payload)
            })
    })
}

/// A packet some header of which may lie, in more tags and extension headers than are read.
pub fn lying_frame() -> impl Strategy<Value = Frame> {
    let lie = prop_oneof![
        2 => Just(Lie::None),
        2 => (0..80u16).prop_map(Lie::Length),
        1 => any::<u16>().prop_map(Lie::Length),
        1 => (0..16u8).prop_map(Lie::Ihl),
        1 => (0..16u8).prop_map(Lie::Version),
        3 => (0..6u8).prop_map(Lie::DataOffset),
        1 => select(pool::PROTOCOLS).prop_map(Lie::Protocol),
        2 => (8185..8192u16, any::<bool>()).prop_map(|(o, m)| Lie::Fragment(o, m)),
        1 => Just(Lie::Fragment(0, true)),
        1 => (1..40usize).prop_map(Lie::Padding),
    ];
    let chain = any::<bool>().prop_flat_map(|v6| (tags(0..4), l3(v6), extensions(v6, 0..12)));
    (
        chain,
        l4(),
        fragment(),
        vec(any::<u8>(), 0..8),
        vec(lie, 1..3),
        any::<bool>(),
    )
        .prop_map(
            |((tags, l3, extensions), l4, fragment, payload, lies, early)| {
                let mut frame = tagged(l3, tags);
                if let (true, Some((offset, more))) = (early, fragment) {
                    frame = frame.fragment(offset, more);
                }
                for extension in extensions {
                    frame = extension.add(frame);
                }
                if let (false, Some((offset, more))) = (early, fragment) {
                    frame = frame.fragment(offset, more);
                }
                frame = l4.add(frame).payload(&payload);
                lies.into_iter().fold(frame, |frame, lie| lie.tell(frame))
            },
        )
}

#[derive(Debug, Clone)]
enum Lie {
    None,
    Length(u16),
    Ihl(u8),
    Version(u8),
    DataOffset(u8),
    Protocol(u8),
    Fragment(u16, bool),
    Padding(usize),
}

impl Lie {
    fn tell(self, frame: Frame) -> Frame {
        match self {
            Self::None => frame,
            Self::Length(length) => frame.length(length),
            Self::Ihl(ihl) => frame.ihl(ihl),
            Self::Version(version) => frame.version(version),
            Self::DataOffset(words) => frame.data_offset(words),
            Self::Protocol(protocol) => frame.protocol(protocol),
            Self::Fragment(offset, more) => frame.fragment(offset, more),
            Self::Padding(bytes) => frame.padding(bytes),
        }
    }
}

#[derive(Debug, Clone)]
enum Extension {
    Options(u8, u8),
    Authentication(u8),
    Atomic,
}

impl Extension {
    fn add(self, frame: Frame) -> Frame {
        match self {
            Self::Options(number, units) => frame.options_header(number, units),
            Self::Authentication(words) => frame.authentication(words),
            Self::Atomic => frame.fragment(0, false),
        }
    }
}

#[derive(Debug, Clone)]
enum L4 {
    Tcp(u16, u16, u8),
    Ports(u8, u16, u16),
    Icmp(u8, u8),
    Other(u8),
}

impl L4 {
    fn add(self, frame: Frame) -> Frame {
        match self {
            Self::Tcp(sport, dport, flags) => frame.tcp(sport, dport).flags(flags),
            Self::Ports(protocol, sport, dport) => frame.ports(protocol, sport, dport),
            Self::Icmp(icmp_type, code) => frame.icmp(icmp_type, code),
            Self::Other(protocol) => frame.protocol(protocol),
        }
    }
}

fn tags(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<(u16, u16)>> {
    let tag = (
        select(&[0x8100u16, 0x88a8, 0x9100][..]),
        select(pool::VLANS),
        0..16u16,
    )
        .prop_map(|(ethertype, id, priority)| (ethertype, priority << 12 | id));
    prop_oneof![2 => Just(Vec::new()), 1 => vec(tag, count)]
}

fn tagged(frame: Frame, tags: Vec<(u16, u16)>) -> Frame {
    tags.into_iter()
        .fold(frame, |frame, (ethertype, tci)| frame.tag(ethertype, tci))
}

/// Addresses, TTL, DSCP and, for IPv4, options.
fn l3(v6: bool) -> impl Strategy<Value = Frame> {
    let address = if v6 {
        select(pool::V6_ADDRESSES)
            .prop_map(|a| IpAddr::V6(a.into()))
            .boxed()
    } else {
        select(pool::V4_ADDRESSES)
            .prop_map(|a| IpAddr::V4(a.into()))
            .boxed()
    };
    let options = select(if v6 {
        &[0usize][..]
    } else {
        &[0, 0, 0, 4, 20, 40]
    });
    (
        address.clone(),
        address,
        select(&[1u8, 64, 254, 255][..]),
        0..64u8,
        options,
    )
        .prop_map(|(src, dst, ttl, dscp, options)| {
            addressed(src, dst).ttl(ttl).dscp(dscp).options(options)
        })
}

fn extensions(v6: bool, count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Extension>> {
    let number = select(&[0u8, 43, 60, 135, 139, 140][..]);
    let extension = prop_oneof![
        4 => (number, 1..4u8).prop_map(|(number, units)| Extension::Options(number, units)),
        1 => (2..8u8).prop_map(Extension::Authentication),
        1 => Just(Extension::Atomic),
    ];
    Union::new_weighted(if v6 {
        vec![
            (2, Just(Vec::new()).boxed()),
            (1, vec(extension, count).boxed()),
        ]
    } else {
        vec![(1, Just(Vec::new()).boxed())]
    })
}

fn l4() -> impl Strategy<Value = L4> {
    let ports = || (select(pool::PORTS), select(pool::PORTS));
    prop_oneof![
        4 => (ports(), any::<u8>()).prop_map(|((s, d), flags)| L4::Tcp(s, d, flags)),
        4 => ports().prop_map(|(s, d)| L4::Ports(17, s, d)),
        2 => (select(&[132u8, 136, 33][..]), ports()).prop_map(|(p, (s, d))| L4::Ports(p, s, d)),
        2 => (select(&[0u8, 3, 8, 128, 133, 134, 135, 136, 137, 138][..]), 0..2u8)
            .prop_map(|(icmp_type, code)| L4::Icmp(icmp_type, code)),
        1 => select(&[2u8, 47, 50, 59, 255][..]).prop_map(L4::Other),
    ]
}

fn fragment() -> impl Strategy<Value = Option<(u16, bool)>> {
    prop_oneof![
        6 => Just(None),
        1 => Just(Some((0, true))),
        1 => (1..100u16, any::<bool>()).prop_map(Some),
        1 => Just(Some((0, false))),
    ]
}
