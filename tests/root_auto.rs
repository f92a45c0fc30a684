//! Interfaces that are attached as they appear, in namespaces of their own.
#![cfg(feature = "kernel")]

#[allow(dead_code, unreachable_pub, reason = "shared with other tests")]
mod common {
    pub mod auto;
    pub mod netns;
    pub mod packet;
}

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::auto::{attached, decision, loaded, program, skipped_because, wait_for_links};
use common::netns::{self, Other, Wire, index, sh, veth, wait_until};
use common::packet::udp_from as frame;
use xdpgate::policy::Policy;
use xdpgate::{
    AttachError, AutoAttachError, AutoAttachOptions, AutoEvent, Decision, DetachReason, Firewall,
    IfIndex, ModePreference, Selector, SkipReason,
};

/// How soon everything must be in line (row 52).
const SOON: Duration = Duration::from_secs(1);

fn veths() -> Selector {
    Selector::none().kinds(["veth"])
}

fn frames_on(firewall: &Firewall, ifindex: IfIndex) -> u64 {
    let stats = firewall.stats();
    let of = stats.interfaces.iter().find(|i| i.ifindex == ifindex);
    of.map_or(0, |i| i.counts.total().packets)
}

#[test]
fn what_was_detached_by_hand_is_left_alone() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        veth("a0", "b0");
        let firewall = loaded(8);
        let options = AutoAttachOptions::default().rescan_every(Duration::from_millis(100));
        let auto = firewall
            .auto_attach_with(veths().exclude("b*"), options)
            .unwrap();
        let by_hand = firewall.detach(index("a0")).unwrap();
        assert_eq!(by_hand.name, "a0");
        let rescans = auto.stats().rescans;
        sh("ip link set a0 mtu 1400");
        wait_until("two more scans", || auto.stats().rescans > rescans + 1);
        assert_eq!(
            decision(&auto, "a0"),
            Decision::Skip(SkipReason::DetachedByHand)
        );
        assert!(attached(&firewall).is_empty());
        firewall
            .attach(index("a0"), ModePreference::BestAvailable)
            .unwrap();
        wait_until("it to be selected again", || {
            decision(&auto, "a0") == Decision::Attach
        });
        // Another interface with its name, or number, is another one.
        firewall.detach(index("a0")).unwrap();
        let number = index("a0");
        sh("ip link del a0");
        wait_until("its end", || auto.interfaces().len() == 1);
        sh(&format!(
            "ip link add a0 index {number} type veth peer name b0"
        ));
        wait_until("the new one", || attached(&firewall) == ["a0"]);
    });
}

#[test]
fn r51_all_that_are_there_are_attached_and_listed() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        for n in 0..5 {
            veth(&format!("a{n}"), &format!("b{n}"));
        }
        let firewall = loaded(64);
        let auto = firewall.auto_attach(veths().exclude("b*")).unwrap();
        assert_eq!(attached(&firewall), ["a0", "a1", "a2", "a3", "a4"]);
        let listed = auto.interfaces();
        assert_eq!(listed.len(), 11, "lo and five pairs");
        for entry in &listed {
            let name = entry.interface.name.as_str();
            assert_eq!(entry.attachment.is_some(), name.starts_with('a'), "{name}");
            assert_eq!(entry.interface.ifindex, index(name));
            assert!(entry.interface.up);
            assert!(entry.error.is_none());
        }
        assert_eq!(decision(&auto, "lo"), Decision::Skip(SkipReason::Loopback));
        let by_name = SkipReason::ExcludedName {
            pattern: "b*".to_owned(),
        };
        assert_eq!(decision(&auto, "b0"), Decision::Skip(by_name));
        let stats = auto.stats();
        assert_eq!((stats.attached, stats.failed, stats.rescans), (5, 0, 1));

        let twice = firewall.auto_attach(Selector::all());
        assert!(matches!(twice, Err(AutoAttachError::Running)), "{twice:?}");
        auto.stop();
        assert_eq!(attached(&firewall).len(), 5, "they stay");
        // What auto-attach made may go with another selector.
        let auto = firewall.auto_attach(veths().exclude("b*").exclude("a4"));
        assert_eq!(attached(&firewall), ["a0", "a1", "a2", "a3"]);
        let program = program(&firewall);
        drop(firewall);
        wait_for_links(program, 0);
        drop(auto);
    });
}

#[test]
fn r52_interfaces_come_change_and_go() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        let firewall = loaded(64);
        let auto = firewall.auto_attach(veths().exclude("b*")).unwrap();
        let mut events = auto.events();
        let other = Other::new();
        let converges = |what: &str, names: &[&str]| {
            let start = Instant::now();
            wait_until(what, || attached(&firewall) == names);
            assert!(start.elapsed() < SOON, "{what}: {:?}", start.elapsed());
        };

        veth("a0", "b0");
        converges("created", &["a0"]);
        let a0 = index("a0");
        let wire = Wire::open("b0");
        wire.send(&frame("192.0.2.1"));
        wait_until("a frame", || frames_on(&firewall, a0) == 1);

        for _ in 0..3 {
            sh("ip link set a0 down");
            sh("ip link set a0 up");
        }
        converges("flapped", &["a0"]);

        sh("ip link set a0 down");
        sh("ip link set a0 name a7");
        converges("renamed", &["a7"]);
        sh("ip link set a7 up");
        let stats = firewall.stats();
        let counted = &stats.interfaces[0];
        assert_eq!((counted.ifindex, counted.name.as_str()), (a0, "a7"));
        assert_eq!(counted.counts.total().packets, 1, "it keeps its counters");

        sh(&format!("ip link set a7 netns {}", other.number()));
        converges("moved away", &[]);
        wait_for_links(program(&firewall), 0);
        other.run(|| {
            let link = sh("ip -d link show a7");
            assert!(!link.contains("prog/xdp"), "{link}");
        });

        veth("a1", "b1");
        converges("another one", &["a1"]);
        sh("ip link del a1");
        converges("deleted", &[]);

        // The number of one that was attached goes to another interface.
        veth("a2", "b2");
        converges("one more", &["a2"]);
        let a2 = index("a2");
        sh("ip link del a2");
        sh(&format!("ip link add a3 index {a2} type veth peer name b3"));
        converges("the number again", &["a3"]);
        assert_eq!(index("a3"), a2);
        wait_for_links(program(&firewall), 1);

        other.run(|| veth("a4", "b4"));
        sh("ip link del b3");
        converges("deleted by its peer", &[]);
        let here = nix::unistd::gettid();
        other.run(move || sh(&format!("ip link set a4 netns {here}")));
        converges("moved here", &["a4"]);

        let mut seen = Vec::new();
        while let Ok(event) = events.next_timeout(Duration::from_millis(200)) {
            seen.push(match event {
                AutoEvent::Attached { attachment, .. } => format!("+{}", attachment.name),
                AutoEvent::Detached { attachment, why } => {
                    assert_eq!(why, DetachReason::Gone);
                    format!("-{}", attachment.name)
                }
                AutoEvent::Renamed { from, to, .. } => format!("{from}>{to}"),
                AutoEvent::Skipped { interface, .. } => {
                    assert!(interface.starts_with('b'), "{interface}");
                    continue;
                }
                other => panic!("{other:?}"),
            });
        }
        let expected = [
            "+a0", "a0>a7", "-a7", "+a1", "-a1", "+a2", "-a2", "+a3", "-a3", "+a4",
        ];
        assert_eq!(seen, expected);
        drop(auto);
        assert!(events.next().is_none(), "the stream ends with the watching");
    });
}

#[test]
fn r52_traffic_meets_the_filter_from_the_first_packet_on() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        let firewall = loaded(64);
        let auto = firewall.auto_attach(veths().exclude("b*")).unwrap();
        let mut late = Vec::new();
        for round in 0..20 {
            let (a, b) = (format!("a{round}"), format!("b{round}"));
            sh(&format!("ip link add {a} type veth peer name {b}"));
            sh(&format!("ip link set {b} up"));
            let stop = AtomicBool::new(false);
            thread::scope(|scope| {
                scope.spawn(|| {
                    let wire = Wire::open(&b);
                    while !stop.load(Ordering::Relaxed) {
                        wire.send_if_up(&frame("192.0.2.1"));
                    }
                });
                sh(&format!("ip link set {a} up"));
                let ifindex = index(&a);
                wait_until("frames", || frames_on(&firewall, ifindex) > 100);
                stop.store(true, Ordering::Relaxed);
            });
            let ifindex = index(&a);
            // What is on its way in the veth when its sender stops.
            thread::sleep(Duration::from_millis(20));
            let (judged, came) = (frames_on(&firewall, ifindex), received(&a));
            if judged != came {
                late.push(came - judged);
            }
            sh(&format!("ip link del {a}"));
        }
        // Nothing holds an interface back until the filter is there. It takes half a millisecond from
        // its creation, unless other processes take the processors just then.
        println!("interfaces that were up before they were attached, by frames: {late:?}");
        assert!(late.len() < 5, "{late:?}");
        drop(auto);
    });
}

/// What the device says that it received.
fn received(name: &str) -> u64 {
    let shown = sh(&format!("ip -s link show {name}"));
    let after = shown.split("RX:").nth(1).expect("RX:");
    let numbers = after.lines().nth(1).expect("numbers");
    numbers.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn r53_names_kinds_drivers_and_masters() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        for pair in ["0", "1", "2"] {
            veth(&format!("a{pair}"), &format!("b{pair}"));
        }
        sh("ip link add br0 type bridge");
        sh("ip link set a1 master br0");
        sh("ip link add m0 link b2 type macvlan");
        sh("ip link set b1 down");
        let cases = [
            (Selector::none().include("a?"), vec!["a0", "a1", "a2"]),
            (
                Selector::none().include("{a0,b[01]}"),
                vec!["a0", "b0", "b1"],
            ),
            (veths().exclude("b*").exclude("a1"), vec!["a0", "a2"]),
            (
                Selector::none().include("*").exclude_kinds(["veth"]),
                vec!["br0", "m0"],
            ),
            (Selector::none().kinds(["macvlan"]), vec!["m0"]),
            (
                Selector::none().include("*").drivers(["bridge"]),
                vec!["br0"],
            ),
            (veths().master("br*"), vec!["a1"]),
            (
                veths().include("b1").exclude("a*").only_up(true),
                vec!["b0", "b2"],
            ),
            (Selector::physical(), vec![]),
            (Selector::all(), vec!["br0", "m0"]),
            (Selector::none().include("lo"), vec!["lo"]),
            (Selector::none().include("l*"), vec![]),
        ];
        for (selector, names) in cases {
            let firewall = loaded(64);
            let auto = firewall.auto_attach(selector.clone()).unwrap();
            assert_eq!(attached(&firewall), names, "{selector:?}");
            drop(auto);
        }
        let refused = loaded(1).auto_attach(Selector::none().include("a["));
        let message = refused.unwrap_err().to_string();
        assert!(
            message.starts_with("\"a[\" is not a pattern for names"),
            "{message}"
        );
    });
}

#[test]
fn r53_an_interface_waits_until_it_is_up_or_has_an_address() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        sh("ip link add a0 type veth peer name b0");
        let firewall = loaded(64);
        let selector = Selector::none().include("a0");
        let auto = firewall
            .auto_attach(selector.clone().only_up(true))
            .unwrap();
        assert_eq!(decision(&auto, "a0"), Decision::Skip(SkipReason::Down));
        sh("ip link set a0 up");
        wait_until("attached", || attached(&firewall) == ["a0"]);
        sh("ip link set a0 down");
        sh("ip link set a0 mtu 1400");
        wait_until("the news", || {
            auto.interfaces().iter().any(|i| i.interface.mtu == 1400)
        });
        assert_eq!(attached(&firewall), ["a0"], "ready for when it comes back");
        drop(auto);
        firewall.detach(index("a0")).unwrap();

        let auto = firewall
            .auto_attach(selector.family(xdpgate::Family::Ipv4))
            .unwrap();
        assert_eq!(skipped_because(&auto, "a0"), "no IPv4 address yet",);
        sh("ip address add 192.0.2.1/24 dev a0");
        wait_until("attached", || attached(&firewall) == ["a0"]);
        drop(auto);
    });
}

#[test]
fn r55_leaving_a_bridge_does_not_detach() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        veth("a0", "b0");
        sh("ip link add br0 type bridge");
        sh("ip link set br0 up");
        sh("ip link set a0 master br0");
        let firewall = loaded(64);
        let auto = firewall.auto_attach(veths().exclude("b*")).unwrap();
        let before = firewall.attachments();
        let mut events = auto.events();
        let told = auto.stats().messages;
        for _ in 0..5 {
            sh("ip link set a0 nomaster");
            sh("ip link set a0 master br0");
        }
        sh("ip link set a0 nomaster");
        wait_until("the news", || auto.stats().messages >= told + 11);
        thread::sleep(Duration::from_millis(100));
        assert_eq!(firewall.attachments(), before, "the very same link");
        let event = events.next_timeout(Duration::from_millis(10));
        assert!(event.is_err(), "{event:?}");
        wait_for_links(program(&firewall), 1);
    });
}

#[test]
fn r56_lost_messages_lead_to_a_look_at_everything() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        let firewall = loaded(200);
        // The least that the kernel gives: one message, or none.
        let options = AutoAttachOptions::default()
            .receive_buffer(1)
            .rescan_every(Duration::from_secs(3600));
        let auto = firewall
            .auto_attach_with(veths().exclude("b*"), options)
            .unwrap();
        let mut events = auto.events();
        let mut batch = String::new();
        for n in 0..100 {
            batch += &format!("link add a{n} type veth peer name b{n}\n");
        }
        for n in 0..100 {
            batch += &format!("link set a{n} up\nlink set a{n} down\n");
            if n % 3 == 0 {
                batch += &format!("link del a{n}\n");
            }
        }
        common::auto::ip_batch(&batch);
        wait_until("all in line", || attached(&firewall).len() == 66);
        assert!(auto.stats().overruns > 0, "{:?}", auto.stats());
        assert!(auto.stats().rescans > 1, "{:?}", auto.stats());
        wait_for_links(program(&firewall), 66);
        let mut resynced = false;
        while let Ok(event) = events.next_timeout(Duration::from_millis(100)) {
            resynced |= matches!(event, AutoEvent::Resynced { .. });
        }
        assert!(resynced);
        // And it goes on.
        veth("a500", "b500");
        wait_until("one more", || attached(&firewall).len() == 67);
    });
}

#[test]
fn r57_a_foreign_program_on_one_is_left_and_the_others_are_attached() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        for n in 0..3 {
            veth(&format!("a{n}"), &format!("b{n}"));
        }
        let other = loaded(1);
        other
            .attach(index("a1"), ModePreference::BestAvailable)
            .unwrap();
        let firewall = loaded(64);
        let options = AutoAttachOptions::default().rescan_every(Duration::from_millis(200));
        let auto = firewall
            .auto_attach_with(veths().exclude("b*"), options)
            .unwrap();
        assert_eq!(attached(&firewall), ["a0", "a2"]);
        let entry = auto
            .interfaces()
            .into_iter()
            .find(|i| i.interface.name == "a1");
        let error = entry.unwrap().error.expect("an error");
        assert!(matches!(*error, AttachError::Foreign { .. }), "{error}");
        assert_eq!(attached(&other), ["a1"]);
        // It is tried again when it is time.
        drop(other);
        wait_until("the third", || attached(&firewall) == ["a0", "a1", "a2"]);
    });
}

#[test]
fn what_somebody_else_detached_is_attached_again() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        veth("a0", "b0");
        let firewall = loaded(64);
        let options = AutoAttachOptions::default().rescan_every(Duration::from_millis(200));
        let auto = firewall
            .auto_attach_with(veths().exclude("b*"), options)
            .unwrap();
        let mut events = auto.events();
        let before = firewall.attachments()[0].link_id;
        common::auto::detach_link(before);
        let is_new = |a: &xdpgate::Attachment| a.link_id != before;
        wait_until("a new link", || {
            firewall.attachments().first().is_some_and(is_new)
        });
        // Who looked first, the scan or `attachments`, says whether the end was an event.
        let is_attached = |event: AutoEvent| matches!(event, AutoEvent::Attached { .. });
        while !is_attached(events.next_timeout(SOON).expect("an event")) {}
        assert!(sh("ip link show a0").contains("prog/xdp"));
        wait_for_links(program(&firewall), 1);
    });
}

#[test]
fn what_was_attached_by_hand_stays() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        veth("a0", "b0");
        veth("a1", "b1");
        let firewall = loaded(64);
        let by_hand = firewall
            .attach(index("b0"), ModePreference::BestAvailable)
            .unwrap();
        let auto = firewall.auto_attach(veths().exclude("b*")).unwrap();
        assert_eq!(attached(&firewall), ["a0", "a1", "b0"]);
        sh("ip link set b0 down");
        sh("ip link set b0 name b9");
        wait_until("the new name", || attached(&firewall) == ["a0", "a1", "b9"]);
        let same =
            |a: &xdpgate::Attachment| (a.link_id, a.name.as_str()) == (by_hand.link_id, "b9");
        assert!(firewall.attachments().iter().any(same));
        drop(auto);
        let auto = firewall.auto_attach(Selector::none()).unwrap();
        assert_eq!(
            attached(&firewall),
            ["b9"],
            "only what auto-attach made goes"
        );
        assert!(auto.interfaces().iter().any(|i| i.attachment.is_some()));
        drop(auto);
    });
}

#[test]
fn a_renamed_interface_is_in_the_scopes_of_its_new_name() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        veth("lan0", "b0");
        let firewall = loaded(64);
        let policy = Policy::from_yaml(
            "
version: 1
failsafe: none
rules:
  - { id: wan, interfaces: [\"wan*\"], match: { src: 192.0.2.0/24 }, action: drop }
",
        );
        firewall.apply(&policy.unwrap()).unwrap();
        let auto = firewall.auto_attach(veths().exclude("b0")).unwrap();
        let wire = Wire::open("b0");
        let lan0 = index("lan0");
        wire.send(&frame("192.0.2.1"));
        wait_until("a frame", || frames_on(&firewall, lan0) == 1);
        assert_eq!(firewall.stats().rules[0].matched.packets, 0);

        sh("ip link set lan0 down");
        sh("ip link set lan0 name wan0");
        sh("ip link set wan0 up");
        wait_until("the new name", || attached(&firewall) == ["wan0"]);
        wait_until("carrier", || sh("ip link show wan0").contains("state UP"));
        wire.send(&frame("192.0.2.1"));
        wait_until("a frame", || frames_on(&firewall, lan0) == 2);
        assert_eq!(firewall.stats().rules[0].matched.packets, 1);
        drop(auto);
    });
}

#[test]
fn a_port_of_a_bridge_is_left_to_its_bridge() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        veth("a0", "b0");
        veth("a1", "b1");
        let firewall = Firewall::loader().fast_forward(true).load().unwrap();
        let auto = firewall.auto_attach(veths().exclude("b*")).unwrap();
        let bridge = xdpgate::Bridge::new(index("a0"), index("a1"));
        firewall.bridge(bridge).unwrap();
        drop(auto);
        let auto = firewall.auto_attach(Selector::none()).unwrap();
        assert_eq!(attached(&firewall), ["a0", "a1"], "the bridge needs them");
        assert_eq!(firewall.bridges().len(), 1);
        drop(auto);
        firewall.unbridge(index("a0")).unwrap();
        assert_eq!(attached(&firewall), ["a0", "a1"], "as before the bridge");
        let auto = firewall.auto_attach(Selector::none()).unwrap();
        assert_eq!(attached(&firewall), [""; 0]);
        drop(auto);
    });
}
