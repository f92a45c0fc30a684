//! Ranges of addresses as prefixes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use xdpgate::policy::Prefix;

/// The fewest prefixes that together are exactly the addresses from `first` to `last`.
pub(super) fn prefixes(first: IpAddr, last: IpAddr) -> Result<Vec<Prefix>, String> {
    let (mut at, end, bits) = match (first, last) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits().into(), u128::from(b.to_bits()), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), b.to_bits(), 128),
        _ => return Err(format!("{first}-{last}: both ends must be of one family")),
    };
    if at > end {
        return Err(format!("{first}-{last}: the end is before the beginning"));
    }
    let mut all = Vec::new();
    loop {
        // The largest block that begins here and does not go beyond the end.
        let left = end - at;
        let fits = match left.checked_add(1) {
            Some(count) => count.ilog2(),
            None => 128,
        };
        let host_bits = at.trailing_zeros().min(fits).min(bits);
        let addr: IpAddr = match bits {
            32 => Ipv4Addr::from_bits(at as u32).into(),
            _ => Ipv6Addr::from_bits(at).into(),
        };
        let len = (bits - host_bits) as u8;
        let prefix = Prefix::new(addr, len);
        all.push(prefix.ok_or_else(|| format!("{addr}/{len} is no prefix"))?);
        let block = 1u128.checked_shl(host_bits).map_or(u128::MAX, |n| n - 1);
        if block >= left {
            return Ok(all);
        }
        at += block + 1;
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;
    use xdpgate::policy::Prefix;

    use super::prefixes;

    fn of(first: &str, last: &str) -> Vec<String> {
        let all = prefixes(first.parse().unwrap(), last.parse().unwrap());
        all.unwrap().iter().map(Prefix::to_string).collect()
    }

    #[test]
    fn ranges() {
        assert_eq!(
            of("203.0.113.1", "203.0.113.9"),
            [
                "203.0.113.1",
                "203.0.113.2/31",
                "203.0.113.4/30",
                "203.0.113.8/31"
            ]
        );
        assert_eq!(of("0.0.0.0", "255.255.255.255"), ["0.0.0.0/0"]);
        assert_eq!(
            of("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
            ["::/0"]
        );
        assert_eq!(
            of("255.255.255.255", "255.255.255.255"),
            ["255.255.255.255"]
        );
        assert_eq!(of("2001:db9::1", "2001:db9::6").len(), 4);
        let wrong = prefixes("10.0.0.2".parse().unwrap(), "10.0.0.1".parse().unwrap());
        assert!(wrong.unwrap_err().contains("before"));
        let mixed = prefixes("10.0.0.2".parse().unwrap(), "::1".parse().unwrap());
        assert!(mixed.unwrap_err().contains("family"));
    }

    fn bounds(prefix: &Prefix) -> (u128, u128) {
        let (addr, bits) = match prefix.addr() {
            IpAddr::V4(a) => (a.to_bits().into(), 32),
            IpAddr::V6(a) => (a.to_bits(), 128),
        };
        let host = bits - u32::from(prefix.len());
        (
            addr,
            addr | 1u128.checked_shl(host).map_or(u128::MAX, |n| n - 1),
        )
    }

    /// They follow each other from the first to the last address. No fewer prefixes do: in a cover
    /// without gaps and overlaps two neighbours can be one only if they are halves of a prefix.
    fn exact_and_minimal(first: IpAddr, last: IpAddr, ends: (u128, u128)) {
        let all = prefixes(first, last).unwrap();
        let bounds: Vec<_> = all.iter().map(bounds).collect();
        assert_eq!(bounds[0].0, ends.0);
        assert_eq!(bounds[bounds.len() - 1].1, ends.1);
        for pair in bounds.windows(2) {
            assert_eq!(pair[0].1 + 1, pair[1].0);
        }
        for pair in all.windows(2) {
            let halves = pair[0].len() == pair[1].len()
                && Prefix::new(pair[0].addr(), pair[0].len() - 1)
                    .is_some_and(|whole| whole.contains(pair[1].addr()));
            assert!(!halves, "{} and {} are one", pair[0], pair[1]);
        }
    }

    proptest! {
        #[test]
        fn any_ipv4_range(a: u32, b: u32) {
            let (a, b) = (a.min(b), a.max(b));
            let addr = |bits| Ipv4Addr::from_bits(bits).into();
            exact_and_minimal(addr(a), addr(b), (a.into(), b.into()));
        }

        #[test]
        fn any_ipv6_range(a: u128, b: u128, close in 0u128..1000, near: bool) {
            let (a, b) = match near {
                true => (a, a.saturating_add(close)),
                false => (a.min(b), a.max(b)),
            };
            let addr = |bits| Ipv6Addr::from_bits(bits).into();
            exact_and_minimal(addr(a), addr(b), (a, b));
        }

        /// A prefix is a range of one prefix: itself.
        #[test]
        fn a_prefix_comes_back(bits: u32, len in 0u8..=32) {
            let bits = bits & u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
            let prefix = Prefix::new(Ipv4Addr::from_bits(bits).into(), len).unwrap();
            let (first, last) = bounds(&prefix);
            let addr = |bits: u128| Ipv4Addr::from_bits(bits as u32).into();
            prop_assert_eq!(prefixes(addr(first), addr(last)).unwrap(), vec![prefix]);
        }
    }
}
