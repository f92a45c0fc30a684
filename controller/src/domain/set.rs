//! Address sets of the fleet.

use std::sync::Arc;

use xdpgate::policy::{AddressSet, EntryCounters};

use super::{Name, Touch};

/// An address set as it is now, or as it was in one of its versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetState {
    /// The name, as rules have it behind the `@`.
    pub name: Name,
    /// 1, 2, ... It goes on where it ended if a set is deleted and created again.
    pub version: u64,
    /// Free text.
    pub comment: Option<String>,
    /// How many seconds an entry lasts that comes without an expiry of its own; absent: for good.
    pub default_expiry: Option<u64>,
    /// The entries, with the counters that the set keeps.
    pub entries: Arc<AddressSet>,
    /// Who made it.
    pub created: Touch,
    /// Who made this version.
    pub updated: Touch,
}

impl SetState {
    /// Which counters its entries have.
    pub fn counters(&self) -> EntryCounters {
        self.entries.counters()
    }
}
