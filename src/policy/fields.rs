//! The match fields other than addresses.

use std::fmt;

/// A set of numbers as sorted, disjoint, non-adjacent inclusive ranges.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Ranges<T>(Vec<(T, T)>);

impl<T: Copy + Ord + Into<u32> + TryFrom<u32>> Ranges<T> {
    /// The union of inclusive ranges, in any order.
    ///
    /// A reversed range is kept as it is, for [`PolicyBuilder::build`](super::PolicyBuilder::build)
    /// to refuse.
    pub fn new(ranges: impl IntoIterator<Item = (T, T)>) -> Self {
        let mut all: Vec<(T, T)> = ranges.into_iter().collect();
        all.sort_unstable();
        let mut out: Vec<(T, T)> = Vec::with_capacity(all.len());
        for (lo, hi) in all {
            match out.last_mut() {
                Some((first, last))
                    if lo <= hi
                        && *first <= *last
                        && lo.into() <= (*last).into().saturating_add(1) =>
                {
                    *last = (*last).max(hi);
                }
                _ => out.push((lo, hi)),
            }
        }
        Self(out)
    }

    /// One value.
    pub fn single(value: T) -> Self {
        Self(vec![(value, value)])
    }

    /// All values from 0 to `max` that are not in the set.
    pub fn complement(&self, max: T) -> Self {
        let max: u32 = max.into();
        let narrow = |v: u32| T::try_from(v).ok();
        let mut out = Vec::new();
        // The least value that is not yet known to be in or out; `None` behind the last.
        let mut next = Some(0u32);
        for (lo, hi) in &self.0 {
            let (lo, hi) = ((*lo).into(), (*hi).into());
            match next {
                Some(first) if first < lo => out.extend(narrow(first).zip(narrow(lo - 1))),
                _ => {}
            }
            next = hi.checked_add(1);
        }
        if let Some(first) = next.filter(|n| *n <= max) {
            out.extend(narrow(first).zip(narrow(max)));
        }
        Self(out)
    }

    /// Whether the value is in the set.
    pub fn contains(&self, value: T) -> bool {
        let after = self.0.partition_point(|(lo, _)| *lo <= value);
        after > 0 && value <= self.0[after - 1].1
    }

    /// Whether no value is in the set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The ranges, sorted and disjoint.
    pub fn as_slice(&self) -> &[(T, T)] {
        &self.0
    }
}

impl<T: fmt::Display + PartialEq> fmt::Display for Ranges<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (lo, hi)) in self.0.iter().enumerate() {
            let comma = if i > 0 { ", " } else { "" };
            if lo == hi {
                write!(f, "{comma}{lo}")?;
            } else {
                write!(f, "{comma}{lo}-{hi}")?;
            }
        }
        Ok(())
    }
}

/// Protocol numbers by name (IANA "Assigned Internet Protocol Numbers").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProtocolName;

impl ProtocolName {
    /// Name and number of every protocol that a policy may name.
    pub const ALL: &'static [(&'static str, u8)] = &[
        ("icmp", 1),
        ("igmp", 2),
        ("ipip", 4),
        ("tcp", 6),
        ("udp", 17),
        ("dccp", 33),
        ("ipv6", 41),
        ("gre", 47),
        ("esp", 50),
        ("ah", 51),
        ("icmpv6", 58),
        ("ospf", 89),
        ("pim", 103),
        ("vrrp", 112),
        ("l2tp", 115),
        ("sctp", 132),
        ("udplite", 136),
    ];

    /// The number of a protocol name, which is lower case only.
    pub fn number(name: &str) -> Option<u8> {
        Self::ALL.iter().find(|(n, _)| *n == name).map(|(_, p)| *p)
    }

    /// The name of a protocol number.
    pub fn of(number: u8) -> Option<&'static str> {
        Self::ALL
            .iter()
            .find(|(_, p)| *p == number)
            .map(|(n, _)| *n)
    }
}

/// TCP flag bits as they stand in byte 13 of the TCP header (RFC 9293).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpFlags;

impl TcpFlags {
    /// Name and bit of every flag, in the order in which they are written.
    pub const ALL: &'static [(&'static str, u8)] = &[
        ("FIN", 0x01),
        ("SYN", 0x02),
        ("RST", 0x04),
        ("PSH", 0x08),
        ("ACK", 0x10),
        ("URG", 0x20),
        ("ECE", 0x40),
        ("CWR", 0x80),
    ];
}

/// TCP flags that must be set or clear: `flags & mask == value`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TcpFlagsMatch {
    /// The flags that are looked at; not 0.
    pub mask: u8,
    /// What they must be; a subset of `mask`.
    pub value: u8,
}

/// ICMP or ICMPv6 type and, if given, code. Which of both the rule's protocol says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IcmpMatch {
    /// The message type.
    pub icmp_type: u8,
    /// The code; any when `None`.
    pub code: Option<u8>,
}

/// Which fragment state a packet must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FragmentMatch {
    /// Not a fragment.
    None,
    /// Offset 0 with more fragments to come.
    First,
    /// Offset above 0.
    Later,
    /// First or later.
    Any,
}

/// What the outermost VLAN tag must be.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum VlanMatch {
    /// No tag.
    None,
    /// A tag, whatever its id.
    Any,
    /// A tag with one of these ids (0-4095).
    Ids(Ranges<u16>),
}

/// Named anomalies; a packet matches when it shows any of those listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Anomalies {
    /// A fragment that ends past 65,535, or a first fragment too short for its L4 header.
    pub bad_fragment: bool,
    /// Header length below the minimum, total length below the header, TCP data offset below 5.
    pub invalid: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_merged() {
        let ranges = Ranges::new([(80u16, 80), (443, 443), (81, 90), (85, 100)]);
        assert_eq!(ranges.as_slice(), [(80, 100), (443, 443)]);
        assert_eq!(ranges.to_string(), "80-100, 443");
        assert_eq!(
            Ranges::new([(0u16, 65_534), (65_535, 65_535)]).as_slice(),
            [(0, 65_535)]
        );
    }

    #[test]
    fn reversed_ranges_are_kept() {
        assert_eq!(
            Ranges::new([(3u8, 20), (9, 4)]).as_slice(),
            [(3, 20), (9, 4)]
        );
        assert_eq!(
            Ranges::new([(9u8, 4), (9, 12)]).as_slice(),
            [(9, 4), (9, 12)]
        );
    }

    #[test]
    fn complement_at_the_edges() {
        let of = |ranges: &[(u16, u16)]| Ranges::new(ranges.iter().copied()).complement(65_535);
        assert_eq!(of(&[]).as_slice(), [(0, 65_535)]);
        assert_eq!(of(&[(0, 0)]).as_slice(), [(1, 65_535)]);
        assert_eq!(of(&[(65_535, 65_535)]).as_slice(), [(0, 65_534)]);
        assert_eq!(
            of(&[(22, 22), (80, 90)]).as_slice(),
            [(0, 21), (23, 79), (91, 65_535)]
        );
        assert!(of(&[(0, 65_535)]).is_empty());
        assert!(
            Ranges::new([(0u32, u32::MAX)])
                .complement(u32::MAX)
                .is_empty()
        );
    }

    #[test]
    fn contains_is_inclusive() {
        let ranges = Ranges::new([(10u8, 20), (255, 255)]);
        let inside: Vec<u8> = (0..=255).filter(|n| ranges.contains(*n)).collect();
        assert_eq!(inside, (10..=20).chain([255]).collect::<Vec<_>>());
    }
}
