//! Metrics and health over HTTP, on a listener of their own: they answer while the daemon starts and
//! stops too.

mod connections;
mod pages;
mod section;

pub(super) use section::Metrics;

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use metrics_exporter_prometheus::{
    BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};
use metrics_util::MetricKindMask;
use tokio::runtime::Runtime;
use xdpgate::{Firewall, MetricsOptions};

use super::listen::Listener;
use crate::Failure;

/// A listener that nobody serves yet, and the recorder of all metrics from now on.
#[derive(Debug)]
pub(super) struct Monitor {
    listener: Listener,
    state: Arc<State>,
}

/// Tells those who ask how far the daemon is; without a listener it tells nobody.
#[derive(Debug, Clone, Default)]
pub(super) struct Told(Option<Arc<State>>);

/// What the pages are made of.
#[derive(Debug)]
struct State {
    /// Set once there is one. Weak, because the monitor must not keep it from being dropped.
    firewall: OnceLock<Weak<Firewall>>,
    stopping: OnceLock<()>,
    exporter: PrometheusHandle,
    options: MetricsOptions,
    /// Held while metrics are read and while health is asked for: one of each at a time.
    reading: Arc<tokio::sync::Mutex<()>>,
    /// How long an answer may take.
    patience: Duration,
    asking: Arc<tokio::sync::Mutex<()>>,
}

impl Monitor {
    /// Opens the listener, if there is to be one. To be called while the process has one thread.
    pub(super) fn open(section: &Metrics) -> Result<Option<Self>, Failure> {
        let endpoint = section.endpoint();
        let Some(endpoint) = endpoint.map_err(Failure::Input)? else {
            return Ok(None);
        };
        let listener = Listener::bind_private("metrics.listen", &endpoint)?;
        Ok(Some(Self {
            listener,
            state: Arc::new(State {
                firewall: OnceLock::new(),
                stopping: OnceLock::new(),
                exporter: install_recorder().map_err(Failure::operation)?,
                options: MetricsOptions::default().top_rules(section.top_rules.into()),
                reading: Arc::default(),
                patience: PATIENCE,
                asking: Arc::default(),
            }),
        }))
    }

    /// Serves it from now on, until the runtime ends.
    pub(super) fn serve(self, runtime: &Runtime) -> Result<Told, Failure> {
        let Self { listener, state } = self;
        log::info!("metrics and health at {}", listener.endpoint());
        let pages = pages::router(Arc::clone(&state));
        let _entered = runtime.enter();
        let serving = connections::serve(listener, pages).map_err(Failure::operation)?;
        runtime.spawn(serving);
        runtime.spawn(keep_up(state.exporter.clone()));
        Ok(Told(Some(state)))
    }
}

impl Told {
    /// All is up: the API is served.
    pub(super) fn serving(&self, firewall: &Arc<Firewall>) {
        if let Some(state) = &self.0 {
            // Said once.
            let _ = state.firewall.set(Arc::downgrade(firewall));
        }
    }

    /// From now on all ends.
    pub(super) fn stopping(&self) {
        if let Some(state) = &self.0 {
            let _ = state.stopping.set(());
        }
    }
}

/// Counters and gauges of interfaces and rules that are gone end after a while; the library tells all
/// others each time.
fn install_recorder() -> Result<PrometheusHandle, Box<dyn std::error::Error>> {
    let recorder = recorder(IDLE)?;
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder)?;
    xdpgate::describe_metrics();
    super::fleet::describe_metrics();
    Ok(handle)
}

fn recorder(idle: Duration) -> Result<PrometheusRecorder, BuildError> {
    let durations = Matcher::Suffix("_duration_seconds".to_owned());
    let idling = MetricKindMask::COUNTER | MetricKindMask::GAUGE;
    let builder = PrometheusBuilder::new().set_buckets_for_metric(durations, &BUCKETS)?;
    Ok(builder.idle_timeout(idling, Some(idle)).build_recorder())
}

/// What histograms were told is kept one by one until then, also where nobody reads it.
async fn keep_up(exporter: PrometheusHandle) {
    let mut every = tokio::time::interval(Duration::from_secs(5));
    loop {
        every.tick().await;
        exporter.run_upkeep();
    }
}

const PATIENCE: Duration = Duration::from_secs(10);
const IDLE: Duration = Duration::from_secs(300);

/// From a ban list of a few hosts to a hundred thousand rules, in seconds.
const BUCKETS: [f64; 12] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_told_any_more_ends() {
        let recorder = recorder(Duration::from_millis(50)).unwrap();
        let exporter = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            let interface = |name| metrics::counter!("packets_total", "interface" => name);
            interface("gone").absolute(7);
            interface("here").absolute(3);
            metrics::histogram!("apply_duration_seconds").record(0.002);
            let text = exporter.render();
            assert!(text.contains("interface=\"gone\"} 7"), "{text}");
            std::thread::sleep(Duration::from_millis(100));
            // The same as before, and told all the same.
            interface("here").absolute(3);
            let text = exporter.render();
            assert!(!text.contains("gone"), "{text}");
            assert!(text.contains("interface=\"here\"} 3"), "{text}");
            // What happens is not told each time, and stays.
            assert!(
                text.contains("apply_duration_seconds_bucket{le=\"0.0025\"} 1"),
                "{text}"
            );
        });
    }
}
