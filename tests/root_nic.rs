//! Network cards that are not veth: the pair eth0 and eth1 that a guest of `tests/kernels` has.
//!
//! Only there: on this machine they would be its own interfaces.
#![cfg(feature = "kernel")]

#[allow(dead_code, unreachable_pub, reason = "shared with other tests")]
mod common {
    pub mod netns;
    pub mod packet;
}

use std::fs;

use common::netns::{self, Wire, index, sh, wait_until};
use common::packet;
use xdpgate::policy::Policy;
use xdpgate::{AttachError, AttachMode, Firewall, Frags, ModePreference};

const POLICY: &str = "
version: 1
failsafe: none
rules:
  - { id: block, match: { protocol: udp, dport: 5001 }, action: drop }
";

/// The driver of eth0, in a guest; says that the test is skipped elsewhere.
fn driver() -> Option<String> {
    if netns::skipped() {
        return None;
    }
    let is_ours = std::env::var_os("XDPGATE_GUEST").is_some()
        && fs::read_to_string("/sys/class/net/eth0/address")
            .is_ok_and(|mac| mac.trim() == "02:00:00:00:00:10");
    if !is_ours {
        println!("skipped: needs a guest of tests/kernels that has a network card");
        return None;
    }
    let driver = fs::read_link("/sys/class/net/eth0/device/driver").expect("a driver");
    let name = driver.file_name().expect("a name");
    // virtio_net's device hangs below that of virtio, vmxnet3's is the PCI device itself.
    Some(name.to_string_lossy().into_owned())
}

/// The driver is this one, or the test is skipped.
fn is_driver(wanted: &str) -> bool {
    match driver() {
        Some(driver) if driver == wanted => true,
        Some(driver) => {
            println!("skipped: needs {wanted}, the card is of {driver}");
            false
        }
        None => false,
    }
}

fn firewall(frags: Frags) -> Firewall {
    let loader = Firewall::loader().dry_run(false).max_rules(64);
    let firewall = loader.frags(frags).load().unwrap();
    firewall.apply(&Policy::from_yaml(POLICY).unwrap()).unwrap();
    firewall
}

/// Both ends up, and seen by the kernel to be: what is sent before goes nowhere. Drivers also begin
/// anew when a program is attached.
fn up(mtu: usize) {
    for name in ["eth0", "eth1"] {
        let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1");
        sh(&format!("ip link set {name} mtu {mtu}"));
        // The emulated card drops what is not for its address, as real ones do.
        sh(&format!("ip link set {name} up promisc on"));
    }
    wait_until("carrier", || {
        ["eth0", "eth1"].iter().all(|name| {
            fs::read_to_string(format!("/sys/class/net/{name}/operstate"))
                .is_ok_and(|state| state.trim() == "up")
        })
    });
}

fn frame(port: u16, payload: &[u8]) -> Vec<u8> {
    packet::ip("192.0.2.1", "198.51.100.1")
        .udp(4000, port)
        .payload(payload)
        .build()
}

/// Frames from eth1 to eth0: one kind passes, the other does not, and each is counted once.
fn judges(firewall: &Firewall, payload: usize) {
    let (sender, receiver) = (Wire::open("eth1"), Wire::open("eth0"));
    let before = firewall.stats().rules[0].dropped;
    let mut blocked = 0;
    for number in 0..20 {
        let (bad, good) = (
            frame(5001, &vec![number; payload]),
            frame(5002, &vec![number; payload]),
        );
        let mut arrived = false;
        wait_until("a frame that passes", || {
            sender.send(&bad);
            sender.send(&good);
            blocked += 1;
            while let Some(came) = receiver.receive() {
                assert_ne!(came, bad, "it is blocked");
                arrived |= came == good;
            }
            arrived
        });
    }
    wait_until("all that is blocked is counted", || {
        firewall.stats().rules[0].dropped - before == blocked
    });
}

#[test]
fn native_and_generic_on_virtio_net() {
    if !is_driver("virtio_net") {
        return;
    }
    up(1500);
    let firewall = firewall(Frags::Auto);
    for mode in [AttachMode::Native, AttachMode::Generic] {
        let attachment = firewall
            .attach(index("eth0"), ModePreference::Exactly(mode))
            .unwrap();
        assert_eq!(attachment.mode, mode);
        up(1500);
        judges(&firewall, 100);
        firewall.detach(index("eth0")).unwrap();
    }
}

#[test]
fn r30_an_mtu_of_9000_on_virtio_net() {
    if !is_driver("virtio_net") {
        return;
    }
    up(9000);
    let native = ModePreference::Exactly(AttachMode::Native);
    let refused = firewall(Frags::Off).attach(index("eth0"), native);
    assert!(
        matches!(refused, Err(AttachError::ModeUnsupported { .. })),
        "{refused:?}"
    );
    let firewall = firewall(Frags::Auto);
    let mode = firewall
        .attach(index("eth0"), ModePreference::BestAvailable)
        .unwrap()
        .mode;
    up(9000);
    judges(&firewall, 8900);
    firewall.detach(index("eth0")).unwrap();
    up(1500);
    if mode != AttachMode::Native {
        println!("skipped: virtio_net has no native mode for frames in several buffers here");
    }
}

#[test]
fn r50_a_card_without_native_mode_falls_back() {
    if !is_driver("vmxnet3") {
        return;
    }
    up(1500);
    let firewall = firewall(Frags::Auto);
    let attachment = firewall
        .attach(index("eth0"), ModePreference::BestAvailable)
        .unwrap();
    up(1500);
    judges(&firewall, 100);
    if attachment.mode == AttachMode::Native {
        println!("skipped: vmxnet3 has native mode here");
        return;
    }
    assert_eq!(attachment.mode, AttachMode::Generic);
    let fallback = &attachment.fallbacks[0];
    assert_eq!(
        (fallback.from, fallback.errno),
        (AttachMode::Native, nix::libc::EOPNOTSUPP)
    );
    let native = ModePreference::Exactly(AttachMode::Native);
    firewall.detach(index("eth0")).unwrap();
    let refused = firewall.attach(index("eth0"), native).unwrap_err();
    assert!(
        matches!(refused, AttachError::ModeUnsupported { .. }),
        "{refused:?}"
    );
}
