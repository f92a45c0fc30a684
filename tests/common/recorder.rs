//! A recorder of the metrics facade that keeps what it is told.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};

/// Counters and gauges by name and labels: `name{label=value,...}`.
#[derive(Default, Clone)]
pub struct Counters {
    values: Arc<Mutex<BTreeMap<String, Arc<AtomicU64>>>>,
    described: Arc<Mutex<Vec<String>>>,
}

impl Counters {
    pub fn get(&self, name: &str) -> u64 {
        let values = self.values.lock().unwrap();
        values.get(name).map_or(0, |c| c.load(Ordering::SeqCst))
    }

    pub fn gauge(&self, name: &str) -> f64 {
        f64::from_bits(self.get(name))
    }

    /// All names that were told, without labels.
    pub fn names(&self) -> Vec<String> {
        let values = self.values.lock().unwrap();
        let names = values.keys().filter_map(|k| k.split('{').next());
        let mut names: Vec<String> = names.map(str::to_owned).collect();
        names.dedup();
        names
    }

    /// All names that were described.
    pub fn described(&self) -> Vec<String> {
        self.described.lock().unwrap().clone()
    }

    fn describe(&self, name: &KeyName, help: &SharedString) {
        assert!(!help.is_empty(), "{name:?}");
        self.described
            .lock()
            .unwrap()
            .push(name.as_str().to_owned());
    }

    fn value(&self, key: &Key) -> Arc<AtomicU64> {
        let labels = key.labels().map(|l| format!("{}={}", l.key(), l.value()));
        let labels: Vec<String> = labels.collect();
        let name = format!("{}{{{}}}", key.name(), labels.join(","));
        let mut values = self.values.lock().unwrap();
        Arc::clone(values.entry(name).or_default())
    }
}

impl Recorder for Counters {
    fn describe_counter(&self, name: KeyName, _: Option<Unit>, help: SharedString) {
        self.describe(&name, &help);
    }

    fn describe_gauge(&self, name: KeyName, _: Option<Unit>, help: SharedString) {
        self.describe(&name, &help);
    }

    fn describe_histogram(&self, name: KeyName, _: Option<Unit>, help: SharedString) {
        self.describe(&name, &help);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.value(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.value(key))
    }

    /// Only that it was told is kept.
    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        self.value(key);
        Histogram::noop()
    }
}
