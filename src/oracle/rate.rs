//! Rate limits by token buckets, in exact integer arithmetic.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use jiff::Timestamp;

use crate::policy::{RateLimit, RateScope, RateUnit};

/// A billionth of a unit: what a limit of 1/s earns in a nanosecond.
const NANO: u128 = 1_000_000_000;

/// The budgets of one rule.
#[derive(Debug, Default)]
pub(super) struct Budgets {
    /// By source prefix; `None` is the budget of the rule itself.
    buckets: HashMap<Option<IpAddr>, Bucket>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// What may be spent, in billionths of the unit.
    level: u128,
    /// When `level` was right, in nanoseconds.
    at: i128,
}

impl Budgets {
    /// Spends a frame's cost if the budget of its source has it; `false` if it is over the limit.
    /// A budget starts full, and what does not fit into it spends nothing.
    pub(super) fn take(
        &mut self,
        limit: &RateLimit,
        src: IpAddr,
        bytes: usize,
        at: Timestamp,
    ) -> bool {
        let now = at.as_nanosecond();
        let full = u128::from(limit.burst) * NANO;
        let cost = NANO
            * match limit.unit {
                RateUnit::Packets => 1,
                RateUnit::Bits => bytes as u128 * 8,
            };
        let bucket = self.buckets.entry(key(limit.scope, src)).or_insert(Bucket {
            level: full,
            at: now,
        });
        let elapsed = now.saturating_sub(bucket.at).max(0) as u128;
        let earned = elapsed.saturating_mul(u128::from(limit.rate));
        bucket.level = bucket.level.saturating_add(earned).min(full);
        bucket.at = bucket.at.max(now);
        let enough = bucket.level >= cost;
        if enough {
            bucket.level -= cost;
        }
        enough
    }
}

/// Which budget a source has.
fn key(scope: RateScope, src: IpAddr) -> Option<IpAddr> {
    let mask = |len: u8| u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
    match (scope, src) {
        (RateScope::Rule, _) => None,
        (RateScope::Source { v4, .. }, IpAddr::V4(a)) => {
            Some(Ipv4Addr::from_bits(a.to_bits() & (mask(v4) >> 96) as u32).into())
        }
        (RateScope::Source { v6, .. }, IpAddr::V6(a)) => {
            Some(Ipv6Addr::from_bits(a.to_bits() & mask(v6)).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(unit: RateUnit, rate: u64, burst: u64, scope: RateScope) -> RateLimit {
        RateLimit {
            unit,
            rate,
            burst,
            scope,
        }
    }

    fn at(nanoseconds: i128) -> Timestamp {
        Timestamp::from_nanosecond(nanoseconds).expect("a time")
    }

    fn addr(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    /// How many of `packets` packets of `bytes` bytes, one each `every` nanoseconds, pass.
    fn passed(limit: &RateLimit, packets: i128, every: i128, bytes: usize) -> usize {
        let mut budgets = Budgets::default();
        let src = addr("192.0.2.1");
        (0..packets)
            .filter(|i| budgets.take(limit, src, bytes, at(i * every)))
            .count()
    }

    #[test]
    fn r18_a_burst_passes_exactly() {
        let limit = limit(RateUnit::Packets, 10, 25, RateScope::Rule);
        let mut budgets = Budgets::default();
        let mut burst = |t| {
            (0..100)
                .filter(|_| budgets.take(&limit, addr("::1"), 60, at(t)))
                .count()
        };
        assert_eq!(burst(0), 25);
        assert_eq!(burst(99_999_999), 0);
        assert_eq!(burst(100_000_000), 1);
        assert_eq!(burst(2_600_000_000), 25);
        assert_eq!(burst(i128::from(u32::MAX) * 1_000_000_000), 25);
    }

    #[test]
    fn r17_what_passes_is_the_rate_and_one_burst() {
        // 10 s each; the last packet comes before the end of the tenth second.
        let packets = limit(RateUnit::Packets, 1000, 50, RateScope::Rule);
        assert_eq!(passed(&packets, 5_000, 2_000_000, 60), 5_000);
        assert_eq!(passed(&packets, 20_000, 500_000, 60), 10_049);
        assert_eq!(passed(&packets, 500_000, 20_000, 60), 10_049);
        let bits = limit(RateUnit::Bits, 480_000, 4_800, RateScope::Rule);
        assert_eq!(passed(&bits, 20_000, 500_000, 60), 10_009);
        assert_eq!(passed(&bits, 20_000, 500_000, 120), 5_004);
    }

    #[test]
    fn a_rate_that_does_not_divide_a_second_loses_nothing() {
        let limit = limit(RateUnit::Packets, 3, 1, RateScope::Rule);
        // Every nanosecond earns 3 billionths: the 2nd packet is due after 333,333,333.33 ns.
        let mut budgets = Budgets::default();
        let mut take = |t| budgets.take(&limit, addr("::1"), 60, at(t));
        assert!(take(0));
        assert!(!take(333_333_333));
        assert!(take(333_333_334));
        // The third of a nanosecond too much is lost by no rounding, but by the burst of 1 only.
        assert!(!take(666_666_666));
        assert!(take(666_666_668));
    }

    #[test]
    fn what_does_not_fit_spends_nothing() {
        let limit = limit(RateUnit::Bits, 1, 800, RateScope::Rule);
        let mut budgets = Budgets::default();
        assert!(!budgets.take(&limit, addr("::1"), 101, at(0)));
        assert!(budgets.take(&limit, addr("::1"), 100, at(0)));
        assert!(!budgets.take(&limit, addr("::1"), 1, at(0)));
    }

    #[test]
    fn time_that_goes_backwards_earns_nothing() {
        let limit = limit(RateUnit::Packets, 1, 1, RateScope::Rule);
        let mut budgets = Budgets::default();
        let mut take = |t| budgets.take(&limit, addr("::1"), 60, at(t));
        assert!(take(5_000_000_000));
        assert!(!take(0));
        assert!(!take(5_999_999_999));
        assert!(take(6_000_000_000));
    }

    #[test]
    fn the_largest_limits_do_not_overflow() {
        for unit in [RateUnit::Packets, RateUnit::Bits] {
            let limit = limit(unit, u64::MAX, u64::MAX, RateScope::Rule);
            let mut budgets = Budgets::default();
            for t in [Timestamp::MIN, Timestamp::UNIX_EPOCH, Timestamp::MAX] {
                assert!(budgets.take(&limit, addr("::1"), 65_535, t));
            }
        }
    }

    #[test]
    fn budgets_are_by_source_prefix() {
        let scope = RateScope::Source { v4: 24, v6: 64 };
        let limit = limit(RateUnit::Packets, 1, 1, scope);
        let mut budgets = Budgets::default();
        let mut take = |src| budgets.take(&limit, addr(src), 60, at(0));
        assert!(take("192.0.2.0"));
        assert!(!take("192.0.2.255"));
        assert!(take("192.0.3.0"));
        assert!(take("2001:db8::"));
        assert!(!take("2001:db8::ffff:ffff:ffff:ffff"));
        assert!(take("2001:db8:0:1::"));
        // 0.0.0.0/24 and ::/64 are two budgets.
        assert!(take("0.0.0.1"));
        assert!(take("::1"));
        assert!(!take("::2"));
    }
}
