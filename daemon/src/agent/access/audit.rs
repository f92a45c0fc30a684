//! One line in the log for everything that is changed over the API, and for what was refused.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Caller;
use super::peer::{Origin, Source};

/// What a call changed, in words; a handler puts it into the extensions of its response, and it ends up in
/// the audit line of the call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AuditNote {
    /// What it was about: the hash of the policy, the set and how many entries, the interface. No secrets.
    pub what: String,
    /// The generation of the policy in force after it, if it has to do with the policy.
    pub generation: Option<u64>,
}

/// The target of the lines in the log; it is written whatever the level is.
pub(crate) use xdpgate_service::logging::AUDIT as TARGET;

/// Writes the lines.
#[derive(Debug, Default)]
pub(in crate::agent) struct Audit {
    refused: Mutex<HashMap<Source, Window>>,
}

/// What a source was refused in the second that began then.
#[derive(Debug)]
struct Window {
    since: Instant,
    written: u32,
    more: u64,
}

impl Audit {
    /// A call that changes something has ended.
    pub(super) fn called(
        &self,
        caller: &Caller,
        origin: Origin,
        method: &str,
        note: Option<AuditNote>,
        outcome: &str,
    ) {
        let (what, generation) = match note {
            Some(AuditNote { what, generation }) => (format!("{method} {what}"), generation),
            None => (method.to_owned(), None),
        };
        let (who, role) = (caller.to_string(), caller.role.to_string());
        let from = origin.to_string();
        let (who, role, from, what) = (&*who, &*role, &*from, &*what);
        match generation {
            Some(generation) => log::info!(
                target: TARGET, who, role, from, what, outcome, generation; "called"
            ),
            None => log::info!(target: TARGET, who, role, from, what, outcome; "called"),
        }
    }

    /// Somebody was refused. Of one source so many are written in a second, the others are counted.
    pub(super) fn refused(&self, origin: Origin, who: &str, what: &str, why: &str) {
        let now = Instant::now();
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let source = match origin.source() {
            known if refused.contains_key(&known) || refused.len() < SOURCES => known,
            _ => OTHERS,
        };
        let fresh = || Window {
            since: now,
            written: 0,
            more: 0,
        };
        let window = refused.entry(source).or_insert_with(fresh);
        if now.saturating_duration_since(window.since) >= SECOND {
            window.end(source);
            *window = fresh();
        }
        if window.written == PER_SECOND {
            window.more += 1;
            return;
        }
        window.written += 1;
        drop(refused);
        let from = origin.to_string();
        let (from, outcome) = (&*from, "refused");
        log::info!(target: TARGET, who, from, what, outcome, why; "refused");
    }

    /// Says how many were not written, and forgets the sources that are quiet.
    pub(super) fn sum_up(&self) {
        let now = Instant::now();
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.retain(|source, window| {
            let goes_on = now.saturating_duration_since(window.since) < SECOND;
            if !goes_on {
                window.end(*source);
            }
            goes_on
        });
    }
}

impl Window {
    fn end(&self, source: Source) {
        if self.more == 0 {
            return;
        }
        let from = match source {
            OTHERS => "others".to_owned(),
            Source::Address(address) => address.to_string(),
            Source::User(Some(uid)) => format!("unix uid {uid}"),
            Source::User(None) => "unix".to_owned(),
        };
        let (from, outcome, more) = (&*from, "refused", self.more);
        log::info!(target: TARGET, from, outcome, more; "refused {more} more times");
    }
}

const SECOND: Duration = Duration::from_secs(1);
const PER_SECOND: u32 = 5;
const SOURCES: usize = 1024;
/// Those that are not told apart any more.
const OTHERS: Source = Source::Address(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
