//! Durations and times of the API.

use std::time::Duration;

use jiff::Timestamp;
pub(super) use xdpgate_service::duration::parse;

/// A duration of the API.
pub(super) fn proto(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: duration.subsec_nanos() as i32,
    }
}

/// A time of the API; `None` if it is beyond what a time can be.
pub(super) fn time(time: prost_types::Timestamp) -> Option<Timestamp> {
    Timestamp::new(time.seconds, time.nanos).ok()
}

/// A time for the API.
pub(super) fn proto_time(time: Timestamp) -> prost_types::Timestamp {
    let (seconds, nanos) = (time.as_second(), time.subsec_nanosecond());
    // Before 1970 both are negative; the API wants nanoseconds that count forward.
    match nanos {
        0.. => prost_types::Timestamp { seconds, nanos },
        _ => prost_types::Timestamp {
            seconds: seconds - 1,
            nanos: nanos + 1_000_000_000,
        },
    }
}

/// A time in seconds, for people; `-` if there is none.
pub(super) fn time_text(time: Option<prost_types::Timestamp>) -> String {
    match time.and_then(self::time) {
        Some(time) => format!("{time:.0}"),
        None => "-".to_owned(),
    }
}

/// How long until a time, from now: `59m 58s`.
pub(super) fn until(time: Option<prost_types::Timestamp>) -> String {
    match time.and_then(self::time) {
        Some(time) => match Duration::try_from(time.duration_since(Timestamp::now())) {
            Ok(left) => super::units::duration(left),
            Err(_) => "now".to_owned(),
        },
        None => "-".to_owned(),
    }
}
