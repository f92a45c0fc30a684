//! Feeds are made, changed and deleted by transactions of their own.

use std::fmt::Debug;

use bytes::Bytes;
use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::Feeds;
use super::record::{self, Feed, FeedContent};
use super::status::{self, Accept, FeedStatus};
use crate::core::{Actor, CommandError, ErrorKind, Options, audit};
use crate::domain::{Name, Touch};
use crate::store::{CommitError, Key, MAX_PAGE, Revision, Store, StoreError, Transaction};

/// The most feeds.
pub const MAX_FEEDS: usize = 500;
/// How often a change is tried again when others came between.
const TRIES: usize = 10;

impl Feeds {
    /// All feeds by name, with how they are doing.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn list(&self) -> Result<Vec<(Feed, FeedStatus)>, StoreError> {
        let store = self.store().as_ref();
        let feeds = store.list(record::PREFIX, None, MAX_PAGE, None).await?;
        let states = store.list(status::PREFIX, None, MAX_PAGE, None).await?;
        let mut all = Vec::with_capacity(feeds.records.len());
        for (key, found) in &feeds.records {
            let feed: Feed = decode(key, &found.value)?;
            let key = status_key(&feed.name);
            let status = states.records.iter().find(|(other, _)| *other == key);
            let status = status.map(|(_, record)| decode(&key, &record.value));
            all.push((feed, status.transpose()?.unwrap_or_default()));
        }
        Ok(all)
    }

    /// A feed, with how it is doing.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn get(&self, name: &Name) -> Result<Option<(Feed, FeedStatus)>, StoreError> {
        let store = self.store().as_ref();
        let Some((feed, _)) = read::<Feed>(store, &feed_key(name)).await? else {
            return Ok(None);
        };
        let status = read::<FeedStatus>(store, &status_key(name)).await?;
        Ok(Some((
            feed,
            status.map(|(status, _)| status).unwrap_or_default(),
        )))
    }

    /// Makes a feed. It is run soon.
    ///
    /// # Errors
    /// There is one of this name, another one fills the same set, a field is wrong, or the store does not answer.
    pub async fn create(
        &self,
        actor: &Actor,
        name: &Name,
        content: &FeedContent,
        options: &Options,
    ) -> Result<Feed, CommandError> {
        self.write(actor, name, content, options, true).await
    }

    /// Makes a feed, or another one of one that is there. It is run soon if anything changed.
    ///
    /// # Errors
    /// As [`Feeds::create`]; or it is not at the version that was expected (0: it must not be there).
    pub async fn put(
        &self,
        actor: &Actor,
        name: &Name,
        content: &FeedContent,
        options: &Options,
    ) -> Result<Feed, CommandError> {
        self.write(actor, name, content, options, false).await
    }

    /// Deletes a feed. The sets that it filled stay as they are.
    ///
    /// # Errors
    /// There is none, it is not at the version that was expected, or the store does not answer.
    pub async fn delete(
        &self,
        actor: &Actor,
        name: &Name,
        options: &Options,
    ) -> Result<(), CommandError> {
        let store = self.store().as_ref();
        let key = feed_key(name);
        for _ in 0..TRIES {
            let Some((feed, at)) = read::<Feed>(store, &key).await? else {
                return Err(not_found(name));
            };
            expect(name, options, feed.version)?;
            if options.dry_run {
                return Ok(());
            }
            let detail = json!({"version": feed.version, "why": options.why});
            let transaction = Transaction {
                expect: vec![(key.clone(), Some(at))],
                write: vec![
                    (key.clone(), None),
                    (status_key(name), None),
                    audited(actor, "feed.delete", name, detail),
                ],
            };
            if made(store.commit(transaction).await)? {
                return Ok(());
            }
        }
        Err(busy(name))
    }

    /// Has a feed run now, whenever it would be.
    ///
    /// # Errors
    /// There is none, it is switched off, or the store does not answer.
    pub async fn run_now(
        &self,
        actor: &Actor,
        name: &Name,
        now: Timestamp,
    ) -> Result<(), CommandError> {
        self.change_status(actor, name, "feed.run", |feed, status| {
            if !feed.content.enabled {
                let error =
                    CommandError::new(ErrorKind::Invalid, object(name), "it is switched off");
                return Err(error.field("enabled").mend("set enabled to true first"));
            }
            status.next = now;
            Ok(json!({}))
        })
        .await?;
        self.0.wake.notify_one();
        Ok(())
    }

    /// Says that what was refused because it differs too much from what the set has is right: the next run takes it, if it
    /// still has about as many entries (a tenth more or less). `set` names one of several sets. It is run at once.
    ///
    /// # Errors
    /// There is no such feed or set, nothing was refused for that reason, or the store does not answer.
    pub async fn accept_once(
        &self,
        actor: &Actor,
        name: &Name,
        set: Option<&Name>,
        now: Timestamp,
    ) -> Result<(), CommandError> {
        self.change_status(actor, name, "feed.accept", |_, status| {
            let mut taken = Vec::new();
            for (of, state) in &mut status.sets {
                let Some(last) = state.last_try.as_ref().filter(|last| last.acceptable) else {
                    continue;
                };
                if set.is_none_or(|set| set == of) {
                    let entries = last.entries.unwrap_or(0);
                    let by = actor.name.clone();
                    state.accept = Some(Accept {
                        by,
                        at: now,
                        entries,
                    });
                    taken.push(json!({"set": of, "entries": entries}));
                }
            }
            if taken.is_empty() {
                let reason = "nothing that it brought was refused for its size";
                let error = CommandError::new(ErrorKind::Invalid, object(name), reason);
                return Err(error
                    .mend("other refusals are mended where the feed is made, or in its limits"));
            }
            status.next = now;
            Ok(json!({"sets": taken}))
        })
        .await?;
        self.0.wake.notify_one();
        Ok(())
    }

    async fn write(
        &self,
        actor: &Actor,
        name: &Name,
        content: &FeedContent,
        options: &Options,
        is_new: bool,
    ) -> Result<Feed, CommandError> {
        content.check(name, &self.0.guard)?;
        let store = self.store().as_ref();
        // Every change of a feed writes this one, so that two feeds made at once see each other.
        let changes = key("feed-changes");
        for _ in 0..TRIES {
            let changed = store.get(&changes).await?.map(|record| record.revision);
            let all = self.list().await?;
            let key = feed_key(name);
            let before = read::<Feed>(store, &key).await?;
            let version = before.as_ref().map_or(0, |(feed, _)| feed.version);
            if is_new && before.is_some() {
                let error = CommandError::new(
                    ErrorKind::AlreadyExists,
                    object(name),
                    "there is one of this name",
                );
                return Err(error.mend("choose another name, or change that one"));
            }
            expect(name, options, version)?;
            if let Some((feed, _)) = &before
                && feed.content == *content
            {
                return Ok(feed.clone());
            }
            if before.is_none() && all.len() >= MAX_FEEDS {
                let reason = format!("there are {MAX_FEEDS} feeds, as many as may be");
                return Err(CommandError::new(ErrorKind::TooLarge, object(name), reason));
            }
            let others = all
                .iter()
                .map(|(feed, _)| feed)
                .filter(|feed| feed.name != *name);
            for other in others {
                if content.shares_a_set(name, &other.content, &other.name) {
                    let reason = format!("feed {} fills this set already", other.name);
                    let error = CommandError::new(ErrorKind::InUse, object(name), reason);
                    return Err(error.field("set").mend("name another set"));
                }
            }
            let touch = Touch {
                by: actor.name.clone(),
                at: Timestamp::now(),
                why: options.why.clone(),
            };
            let feed = Feed {
                name: name.clone(),
                version: version + 1,
                content: content.clone(),
                created: before
                    .as_ref()
                    .map_or_else(|| touch.clone(), |(feed, _)| feed.created.clone()),
                updated: touch,
            };
            if options.dry_run {
                return Ok(feed);
            }
            // What it brought stays known; when it is run next is of the feed that it was.
            let status_key = status_key(name);
            let status = read::<FeedStatus>(store, &status_key).await?;
            let at = status.as_ref().map(|(_, at)| *at);
            let sets = status.map(|(status, _)| status.sets).unwrap_or_default();
            let status = FeedStatus {
                sets,
                ..FeedStatus::default()
            };
            let action = if before.is_some() {
                "feed.put"
            } else {
                "feed.create"
            };
            let detail = json!({"version": feed.version, "why": options.why, "content": content});
            let transaction = Transaction {
                expect: vec![
                    (changes.clone(), changed),
                    (key.clone(), before.map(|(_, at)| at)),
                    (status_key.clone(), at),
                ],
                write: vec![
                    (changes.clone(), Some(Bytes::from_static(b"{}"))),
                    (key, Some(encode(&feed))),
                    (status_key, Some(encode(&status))),
                    audited(actor, action, name, detail),
                ],
            };
            if made(store.commit(transaction).await)? {
                self.0.wake.notify_one();
                return Ok(feed);
            }
        }
        Err(busy(name))
    }

    async fn change_status(
        &self,
        actor: &Actor,
        name: &Name,
        action: &str,
        change: impl Fn(&Feed, &mut FeedStatus) -> Result<serde_json::Value, CommandError>,
    ) -> Result<(), CommandError> {
        let store = self.store().as_ref();
        let (feed_key, status_key) = (feed_key(name), status_key(name));
        for _ in 0..TRIES {
            let Some((feed, feed_at)) = read::<Feed>(store, &feed_key).await? else {
                return Err(not_found(name));
            };
            let found = read::<FeedStatus>(store, &status_key).await?;
            let at = found.as_ref().map(|(_, at)| *at);
            let mut status = found.map(|(status, _)| status).unwrap_or_default();
            let detail = change(&feed, &mut status)?;
            let transaction = Transaction {
                expect: vec![(feed_key.clone(), Some(feed_at)), (status_key.clone(), at)],
                write: vec![
                    (status_key.clone(), Some(encode(&status))),
                    audited(actor, action, name, detail),
                ],
            };
            if made(store.commit(transaction).await)? {
                return Ok(());
            }
        }
        Err(busy(name))
    }
}

pub(super) fn feed_key(name: &Name) -> Key {
    key(&format!("{}{name}", record::PREFIX))
}

pub(super) fn status_key(name: &Name) -> Key {
    key(&format!("{}{name}", status::PREFIX))
}

fn key(text: &str) -> Key {
    Key::new(text).expect("names have the characters of keys")
}

/// A record, with the transaction that wrote it.
pub(super) async fn read<T: DeserializeOwned>(
    store: &dyn Store,
    key: &Key,
) -> Result<Option<(T, Revision)>, StoreError> {
    let found = store.get(key).await?;
    let decoded = found.map(|record| Ok((decode(key, &record.value)?, record.revision)));
    decoded.transpose()
}

fn decode<T: DeserializeOwned>(key: &Key, value: &Bytes) -> Result<T, StoreError> {
    serde_json::from_slice(value)
        .map_err(|error| StoreError::Damaged(format!("record {}: {error}", key.as_str())))
}

pub(super) fn encode<T: Serialize + Debug>(value: &T) -> Bytes {
    serde_json::to_vec(value)
        .expect("it has only text keys")
        .into()
}

fn audited(
    actor: &Actor,
    action: &str,
    name: &Name,
    detail: serde_json::Value,
) -> (Key, Option<Bytes>) {
    let (key, entry) = audit::entry(actor, action, &object(name), detail);
    (key, Some(entry))
}

fn object(name: &Name) -> String {
    format!("feed/{name}")
}

fn not_found(name: &Name) -> CommandError {
    CommandError::new(ErrorKind::NotFound, object(name), "there is no such feed")
}

fn busy(name: &Name) -> CommandError {
    let reason = "it was changed by others each time before this change was made";
    CommandError::new(ErrorKind::Conflict, object(name), reason).mend("try again")
}

fn expect(name: &Name, options: &Options, version: u64) -> Result<(), CommandError> {
    match options.expect {
        Some(expected) if expected != version => {
            let reason = format!("it is at version {version}, not {expected}");
            let error = CommandError::new(ErrorKind::Conflict, object(name), reason);
            Err(CommandError {
                version: Some(version),
                ..error.mend("read it again")
            })
        }
        _ => Ok(()),
    }
}

/// Whether a transaction was made; `false` if somebody else was first.
fn made(result: Result<Revision, CommitError>) -> Result<bool, CommandError> {
    match result {
        Ok(_) => Ok(true),
        Err(CommitError::Conflict(_)) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
