//! Interfaces that lie on each other: where auto-attach attaches, and that no packet is judged twice.
//!
//! Kernels without a kind of link say so; the virtual machines of `tests/kernels` have all of them.
#![cfg(feature = "kernel")]

#[allow(dead_code, unreachable_pub, reason = "shared with other tests")]
mod common {
    pub mod auto;
    pub mod netns;
    pub mod packet;
}

use std::process::Command;
use std::thread;
use std::time::Duration;

use common::auto::{attached, decision, loaded, skipped_because};
use common::netns::{self, Wire, sh, veth, wait_until};
use common::packet::ip;
use xdpgate::{AttachMode, Decision, Firewall, Selector};

/// Frames that are sent in each topology.
const FRAMES: u64 = 50;

/// Makes a link, unless the kernel has no such kind: then it says so.
fn made(what: &str, command: &str) -> bool {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().unwrap())
        .args(words)
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    if error.contains("Unknown device type") || error.contains("not supported") {
        println!("skipped: no {what} in this kernel");
        return false;
    }
    assert!(output.status.success(), "{command}: {error}");
    true
}

/// A broadcast frame, so that all interfaces on the way take it; tagged if a VLAN is given.
fn broadcast(vlan: Option<u16>) -> Vec<u8> {
    let frame = ip("192.0.2.9", "192.0.2.255");
    let frame = match vlan {
        Some(id) => frame.tag(0x8100, id),
        None => frame,
    };
    let mut frame = frame.udp(1000, 2000).payload(&[0; 40]).build();
    frame[..6].fill(0xff);
    frame
}

/// What was judged so far: in all, and on each interface.
fn judged(firewall: &Firewall) -> (u64, Vec<(String, u64)>) {
    let stats = firewall.stats();
    let counts = stats
        .interfaces
        .iter()
        .map(|i| (i.name.clone(), i.counts.total().packets));
    let mut counts: Vec<(String, u64)> = counts.filter(|(_, packets)| *packets > 0).collect();
    let other = stats.other.total().packets;
    if other > 0 {
        counts.push(("other".to_owned(), other));
    }
    counts.sort();
    (counts.iter().map(|(_, packets)| packets).sum(), counts)
}

/// Lets a selector attach, sends frames, and says where they were judged. Each must be once.
fn once(selector: &Selector, wires: &[&Wire], vlan: Option<u16>) -> Vec<String> {
    let firewall = loaded(64);
    let auto = firewall.auto_attach(selector.clone()).unwrap();
    let failed = auto.interfaces().into_iter().find_map(|i| i.error);
    assert!(failed.is_none(), "{failed:?}");
    wait_for_carriers();
    // Attaching in native mode takes the carrier away for a moment, and what was sent by the kernel
    // meanwhile is not ours.
    let (before, _) = judged(&firewall);
    assert_eq!(before, 0, "nothing but the frames of the test");
    for _ in 0..FRAMES {
        for wire in wires {
            wire.send(&broadcast(vlan));
        }
    }
    let sent = FRAMES * wires.len() as u64;
    wait_until("the frames", || judged(&firewall).0 >= sent);
    thread::sleep(Duration::from_millis(50));
    let (total, counts) = judged(&firewall);
    assert_eq!(total, sent, "{selector:?}: {counts:?}");
    counts.into_iter().map(|(name, _)| name).collect()
}

fn wait_for_carriers() {
    wait_until("carriers", || !sh("ip link show up").contains("NO-CARRIER"));
}

fn named(names: &[&str]) -> Selector {
    let take = |selector: Selector, name: &&str| selector.include(*name);
    names.iter().fold(Selector::none(), take)
}

#[test]
fn r115_ports_and_not_the_bridge() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        veth("a0", "b0");
        veth("a1", "b1");
        sh("ip link add br0 type bridge forward_delay 0 mcast_snooping 0");
        for port in ["a0", "a1"] {
            sh(&format!("ip link set {port} master br0"));
        }
        sh("ip link set br0 up");
        let wires = ["b0", "b1"].map(Wire::open);
        let both = [&wires[0], &wires[1]];
        assert_eq!(once(&named(&["a?", "br0"]), &both, None), ["a0", "a1"]);
        assert_eq!(once(&named(&["br0"]), &both, None), ["br0"]);
        // The other port is not selected: its frames are not judged at all, rather than those of
        // the first one twice.
        assert_eq!(once(&named(&["a0", "br0"]), &[&wires[0]], None), ["a0"]);

        let firewall = loaded(64);
        let auto = firewall.auto_attach(named(&["a?", "br0"])).unwrap();
        assert_eq!(
            skipped_because(&auto, "br0"),
            "its packets are judged on a0, below it"
        );
        // A bridge that has no port any more judges for itself.
        sh("ip link set a0 nomaster");
        sh("ip link set a1 nomaster");
        wait_until("the bridge", || attached(&firewall) == ["a0", "a1", "br0"]);
        sh("ip link set a1 master br0");
        wait_until("the ports", || attached(&firewall) == ["a0", "a1"]);
        drop(auto);
    });
}

#[test]
fn r115_the_parent_and_not_its_macvlan() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        veth("a0", "b0");
        if !made("macvlan", "ip link add m0 link a0 type macvlan mode bridge") {
            return;
        }
        sh("ip link set m0 up");
        let wire = Wire::open("b0");
        assert_eq!(once(&named(&["a0", "m0"]), &[&wire], None), ["a0"]);
        assert_eq!(once(&named(&["m0"]), &[&wire], None), ["m0"]);
    });
}

#[test]
fn r115_the_parent_and_not_its_vlans() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        veth("a0", "b0");
        if !made("8021q", "ip link add a0.7 link a0 type vlan id 7") {
            return;
        }
        sh("ip link add a0.7.9 link a0.7 type vlan id 9");
        sh("ip link set a0.7 up");
        sh("ip link set a0.7.9 up");
        let wire = Wire::open("b0");
        assert_eq!(once(&named(&["a0*"]), &[&wire], Some(7)), ["a0"]);
        assert_eq!(once(&named(&["a0.7*"]), &[&wire], Some(7)), ["a0.7"]);
        assert_eq!(once(&named(&["a0", "a0.7.9"]), &[&wire], Some(7)), ["a0"]);
    });
}

#[test]
fn r115_members_and_not_the_bond() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        veth("a0", "b0");
        veth("a1", "b1");
        if !made(
            "bonding",
            "ip link add bo0 type bond mode balance-xor miimon 20",
        ) {
            return;
        }
        for member in ["a0", "a1"] {
            sh(&format!("ip link set {member} down"));
            sh(&format!("ip link set {member} master bo0"));
        }
        sh("ip link set bo0 up");
        let has_vlan = made("8021q", "ip link add bo0.7 link bo0 type vlan id 7");
        if has_vlan {
            sh("ip link set bo0.7 up");
        }
        let wires = ["b0", "b1"].map(Wire::open);
        let both = [&wires[0], &wires[1]];
        assert_eq!(once(&named(&["a?", "bo0"]), &both, None), ["a0", "a1"]);
        // Not all members are selected: the bond, so that no member is a hole, and none of them.
        assert_eq!(once(&named(&["a0", "bo0"]), &both, None), ["bo0"]);
        assert_eq!(once(&named(&["bo0"]), &both, None), ["bo0"]);
        if has_vlan {
            assert_eq!(once(&named(&["a?", "bo0*"]), &both, Some(7)), ["a0", "a1"]);
            assert_eq!(once(&named(&["bo0*"]), &both, Some(7)), ["bo0"]);
            assert_eq!(once(&named(&["bo0.7"]), &both, Some(7)), ["bo0.7"]);
        }
    });
}

#[test]
fn r115_a_tunnel_carries_other_packets() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        veth("a0", "b0");
        sh("ip address add 192.0.2.1/24 dev a0");
        if !made(
            "vxlan",
            "ip link add vx0 type vxlan id 5 dev a0 dstport 4789 local 192.0.2.1",
        ) {
            return;
        }
        sh("ip link set vx0 up");
        let firewall = loaded(64);
        let auto = firewall.auto_attach(named(&["a0", "vx0"])).unwrap();
        let wire = Wire::open("b0");
        let mut vxlan = vec![0x08, 0, 0, 0, 0, 0, 5, 0];
        vxlan.extend(broadcast(None));
        let outer = ip("192.0.2.2", "192.0.2.1")
            .udp(40000, 4789)
            .payload(&vxlan);
        let mut outer = outer.build();
        outer[..6].copy_from_slice(&hardware_address("a0"));
        let counts = || judged(&firewall).1;
        wire.send(&outer);
        // The kernel asks for the neighbour, and the like.
        wait_until("both", || counts().iter().any(|(name, _)| name == "vx0"));
        thread::sleep(Duration::from_millis(100));
        let on = |name: &str| counts().iter().find(|(n, _)| n == name).map_or(0, |c| c.1);
        let before = (on("a0"), on("vx0"));
        for _ in 0..FRAMES {
            wire.send(&outer);
        }
        wait_until("the frames", || on("vx0") >= before.1 + FRAMES);
        thread::sleep(Duration::from_millis(50));
        assert_eq!(
            (on("a0") - before.0, on("vx0") - before.1),
            (FRAMES, FRAMES)
        );
        drop(auto);
        drop(firewall);

        let firewall = loaded(64);
        let auto = firewall.auto_attach(Selector::all().include("a0")).unwrap();
        assert_eq!(attached(&firewall), ["a0"]);
        assert_eq!(
            skipped_because(&auto, "vx0"),
            "vxlan, which is only taken by name or kind"
        );
    });
}

fn hardware_address(name: &str) -> [u8; 6] {
    let shown = sh(&format!("ip link show {name}"));
    let address = shown.split("link/ether ").nth(1).expect("an address");
    let bytes: Vec<u8> = address[..17]
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect();
    bytes.try_into().unwrap()
}

#[test]
fn r54_every_type_is_attached_or_says_why_not() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        veth("a0", "b0");
        let links = [
            ("veth", "veth0", "ip link add veth0 type veth peer name p0"),
            ("bridge", "bridge0", "ip link add bridge0 type bridge"),
            (
                "macvlan",
                "macvlan0",
                "ip link add macvlan0 link b0 type macvlan",
            ),
            (
                "vxlan",
                "vxlan0",
                "ip link add vxlan0 type vxlan id 1 dstport 4789",
            ),
            ("tun", "tun0", "ip tuntap add tun0 mode tun"),
            ("tun", "tap0", "ip tuntap add tap0 mode tap"),
            ("vlan", "vlan0", "ip link add vlan0 link b0 type vlan id 7"),
            ("bond", "bond7", "ip link add bond7 type bond"),
        ];
        let links: Vec<_> = links
            .into_iter()
            .filter(|(kind, _, make)| made(kind, make))
            .collect();
        for (kind, name, _) in &links {
            let firewall = loaded(64);
            let auto = firewall.auto_attach(named(&[name])).unwrap();
            let entry = auto
                .interfaces()
                .into_iter()
                .find(|i| i.interface.name == *name);
            let entry = entry.unwrap();
            assert_eq!(entry.interface.kind.as_deref(), Some(*kind), "{name}");
            assert_eq!(entry.decision, Decision::Attach, "{name}");
            match (&entry.attachment, &entry.error) {
                (Some(attachment), None) => println!("{kind} {name}: {}", attachment.mode),
                (None, Some(error)) => println!("{kind} {name}: {error}"),
                other => panic!("{kind} {name}: {other:?}"),
            }
            assert!(
                entry.attachment.is_some(),
                "{name}: all of these can do generic mode"
            );
        }
        // Without a name, by class.
        let firewall = loaded(64);
        let auto = firewall.auto_attach(Selector::all()).unwrap();
        for (kind, name, _) in &links {
            let by_name = matches!(*kind, "veth" | "vxlan" | "tun");
            let expected = match by_name {
                true => Decision::Skip(xdpgate::SkipReason::ByNameOnly {
                    kind: (*kind).to_owned(),
                }),
                false => Decision::Attach,
            };
            assert_eq!(decision(&auto, name), expected, "{name}");
        }
        physical_in_guest();
    });
}

/// Only a virtual machine's own interfaces may be touched.
fn physical_in_guest() {
    if std::env::var_os("XDPGATE_GUEST").is_none() {
        println!("skipped: no hardware to attach; the virtual machines have some");
        return;
    }
    // From the namespace of the machine, which is that of the first process.
    let firewall = Firewall::loader()
        .namespace("/proc/1/ns/net")
        .load()
        .unwrap();
    let interfaces = firewall.interfaces().unwrap();
    let eth0 = interfaces.iter().find(|i| i.name == "eth0").expect("eth0");
    assert!(eth0.is_physical(), "{eth0:?}");
    assert_eq!(eth0.driver.as_deref(), Some("virtio_net"));
    let selector = Selector::physical().drivers(["virtio_net"]).exclude("eth1");
    let auto = firewall.auto_attach(selector).unwrap();
    assert_eq!(attached(&firewall), ["eth0"]);
    let attachment = &firewall.attachments()[0];
    println!("physical eth0: {}", attachment.mode);
    assert_eq!(attachment.mode, AttachMode::Native);
    assert_eq!(attachment.ifindex, firewall.ifindex("eth0").unwrap());
    drop(auto);
}
