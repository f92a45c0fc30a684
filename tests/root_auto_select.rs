//! Another selection while interfaces are watched, in namespaces of their own.
#![cfg(feature = "kernel")]

#[allow(dead_code, unreachable_pub, reason = "shared with other tests")]
mod common {
    pub mod auto;
    pub mod netns;
    pub mod packet;
}

use std::time::Duration;

use common::auto::{attached, decision, loaded};
use common::netns::{self, index, sh, veth, wait_until};
use xdpgate::{
    AttachMode, AutoAttachError, AutoAttachOptions, AutoEvent, Decision, Family, ModePreference,
    Selector, SkipReason,
};

fn named(names: &[&str]) -> Selector {
    let include = |selector: Selector, name: &&str| selector.include(*name);
    names.iter().fold(Selector::none(), include)
}

fn options() -> AutoAttachOptions {
    AutoAttachOptions::default()
}

#[test]
fn what_both_take_stays_and_the_rest_follows() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        veth("a0", "b0");
        veth("a1", "b1");
        let firewall = loaded(8);
        let auto = firewall.auto_attach(named(&["a0", "a1"])).unwrap();
        let mut events = auto.events();
        let before = firewall.attachments();
        let generic = ModePreference::Exactly(AttachMode::Generic);
        auto.select(named(&["a0", "b0", "b1"]), options().mode(generic))
            .unwrap();
        // It is all done when the call returns.
        assert_eq!(attached(&firewall), ["a0", "b0", "b1"]);
        let of = |all: &[xdpgate::Attachment], name: &str| {
            all.iter().find(|a| a.name == name).unwrap().clone()
        };
        let after = firewall.attachments();
        let (was, is) = (of(&before, "a0"), of(&after, "a0"));
        assert_eq!((was.link_id, was.mode), (is.link_id, is.mode));
        assert_eq!(of(&after, "b0").mode, AttachMode::Generic);
        // The stream is the one from before.
        let mut told = Vec::new();
        while let Ok(event) = events.next_timeout(Duration::from_millis(100)) {
            match event {
                AutoEvent::Attached { attachment, .. } => {
                    told.push(format!("+{}", attachment.name))
                }
                AutoEvent::Detached { attachment, .. } => {
                    told.push(format!("-{}", attachment.name))
                }
                _ => {}
            }
        }
        told.sort();
        assert_eq!(told, ["+b0", "+b1", "-a1"]);
        // From now on too.
        sh("ip link del a1");
        veth("a1", "b1");
        wait_until("the new one", || attached(&firewall) == ["a0", "b0", "b1"]);
        let stats = auto.stats();
        assert_eq!(stats.attached, 5, "{stats:?}");
        auto.stop();
        assert_eq!(attached(&firewall).len(), 3, "they stay");
    });
}

#[test]
fn what_was_detached_by_hand_stays_so() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        veth("a0", "b0");
        let firewall = loaded(8);
        let auto = firewall.auto_attach(named(&["a0"])).unwrap();
        firewall.detach(index("a0")).unwrap();
        auto.select(named(&["a0", "b0"]), options()).unwrap();
        assert_eq!(attached(&firewall), ["b0"]);
        let by_hand = Decision::Skip(SkipReason::DetachedByHand);
        assert_eq!(decision(&auto, "a0"), by_hand);
    });
}

/// What nobody asked for before is asked for of interfaces that are known already.
#[test]
fn drivers_and_addresses_are_found_out() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        veth("a0", "b0");
        sh("ip link add d0 type bridge");
        sh("ip link set d0 up");
        let firewall = loaded(8);
        let auto = firewall.auto_attach(Selector::none()).unwrap();
        let all = Selector::none().kinds(["veth", "bridge"]);
        auto.select(all.clone().drivers(["bridge"]), options())
            .unwrap();
        assert_eq!(attached(&firewall), ["d0"]);
        auto.select(Selector::none(), options()).unwrap();
        assert!(attached(&firewall).is_empty());
        sh("ip address add 192.0.2.1/24 dev a0");
        auto.select(all.family(Family::Ipv4), options()).unwrap();
        assert_eq!(attached(&firewall), ["a0"]);
        // The kernel is listened to for addresses by now.
        sh("ip address add 192.0.2.2/24 dev b0");
        wait_until("the address", || attached(&firewall) == ["a0", "b0"]);
    });
}

#[test]
fn on_error_all_is_as_it_was() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        veth("a0", "b0");
        let firewall = loaded(8);
        let auto = firewall.auto_attach(named(&["a0"])).unwrap();
        let refused = auto.select(named(&["b["]), options());
        assert!(
            matches!(refused, Err(AutoAttachError::Selector(_))),
            "{refused:?}"
        );
        assert_eq!(attached(&firewall), ["a0"]);
        // Whoever holds it longer than the firewall is told so.
        drop(firewall);
        let refused = auto.select(named(&["b0"]), options());
        assert!(
            matches!(refused, Err(AutoAttachError::Stopped)),
            "{refused:?}"
        );
    });
}

/// Many at once: each is answered, and one of them is what holds in the end.
#[test]
fn selections_take_turns() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        veth("a0", "b0");
        let firewall = loaded(8);
        let auto = firewall.auto_attach(named(&["a0"])).unwrap();
        std::thread::scope(|scope| {
            for name in ["a0", "b0", "a0", "b0"] {
                let auto = &auto;
                scope.spawn(move || {
                    for _ in 0..5 {
                        auto.select(named(&[name]), options()).unwrap();
                    }
                });
            }
        });
        assert_eq!(attached(&firewall).len(), 1);
        auto.select(named(&["b0"]), options()).unwrap();
        assert_eq!(attached(&firewall), ["b0"]);
    });
}
