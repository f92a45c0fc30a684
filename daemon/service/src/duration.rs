//! Durations as people write them: `90s`, `10m`, `1h30m`, `7d`.

use std::time::Duration;

use jiff::{Span, SpanRelativeTo};

/// Parses a duration for clap. A day has 24 hours.
///
/// # Errors
/// What is wrong, and how to write one.
pub fn parse(text: &str) -> Result<Duration, String> {
    let wrong = "write it as 90s, 10m, 1h30m or 7d";
    if text.trim().parse::<f64>().is_ok() {
        return Err(format!("{text:?} has no unit; {wrong}"));
    }
    let span: Span = text.parse().map_err(|_| wrong.to_owned())?;
    let days = SpanRelativeTo::days_are_24_hours();
    let duration = span
        .to_duration(days)
        .map_err(|_| format!("months and years are of no fixed length; {wrong}"))?;
    Duration::try_from(duration).map_err(|_| "it is less than nothing".to_owned())
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn forms() {
        for (text, seconds) in [
            ("90s", 90.0),
            ("10m", 600.0),
            ("1h30m", 5400.0),
            ("1h 30m", 5400.0),
            ("1d1h59m59s960ms", 93599.96),
            ("7d", 604_800.0),
            ("2w", 1_209_600.0),
            ("500ms", 0.5),
            ("0s", 0.0),
        ] {
            assert_eq!(parse(text).unwrap().as_secs_f64(), seconds, "{text}");
        }
        assert!(parse("60").unwrap_err().contains("no unit"));
        assert!(parse("1mo").unwrap_err().contains("months"));
        assert!(parse("-5s").unwrap_err().contains("less than nothing"));
        for wrong in ["", "soon", "5 parsecs", "s"] {
            assert!(parse(wrong).unwrap_err().contains("90s"), "{wrong}");
        }
    }
}
