//! A policy that differs from another in some hosts of its sets: the image of the other is changed.
//!
//! The outcome of a host depends on two things: on the outcome of the addresses around it, and on
//! the sources that list it. Where both are as for some host that the compiler saw, the outcome is
//! that of this one. So nothing is swept, and no rule is looked at. What goes beyond that is compiled
//! as a whole.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::Clock;
use super::address::Address;
use super::host_edit::{HostKey, HostTable};
use crate::abi::AddressIndex;
use crate::image::{Image, ImageReader};
use crate::policy::{AddressSet, EntryCounters, Family, Policy, SetName};

/// What is kept of a compilation for others to build on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Basis {
    pub(super) clock: Clock,
    /// By direction; `None` where nothing depends on addresses.
    pub(super) axes: [Option<AxisBasis>; 2],
}

/// One direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AxisBasis {
    /// By number.
    pub(super) sources: Vec<KeptSource>,
    pub(super) v4: HostClasses,
    pub(super) v6: HostClasses,
}

/// Where hosts are listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum KeptSource {
    Set(SetName),
    /// What rules list without a set.
    Inline(AddressSet),
}

/// Sources up to which a basis is kept: each changed host is looked for in all of them.
pub(super) const KEPT_SOURCES: usize = 256;

/// Classes of hosts up to which more are kept.
const KEPT_CLASSES: usize = 4096;

/// Searches in sorted lists, of some 50 ns each: more are not worth it.
const MAX_SEARCHES: usize = 1_000_000;

/// As many changes are made in any table, however small.
const FEW: usize = 64;

/// The outcome of a host by the outcome around it and the sources that list it, sorted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct HostClasses {
    outcomes: HashMap<(u32, Box<[u32]>), u32>,
    /// The one that was noted last: nearly always it comes again.
    last: (u32, Vec<u32>),
}

impl HostClasses {
    /// Notes a host that the sweep has met.
    pub(super) fn note(
        &mut self,
        around: u32,
        sources: impl Iterator<Item = u32> + Clone,
        outcome: u32,
    ) {
        if self.last.0 == around && sources.clone().eq(self.last.1.iter().copied()) {
            return;
        }
        self.last = (around, sources.collect());
        if self.outcomes.len() < KEPT_CLASSES {
            let key = (around, self.last.1.clone().into());
            self.outcomes.insert(key, outcome);
        }
    }
}

/// The way from one policy to another of which only hosts of sets differ.
pub(crate) struct Recompilation<'p> {
    after: &'p Policy,
    /// By set that differs, the hosts that only one of the two has.
    changed: Vec<(&'p SetName, AddressSet)>,
}

impl<'p> Recompilation<'p> {
    /// `None` if more differs than hosts of sets.
    pub(crate) fn between(before: &Policy, after: &'p Policy) -> Option<Self> {
        if !before.differs_only_in_entries(after) {
            return None;
        }
        let mut changed = Vec::new();
        for ((name, now), then) in after.sets().iter().zip(before.sets().values()) {
            let hosts = then.differing_hosts(now)?;
            if hosts.is_empty() {
                continue;
            }
            if now.counters() == EntryCounters::Entry {
                return None;
            }
            changed.push((name, hosts));
        }
        Some(Self { after, changed })
    }

    /// How many hosts are changed.
    #[cfg_attr(
        not(feature = "kernel"),
        allow(dead_code, reason = "told by the firewall")
    )]
    pub(crate) fn hosts(&self) -> usize {
        self.changed.iter().map(|(_, hosts)| hosts.len()).sum()
    }

    /// The image of the new policy, from that of the old one; `None` if it is to be compiled as a
    /// whole after all. It keeps its seed.
    pub(crate) fn change(&self, image: Image, clock: &Clock) -> Option<Image> {
        let basis = Arc::clone(image.basis.as_ref()?);
        if !basis.holds_at(clock, self.after) {
            return None;
        }
        let mut image = image;
        for (direction, axis) in basis.axes.iter().enumerate() {
            let Some(axis) = axis else { continue };
            let index = image.shape.address[direction];
            let [mut v4, mut v6] = image.edits[direction];
            self.change_hosts::<u32>(&axis.sources, &axis.v4, &index.v4, &mut v4, &mut image)?;
            self.change_hosts::<u128>(&axis.sources, &axis.v6, &index.v6, &mut v6, &mut image)?;
            image.edits[direction] = [v4, v6];
        }
        image.seal_again();
        Some(image)
    }

    /// Changes the table of one direction and family, in which `edits` hosts were changed before.
    fn change_hosts<A: HostKey>(
        &self,
        sources: &[KeptSource],
        classes: &HostClasses,
        index: &AddressIndex,
        edits: &mut usize,
        image: &mut Image,
    ) -> Option<()> {
        let sets: Vec<&AddressSet> = sources
            .iter()
            .map(|source| match source {
                KeptSource::Set(name) => self.after.sets().get(name),
                KeptSource::Inline(set) => Some(set),
            })
            .collect::<Option<_>>()?;
        let hosts = self.changed_in::<A>(sources);
        let lines = index.host_lines as usize;
        *edits += hosts.len();
        if *edits > lines.max(FEW) || hosts.len() * sets.len() > MAX_SEARCHES {
            return hosts.is_empty().then_some(());
        }
        let reader = ImageReader::trusted(&image.lines, image.shape);
        let mut outcomes = Vec::with_capacity(hosts.len());
        for host in hosts {
            outcomes.push((host, outcome(host, &sets, classes, &reader, index)?));
        }
        if lines == 0 {
            // There is no table to change.
            return outcomes.iter().all(|(_, o)| o.is_none()).then_some(());
        }
        let first = index.hosts as usize;
        let mut table = HostTable {
            lines: &mut image.lines[first..first + lines],
            seed: image.shape.seed,
        };
        for (host, outcome) in outcomes {
            match outcome {
                None => table.remove(host),
                Some(outcome) => table.put(host, outcome).then_some(())?,
            }
        }
        Some(())
    }

    /// The changed hosts of all sets among these sources, sorted.
    fn changed_in<A: Address>(&self, sources: &[KeptSource]) -> Vec<A> {
        let mut hosts: Vec<A> = Vec::new();
        for (name, set) in &self.changed {
            let is_it = |source: &KeptSource| matches!(source, KeptSource::Set(n) if n == *name);
            if sources.iter().any(is_it) {
                hosts.extend_from_slice(A::of_set(set).0);
            }
        }
        hosts.sort_unstable();
        hosts.dedup();
        hosts
    }
}

/// The outcome that a host has of its own: `Some(None)` if it is that of the addresses around it,
/// `None` if it is not known.
fn outcome<A: HostKey>(
    host: A,
    sets: &[&AddressSet],
    classes: &HostClasses,
    reader: &ImageReader<'_>,
    index: &AddressIndex,
) -> Option<Option<u32>> {
    let key = (host, A::WIDTH);
    let expires = |set: &&AddressSet| {
        let expiring = A::expiring_of(set);
        expiring
            .binary_search_by_key(&key, |(a, len, _)| (*a, *len))
            .is_ok()
    };
    if sets.iter().any(expires) {
        return None;
    }
    let sources: Box<[u32]> = (0..)
        .zip(sets)
        .filter(|(_, set)| A::of_set(set).0.binary_search(&host).is_ok())
        .map(|(number, _)| number)
        .collect();
    if sources.is_empty() {
        return Some(None);
    }
    let around = reader.find_around(index, A::FAMILY == Family::Ipv6, host.wide());
    let outcome = *classes.outcomes.get(&(around, sources))?;
    Some((outcome != around).then_some(outcome))
}

impl Basis {
    /// Whether what expires does so at the same ticks as when the image was made, and nothing has
    /// expired since, which a new image would not hold.
    fn holds_at(&self, clock: &Clock, policy: &Policy) -> bool {
        let same_ticks = clock.ticks_at(self.clock.now).abs_diff(self.clock.ticks) <= 2;
        let is_past = |at: Timestamp| self.clock.now < at && at <= clock.now;
        policy.expiries().all(|at| same_ticks && !is_past(at))
    }
}
