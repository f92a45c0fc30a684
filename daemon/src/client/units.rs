//! Numbers for people. JSON has them exact.

use std::time::Duration;

/// `1.5 MiB`.
pub(super) fn bytes(count: u64) -> String {
    scaled(
        count as f64,
        1024.0,
        &["B", "KiB", "MiB", "GiB", "TiB", "PiB"],
    )
}

/// `940 Mbit/s`.
pub(super) fn bits(rate: f64) -> String {
    let units = ["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"];
    scaled(rate, 1000.0, &units)
}

/// Packets or frames per second: `1.2 M/s`.
pub(super) fn rate(rate: f64) -> String {
    scaled(rate, 1000.0, &["/s", "k/s", "M/s", "G/s"])
}

/// Three digits and a unit.
fn scaled(value: f64, step: f64, units: &[&str]) -> String {
    let mut value = value;
    let mut unit = 0;
    // 999.5 would be printed as 1000.
    while value >= step - 0.5 && unit + 1 < units.len() {
        value /= step;
        unit += 1;
    }
    let digits = match value {
        v if unit == 0 && v.fract() == 0.0 => 0,
        v if v >= 99.95 => 0,
        _ => 1,
    };
    format!("{value:.digits$} {}", units[unit])
}

/// The two largest units: `3d 4h`, `59m 58s`, `1.5s`, `20ms`.
pub(super) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let two = |large: u64, l: &str, small: u64, s: &str| match small {
        0 => format!("{large}{l}"),
        _ => format!("{large}{l} {small}{s}"),
    };
    match seconds {
        86_400.. => two(seconds / 86_400, "d", seconds / 3600 % 24, "h"),
        3600.. => two(seconds / 3600, "h", seconds / 60 % 60, "m"),
        60.. => two(seconds / 60, "m", seconds % 60, "s"),
        10.. => format!("{seconds}s"),
        1.. if duration.subsec_millis() < 50 => format!("{seconds}s"),
        1.. => format!("{:.1}s", duration.as_secs_f64()),
        0 if duration.is_zero() => "0s".to_owned(),
        0 => format!("{}ms", duration.as_millis()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    #[test]
    fn three_digits_and_a_unit() {
        for (count, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (300 << 20, "300 MiB"),
            (u64::MAX, "16384 PiB"),
        ] {
            assert_eq!(super::bytes(count), text);
        }
        assert_eq!(super::bits(940e6), "940 Mbit/s");
        assert_eq!(super::bits(1e10), "10.0 Gbit/s");
        assert_eq!(super::rate(0.25), "0.2 /s");
        assert_eq!(super::rate(999.7), "1.0 k/s");
        assert_eq!(super::rate(1_234_567.0), "1.2 M/s");
    }

    #[test]
    fn durations() {
        for (milliseconds, text) in [
            (0, "0s"),
            (20, "20ms"),
            (1000, "1s"),
            (1500, "1.5s"),
            (59_900, "59s"),
            (3_598_000, "59m 58s"),
            (3_600_000, "1h"),
            (273_600_000, "3d 4h"),
        ] {
            assert_eq!(super::duration(Duration::from_millis(milliseconds)), text);
        }
    }
}
