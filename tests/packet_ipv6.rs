//! The parser: IPv6 extension header chains.

mod common;

use common::packet::{Frame, ip};
use xdpgate::packet::{Fragment, MAX_EXTENSION_HEADERS, Packet, Parsed};

const KINDS: [u8; 6] = [0, 43, 60, 135, 139, 140];

fn v6() -> Frame {
    ip("2001:db8::1", "2001:db8:1::10")
}

fn packet(frame: &Frame) -> Packet {
    Parsed::from_frame(&frame.build())
        .packet()
        .expect("an IP packet")
        .clone()
}

/// Whether the walk gave up.
fn is_lost(p: &Packet) -> bool {
    p.malformed && p.protocol.is_none() && p.ports.is_none()
}

#[test]
fn r27_every_kind_is_skipped_by_its_size() {
    for kind in KINDS {
        for units in [1, 2, 32] {
            let p = packet(&v6().options_header(kind, units).tcp(1, 2));
            assert_eq!(
                (p.protocol, p.ports),
                (Some(6), Some((1, 2))),
                "{kind} {units}"
            );
        }
    }
    for words in [2, 3, 6, 64] {
        let p = packet(&v6().authentication(words).tcp(1, 2));
        assert_eq!((p.protocol, p.ports), (Some(6), Some((1, 2))), "{words}");
    }
    // The length byte of a fragment header is reserved.
    let p = packet(&v6().extension(44, vec![0, 255, 0, 0, 0, 0, 0, 0]).tcp(1, 2));
    assert_eq!((p.protocol, p.ports), (Some(6), Some((1, 2))));
}

#[test]
fn r27_eight_headers_are_walked_and_no_more() {
    for count in 0..=11 {
        for kind in 0..3 {
            let frame = (0..count).fold(v6(), |f, i| match kind {
                0 => f.options_header(KINDS[i % KINDS.len()], 1),
                1 => f.authentication(4),
                _ => f.fragment(0, false),
            });
            let p = packet(&frame.tcp(1, 2));
            assert_eq!(is_lost(&p), count > MAX_EXTENSION_HEADERS, "{count}");
            assert_eq!(p.ports.is_some(), count <= MAX_EXTENSION_HEADERS, "{count}");
            assert!(!p.bad_fragment);
        }
    }
    // Too long is not too short, also in a first fragment.
    let frame = (0..8).fold(v6().fragment(0, true), |f, _| f.options_header(60, 1));
    let p = packet(&frame.tcp(1, 2));
    assert!(is_lost(&p) && !p.bad_fragment);
    assert_eq!(p.fragment, Fragment::First);
}

#[test]
fn r27_a_chain_cut_anywhere_is_malformed() {
    let frame = v6()
        .options_header(0, 1)
        .authentication(6)
        .options_header(43, 3)
        .tcp(1, 2);
    let (chain, whole) = (54 + 8 + 24 + 24, frame.build().len());
    for keep in 54..whole {
        let p = packet(&frame.clone().truncate(keep));
        assert!(p.malformed && p.ports.is_none(), "{keep}");
        assert_eq!(p.protocol, (keep >= chain).then_some(6), "{keep}");
    }
    // The same by the payload length, with all the bytes there.
    for length in 1..(whole - 54) as u16 {
        let p = packet(&frame.clone().length(length));
        assert!(p.malformed && p.ports.is_none(), "{length}");
        assert_eq!(
            p.protocol,
            (usize::from(length) + 54 >= chain).then_some(6),
            "{length}"
        );
        assert_eq!(p.length, u32::from(length) + 40);
    }
}

#[test]
fn r27_a_chain_cut_behind_a_first_fragment_header_is_a_bad_fragment() {
    let frame = v6().fragment(0, true).options_header(60, 2).udp(1, 2);
    for keep in 54..frame.build().len() {
        let p = packet(&frame.clone().truncate(keep));
        assert!(p.malformed);
        assert_eq!(p.bad_fragment, keep >= 62, "{keep}");
    }
}

#[test]
fn the_chain_ends_at_what_is_no_extension_header() {
    for protocol in (0..=255).filter(|p| !KINDS.contains(p) && ![44, 51].contains(p)) {
        let p = packet(
            &v6()
                .options_header(0, 1)
                .protocol(protocol)
                .payload(&[0; 20]),
        );
        assert_eq!((p.protocol, p.malformed), (Some(protocol), false));
        assert_eq!(
            p.ports.is_some(),
            [6, 17, 33, 132, 136].contains(&protocol),
            "{protocol}"
        );
    }
}

#[test]
fn a_later_fragment_is_not_walked() {
    for next in [60, 44, 6] {
        let p = packet(&v6().fragment(2, true).protocol(next).payload(&[17]));
        assert_eq!((p.protocol, p.fragment), (Some(next), Fragment::Later));
        assert!(!p.malformed && p.ports.is_none());
    }
}

#[test]
fn r30_a_jumbogram_ends_with_the_frame() {
    let jumbo = |bytes: usize| {
        v6().options_header(0, 1)
            .tcp(1, 2)
            .payload(&vec![0; bytes])
            .length(0)
    };
    let p = packet(&jumbo(0));
    assert_eq!((p.ports, p.length), (Some((1, 2)), 40));
    assert_eq!(packet(&jumbo(70_000)).ports, Some((1, 2)));
    assert!(packet(&jumbo(0).truncate(54 + 8 + 19)).malformed);
    // Without a hop-by-hop header a length of 0 means 0.
    assert!(packet(&v6().tcp(1, 2).length(0)).malformed);
    let p = packet(&v6().options_header(60, 1).tcp(1, 2).length(0));
    assert!(is_lost(&p));
    let p = packet(&v6().length(0));
    assert!(!p.malformed);
}
