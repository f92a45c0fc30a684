//! From facts to findings: pure, so that devices that are not here can be reasoned about.

use super::finding::{Finding, FindingKind, Severity};
use super::limits;
use crate::kernel::device::{DeviceFacts, OffloadState, Peer};
use crate::kernel::foreign::ForeignProgram;
use crate::kernel::shell::word;

/// All findings about the device, for programs that take frames in several buffers or do not.
pub(in crate::kernel) fn of(name: &str, device: &DeviceFacts, frags: bool) -> Vec<Finding> {
    let queues = queues(name, device);
    // Some drivers take the feature back while another finding holds, which is then the reason.
    let is_explained = queues
        .iter()
        .any(|finding| finding.severity.is_of_native_mode());
    let native = match is_explained {
        true => None,
        false => no_native(device),
    };
    let is_native = native.is_none();
    let mut findings = queues;
    findings.extend(native);
    if is_native {
        findings.extend(mtu(name, device, frags));
        findings.extend(lro(name, device));
        findings.extend(gro_hw(name, device, frags));
    }
    findings.extend(one_queue(name, device));
    findings.extend(vlan_tags(name, device));
    findings.extend(offload(device));
    findings
}

/// Another program in the place of ours.
pub(super) fn occupied(program: &ForeignProgram) -> Finding {
    Finding {
        kind: FindingKind::Occupied,
        severity: Severity::BlocksAttach,
        message: format!("it runs {program}"),
        mend: program.removal.clone(),
    }
}

fn finding(
    kind: FindingKind,
    severity: Severity,
    message: String,
    mend: Option<String>,
) -> Finding {
    Finding {
        kind,
        severity,
        message,
        mend,
    }
}

fn driver(device: &DeviceFacts) -> Option<&str> {
    device.driver.as_deref()
}

fn no_native(device: &DeviceFacts) -> Option<Finding> {
    if device.xdp?.native {
        return None;
    }
    let who = match driver(device) {
        Some(driver) => format!("the driver {driver:?}"),
        None => "the device".to_owned(),
    };
    let instead = match device.kind.as_deref() {
        Some("bridge" | "bond" | "team" | "vlan" | "macvlan" | "ipvlan") => {
            "; the devices below it may have"
        }
        _ => "",
    };
    Some(finding(
        FindingKind::NoNative,
        Severity::BlocksNative,
        format!("{who} says that it has no native mode as it is configured{instead}"),
        None,
    ))
}

fn mtu(name: &str, device: &DeviceFacts, frags: bool) -> Option<Finding> {
    if let Some(peer) = &device.peer {
        return peer_mtu(name, peer, device.page_bytes, frags);
    }
    let receives_frags = device.xdp.map(|xdp| xdp.frags);
    if driver(device) == Some("veth") || frags && receives_frags == Some(true) {
        return None;
    }
    let mtu = device.mtu?;
    let limit = limits::one_buffer(driver(device), device.page_bytes)?;
    if mtu <= limit.mtu {
        return None;
    }
    let why = match (frags, receives_frags) {
        (false, _) => "the programs take frames in one buffer only",
        (true, Some(_)) => "the driver receives into one buffer only",
        (true, None) => {
            "this kernel does not say whether the driver receives into several buffers (6.3 does)"
        }
    };
    let is_refused = limit.refused_above.is_some_and(|most| mtu > most);
    let is_sure = is_refused && (!frags || receives_frags.is_some());
    let severity = match is_sure {
        true => Severity::BlocksNative,
        false => Severity::MayBlockNative,
    };
    let about = match limit.refused_above {
        Some(_) => "",
        None => "about ",
    };
    Some(finding(
        FindingKind::Mtu,
        severity,
        format!(
            "the MTU is {mtu}; {why}, and one holds up to {about}{} of MTU",
            limit.mtu
        ),
        Some(format!("ip link set dev {} mtu {}", word(name), limit.mtu)),
    ))
}

/// `veth_xdp_set`, `drivers/net/veth.c`: what counts is what the other end may send.
fn peer_mtu(name: &str, peer: &Peer, page: u32, frags: bool) -> Option<Finding> {
    let (mtu, most) = (peer.mtu?, limits::veth(page, frags));
    if mtu <= most {
        return None;
    }
    let other = peer.name.as_deref()?;
    let place = place(peer);
    Some(finding(
        FindingKind::Mtu,
        Severity::BlocksNative,
        format!(
            "{other}, the other end of {name}{place}, has an MTU of {mtu}, and frames in one \
             buffer hold {most} at the most"
        ),
        Some(match &peer.namespace_name {
            Some(namespace) => format!(
                "ip -n {namespace} link set dev {other} mtu {most}",
                other = word(other),
                namespace = word(namespace)
            ),
            None => format!("ip link set dev {other} mtu {most}", other = word(other)),
        }),
    ))
}

/// In which other namespace a peer is, in words.
fn place(peer: &Peer) -> String {
    match (&peer.namespace_name, peer.namespace) {
        (Some(name), _) => format!(" in the network namespace {name:?}"),
        (None, None) => String::new(),
        (None, Some(id)) => format!(
            " in the network namespace with the id {id} of `ip netns list-id`, where the command \
             is to be run"
        ),
    }
}

fn queues(name: &str, device: &DeviceFacts) -> Vec<Finding> {
    let found = match (driver(device), &device.peer) {
        (_, Some(peer)) => veth_queues(name, device, peer),
        (Some("ena"), _) => ena_queues(name, device),
        (Some("virtio_net"), _) => virtio_queues(name, device),
        (Some("bnxt_en"), _) => bnxt_queues(name, device),
        _ => None,
    };
    found.into_iter().collect()
}

/// `veth_xdp_set`: ENOSPC if the other end sends by more queues than this one receives by.
fn veth_queues(name: &str, device: &DeviceFacts, peer: &Peer) -> Option<Finding> {
    let channels = device.channels?;
    let (receives, sends) = (channels.rx + channels.combined, peer.tx_queues?);
    if sends <= receives {
        return None;
    }
    let other = peer.name.as_deref()?;
    let mend = match channels.max_rx + channels.max_combined >= sends {
        true => format!("ethtool -L {name} rx {sends}", name = word(name)),
        false => format!("ethtool -L {other} tx {receives}", other = word(other)),
    };
    Some(finding(
        FindingKind::Queues,
        Severity::BlocksNative,
        format!(
            "{other}, the other end, sends by {sends} queues, more than the {receives} that \
             {name} receives by"
        ),
        Some(mend),
    ))
}

/// `ena_xdp_legal_queue_count`, `drivers/net/ethernet/amazon/ena/ena_xdp.h`: each queue needs
/// another one to send by. The driver that Amazon offers apart has done without since 2.17.
fn ena_queues(name: &str, device: &DeviceFacts) -> Option<Finding> {
    let channels = device.channels?;
    let (used, most) = (channels.combined, channels.max_combined / 2);
    if used <= most || most == 0 {
        return None;
    }
    Some(finding(
        FindingKind::Queues,
        match device.xdp {
            Some(xdp) if !xdp.native => Severity::BlocksNative,
            _ => Severity::MayBlockNative,
        },
        format!(
            "{used} of {} queues are in use, and the driver \"ena\" needs as many again to send by",
            channels.max_combined
        ),
        Some(format!(
            "ethtool -L {name} combined {most}",
            name = word(name)
        )),
    ))
}

/// `virtnet_xdp_set`, `drivers/net/virtio_net.c`: a queue to send by for each CPU. Since 5.13 the
/// CPUs share queues where there are too few (97c2c69e1926, also in 5.10.y).
fn virtio_queues(name: &str, device: &DeviceFacts) -> Option<Finding> {
    let (channels, cpus) = (device.channels?, device.cpus?);
    if channels.combined + cpus <= channels.max_combined {
        return None;
    }
    let left = channels.max_combined.saturating_sub(cpus);
    Some(finding(
        FindingKind::Queues,
        Severity::Degrades,
        format!(
            "{} of {} queues are in use, which leaves fewer than the {cpus} CPUs to send by: what \
             the program redirects is slower, and a kernel before 5.13 may refuse native mode",
            channels.combined, channels.max_combined
        ),
        (left > 0).then(|| format!("ethtool -L {name} combined {left}", name = word(name))),
    ))
}

/// `bnxt_xdp_set`, `drivers/net/ethernet/broadcom/bnxt/bnxt_xdp.c`.
fn bnxt_queues(name: &str, device: &DeviceFacts) -> Option<Finding> {
    let channels = device.channels?;
    if channels.combined > 0 || channels.rx == 0 {
        return None;
    }
    let count = channels.rx.min(channels.max_combined);
    Some(finding(
        FindingKind::Queues,
        Severity::BlocksNative,
        "the driver \"bnxt_en\" runs XDP on combined queues only, and these are apart".to_owned(),
        (count > 0).then(|| {
            format!(
                "ethtool -L {name} rx 0 tx 0 combined {count}",
                name = word(name)
            )
        }),
    ))
}

/// One CPU judges everything where frames come in by one queue.
fn one_queue(name: &str, device: &DeviceFacts) -> Option<Finding> {
    let (channels, cpus) = (device.channels?, device.cpus?);
    let used = channels.rx + channels.combined;
    if device.peer.is_some() || used != 1 || cpus < 2 {
        return None;
    }
    let (which, most) = match channels.max_combined {
        0 => ("rx", channels.max_rx),
        most => ("combined", most),
    };
    let more = most.min(cpus);
    (more > 1).then(|| {
        finding(
            FindingKind::Queues,
            Severity::Hint,
            format!("all frames come in by one queue, so that one of {cpus} CPUs judges them all"),
            Some(format!(
                "ethtool -L {name} {which} {more}",
                name = word(name)
            )),
        )
    })
}

fn is_on(offload: Option<OffloadState>) -> Option<OffloadState> {
    offload.filter(|offload| offload.active)
}

fn lro(name: &str, device: &DeviceFacts) -> Option<Finding> {
    let offload = is_on(device.lro)?;
    let (severity, what) = match driver(device) {
        // `mlx5e_xdp_allowed`, `drivers/net/ethernet/mellanox/mlx5/core/en_main.c`.
        Some("mlx5_core") => (Severity::BlocksNative, "with which the driver refuses XDP"),
        _ => (
            Severity::MayBlockNative,
            "with which many drivers refuse XDP, and others switch it off",
        ),
    };
    Some(finding(
        FindingKind::Lro,
        severity,
        format!("large receive offload is on, {what}"),
        offload
            .changeable
            .then(|| format!("ethtool -K {name} lro off", name = word(name))),
    ))
}

fn gro_hw(name: &str, device: &DeviceFacts, frags: bool) -> Option<Finding> {
    let offload = is_on(device.gro_hw)?;
    let command = || format!("ethtool -K {name} rx-gro-hw off", name = word(name));
    let (severity, message, mend) = match driver(device) {
        Some("mlx5_core") => (
            Severity::BlocksNative,
            "GRO-HW is on, with which the driver refuses XDP",
            offload.changeable.then(command),
        ),
        // `virtnet_xdp_set`: where the guest may switch them off the driver does it by itself.
        Some("virtio_net") if !offload.changeable && !frags => (
            Severity::BlocksNative,
            "the host sends packets that were put together, and does not let the guest switch that \
             off: the host must (guest_tso4=off,guest_tso6=off,guest_ecn=off,guest_ufo=off in QEMU)",
            None,
        ),
        Some("virtio_net") => return None,
        _ => (
            Severity::Hint,
            "GRO-HW is on, which some drivers refuse together with XDP, and others switch off",
            offload.changeable.then(command),
        ),
    };
    Some(finding(
        FindingKind::GroHw,
        severity,
        message.to_owned(),
        mend,
    ))
}

/// Programs see the bytes of the frame, and not the tag that a device put beside it.
fn vlan_tags(name: &str, device: &DeviceFacts) -> Option<Finding> {
    const UNSEEN: &str = "rules that match on `vlan` do not see it, and others see the frame as \
                          untagged";
    if let Some(peer) = &device.peer {
        let (offload, other) = (is_on(peer.vlan_insert)?, peer.name.as_deref()?);
        return Some(finding(
            FindingKind::VlanTags,
            Severity::Degrades,
            format!("{other}, the other end, leaves the VLAN tag beside the frame: {UNSEEN}"),
            offload
                .changeable
                .then(|| format!("ethtool -K {other} txvlan off", other = word(other))),
        ));
    }
    let offload = is_on(device.vlan_strip)?;
    Some(finding(
        FindingKind::VlanTags,
        Severity::Degrades,
        format!("the device takes the outer VLAN tag off: {UNSEEN}"),
        offload
            .changeable
            .then(|| format!("ethtool -K {name} rxvlan off", name = word(name))),
    ))
}

fn offload(device: &DeviceFacts) -> Option<Finding> {
    device.xdp?.offload.then(|| {
        finding(
            FindingKind::Offload,
            Severity::Hint,
            "the device offers to run programs itself; those of xdpgate need an array of programs, \
             which kernels up to now make on no device"
                .to_owned(),
            None,
        )
    })
}
