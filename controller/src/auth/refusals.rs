//! Members and tokens that are refused, in the audit log: each kind of each of them once an hour, so that nobody fills it.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use lru::LruCache;
use serde_json::json;

use super::Actor;
use super::records::Change;
use crate::store::Store;

/// How long the same is not written again.
const ONCE_IN: SignedDuration = SignedDuration::from_hours(1);
/// How many kinds of how many actors are remembered.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(4_096).expect("not zero");

/// What was written of late. A copy is the same one.
#[derive(Debug, Clone)]
pub(super) struct Refusals(Arc<Mutex<LruCache<String, Timestamp>>>);

impl Default for Refusals {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(LruCache::new(REMEMBERED))))
    }
}

impl Refusals {
    /// Writes that an actor was refused, and why.
    pub(super) async fn write(
        &self,
        store: &dyn Store,
        actor: &Actor,
        action: &str,
        why: &str,
        now: Timestamp,
    ) {
        log::warn!(actor = actor.name.as_str(), origin = actor.origin.as_str(); "{action}: {why}");
        if !self.is_news(format!("{} {action} {why}", actor.name), now) {
            return;
        }
        let change = Change::default().audit(actor, action, &actor.name, json!({ "why": why }));
        if let Err(error) = change.commit(store).await {
            log::warn!("a refusal is not in the audit log: {error}");
        }
    }

    fn is_news(&self, what: String, now: Timestamp) -> bool {
        let mut written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let last = written.get(&what).copied();
        if last.is_some_and(|last| now.duration_since(last) < ONCE_IN) {
            return false;
        }
        written.put(what, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_written_once_an_hour_and_memory_is_bounded() {
        let refusals = Refusals::default();
        let at = |seconds: i64| Timestamp::from_second(1_800_000_000 + seconds).unwrap();
        assert!(refusals.is_news("a".into(), at(0)));
        assert!(!refusals.is_news("a".into(), at(3_599)));
        assert!(refusals.is_news("b".into(), at(3_599)));
        assert!(refusals.is_news("a".into(), at(3_600)));
        for i in 0..10_000 {
            refusals.is_news(format!("n-{i}"), at(0));
        }
        assert_eq!(refusals.0.lock().unwrap().len(), REMEMBERED.get());
    }
}
