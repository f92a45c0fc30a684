//! The metrics, by name: what each is. `docs/monitoring.md` says the same with its labels.

use metrics::Unit;

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::kernel) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// A metric.
#[derive(Debug, Clone, Copy)]
pub(in crate::kernel) struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    pub unit: Unit,
    pub help: &'static str,
}

/// Declares all metrics, and the list of them.
macro_rules! catalog {
    ($($constant:ident: $kind:ident $unit:ident $name:literal, $help:literal;)*) => {
        $(pub(in crate::kernel) const $constant: Metric = Metric {
            name: $name,
            kind: Kind::$kind,
            unit: Unit::$unit,
            help: $help,
        };)*
        /// All of them.
        pub(super) const ALL: &[Metric] = &[$($constant),*];
    };
}

catalog! {
    // Read from the kernel by `record_metrics`.
    PACKETS: Counter Count "xdpgate_packets_total",
        "Frames by interface, by what became of them and why; each is counted once.";
    BYTES: Counter Bytes "xdpgate_bytes_total",
        "Bytes of these frames, from the Ethernet header on.";
    RULE_PACKETS: Counter Count "xdpgate_rule_packets_total",
        "Packets that a rule decided or, if it only counts, that matched it. Only the rules with the most.";
    RULE_BYTES: Counter Bytes "xdpgate_rule_bytes_total",
        "Bytes of these packets.";
    RULE_DROPPED: Counter Count "xdpgate_rule_dropped_packets_total",
        "Packets of these that were dropped.";
    RULE_WOULD_DROP: Counter Count "xdpgate_rule_would_drop_packets_total",
        "Packets of these that passed only because of dry run or monitor mode.";
    RATE_OVERFLOW: Counter Count "xdpgate_rate_overflow_packets_total",
        "Packets that a limit per source judged by the shared budget, because there was no place for their source.";
    EVENTS: Counter Count "xdpgate_events_total",
        "Dropped frames while somebody listened to events, by what became of their event: sent, suppressed by a budget, lost.";

    // The policy in force.
    GENERATION: Gauge Count "xdpgate_policy_generation",
        "The generation of the policy in force; 0 before the first.";
    RULES: Gauge Count "xdpgate_rules",
        "Rules of the policy in force, by whether they are enabled.";
    SETS: Gauge Count "xdpgate_sets",
        "Address sets of the policy in force.";
    SET_ENTRIES: Gauge Count "xdpgate_set_entries",
        "Entries of all address sets of the policy in force.";
    EXPIRED_RULES: Gauge Count "xdpgate_expired_rules",
        "Rules of the policy in force that have expired.";
    EXPIRED_ENTRIES: Gauge Count "xdpgate_expired_set_entries",
        "Entries of sets of the policy in force that have expired.";
    IMAGE_BYTES: Gauge Bytes "xdpgate_policy_image_bytes",
        "The size of the image of the policy in force.";
    SAVED: Gauge Count "xdpgate_policy_saved",
        "0 if the policy in force could not be saved and would be lost with the next start, else 1.";
    TAKE_BACK_REFUSED: Gauge Count "xdpgate_take_back_refused",
        "How often the kernel refused to take back the change whose deadline is past; 0 if there is none.";
    APPLIED_AT: Gauge Seconds "xdpgate_last_apply_timestamp_seconds",
        "When the policy in force was put in force, in seconds since 1970; 0 before the first.";
    APPLIES: Counter Count "xdpgate_applies_total",
        "Policies and transactions that were to be put in force, by outcome: applied, refused, failed.";
    APPLY_DURATION: Histogram Seconds "xdpgate_apply_duration_seconds",
        "How long it took to put a policy in force, from the call to the switch and its saving.";
    COMPILE_DURATION: Histogram Seconds "xdpgate_compile_duration_seconds",
        "How much of that went into compiling it.";
    PUBLISH_DURATION: Histogram Seconds "xdpgate_publish_duration_seconds",
        "How much of that went into bringing it into the kernel and switching.";
    PLANS: Counter Count "xdpgate_plans_total",
        "Plans that were made, by outcome: planned, refused, failed.";
    PLAN_DURATION: Histogram Seconds "xdpgate_plan_duration_seconds",
        "How long it took to plan a policy.";

    // Interfaces.
    ATTACHED: Gauge Count "xdpgate_attached",
        "1 for each interface that is attached, by mode; 0 for one that was.";
    ATTACHED_INTERFACES: Gauge Count "xdpgate_attached_interfaces",
        "How many interfaces are attached.";
    ATTACHMENTS: Counter Count "xdpgate_attachments_total",
        "Interfaces that were attached, by mode.";
    ATTACH_FAILURES: Counter Count "xdpgate_attach_failures_total",
        "Interfaces that are there and could not be attached.";
    ATTACH_FALLBACKS: Counter Count "xdpgate_attach_fallbacks_total",
        "Better modes that an attached interface did not have, by that mode.";
    DETACHMENTS: Counter Count "xdpgate_detachments_total",
        "Interfaces that were detached, or went away.";
    OVERRUNS: Counter Count "xdpgate_netlink_overruns_total",
        "Times that messages about interfaces were lost, so that all were looked at.";

    // Bans.
    BANS: Gauge Count "xdpgate_bans",
        "Bans in force.";
    BANS_MADE: Counter Count "xdpgate_bans_made_total",
        "Bans that were made; to ban again what is banned is none.";
    BANS_LIFTED: Counter Count "xdpgate_bans_lifted_total",
        "Bans that were lifted.";
    BANS_EXPIRED: Counter Count "xdpgate_bans_expired_total",
        "Bans that expired.";

    // The whole.
    HEALTHY: Gauge Count "xdpgate_healthy",
        "1 if the policy in force is what judges on every interface that is attached, and none is overdue to be taken back, else 0.";
    DRY_RUN: Gauge Count "xdpgate_dry_run",
        "1 if nothing is dropped because of dry run, else 0.";
    BUILD_INFO: Gauge Count "xdpgate_build_info",
        "1; what runs is in the labels.";
}
