//! Metrics of the controller, for Prometheus: `GET /api/v1/metrics`.
//!
//! What happens is counted where it happens; what is there (nodes, rollouts, the sums of the fleet) is read at each
//! scrape. No label has the name of a node, a rule or a user.

mod catalog;
mod store;

use std::collections::BTreeMap;
use std::time::Duration;

use metrics::{counter, gauge, histogram};
use metrics_exporter_prometheus::{
    BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};
use metrics_util::MetricKindMask;

pub(crate) use catalog::*;
pub(crate) use store::Measured;

use crate::auth::authority::Authority;
use crate::core::Core;
use crate::fleet::{Count, Fate, Fleet};
use crate::rollout;

/// From a look-up to a fleet that takes its time, in seconds.
const BUCKETS: [f64; 15] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];
/// A gauge that is not told for this long is of something that is gone, as a feed.
const IDLE: Duration = Duration::from_secs(300);
/// What histograms were told is kept one by one until then, also where nobody reads it.
const UPKEEP: Duration = Duration::from_secs(5);

/// Records from now on all that is counted in this process. Once in a process.
///
/// # Errors
/// There is a recorder already.
pub(crate) fn install() -> Result<PrometheusHandle, Box<dyn std::error::Error>> {
    let recorder = recorder()?;
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder)?;
    describe();
    Ok(handle)
}

fn recorder() -> Result<PrometheusRecorder, BuildError> {
    let durations = Matcher::Suffix("_duration_seconds".to_owned());
    let builder = PrometheusBuilder::new().set_buckets_for_metric(durations, &BUCKETS)?;
    let builder = builder.idle_timeout(MetricKindMask::GAUGE, Some(IDLE));
    Ok(builder.build_recorder())
}

/// Says what the metrics are, and begins at 0 those whose labels are known.
fn describe() {
    for metric in ALL {
        let (name, unit) = (metric.name, metric.unit);
        match metric.kind {
            Kind::Counter => metrics::describe_counter!(name, unit, metric.help),
            Kind::Gauge => metrics::describe_gauge!(name, unit, metric.help),
            Kind::Histogram => metrics::describe_histogram!(name, unit, metric.help),
        }
        let begin = |labels: &[(&'static str, &'static str)]| match metric.kind {
            Kind::Counter => counter!(name, labels).increment(0),
            // Read at each scrape.
            Kind::Gauge => (),
            Kind::Histogram => drop(histogram!(name, labels)),
        };
        match metric.label {
            None => begin(&[]),
            Some((label, values)) => values.iter().for_each(|value| begin(&[(label, value)])),
        }
    }
}

/// What a scrape reads.
#[derive(Debug, Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
    core: Core,
    fleet: Fleet,
    authority: Authority,
}

impl Metrics {
    pub(crate) fn new(
        handle: PrometheusHandle,
        core: Core,
        fleet: Fleet,
        authority: Authority,
    ) -> Self {
        Self {
            handle,
            core,
            fleet,
            authority,
        }
    }

    /// All of them in the text format of Prometheus, those of the process too. Looks at every node, up to once a second: not
    /// for async threads.
    pub(crate) fn page(&self) -> String {
        self.read();
        let mut text = self.handle.render();
        text.push_str(&xdpgate_service::process::exposition());
        text
    }

    /// Goes on until it is aborted.
    pub(crate) async fn keep_up(self) {
        let mut every = tokio::time::interval(UPKEEP);
        loop {
            every.tick().await;
            self.handle.run_upkeep();
        }
    }

    #[allow(clippy::cast_precision_loss, reason = "a metric")]
    fn read(&self) {
        let overview = self.fleet.overview();
        for (state, count) in &overview.states {
            gauge!(NODES, "state" => word(state)).set(f64::from(*count));
        }
        gauge!(NODES_ONLINE).set(f64::from(overview.online));
        gauge!(NODES_APPLIED).set(f64::from(overview.applied));
        gauge!(SESSIONS).set(self.fleet.sessions() as f64);
        let (deltas, snapshots) = self.fleet.computed();
        counter!(COMPUTED, "kind" => "delta").absolute(deltas);
        counter!(COMPUTED, "kind" => "snapshot").absolute(snapshots);
        let mut sums = BTreeMap::<Fate, Count>::new();
        for row in overview.counts.iter().flatten() {
            let sum = sums.entry(row.fate).or_default();
            sum.packets = sum.packets.saturating_add(row.count.packets);
            sum.bytes = sum.bytes.saturating_add(row.count.bytes);
        }
        for (fate, sum) in sums {
            let verdict = word(&fate);
            counter!(PACKETS, "verdict" => verdict.clone()).absolute(sum.packets);
            counter!(BYTES, "verdict" => verdict).absolute(sum.bytes);
        }
        let view = self.core.view();
        gauge!(REVISION).set(view.revision().0 as f64);
        use rollout::State;
        for state in [
            State::Running,
            State::Paused,
            State::Done,
            State::Aborted,
            State::RolledBack,
        ] {
            let all = view.rollouts().values();
            let count = all.filter(|rollout| rollout.state == state).count();
            gauge!(ROLLOUTS, "state" => word(&state)).set(count as f64);
        }
        let expiries = self.authority.list().into_iter().map(|one| one.expires);
        if let Some(first) = expiries.min() {
            gauge!(AUTHORITY).set(first.as_second() as f64);
        }
        gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    }
}

/// The word that the API has for it.
pub(crate) fn word(of: &impl serde::Serialize) -> String {
    match serde_json::to_value(of) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}
