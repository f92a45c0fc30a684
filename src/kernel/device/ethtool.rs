//! Offloads and queues, over the netlink form of ethtool (Linux 5.6; what is used here, 5.7).

use std::io;

use neli::attr::Attribute;
use neli::genl::Nlattr;
use neli::types::Buffer;

use super::facts::{Channels, OffloadState};
use super::netlink::{Answer, Generic, attribute, nest, number};

/// What ethtool says of a device.
#[derive(Debug, Default)]
pub(super) struct Ethtool {
    pub lro: Option<OffloadState>,
    pub gro_hw: Option<OffloadState>,
    pub vlan_strip: Option<OffloadState>,
    pub vlan_insert: Option<OffloadState>,
    pub channels: Option<Channels>,
}

/// Numbers of `include/uapi/linux/ethtool_netlink.h`.
const FEATURES_GET: u8 = 11;
const CHANNELS_GET: u8 = 17;
const HEADER: u16 = 1;
const HEADER_DEV_INDEX: u16 = 1;
const FEATURES_HW: u16 = 2;
const FEATURES_ACTIVE: u16 = 4;
const FEATURES_NOCHANGE: u16 = 5;
const BITSET_NOMASK: u16 = 1;
const BITSET_BITS: u16 = 3;
const BITSET_BIT_NAME: u16 = 2;
const BITSET_BIT_VALUE: u16 = 3;
/// `ETHTOOL_A_CHANNELS_RX_MAX`; the most of tx, other and combined follow, then what is in use.
const CHANNELS_RX_MAX: u16 = 2;

pub(super) fn of(ifindex: u32) -> Ethtool {
    let Ok(socket) = Generic::open() else {
        return Ethtool::default();
    };
    let Ok(family) = socket.family("ethtool") else {
        return Ethtool::default();
    };
    let ask = |command: u8| -> io::Result<Answer> {
        let header = nest(HEADER, &attribute(HEADER_DEV_INDEX, ifindex)?)?;
        family.ask(command, header)
    };
    let channels = ask(CHANNELS_GET).ok().map(|answer| channels(&answer));
    let Ok(features) = ask(FEATURES_GET) else {
        return Ethtool {
            channels,
            ..Ethtool::default()
        };
    };
    let (hw, active, fixed) = (
        names(&features, FEATURES_HW),
        names(&features, FEATURES_ACTIVE),
        names(&features, FEATURES_NOCHANGE),
    );
    // The names are those of `netdev_features_strings`, `net/ethtool/common.c`.
    let state = |name: &str| {
        let among = |names: &[String]| names.iter().any(|n| n == name);
        Some(OffloadState {
            active: among(&active),
            changeable: among(&hw) && !among(&fixed),
        })
    };
    Ethtool {
        lro: state("rx-lro"),
        gro_hw: state("rx-gro-hw"),
        vlan_strip: state("rx-vlan-hw-parse"),
        vlan_insert: state("tx-vlan-hw-insert"),
        channels,
    }
}

fn channels(answer: &Answer) -> Channels {
    let at = |offset: u16| number::<u32>(answer, CHANNELS_RX_MAX + offset).unwrap_or(0);
    Channels {
        max_rx: at(0),
        max_tx: at(1),
        max_combined: at(3),
        rx: at(4),
        tx: at(5),
        combined: at(7),
    }
}

/// The names of the bits that are set. A set with a mask lists others as well, without a value.
fn names(answer: &Answer, set: u16) -> Vec<String> {
    let attributes = answer.attrs().get_attr_handle();
    let Ok(set) = attributes.get_nested_attributes::<u16>(set) else {
        return Vec::new();
    };
    let Ok(bits) = set.get_nested_attributes::<u16>(BITSET_BITS) else {
        return Vec::new();
    };
    let only_set = set.get_attribute(BITSET_NOMASK).is_some();
    let name = |bit: &Nlattr<u16, Buffer>| {
        let bit = bit.get_attr_handle::<u16>().ok()?;
        let is_set = only_set || bit.get_attribute(BITSET_BIT_VALUE).is_some();
        let name = bit.get_attribute(BITSET_BIT_NAME).filter(|_| is_set)?;
        name.get_payload_as_with_len::<String>().ok()
    };
    bits.iter().filter_map(name).collect()
}
