//! What a set shall have of what a feed brought.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use xdpgate::policy::{AddressSet, Prefix};

use super::{FeedError, Format, Limits, Refusal, judge, parse};
use crate::content::entries::key;
use crate::store::Digest;

/// Why what was brought is not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum Bad {
    /// It is no list.
    #[error("{place}: {error}")]
    NoList {
        /// Which place gave it.
        place: String,
        /// Why not.
        error: FeedError,
    },
    /// It is beyond the limits.
    #[error("{refusal}")]
    Refused {
        /// Why.
        refusal: Refusal,
        /// How many entries it has.
        entries: u64,
    },
}

/// What several places gave, as one set.
pub(super) fn join(
    texts: &[(String, String)],
    format: Format,
    at_least: u32,
) -> Result<AddressSet, Bad> {
    let mut sets = Vec::with_capacity(texts.len());
    for (place, text) in texts {
        let no_list = |error| Bad::NoList {
            place: place.clone(),
            error,
        };
        sets.push(parse(text, format, at_least).map_err(no_list)?);
    }
    match sets.len() {
        1 => Ok(sets.remove(0)),
        _ => Ok(AddressSet::from_prefixes(
            sets.iter().flat_map(AddressSet::iter),
        )),
    }
}

/// Judges a set; `accepted` is how many entries had what somebody said is right.
pub(super) fn judged(
    set: &AddressSet,
    before: Option<u64>,
    limits: &Limits,
    accepted: Option<u64>,
) -> Result<(), Bad> {
    let entries = set.len() as u64;
    let refused = |refusal| Bad::Refused { refusal, entries };
    match judge(set, before, limits) {
        Err(Refusal::Shrank { .. } | Refusal::Grew { .. })
            if accepted.is_some_and(|accepted| entries.abs_diff(accepted) <= accepted / 10) =>
        {
            judge(set, None, limits).map_err(refused)
        }
        judged => judged.map_err(refused),
    }
}

/// What the set shall have. With an `expiry` in seconds, each entry has the time at which it goes, unless it is seen again
/// before: it is put off when half of it is over, so that a feed that brings the same all day makes two versions of the
/// set in the time of an expiry, and not one with each run.
pub(super) fn wanted(
    new: &AddressSet,
    current: Option<&AddressSet>,
    expiry: Option<u64>,
    now: Timestamp,
) -> AddressSet {
    let counters = current.map(AddressSet::counters).unwrap_or_default();
    let Some(expiry) = expiry else {
        return AddressSet::from_prefixes(new.iter()).with_counters(counters);
    };
    let half = after(now, expiry / 2);
    let kept: HashMap<Prefix, Timestamp> = current
        .into_iter()
        .flat_map(AddressSet::expiring)
        .filter(|(_, at)| *at >= half)
        .collect();
    let full = after(now, expiry);
    // One that would last longer than entries do is of a longer expiry, which is no longer so.
    let lasts = |prefix: &Prefix| kept.get(prefix).map_or(full, |at| *at.min(&full));
    let entries = new.iter().map(|prefix| (prefix, Some(lasts(&prefix))));
    AddressSet::from_entries(entries).with_counters(counters)
}

/// Whether an entry has less than half of its time left, so that it must be seen again though the server has nothing new.
pub(super) fn is_renewal_due(current: &AddressSet, expiry: Option<u64>, now: Timestamp) -> bool {
    let Some(expiry) = expiry else {
        return false;
    };
    let half = after(now, expiry / 2);
    current.expiring().any(|(_, at)| at < half)
}

/// A name for the addresses.
pub(super) fn digest(set: &AddressSet) -> Digest {
    let mut bytes = Vec::with_capacity(set.len() * 6);
    for prefix in set.iter() {
        bytes.extend_from_slice(&key(prefix));
    }
    Digest::of(&bytes)
}

fn after(now: Timestamp, seconds: u64) -> Timestamp {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    now.saturating_add(SignedDuration::from_secs(seconds))
        .unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> AddressSet {
        AddressSet::from_list(text).unwrap()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn r117_entries_are_put_off_when_half_of_their_time_is_over() {
        let list = set("203.0.113.7\n2001:db8::/32\n");
        let first = wanted(&list, None, Some(100), at(0));
        assert!(first.expiring().all(|(_, expires)| expires == at(100)));
        let second = wanted(&list, Some(&first), Some(100), at(50));
        assert_eq!(second, first, "nothing to be made new of");
        assert!(!is_renewal_due(&first, Some(100), at(50)));
        assert!(is_renewal_due(&first, Some(100), at(51)));
        let third = wanted(&list, Some(&first), Some(100), at(51));
        assert!(third.expiring().all(|(_, expires)| expires == at(151)));
        let other = wanted(
            &set("203.0.113.7\n203.0.113.8\n"),
            Some(&first),
            Some(100),
            at(10),
        );
        let times: Vec<_> = other.expiring().map(|(_, at)| at.as_second()).collect();
        assert_eq!(times, [100, 110], "what is gone from the feed is gone");
        let shorter = wanted(&list, Some(&first), Some(10), at(0));
        assert!(shorter.expiring().all(|(_, expires)| expires == at(10)));
        let lasting = wanted(&list, Some(&first), None, at(10));
        assert_eq!(lasting, list);
    }

    #[test]
    fn r117_what_was_accepted_counts_for_about_that_much() {
        let hosts = |count: u32| {
            let host = |n: u32| Prefix::host(std::net::Ipv4Addr::from(0xcb00_0000 + n).into());
            AddressSet::from_prefixes((0..count).map(host))
        };
        let limits = Limits::default();
        let judged =
            |count, accepted| judged(&hosts(count), Some(10_000), &limits, accepted).is_ok();
        assert!(!judged(1000, None));
        assert!(judged(1000, Some(1000)));
        assert!(judged(1000, Some(950)));
        assert!(!judged(700, Some(1000)), "not what was seen");
        assert!(!judged(0, Some(0)), "min_entries holds anyway");
    }
}
