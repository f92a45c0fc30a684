//! Acceptance rows that are generated rather than listed in the corpus. Each takes what judges a
//! frame by a policy: the oracle, or the XDP program.

use std::net::IpAddr;

use super::packet::{Frame, addressed, ip};
use xdpgate::Evaluation;
use xdpgate::policy::{
    Action, AddressItem, AddressMatch, Failsafe, Match, Policy, Prefix, Ranges, Rule, RuleId,
};

pub type Judge<'j> = &'j mut dyn FnMut(&Policy, &[u8]) -> Evaluation;

/// Every protocol number matches itself and not another one.
pub fn protocols(judge: Judge<'_>) {
    for protocol in 0..=255 {
        let of = |p: u8| Match {
            protocol: Some(Ranges::single(p)),
            ..Match::default()
        };
        let frame = ip("192.0.2.1", "192.0.2.2")
            .protocol(protocol)
            .payload(&[0; 60]);
        assert!(hits(judge, of(protocol), &frame));
        assert!(!hits(judge, of(protocol ^ 1), &frame));
    }
}

/// Each of the 31 shapes of the 5-tuple hits its packet and misses every mutation of a field that
/// it asks for.
pub fn five_tuple_shapes(judge: Judge<'_>) {
    let frames = [
        ip("192.0.2.1", "198.51.100.10").tcp(40000, 80),
        ip("192.0.2.1", "198.51.100.10").udp(40000, 80),
        ip("2001:db8::1", "2001:db8:1::10")
            .tag(0x8100, 1)
            .tcp(40000, 80),
        ip("2001:db8::1", "2001:db8:1::10")
            .options_header(0, 1)
            .udp(40000, 80),
    ];
    for (i, frame) in frames.iter().enumerate() {
        let number = if i % 2 == 0 { 6 } else { 17 };
        let (src, dst) = if i < 2 {
            ("192.0.2.1", "198.51.100.10")
        } else {
            ("2001:db8::1", "2001:db8:1::10")
        };
        for shape in 1..32u32 {
            let has = |field: &str| {
                let all = ["src", "dst", "protocol", "sport", "dport"];
                shape & 1 << all.iter().position(|f| *f == field).expect("a field") != 0
            };
            let m = Match {
                src: has("src").then(|| within(src)),
                dst: has("dst").then(|| within(dst)),
                protocol: has("protocol").then(|| Ranges::single(number)),
                sport: has("sport").then(|| Ranges::single(40000)),
                dport: has("dport").then(|| Ranges::single(80)),
                ..Match::default()
            };
            assert!(hits(judge, m.clone(), frame), "{m:?}");
            let mutations = frame.mutations();
            assert_eq!(mutations.len(), 5);
            for (field, mutated) in mutations {
                assert_eq!(
                    hits(judge, m.clone(), &mutated),
                    !has(field),
                    "{field}: {m:?}"
                );
            }
        }
    }
}

/// The first and last address of a prefix of every length are in, their neighbours out.
pub fn prefix_edges(judge: Judge<'_>) {
    let (v4, v6): (IpAddr, IpAddr) = (
        "10.1.2.3".parse().unwrap(),
        "2001:db8:1:2:3:4:5:6".parse().unwrap(),
    );
    for (width, own) in [(32u8, v4), (128, v6)] {
        for len in 0..=width {
            let bits = match own {
                IpAddr::V4(a) => u128::from(a.to_bits()),
                IpAddr::V6(a) => a.to_bits(),
            };
            let address = |bits: u128| match own {
                IpAddr::V4(_) => IpAddr::V4((bits as u32).into()),
                IpAddr::V6(_) => IpAddr::V6(bits.into()),
            };
            let below = u128::MAX
                .checked_shr(128 - u32::from(width - len))
                .unwrap_or(0);
            let (first, last) = (bits & !below, bits | below);
            let m = || Match {
                dst: Some(within(&format!("{}/{len}", address(first)))),
                ..Match::default()
            };
            let to = |bits| addressed(own, address(bits)).udp(1, 2);
            assert!(
                hits(judge, m(), &to(first)) && hits(judge, m(), &to(last)),
                "/{len}"
            );
            if len > 0 {
                assert!(!hits(judge, m(), &to(first.wrapping_sub(1))), "/{len}");
                assert!(!hits(judge, m(), &to(last.wrapping_add(1))), "/{len}");
            }
        }
    }
}

/// Whether a rule with this match drops the frame.
fn hits(judge: Judge<'_>, matches: Match, frame: &Frame) -> bool {
    let rule = Rule {
        matches,
        ..Rule::new(RuleId::new("r").unwrap(), 1, Action::Drop)
    };
    let failsafe = Failsafe {
        enabled: false,
        ..Failsafe::default()
    };
    let policy = Policy::builder()
        .failsafe(failsafe)
        .rule(rule)
        .build()
        .unwrap();
    judge(&policy, &frame.build()).rule.is_some()
}

fn within(prefix: &str) -> AddressMatch {
    let prefix: Prefix = prefix.parse().expect("a prefix");
    AddressMatch {
        negated: false,
        items: vec![AddressItem::Prefix(prefix)],
    }
}
