//! Named sets of addresses and prefixes.

use std::cmp::Reverse;
use std::net::IpAddr;

use jiff::Timestamp;

use super::address::{Prefix, mask32, mask128};

/// Which counters an address set keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EntryCounters {
    /// None: the rule that names the set counts.
    #[default]
    None,
    /// One counter per entry.
    Entry,
}

/// An entry that expires: first address, prefix length, and from when on it is not in the set.
pub(crate) type Expiring<A> = (A, u8, Timestamp);

/// A set of addresses and prefixes of both families, sorted and without repeats. Each may have a
/// time from which on it is as if it were not there.
///
/// Stored by kind, because sets of a million hosts are common: 4 bytes per IPv4 host. Only entries
/// that expire pay for their time.
///
/// An entry that is given more than once lasts as long as the longest of these: without a time it
/// never expires, else at the latest time.
///
/// ```
/// use xdpgate::policy::AddressSet;
///
/// let until = Some("2030-01-01T00:00:00Z".parse()?);
/// let set = AddressSet::from_entries([
///     ("198.51.100.0/24".parse()?, None),
///     ("203.0.113.7".parse()?, until),
/// ]);
/// let address = "203.0.113.7".parse()?;
/// assert!(set.contains_at(address, "2029-12-31T23:59:59Z".parse()?));
/// assert!(!set.contains_at(address, "2030-01-01T00:00:00Z".parse()?));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AddressSet {
    pub(crate) v4_hosts: Vec<u32>,
    pub(crate) v4_prefixes: Vec<(u32, u8)>,
    pub(crate) v6_hosts: Vec<u128>,
    pub(crate) v6_prefixes: Vec<(u128, u8)>,
    v4_expiring: Vec<Expiring<u32>>,
    v6_expiring: Vec<Expiring<u128>>,
    pub(crate) counters: EntryCounters,
}

impl AddressSet {
    /// The set of these prefixes, in any order, repeats allowed. None of them expires.
    pub fn from_prefixes(prefixes: impl IntoIterator<Item = Prefix>) -> Self {
        Self::from_entries(prefixes.into_iter().map(|p| (p, None)))
    }

    /// The set of these prefixes, each with the time from which on it is not in the set, or `None`
    /// if it never expires. In any order, repeats allowed.
    pub fn from_entries(entries: impl IntoIterator<Item = (Prefix, Option<Timestamp>)>) -> Self {
        let mut set = Self::default();
        for (prefix, expires) in entries {
            set.push(prefix, expires);
        }
        set.finish();
        set
    }

    /// The same set with these counters.
    pub fn with_counters(self, counters: EntryCounters) -> Self {
        Self { counters, ..self }
    }

    /// Adds an entry; [`AddressSet::finish`] must follow before the set is used.
    pub(crate) fn push(&mut self, p: Prefix, expires: Option<Timestamp>) {
        match (p.addr(), expires) {
            (IpAddr::V4(a), Some(at)) => self.v4_expiring.push((a.to_bits(), p.len(), at)),
            (IpAddr::V6(a), Some(at)) => self.v6_expiring.push((a.to_bits(), p.len(), at)),
            (IpAddr::V4(a), None) if p.is_host() => self.v4_hosts.push(a.to_bits()),
            (IpAddr::V6(a), None) if p.is_host() => self.v6_hosts.push(a.to_bits()),
            (IpAddr::V4(a), None) => self.v4_prefixes.push((a.to_bits(), p.len())),
            (IpAddr::V6(a), None) => self.v6_prefixes.push((a.to_bits(), p.len())),
        }
    }

    /// Adds entries, each with the time from which on it is not in the set, or `None` if it never expires. One that is
    /// there lasts as long as the longer of both. Returns how many are new or last longer.
    ///
    /// ```
    /// use xdpgate::policy::AddressSet;
    ///
    /// let mut set = AddressSet::default();
    /// assert_eq!(set.insert([("203.0.113.7".parse()?, None), ("2001:db8::/32".parse()?, None)]), 2);
    /// assert_eq!(set.remove(["203.0.113.7".parse()?, "203.0.113.8".parse()?]), 1);
    /// assert_eq!(set.len(), 1);
    /// # Ok::<(), xdpgate::policy::PrefixParseError>(())
    /// ```
    pub fn insert(
        &mut self,
        entries: impl IntoIterator<Item = (Prefix, Option<Timestamp>)>,
    ) -> usize {
        let more = Self::from_entries(entries);
        let news: Vec<_> = more
            .entries()
            .filter(|(prefix, expires)| match self.entry(*prefix) {
                None => true,
                Some(None) => false,
                Some(Some(before)) => expires.is_none_or(|at| at > before),
            })
            .collect();
        for (prefix, expires) in &news {
            self.push(*prefix, *expires);
        }
        if !news.is_empty() {
            self.finish();
        }
        news.len()
    }

    /// Takes out those of these entries that the set has, whenever they expire: the very prefix, not what lies within.
    /// Returns how many these are.
    pub fn remove(&mut self, entries: impl IntoIterator<Item = Prefix>) -> usize {
        let before = self.len();
        let gone = Self::from_prefixes(entries);
        remove(&mut self.v4_hosts, &gone.v4_hosts);
        remove(&mut self.v4_prefixes, &gone.v4_prefixes);
        remove(&mut self.v6_hosts, &gone.v6_hosts);
        remove(&mut self.v6_prefixes, &gone.v6_prefixes);
        if !(self.v4_expiring.is_empty() && self.v6_expiring.is_empty()) {
            let stays_v4 = |e: &Expiring<u32>| !gone.has(Prefix::v4(e.0, e.1));
            let stays_v6 = |e: &Expiring<u128>| !gone.has(Prefix::v6(e.0, e.1));
            self.v4_expiring.retain(stays_v4);
            self.v6_expiring.retain(stays_v6);
        }
        before - self.len()
    }

    /// When this very entry expires, if there is one: `Some(None)` for never.
    fn entry(&self, prefix: Prefix) -> Option<Option<Timestamp>> {
        if self.has(prefix) {
            return Some(None);
        }
        let len = prefix.len();
        match prefix.addr() {
            IpAddr::V4(a) => expiry(&self.v4_expiring, a.to_bits(), len),
            IpAddr::V6(a) => expiry(&self.v6_expiring, a.to_bits(), len),
        }
        .map(Some)
    }

    /// Whether this very entry is there and never expires.
    fn has(&self, prefix: Prefix) -> bool {
        let len = prefix.len();
        match prefix.addr() {
            IpAddr::V4(a) if prefix.is_host() => self.v4_hosts.binary_search(&a.to_bits()).is_ok(),
            IpAddr::V6(a) if prefix.is_host() => self.v6_hosts.binary_search(&a.to_bits()).is_ok(),
            IpAddr::V4(a) => self.v4_prefixes.binary_search(&(a.to_bits(), len)).is_ok(),
            IpAddr::V6(a) => self.v6_prefixes.binary_search(&(a.to_bits(), len)).is_ok(),
        }
    }

    /// The hosts that only one of two sets has; `None` if more than hosts without expiry differs.
    pub(crate) fn differing_hosts(&self, other: &Self) -> Option<Self> {
        let is_alike = self.counters == other.counters
            && self.v4_prefixes == other.v4_prefixes
            && self.v6_prefixes == other.v6_prefixes
            && self.v4_expiring == other.v4_expiring
            && self.v6_expiring == other.v6_expiring;
        is_alike.then(|| Self {
            v4_hosts: difference(&self.v4_hosts, &other.v4_hosts),
            v6_hosts: difference(&self.v6_hosts, &other.v6_hosts),
            ..Self::default()
        })
    }

    /// Sorts and removes repeats.
    pub(crate) fn finish(&mut self) {
        sort(&mut self.v4_hosts);
        sort(&mut self.v4_prefixes);
        sort(&mut self.v6_hosts);
        sort(&mut self.v6_prefixes);
        let (hosts, prefixes) = (&self.v4_hosts, &self.v4_prefixes);
        sort_expiring(&mut self.v4_expiring, 32, hosts, prefixes);
        let (hosts, prefixes) = (&self.v6_hosts, &self.v6_prefixes);
        sort_expiring(&mut self.v6_expiring, 128, hosts, prefixes);
    }

    /// How many entries the set has, expired or not.
    pub fn len(&self) -> usize {
        self.v4_hosts.len()
            + self.v4_prefixes.len()
            + self.v6_hosts.len()
            + self.v6_prefixes.len()
            + self.v4_expiring.len()
            + self.v6_expiring.len()
    }

    /// Whether the set has no entry, expired or not.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Which counters the set keeps.
    pub fn counters(&self) -> EntryCounters {
        self.counters
    }

    /// All entries, expired or not, in the order of [`AddressSet::entries`].
    pub fn iter(&self) -> impl Iterator<Item = Prefix> + '_ {
        self.entries().map(|(prefix, _)| prefix)
    }

    /// All entries, each with the time from which on it is not in the set. First those that never
    /// expire: IPv4 hosts, IPv4 prefixes, IPv6 hosts, IPv6 prefixes, each sorted. Then those of
    /// [`AddressSet::expiring`]. [`AddressSet::from_entries`] makes the same set of them.
    pub fn entries(&self) -> impl Iterator<Item = (Prefix, Option<Timestamp>)> + '_ {
        let lasting = self.lasting().map(|p| (p, None));
        lasting.chain(self.expiring().map(|(p, at)| (p, Some(at))))
    }

    /// The entries that expire, each with the time from which on it is not in the set: IPv4, then
    /// IPv6, each sorted by address and length.
    pub fn expiring(&self) -> impl Iterator<Item = (Prefix, Timestamp)> + '_ {
        let v4 = self.v4_expiring.iter();
        let v6 = self.v6_expiring.iter();
        v4.map(|(a, len, at)| (Prefix::v4(*a, *len), *at))
            .chain(v6.map(|(a, len, at)| (Prefix::v6(*a, *len), *at)))
    }

    /// The entries that never expire.
    pub(super) fn lasting(&self) -> impl Iterator<Item = Prefix> + '_ {
        let v4_hosts = self.v4_hosts.iter().map(|a| Prefix::v4(*a, 32));
        let v4_prefixes = self.v4_prefixes.iter().map(|(a, l)| Prefix::v4(*a, *l));
        let v6_hosts = self.v6_hosts.iter().map(|a| Prefix::v6(*a, 128));
        let v6_prefixes = self.v6_prefixes.iter().map(|(a, l)| Prefix::v6(*a, *l));
        v4_hosts
            .chain(v4_prefixes)
            .chain(v6_hosts)
            .chain(v6_prefixes)
    }

    /// The IPv4 entries that expire, sorted by address and length, none of them twice or also among
    /// those that never do.
    pub(crate) fn v4_expiring(&self) -> &[Expiring<u32>] {
        &self.v4_expiring
    }

    /// As [`AddressSet::v4_expiring`], of IPv6.
    pub(crate) fn v6_expiring(&self) -> &[Expiring<u128>] {
        &self.v6_expiring
    }

    /// Whether some entry holds the address, expired or not.
    pub fn contains(&self, addr: IpAddr) -> bool {
        self.holds(addr, |_| true)
    }

    /// Whether some entry that has not expired at this time holds the address. At the very time
    /// that an entry has, it has expired.
    pub fn contains_at(&self, addr: IpAddr, at: Timestamp) -> bool {
        self.holds(addr, |expires| at < expires)
    }

    fn holds(&self, addr: IpAddr, lasts: impl Fn(Timestamp) -> bool) -> bool {
        match addr {
            IpAddr::V4(a) => {
                let a = a.to_bits();
                self.v4_hosts.binary_search(&a).is_ok()
                    || (0..32).any(|l| self.v4_prefixes.binary_search(&(a & mask32(l), l)).is_ok())
                    || (0..=32)
                        .filter_map(|l| expiry(&self.v4_expiring, a & mask32(l), l))
                        .any(lasts)
            }
            IpAddr::V6(a) => {
                let a = a.to_bits();
                self.v6_hosts.binary_search(&a).is_ok()
                    || (0..128)
                        .any(|l| self.v6_prefixes.binary_search(&(a & mask128(l), l)).is_ok())
                    || (0..=128)
                        .filter_map(|l| expiry(&self.v6_expiring, a & mask128(l), l))
                        .any(lasts)
            }
        }
    }
}

/// Stable, because that is fast where most is sorted already: a set to which entries were added.
fn sort<T: Ord>(entries: &mut Vec<T>) {
    entries.sort();
    entries.dedup();
}

/// Takes sorted entries out of sorted ones.
fn remove<T: Copy + Ord>(entries: &mut Vec<T>, gone: &[T]) {
    let found = gone.iter().filter_map(|e| entries.binary_search(e).ok());
    let mut places = found.collect::<Vec<_>>().into_iter().peekable();
    if places.peek().is_none() {
        return;
    }
    let mut place = 0..;
    entries.retain(|_| places.next_if_eq(&place.next().expect("endless")).is_none());
}

/// What only one of two sorted lists has, sorted.
fn difference<T: Copy + Ord>(a: &[T], b: &[T]) -> Vec<T> {
    let (mut a, mut b) = (a.iter().peekable(), b.iter().peekable());
    let mut out = Vec::new();
    loop {
        out.push(match (a.peek(), b.peek()) {
            (None, None) => return out,
            (Some(x), Some(y)) if x == y => {
                a.next();
                b.next();
                continue;
            }
            (Some(x), Some(y)) if x > y => *b.next().expect("peeked"),
            (Some(_), _) => *a.next().expect("peeked"),
            (None, Some(_)) => *b.next().expect("peeked"),
        });
    }
}

/// Sorts what expires and keeps of each entry the latest time, and none that also lasts.
fn sort_expiring<A: Copy + Ord>(
    expiring: &mut Vec<Expiring<A>>,
    width: u8,
    hosts: &[A],
    prefixes: &[(A, u8)],
) {
    expiring.sort_unstable_by_key(|(a, len, at)| (*a, *len, Reverse(*at)));
    expiring.dedup_by_key(|(a, len, _)| (*a, *len));
    expiring.retain(|(a, len, _)| {
        if *len == width {
            hosts.binary_search(a).is_err()
        } else {
            prefixes.binary_search(&(*a, *len)).is_err()
        }
    });
}

/// When this very entry expires; `None` if it is not one of these.
fn expiry<A: Copy + Ord>(expiring: &[Expiring<A>], address: A, len: u8) -> Option<Timestamp> {
    let place = expiring.binary_search_by_key(&(address, len), |(a, l, _)| (*a, *l));
    place.ok().map(|i| expiring[i].2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// Entries as a text and a second.
    fn set(entries: &[(&str, Option<i64>)]) -> AddressSet {
        let entries = entries.iter().copied();
        AddressSet::from_entries(entries.map(|(p, at)| (p.parse().unwrap(), at.map(time))))
    }

    fn holds(set: &AddressSet, addr: &str, second: i64) -> bool {
        set.contains_at(addr.parse().unwrap(), time(second))
    }

    #[test]
    fn a_set_holds_what_any_entry_holds() {
        let prefixes = [
            "10.0.0.0/8",
            "192.0.2.1",
            "10.0.0.0/8",
            "2001:db8::/32",
            "::1",
        ];
        let set = AddressSet::from_prefixes(prefixes.map(|p| p.parse().unwrap()));
        assert_eq!(set.len(), 4);
        for (addr, inside) in [
            ("10.9.9.9", true),
            ("192.0.2.1", true),
            ("192.0.2.2", false),
        ] {
            assert_eq!(set.contains(addr.parse().unwrap()), inside, "{addr}");
        }
        for (addr, inside) in [("2001:db8:1::", true), ("::1", true), ("::2", false)] {
            assert_eq!(set.contains(addr.parse().unwrap()), inside, "{addr}");
        }
    }

    #[test]
    fn an_entry_is_gone_at_its_time() {
        for (entry, inside, outside) in [
            ("192.0.2.1", "192.0.2.1", "192.0.2.2"),
            ("10.0.0.0/8", "10.9.9.9", "11.0.0.0"),
            ("0.0.0.0/0", "255.255.255.255", "::"),
            ("::1", "::1", "::2"),
            ("2001:db8::/32", "2001:db8:1::", "2001:db9::"),
            ("::/0", "ffff::", "10.0.0.1"),
        ] {
            let set = set(&[(entry, Some(100))]);
            assert!(holds(&set, inside, 99), "{entry}");
            assert!(!holds(&set, inside, 100), "{entry}");
            assert!(!holds(&set, inside, 101), "{entry}");
            assert!(set.contains(inside.parse().unwrap()), "{entry} at any time");
            assert!(!set.contains(outside.parse().unwrap()), "{entry}");
            assert_eq!((set.len(), set.is_empty()), (1, false));
        }
    }

    #[test]
    fn the_entry_that_lasts_longest_counts() {
        for (addr, around) in [("192.0.2.1", "192.0.2.0/24"), ("::1", "::/64")] {
            let lasting = set(&[(addr, Some(300)), (addr, None), (addr, Some(100))]);
            assert_eq!(lasting, set(&[(addr, None)]));
            let around_lasting = set(&[(around, Some(300)), (around, None)]);
            assert_eq!(around_lasting, set(&[(around, None)]));
            let later = set(&[(addr, Some(100)), (addr, Some(300)), (addr, Some(200))]);
            assert_eq!(later, set(&[(addr, Some(300))]));

            // Other lengths are other entries.
            let nested = set(&[(addr, Some(100)), (around, Some(200))]);
            assert_eq!(nested.len(), 2);
            assert!(holds(&nested, addr, 199));
            assert!(!holds(&nested, addr, 200));
            assert!(holds(&set(&[(addr, Some(100)), (around, None)]), addr, 500));
        }
    }

    #[test]
    fn entries_make_the_same_set() {
        let set = set(&[
            ("::1", Some(5)),
            ("10.0.0.0/8", None),
            ("192.0.2.1", Some(7)),
            ("2001:db8::/32", None),
            ("10.0.0.0/9", Some(6)),
            ("192.0.2.2", None),
        ]);
        assert_eq!(AddressSet::from_entries(set.entries()), set);
        let shown: Vec<String> = set.iter().map(|p| p.to_string()).collect();
        let lasting = ["192.0.2.2", "10.0.0.0/8", "2001:db8::/32"];
        assert_eq!(
            shown,
            [&lasting[..], &["10.0.0.0/9", "192.0.2.1", "::1"]].concat()
        );
        let times: Vec<i64> = set.expiring().map(|(_, at)| at.as_second()).collect();
        assert_eq!(times, [6, 7, 5]);
        assert_eq!(set.len(), 6);
    }
}
