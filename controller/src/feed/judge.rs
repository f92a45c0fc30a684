//! Whether what a feed brought may replace what its set has.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use xdpgate::policy::{AddressSet, Prefix};

/// What a feed may bring.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// The most bytes that are read.
    pub max_bytes: u64,
    /// The fewest entries.
    pub min_entries: u64,
    /// The most entries.
    pub max_entries: u64,
    /// By how many percent of what the set has it may shrink at once.
    pub max_shrink_percent: u8,
    /// By how many percent it may grow at once; a set of fewer than 1,000 entries may grow as it likes.
    pub max_growth_percent: u32,
    /// The shortest IPv4 prefix: a /0 would be everybody.
    pub shortest_ipv4: u8,
    /// The shortest IPv6 prefix.
    pub shortest_ipv6: u8,
    /// Prefixes that must not be in it, nor be covered by an entry: one's own.
    #[schema(value_type = Vec<String>)]
    pub protect: Vec<String>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_bytes: 64 << 20,
            min_entries: 1,
            max_entries: 2_000_000,
            max_shrink_percent: 50,
            max_growth_percent: 400,
            shortest_ipv4: 8,
            shortest_ipv6: 19,
            protect: Vec::new(),
        }
    }
}

/// Why what a feed brought is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Fewer entries than it may have.
    #[error("it has {found} entries, fewer than min_entries {least}")]
    TooFew {
        /// How many.
        found: u64,
        /// The limit.
        least: u64,
    },
    /// More entries than it may have.
    #[error("it has {found} entries, more than max_entries {most}")]
    TooMany {
        /// How many.
        found: u64,
        /// The limit.
        most: u64,
    },
    /// Most of it is gone at once.
    #[error(
        "it shrank from {before} entries to {found}, by more than max_shrink_percent {percent}: if this is right, \
         accept it once by hand"
    )]
    Shrank {
        /// How many there were.
        before: u64,
        /// How many there are.
        found: u64,
        /// The limit.
        percent: u8,
    },
    /// It is many times as large at once.
    #[error(
        "it grew from {before} entries to {found}, by more than max_growth_percent {percent}: if this is right, \
         accept it once by hand"
    )]
    Grew {
        /// How many there were.
        before: u64,
        /// How many there are.
        found: u64,
        /// The limit.
        percent: u32,
    },
    /// An entry is a large part of the internet.
    #[error("{entry} is shorter than /{shortest}, the shortest prefix that it may have")]
    TooShort {
        /// The entry.
        entry: Prefix,
        /// The limit.
        shortest: u8,
    },
    /// An entry has what is protected.
    #[error("{entry} touches {protected}, which is protected")]
    Protected {
        /// The entry.
        entry: Prefix,
        /// What it touches.
        protected: Prefix,
    },
}

/// Judges `new`; `before` is how many entries the set has, `None` if it was never filled.
///
/// # Errors
/// The first reason against it.
pub fn judge(new: &AddressSet, before: Option<u64>, limits: &Limits) -> Result<(), Refusal> {
    let found = new.len() as u64;
    if found < limits.min_entries {
        let least = limits.min_entries;
        return Err(Refusal::TooFew { found, least });
    }
    if found > limits.max_entries {
        let most = limits.max_entries;
        return Err(Refusal::TooMany { found, most });
    }
    // What is wrong whatever the set has comes first: it cannot be accepted by hand.
    let protected: Vec<Prefix> = limits
        .protect
        .iter()
        .filter_map(|text| text.parse().ok())
        .collect();
    for entry in new.iter() {
        let shortest = match entry.addr() {
            IpAddr::V4(_) => limits.shortest_ipv4,
            IpAddr::V6(_) => limits.shortest_ipv6,
        };
        if entry.len() < shortest {
            return Err(Refusal::TooShort { entry, shortest });
        }
        if let Some(protected) = protected.iter().find(|p| touch(**p, entry)) {
            return Err(Refusal::Protected {
                entry,
                protected: *protected,
            });
        }
    }
    if let Some(before) = before.filter(|before| *before > 0) {
        let kept = u64::from(100 - limits.max_shrink_percent.min(100));
        if found.saturating_mul(100) < before.saturating_mul(kept) {
            let percent = limits.max_shrink_percent;
            return Err(Refusal::Shrank {
                before,
                found,
                percent,
            });
        }
        let most = 100 + u64::from(limits.max_growth_percent);
        if found >= SMALL && found.saturating_mul(100) > before.saturating_mul(most) {
            let percent = limits.max_growth_percent;
            return Err(Refusal::Grew {
                before,
                found,
                percent,
            });
        }
    }
    Ok(())
}

/// Sets that are smaller may grow as they like.
const SMALL: u64 = 1000;

/// Whether one holds the other.
fn touch(one: Prefix, other: Prefix) -> bool {
    one.contains(other.addr()) || other.contains(one.addr())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(count: u32) -> AddressSet {
        let host = |n: u32| Prefix::new(IpAddr::V4((0xcb00_0000 + n).into()), 32).unwrap();
        AddressSet::from_prefixes((0..count).map(host))
    }

    fn set(text: &str) -> AddressSet {
        AddressSet::from_list(text).unwrap()
    }

    #[test]
    fn r117_a_feed_that_shrinks_by_90_percent_is_refused() {
        let limits = Limits::default();
        judge(&hosts(10_000), None, &limits).unwrap();
        judge(&hosts(5_000), Some(10_000), &limits).unwrap();
        let refusal = judge(&hosts(1_000), Some(10_000), &limits).unwrap_err();
        assert!(refusal.to_string().contains("from 10000 entries to 1000"));
        assert!(judge(&hosts(4_999), Some(10_000), &limits).is_err());
        assert!(judge(&AddressSet::default(), None, &limits).is_err());
    }

    #[test]
    fn r117_growth_and_size_are_bounded() {
        let limits = Limits {
            max_entries: 20_000,
            ..Limits::default()
        };
        judge(&hosts(999), Some(1), &limits).unwrap();
        judge(&hosts(10_000), Some(2_000), &limits).unwrap();
        let grew = judge(&hosts(10_001), Some(2_000), &limits);
        assert!(matches!(grew, Err(Refusal::Grew { .. })), "{grew:?}");
        let many = judge(&hosts(20_001), None, &limits);
        assert!(matches!(many, Err(Refusal::TooMany { .. })), "{many:?}");
    }

    #[test]
    fn r117_nobody_blocks_the_internet_or_the_owner() {
        let limits = Limits {
            protect: vec!["192.0.2.0/24".to_owned()],
            ..Limits::default()
        };
        judge(
            &set("203.0.113.0/24\n2001:db8::/32\n10.0.0.0/8\n"),
            None,
            &limits,
        )
        .unwrap();
        for bad in ["0.0.0.0/0\n", "0.0.0.0/7\n", "::/0\n"] {
            let short = judge(&set(bad), None, &limits);
            assert!(matches!(short, Err(Refusal::TooShort { .. })), "{short:?}");
        }
        for bad in ["192.0.2.7\n", "192.0.0.0/16\n"] {
            let own = judge(&set(bad), None, &limits);
            assert!(matches!(own, Err(Refusal::Protected { .. })), "{own:?}");
        }
    }
}
