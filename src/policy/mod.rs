//! The policy: what the user wants, validated and in canonical order.
//!
//! A [`Policy`] is a default verdict, named [address sets](AddressSet) and [rules](Rule); it is the
//! unit of versioning. Build one from YAML with [`Policy::from_yaml`] or from code with
//! [`Policy::builder`]: both pass the same validation, so a `Policy` value is always consistent.
//! Nothing in this module touches the kernel.

mod address;
mod builder;
mod canonical;
mod change;
mod error;
mod fields;
mod hash;
mod list;
mod names;
mod query;
mod rule;
mod set;
mod set_builder;
mod suggest;
mod validate;
mod yaml;

pub use address::{AddressItem, AddressMatch, Family, Prefix, PrefixParseError, SetName};
pub(crate) use address::{mask32, mask128};
pub use builder::PolicyBuilder;
pub use change::{Atomicity, Change, ChangeError, ChangeErrorKind, ChangeErrors, Changed, Effect};
pub use error::{PolicyError, PolicyErrorKind, Position};
pub use fields::{
    Anomalies, FragmentMatch, IcmpMatch, ProtocolName, Ranges, TcpFlags, TcpFlagsMatch, VlanMatch,
};
pub use hash::PolicyHash;
#[cfg(feature = "kernel")]
pub(crate) use hash::{RequestBody, request_hash};
pub use list::ListError;
pub use query::RuleQuery;
pub use rule::{Action, Match, Mode, RateLimit, RateScope, RateUnit, Rule, RuleId};
pub(crate) use set::Expiring;
pub use set::{AddressSet, EntryCounters};
pub use set_builder::{AddressSetBuilder, PackedError};
pub use yaml::PolicyParts;

use std::collections::BTreeMap;

use jiff::Timestamp;

/// What happens to a frame in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Verdict {
    /// The frame goes on to the network stack.
    #[default]
    Pass,
    /// The frame is discarded at the driver.
    Drop,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Pass => "pass",
            Self::Drop => "drop",
        })
    }
}

/// Management traffic that passes before any rule is asked, so that a policy cannot lock its
/// author out.
///
/// Non-IP frames (ARP, LLDP, EAPOL) pass always and need no entry here. When enabled these pass:
/// - IPv6 neighbour discovery: ICMPv6 types 133-137 with hop limit 255 (RFC 4861),
/// - DHCPv4: UDP with both ports in {67, 68} (RFC 2131),
/// - DHCPv6: UDP to port 546 or 547 from a link-local source (RFC 8415),
/// - SSH: TCP to port 22 from a prefix in `ssh_from`,
/// - what the host names: see [`Management`](crate::Management).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failsafe {
    /// `false` only when the policy says `failsafe: none`.
    pub enabled: bool,
    /// Sources whose TCP port 22 traffic passes; empty by default. At most [`Failsafe::MAX_SSH`].
    pub ssh_from: Vec<Prefix>,
}

impl Failsafe {
    /// How many `ssh_from` prefixes a policy may list: they are compared one by one.
    pub const MAX_SSH: usize = 16;
}

impl Default for Failsafe {
    fn default() -> Self {
        Self {
            enabled: true,
            ssh_from: Vec::new(),
        }
    }
}

/// A validated policy: the unit of versioning.
///
/// Rules are held in evaluation order (`priority`, then `id`), set entries sorted and without
/// repeats, presets expanded. The default one is empty: everything passes, the failsafe is on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    default: Verdict,
    malformed: Verdict,
    failsafe: Failsafe,
    sets: BTreeMap<SetName, AddressSet>,
    rules: Vec<Rule>,
}

impl Policy {
    /// Whether another policy says the same but for what its sets hold.
    pub(crate) fn differs_only_in_entries(&self, other: &Self) -> bool {
        self.default == other.default
            && self.malformed == other.malformed
            && self.failsafe == other.failsafe
            && self.sets.keys().eq(other.sets.keys())
            && self.rules == other.rules
    }

    /// When rules and entries of sets expire.
    pub(crate) fn expiries(&self) -> impl Iterator<Item = Timestamp> + '_ {
        let rules = self.rules.iter().filter_map(|rule| rule.expires);
        let entries = self.sets.values().flat_map(AddressSet::expiring);
        rules.chain(entries.map(|(_, at)| at))
    }

    /// The verdict when no rule decides.
    pub fn default_verdict(&self) -> Verdict {
        self.default
    }

    /// The verdict for frames that cannot be parsed far enough, when no address rule decides.
    pub fn malformed(&self) -> Verdict {
        self.malformed
    }

    /// The management traffic that passes before any rule.
    pub fn failsafe(&self) -> &Failsafe {
        &self.failsafe
    }

    /// The named address sets, by name.
    pub fn sets(&self) -> &BTreeMap<SetName, AddressSet> {
        &self.sets
    }

    /// The rules in evaluation order: by priority, ties by id. Disabled rules are included.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The rule with this id.
    pub fn rule(&self, id: &str) -> Option<&Rule> {
        self.rules.iter().find(|r| r.id.as_str() == id)
    }
}
