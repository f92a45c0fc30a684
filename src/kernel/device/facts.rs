//! The facts of a device, as values.

use crate::kernel::ifindex::IfIndex;

/// What is known of a network device; `None` is "don't know", never "no".
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct DeviceFacts {
    /// The driver, as `ethtool -i` names it, or else the kind of link.
    pub driver: Option<String>,
    /// The kind of a virtual link, as in `ip -d link`: `veth`, `bridge`; `None` for hardware.
    pub kind: Option<String>,
    /// The MTU in bytes.
    pub mtu: Option<u32>,
    /// What its driver can do with XDP; since Linux 6.3.
    pub xdp: Option<XdpFeatures>,
    /// Large receive offload: packets put together by the device.
    pub lro: Option<OffloadState>,
    /// The same done so that the packets can be taken apart again.
    pub gro_hw: Option<OffloadState>,
    /// The device takes the outer VLAN tag off a received frame, and hands it over beside it.
    pub vlan_strip: Option<OffloadState>,
    /// Its queues. A virtual device often has none to tell of.
    pub channels: Option<Channels>,
    /// The other end of a veth.
    pub peer: Option<Peer>,
    /// How many CPUs the kernel may have.
    pub cpus: Option<u32>,
    /// Bytes in a page of memory.
    pub page_bytes: u32,
}

/// What a driver can do with XDP, from `enum netdev_xdp_act` of `include/uapi/linux/netdev.h`.
///
/// As the device is configured now: several drivers take bits back, for example `ena` when it has
/// not enough queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct XdpFeatures {
    /// Runs programs in native mode.
    pub native: bool,
    /// `XDP_REDIRECT` out of it.
    pub redirect: bool,
    /// It sends frames that were redirected to it.
    pub transmit: bool,
    /// AF_XDP without copies.
    pub zero_copy: bool,
    /// Runs programs on the device itself.
    pub offload: bool,
    /// Receives frames in several buffers, for programs that take them.
    pub frags: bool,
    /// It sends such frames that were redirected to it.
    pub transmit_frags: bool,
    /// Of how many buffers a frame may consist with AF_XDP without copies; since Linux 6.6.
    pub zero_copy_max_segments: Option<u32>,
}

impl XdpFeatures {
    pub(super) fn from_bits(bits: u64, zero_copy_max_segments: Option<u32>) -> Self {
        let has = |bit: u32| bits & 1 << bit != 0;
        Self {
            native: has(0),
            redirect: has(1),
            transmit: has(2),
            zero_copy: has(3),
            offload: has(4),
            frags: has(5),
            transmit_frags: has(6),
            zero_copy_max_segments,
        }
    }
}

/// Whether an offload is on, and whether it can be switched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct OffloadState {
    /// It is on.
    pub active: bool,
    /// `ethtool -K` may switch it.
    pub changeable: bool,
}

/// The queues of a device, as `ethtool -l` shows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Channels {
    /// Queues that only receive.
    pub rx: u32,
    /// Queues that only send.
    pub tx: u32,
    /// Queues that do both.
    pub combined: u32,
    /// The most of `rx` that there may be.
    pub max_rx: u32,
    /// The most of `tx`.
    pub max_tx: u32,
    /// The most of `combined`.
    pub max_combined: u32,
}

/// The other end of a veth.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Peer {
    /// Its number, in its own namespace.
    pub ifindex: IfIndex,
    /// Its name, in its own namespace.
    pub name: Option<String>,
    /// The number of its namespace, as in `ip netns list-id`; `None` if it is the same.
    pub namespace: Option<i32>,
    /// The name of that namespace, if it has one in `/run/netns`.
    pub namespace_name: Option<String>,
    /// Its MTU in bytes.
    pub mtu: Option<u32>,
    /// The queues that it sends by; unknown in another namespace.
    pub tx_queues: Option<u32>,
    /// It may leave VLAN tags beside the frames that it sends; unknown in another namespace.
    pub vlan_insert: Option<OffloadState>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bit_is_one_feature() {
        assert_eq!(XdpFeatures::from_bits(0, None), XdpFeatures::default());
        let veth = XdpFeatures::from_bits(0x23, None);
        assert!(veth.native && veth.redirect && veth.frags);
        assert!(!veth.transmit && !veth.offload);
        let all = XdpFeatures::from_bits(0x7f, Some(17));
        assert!(all.offload && all.transmit && all.transmit_frags && all.zero_copy);
        assert_eq!(all.zero_copy_max_segments, Some(17));
    }
}
