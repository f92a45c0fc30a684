//! The longest MTU with which drivers run XDP on frames in one buffer, from their sources.

/// `XDP_PACKET_HEADROOM`: what is left free before each frame.
const HEADROOM: u32 = 256;
/// `struct skb_shared_info`, which stands behind each frame, in whole cache lines: 320 bytes with
/// the 17 fragments of `MAX_SKB_FRAGS`. A kernel that was built for more has less room.
const SHARED_INFO: u32 = 320;
const MAX_SKB_FRAGS: u32 = 17;
const ETHERNET: u32 = 14;
const CHECKSUM: u32 = 4;
const TAG: u32 = 4;

/// Up to which MTU a driver takes a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MtuLimit {
    pub mtu: u32,
    /// It is what the driver's source says. If not, it is what a page leaves.
    pub is_known: bool,
}

/// The MTU that the peer of a veth may have (`veth_xdp_set`, `drivers/net/veth.c`).
pub(super) fn veth(page: u32, frags: bool) -> u32 {
    let one_buffer = page.saturating_sub(HEADROOM + SHARED_INFO + ETHERNET);
    match frags {
        false => one_buffer,
        true => one_buffer + page * MAX_SKB_FRAGS,
    }
}

/// The MTU up to which a driver receives into one buffer; `None` if it takes any.
pub(super) fn one_buffer(driver: Option<&str>, page: u32) -> Option<MtuLimit> {
    let known = |overhead: u32| MtuLimit {
        mtu: page.saturating_sub(overhead),
        is_known: true,
    };
    let all = HEADROOM + SHARED_INFO + ETHERNET + CHECKSUM + TAG;
    match driver {
        // `ENA_XDP_MAX_MTU`, `drivers/net/ethernet/amazon/ena/ena_xdp.h`; its page is 16 KiB at
        // the most.
        Some("ena") => Some(MtuLimit {
            mtu: page.min(16 << 10).saturating_sub(all),
            is_known: true,
        }),
        // `virtnet_xdp_set`, `drivers/net/virtio_net.c`: a page less head room since 6.3, before
        // that a page less its header. What is over the first limit is refused at some point.
        Some("virtio_net") => Some(known(HEADROOM + SHARED_INFO + ETHERNET)),
        // Blocked "for frame sizes larger than 3KB", `Documentation/networking/device_drivers/
        // ethernet/intel/ice.rst`; two tags are counted.
        Some("i40e" | "ice") => Some(MtuLimit {
            mtu: 3072 - ETHERNET - CHECKSUM - 2 * TAG,
            is_known: true,
        }),
        // `tun_xdp_set`, `drivers/net/tun.c`: does not look at it.
        Some("tun") => None,
        _ => Some(MtuLimit {
            mtu: page.saturating_sub(all),
            is_known: false,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_on_pages_of_4_kib() {
        assert_eq!(veth(4096, false), 3506);
        assert_eq!(veth(4096, true), 73_138);
        let limit = |driver| one_buffer(Some(driver), 4096).map(|limit| limit.mtu);
        assert_eq!(limit("ena"), Some(3498));
        assert_eq!(limit("virtio_net"), Some(3506));
        assert_eq!(limit("ice"), Some(3046));
        assert_eq!(limit("tun"), None);
        assert_eq!(
            one_buffer(None, 4096),
            Some(MtuLimit {
                mtu: 3498,
                is_known: false
            })
        );
    }
}
