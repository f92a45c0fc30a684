//! Dry run of one interface, with real packets on two of them.
#![cfg(feature = "kernel")]

#[allow(dead_code, unreachable_pub, reason = "shared with other tests")]
mod common {
    pub mod netns;
    pub mod packet;
}

use std::env;

use common::netns::{self, Wire, index, veth};
use common::packet::udp_from as frame;
use xdpgate::{AttachError, Disposition, Firewall, ModePreference, Pinning, Policy, Reason, Stats};

const POLICY: &str = "
version: 1
failsafe: none
rules: [{ id: block, match: { src: 203.0.113.0/24 }, action: drop }]
";

/// How many of ten frames that the policy drops come through.
fn through(wires: &(Wire, Wire)) -> usize {
    let (sender, receiver) = wires;
    for _ in 0..10 {
        sender.send(&frame("203.0.113.5"));
    }
    sender.send(&frame("192.0.2.1"));
    let passed = std::iter::from_fn(|| receiver.receive()).count();
    assert_ne!(passed, 0, "what the policy lets pass");
    passed - 1
}

/// Frames that the rule dropped, and would have dropped, on an interface.
fn counted(stats: &Stats, name: &str) -> (u64, u64) {
    let interface = stats.interfaces.iter().find(|i| i.name == name).unwrap();
    let of = |disposition| interface.counts.get(Reason::Rule, disposition).packets;
    (of(Disposition::Dropped), of(Disposition::WouldDrop))
}

#[test]
fn r72_dry_run_of_one_interface() {
    if netns::skipped() {
        return;
    }
    // The plain exit of the program, and that of the special one.
    for atomic in [false, true] {
        netns::run(|| {
            let name = format!("xdpgate-dry-{atomic}-{}", std::process::id());
            let mount = env::temp_dir().join(name);
            netns::mount_bpffs(&mount);
            veth("a0", "b0");
            veth("c0", "d0");
            let wires = [("b0", "a0"), ("d0", "c0")].map(|(s, r)| (Wire::open(s), Wire::open(r)));
            let loader = || {
                let loader = Firewall::loader().pin(Pinning::Require);
                loader.pin_root(mount.join("pins")).atomic_counters(atomic)
            };
            let policy = Policy::from_yaml(POLICY).unwrap();
            let firewall = loader().dry_run(false).load().unwrap();
            firewall.apply(&policy).unwrap();
            let (a0, c0) = (index("a0"), index("c0"));
            let error = firewall.set_interface_dry_run(a0, true).unwrap_err();
            assert!(matches!(error, AttachError::NotAttached(_)), "{error}");
            for interface in [a0, c0] {
                let best = ModePreference::BestAvailable;
                assert!(!firewall.attach(interface, best).unwrap().dry_run);
            }
            assert_eq!([0, 1].map(|i| through(&wires[i])), [0, 0]);
            firewall.set_interface_dry_run(a0, true).unwrap();
            assert_eq!([0, 1].map(|i| through(&wires[i])), [10, 0]);
            let stats = firewall.stats();
            assert_eq!(counted(&stats, "a0"), (10, 10));
            assert_eq!(counted(&stats, "c0"), (20, 0));
            let rule = &stats.rules[0];
            assert_eq!((rule.dropped, rule.would_drop), (30, 10));
            // Nothing is dropped anywhere where the firewall says so, whatever an interface says.
            firewall.set_dry_run(true);
            assert_eq!([0, 1].map(|i| through(&wires[i])), [10, 10]);
            firewall.set_dry_run(false);
            // It stays with the interface.
            firewall.detach(a0).unwrap();
            let again = firewall.attach(a0, ModePreference::BestAvailable).unwrap();
            assert!(again.dry_run);
            assert_eq!(through(&wires[0]), 10);
            drop(firewall);
            assert_eq!(
                [0, 1].map(|i| through(&wires[i])),
                [10, 0],
                "nobody is there"
            );

            // Over a restart on the same maps, and on others.
            for max_rules in [16_384, 100] {
                let firewall = loader().max_rules(max_rules).load().unwrap();
                firewall.apply(&policy).unwrap();
                let attached = firewall.attachments();
                let dry: Vec<_> = attached
                    .iter()
                    .map(|a| (a.name.as_str(), a.dry_run))
                    .collect();
                assert_eq!(dry, [("a0", true), ("c0", false)], "{max_rules}");
                assert_eq!([0, 1].map(|i| through(&wires[i])), [10, 0], "{max_rules}");
            }
            let firewall = loader().max_rules(100).load().unwrap();
            firewall.apply(&policy).unwrap();
            firewall.set_interface_dry_run(a0, false).unwrap();
            assert!(!firewall.attachments()[0].dry_run);
            assert_eq!([0, 1].map(|i| through(&wires[i])), [0, 0]);
            firewall.uninstall().unwrap();
        });
    }
}
