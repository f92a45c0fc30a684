//! The settings of an interface that a bridge changes: what they were, what they must be.

use std::collections::BTreeMap;
use std::io;

use nix::libc::{IFF_PROMISC, IFF_UP};

use super::ethtool::{Control, Feature};

/// Features that hold back, merge or filter frames before a program in the driver sees them, or take
/// the VLAN tag out of them. By their names in `ethtool -k`, in the kernel's spelling
/// (`netdev_features_strings`, `net/ethtool/common.c`).
const OFF: [&str; 6] = [
    "rx-lro",
    "rx-gro-hw",
    "rx-vlan-hw-parse",
    "rx-vlan-stag-hw-parse",
    "rx-vlan-filter",
    "rx-vlan-stag-filter",
];
/// In generic mode the program comes after the kernel's own merging as well, and what was merged is
/// too long for the partner.
const OFF_IN_GENERIC_MODE: [&str; 3] = ["rx-gro", "rx-gro-list", "rx-udp-gro-forwarding"];
/// Up, and all frames wanted, whomever they are for.
const ON: i32 = IFF_UP | IFF_PROMISC;

/// What an interface had before it became a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    pub up: bool,
    pub promiscuous: bool,
    /// What was asked for of each feature that may be switched and that a bridge may switch.
    pub features: BTreeMap<String, bool>,
}

impl Settings {
    pub(super) fn read(control: &Control, name: &str) -> io::Result<Self> {
        let flags = control.flags(name)?;
        let features = control.features(name)?.into_iter();
        Ok(Self {
            up: flags & IFF_UP != 0,
            promiscuous: flags & IFF_PROMISC != 0,
            features: features
                .filter(|f| f.available && is_ours(&f.name))
                .map(|f| (f.name, f.requested))
                .collect(),
        })
    }

    /// Puts an interface back into this state.
    pub(super) fn restore(&self, control: &Control, name: &str) -> io::Result<()> {
        let mut flags = 0;
        if self.up {
            flags |= IFF_UP;
        }
        if self.promiscuous {
            flags |= IFF_PROMISC;
        }
        control.set_flags(name, ON, flags)?;
        let now = control.features(name)?;
        let wanted = now.iter().filter(|f| f.available).filter_map(|feature| {
            let was = *self.features.get(&feature.name)?;
            (was != feature.requested).then_some((feature, was))
        });
        control.set_features(name, &wanted.collect::<Vec<_>>())
    }
}

fn is_ours(feature: &str) -> bool {
    OFF.contains(&feature) || OFF_IN_GENERIC_MODE.contains(&feature)
}

/// Makes an interface fit to be a port. The features first: some drivers begin anew for them.
pub(super) fn prepare(control: &Control, name: &str) -> io::Result<()> {
    switch_off(control, name, &OFF)?;
    control.set_flags(name, ON, ON)
}

/// Makes a port fit for generic mode.
pub(super) fn prepare_generic(control: &Control, name: &str) -> io::Result<()> {
    switch_off(control, name, &OFF_IN_GENERIC_MODE)
}

fn switch_off(control: &Control, name: &str, features: &[&str]) -> io::Result<()> {
    let is_meant = |feature: &&Feature| features.contains(&feature.name.as_str());
    let now = control.features(name)?;
    let wanted = now
        .iter()
        .filter(is_meant)
        .filter(|f| f.available && f.requested)
        .map(|feature| (feature, false));
    control.set_features(name, &wanted.collect::<Vec<_>>())?;
    for left in control.features(name)?.iter().filter(is_meant) {
        if left.active {
            let feature = &left.name;
            log::warn!("{name}: {feature} stays on, the driver does not let it be switched off");
        }
    }
    Ok(())
}
