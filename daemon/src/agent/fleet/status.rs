//! How the node stands with its fleet, for people and Prometheus.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use metrics::Unit;
use xdpgate_api::fleet::v1::State;
use xdpgate_api::v1::{FleetRefusal, FleetState, FleetStatus};

use super::decide::{Held, Refusal, hex};
use crate::agent::convert;

/// What is known of the link.
#[derive(Debug, Clone, Default)]
pub(super) struct Status(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    node_id: String,
    controller: Option<String>,
    since: Timestamp,
    /// When a controller was connected last, if it is not now.
    contact: Option<Timestamp>,
    problem: Option<String>,
    /// Of the last look at the memory of the policy.
    memory: Option<String>,
    refusal: Option<FleetRefusal>,
    expires: Option<i64>,
    signed: bool,
}

impl Default for Inner {
    fn default() -> Self {
        Self {
            node_id: String::new(),
            controller: None,
            since: Timestamp::now(),
            contact: None,
            problem: None,
            memory: None,
            refusal: None,
            expires: None,
            signed: false,
        }
    }
}

const CONNECTED: &str = "xdpgate_fleet_connected";
const CONTACT: &str = "xdpgate_fleet_last_contact_timestamp_seconds";
const STATES: &str = "xdpgate_fleet_states_total";
const EXPIRES: &str = "xdpgate_fleet_certificate_expiry_timestamp_seconds";
const SEQUENCE: &str = "xdpgate_fleet_sequence";
const REPAIRS: &str = "xdpgate_fleet_memory_repairs_total";

/// Says what the metrics are.
pub(in crate::agent) fn describe_metrics() {
    metrics::describe_gauge!(CONNECTED, Unit::Count, "Whether a controller is connected.");
    metrics::describe_gauge!(
        CONTACT,
        Unit::Seconds,
        "When a controller was connected last since the daemon began, in seconds since 1970; 0 if none was."
    );
    metrics::describe_counter!(
        STATES,
        Unit::Count,
        "States that controllers sent, by what became of them: applied, or why they were refused."
    );
    metrics::describe_gauge!(
        EXPIRES,
        Unit::Seconds,
        "When the certificate of the node expires, in seconds since 1970."
    );
    metrics::describe_gauge!(
        SEQUENCE,
        Unit::Count,
        "The number of the last state that was put in force; 0 before the first."
    );
    metrics::describe_counter!(
        REPAIRS,
        Unit::Count,
        "How often the policy was published anew because the kernel did not hold what was written."
    );
}

impl Status {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn member(&self, node_id: &str, expires: Option<i64>, signed: bool) {
        let mut inner = self.lock();
        node_id.clone_into(&mut inner.node_id);
        (inner.expires, inner.signed) = (expires, signed);
    }

    pub(super) fn connected(&self, controller: &str) {
        let mut inner = self.lock();
        (inner.controller, inner.problem) = (Some(controller.to_owned()), None);
        inner.since = Timestamp::now();
        log::info!("fleet: connected to {controller} as {}", inner.node_id);
    }

    /// It is not connected any more, or still not; said once for each reason.
    pub(super) fn lost(&self, problem: &str) {
        let mut inner = self.lock();
        if inner.controller.take().is_some() {
            inner.since = Timestamp::now();
            inner.contact = Some(inner.since);
        }
        if inner.problem.as_deref() != Some(problem) {
            log::warn!("fleet: {problem}");
        }
        inner.problem = Some(problem.to_owned());
    }

    pub(super) fn applied(&self, state: Option<&State>) {
        metrics::counter!(STATES, "outcome" => "applied").increment(1);
        if let Some(state) = state.filter(|state| state.sequence > 0) {
            let (sequence, hash) = (state.sequence, hex(&state.hash));
            log::info!(sequence, hash = hash.as_str(); "fleet: state {sequence} is in force");
        }
    }

    pub(super) fn refused(&self, state: Option<&State>, refusal: &Refusal) {
        let name = refusal.reason.as_str_name().to_lowercase();
        let reason = name.strip_prefix("reason_").unwrap_or(&name).to_owned();
        let sequence = state.map_or(0, |state| state.sequence);
        metrics::counter!(STATES, "outcome" => reason.clone()).increment(1);
        log::warn!(
            sequence, reason = reason.as_str();
            "fleet: state {sequence} is refused, what was in force is: {}", refusal.error
        );
        let state = state.map(|state| FleetState {
            epoch: state.epoch.clone(),
            sequence,
            hash: hex(&state.hash),
            time: Some(convert::now()),
        });
        self.lock().refusal = Some(FleetRefusal {
            state,
            reason,
            error: refusal.error.clone(),
        });
    }

    /// What was found of the policy in the kernel.
    pub(super) fn memory(&self, problem: Option<String>) {
        self.lock().memory = problem;
    }

    pub(super) fn repaired(&self) {
        metrics::counter!(REPAIRS).increment(1);
    }

    /// What does not change is told again and again: what is not told any more ends.
    pub(super) fn tell(&self, held: &Held) {
        let inner = self.lock();
        let connected = inner.controller.is_some();
        metrics::gauge!(CONNECTED).set(f64::from(u8::from(connected)));
        let contact = match connected {
            true => Some(Timestamp::now()),
            false => inner.contact,
        };
        metrics::gauge!(CONTACT).set(contact.map_or(0.0, |at| at.as_second() as f64));
        let sequence = held.state.as_ref().map_or(0, |state| state.sequence);
        metrics::gauge!(SEQUENCE).set(sequence as f64);
        if let Some(expires) = inner.expires {
            metrics::gauge!(EXPIRES).set(expires as f64);
        }
        metrics::counter!(REPAIRS).increment(0);
        metrics::counter!(STATES, "outcome" => "applied").increment(0);
    }

    pub(super) fn message(
        &self,
        held: &Held,
        hash: Option<String>,
        panic_off: bool,
    ) -> FleetStatus {
        let inner = self.lock();
        let state = held.state.as_ref();
        FleetStatus {
            node_id: inner.node_id.clone(),
            controller: inner.controller.clone(),
            since: Some(convert::timestamp(inner.since)),
            problem: inner.problem.clone().or_else(|| inner.memory.clone()),
            changed_here: state.is_some_and(|state| Some(&state.hash) != hash.as_ref()),
            state: state.map(|state| FleetState {
                epoch: state.epoch.clone(),
                sequence: state.sequence,
                hash: state.hash.clone(),
                time: Some(convert::timestamp(state.time.0)),
            }),
            refusal: inner.refusal.clone(),
            certificate_expires: inner
                .expires
                .map(|seconds| prost_types::Timestamp { seconds, nanos: 0 }),
            signed: inner.signed,
            panic_off,
        }
    }
}
