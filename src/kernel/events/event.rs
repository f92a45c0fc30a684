//! One sampled drop.

use std::io;

use jiff::Timestamp;

use crate::kernel::ifindex::IfIndex;
use crate::kernel::layout::EventRecord;
use crate::kernel::publish::Generation;
use crate::kernel::stats::Disposition;
use crate::kernel::wall::{monotonic, wall_and_monotonic};
use crate::packet::Parsed;
use crate::policy::RuleId;
use crate::verdict::Reason;

/// A frame that was dropped, or would have been but for dry run.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event {
    /// When it was judged, by the clock of the host.
    pub time: Timestamp,
    /// The interface that it came in by.
    pub ifindex: IfIndex,
    /// The name that this interface had when this firewall attached it; `None` if another did.
    pub interface: Option<String>,
    /// The receive queue of the interface.
    pub queue: u32,
    /// [`Dropped`](Disposition::Dropped) or [`WouldDrop`](Disposition::WouldDrop).
    pub disposition: Disposition,
    /// Why.
    pub reason: Reason,
    /// The rule that decided; `None` unless a rule did.
    pub rule: Option<RuleId>,
    /// The policy that judged it, which may have been replaced since.
    pub generation: Generation,
    /// The length of the frame in bytes, from its Ethernet header on.
    pub length: u32,
    /// The beginning of the frame: all of it, or its first 128 bytes.
    pub data: Vec<u8>,
}

impl Event {
    /// What the beginning of the frame shows: addresses, protocol, ports and so on.
    ///
    /// A packet whose headers do not end within [`data`](Self::data) shows no L4 fields and counts
    /// as malformed here, whatever the whole frame was.
    pub fn packet(&self) -> Parsed {
        Parsed::from_frame(&self.data)
    }

    /// `None` if the record makes no sense.
    pub(super) fn new(
        record: &EventRecord,
        clock: &Clock,
        rule: Option<RuleId>,
        interface: Option<String>,
    ) -> Option<Self> {
        let reason = Reason::ALL
            .into_iter()
            .find(|r| *r as u8 == record.reason)?;
        Some(Self {
            time: clock.wall(record.time)?,
            ifindex: IfIndex::new(record.ifindex)?,
            interface,
            queue: record.queue,
            disposition: *Disposition::ALL.get(usize::from(record.disposition))?,
            reason,
            rule,
            generation: Generation(record.generation),
            length: record.length,
            data: record.bytes.get(..record.captured.into())?.to_vec(),
        })
    }
}

/// From the kernel's clock to that of the wall.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    /// The wall's time less the kernel's, in nanoseconds.
    offset: i128,
}

impl Clock {
    pub(super) fn now() -> io::Result<Self> {
        let (wall, monotonic) = wall_and_monotonic()?;
        let monotonic = i128::try_from(monotonic.as_nanos()).map_err(io::Error::other)?;
        Ok(Self {
            offset: wall.as_nanosecond() - monotonic,
        })
    }

    fn wall(&self, monotonic_ns: u64) -> Option<Timestamp> {
        Timestamp::from_nanosecond(self.offset + i128::from(monotonic_ns)).ok()
    }
}

/// What `bpf_ktime_get_ns` would say now.
pub(super) fn monotonic_ns() -> io::Result<u64> {
    u64::try_from(monotonic()?.as_nanos()).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::NO_RULE;
    use crate::kernel::layout::EVENT_BYTES;

    fn record() -> EventRecord {
        EventRecord {
            time: 2_000_000_000,
            generation: 3,
            ifindex: 7,
            queue: 1,
            length: 60,
            rule: NO_RULE,
            reason: Reason::Malformed as u8,
            disposition: 2,
            captured: 60,
            reserved: 0,
            bytes: [0xaa; EVENT_BYTES],
        }
    }

    #[test]
    fn a_record_becomes_an_event_in_the_wall_s_time() {
        let clock = Clock {
            offset: 1_000_000_000_000_000_000,
        };
        let event = Event::new(&record(), &clock, None, Some("eth0".to_owned())).unwrap();
        assert_eq!(event.time.as_nanosecond(), 1_000_000_002_000_000_000);
        assert_eq!(event.disposition, Disposition::WouldDrop);
        assert_eq!(event.reason, Reason::Malformed);
        assert_eq!((event.generation.get(), event.queue), (3, 1));
        assert_eq!(event.data, [0xaa; 60]);
    }

    #[test]
    fn a_record_without_sense_is_none() {
        let clock = Clock::now().unwrap();
        type Spoil = fn(&mut EventRecord);
        let spoil: [Spoil; 4] = [
            |r| r.ifindex = 0,
            |r| r.reason = 200,
            |r| r.disposition = 3,
            |r| r.captured = 129,
        ];
        assert!(Event::new(&record(), &clock, None, None).is_some());
        for spoil in spoil {
            let mut record = record();
            spoil(&mut record);
            assert_eq!(Event::new(&record, &clock, None, None), None);
        }
    }
}
