//! What an attachment would come to, said before it; each finding is shown to be true, and the
//! command that goes with it to mend it.
#![cfg(feature = "kernel")]

#[allow(dead_code, unreachable_pub, reason = "shared with other tests")]
mod common {
    pub mod foreign;
    pub mod netns;
    pub mod packet;
}

use std::path::Path;
use std::process::{Child, Command};

use common::foreign::{Foreign, program_on};
use common::netns::{self, Wire, index, sh, veth, wait_until};
use common::packet;
use xdpgate::policy::Policy;
use xdpgate::{
    AttachError, AttachMode, Finding, FindingKind, Firewall, Frags, IfIndex, LoadError,
    ModePreference, Preflight, PreflightOptions, Severity, preflight,
};

const BEST: ModePreference = ModePreference::BestAvailable;

/// A firewall for frames in one buffer.
fn one_buffer() -> Firewall {
    Firewall::loader()
        .dry_run(false)
        .frags(Frags::Off)
        .load()
        .unwrap()
}

fn look(firewall: &Firewall, interface: &str) -> Preflight {
    firewall.preflight(index(interface), BEST).unwrap()
}

fn find(report: &Preflight, kind: FindingKind) -> Option<&Finding> {
    report.findings.iter().find(|finding| finding.kind == kind)
}

/// Attaches, and expects that to come out as was said before.
fn attach_as_expected(firewall: &Firewall, interface: &str) -> AttachMode {
    let expected = look(firewall, interface).expected_mode().unwrap();
    let attachment = firewall.attach(index(interface), BEST).unwrap();
    assert_eq!(attachment.mode, expected, "{:?}", attachment.fallbacks);
    firewall.detach(index(interface)).unwrap();
    attachment.mode
}

/// The finding blocks native mode; after its command it is gone, and native mode is to be had.
fn shown_and_mended(firewall: &Firewall, interface: &str, kind: FindingKind, command: &str) {
    let report = look(firewall, interface);
    let finding = find(&report, kind).unwrap_or_else(|| panic!("{report}"));
    assert_eq!(finding.severity, Severity::BlocksNative);
    assert_eq!(finding.mend.as_deref(), Some(command));
    assert!(report.to_string().contains(command), "{report}");
    assert_eq!(attach_as_expected(firewall, interface), AttachMode::Generic);

    sh(finding.mend.as_deref().unwrap());
    let report = look(firewall, interface);
    assert_eq!(find(&report, kind), None, "{report}");
    assert_eq!(attach_as_expected(firewall, interface), AttachMode::Native);
}

/// Whether a command that not every kernel can do was done.
fn can(command: &str) -> bool {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output();
    output.unwrap().status.success()
}

#[test]
fn r113_the_facts_are_those_of_the_device() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        veth("a0", "b0");
        sh("ip link set dev a0 mtu 1400");
        let report = preflight(index("a0"), PreflightOptions::default()).unwrap();
        let device = &report.device;
        assert_eq!(device.driver.as_deref(), Some("veth"));
        assert_eq!(device.kind.as_deref(), Some("veth"));
        assert_eq!(device.mtu, Some(1400));
        let peer = device.peer.as_ref().unwrap();
        assert_eq!(
            (peer.ifindex, peer.name.as_deref()),
            (index("b0"), Some("b0"))
        );
        assert_eq!((peer.namespace, peer.mtu), (None, Some(1500)));
        let lro = device.lro.unwrap();
        assert!(!lro.active && !lro.changeable, "as `ethtool -k` shows it");
        assert!(device.vlan_strip.unwrap().active);
        sh("ethtool -K a0 rxvlan off");
        let report = preflight(index("a0"), PreflightOptions::default()).unwrap();
        let strip = report.device.vlan_strip.unwrap();
        assert!(!strip.active && strip.changeable);
        // What is not known on this kernel is not there, rather than no.
        if let Some(xdp) = report.device.xdp {
            assert!(xdp.native && xdp.redirect && xdp.frags && !xdp.offload);
        }
        if let Some(channels) = report.device.channels {
            let text = sh("ethtool -l a0");
            let last = text.lines().rev().find_map(|line| line.strip_prefix("RX:"));
            assert_eq!(last.unwrap().trim(), channels.rx.to_string());
        }
    });
}

#[test]
fn r113_an_mtu_that_is_too_large_and_the_largest_that_is_not() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        veth("a0", "b0");
        let firewall = one_buffer();
        let mend = "ip link set dev b0 mtu 3506";
        for mtu in [9000, 3507] {
            sh(&format!("ip link set dev b0 mtu {mtu}"));
            shown_and_mended(&firewall, "a0", FindingKind::Mtu, mend);
        }
        // What this end sends does not matter.
        sh("ip link set dev a0 mtu 9000");
        assert_eq!(find(&look(&firewall, "a0"), FindingKind::Mtu), None);
        assert_eq!(attach_as_expected(&firewall, "a0"), AttachMode::Native);
    });
}

#[test]
fn r113_programs_that_take_frags_do_not_mind_the_mtu() {
    if netns::skipped() {
        return;
    }
    let firewall = match Firewall::loader().frags(Frags::Require).load() {
        Ok(firewall) => firewall,
        Err(LoadError::NoFrags) => {
            println!("skipped: xdp.frags needs 5.18");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    netns::run(|| {
        veth("a0", "b0");
        sh("ip link set dev b0 mtu 9000");
        let report = look(&firewall, "a0");
        assert!(report.frags);
        assert_eq!(find(&report, FindingKind::Mtu), None, "{report}");
        assert_eq!(attach_as_expected(&firewall, "a0"), AttachMode::Native);
    });
}

#[test]
fn r113_more_queues_there_than_here() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        let firewall = Firewall::loader().load().unwrap();
        sh("ip link add a0 numrxqueues 1 type veth peer name b0 numtxqueues 2");
        if !can("ethtool -L b0 tx 2") {
            println!("skipped: this kernel does not change or tell the queues of a veth");
            return;
        }
        let mend = "ethtool -L b0 tx 1";
        shown_and_mended(&firewall, "a0", FindingKind::Queues, mend);

        sh("ip link add a1 numrxqueues 2 type veth peer name b1 numtxqueues 2");
        sh("ethtool -L b1 tx 2");
        sh("ethtool -L a1 rx 1");
        let mend = "ethtool -L a1 rx 2";
        shown_and_mended(&firewall, "a1", FindingKind::Queues, mend);
    });
}

#[test]
fn r113_tags_beside_the_frame_are_not_seen_by_rules() {
    if netns::skipped() {
        return;
    }
    const TAGGED: &str = "
version: 1
failsafe: none
rules:
  - { id: tagged, match: { vlan: 5 }, action: drop }
";
    netns::run(|| {
        veth("a0", "b0");
        // The stack takes the tag off the frame that c0 receives; the bridge hands both to b0.
        veth("c0", "d0");
        if !can("ip link add br0 type bridge") {
            println!("skipped: this kernel has no bridge");
            return;
        }
        for command in ["c0 master br0", "b0 master br0", "br0 up"] {
            sh(&format!("ip link set {command}"));
        }
        let firewall = one_buffer();
        firewall.apply(&Policy::from_yaml(TAGGED).unwrap()).unwrap();
        let sender = Wire::open("d0");
        let tagged = packet::ip("192.0.2.9", "198.51.100.1").tag(0x8100, 5);
        let tagged = tagged.udp(1000, 2000).build();
        // Whether the rule matches what comes in.
        let is_seen = |mode: AttachMode| {
            let a0 = index("a0");
            firewall.attach(a0, ModePreference::Exactly(mode)).unwrap();
            let frames = || {
                let stats = firewall.stats();
                let of = stats.interfaces.iter().find(|i| i.ifindex == a0);
                let judged = of.map_or(0, |i| i.counts.total().packets);
                (judged, stats.rules[0].matched.packets)
            };
            let (judged, matched) = frames();
            wait_until("the frame", || {
                sender.send(&tagged);
                frames().0 > judged
            });
            firewall.detach(a0).unwrap();
            frames().1 > matched
        };
        let report = look(&firewall, "a0");
        let finding = find(&report, FindingKind::VlanTags).unwrap();
        assert_eq!(finding.severity, Severity::Degrades);
        assert_eq!(finding.mend.as_deref(), Some("ethtool -K b0 txvlan off"));
        assert!(!is_seen(AttachMode::Native));
        assert!(!is_seen(AttachMode::Generic));

        sh(finding.mend.as_deref().unwrap());
        assert_eq!(find(&look(&firewall, "a0"), FindingKind::VlanTags), None);
        assert!(is_seen(AttachMode::Native));
        assert!(is_seen(AttachMode::Generic));
    });
}

#[test]
fn r113_a_driver_without_native_mode() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        let firewall = Firewall::loader().load().unwrap();
        let report = look(&firewall, "lo");
        if report.device.xdp.is_none() {
            println!("skipped: what drivers can do is known since 6.3");
            return;
        }
        let finding = find(&report, FindingKind::NoNative).unwrap();
        assert_eq!(finding.severity, Severity::BlocksNative);
        assert_eq!(finding.mend, None);
        assert_eq!(attach_as_expected(&firewall, "lo"), AttachMode::Generic);
        let native = ModePreference::Exactly(AttachMode::Native);
        let report = firewall.preflight(index("lo"), native).unwrap();
        assert_eq!(report.expected_mode(), None);
        assert!(firewall.attach(index("lo"), native).is_err());
        // Who asks for generic mode is told nothing of native mode.
        let generic = ModePreference::Exactly(AttachMode::Generic);
        let report = firewall.preflight(index("lo"), generic).unwrap();
        assert_eq!(find(&report, FindingKind::NoNative), None);
        assert_eq!(report.expected_mode(), Some(AttachMode::Generic));
    });
}

/// A process in a network namespace of its own, which ends with this.
struct Elsewhere(Child);

impl Elsewhere {
    fn new() -> Self {
        let child = Command::new("unshare")
            .args(["--net", "sleep", "60"])
            .spawn()
            .unwrap();
        let elsewhere = Self(child);
        let own = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        wait_until("the namespace", || {
            std::fs::read_link(format!("/proc/{}/ns/net", elsewhere.0.id()))
                .is_ok_and(|there| there != own)
        });
        elsewhere
    }

    fn run(&self, command: &str) {
        sh(&format!("nsenter --net --target {} {command}", self.0.id()));
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn r113_the_other_end_may_be_in_another_namespace() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        let elsewhere = Elsewhere::new();
        veth("a0", "b0");
        sh(&format!("ip link set dev b0 netns {}", elsewhere.0.id()));
        elsewhere.run("ip link set dev b0 name inner mtu 9000 up");
        let firewall = one_buffer();
        let report = look(&firewall, "a0");
        let peer = report.device.peer.as_ref().unwrap();
        assert_eq!(peer.name.as_deref(), Some("inner"));
        assert_eq!((peer.mtu, peer.tx_queues), (Some(9000), None));
        let finding = find(&report, FindingKind::Mtu).unwrap();
        let id = peer.namespace.unwrap();
        let place = format!("in the network namespace with the id {id}");
        assert!(finding.message.contains(&place), "{finding}");
        assert_eq!(attach_as_expected(&firewall, "a0"), AttachMode::Generic);

        elsewhere.run(finding.mend.as_deref().unwrap());
        assert_eq!(find(&look(&firewall, "a0"), FindingKind::Mtu), None);
        assert_eq!(attach_as_expected(&firewall, "a0"), AttachMode::Native);
    });
}

#[test]
fn r113_the_command_names_the_namespace_of_the_other_end() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        // Names that only this thread sees.
        netns::mount_tmpfs(Path::new("/run"));
        for namespace in ["red", "blue"] {
            sh(&format!("ip netns add {namespace}"));
        }
        veth("a0", "b0");
        sh("ip link set dev b0 netns blue");
        sh("ip -n blue link set dev b0 mtu 9000 up");
        let firewall = one_buffer();
        let mend = "ip -n blue link set dev b0 mtu 3506";
        shown_and_mended(&firewall, "a0", FindingKind::Mtu, mend);
    });
}

#[test]
fn r113_r114_a_program_of_another_owner() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        veth("a0", "b0");
        let firewall = Firewall::loader().load().unwrap();
        let theirs = Foreign::load("theirs");
        theirs.attach("a0", AttachMode::Generic);
        let report = look(&firewall, "a0");
        let finding = &report.findings[0];
        assert_eq!(finding.kind, FindingKind::Occupied);
        assert_eq!(finding.severity, Severity::BlocksAttach);
        assert!(finding.message.contains("\"theirs\""), "{finding}");
        assert_eq!(report.expected_mode(), None);
        let error = firewall.attach(index("a0"), BEST).unwrap_err();
        assert!(matches!(error, AttachError::Foreign { .. }), "{error:?}");
        assert_eq!(program_on("a0"), theirs.id(), "looking changes nothing");

        sh(finding.mend.as_deref().unwrap());
        assert_eq!(find(&look(&firewall, "a0"), FindingKind::Occupied), None);
        firewall.attach(index("a0"), BEST).unwrap();
        // Its own program is no finding, but it is one for everybody else.
        assert_eq!(find(&look(&firewall, "a0"), FindingKind::Occupied), None);
        let report = preflight(index("a0"), PreflightOptions::default()).unwrap();
        assert!(find(&report, FindingKind::Occupied).is_some(), "{report}");
    });
}

#[test]
fn r113_an_interface_that_is_not_there() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        let nowhere = IfIndex::new(4711).unwrap();
        let error = preflight(nowhere, PreflightOptions::default()).unwrap_err();
        assert!(
            matches!(error, AttachError::NoSuchInterface(i) if i == nowhere),
            "{error:?}"
        );
        let firewall = Firewall::loader().load().unwrap();
        assert!(firewall.preflight(nowhere, BEST).is_err());
    });
}

/// The network card that `tests/kernels/run-kernel` gives to a guest, by its address.
fn card_of_the_guest() -> Option<&'static str> {
    let is_ours = std::env::var_os("XDPGATE_GUEST").is_some()
        && can("ip link show dev eth0")
        && sh("ip link show dev eth0").contains("02:00:00:00:00:10");
    is_ours.then_some("eth0")
}

#[test]
fn r113_virtio_net_in_a_guest() {
    if netns::skipped() {
        return;
    }
    let Some(card) = card_of_the_guest() else {
        println!("skipped: needs a guest of tests/kernels");
        return;
    };
    let firewall = one_buffer();
    sh(&format!("ip link set dev {card} mtu 9000"));
    let report = look(&firewall, card);
    println!("{report}");
    assert_eq!(report.device.driver.as_deref(), Some("virtio_net"));
    let kind = FindingKind::Mtu;
    let mend = "ip link set dev eth0 mtu 3506";
    let why = firewall.attach(index(card), BEST).unwrap().why().unwrap();
    assert!(why.contains(mend), "{why}");
    firewall.detach(index(card)).unwrap();
    shown_and_mended(&firewall, card, kind, mend);
    // Fewer queues than CPUs to send by are no hindrance on these kernels.
    let report = look(&firewall, card);
    let queues = find(&report, FindingKind::Queues).unwrap();
    assert_eq!(queues.severity, Severity::Degrades);

    if let Ok(firewall) = Firewall::loader().frags(Frags::Require).load()
        && report.device.xdp.is_some_and(|xdp| xdp.frags)
    {
        sh(&format!("ip link set dev {card} mtu 9000"));
        assert_eq!(find(&look(&firewall, card), kind), None);
        assert_eq!(attach_as_expected(&firewall, card), AttachMode::Native);
    }
    sh(&format!("ip link set dev {card} mtu 1500"));
}
