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
    /// With this one it works.
    pub mtu: u32,
    /// With more than this the driver refuses, whichever kernel it is of. Between the two it depends:
    /// several drivers have become stricter, since frames in between were lost.
    pub refused_above: Option<u32>,
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
    let all = HEADROOM + SHARED_INFO + ETHERNET + CHECKSUM + TAG;
    let known = |mtu: u32| MtuLimit {
        mtu,
        refused_above: Some(page),
    };
    match driver {
        // `ENA_XDP_MAX_MTU`, `drivers/net/ethernet/amazon/ena/ena_xdp.h`; its page is 16 KiB at
        // the most. Older ones leave out the shared info.
        Some("ena") => Some(known(page.min(16 << 10).saturating_sub(all))),
        // `virtnet_xdp_set`, `drivers/net/virtio_net.c`: since 6.3 a page less head and tail room,
        // before that a page less its own header.
        Some("virtio_net") => Some(known(
            page.saturating_sub(HEADROOM + SHARED_INFO + ETHERNET),
        )),
        // `i40e_xdp_setup`, `drivers/net/ethernet/intel/i40e/i40e_main.c`: buffers of 3 KiB. Of ice
        // its documentation says the same. Two tags are counted.
        Some("i40e" | "ice") => Some(known(3072 - ETHERNET - CHECKSUM - 2 * TAG)),
        // `tun_xdp_set`, `drivers/net/tun.c`: does not look at it.
        Some("tun") => None,
        _ => Some(MtuLimit {
            mtu: page.saturating_sub(all),
            refused_above: None,
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
        let unknown = MtuLimit {
            mtu: 3498,
            refused_above: None,
        };
        assert_eq!(one_buffer(None, 4096), Some(unknown));
    }
}
