//! Rules: a match, an action, and what surrounds them.

use std::collections::BTreeMap;
use std::fmt;

use super::address::{AddressMatch, Family};
use super::fields::{Anomalies, FragmentMatch, IcmpMatch, Ranges, TcpFlagsMatch, VlanMatch};

/// 1 to 64 characters of `[a-zA-Z0-9._-]`.
pub(crate) fn is_identifier(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// The stable id of a rule: `[a-zA-Z0-9._-]{1,64}`, unique in its policy.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleId(String);

impl RuleId {
    /// A rule id; `None` unless it is 1 to 64 characters of `[a-zA-Z0-9._-]`.
    pub fn new(id: &str) -> Option<Self> {
        is_identifier(id).then(|| Self(id.to_owned()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a packet must be for a rule to match. `None` asks nothing; all others must hold.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Match {
    /// The source address.
    pub src: Option<AddressMatch>,
    /// The destination address.
    pub dst: Option<AddressMatch>,
    /// The address family.
    pub family: Option<Family>,
    /// IPv4 protocol, or the IPv6 upper-layer header after the extension chain.
    pub protocol: Option<Ranges<u8>>,
    /// Source port of TCP, UDP, SCTP, UDP-Lite and DCCP; never on a later fragment.
    pub sport: Option<Ranges<u16>>,
    /// Destination port, likewise.
    pub dport: Option<Ranges<u16>>,
    /// A TCP header is present and these flags are as asked.
    pub tcp_flags: Option<TcpFlagsMatch>,
    /// An ICMP or ICMPv6 header of this type (and code) is present.
    pub icmp: Option<IcmpMatch>,
    /// L3 length in bytes by the IP header: IPv4 total length, IPv6 payload length + 40.
    pub length: Option<Ranges<u32>>,
    /// The fragment state.
    pub fragment: Option<FragmentMatch>,
    /// The outermost VLAN tag.
    pub vlan: Option<VlanMatch>,
    /// TTL or hop limit.
    pub ttl: Option<Ranges<u8>>,
    /// DSCP, 0-63.
    pub dscp: Option<Ranges<u8>>,
    /// Named anomalies, any of them.
    pub anomaly: Option<Anomalies>,
}

/// Whether a rule acts or only says what it would have done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// The action is carried out.
    #[default]
    Enforce,
    /// The match is counted and evaluation goes on.
    Monitor,
}

/// What a rule does with what it matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Discard the packet.
    Drop,
    /// Let the packet through; no later rule is asked.
    Pass,
    /// Count the packet and go on to the next rule.
    Count,
    /// Drop what is over the limit, pass what is under it.
    RateLimit(RateLimit),
}

/// A rate limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// What is limited.
    pub unit: RateUnit,
    /// Units per second; not 0.
    pub rate: u64,
    /// How many units may come at once after a pause; not 0. Packets, or bits.
    pub burst: u64,
    /// What has a budget of its own.
    pub scope: RateScope,
}

/// The unit of a rate limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RateUnit {
    /// Packets.
    Packets,
    /// Bits of the whole frame.
    Bits,
}

/// What has a rate budget of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RateScope {
    /// All packets that the rule matches share one budget.
    Rule,
    /// Each source prefix of these lengths has its own; 32 and 128 mean each address.
    Source {
        /// IPv4 prefix length, 1-32.
        v4: u8,
        /// IPv6 prefix length, 1-128.
        v6: u8,
    },
}

/// One rule of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The stable id.
    pub id: RuleId,
    /// Lower is evaluated first; ties by id.
    pub priority: u32,
    /// What a packet must be.
    pub matches: Match,
    /// What is done with it.
    pub action: Action,
    /// Whether the action is carried out.
    pub mode: Mode,
    /// A rule that is not enabled is as if it were not there.
    pub enabled: bool,
    /// From this instant on the rule is as if it were not there.
    pub expires: Option<jiff::Timestamp>,
    /// Interface names or globs; empty means all.
    pub interfaces: Vec<String>,
    /// A human name.
    pub name: Option<String>,
    /// Free text.
    pub comment: Option<String>,
    /// Free labels.
    pub labels: BTreeMap<String, String>,
}

impl Rule {
    /// An enforced, enabled rule that matches every IP packet; set the public fields to narrow it.
    pub fn new(id: RuleId, priority: u32, action: Action) -> Self {
        Self {
            id,
            priority,
            matches: Match::default(),
            action,
            mode: Mode::Enforce,
            enabled: true,
            expires: None,
            interfaces: Vec::new(),
            name: None,
            comment: None,
            labels: BTreeMap::new(),
        }
    }
}
