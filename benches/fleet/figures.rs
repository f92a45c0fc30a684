//! Numbers, as one line of JSON each and as a table at the end.

use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

/// Figures of all scenarios.
#[derive(Default)]
pub struct Figures(Vec<(String, Map<String, Value>)>);

impl Figures {
    /// Prints those of one scenario, and keeps them for the table.
    pub fn add(&mut self, scenario: &str, figures: Value) {
        let mut line = json!({ "scenario": scenario });
        if let (Value::Object(line), Value::Object(figures)) = (&mut line, figures) {
            line.extend(figures.clone());
            self.0.push((scenario.to_owned(), figures));
        }
        println!("{line}");
    }

    /// Prints all of them.
    pub fn table(&self) {
        println!();
        for (scenario, figures) in &self.0 {
            println!("{scenario}");
            for (name, value) in figures {
                println!("  {name:<36} {value:>14}");
            }
        }
    }
}

/// p50, p99 and the last, in ms since a moment.
pub fn spread(began: Instant, mut moments: Vec<Instant>) -> (f64, f64, f64) {
    moments.sort();
    let at = |share: f64| {
        let place = (share * moments.len() as f64).ceil() as usize;
        let moment = moments.get(place.saturating_sub(1).min(moments.len().saturating_sub(1)));
        moment.map_or(f64::NAN, |at| millis(at.saturating_duration_since(began)))
    };
    (at(0.5), at(0.99), at(1.0))
}

/// In ms, to a tenth.
pub fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 10_000.0).round() / 10.0
}

/// The middle one.
pub fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}
