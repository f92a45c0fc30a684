//! The parser, rule by rule.

mod common;

use std::net::IpAddr;

use common::packet::{Frame, SYN, ethernet, ip};
use xdpgate::packet::{Fragment, Packet, Parsed};
use xdpgate::policy::Family;

fn v4() -> Frame {
    ip("192.0.2.1", "198.51.100.10")
}

fn v6() -> Frame {
    ip("2001:db8::1", "2001:db8:1::10")
}

fn parse(frame: &Frame) -> Parsed {
    Parsed::from_frame(&frame.build())
}

/// The packet that the frame must hold.
fn packet(frame: &Frame) -> Packet {
    match parse(frame) {
        Parsed::Ip(packet) => packet,
        other => panic!("{other:?}: {:02x?}", frame.layers()),
    }
}

/// Whether nothing of L4 was read.
fn has_no_l4(p: &Packet) -> bool {
    p.ports.is_none() && p.tcp_flags.is_none() && p.icmp.is_none()
}

#[test]
fn every_field_of_ipv4() {
    let frame = v4()
        .tag(0x8100, 0xe064)
        .ttl(9)
        .dscp(46)
        .tcp(40000, 80)
        .flags(SYN)
        .payload(b"x");
    let want = Packet {
        vlan: Some(100),
        src: IpAddr::from([192, 0, 2, 1]),
        dst: IpAddr::from([198, 51, 100, 10]),
        protocol: Some(6),
        length: 41,
        ttl: 9,
        dscp: 46,
        fragment: Fragment::None,
        ports: Some((40000, 80)),
        tcp_flags: Some(SYN),
        icmp: None,
        bad_fragment: false,
        invalid: false,
        malformed: false,
    };
    assert_eq!(packet(&frame), want);
    assert_eq!(want.family(), Family::Ipv4);
}

#[test]
fn every_field_of_ipv6() {
    let p = packet(
        &v6()
            .ttl(9)
            .dscp(0b10_1101)
            .options_header(60, 1)
            .icmp(128, 3)
            .payload(b"xy"),
    );
    assert_eq!(p.src, "2001:db8::1".parse::<IpAddr>().unwrap());
    assert_eq!(p.dst, "2001:db8:1::10".parse::<IpAddr>().unwrap());
    assert_eq!((p.protocol, p.icmp), (Some(58), Some((128, 3))));
    assert_eq!(
        (p.length, p.ttl, p.dscp, p.vlan),
        (40 + 8 + 10, 9, 0b10_1101, None)
    );
    assert_eq!(p.family(), Family::Ipv6);
}

#[test]
fn r24_vlan_tags_are_skipped_in_any_order() {
    let kinds = [0x8100, 0x88a8, 0x9100];
    for outer in kinds {
        assert_eq!(packet(&v4().tag(outer, 0xf001).tcp(1, 2)).vlan, Some(1));
        for inner in kinds {
            let two = v4().tag(outer, 4095).tag(inner, 7).tcp(1, 2);
            let p = packet(&two);
            assert_eq!((p.vlan, p.ports), (Some(4095), Some((1, 2))));
            for third in kinds {
                let three = v4().tag(outer, 1).tag(inner, 2).tag(third, 3);
                assert_eq!(parse(&three), Parsed::VlanDepth);
                // Cut behind the ethertype of the third tag, which is all that is looked at.
                assert_eq!(parse(&three.truncate(22)), Parsed::VlanDepth);
            }
        }
    }
}

#[test]
fn r28_what_has_no_l3_header_is_malformed() {
    let full = v4().tag(0x8100, 1).tag(0x88a8, 2).tcp(1, 2);
    for keep in 0..14 + 4 + 4 + 20 {
        assert_eq!(
            parse(&full.clone().truncate(keep)),
            Parsed::Malformed,
            "{keep}"
        );
    }
    for keep in 0..14 + 40 {
        assert_eq!(
            parse(&v6().tcp(1, 2).truncate(keep)),
            Parsed::Malformed,
            "{keep}"
        );
    }
    for version in 0..16 {
        assert_eq!(
            parse(&v4().version(version).tcp(1, 2)) == Parsed::Malformed,
            version != 4
        );
        assert_eq!(
            parse(&v6().version(version).tcp(1, 2)) == Parsed::Malformed,
            version != 6
        );
    }
}

#[test]
fn r29_non_ip_is_by_ethertype() {
    for ethertype in [0x0026, 0x05dc, 0x0806, 0x88cc, 0x888e, 0x8847, 0xffff] {
        assert_eq!(parse(&ethernet(ethertype)), Parsed::NonIp, "{ethertype:#x}");
        assert_eq!(
            parse(&ethernet(ethertype).tag(0x8100, 1)),
            Parsed::NonIp,
            "{ethertype:#x}"
        );
    }
}

#[test]
fn r25_ipv4_options_are_skipped() {
    for options in (0..=40).step_by(4) {
        let frame = v4().options(options).tcp(40000, 80);
        assert_eq!(packet(&frame).ports, Some((40000, 80)));
        // 19 bytes of TCP are not enough.
        let p = packet(&frame.truncate(14 + 20 + options + 19));
        assert!(p.malformed && has_no_l4(&p) && !p.invalid);
    }
    // Options behind the end of the frame.
    let p = packet(&v4().options(40).tcp(1, 2).truncate(14 + 59));
    assert!(p.malformed && !p.invalid && has_no_l4(&p));
    assert_eq!(p.protocol, Some(6));
}

#[test]
fn r13_invalid_lengths() {
    for ihl in 0..5 {
        let p = packet(&v4().ihl(ihl).tcp(1, 2));
        assert!(p.invalid && p.malformed && has_no_l4(&p));
        assert_eq!(p.protocol, Some(6));
    }
    for (options, total) in [(0, 0), (0, 19), (8, 20), (8, 27)] {
        let p = packet(&v4().options(options).length(total).tcp(1, 2));
        assert!(p.invalid && p.malformed && has_no_l4(&p));
        assert_eq!(p.length, u32::from(total));
    }
    for words in 0..16 {
        for frame in [v4(), v6(), v6().options_header(0, 1)] {
            let p = packet(&frame.tcp(1, 2).data_offset(words));
            assert_eq!(
                (p.invalid, p.malformed, p.ports),
                (words < 5, false, Some((1, 2)))
            );
        }
    }
}

#[test]
fn l4_headers_end_where_the_packet_does() {
    let minimum = [(6, 20), (17, 8), (136, 8), (132, 12), (33, 12)];
    for (protocol, minimum) in minimum {
        for length in 0..30usize {
            let data: Vec<u8> = (0..length as u8).collect();
            for frame in [v4(), v6(), v6().options_header(60, 1)] {
                let whole = frame.protocol(protocol).payload(&data);
                for p in [packet(&whole), packet(&whole.clone().padding(30))] {
                    assert_eq!(p.malformed, length < minimum);
                    assert_eq!(p.ports, (length >= minimum).then_some((0x0001, 0x0203)));
                    let flags = (protocol == 6 && length >= minimum).then_some(13);
                    assert_eq!((p.tcp_flags, p.icmp), (flags, None));
                    assert_eq!((p.protocol, p.bad_fragment), (Some(protocol), false));
                }
            }
        }
    }
}

#[test]
fn icmp_is_of_its_own_family() {
    let data = [3, 1, 0, 0, 0, 0, 0, 0];
    for (frame, own, other) in [(v4(), 1, 58), (v6(), 58, 1)] {
        for length in 0..=8 {
            let data = &data[..length];
            let p = packet(&frame.clone().protocol(own).payload(data).padding(9));
            assert_eq!(
                (p.icmp, p.malformed),
                ((length == 8).then_some((3, 1)), length < 8)
            );
            let p = packet(&frame.clone().protocol(other).payload(data).padding(9));
            assert_eq!(
                (p.icmp, p.malformed, p.protocol),
                (None, false, Some(other))
            );
        }
    }
}

#[test]
fn other_protocols_have_no_l4_and_are_never_malformed() {
    for protocol in [2, 4, 41, 47, 50, 59, 89, 255] {
        for frame in [v4(), v6()] {
            let p = packet(&frame.protocol(protocol));
            assert!(has_no_l4(&p) && !p.malformed);
            assert_eq!(p.protocol, Some(protocol));
        }
    }
    // In IPv4 these are protocols as any other.
    for protocol in [0, 43, 44, 51, 60, 135, 139, 140] {
        let p = packet(&v4().protocol(protocol).payload(&[6, 0, 0, 0]));
        assert!(has_no_l4(&p) && !p.malformed);
        assert_eq!(p.protocol, Some(protocol));
    }
}

#[test]
fn r26_fragments_of_ipv4() {
    let p = packet(&v4().fragment(0, true).udp(1, 2));
    assert_eq!(
        (p.fragment, p.ports, p.malformed),
        (Fragment::First, Some((1, 2)), false)
    );
    for more in [false, true] {
        let p = packet(&v4().fragment(1, more).udp(1, 2));
        assert_eq!((p.fragment, p.protocol), (Fragment::Later, Some(17)));
        assert!(has_no_l4(&p) && !p.malformed && !p.bad_fragment);
    }
    assert_eq!(
        packet(&v4().dont_fragment().udp(1, 2)).fragment,
        Fragment::None
    );
}

#[test]
fn r26_fragments_of_ipv6() {
    let p = packet(&v6().fragment(0, true).udp(1, 2));
    assert_eq!(
        (p.fragment, p.ports, p.malformed),
        (Fragment::First, Some((1, 2)), false)
    );
    let p = packet(&v6().options_header(0, 1).fragment(1, true).udp(1, 2));
    assert_eq!((p.fragment, p.protocol), (Fragment::Later, Some(17)));
    assert!(has_no_l4(&p) && !p.malformed && !p.bad_fragment);
    let p = packet(&v6().fragment(0, false).udp(1, 2));
    assert_eq!((p.fragment, p.ports), (Fragment::None, Some((1, 2))));
    // An atomic one behind a first one leaves it a first one; a later one makes it a later one.
    let p = packet(&v6().fragment(0, true).fragment(0, false).udp(1, 2));
    assert_eq!((p.fragment, p.ports), (Fragment::First, Some((1, 2))));
    let p = packet(&v6().fragment(0, true).fragment(3, false).udp(1, 2));
    assert_eq!((p.fragment, p.ports), (Fragment::Later, None));
}

#[test]
fn r12_fragments_that_end_past_65535() {
    for (frame, header) in [(v4(), 20), (v4().options(40), 60)] {
        for (offset, bytes, bad) in [(8189, 23, false), (8189, 24, true), (8191, 7, false)] {
            let frame = frame
                .clone()
                .fragment(offset, false)
                .protocol(17)
                .length(header + bytes);
            let p = packet(&frame);
            assert_eq!(
                (p.bad_fragment, p.malformed),
                (bad, false),
                "{offset} {bytes}"
            );
        }
        let p = packet(&frame.clone().fragment(8191, true).length(header - 1));
        assert!(!p.bad_fragment && p.invalid);
    }
    // The rule goes by the header also where the options are cut off.
    let p = packet(
        &v4()
            .options(40)
            .fragment(8191, true)
            .length(68)
            .truncate(40),
    );
    assert!(p.bad_fragment && p.malformed);
    for (offset, bytes, bad) in [(8189, 23, false), (8189, 24, true), (8191, 7, false)] {
        for frame in [v6(), v6().options_header(60, 2)] {
            let chain = frame.build().len() as u16 - 54;
            let frame = frame
                .fragment(offset, false)
                .protocol(17)
                .length(chain + 8 + bytes);
            assert_eq!(packet(&frame).bad_fragment, bad, "{offset} {bytes}");
        }
    }
    // No length in the header: by the frame.
    let jumbo = |n| {
        v6().options_header(0, 1)
            .fragment(8189, false)
            .payload(&vec![0; n])
            .length(0)
    };
    assert!(!packet(&jumbo(23)).bad_fragment);
    assert!(packet(&jumbo(24)).bad_fragment);
}

#[test]
fn r12_first_fragments_too_short_for_l4() {
    let tcp = [0u8; 19];
    for frame in [v4(), v6(), v6().options_header(0, 1)] {
        let p = packet(&frame.clone().fragment(0, true).protocol(6).payload(&tcp));
        assert!(p.bad_fragment && p.malformed && has_no_l4(&p));
        let p = packet(&frame.clone().protocol(6).payload(&tcp));
        assert!(!p.bad_fragment && p.malformed);
        let p = packet(&frame.clone().fragment(0, true).protocol(47).payload(&tcp));
        assert!(!p.bad_fragment && !p.malformed);
    }
    // The chain itself does not fit into the first fragment (RFC 7112).
    let p = packet(
        &v6()
            .fragment(0, true)
            .protocol(60)
            .payload(&[6, 1, 0, 0, 0, 0, 0, 0]),
    );
    assert!(p.bad_fragment && p.malformed);
    assert_eq!((p.protocol, p.fragment), (None, Fragment::First));
}
