//! `controller/NAME`: that a controller is there. Each one renews its own record; by its own clock each one sees which
//! records of others change.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::EVERY;
use crate::domain::Name;
use crate::store::{CommitError, Key, Record, Revision, Store, StoreError, Transaction};

const PREFIX: &str = "controller/";
/// A record that has not changed for this time is of a controller that is gone.
const GONE: Duration = Duration::from_secs(15);
/// After this time it is deleted.
const FORGOTTEN: Duration = Duration::from_secs(3_600);

/// What a controller says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    /// Its name.
    pub name: Name,
    /// Where other controllers reach it, as HOST:PORT.
    pub address: String,
    /// Where nodes do.
    pub nodes: Vec<String>,
    /// The version of the program.
    pub version: String,
    /// Another one for each process.
    pub process: String,
    /// Since when.
    pub since: Timestamp,
    /// Counts up, so that the record changes.
    pub beat: u64,
}

impl Presence {
    /// Of this process.
    pub fn new(name: Name, address: String, nodes: Vec<String>) -> Self {
        Self {
            name,
            address,
            nodes,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            process: format!("{:016x}", rand::random::<u64>()),
            since: Timestamp::now(),
            beat: 0,
        }
    }
}

/// The records of all controllers.
#[derive(Debug)]
pub(super) struct Presences {
    store: Arc<dyn Store>,
    pub(super) me: Presence,
    /// The revision of this controller's record, as it wrote it last.
    written: Option<Revision>,
    /// Its record is not written any more.
    has_left: bool,
    seen: Seen,
}

/// What was seen of the records of others.
#[derive(Debug, Default)]
struct Seen {
    others: BTreeMap<Name, Other>,
    /// When they were read last.
    read: Option<Instant>,
}

#[derive(Debug)]
struct Other {
    presence: Presence,
    revision: Revision,
    /// For how long it has been read without a change.
    quiet: Duration,
}

impl Presences {
    pub(super) fn new(me: Presence, store: Arc<dyn Store>) -> Self {
        Self {
            store,
            me,
            written: None,
            has_left: false,
            seen: Seen::default(),
        }
    }

    /// Renews the record of this controller.
    pub(super) async fn write(&mut self) -> Result<(), CommitError> {
        let Some(key) = key(&self.me.name).filter(|_| !self.has_left) else {
            return Ok(());
        };
        self.me.beat += 1;
        let value = serde_json::to_vec(&self.me).unwrap_or_default();
        let expected = self.written.take();
        let transaction = Transaction {
            expect: expected
                .map(|at| (key.clone(), Some(at)))
                .into_iter()
                .collect(),
            write: vec![(key, Some(value.into()))],
        };
        match self.store.commit(transaction).await {
            Ok(revision) => {
                self.written = Some(revision);
                Ok(())
            }
            // Whatever it is, it is written the next time.
            Err(CommitError::Conflict(_)) => {
                let name = &self.me.name;
                log::error!("another controller has the name {name} too: set peers.name");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Reads those of all.
    pub(super) async fn read(&mut self, now: Instant) -> Result<(), StoreError> {
        let mut records = Vec::new();
        let mut after: Option<Key> = None;
        loop {
            let page = self.store.list(PREFIX, after.as_ref(), 1000, None).await?;
            after = page.records.last().map(|(key, _)| key.clone());
            records.extend(page.records);
            if !page.more {
                break;
            }
        }
        for (key, at) in self.seen.look(&self.me.name, &records, now) {
            let transaction = Transaction {
                expect: vec![(key.clone(), Some(at))],
                write: vec![(key, None)],
            };
            // Somebody else may have deleted it, or it is back.
            let _ = self.store.commit(transaction).await;
        }
        Ok(())
    }

    /// All others of which there is a record, and whether they are there.
    pub(super) fn others(&self) -> impl Iterator<Item = (&Presence, bool)> {
        let others = self.seen.others.values();
        others.map(|other| (&other.presence, other.quiet < GONE))
    }

    /// Deletes the record of this controller.
    pub(super) async fn leave(&mut self) {
        self.has_left = true;
        let Some((key, at)) = key(&self.me.name).zip(self.written.take()) else {
            return;
        };
        let transaction = Transaction {
            expect: vec![(key.clone(), Some(at))],
            write: vec![(key, None)],
        };
        if let Err(error) = self.store.commit(transaction).await {
            log::debug!(
                "the record of this controller stays until others see that it is old: {error}"
            );
        }
    }
}

impl Seen {
    /// Takes in the records as they are now. Returns those that have been old for so long that they can go.
    fn look(&mut self, me: &Name, records: &[(Key, Record)], now: Instant) -> Vec<(Key, Revision)> {
        // While they could not be read they could not be renewed either.
        let since = self
            .read
            .map_or(Duration::ZERO, |at| now.duration_since(at));
        let since = since.min(2 * EVERY);
        self.read = Some(now);
        let mut before = std::mem::take(&mut self.others);
        let mut old = Vec::new();
        for (key, record) in records {
            let Ok(presence) = serde_json::from_slice::<Presence>(&record.value) else {
                log::debug!("{} is of another version of this program", key.as_str());
                continue;
            };
            if presence.name == *me {
                continue;
            }
            let last = before.remove(&presence.name);
            let last = last.filter(|other| other.revision == record.revision);
            let quiet = last.map_or(Duration::ZERO, |other| other.quiet + since);
            if quiet >= FORGOTTEN {
                old.push((key.clone(), record.revision));
                continue;
            }
            let other = Other {
                revision: record.revision,
                quiet,
                presence,
            };
            self.others.insert(other.presence.name.clone(), other);
        }
        old
    }
}

fn key(name: &Name) -> Option<Key> {
    Key::new(format!("{PREFIX}{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: &str, revision: u64) -> (Key, Record) {
        let name = Name::new(name).unwrap();
        let presence = Presence::new(name.clone(), "192.0.2.1:8443".into(), Vec::new());
        let value = serde_json::to_vec(&presence).unwrap().into();
        let revision = Revision(revision);
        (key(&name).unwrap(), Record { value, revision })
    }

    #[test]
    fn r121_who_does_not_renew_is_gone_after_15_s_and_who_could_not_is_not() {
        let me = Name::new("c-1").unwrap();
        let start = Instant::now();
        let mut seen = Seen::default();
        let mut look = |second: u64, revision: u64| {
            let records = [record("c-1", 1), record("c-2", revision)];
            let old = seen.look(&me, &records, start + Duration::from_secs(second));
            let there: Vec<_> = seen
                .others
                .iter()
                .map(|(n, o)| (n.to_string(), o.quiet < GONE))
                .collect();
            (there, old.len())
        };
        let is = |there: bool, old: usize| match old {
            0 => (vec![("c-2".to_owned(), there)], 0),
            _ => (Vec::new(), old),
        };
        assert_eq!(look(0, 7), is(true, 0));
        assert_eq!(look(5, 8), is(true, 0));
        assert_eq!(look(10, 8), is(true, 0));
        assert_eq!(look(15, 8), is(true, 0));
        assert_eq!(look(20, 8), is(false, 0), "15 s without a change");
        assert_eq!(look(25, 9), is(true, 0), "it is back");
        // The store was away for ten minutes, for both.
        assert_eq!(look(625, 9), is(true, 0));
        assert_eq!(look(630, 9), is(false, 0));
        for second in (635..4_219).step_by(5) {
            assert_eq!(look(second, 9), is(false, 0), "{second}");
        }
        assert_eq!(look(4_220, 9), is(false, 1), "an hour later it can go");
    }
}
