//! What the kernel tells of a network device that bears on XDP.
//!
//! Everything is asked over netlink and `SIOCETHTOOL`, in the network namespace of the calling
//! thread; sysfs would show the namespace that it was mounted in. What cannot be asked stays
//! unknown, and is never taken for "no".

mod ethtool;
mod facts;
mod link;
mod netlink;

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

pub use facts::{Channels, DeviceFacts, OffloadState, Peer, XdpFeatures};

use super::ifindex::IfIndex;
use super::sys;

/// All that can be known of a device, asked now.
///
/// It takes about a millisecond, longer while another process holds the lock of all network devices.
pub(super) fn gather(ifindex: IfIndex) -> DeviceFacts {
    let link = link::of(ifindex.get(), None);
    let ethtool = ethtool::of(ifindex.get());
    let driver = ifindex
        .name()
        .and_then(|name| sys::interface_driver(&name).ok());
    DeviceFacts {
        driver: driver.or_else(|| link.kind.clone()),
        kind: link.kind.clone(),
        mtu: link.mtu,
        xdp: xdp_features(ifindex),
        lro: ethtool.lro,
        gro_hw: ethtool.gro_hw,
        vlan_strip: ethtool.vlan_strip,
        channels: ethtool.channels,
        peer: peer(&link),
        cpus: libbpf_rs::num_possible_cpus()
            .ok()
            .and_then(|cpus| u32::try_from(cpus).ok()),
        page_bytes: page_bytes(),
    }
}

/// The feature bits of netdev generic netlink, since Linux 6.3; `None` where they cannot be asked.
pub(super) fn xdp_features(ifindex: IfIndex) -> Option<XdpFeatures> {
    /// `NETDEV_CMD_DEV_GET`, `NETDEV_A_DEV_IFINDEX`, `NETDEV_A_DEV_XDP_FEATURES` and
    /// `NETDEV_A_DEV_XDP_ZC_MAX_SEGS` of `include/uapi/linux/netdev.h`.
    const DEV_GET: u8 = 1;
    const IFINDEX: u16 = 1;
    const XDP_FEATURES: u16 = 3;
    const ZC_MAX_SEGS: u16 = 4;
    let ask = || {
        let socket = netlink::Generic::open()?;
        let family = socket.family("netdev")?;
        family.ask(DEV_GET, netlink::attribute(IFINDEX, ifindex.get())?)
    };
    let answer = ask().ok()?;
    let bits = netlink::number::<u64>(&answer, XDP_FEATURES)?;
    let segments = netlink::number::<u32>(&answer, ZC_MAX_SEGS);
    Some(XdpFeatures::from_bits(bits, segments))
}

/// The other end of a veth, wherever it is.
fn peer(link: &link::Link) -> Option<Peer> {
    let ifindex = IfIndex::new(link.linked_to?)?;
    if link.kind.as_deref() != Some("veth") {
        return None;
    }
    let there = link::of(ifindex.get(), link.namespace);
    // ethtool cannot be asked about a device in another namespace.
    let ethtool = match link.namespace {
        None => ethtool::of(ifindex.get()),
        Some(_) => ethtool::Ethtool::default(),
    };
    Some(Peer {
        ifindex,
        // Whoever is there chooses it; one that would write to a terminal is not handed on.
        name: there.name.filter(|name| !name.contains(char::is_control)),
        namespace: link.namespace,
        namespace_name: link.namespace.and_then(namespace_name),
        mtu: there.mtu,
        // Those that it was made with are more than are in use, mostly as many as there are CPUs.
        tx_queues: ethtool.channels.map(|channels| channels.tx),
        vlan_insert: ethtool.vlan_insert,
    })
}

/// The name of a network namespace with this number, as `ip netns` gives it.
fn namespace_name(id: i32) -> Option<String> {
    /// Names that are looked at; each costs some system calls.
    const MOST: usize = 4096;
    let names = fs::read_dir("/run/netns").ok()?.take(MOST).flatten();
    let is_it = |path: &Path| {
        let file = fs::File::open(path)?;
        Ok::<bool, io::Error>(netlink::namespace_id(file.as_fd())? == Some(id))
    };
    names
        .filter(|entry| is_it(&entry.path()).unwrap_or(false))
        .find_map(|entry| entry.file_name().into_string().ok())
}

fn page_bytes() -> u32 {
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE);
    let page = page.ok().flatten().and_then(|p| u32::try_from(p).ok());
    page.unwrap_or(4096)
}
