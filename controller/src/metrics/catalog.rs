//! The metrics, by name: what each is, and the labels that it has from the start. `docs/monitoring-fleet.md` says the same.

use metrics::Unit;

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// A metric.
#[derive(Debug, Clone, Copy)]
pub(super) struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    pub unit: Unit,
    pub help: &'static str,
    /// A label and all of its values, where these are known: such series are there with 0 before anything happens, so
    /// that Prometheus sees the first increment. Empty: others make the series.
    pub label: Option<(&'static str, &'static [&'static str])>,
}

/// Declares all metrics, and the list of them.
macro_rules! catalog {
    ($($constant:ident: $kind:ident $unit:ident $name:literal $([$label:literal: $($value:literal)*])?, $help:literal;)*) => {
        $(pub(crate) const $constant: &str = $name;)*
        /// All of them.
        pub(super) const ALL: &[Metric] = &[$(Metric {
            name: $name,
            kind: Kind::$kind,
            unit: Unit::$unit,
            help: $help,
            label: catalog!(@label $($label: $($value)*)?),
        }),*];
    };
    (@label) => { None };
    (@label $label:literal: $($value:literal)*) => { Some(($label, &[$($value),*])) };
}

catalog! {
    // Nodes and their sessions.
    NODES: Gauge Count "xdpgate_controller_nodes" ["state":],
        "Registered nodes by how they are.";
    NODES_ONLINE: Gauge Count "xdpgate_controller_nodes_online",
        "Nodes whose heartbeats come.";
    NODES_APPLIED: Gauge Count "xdpgate_controller_nodes_applied",
        "Nodes that have in force what they shall have.";
    SESSIONS: Gauge Count "xdpgate_controller_sessions",
        "Sessions of nodes at this controller.";
    SESSIONS_BEGUN: Counter Count "xdpgate_controller_sessions_begun_total",
        "Sessions that began.";
    SESSIONS_REFUSED: Counter Count "xdpgate_controller_sessions_refused_total"
        ["reason": "identity" "full" "rate" "stopping"],
        "Sessions that were refused, by why.";
    MEMBERS: Counter Count "xdpgate_controller_members_total"
        ["outcome": "joined" "join_refused" "renewed" "renewal_refused"],
        "Requests of nodes to join and to renew their certificates, by what became of them.";

    // What nodes are sent, and what becomes of it.
    SENT: Counter Count "xdpgate_controller_states_sent_total" ["kind": "delta" "snapshot"],
        "States that were sent, by kind.";
    SENT_BYTES: Counter Bytes "xdpgate_controller_states_sent_bytes_total" ["kind": "delta" "snapshot" "chunk"],
        "Bytes of these, and of the chunks of snapshots that nodes fetched, as they go into the stream.";
    COMPUTED: Counter Count "xdpgate_controller_states_computed_total" ["kind": "delta" "snapshot"],
        "Deltas and snapshots that were computed; each may be sent to many.";
    APPLIED: Counter Count "xdpgate_controller_states_applied_total",
        "States that nodes acknowledged.";
    REFUSED: Counter Count "xdpgate_controller_states_refused_total"
        ["reason": "unspecified" "base" "hash" "signature" "stale" "policy" "node" "chunks"],
        "States that nodes refused, by the reason that they gave.";
    OVERDUE: Counter Count "xdpgate_controller_states_overdue_total",
        "States that were not answered in time.";
    DRIFT: Counter Count "xdpgate_controller_drift_total",
        "Times that a node had something else in force than it acknowledged, and was put right.";
    ACKNOWLEDGE: Histogram Seconds "xdpgate_controller_acknowledge_duration_seconds",
        "From when this controller had a change until a node that was here acknowledged it.";

    // What nodes count.
    PACKETS: Counter Count "xdpgate_controller_fleet_packets_total" ["verdict": "pass" "drop" "would_drop"],
        "Frames over all nodes since this controller began to count, by what became of them.";
    BYTES: Counter Bytes "xdpgate_controller_fleet_bytes_total" ["verdict": "pass" "drop" "would_drop"],
        "Bytes of these frames.";

    // Desired state and its store.
    REVISION: Gauge Count "xdpgate_controller_revision",
        "The last transaction of the store that this controller has seen.";
    TRANSACTIONS: Counter Count "xdpgate_controller_transactions_total"
        ["outcome": "committed" "conflict" "refused" "unknown" "failed"],
        "Transactions of this controller, by what became of them.";
    STORE: Histogram Seconds "xdpgate_controller_store_duration_seconds"
        ["call": "get" "list" "commit" "put_chunks" "chunk"],
        "How long calls of the store took, by call.";
    ROLLOUTS: Gauge Count "xdpgate_controller_rollouts"
        ["state": "running" "paused" "done" "aborted" "rolled_back"],
        "Rollouts that are remembered, by state.";

    // Who asks.
    HTTP_REQUESTS: Counter Count "xdpgate_controller_http_requests_total" ["class":],
        "Requests of the API that were answered, by the first part of their route and by status (2xx, 3xx, 4xx, 5xx).";
    HTTP_DURATION: Histogram Seconds "xdpgate_controller_http_request_duration_seconds" ["class":],
        "How long it took until the head of the answer was there, by the first part of the route.";
    LOGINS: Counter Count "xdpgate_controller_logins_total" ["result": "accepted" "refused" "throttled"],
        "Logins by password, by what became of them.";

    // Feeds.
    FEED_RUNS: Counter Count "xdpgate_controller_feed_runs_total" ["feed":],
        "Sets that this controller filled from a feed, or tried to, by outcome.";
    FEED_STALE: Gauge Count "xdpgate_controller_feed_stale" ["feed":],
        "1 if nothing good came of the feed for too long, else 0.";
    FEED_GOOD: Gauge Seconds "xdpgate_controller_feed_last_good_timestamp_seconds" ["feed":],
        "When something good came last, in seconds since 1970.";
    FEED_ENTRIES: Gauge Count "xdpgate_controller_feed_entries" ["feed":],
        "How many entries that had.";

    // The whole.
    AUTHORITY: Gauge Seconds "xdpgate_controller_authority_expiry_timestamp_seconds",
        "When the first of the authorities of this fleet expires, in seconds since 1970.";
    BUILD_INFO: Gauge Count "xdpgate_controller_build_info" ["version":],
        "1; what runs is in the labels.";
}
