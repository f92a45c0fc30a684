//! The address index of one direction: prefix closure, outcomes, and the structures that find them.
//!
//! Every prefix of a set or an inline list is an entry with a *source*: the set or list that it is
//! of. Entries are swept in order of address and length, with the covering prefixes on a stack. The
//! *outcome* of an entry stands for all prefixes that cover it (the prefix closure), not for the
//! longest one: that is how priority survives nesting.

mod effect;
mod outcomes;
mod sweep;

use std::net::IpAddr;

use super::recompile::{AxisBasis, HostClasses, KEPT_SOURCES, KeptSource};
use super::rows::Row;
use super::{Clock, Refusal, hosts, trie};
use crate::abi::{AddressAxis, AddressIndex, Label, Line};
use crate::image::ImageWriter;
use crate::policy::{AddressItem, AddressMatch, AddressSet, Family, Policy};
use bytemuck::Zeroable;
use effect::{Effects, Source};
use jiff::Timestamp;
use outcomes::Outcomes;
pub(super) use sweep::Swept;

/// IPv4 or IPv6 addresses as numbers.
pub(super) trait Address: Copy + Ord + std::fmt::Debug {
    const FAMILY: Family;
    const WIDTH: u8;
    fn truncate(self, len: u8) -> Self;
    /// The number, whatever the family.
    fn wide(self) -> u128;
    /// The number of an address of this family.
    fn of(addr: IpAddr) -> Option<Self>;
    /// The hosts and prefixes of this family in a set.
    fn of_set(set: &AddressSet) -> (&[Self], &[(Self, u8)]);
    /// The entries of this family in a set that expire.
    fn expiring_of(set: &AddressSet) -> &[(Self, u8, Timestamp)];
}

impl Address for u32 {
    const FAMILY: Family = Family::Ipv4;
    const WIDTH: u8 = 32;
    fn truncate(self, len: u8) -> Self {
        self & crate::policy::mask32(len)
    }
    fn wide(self) -> u128 {
        self.into()
    }
    fn of(addr: IpAddr) -> Option<Self> {
        match addr {
            IpAddr::V4(a) => Some(a.to_bits()),
            IpAddr::V6(_) => None,
        }
    }
    fn of_set(set: &AddressSet) -> (&[Self], &[(Self, u8)]) {
        (&set.v4_hosts, &set.v4_prefixes)
    }
    fn expiring_of(set: &AddressSet) -> &[(Self, u8, Timestamp)] {
        set.v4_expiring()
    }
}

impl Address for u128 {
    const FAMILY: Family = Family::Ipv6;
    const WIDTH: u8 = 128;
    fn truncate(self, len: u8) -> Self {
        self & crate::policy::mask128(len)
    }
    fn wide(self) -> u128 {
        self
    }
    fn of(addr: IpAddr) -> Option<Self> {
        match addr {
            IpAddr::V4(_) => None,
            IpAddr::V6(a) => Some(a.to_bits()),
        }
    }
    fn of_set(set: &AddressSet) -> (&[Self], &[(Self, u8)]) {
        (&set.v6_hosts, &set.v6_prefixes)
    }
    fn expiring_of(set: &AddressSet) -> &[(Self, u8, Timestamp)] {
        set.v6_expiring()
    }
}

/// A prefix and its outcome; those that cover it have been found before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found<A> {
    pub(super) address: A,
    pub(super) len: u8,
    pub(super) outcome: u32,
}

/// Takes off the prefixes that do not hold an address, from those around the one before it.
pub(super) fn leave<A: Address>(around: &mut Vec<Found<A>>, address: A) {
    while around
        .last()
        .is_some_and(|top| address.truncate(top.len) != top.address)
    {
        around.pop();
    }
}

/// What depends on an address of this direction.
#[derive(Debug, Clone, Copy)]
pub(super) struct Member<'p> {
    pub(super) what: What,
    /// `None`: any address.
    pub(super) address: Option<&'p AddressMatch>,
    pub(super) family: Option<Family>,
}

/// What follows when the address is as a member asks.
#[derive(Debug, Clone, Copy)]
pub(super) enum What {
    /// This rule decides, up to this tick.
    Rule(u32, u64),
    /// This bit of the rows is set.
    Row(usize),
    /// The address has this label. Never of a negated match.
    Label(u32),
}

/// How the members of a direction are to be written down.
#[derive(Debug, Clone, Copy)]
pub(super) struct Form {
    /// How many bits a row has; 0: no rows.
    pub(super) row_bits: usize,
    /// Whether outcomes are records, not rule numbers.
    pub(super) records: bool,
    /// Whether these records hold labels.
    pub(super) labels: bool,
}

/// A direction, swept but not written.
pub(super) struct SweptAxis {
    form: Form,
    v4: Swept<u32>,
    v6: Swept<u128>,
    outcomes: Outcomes,
    basis: Option<AxisBasis>,
}

/// Finds the outcome of every address.
pub(super) fn sweep(
    policy: &Policy,
    members: &[Member<'_>],
    form: Form,
    clock: &Clock,
) -> SweptAxis {
    let effects = Effects::new(members);
    let mut outcomes = Outcomes::new(form, clock.ticks);
    let (mut v4_classes, mut v6_classes) = <[HostClasses; 2]>::default().into();
    let v4 = sweep::sweep(
        policy,
        &effects,
        members,
        &mut outcomes,
        clock,
        &mut v4_classes,
    );
    let v6 = sweep::sweep(
        policy,
        &effects,
        members,
        &mut outcomes,
        clock,
        &mut v6_classes,
    );
    let basis = (effects.sources.len() <= KEPT_SOURCES).then(|| AxisBasis {
        sources: effects.sources.iter().map(kept).collect(),
        v4: v4_classes,
        v6: v6_classes,
    });
    SweptAxis {
        v4,
        v6,
        form,
        outcomes,
        basis,
    }
}

/// A source without what it borrows.
fn kept(source: &Source<'_>) -> KeptSource {
    match source {
        Source::Set(name) => KeptSource::Set((*name).clone()),
        Source::Inline(m) => {
            let hosts = m.items.iter().filter_map(|item| match item {
                AddressItem::Prefix(p) if p.is_host() => Some(*p),
                _ => None,
            });
            KeptSource::Inline(AddressSet::from_prefixes(hosts))
        }
    }
}

impl SweptAxis {
    /// What is kept for later, if it is worth it.
    pub(super) fn take_basis(&mut self) -> Option<AxisBasis> {
        self.basis.take()
    }

    /// Labels to do without, so that no address has more than a record holds. `weights` says by
    /// label how much depends on it; the lightest go first.
    pub(super) fn surplus_labels(&self, weights: &[u32]) -> Vec<u32> {
        self.outcomes.surplus_labels(weights)
    }

    /// The most labels that one address has.
    pub(super) fn most_labels(&self) -> u32 {
        self.outcomes.most_labels()
    }

    /// The most bits of `which` that the row of one address has.
    pub(super) fn most_rows(&self, which: &Row) -> usize {
        self.outcomes.most_rows(which)
    }

    /// Writes the index; `labels` are what records hold of each label.
    pub(super) fn write(
        self,
        seed: [u64; 2],
        labels: &[Label],
        image: &mut ImageWriter,
    ) -> Result<AddressAxis, Refusal> {
        let Self {
            form,
            v4,
            v6,
            outcomes,
            ..
        } = self;
        outcomes.check()?;
        let [v4, v6] = write_indices(&v4, &v6, seed, image)?;
        let mut axis = AddressAxis {
            v4,
            v6,
            ..AddressAxis::zeroed()
        };
        if form.records {
            axis.outcomes = outcomes.write(labels, image);
        }
        (axis.timed, axis.timed_depth) = outcomes.write_timed(image);
        if form.row_bits > 0 {
            axis.rows = outcomes.write_rows(image);
        }
        Ok(axis)
    }
}

/// Writes what finds the outcomes of both families: IPv4, then IPv6.
pub(super) fn write_indices(
    v4: &Swept<u32>,
    v6: &Swept<u128>,
    seed: [u64; 2],
    image: &mut ImageWriter,
) -> Result<[AddressIndex; 2], Refusal> {
    let host4 = hosts::build4(&v4.hosts, seed)?;
    let hosts6: Vec<_> = v6.hosts.iter().map(|f| (f.address, 0, f.outcome)).collect();
    let host6 = hosts::build6(&hosts6, seed)?;
    let mut indices = [
        write_hosts(&host4, v4.miss, image),
        write_hosts(&host6, v6.miss, image),
    ];
    drop((host4, host6));
    trie::write4(&v4.prefixes, &mut indices[0], image)?;
    trie::write6(&v6.prefixes, &mut indices[1], seed, image)?;
    Ok(indices)
}

fn write_hosts(table: &[Line], miss: u32, image: &mut ImageWriter) -> AddressIndex {
    let hosts = if table.is_empty() {
        0
    } else {
        image.section(table)
    };
    let host_lines = table.len() as u32;
    AddressIndex {
        hosts,
        host_lines,
        root: 0,
        blocks: 0,
        block_count: 0,
        miss,
        depth: 0,
    }
}
