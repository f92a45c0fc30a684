//! What has to be done now and then.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::auth::Auth;
use crate::auth::authority::{Authority, ServerCertificate};
use crate::auth::join::Joining;
use crate::core::Core;
use crate::store::Store;
use crate::store::keeping::{self, History};

/// How often it is looked whether something is due.
const EVERY: Duration = Duration::from_secs(60);
/// How long the store remembers what was before, for those who watch it and fell behind.
const HISTORY: Duration = Duration::from_secs(900);
/// How often chunks that nobody needs are looked for, each some thousand reads; and how old they must be.
const SWEEP: (Duration, Duration) = (Duration::from_secs(6 * 3600), Duration::from_secs(2 * 3600));

/// What is kept in order.
pub(super) struct Kept {
    pub store: Arc<dyn Store>,
    pub core: Core,
    pub authority: Authority,
    pub certificate: Arc<ServerCertificate>,
    pub auth: Auth,
    pub joining: Joining,
    /// How many versions of a thing are kept, and for how long the audit log is; `None`: for ever.
    pub versions: u64,
    pub audit: Option<SignedDuration>,
}

/// Goes on until it is aborted. What fails is logged and tried again.
pub(super) async fn run(kept: Kept) {
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut history = History::new(HISTORY);
    let mut swept = Instant::now();
    loop {
        tick.tick().await;
        let now = Timestamp::now();
        told("the authority", kept.authority.refresh().await);
        if told("the controller's certificate", kept.certificate.renew(now)) == Some(true) {
            log::info!("the controller has a new certificate");
        }
        told("sessions", kept.auth.sweep(now).await);
        told("join tokens", kept.joining.sweep(now).await);
        told("answers to requests", kept.core.forget_answers(now).await);
        if told(
            "old versions",
            kept.core.forget_versions(kept.versions).await,
        ) > Some(0)
        {
            log::debug!("old versions of policies and sets are deleted");
        }
        if let Some(age) = kept.audit {
            told("the audit log", kept.core.forget_audit(now - age).await);
        }
        let revision = kept.core.view().revision();
        if let Some(before) = history.seen(revision, Instant::now()) {
            told("history of the store", kept.store.compact(before).await);
        }
        if swept.elapsed() > SWEEP.0 {
            swept = Instant::now();
            told("chunks", keeping::sweep(&kept.store, SWEEP.1).await);
        }
    }
}

fn told<T, E: std::fmt::Display>(what: &str, done: Result<T, E>) -> Option<T> {
    done.inspect_err(|error| log::warn!("housekeeping: {what}: {error}"))
        .ok()
}
