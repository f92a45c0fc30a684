//! What is known of a network interface.

use std::fmt;

use super::super::ifindex::IfIndex;

/// A network interface, as the kernel describes it over rtnetlink.
///
/// A plain record: [`Selector::decide`](crate::Selector::decide) judges records that were written
/// by hand just as well.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Interface {
    /// Its number.
    pub ifindex: IfIndex,
    /// Its name.
    pub name: String,
    /// What kind of virtual device it is, as in `ip link add type KIND`; `None` for hardware and
    /// the few others that are not made that way.
    pub kind: Option<String>,
    /// What its master makes of it, such as `bond` or `bridge`.
    pub slave_kind: Option<String>,
    /// The bond, bridge, team or VRF that it is a member of.
    pub master: Option<IfIndex>,
    /// The interface below it: that of a VLAN or macvlan, the peer of a veth. `None` if that is in
    /// another network namespace.
    pub lower: Option<IfIndex>,
    /// The namespace of the interface below it or of its peer if that is another one, by the
    /// number that this namespace has for it (`ip netns list-id`).
    pub lower_namespace: Option<i32>,
    /// Whether it is the loopback interface.
    pub loopback: bool,
    /// Whether it is set up, as by `ip link set up`.
    pub up: bool,
    /// Whether it can carry packets.
    pub oper_state: OperState,
    /// The largest packet in bytes, without the Ethernet header.
    pub mtu: u32,
    /// The device that it is a port of, such as the PCI address `0000:00:04.0`.
    pub parent: Option<String>,
    /// Its driver; known if there is no `kind`, or if the selector asks for drivers.
    pub driver: Option<String>,
    /// The number of the XDP program that ran on it when it was described; of the first one if
    /// there are several, in different modes.
    pub program_id: Option<u32>,
    /// Whether it had an IPv4 address that is not link-local; asked for only if the selector needs it.
    pub ipv4: bool,
    /// Whether it had an IPv6 address that is not link-local; asked for only if the selector needs it.
    pub ipv6: bool,
}

impl Interface {
    /// A record of an interface of which nothing else is known, and that is up.
    pub fn new(ifindex: IfIndex, name: impl Into<String>) -> Self {
        Self {
            ifindex,
            name: name.into(),
            kind: None,
            slave_kind: None,
            master: None,
            lower: None,
            lower_namespace: None,
            loopback: false,
            up: true,
            oper_state: OperState::Unknown,
            mtu: 1500,
            parent: None,
            driver: None,
            program_id: None,
            ipv4: false,
            ipv6: false,
        }
    }

    /// Whether it is hardware, or what a hypervisor offers as such: a port of a device, and not
    /// made by `ip link add`.
    pub fn is_physical(&self) -> bool {
        self.kind.is_none() && self.parent.is_some() && !self.loopback
    }

    /// Whether it is of this kind.
    pub(super) fn is_kind(&self, kinds: &[&str]) -> bool {
        self.kind.as_deref().is_some_and(|k| kinds.contains(&k))
    }
}

/// Whether an interface can carry packets (RFC 2863, `IFLA_OPERSTATE`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OperState {
    /// The driver does not say.
    Unknown,
    /// A part of it is missing.
    NotPresent,
    /// It is not set up, or has no carrier.
    Down,
    /// An interface below it is down.
    LowerLayerDown,
    /// It is being tested.
    Testing,
    /// It waits for something, such as authentication.
    Dormant,
    /// It can carry packets.
    Up,
}

impl OperState {
    /// The word that `ip link` shows, in small letters.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::NotPresent => "notpresent",
            Self::Down => "down",
            Self::LowerLayerDown => "lowerlayerdown",
            Self::Testing => "testing",
            Self::Dormant => "dormant",
            Self::Up => "up",
        }
    }

    /// From the number in `IFLA_OPERSTATE`.
    pub(super) fn from_number(number: u8) -> Self {
        match number {
            1 => Self::NotPresent,
            2 => Self::Down,
            3 => Self::LowerLayerDown,
            4 => Self::Testing,
            5 => Self::Dormant,
            6 => Self::Up,
            _ => Self::Unknown,
        }
    }
}

impl fmt::Display for OperState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
