//! Which address families a rule can hold for.

use std::cell::OnceCell;
use std::net::IpAddr;

use super::super::address::{AddressItem, AddressMatch, Family, Prefix};
use super::super::error::{PolicyError, PolicyErrorKind};
use super::super::fields::Ranges;
use super::super::rule::Match;
use super::super::set::AddressSet;
use super::{ItemError, Sets, unknown_set};

/// Lengths that the IP header of each family can tell: IPv4's total length counts the header
/// itself, IPv6's payload length does not.
const IPV4_LENGTHS: (u32, u32) = (0, 65_535);
const IPV6_LENGTHS: (u32, u32) = (40, 65_575);

/// A set, and how many addresses its lasting entries hold together, if that was asked.
pub(super) struct Coverage<'a> {
    set: &'a AddressSet,
    sizes: OnceCell<Sizes>,
}

/// How many addresses of each family, counting overlaps twice.
#[derive(Clone, Copy, Default)]
struct Sizes {
    v4: u128,
    v6: u128,
}

impl Sizes {
    fn add(&mut self, family: Family, len: u8) {
        let (sum, width) = match family {
            Family::Ipv4 => (&mut self.v4, 32),
            Family::Ipv6 => (&mut self.v6, 128),
        };
        let size = 1u128
            .checked_shl(width - u32::from(len))
            .unwrap_or(u128::MAX);
        *sum = sum.saturating_add(size);
    }
}

impl<'a> Coverage<'a> {
    pub(super) fn new(set: &'a AddressSet) -> Self {
        Self {
            set,
            sizes: OnceCell::new(),
        }
    }

    fn sizes(&self) -> Sizes {
        *self.sizes.get_or_init(|| {
            let (v4, v6) = (self.set.v4_hosts.len(), self.set.v6_hosts.len());
            let mut sizes = Sizes {
                v4: v4 as u128,
                v6: v6 as u128,
            };
            self.set
                .v4_prefixes
                .iter()
                .for_each(|(_, len)| sizes.add(Family::Ipv4, *len));
            self.set
                .v6_prefixes
                .iter()
                .for_each(|(_, len)| sizes.add(Family::Ipv6, *len));
            sizes
        })
    }
}

/// The families that are left for a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Families {
    v4: bool,
    v6: bool,
}

impl Families {
    const BOTH: Self = Self { v4: true, v6: true };

    fn only(family: Family) -> Self {
        Self {
            v4: family == Family::Ipv4,
            v6: family == Family::Ipv6,
        }
    }

    fn and(self, other: Self) -> Self {
        Self {
            v4: self.v4 && other.v4,
            v6: self.v6 && other.v6,
        }
    }

    fn is_empty(self) -> bool {
        !self.v4 && !self.v6
    }

    fn as_str(self) -> &'static str {
        if self.v4 { "IPv4" } else { "IPv6" }
    }
}

/// Refuses a match whose parts leave no family for a packet, as IPv4 sources with IPv6
/// destinations do. Negation lets the whole other family through.
pub(super) fn check(m: &Match, sets: &Sets<'_>) -> Result<(), ItemError> {
    let mut left = Families::BOTH;
    let mut narrowed_by = "";
    let mut narrow = |field: &'static str, families: Families| {
        let both = left.and(families);
        if both.is_empty() {
            let reason = format!(
                "{} only, but {narrowed_by} is {} only, so no packet can match",
                families.as_str(),
                left.as_str()
            );
            return Err(PolicyError::new(PolicyErrorKind::Contradiction, reason).in_field(field));
        }
        if both != left {
            (left, narrowed_by) = (both, field);
        }
        Ok(())
    };
    if let Some(family) = m.family {
        narrow("match.family", Families::only(family))?;
    }
    if let Some(icmp) = m.protocol.as_ref().and_then(icmp_family) {
        narrow("match.protocol", Families::only(icmp))?;
    }
    for (field, addresses) in [("match.src", &m.src), ("match.dst", &m.dst)] {
        if let Some(addresses) = addresses {
            let families = of_addresses(addresses, sets).map_err(|e| ItemError {
                error: e.error.in_field(field),
                ..e
            })?;
            narrow(field, families)?;
        }
    }
    if let Some(length) = &m.length {
        let families = Families {
            v4: meets(length, IPV4_LENGTHS),
            v6: meets(length, IPV6_LENGTHS),
        };
        if families.is_empty() {
            let reason = format!("no packet is longer than {} bytes", IPV6_LENGTHS.1);
            let error = PolicyError::new(PolicyErrorKind::InvalidValue, reason);
            return Err(error.in_field("match.length").into());
        }
        narrow("match.length", families)?;
    }
    Ok(())
}

/// ICMP is of IPv4 and ICMPv6 of IPv6; a list of both, or with others, says nothing.
fn icmp_family(protocol: &Ranges<u8>) -> Option<Family> {
    match protocol.as_slice() {
        [(1, 1)] => Some(Family::Ipv4),
        [(58, 58)] => Some(Family::Ipv6),
        _ => None,
    }
}

fn meets(ranges: &Ranges<u32>, (min, max): (u32, u32)) -> bool {
    ranges
        .as_slice()
        .iter()
        .any(|(lo, hi)| *lo <= max && min <= *hi)
}

fn of_addresses(m: &AddressMatch, sets: &Sets<'_>) -> Result<Families, ItemError> {
    if m.items.is_empty() {
        let error = PolicyError::new(PolicyErrorKind::InvalidValue, "an empty list");
        return Err(error
            .mend("leave the field out to match every address")
            .into());
    }
    let mut named = Families {
        v4: false,
        v6: false,
    };
    let mut sizes = Sizes::default();
    for item in &m.items {
        match item {
            AddressItem::Prefix(p) => {
                named.v4 |= p.family() == Family::Ipv4;
                named.v6 |= p.family() == Family::Ipv6;
                sizes.add(p.family(), p.len());
            }
            AddressItem::Set(name) => {
                let coverage = sets.get(name).ok_or_else(|| unknown_set(name, sets))?;
                let set = coverage.set;
                named.v4 |= !set.v4_hosts.is_empty()
                    || !set.v4_prefixes.is_empty()
                    || !set.v4_expiring().is_empty();
                named.v6 |= !set.v6_hosts.is_empty()
                    || !set.v6_prefixes.is_empty()
                    || !set.v6_expiring().is_empty();
                if m.negated {
                    let set = coverage.sizes();
                    sizes.v4 = sizes.v4.saturating_add(set.v4);
                    sizes.v6 = sizes.v6.saturating_add(set.v6);
                }
            }
        }
    }
    if !m.negated {
        return Ok(named);
    }
    // Few negations name enough addresses to cover a family; only these are looked at in detail.
    let left = Families {
        v4: sizes.v4 < 1 << 32 || !covers(m, sets, Family::Ipv4),
        v6: sizes.v6 < u128::MAX || !covers(m, sets, Family::Ipv6),
    };
    if left.is_empty() {
        let reason = "`not` leaves no address: every one is named";
        return Err(PolicyError::new(PolicyErrorKind::Contradiction, reason).into());
    }
    Ok(left)
}

/// Whether the items together hold every address of a family, for ever: what an entry that expires
/// holds is left one day.
fn covers(m: &AddressMatch, sets: &Sets<'_>, family: Family) -> bool {
    let mut ranges = Vec::new();
    let mut add = |p: Prefix| {
        if p.family() == family {
            let (first, width) = match p.addr() {
                IpAddr::V4(a) => (u128::from(a.to_bits()), 32),
                IpAddr::V6(a) => (a.to_bits(), 128),
            };
            let host_bits = width - u32::from(p.len());
            ranges.push((
                first,
                first | (1u128.checked_shl(host_bits).unwrap_or(0).wrapping_sub(1)),
            ));
        }
    };
    for item in &m.items {
        match item {
            AddressItem::Prefix(p) => add(*p),
            AddressItem::Set(name) => {
                sets.get(name)
                    .into_iter()
                    .flat_map(|c| c.set.lasting())
                    .for_each(&mut add);
            }
        }
    }
    ranges.sort_unstable();
    let end = match family {
        Family::Ipv4 => u128::from(u32::MAX),
        Family::Ipv6 => u128::MAX,
    };
    let mut next = 0;
    for (first, last) in ranges {
        if first > next {
            return false;
        }
        if last == end {
            return true;
        }
        next = next.max(last + 1);
    }
    false
}
