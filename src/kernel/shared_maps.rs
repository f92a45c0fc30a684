//! The maps that all generations of a policy share.

use std::os::fd::AsFd;
use std::path::Path;

use libbpf_rs::MapHandle;

use super::skeleton::{OpenXdpgateSkel, XdpgateSkel};

/// Declares the maps once: fields, names, and what is done with each of them.
macro_rules! shared_maps {
    ($($name:ident),+ $(,)?) => {
        /// The maps that all generations share, beside `policy_slot`, through which they are run.
        #[derive(Debug)]
        pub(super) struct SharedMaps {
            pub policy_slot: MapHandle,
            $(pub $name: MapHandle,)+
        }

        impl SharedMaps {
            /// Their names, by which they are pinned.
            pub(super) const NAMES: &[&str] = &["policy_slot", $(stringify!($name)),+];

            pub(super) fn of(skeleton: &XdpgateSkel<'_>) -> libbpf_rs::Result<Self> {
                Ok(Self {
                    policy_slot: MapHandle::try_from(&skeleton.maps.policy_slot)?,
                    $($name: MapHandle::try_from(&skeleton.maps.$name)?,)+
                })
            }

            /// Those that are pinned in a directory under their names.
            pub(super) fn from_pins(dir: &Path) -> libbpf_rs::Result<Self> {
                let open = |name: &str| MapHandle::from_pinned_path(dir.join(name));
                Ok(Self {
                    policy_slot: open("policy_slot")?,
                    $($name: open(stringify!($name))?,)+
                })
            }

            pub(super) fn all(&self) -> impl Iterator<Item = (&'static str, &MapHandle)> {
                let maps = [&self.policy_slot, $(&self.$name),+];
                Self::NAMES.iter().copied().zip(maps)
            }

            /// Lets a program that judges use them. It does not jump, so it has no `policy_slot`.
            pub(super) fn lend_to_policy(
                &self,
                open: &mut OpenXdpgateSkel<'_>,
            ) -> libbpf_rs::Result<()> {
                $(open.maps.$name.reuse_fd(self.$name.as_fd())?;)+
                open.maps.policy_slot.set_autocreate(false)
            }

            /// Lets the entry program use them instead of making its own.
            pub(super) fn lend_to_entry(
                &self,
                open: &mut OpenXdpgateSkel<'_>,
            ) -> libbpf_rs::Result<()> {
                $(open.maps.$name.reuse_fd(self.$name.as_fd())?;)+
                open.maps.policy_slot.reuse_fd(self.policy_slot.as_fd())
            }
        }
    };
}

shared_maps!(
    control,
    bans,
    interfaces,
    verdict_counters,
    rule_counters,
    rate_budgets,
    rate_sources,
    rate_overflows,
    flows,
    events,
    event_budgets,
    event_counters,
    evaluation,
    ports,
);
