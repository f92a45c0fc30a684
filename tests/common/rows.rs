//! Acceptance rows that are generated rather than listed in the corpus. Each takes what judges a
//! frame by a policy: the oracle, or the XDP program.

use std::net::IpAddr;

use super::packet::{Frame, addressed, ip};
use super::tuple::{SHAPES, Tuple};
use xdpgate::policy::{
    Action, AddressItem, AddressMatch, Failsafe, Match, Policy, PolicyBuilder, Prefix, Ranges,
    Rule, RuleId,
};
use xdpgate::{Evaluation, Reason, Verdict};

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
    for tuple in Tuple::of_each_kind(0, 0) {
        for shape in SHAPES {
            let m = tuple.asked(shape);
            assert!(hits(judge, m.clone(), &tuple.frame()), "{m:?}");
            for (field, fits, neighbour) in tuple.neighbours(shape) {
                assert_eq!(hits(judge, m.clone(), &neighbour), fits, "{field}: {m:?}");
            }
        }
    }
}

/// The same on the allow side, with hosts, and with /25s and /57s: what fits the one rule passes by
/// it, each neighbour that does not is dropped by default.
pub fn allowed_shapes(judge: Judge<'_>) {
    let hosts = Tuple::of_each_kind(0, 0);
    let prefixes = Tuple::of_each_kind(7, 71);
    for tuple in hosts.into_iter().chain(prefixes) {
        for shape in SHAPES {
            passes_alone(judge, &whitelist(&[(shape, tuple)]), shape, &tuple);
        }
    }
}

/// All 31 shapes in one whitelist, each about a tuple of its own.
pub fn allowed_shapes_at_once(judge: Judge<'_>) {
    for (base, open) in [
        ("10.0.0.1", 0),
        ("10.0.0.1", 7),
        ("2001:db8::1", 0),
        ("2001:db8::1", 71),
    ] {
        let own = |shape| (shape, Tuple::own(shape, base, open));
        let rules: Vec<_> = SHAPES.map(own).collect();
        let policy = whitelist(&rules);
        for (shape, tuple) in &rules {
            passes_alone(judge, &policy, *shape, tuple);
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

/// Drops all but what fits one of these shapes of tuples; no failsafe lets anything else in.
fn whitelist(shapes: &[(u32, Tuple)]) -> Policy {
    let rules = shapes.iter().map(|(shape, tuple)| Rule {
        matches: tuple.asked(*shape),
        ..Rule::new(shape_id(*shape), 1, Action::Pass)
    });
    rules
        .fold(without_failsafe(), PolicyBuilder::rule)
        .default_verdict(Verdict::Drop)
        .build()
        .unwrap()
}

fn shape_id(shape: u32) -> RuleId {
    RuleId::new(&format!("shape-{shape}")).unwrap()
}

/// What fits the shape passes by its rule, what does not is dropped because no rule says otherwise.
fn passes_alone(judge: Judge<'_>, policy: &Policy, shape: u32, tuple: &Tuple) {
    let mut said = |frame: &Frame| {
        let said = judge(policy, &frame.build());
        (said.verdict, said.reason, said.rule)
    };
    let pass = (Verdict::Pass, Reason::Rule, Some(shape_id(shape)));
    let drop = (Verdict::Drop, Reason::Default, None);
    assert_eq!(said(&tuple.frame()), pass, "{tuple:?}");
    for (field, fits, neighbour) in tuple.neighbours(shape) {
        let want = if fits { &pass } else { &drop };
        assert_eq!(
            said(&neighbour),
            *want,
            "{field} of shape {shape}: {tuple:?}"
        );
    }
}

/// Whether a rule with this match drops the frame.
fn hits(judge: Judge<'_>, matches: Match, frame: &Frame) -> bool {
    let rule = Rule {
        matches,
        ..Rule::new(RuleId::new("r").unwrap(), 1, Action::Drop)
    };
    let policy = without_failsafe().rule(rule).build().unwrap();
    judge(&policy, &frame.build()).rule.is_some()
}

/// A policy in which nothing passes but by rules and by default.
pub fn without_failsafe() -> PolicyBuilder {
    Policy::builder().failsafe(Failsafe {
        enabled: false,
        ..Failsafe::default()
    })
}

/// The addresses of one prefix.
pub fn within(prefix: &str) -> AddressMatch {
    let prefix: Prefix = prefix.parse().expect("a prefix");
    AddressMatch {
        negated: false,
        items: vec![AddressItem::Prefix(prefix)],
    }
}
