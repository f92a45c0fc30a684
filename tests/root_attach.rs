//! Attaching, detaching and counting on real interfaces, in namespaces of their own.
#![cfg(feature = "kernel")]

#[allow(dead_code, unreachable_pub, reason = "shared with other tests")]
mod common {
    pub mod netns;
    pub mod packet;
}

use std::os::fd::AsFd;

use common::netns::{self, Wire, index, sh, veth, wait_until};
use common::packet;
use common::packet::udp_from as frame;
use libbpf_rs::{ProgramHandle, Xdp, XdpFlags};
use xdpgate::policy::Policy;
use xdpgate::{
    AttachError, AttachMode, Disposition, Firewall, IfIndex, ModePreference, Reason, Stats,
};

const BLOCK: &str = "
version: 1
failsafe: none
rules:
  - { id: block, match: { src: 203.0.113.0/24 }, action: drop }
";

fn loaded() -> Firewall {
    Firewall::loader().dry_run(false).load().unwrap()
}

fn policy(text: &str) -> Policy {
    Policy::from_yaml(text).unwrap()
}

/// The number of the XDP program on an interface; 0 if there is none.
fn program_on(interface: IfIndex) -> u32 {
    let nothing = std::fs::File::open("/dev/null").unwrap();
    Xdp::new(nothing.as_fd())
        .query_id(interface.get() as i32, XdpFlags::NONE)
        .unwrap()
}

fn frames(stats: &Stats, interface: IfIndex) -> u64 {
    let of = stats.interfaces.iter().find(|i| i.ifindex == interface);
    of.map_or(0, |i| i.counts.total().packets)
}

#[test]
fn a_firewall_may_be_shared_between_threads() {
    fn is_shareable<T: Send + Sync>() {}
    is_shareable::<Firewall>();
}

#[test]
fn native_mode_on_a_veth() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        veth("a0", "b0");
        let firewall = loaded();
        let attachment = firewall
            .attach(index("a0"), ModePreference::BestAvailable)
            .unwrap();
        assert_eq!(attachment.mode, AttachMode::Native);
        assert_eq!(attachment.requested, ModePreference::BestAvailable);
        assert_eq!(attachment.fallbacks, []);
        assert_eq!(attachment.why(), None);
        assert_eq!(attachment.name, "a0");
        assert_eq!(attachment.program_id, program_on(index("a0")));
        assert!(
            sh("ip link show a0").contains("prog/xdp"),
            "and not xdpgeneric"
        );
        assert_eq!(firewall.attachments(), [attachment]);

        let twice = firewall.attach(index("a0"), ModePreference::BestAvailable);
        assert!(
            matches!(twice, Err(AttachError::AlreadyAttached { .. })),
            "{twice:?}"
        );
    });
}

#[test]
fn a_fallback_is_reported() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        let firewall = loaded();
        let lo = index("lo");
        let native = ModePreference::Exactly(AttachMode::Native);
        let error = firewall.attach(lo, native).unwrap_err();
        assert!(
            matches!(error, AttachError::ModeUnsupported { .. }),
            "{error:?}"
        );
        // Where the kernel does not tell what drivers can do, the MTU may be to blame as well.
        let refused = "lo cannot run XDP in native mode: the driver does not offer it";
        assert!(error.to_string().starts_with(refused), "{error}");
        assert_eq!(program_on(lo), 0);

        let attachment = firewall.attach(lo, ModePreference::BestAvailable).unwrap();
        assert_eq!(attachment.mode, AttachMode::Generic);
        let [fallback] = &attachment.fallbacks[..] else {
            panic!("{:?}", attachment.fallbacks)
        };
        assert_eq!(
            (fallback.from, fallback.errno),
            (AttachMode::Native, nix::libc::EOPNOTSUPP)
        );
        let said = fallback.to_string();
        let begins = "no native mode: the driver does not offer it";
        assert!(said.starts_with(begins), "{said}");
        assert!(said.contains("(os error 95)"), "{said}");
        assert!(sh("ip link show lo").contains("xdpgeneric"));

        let offload = ModePreference::Exactly(AttachMode::Offload);
        veth("a0", "b0");
        let error = firewall.attach(index("a0"), offload).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("a0 cannot run XDP in offload mode"),
            "{error}"
        );
    });
}

#[test]
fn an_interface_that_is_not_there_is_named() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        let error = IfIndex::from_name("eth77").unwrap_err();
        assert_eq!(
            error.to_string(),
            "there is no interface \"eth77\"; `ip link` lists them"
        );
        let nowhere = IfIndex::new(4711).unwrap();
        let error = loaded()
            .attach(nowhere, ModePreference::BestAvailable)
            .unwrap_err();
        assert!(
            matches!(error, AttachError::NoSuchInterface(i) if i == nowhere),
            "{error:?}"
        );
        let error = loaded().detach(nowhere).unwrap_err();
        assert!(
            matches!(error, AttachError::NotAttached(i) if i == nowhere),
            "{error:?}"
        );
    });
}

#[test]
fn detaching_and_dropping_leave_nothing() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        veth("a0", "b0");
        veth("a1", "b1");
        let firewall = loaded();
        firewall.apply(&policy(BLOCK)).unwrap();
        for name in ["a0", "a1", "lo"] {
            firewall
                .attach(index(name), ModePreference::BestAvailable)
                .unwrap();
        }
        firewall.detach(index("a0")).unwrap();
        assert_eq!(program_on(index("a0")), 0);
        assert_ne!(program_on(index("a1")), 0);
        assert!(matches!(
            firewall.detach(index("a0")),
            Err(AttachError::NotAttached(_))
        ));
        firewall
            .attach(index("a0"), ModePreference::BestAvailable)
            .unwrap();

        let info = firewall.program_info();
        drop(firewall);
        for name in ["a0", "a1", "lo"] {
            assert_eq!(program_on(index(name)), 0, "{name}");
        }
        for id in [info.entry.id, info.policy.unwrap().id] {
            let is_gone = || ProgramHandle::from_prog_id(id).is_err();
            wait_until("the end of the programs", is_gone);
        }
    });
}

#[test]
fn an_interface_that_goes_is_forgotten() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        veth("a0", "b0");
        let firewall = loaded();
        let before = firewall
            .attach(index("a0"), ModePreference::BestAvailable)
            .unwrap();
        sh("ip link del a0");
        assert_eq!(firewall.attachments(), []);
        // Another interface with the number of the one that went.
        sh(&format!(
            "ip link add a9 index {} type veth peer name b9",
            before.ifindex
        ));
        assert_eq!(index("a9"), before.ifindex);
        let after = firewall
            .attach(index("a9"), ModePreference::BestAvailable)
            .unwrap();
        assert_eq!(after.name, "a9");
        assert_eq!(program_on(after.ifindex), after.program_id);
    });
}

#[test]
fn every_frame_is_counted_once_at_its_interface() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        veth("a0", "b0");
        veth("a1", "b1");
        let interfaces = [index("a0"), index("a1")];
        let firewall = loaded();
        firewall
            .attach(interfaces[0], ModePreference::BestAvailable)
            .unwrap();
        firewall
            .attach(interfaces[1], ModePreference::Exactly(AttachMode::Generic))
            .unwrap();
        let wires = ["b0", "b1"].map(Wire::open);
        let bad = frame("203.0.113.9");

        wires[0].send(&bad);
        wait_until("the first frame", || {
            frames(&firewall.stats(), interfaces[0]) == 1
        });
        firewall.apply(&policy(BLOCK)).unwrap();

        let sent = [
            (frame("203.0.113.9"), 40, Reason::Rule, Disposition::Dropped),
            (frame("192.0.2.9"), 50, Reason::Default, Disposition::Passed),
            (
                packet::ethernet(0x88cc).payload(&[0; 50]).build(),
                30,
                Reason::NonIp,
                Disposition::Passed,
            ),
            (
                packet::ethernet(0x0800).payload(&[0; 50]).build(),
                20,
                Reason::Malformed,
                Disposition::Passed,
            ),
        ];
        let mut total = 1;
        for (frame, times, _, _) in &sent {
            for _ in 0..*times {
                wires[0].send(frame);
                wires[1].send(frame);
                total += 1;
            }
            // A veth holds 256 frames at most.
            wait_until("the frames", || {
                frames(&firewall.stats(), interfaces[0]) == total
            });
        }
        wait_until("the frames", || {
            frames(&firewall.stats(), interfaces[1]) == total - 1
        });

        let stats = firewall.stats();
        for (interface, no_policy) in interfaces.into_iter().zip([1, 0]) {
            let of = stats
                .interfaces
                .iter()
                .find(|i| i.ifindex == interface)
                .unwrap();
            assert!(of.attached);
            for (frame, times, reason, disposition) in &sent {
                let count = of.counts.get(*reason, *disposition);
                assert_eq!(count.packets, *times, "{} {reason}", of.name);
                assert_eq!(
                    count.bytes,
                    times * frame.len() as u64,
                    "{} {reason}",
                    of.name
                );
            }
            let before = of.counts.get(Reason::NoPolicy, Disposition::Passed);
            assert_eq!(before.packets, no_policy);
            assert_eq!(of.counts.total().packets, 140 + no_policy);
            assert_eq!(of.counts.dropped().packets, 40);
        }
        assert_eq!(stats.other.total().packets, 0);
        let rule = &stats.rules[0];
        assert_eq!(
            (rule.id.as_str(), rule.matched.packets, rule.dropped),
            ("block", 80, 80)
        );
        assert_eq!(rule.matched.bytes, 80 * bad.len() as u64);

        // The counts outlive the attachment.
        firewall.detach(interfaces[0]).unwrap();
        assert_eq!(frames(&firewall.stats(), interfaces[0]), 141);
        firewall
            .attach(interfaces[0], ModePreference::BestAvailable)
            .unwrap();
        assert_eq!(frames(&firewall.stats(), interfaces[0]), 141);
    });
}

#[test]
fn a_refused_attachment_leaves_the_counts_of_others() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        veth("a0", "b0");
        let (a0, b0) = (index("a0"), index("b0"));
        let firewall = Firewall::loader().max_interfaces(1).load().unwrap();
        firewall.attach(a0, ModePreference::BestAvailable).unwrap();
        let sender = Wire::open("b0");
        for _ in 0..3 {
            sender.send(&frame("192.0.2.9"));
        }
        wait_until("the frames", || frames(&firewall.stats(), a0) == 3);
        firewall.detach(a0).unwrap();

        let other = loaded();
        other.attach(b0, ModePreference::BestAvailable).unwrap();
        let error = firewall
            .attach(b0, ModePreference::BestAvailable)
            .unwrap_err();
        assert!(matches!(error, AttachError::Foreign { .. }), "{error:?}");
        let stats = firewall.stats();
        assert_eq!(stats.interfaces.len(), 1);
        assert_eq!(stats.interfaces[0].name, "a0");
        assert_eq!(frames(&stats, a0), 3);
        // Its frames still find the slot.
        firewall.attach(a0, ModePreference::BestAvailable).unwrap();
        sender.send(&frame("192.0.2.9"));
        wait_until("the frame", || frames(&firewall.stats(), a0) == 4);

        // One that is attached takes the slot over.
        firewall.detach(a0).unwrap();
        other.detach(b0).unwrap();
        firewall.attach(b0, ModePreference::BestAvailable).unwrap();
        assert_eq!(frames(&firewall.stats(), a0), 0);
    });
}

#[test]
fn dry_run_drops_nothing_and_counts_it() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        veth("a0", "b0");
        let firewall = Firewall::loader().load().unwrap();
        assert!(firewall.dry_run(), "a first start harms nobody");
        firewall.apply(&policy(BLOCK)).unwrap();
        firewall
            .attach(index("a0"), ModePreference::BestAvailable)
            .unwrap();
        let (sender, receiver) = (Wire::open("b0"), Wire::open("a0"));
        let bad = frame("203.0.113.9");

        sender.send(&bad);
        assert_eq!(receiver.receive().as_ref(), Some(&bad));
        firewall.set_dry_run(false);
        sender.send(&bad);
        assert_eq!(receiver.receive(), None);
        firewall.set_dry_run(true);
        sender.send(&bad);
        assert_eq!(receiver.receive().as_ref(), Some(&bad));

        let stats = firewall.stats();
        let counts = &stats.interfaces[0].counts;
        assert_eq!(counts.would_drop().packets, 2);
        assert_eq!(counts.dropped().packets, 1);
        assert_eq!(counts.passed().packets, 0);
        let rule = &stats.rules[0];
        assert_eq!(
            (rule.matched.packets, rule.dropped, rule.would_drop),
            (3, 1, 2)
        );
    });
}
