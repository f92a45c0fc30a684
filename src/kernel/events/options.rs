//! How much somebody wants to hear.

use super::source::Budget;
use crate::kernel::error::EventError;

/// How many events are sent, and how many wait for a reader.
///
/// ```
/// use xdpgate::EventOptions;
///
/// let options = EventOptions::default().per_rule_per_second(5).total_per_second(200);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "options do nothing before `Firewall::events`"]
pub struct EventOptions {
    pub(super) per_rule_per_second: u32,
    pub(super) total_per_second: u32,
    pub(super) queue: usize,
}

impl Default for EventOptions {
    fn default() -> Self {
        Self {
            per_rule_per_second: 10,
            total_per_second: 1000,
            queue: 4096,
        }
    }
}

impl EventOptions {
    /// How many events a second one rule may cause, and each reason to drop without a rule: 10
    /// unless set, 1 to 1,000,000.
    ///
    /// What was not used is saved up for one second, so that `t` seconds bring up to `(t + 1)`
    /// times this number.
    pub fn per_rule_per_second(self, events: u32) -> Self {
        Self {
            per_rule_per_second: events,
            ..self
        }
    }

    /// How many events a second there may be in all: 1000 unless set, 1 to 1,000,000, saved up
    /// likewise.
    pub fn total_per_second(self, events: u32) -> Self {
        Self {
            total_per_second: events,
            ..self
        }
    }

    /// How many events wait for the reader of the stream before new ones are lost to it: 4096
    /// unless set, 1 to 1,048,576.
    pub fn queue(self, events: usize) -> Self {
        Self {
            queue: events,
            ..self
        }
    }

    pub(super) fn check(&self) -> Result<(), EventError> {
        let limit = |option, value: usize, most: usize| match value {
            value if (1..=most).contains(&value) => Ok(()),
            value => Err(EventError::Limit {
                option,
                value,
                most,
            }),
        };
        let most = MOST_PER_SECOND as usize;
        limit(
            "per_rule_per_second",
            self.per_rule_per_second as usize,
            most,
        )?;
        limit("total_per_second", self.total_per_second as usize, most)?;
        limit("queue", self.queue, MOST_QUEUED)
    }
}

/// Above it a nanosecond is too coarse.
const MOST_PER_SECOND: u32 = 1_000_000;
const MOST_QUEUED: usize = 1 << 20;
const SECOND_NS: u32 = 1_000_000_000;

/// The budget in the data path for all who listen: each may cause as much as it asked for.
pub(super) fn budget<'o>(all: impl Iterator<Item = &'o EventOptions>) -> Option<Budget> {
    let most = all.map(|o| (o.per_rule_per_second, o.total_per_second));
    let (per_rule, total) = most.reduce(|a, b| (a.0.max(b.0), a.1.max(b.1)))?;
    Some(Budget {
        rule_ns: SECOND_NS / per_rule,
        total_ns: SECOND_NS / total,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_out_of_range_is_refused_by_its_name() {
        let refused = |options: EventOptions| options.check().unwrap_err().to_string();
        let options = EventOptions::default();
        assert!(options.check().is_ok());
        let rule = refused(options.clone().per_rule_per_second(0));
        assert_eq!(
            rule,
            "per_rule_per_second(0) is out of range: it must be 1 to 1000000"
        );
        let total = refused(options.clone().total_per_second(1_000_001));
        assert!(total.starts_with("total_per_second(1000001)"), "{total}");
        assert!(refused(options.queue(0)).starts_with("queue(0)"));
    }

    #[test]
    fn the_most_that_anybody_asked_for_is_the_budget() {
        let a = EventOptions::default()
            .per_rule_per_second(1)
            .total_per_second(1_000_000);
        let b = EventOptions::default()
            .per_rule_per_second(50)
            .total_per_second(100);
        let budget = |all: &[EventOptions]| budget(all.iter());
        assert_eq!(budget(&[]), None);
        let of = |rule_ns, total_ns| Some(Budget { rule_ns, total_ns });
        assert_eq!(budget(std::slice::from_ref(&b)), of(20_000_000, 10_000_000));
        assert_eq!(budget(&[a, b]), of(20_000_000, 1000));
    }
}
