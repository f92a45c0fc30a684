//! What was counted, and what is loaded.

use std::time::Duration;

use super::backend::VerdictCounters;
use super::ifindex::IfIndex;
use super::layout::{DISPOSITION_SLOTS, RuleCounter};
use super::publish::Generation;
use crate::policy::RuleId;
use crate::verdict::Reason;

/// Packets and their bytes, from the first byte of the Ethernet header on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

impl std::ops::AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
    }
}

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Disposition {
    /// It went on to the network stack.
    Passed,
    /// It was discarded.
    Dropped,
    /// It was judged as drop and passed because of dry run.
    WouldDrop,
}

impl Disposition {
    /// All, in the order of their numbers in `bpf/abi.h`.
    pub const ALL: [Self; 3] = [Self::Passed, Self::Dropped, Self::WouldDrop];

    /// The name used in output and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "pass",
            Self::Dropped => "drop",
            Self::WouldDrop => "would_drop",
        }
    }
}

/// How many frames came to one end for one reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerdictCount {
    /// Why.
    pub reason: Reason,
    /// To what end.
    pub disposition: Disposition,
    /// How many.
    pub count: Count,
}

/// Verdict counters: every frame is in exactly one of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VerdictCounts(Vec<VerdictCount>);

impl VerdictCounts {
    pub(super) fn new(counters: &VerdictCounters, baseline: Option<&VerdictCounters>) -> Self {
        let mut counts = Vec::new();
        for reason in Reason::ALL {
            for (number, disposition) in Disposition::ALL.into_iter().enumerate() {
                let index = reason as usize * DISPOSITION_SLOTS + number;
                let counter = match baseline {
                    Some(baseline) => counters[index].since(baseline[index]),
                    None => counters[index],
                };
                if counter.packets != 0 {
                    let count = Count {
                        packets: counter.packets,
                        bytes: counter.bytes,
                    };
                    counts.push(VerdictCount {
                        reason,
                        disposition,
                        count,
                    });
                }
            }
        }
        Self(counts)
    }

    /// All counters that are not zero.
    pub fn iter(&self) -> impl Iterator<Item = &VerdictCount> {
        self.0.iter()
    }

    /// The frames that came to this end for this reason.
    pub fn get(&self, reason: Reason, disposition: Disposition) -> Count {
        self.sum(|c| c.reason == reason && c.disposition == disposition)
    }

    /// All frames.
    pub fn total(&self) -> Count {
        self.sum(|_| true)
    }

    /// The frames that went on to the network stack and were meant to.
    pub fn passed(&self) -> Count {
        self.sum(|c| c.disposition == Disposition::Passed)
    }

    /// The frames that were discarded.
    pub fn dropped(&self) -> Count {
        self.sum(|c| c.disposition == Disposition::Dropped)
    }

    /// The frames that passed only because of dry run.
    pub fn would_drop(&self) -> Count {
        self.sum(|c| c.disposition == Disposition::WouldDrop)
    }

    fn sum(&self, which: impl Fn(&VerdictCount) -> bool) -> Count {
        let mut sum = Count::default();
        self.0
            .iter()
            .filter(|c| which(c))
            .for_each(|c| sum += c.count);
        sum
    }
}

/// The counters of one interface.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct InterfaceStats {
    /// The interface.
    pub ifindex: IfIndex,
    /// Its name when it was attached.
    pub name: String,
    /// Whether it is attached now. Counts of a detached interface stay until another interface
    /// needs their place.
    pub attached: bool,
    /// Its frames.
    pub counts: VerdictCounts,
}

/// The counters of one rule.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RuleStats {
    /// The rule.
    pub id: RuleId,
    /// The packets that it decided; of a rule that only counts or is in monitor mode, those that
    /// matched it.
    pub matched: Count,
    /// Packets of these that were really dropped.
    pub dropped: u64,
    /// Packets of these that were judged as drop and passed, because of dry run or because the
    /// rule is in monitor mode.
    pub would_drop: u64,
    /// Packets that a limit per source judged by the budget that all sources share for which there
    /// was no place: a sign that [`Loader::max_rate_sources`](crate::Loader::max_rate_sources) is
    /// too small for the traffic, or of a flood from made-up sources.
    pub rate_overflow: u64,
}

impl RuleStats {
    pub(super) fn new(id: RuleId, counter: RuleCounter, rate_overflow: u64) -> Self {
        Self {
            id,
            rate_overflow,
            matched: Count {
                packets: counter.packets,
                bytes: counter.bytes,
            },
            dropped: counter.dropped_packets,
            would_drop: counter.would_drop_packets,
        }
    }
}

/// All counters at one moment.
///
/// They fit together under traffic as well: each frame is in all that it counts in, or in none. So
/// the rules that decide add up to the verdicts with the reasons [`Rule`](Reason::Rule) and
/// [`RateLimit`](Reason::RateLimit), for as long as no rule is taken out, whose counts go with it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// The generation of the policy in force; `None` before the first.
    pub generation: Option<Generation>,
    /// Per interface, by index.
    pub interfaces: Vec<InterfaceStats>,
    /// Frames of interfaces that this firewall did not attach: the program was tail-called from
    /// another program, or its pin was attached by somebody else.
    pub other: VerdictCounts,
    /// Per rule of the policy in force, in evaluation order.
    pub rules: Vec<RuleStats>,
}

/// What the kernel says of a loaded program.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ProgramFacts {
    /// Its number, as in `bpftool prog`.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// How many instructions the verifier walked.
    pub verified_insns: Option<u32>,
    /// Its length after the verifier removed what this policy does not need.
    pub translated_bytes: u32,
    /// Its length as machine code; 0 without a JIT.
    pub machine_bytes: u32,
    /// How long it took to load, from opening the object to the program in the kernel.
    pub load: Duration,
}

/// The programs of a firewall.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProgramInfo {
    /// What interfaces run.
    pub entry: ProgramFacts,
    /// What judges, in the generation in force; `None` before the first.
    pub policy: Option<ProgramFacts>,
    /// What [`Firewall::evaluate`](crate::Firewall::evaluate) runs for that generation; `None`
    /// before its first use.
    pub evaluator: Option<ProgramFacts>,
    /// Whether they take frames in several buffers; see [`Frags`](crate::Frags).
    pub frags: bool,
    /// Whether they add to counters in atomic steps; see
    /// [`Loader::atomic_counters`](crate::Loader::atomic_counters).
    pub atomic_counters: bool,
    /// The version of the clang that compiled them.
    pub clang: &'static str,
}
