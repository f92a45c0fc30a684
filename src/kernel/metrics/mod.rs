//! What the firewall tells through the `metrics` facade. The catalog has all of it.
//!
//! What happens is told when it happens (attaching, applying); what the kernel counts, and what is so
//! rather than happens, is told by [`Firewall::record_metrics`].

mod catalog;
mod told;

pub(super) use catalog::*;
pub(super) use told::Told;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use metrics::{counter, gauge, histogram};

use super::error::ApplyError;
use super::firewall::{Firewall, lock};
use super::publish::Applied;
use super::stats::{InterfaceStats, RuleStats, Stats, VerdictCounts};
use super::{AttachMode, build_info};
use crate::policy::Policy;
use told::{RuleCount, Series};

/// What [`Firewall::record_metrics`] tells.
///
/// ```
/// let options = xdpgate::MetricsOptions::default().top_rules(50);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "options do nothing by themselves"]
pub struct MetricsOptions {
    top_rules: usize,
}

impl Default for MetricsOptions {
    fn default() -> Self {
        Self { top_rules: 20 }
    }
}

impl MetricsOptions {
    /// Of how many rules the counters are told: those with the most packets. 20 unless set; each is
    /// four time series.
    pub fn top_rules(self, rules: usize) -> Self {
        Self { top_rules: rules }
    }
}

/// Describes all metrics of the library to the recorder that is installed: units and texts of help.
/// To be called once, after the program has installed its exporter.
pub fn describe_metrics() {
    for Metric {
        name,
        kind,
        unit,
        help,
    } in ALL
    {
        match kind {
            Kind::Counter => metrics::describe_counter!(*name, *unit, *help),
            Kind::Gauge => metrics::describe_gauge!(*name, *unit, *help),
            Kind::Histogram => metrics::describe_histogram!(*name, *unit, *help),
        }
    }
}

/// What a firewall keeps for its metrics.
#[derive(Debug, Default)]
pub(super) struct Telemetry {
    told: Mutex<Told>,
    /// Bans that were in force at the beginning, and that were made and lifted since.
    bans_before: u64,
    pub bans_made: AtomicU64,
    pub bans_lifted: AtomicU64,
    /// Seconds since 1970, as the bits of an `f64`.
    applied_at: AtomicU64,
}

impl Telemetry {
    pub(super) fn new(bans: usize) -> Self {
        Self {
            bans_before: bans as u64,
            ..Self::default()
        }
    }

    /// Says how an attempt to put a policy in force ended.
    pub(super) fn applied(&self, started: Instant, result: &Result<Applied, ApplyError>) {
        let outcome = match result {
            Ok(applied) => {
                let now = Timestamp::now().as_duration().as_secs_f64();
                self.applied_at.store(now.to_bits(), Ordering::Relaxed);
                observe(APPLY_DURATION, started.elapsed());
                observe(COMPILE_DURATION, applied.compile);
                observe(PUBLISH_DURATION, applied.publish);
                "applied"
            }
            Err(error) => failure(error),
        };
        counter!(APPLIES.name, "outcome" => outcome).increment(1);
    }
}

/// Says that a transaction was refused before there was anything to be put in force.
pub(super) fn refused_changes() {
    counter!(APPLIES.name, "outcome" => "refused").increment(1);
}

/// Says how a plan ended.
pub(super) fn planned<T>(started: Instant, result: &Result<T, ApplyError>) {
    let outcome = match result {
        Ok(_) => "planned",
        Err(error) => failure(error),
    };
    observe(PLAN_DURATION, started.elapsed());
    counter!(PLANS.name, "outcome" => outcome).increment(1);
}

fn failure(error: &ApplyError) -> &'static str {
    match error {
        ApplyError::Policy(_) | ApplyError::Limit { .. } | ApplyError::Pending(_) => "refused",
        ApplyError::Verifier { .. } | ApplyError::Syscall { .. } => "failed",
    }
}

fn observe(metric: Metric, duration: Duration) {
    histogram!(metric.name).record(duration.as_secs_f64());
}

impl Firewall {
    /// Tells the `metrics` facade what the kernel counted and how all stands; to be called before each
    /// time that an exporter is read. It takes a snapshot, as [`Firewall::stats`], and asks for the
    /// [health](Firewall::health).
    ///
    /// How many time series there are is bounded: by interfaces
    /// ([`Loader::max_interfaces`](crate::Loader::max_interfaces)) with the reasons and verdicts that
    /// their frames had, and by [`MetricsOptions::top_rules`]. The facade has no way to end a series:
    /// those of interfaces that are gone and of rules that are not among the first any more are not
    /// told any more, so let the exporter forget counters and gauges that are idle for longer than a few of
    /// its readings. All others are told each time.
    ///
    /// Counters that begin anew in the kernel go on in metrics, so that they never fall. Have one
    /// firewall in a process, or a recorder for each: its metrics do not say which it is of.
    ///
    /// ```no_run
    /// use xdpgate::{Firewall, MetricsOptions, describe_metrics};
    ///
    /// # fn render() -> String { String::new() }
    /// // An exporter of the metrics facade is installed before.
    /// describe_metrics();
    /// let firewall = Firewall::loader().load()?;
    /// firewall.record_metrics(MetricsOptions::default());
    /// println!("{}", render());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn record_metrics(&self, options: MetricsOptions) {
        let mut told = lock(&self.core.telemetry.told);
        let stats = self.stats();
        for interface in &stats.interfaces {
            record_interface(&mut told, interface);
        }
        record_counts(&mut told, "", &stats.other);
        for rule in top(&stats.rules, options.top_rules) {
            record_rule(&mut told, rule);
        }
        counter!(RATE_OVERFLOW.name).absolute(told.overflow(&stats));
        self.record_attached(&mut told);
        told.end();
        drop(told);

        self.record_policy(&stats);
        self.record_bans();
        touch();
        let events = self.event_stats();
        for (outcome, frames) in [
            ("sent", events.sent),
            ("suppressed", events.suppressed),
            ("lost", events.lost),
        ] {
            counter!(EVENTS.name, "outcome" => outcome).absolute(frames);
        }
        set(DRY_RUN, u8::from(self.dry_run()));
        let build = build_info();
        gauge!(
            BUILD_INFO.name,
            "version" => build.version,
            "clang" => build.clang,
            "image_layout" => build.image_layout.to_string()
        )
        .set(1.0);
        // It tells the gauge of it; what is wrong is for who asks.
        let _ = self.health();
    }

    fn record_attached(&self, told: &mut Told) {
        let attachments = self.attachments();
        let now: Vec<(String, &'static str)> = attachments
            .into_iter()
            .map(|a| (a.name, a.mode.as_str()))
            .collect();
        let attached = |(name, mode): &(String, &'static str), value: f64| {
            gauge!(ATTACHED.name, "interface" => name.clone(), "mode" => *mode).set(value);
        };
        for gone in told.attached.iter().filter(|was| !now.contains(was)) {
            attached(gone, 0.0);
        }
        now.iter().for_each(|is| attached(is, 1.0));
        gauge!(ATTACHED_INTERFACES.name).set(now.len() as f64);
        told.attached = now;
    }

    fn record_policy(&self, stats: &Stats) {
        let generation = stats.generation.map_or(0, |g| g.get());
        gauge!(GENERATION.name).set(generation as f64);
        let none = Policy::default();
        let active = self.active();
        let policy = active.as_ref().map_or(&none, |a| &*a.policy);
        let now = Timestamp::now();
        let rules = policy.rules();
        let enabled = rules.iter().filter(|r| r.enabled).count();
        for (state, count) in [("true", enabled), ("false", rules.len() - enabled)] {
            gauge!(RULES.name, "enabled" => state).set(count as f64);
        }
        let is_over = |at: Option<Timestamp>| at.is_some_and(|at| at <= now);
        let expired = rules.iter().filter(|r| is_over(r.expires)).count();
        let sets = policy.sets().values();
        let entries = sets.clone().flat_map(|set| set.expiring());
        let expired_entries = entries.filter(|(_, at)| *at <= now).count();
        let image = active.as_ref().map_or(0, |a| a.image_bytes);
        for (metric, count) in [
            (EXPIRED_RULES, expired),
            (SETS, sets.len()),
            (SET_ENTRIES, sets.map(|set| set.len()).sum()),
            (EXPIRED_ENTRIES, expired_entries),
            (IMAGE_BYTES, image),
        ] {
            gauge!(metric.name).set(count as f64);
        }
        let telemetry = &self.core.telemetry;
        set(SAVED, u8::from(self.saved().is_ok()));
        let refused = self.pending().and_then(|p| p.refused);
        gauge!(TAKE_BACK_REFUSED.name).set(refused.map_or(0.0, |r| r.tries.into()));
        let applied_at = f64::from_bits(telemetry.applied_at.load(Ordering::Relaxed));
        gauge!(APPLIED_AT.name).set(applied_at);
    }

    fn record_bans(&self) {
        let telemetry = &self.core.telemetry;
        // Together, or one that comes or goes between them is taken for one that expired.
        let (in_force, made, lifted) = self.count_bans();
        let expired = (telemetry.bans_before + made).saturating_sub(lifted + in_force);
        gauge!(BANS.name).set(in_force as f64);
        counter!(BANS_MADE.name).absolute(made);
        counter!(BANS_LIFTED.name).absolute(lifted);
        counter!(BANS_EXPIRED.name).absolute(expired);
    }
}

fn record_interface(told: &mut Told, interface: &InterfaceStats) {
    record_counts(told, &interface.name, &interface.counts);
}

fn record_counts(told: &mut Told, interface: &str, counts: &VerdictCounts) {
    for found in counts.iter() {
        let (reason, verdict) = (found.reason, found.disposition);
        let name = || interface.to_owned();
        let packets = Series::Packets(name(), verdict, reason);
        let bytes = Series::Bytes(name(), verdict, reason);
        for (metric, series, count) in [
            (PACKETS, packets, found.count.packets),
            (BYTES, bytes, found.count.bytes),
        ] {
            counter!(
                metric.name,
                "interface" => name(),
                "verdict" => verdict.as_str(),
                "reason" => reason.as_str()
            )
            .absolute(told.value(series, count));
        }
    }
}

/// The rules with the most packets, without those that have none.
fn top(rules: &[RuleStats], most: usize) -> Vec<&RuleStats> {
    let mut rules: Vec<&RuleStats> = rules.iter().filter(|r| r.matched.packets > 0).collect();
    // Of equals always the same ones.
    rules.sort_by(|a, b| {
        let by_packets = b.matched.packets.cmp(&a.matched.packets);
        by_packets.then_with(|| a.id.cmp(&b.id))
    });
    rules.truncate(most);
    rules
}

fn record_rule(told: &mut Told, rule: &RuleStats) {
    for (metric, which, count) in [
        (RULE_PACKETS, RuleCount::Packets, rule.matched.packets),
        (RULE_BYTES, RuleCount::Bytes, rule.matched.bytes),
        (RULE_DROPPED, RuleCount::Dropped, rule.dropped),
        (RULE_WOULD_DROP, RuleCount::WouldDrop, rule.would_drop),
    ] {
        let value = told.value(Series::Rule(rule.id.clone(), which), count);
        counter!(metric.name, "rule" => rule.id.to_string()).absolute(value);
    }
}

fn set(metric: Metric, value: u8) {
    gauge!(metric.name).set(f64::from(value));
}

/// Counters of what happens are there from the start, at 0, and never idle.
fn touch() {
    for metric in [ATTACH_FAILURES, DETACHMENTS, OVERRUNS] {
        counter!(metric.name).increment(0);
    }
    for mode in [AttachMode::Native, AttachMode::Generic, AttachMode::Offload] {
        counter!(ATTACHMENTS.name, "mode" => mode.as_str()).increment(0);
        counter!(ATTACH_FALLBACKS.name, "mode" => mode.as_str()).increment(0);
    }
    for outcome in ["applied", "refused", "failed"] {
        counter!(APPLIES.name, "outcome" => outcome).increment(0);
    }
    for outcome in ["planned", "refused", "failed"] {
        counter!(PLANS.name, "outcome" => outcome).increment(0);
    }
}
