//! The parser on random frames: it never panics, and on good ones it says what etherparse says.

mod common;

use std::collections::BTreeMap;

use common::frame_strategy::{frame, lying_frame, valid_frame};
use etherparse::{LinkExtSlice, NetSlice, SlicedPacket, TransportSlice};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use xdpgate::packet::{Fragment, Packet, Parsed};
use xdpgate::policy::Family;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(2000)))]

    #[test]
    fn any_bytes_parse(bytes in vec(any::<u8>(), 0..2000)) {
        check(&Parsed::from_frame(&bytes));
    }

    #[test]
    fn random_frames_parse(bytes in frame()) {
        check(&Parsed::from_frame(&bytes));
    }

    #[test]
    fn every_truncation_parses(frame in lying_frame()) {
        let bytes = frame.build();
        for keep in 0..=bytes.len() {
            check(&Parsed::from_frame(&bytes[..keep]));
        }
    }

    #[test]
    fn padding_changes_nothing(frame in valid_frame(), padding in 1..30usize) {
        let padded = Parsed::from_frame(&frame.clone().padding(padding).build());
        prop_assert_eq!(padded, Parsed::from_frame(&frame.build()));
    }

    #[test]
    fn etherparse_agrees_on_valid_frames(frame in valid_frame()) {
        let bytes = frame.build();
        let Parsed::Ip(packet) = Parsed::from_frame(&bytes) else {
            return Err(TestCaseError::fail("not an IP packet"));
        };
        compare(&packet, &bytes);
    }
}

#[test]
fn random_frames_are_of_every_kind() {
    let mut runner = TestRunner::deterministic();
    let mut seen = BTreeMap::new();
    for _ in 0..5000 {
        let bytes = frame().new_tree(&mut runner).expect("a frame").current();
        let parsed = Parsed::from_frame(&bytes);
        let mut count = |kind: &'static str, is: bool| *seen.entry(kind).or_insert(0) += is as u32;
        count("non-IP", parsed == Parsed::NonIp);
        count("VLAN depth", parsed == Parsed::VlanDepth);
        count("no L3", parsed == Parsed::Malformed);
        let Some(p) = parsed.packet() else { continue };
        count("IPv4", p.src.is_ipv4());
        count("IPv6", p.src.is_ipv6());
        count("tagged", p.vlan.is_some());
        count("first", p.fragment == Fragment::First);
        count("later", p.fragment == Fragment::Later);
        count("ports", p.ports.is_some());
        count("TCP", p.tcp_flags.is_some());
        count("ICMP", p.icmp.is_some());
        count("bad fragment", p.bad_fragment);
        count("bad fragment, cut", p.bad_fragment && p.malformed);
        count("invalid", p.invalid);
        count("invalid, not malformed", p.invalid && !p.malformed);
        count("malformed", p.malformed);
        count("lost chain", p.protocol.is_none());
    }
    assert!(seen.values().all(|n| *n >= 20), "{seen:#?}");
}

/// What holds for every packet.
fn check(parsed: &Parsed) {
    let Some(p) = parsed.packet() else { return };
    assert_eq!(p.src.is_ipv4(), p.dst.is_ipv4());
    assert!(p.vlan.is_none_or(|id| id < 4096) && p.dscp < 64);
    let has_l4 = p.ports.is_some() || p.icmp.is_some();
    assert!(!has_l4 || !p.malformed && p.fragment != Fragment::Later && p.protocol.is_some());
    assert_eq!(
        p.tcp_flags.is_some(),
        p.ports.is_some() && p.protocol == Some(6)
    );
    assert!(!p.bad_fragment || p.fragment != Fragment::None);
    assert!(p.protocol.is_some() || p.malformed);
}

fn compare(p: &Packet, bytes: &[u8]) {
    let Ok(sliced) = SlicedPacket::from_ethernet(bytes) else {
        // It wants the hop-by-hop header first, where RFC 8200 has it and we do not care.
        assert_eq!(p.family(), Family::Ipv6);
        return;
    };
    let vlan = sliced.link_exts.first().map(|tag| match tag {
        LinkExtSlice::Vlan(v) => v.vlan_identifier().value(),
        other => panic!("{other:?}"),
    });
    assert_eq!(p.vlan, vlan);
    match sliced.net.expect("L3") {
        NetSlice::Ipv4(ip) => {
            let h = ip.header();
            assert_eq!(
                (p.src, p.dst),
                (h.source_addr().into(), h.destination_addr().into())
            );
            assert_eq!((p.ttl, p.dscp), (h.ttl(), h.dcp().value()));
            assert_eq!(p.length, u32::from(h.total_len()));
            assert_eq!(p.protocol, Some(h.protocol().0));
            assert_eq!(p.fragment != Fragment::None, h.is_fragmenting_payload());
            assert_eq!(h.to_header().calc_header_checksum(), h.header_checksum());
        }
        NetSlice::Ipv6(ip) => {
            let h = ip.header();
            assert_eq!(
                (p.src, p.dst),
                (h.source_addr().into(), h.destination_addr().into())
            );
            assert_eq!((p.ttl, p.dscp), (h.hop_limit(), h.dscp().value()));
            assert_eq!(p.length, u32::from(h.payload_length()) + 40);
            // Mobility, HIP and Shim6 headers end the chain for it.
            if [135, 139, 140].contains(&ip.payload().ip_number.0) {
                return;
            }
            assert_eq!(p.protocol, Some(ip.payload().ip_number.0));
            assert_eq!(p.fragment != Fragment::None, ip.is_payload_fragmented());
        }
        other => panic!("{other:?}"),
    }
    match sliced.transport {
        // It reads no L4 header of any fragment.
        None if p.fragment == Fragment::First => {}
        Some(TransportSlice::Tcp(tcp)) => {
            assert_eq!(p.ports, Some((tcp.source_port(), tcp.destination_port())));
            let ours = p.tcp_flags.expect("flags");
            assert_eq!((ours & 2 != 0, ours & 16 != 0), (tcp.syn(), tcp.ack()));
        }
        Some(TransportSlice::Udp(udp)) => {
            assert_eq!(p.ports, Some((udp.source_port(), udp.destination_port())));
        }
        Some(TransportSlice::Icmpv4(icmp)) => {
            assert_eq!(p.icmp, Some((icmp.type_u8(), icmp.code_u8())));
        }
        Some(TransportSlice::Icmpv6(icmp)) => {
            assert_eq!(p.icmp, Some((icmp.type_u8(), icmp.code_u8())));
        }
        _ => {
            let ours = [6, 17].map(Some).contains(&p.protocol) && p.ports.is_some();
            assert!(!ours && p.icmp.is_none(), "{p:?}");
        }
    }
}
