//! A firewall without a kernel: what it would do, and what it says of frames.
#![cfg(feature = "kernel")]

#[allow(dead_code, unreachable_pub, reason = "shared with other tests")]
mod common {
    pub mod packet;
}

use std::thread;
use std::time::Duration;

use common::packet;
use xdpgate::policy::Policy;
use xdpgate::{
    AttachMode, BanScope, Bridge, BridgeError, EventOptions, EventStats, Firewall, IfIndex,
    ModePreference, Operation, Reason, Verdict,
};

const BLOCK: &str = "
version: 1
failsafe: none
malformed: drop
rules:
  - { id: off, enabled: false, match: { src: 192.0.2.0/24 }, action: drop }
  - { id: block, match: { src: 203.0.113.0/24 }, action: drop }
";

#[test]
fn a_rehearsal_writes_down_what_would_be_done() {
    let (firewall, rehearsal) = Firewall::loader().rehearse();
    let policy = Policy::from_yaml(BLOCK).unwrap();
    let eth = IfIndex::new(7).unwrap();

    assert_eq!(firewall.plan(&policy).unwrap().added.len(), 2);
    let applied = firewall.apply(&policy).unwrap();
    assert_eq!((applied.generation.get(), applied.entries), (1, 2));
    let attachment = firewall.attach(eth, ModePreference::BestAvailable).unwrap();
    assert_eq!(
        (attachment.name.as_str(), attachment.mode),
        ("if7", AttachMode::Native)
    );
    firewall.set_dry_run(false);
    firewall.detach(eth).unwrap();
    assert!(firewall.plan(&policy).unwrap().is_empty());

    let done = rehearsal.operations();
    let Operation::Publish { rules, image_bytes } = &done[1] else {
        panic!("{done:?}")
    };
    assert_eq!(
        rules.iter().map(|r| r.as_str()).collect::<Vec<_>>(),
        ["block"]
    );
    assert_eq!(*image_bytes, applied.image_bytes);
    assert_eq!(done[0], Operation::DryRun(true), "the default");
    assert_eq!(
        done[2..],
        [
            Operation::Attach {
                ifindex: eth,
                mode: AttachMode::Native
            },
            Operation::DryRun(false),
            Operation::Detach { ifindex: eth },
        ]
    );
}

#[test]
fn a_bridge_is_prepared_before_and_put_back_after() {
    let [outer, inner] = [5, 6].map(|n| IfIndex::new(n).unwrap());
    let (firewall, rehearsal) = Firewall::loader().rehearse();
    let error = firewall.bridge(Bridge::new(outer, inner)).unwrap_err();
    assert!(matches!(error, BridgeError::NotLoaded), "{error}");
    assert_eq!(rehearsal.operations(), [Operation::DryRun(true)]);

    let (firewall, rehearsal) = Firewall::loader().fast_forward(true).rehearse();
    let begun = rehearsal.operations().len();
    let info = firewall.bridge(Bridge::new(outer, inner)).unwrap();
    assert_eq!(firewall.bridges(), [info]);
    drop(firewall);
    let forward = |ifindex, partner| Operation::Forward { ifindex, partner };
    let mode = AttachMode::Native;
    assert_eq!(
        rehearsal.operations()[begun..],
        [
            Operation::Prepare { ifindex: outer },
            Operation::Prepare { ifindex: inner },
            forward(outer, Some(inner)),
            forward(inner, Some(outer)),
            Operation::Attach {
                ifindex: outer,
                mode
            },
            Operation::Attach {
                ifindex: inner,
                mode
            },
            Operation::Detach { ifindex: outer },
            Operation::Detach { ifindex: inner },
            forward(outer, None),
            forward(inner, None),
            Operation::Restore { ifindex: outer },
            Operation::Restore { ifindex: inner },
        ]
    );

    // The second port cannot be attached: all that was done to both is undone.
    let (firewall, rehearsal) = Firewall::loader().fast_forward(true).rehearse();
    let offload = ModePreference::Exactly(AttachMode::Offload);
    let error = firewall.bridge(Bridge::new(outer, inner).mode(offload));
    assert!(matches!(error, Err(BridgeError::Attach(_))), "{error:?}");
    let done = rehearsal.operations();
    for ifindex in [outer, inner] {
        assert!(done.contains(&Operation::Restore { ifindex }), "{done:?}");
        assert!(done.contains(&forward(ifindex, None)), "{done:?}");
    }
    assert_eq!(firewall.bridges(), []);
}

#[test]
fn frames_are_evaluated_by_the_compiled_image() {
    let (firewall, _) = Firewall::loader().rehearse();
    let frame = packet::ip("203.0.113.9", "198.51.100.1").udp(1, 2).build();
    assert_eq!(firewall.evaluate(&frame).unwrap().reason, Reason::NoPolicy);
    firewall.apply(&Policy::from_yaml(BLOCK).unwrap()).unwrap();
    let evaluation = firewall.evaluate(&frame).unwrap();
    assert_eq!(
        (evaluation.verdict, evaluation.reason),
        (Verdict::Drop, Reason::Rule)
    );
    assert_eq!(evaluation.rule.unwrap().as_str(), "block");
    let short = firewall.evaluate(&[0; 13]).unwrap();
    assert_eq!(
        (short.verdict, short.reason),
        (Verdict::Drop, Reason::Malformed)
    );
}

#[test]
fn a_rehearsal_has_no_events() {
    let (firewall, _) = Firewall::loader().rehearse();
    firewall.apply(&Policy::from_yaml(BLOCK).unwrap()).unwrap();
    let events = firewall.events(EventOptions::default()).unwrap();
    assert_eq!(events.count(), 0, "the stream ends at once");
    assert_eq!(firewall.event_stats(), EventStats::default());
}

#[test]
fn bans_are_kept_and_expire() {
    let (firewall, _) = Firewall::loader().rehearse();
    firewall.apply(&Policy::from_yaml(BLOCK).unwrap()).unwrap();
    let (short, hour) = (Duration::from_millis(300), Duration::from_secs(3600));
    let ban = |prefix: &str, scope, ttl| firewall.ban(prefix.parse().unwrap(), scope, ttl);
    ban("203.0.113.0/24", BanScope::Source, short).unwrap();
    ban("2001:db8::7", BanScope::Destination, hour).unwrap();
    let reason = |src: &str, dst: &str| {
        let frame = packet::ip(src, dst).udp(1, 2).build();
        firewall.evaluate(&frame).unwrap().reason
    };
    assert_eq!(reason("203.0.113.7", "192.0.2.1"), Reason::Ban);
    assert_eq!(reason("192.0.2.1", "203.0.113.7"), Reason::Default);
    assert_eq!(reason("2001:db8::1", "2001:db8::7"), Reason::Ban);
    thread::sleep(short + Duration::from_millis(100));
    assert_eq!(reason("203.0.113.7", "192.0.2.1"), Reason::Rule);
    assert_eq!(firewall.bans().len(), 1);
}
