//! Rate limits as the data path reckons: GCRA in integer time.

use super::Clock;
use crate::abi::{self, LIMIT_TIME_SHIFT, Limit};
use crate::policy::{Action, PolicyError, RateLimit, RateScope, RateUnit, Rule, RuleId};

/// The time of a second.
const SECOND: u128 = 1_000_000_000 << LIMIT_TIME_SHIFT;
/// Times are compared by their difference, as signed numbers; a quarter of their range is left for
/// what CPUs spend at the same moment. 104 days.
const MAX_DEPTH: u128 = 1 << 61;
/// The longest frame that the product of bytes and cost is made for.
const MAX_FRAME_BITS: u32 = 20;
/// A frame of the usual MTU: the clock must be finer than what the burst leaves beside one.
const USUAL_FRAME: u128 = 1514;
/// How many ticks a limit must bear to be measured in ticks. A tick may come late.
const TICKS: u128 = 4;

/// The features of a policy with these rules.
pub(super) fn features(rules: &[&Rule]) -> u32 {
    rules
        .iter()
        .filter_map(|rule| match &rule.action {
            Action::RateLimit(limit) => Some(match limit.scope {
                RateScope::Rule => abi::FEATURE_LIMIT,
                RateScope::Source { .. } => abi::FEATURE_LIMIT | abi::FEATURE_LIMIT_SOURCE,
            }),
            _ => None,
        })
        .fold(0, |all, one| all | one)
}

/// A limit in the time of the data path.
///
/// What is lost to rounding: a packet's cost is right to 1/512 ns, a frame's to 1/256 ns, so a rate of
/// 100 million a second is kept to 0.04 %. The burst of packets is exact.
pub(super) fn compile(
    limit: &RateLimit,
    rule: &RuleId,
    clock: &Clock,
) -> Result<Limit, PolicyError> {
    let (rate, burst) = (u128::from(limit.rate), u128::from(limit.burst));
    // What one unit of the burst costs, with `shift` bits behind the point; all fits u128.
    let (unit, shift, mut flags) = match limit.unit {
        RateUnit::Packets => (((SECOND + rate / 2) / rate).max(1), 0, 0),
        // As many bits behind the point as the product with the length of a frame has room for.
        RateUnit::Bits => {
            let byte = |shift: u32| ((SECOND * 8) << shift) / rate;
            let shift = (0..64)
                .rev()
                .find(|shift| byte(*shift) < 1 << (64 - MAX_FRAME_BITS))
                .unwrap_or(0);
            (byte(shift), shift, abi::LIMIT_BITS)
        }
    };
    let (bits, frame) = match limit.unit {
        RateUnit::Packets => (0, 1),
        RateUnit::Bits => (3, USUAL_FRAME),
    };
    let depth = (burst * unit) >> (shift + bits);
    if depth > MAX_DEPTH {
        let most = (((MAX_DEPTH + 1) << (shift + bits)) - 1) / unit;
        return Err(too_deep(limit, most).about(rule));
    }
    let (cost, depth, usual) = (unit as u64, depth as u64, (frame * unit) >> shift);
    let tick = u128::from(clock.tick_ns) << LIMIT_TIME_SHIFT;
    if u128::from(depth) < usual + TICKS * tick {
        flags |= abi::LIMIT_FINE;
    }
    let (v4_length, v6_length) = match limit.scope {
        RateScope::Rule => (0, 0),
        RateScope::Source { v4, v6 } => {
            flags |= abi::LIMIT_SOURCE;
            (v4, v6)
        }
    };
    let mut id = xxhash_rust::xxh3::Xxh3::new();
    id.update(rule.as_str().as_bytes());
    for number in [
        cost,
        depth,
        shift.into(),
        flags.into(),
        v4_length.into(),
        v6_length.into(),
    ] {
        id.update(&number.to_ne_bytes());
    }
    Ok(Limit {
        id: id.digest(),
        cost,
        depth,
        flags,
        cost_shift: shift as u8,
        reserved: 0,
        v4_length,
        v6_length,
    })
}

fn too_deep(limit: &RateLimit, most: u128) -> PolicyError {
    let days = MAX_DEPTH / SECOND / 86_400;
    PolicyError::limit(
        None,
        format!(
            "at {} a second it takes more than {days} days to earn a burst of {}",
            limit.rate, limit.burst
        ),
    )
    .in_field("burst")
    .in_field("action.rate_limit")
    .mend(format!("let it be at most {most}"))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::oracle::Oracle;
    use crate::packet::Parsed;
    use crate::policy::{Policy, Verdict};

    const TICK_4_MS: u32 = 4_000_000;

    fn limit(unit: RateUnit, rate: u64, burst: u64) -> RateLimit {
        RateLimit {
            unit,
            rate,
            burst,
            scope: RateScope::Rule,
        }
    }

    fn compiled(limit: &RateLimit) -> Result<Limit, PolicyError> {
        let clock = Clock {
            tick_ns: TICK_4_MS,
            ..Clock::default()
        };
        compile(limit, &RuleId::new("r").unwrap(), &clock)
    }

    /// A budget as `spend` in `bpf/limit.h` reckons.
    struct Budget {
        limit: Limit,
        full_at: u64,
    }

    impl Budget {
        fn cost(&self, bytes: u64) -> u64 {
            match self.limit.flags & abi::LIMIT_BITS {
                0 => self.limit.cost,
                _ => (self.limit.cost * bytes) >> self.limit.cost_shift,
            }
        }

        /// What is left after the cost; negative if it does not fit.
        fn left(&mut self, nanoseconds: u64, bytes: u64) -> i64 {
            let now = nanoseconds << LIMIT_TIME_SHIFT;
            if (self.full_at.wrapping_sub(now) as i64) < 0 {
                self.full_at = now;
            }
            let after = self.full_at.wrapping_sub(now) + self.cost(bytes);
            self.limit.depth as i64 - after as i64
        }

        fn spend(&mut self, bytes: u64) {
            self.full_at = self.full_at.wrapping_add(self.cost(bytes));
        }
    }

    fn frame() -> Parsed {
        let mut frame = vec![0u8; 34];
        (frame[12], frame[14], frame[17]) = (8, 0x45, 20);
        Parsed::from_frame(&frame)
    }

    fn policy(limit: RateLimit) -> Policy {
        let rule = Rule::new(RuleId::new("r").unwrap(), 1, Action::RateLimit(limit));
        Policy::builder().rule(rule).build().unwrap()
    }

    /// Lets frames (nanoseconds after the one before, bytes) come. The budget spends what the oracle
    /// lets pass; where the two do not agree, no more than `slack` may be between them.
    fn compare(limit: RateLimit, frames: &[(u64, u64)], slack: impl Fn(&Limit, usize) -> i64) {
        let mut budget = Budget {
            limit: compiled(&limit).unwrap(),
            full_at: 0,
        };
        let (policy, frame) = (policy(limit), frame());
        let mut oracle = Oracle::new(&policy);
        let mut now = 1 << 50;
        for (number, (gap, bytes)) in frames.iter().enumerate() {
            now += gap;
            let at = Timestamp::from_nanosecond(now.into()).unwrap();
            let passes = oracle.judge(&frame, *bytes as usize, at, None).verdict == Verdict::Pass;
            let left = budget.left(now, *bytes);
            let slack = slack(&budget.limit, number);
            assert!(
                if passes {
                    left >= -slack
                } else {
                    left < slack || left < 0
                },
                "frame {number}: {left} left, slack {slack}, oracle passes: {passes}, {limit:?} {:?}",
                budget.limit
            );
            if passes {
                budget.spend(*bytes);
            }
        }
    }

    /// Numbers of all magnitudes.
    fn magnitude(bits: u32) -> impl Strategy<Value = u64> {
        (0..bits, any::<u64>()).prop_map(|(bits, low)| 1 << bits | low & ((1 << bits) - 1))
    }

    fn frames() -> impl Strategy<Value = Vec<(u64, u64)>> {
        vec((prop_oneof![Just(0), magnitude(35)], 14u64..70_000), 1..300)
    }

    proptest! {
        #[test]
        fn r17_packets_as_the_oracle_up_to_rounding(
            rate in magnitude(40),
            burst in magnitude(20),
            frames in frames(),
        ) {
            let limit = limit(RateUnit::Packets, rate, burst);
            prop_assume!(compiled(&limit).is_ok());
            // Half a unit for each packet that is spent, and for each of the burst.
            compare(limit, &frames, |_, number| (number as u64 + burst).div_ceil(2) as i64 + 1);
        }

        #[test]
        fn r17_packets_exactly_as_the_oracle_where_the_cost_is_whole(
            (twos, fives) in (0u32..=17, 0u32..=9),
            burst in magnitude(10),
            frames in frames(),
        ) {
            let limit = limit(RateUnit::Packets, 2u64.pow(twos) * 5u64.pow(fives), burst);
            compare(limit, &frames, |_, _| 0);
        }

        #[test]
        fn r17_bits_as_the_oracle_up_to_rounding(
            rate in magnitude(45),
            burst in magnitude(30),
            frames in frames(),
        ) {
            let limit = limit(RateUnit::Bits, rate, burst);
            prop_assume!(compiled(&limit).is_ok());
            // A unit for each frame, and what the cost of a byte is too small.
            compare(limit, &frames, |l, number| number as i64 + 2 + (l.depth >> 42) as i64);
        }

        #[test]
        fn any_limit_is_compiled_or_refused_with_what_would_do(
            bits in any::<bool>(),
            rate in magnitude(64),
            burst in magnitude(64),
        ) {
            let unit = if bits { RateUnit::Bits } else { RateUnit::Packets };
            let Err(error) = compiled(&limit(unit, rate, burst)) else {
                return Ok(());
            };
            prop_assert_eq!(error.field(), Some("action.rate_limit.burst"));
            let text = error.to_string();
            let most: u64 = text.rsplit(' ').next().unwrap().parse().unwrap();
            prop_assert!(compiled(&limit(unit, rate, most)).is_ok());
            prop_assert!(compiled(&limit(unit, rate, most + 1)).is_err());
        }
    }

    #[test]
    fn the_extremes() {
        let one = compiled(&limit(RateUnit::Packets, 1, 1)).unwrap();
        assert_eq!(
            (one.cost, one.depth),
            (1_000_000_000 << 8, 1_000_000_000 << 8)
        );
        let bit = compiled(&limit(RateUnit::Bits, 1, 12_112)).unwrap();
        assert_eq!((bit.cost * 1514) >> bit.cost_shift, 12_112_000_000_000 << 8);
        assert_eq!(bit.depth, 12_112_000_000_000 << 8);
        for unit in [RateUnit::Packets, RateUnit::Bits] {
            let fast = compiled(&limit(unit, u64::MAX, 1)).unwrap();
            assert!(fast.cost > 0 && fast.flags & abi::LIMIT_FINE != 0);
            assert!(compiled(&limit(unit, 1, u64::MAX)).is_err());
        }
    }

    #[test]
    fn a_limit_that_bears_no_late_tick_reads_the_exact_clock() {
        let fine = |unit, rate, burst| {
            compiled(&limit(unit, rate, burst)).unwrap().flags & abi::LIMIT_FINE != 0
        };
        // One packet more than four ticks of 4 ms earn.
        assert!(!fine(RateUnit::Packets, 1_000, 17));
        assert!(fine(RateUnit::Packets, 1_000, 16));
        assert!(fine(RateUnit::Packets, 1, 1));
        assert!(!fine(RateUnit::Packets, 1, 2));
        let ticks = 8_000_000 * 16 / 1000;
        assert!(!fine(RateUnit::Bits, 8_000_000, ticks + 8 * 1514 + 8));
        assert!(fine(RateUnit::Bits, 8_000_000, ticks + 8 * 1514 - 8));
    }
}
