//! What an evaluation of one frame says.

use std::fmt;

use crate::policy::{RuleId, Verdict};

/// Why a frame got its verdict. The numbers are those of `enum reason` in `bpf/abi.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
#[repr(u8)]
pub enum Reason {
    /// No rule decided: the policy's default verdict.
    Default = 0,
    /// A rule decided.
    Rule = 1,
    /// Management traffic that passes before any rule.
    Failsafe = 2,
    /// Not IPv4 or IPv6: passes always.
    NonIp = 3,
    /// Could not be parsed far enough and no rule decided: the policy's `malformed` verdict.
    Malformed = 4,
    /// More than two VLAN tags: the policy's `malformed` verdict.
    VlanDepth = 5,
    /// Over the limit of a rate-limit rule.
    RateLimit = 6,
    /// The source or the destination is banned.
    Ban = 7,
    /// No policy was published when the frame came: passes.
    NoPolicy = 8,
    /// Came in by a port of a bridge whose filter does not judge that direction:
    /// passes on unjudged.
    Unfiltered = 9,
    /// The partner of the port is gone: there is nowhere to pass on to, so the frame is dropped.
    NoPartner = 10,
}

impl Reason {
    /// All reasons, in the order of their numbers.
    pub const ALL: [Self; 11] = [
        Self::Default,
        Self::Rule,
        Self::Failsafe,
        Self::NonIp,
        Self::Malformed,
        Self::VlanDepth,
        Self::RateLimit,
        Self::Ban,
        Self::NoPolicy,
        Self::Unfiltered,
        Self::NoPartner,
    ];

    /// The name used in output and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Rule => "rule",
            Self::Failsafe => "failsafe",
            Self::NonIp => "non_ip",
            Self::Malformed => "malformed",
            Self::VlanDepth => "vlan_depth",
            Self::RateLimit => "rate_limit",
            Self::Ban => "ban",
            Self::NoPolicy => "no_policy",
            Self::Unfiltered => "unfiltered",
            Self::NoPartner => "no_partner",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The verdict on one frame and how it came about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evaluation {
    /// What happens to the frame.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// The rule that decided; `None` unless a rule did.
    pub rule: Option<RuleId>,
    /// Rules in monitor mode that matched on the way, in evaluation order.
    pub monitored: Vec<RuleId>,
}
