//! The words of the policy format, for reading and for writing.

use super::Verdict;
use super::address::Family;
use super::fields::{FragmentMatch, TcpFlagsMatch};
use super::rule::{Mode, RateUnit};
use super::set::EntryCounters;

/// Words and what they stand for.
pub(super) type Names<T> = &'static [(&'static str, T)];

pub(super) const VERDICTS: Names<Verdict> = &[("pass", Verdict::Pass), ("drop", Verdict::Drop)];

pub(super) const MODES: Names<Mode> = &[("enforce", Mode::Enforce), ("monitor", Mode::Monitor)];

pub(super) const FAMILIES: Names<Family> = &[("ipv4", Family::Ipv4), ("ipv6", Family::Ipv6)];

pub(super) const COUNTERS: Names<EntryCounters> = &[
    ("none", EntryCounters::None),
    ("entry", EntryCounters::Entry),
];

pub(super) const FRAGMENTS: Names<FragmentMatch> = &[
    ("none", FragmentMatch::None),
    ("first", FragmentMatch::First),
    ("later", FragmentMatch::Later),
    ("any", FragmentMatch::Any),
];

/// The keys of the two rates.
pub(super) const RATES: Names<RateUnit> = &[
    ("packets_per_second", RateUnit::Packets),
    ("bits_per_second", RateUnit::Bits),
];

/// Presets and the TCP flags that they stand for.
pub(super) const PRESETS: Names<TcpFlagsMatch> = &[
    (
        "tcp_ack",
        TcpFlagsMatch {
            mask: 0x12,
            value: 0x10,
        },
    ),
    (
        "tcp_rst",
        TcpFlagsMatch {
            mask: 0x04,
            value: 0x04,
        },
    ),
    (
        "tcp_fin",
        TcpFlagsMatch {
            mask: 0x01,
            value: 0x01,
        },
    ),
];

/// What a word stands for.
pub(super) fn value_of<T: Copy>(names: Names<T>, name: &str) -> Option<T> {
    names.iter().find(|(n, _)| *n == name).map(|(_, v)| *v)
}

/// The word for a value; every value of these types has one.
pub(super) fn name_of<T: PartialEq>(names: Names<T>, value: &T) -> &'static str {
    names
        .iter()
        .find(|(_, v)| v == value)
        .map_or("", |(n, _)| *n)
}
