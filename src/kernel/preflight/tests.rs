//! Findings of devices that are not here, from their facts.

use super::*;
use crate::kernel::device::{Channels, OffloadState, Peer, XdpFeatures};
use crate::kernel::foreign::AttachedBy;

const ON: Option<OffloadState> = Some(OffloadState {
    active: true,
    changeable: true,
});
const FIXED_ON: Option<OffloadState> = Some(OffloadState {
    active: true,
    changeable: false,
});

/// A device on a kernel that tells the features of its driver.
fn device(driver: &str) -> DeviceFacts {
    DeviceFacts {
        driver: Some(driver.to_owned()),
        mtu: Some(1500),
        xdp: Some(XdpFeatures {
            native: true,
            redirect: true,
            ..XdpFeatures::default()
        }),
        cpus: Some(4),
        page_bytes: 4096,
        ..DeviceFacts::default()
    }
}

fn combined(combined: u32, max_combined: u32) -> Option<Channels> {
    Some(Channels {
        combined,
        max_combined,
        ..Channels::default()
    })
}

/// Kind, severity and command of each finding, for programs that take frames in one buffer.
fn of(device: &DeviceFacts) -> Vec<(FindingKind, Severity, Option<String>)> {
    of_form(device, false)
}

fn of_form(device: &DeviceFacts, frags: bool) -> Vec<(FindingKind, Severity, Option<String>)> {
    findings::of("eth0", device, frags)
        .into_iter()
        .map(|finding| (finding.kind, finding.severity, finding.mend))
        .collect()
}

fn command(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn r113_nothing_is_said_of_a_good_device_or_an_unknown_one() {
    for driver in ["mlx5_core", "ena", "virtio_net", "tun", "veth", "some"] {
        assert_eq!(of(&device(driver)), [], "{driver}");
    }
    assert_eq!(of(&DeviceFacts::default()), []);
}

#[test]
fn r113_the_mtu_by_driver() {
    use FindingKind::Mtu;
    use Severity::{BlocksNative, MayBlockNative};
    let with_mtu = |driver, mtu| DeviceFacts {
        mtu: Some(mtu),
        ..device(driver)
    };
    for (driver, most, with_9000) in [
        ("ena", 3498, BlocksNative),
        ("virtio_net", 3506, BlocksNative),
        ("ice", 3046, BlocksNative),
        ("some", 3498, MayBlockNative),
    ] {
        assert_eq!(of(&with_mtu(driver, most)), [], "{driver}");
        let mend = command(&format!("ip link set dev eth0 mtu {most}"));
        // It depends on the kernel.
        let expected = [(Mtu, MayBlockNative, mend.clone())];
        assert_eq!(of(&with_mtu(driver, most + 1)), expected, "{driver}");
        let expected = [(Mtu, with_9000, mend)];
        assert_eq!(of(&with_mtu(driver, 9000)), expected, "{driver}");
    }
    assert_eq!(of(&with_mtu("tun", 65_535)), []);
}

#[test]
fn r113_frags_help_where_the_driver_receives_them() {
    let jumbo = |frags: Option<bool>| {
        let mut device = DeviceFacts {
            mtu: Some(9000),
            ..device("virtio_net")
        };
        device.xdp = frags.map(|frags| XdpFeatures {
            frags,
            ..device.xdp.unwrap()
        });
        of_form(&device, true)
    };
    assert_eq!(jumbo(Some(true)), []);
    let [(kind, severity, _)] = jumbo(Some(false))[..] else {
        panic!("{:?}", jumbo(Some(false)))
    };
    assert_eq!((kind, severity), (FindingKind::Mtu, Severity::BlocksNative));
    // Before 6.3 nobody knows.
    assert_eq!(jumbo(None)[0].1, Severity::MayBlockNative);
}

#[test]
fn r113_queues_by_driver() {
    use FindingKind::Queues;
    use Severity::{BlocksNative, Degrades, Hint, MayBlockNative};
    let with = |driver, channels| DeviceFacts {
        channels,
        ..device(driver)
    };
    let ena = with("ena", combined(8, 8));
    let mend = command("ethtool -L eth0 combined 4");
    assert_eq!(of(&ena), [(Queues, MayBlockNative, mend.clone())]);
    // The driver takes the feature back: that is the reason, and not a lack of native mode.
    let refused = DeviceFacts {
        xdp: Some(XdpFeatures::default()),
        ..ena
    };
    assert_eq!(of(&refused), [(Queues, BlocksNative, mend)]);
    assert_eq!(of(&with("ena", combined(4, 8))), []);

    let virtio = with("virtio_net", combined(4, 6));
    let mend = command("ethtool -L eth0 combined 2");
    assert_eq!(of(&virtio), [(Queues, Degrades, mend)]);
    let small = with("virtio_net", combined(2, 4));
    assert_eq!(of(&small), [(Queues, Degrades, None)]);
    assert_eq!(of(&with("virtio_net", combined(2, 8))), []);

    let apart = Channels {
        rx: 4,
        tx: 4,
        max_rx: 8,
        max_tx: 8,
        max_combined: 8,
        ..Channels::default()
    };
    let mend = command("ethtool -L eth0 rx 0 tx 0 combined 4");
    assert_eq!(
        of(&with("bnxt_en", Some(apart))),
        [(Queues, BlocksNative, mend)]
    );
    assert_eq!(of(&with("some", Some(apart))), []);

    let mend = command("ethtool -L eth0 combined 4");
    assert_eq!(of(&with("some", combined(1, 16))), [(Queues, Hint, mend)]);
    assert_eq!(of(&with("some", combined(1, 1))), [], "nothing to be had");
}

#[test]
fn r113_offloads_by_driver() {
    use FindingKind::{GroHw, Lro, VlanTags};
    use Severity::{BlocksNative, Degrades, Hint, MayBlockNative};
    let lro = |driver, lro| {
        of(&DeviceFacts {
            lro,
            ..device(driver)
        })
    };
    let mend = command("ethtool -K eth0 lro off");
    assert_eq!(lro("mlx5_core", ON), [(Lro, BlocksNative, mend.clone())]);
    assert_eq!(lro("some", ON), [(Lro, MayBlockNative, mend)]);
    assert_eq!(lro("some", FIXED_ON), [(Lro, MayBlockNative, None)]);

    let gro = |driver, gro_hw, frags| {
        let device = DeviceFacts {
            gro_hw,
            ..device(driver)
        };
        of_form(&device, frags)
    };
    let mend = command("ethtool -K eth0 rx-gro-hw off");
    let expected = [(GroHw, BlocksNative, mend.clone())];
    assert_eq!(gro("mlx5_core", ON, false), expected);
    assert_eq!(gro("some", ON, false), [(GroHw, Hint, mend)]);
    // virtio_net switches it off by itself if the host lets it.
    assert_eq!(gro("virtio_net", ON, false), []);
    let expected = [(GroHw, BlocksNative, None)];
    assert_eq!(gro("virtio_net", FIXED_ON, false), expected);
    assert_eq!(gro("virtio_net", FIXED_ON, true), []);

    let strips = DeviceFacts {
        vlan_strip: ON,
        ..device("some")
    };
    let mend = command("ethtool -K eth0 rxvlan off");
    assert_eq!(of(&strips), [(VlanTags, Degrades, mend)]);
}

#[test]
fn r113_a_command_is_one_whatever_the_interface_is_called() {
    let device = DeviceFacts {
        mtu: Some(9000),
        ..device("ena")
    };
    let found = findings::of("$(reboot)", &device, false);
    let mend = command("ip link set dev '$(reboot)' mtu 3498");
    assert_eq!(found[0].mend, mend);
}

#[test]
fn r113_a_device_without_native_mode_is_not_bothered_with_its_needs() {
    let bridge = DeviceFacts {
        kind: Some("bridge".to_owned()),
        mtu: Some(9000),
        xdp: Some(XdpFeatures::default()),
        lro: ON,
        ..device("bridge")
    };
    let found = findings::of("br0", &bridge, false);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(
        found[0].to_string(),
        "blocks native mode: the driver \"bridge\" says that it has no native mode as it is \
         configured; the devices below it may have"
    );
}

#[test]
fn r113_the_expected_mode_and_the_order() {
    use AttachMode::{Generic, Native, Offload};
    let peer = Peer {
        ifindex: IfIndex::new(3).unwrap(),
        name: Some("b0".to_owned()),
        namespace: None,
        namespace_name: None,
        mtu: Some(9000),
        tx_queues: None,
        vlan_insert: ON,
    };
    let veth = DeviceFacts {
        peer: Some(peer),
        ..device("veth")
    };
    let look = |occupant: Option<&ForeignProgram>, preference| {
        let (ifindex, name) = (IfIndex::new(2).unwrap(), "a0".to_owned());
        assess(ifindex, name, veth.clone(), occupant, preference, false)
    };
    let theirs = ForeignProgram {
        id: 7,
        name: "theirs".to_owned(),
        mode: Some(Native),
        attached_by: AttachedBy::Netlink,
        pins: Vec::new(),
        holders: Vec::new(),
        removal: Some("remove it".to_owned()),
    };
    for (preference, expected) in [
        (ModePreference::BestAvailable, Some(Generic)),
        (ModePreference::Exactly(Native), None),
        (ModePreference::Exactly(Generic), Some(Generic)),
        (ModePreference::Exactly(Offload), None),
    ] {
        assert_eq!(look(None, preference).expected_mode(), expected);
        assert_eq!(look(Some(&theirs), preference).expected_mode(), None);
    }
    let report = look(Some(&theirs), ModePreference::BestAvailable);
    let kinds: Vec<FindingKind> = report.findings.iter().map(|f| f.kind).collect();
    use FindingKind::{Mtu, Occupied, VlanTags};
    assert_eq!(kinds, [Occupied, Mtu, VlanTags]);
    assert_eq!(
        report.to_string(),
        "a0: would not be attached\n  blocks: it runs the XDP program \"theirs\" (id 7, native \
         mode, attached by netlink); mend it with `remove it`\n  blocks native mode: b0, the other \
         end of a0, has an MTU of 9000, and frames in one buffer hold 3506 at the most; mend it \
         with `ip link set dev b0 mtu 3506`\n  degrades: b0, the other end, leaves the VLAN tag \
         beside the frame: rules that match on `vlan` do not see it, and others see the frame as \
         untagged; mend it with `ethtool -K b0 txvlan off`"
    );
}
