//! Runs of feeds. Every controller looks which are due, and the one that writes its claim into the store first has the run.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tokio::sync::Semaphore;

use super::entries::{Bad, digest, is_renewal_due, judged, wanted};
use super::manage::{encode, feed_key, read, status_key};
use super::places::{Brought, Nothing, wait};
use super::record::Part;
use super::status::{CLAIM, Claim, FeedStatus, LastGood, LastTry, Outcome, SetStatus, pause};
use super::{Feed, Feeds};
use crate::core::{Actor, Command, CommandError, ErrorKind, Options, SetContent};
use crate::domain::{Name, Role, SetState};
use crate::metrics::FEED_RUNS;
use crate::store::{CommitError, Revision, StoreError, Transaction};

/// How often it is looked which feeds are due.
const TICK: Duration = Duration::from_secs(5);
/// How many feeds one controller runs at a time.
const AT_ONCE: usize = 4;
/// How often a word on a run is tried again when others came between.
const TRIES: usize = 10;

/// A run that this controller has.
#[derive(Debug)]
struct Run {
    feed: Feed,
    feed_at: Revision,
    status: FeedStatus,
    status_at: Revision,
    /// Made up for it.
    id: u64,
    /// The time that it was due.
    due: Timestamp,
}

/// Why a run does not go on.
#[derive(Debug, thiserror::Error)]
enum Lost {
    /// The feed was changed or deleted, or another controller began anew.
    #[error("the feed was changed, or another controller has it")]
    Taken,
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store did not take it.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// What became of one set.
struct Done {
    last_try: LastTry,
    good: Option<LastGood>,
    retry_after: Option<u64>,
    /// What was accepted by hand was made use of.
    accepted: Option<Timestamp>,
}

impl Feeds {
    /// Runs feeds as they are due, until it is dropped.
    pub async fn run(self) {
        let permits = Arc::new(Semaphore::new(AT_ONCE));
        loop {
            let now = Timestamp::now();
            match self.due(now).await {
                Err(error) => log::warn!("feeds: {error}"),
                Ok(due) => {
                    for name in due {
                        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
                            break; // in the next round
                        };
                        let feeds = self.clone();
                        tokio::spawn(async move {
                            let ran = feeds.claim_and_run(&name, now).await;
                            drop(permit);
                            if ran {
                                feeds.0.wake.notify_one(); // others may wait for its place
                            }
                        });
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(TICK) => {}
                () = self.0.wake.notified() => {}
            }
        }
    }

    /// Runs all feeds that are due at a time and that no other controller has, and returns when they are done: one
    /// round of [`Feeds::run`]. Returns which ones were run here.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn run_due(&self, now: Timestamp) -> Result<Vec<Name>, StoreError> {
        let due = self.due(now).await?;
        let runs = due.into_iter().map(|name| async move {
            let ran = self.claim_and_run(&name, now).await;
            ran.then_some(name)
        });
        let ran = join_all(runs).await.into_iter().flatten().collect();
        self.observe(&self.list().await?, now);
        Ok(ran)
    }

    /// Feeds that are due, those first that are so for longest.
    async fn due(&self, now: Timestamp) -> Result<Vec<Name>, StoreError> {
        let all = self.list().await?;
        self.observe(&all, now);
        let due = all.into_iter();
        let mut due: Vec<_> = due
            .filter(|(feed, status)| feed.content.enabled && status.is_due(now))
            .collect();
        due.sort_by_key(|(_, status)| status.next);
        Ok(due.into_iter().map(|(feed, _)| feed.name).collect())
    }

    /// Whether it was run here.
    async fn claim_and_run(&self, name: &Name, now: Timestamp) -> bool {
        let run = match self.claim(name, now).await {
            Ok(Some(run)) => run,
            Ok(None) => return false,
            Err(error) => {
                log::warn!("feed {name}: {error}");
                return false;
            }
        };
        if let Err(lost) = self.carry_out(run, now).await {
            log::warn!("feed {name}: the run is given up: {lost}");
        }
        true
    }

    async fn claim(&self, name: &Name, now: Timestamp) -> Result<Option<Run>, Lost> {
        let store = self.store().as_ref();
        let (feed_key, status_key) = (feed_key(name), status_key(name));
        let Some((feed, feed_at)) = read::<Feed>(store, &feed_key).await? else {
            return Ok(None);
        };
        let found = read::<FeedStatus>(store, &status_key).await?;
        let before = found.as_ref().map(|(_, at)| *at);
        let mut status = found.map(|(status, _)| status).unwrap_or_default();
        if !feed.content.enabled || !status.is_due(now) {
            return Ok(None);
        }
        let id = rand::random();
        let due = status.next;
        status.claim = Some(self.claim_of(id, now));
        let transaction = Transaction {
            expect: vec![(feed_key, Some(feed_at)), (status_key.clone(), before)],
            write: vec![(status_key.clone(), Some(encode(&status)))],
        };
        let status_at = match store.commit(transaction).await {
            Ok(revision) => revision,
            Err(CommitError::Conflict(_)) => return Ok(None),
            Err(CommitError::Unknown(_)) => {
                let Some((_, at)) = read::<FeedStatus>(store, &status_key)
                    .await?
                    .filter(|(status, _)| is_of(status, id))
                else {
                    return Ok(None);
                };
                at
            }
            Err(error) => return Err(error.into()),
        };
        Ok(Some(Run {
            feed,
            feed_at,
            status,
            status_at,
            id,
            due,
        }))
    }

    fn claim_of(&self, run: u64, now: Timestamp) -> Claim {
        let until = now
            .saturating_add(SignedDuration::from_secs(CLAIM))
            .unwrap_or(Timestamp::MAX);
        Claim {
            by: self.0.me.clone(),
            run,
            until,
        }
    }

    /// Writes a word on a run into the store, if it still is this controller's.
    async fn note(&self, run: &mut Run, change: impl Fn(&mut FeedStatus)) -> Result<(), Lost> {
        let store = self.store().as_ref();
        let (feed_key, status_key) = (feed_key(&run.feed.name), status_key(&run.feed.name));
        for _ in 0..TRIES {
            let mut status = run.status.clone();
            change(&mut status);
            let transaction = Transaction {
                expect: vec![
                    (feed_key.clone(), Some(run.feed_at)),
                    (status_key.clone(), Some(run.status_at)),
                ],
                write: vec![(status_key.clone(), Some(encode(&status)))],
            };
            match store.commit(transaction).await {
                Ok(revision) => {
                    (run.status, run.status_at) = (status, revision);
                    return Ok(());
                }
                // Somebody asked for a run or accepted something, or it is not ours any more.
                Err(CommitError::Conflict(_) | CommitError::Unknown(_)) => {
                    let feed = read::<Feed>(store, &feed_key).await?;
                    if feed.is_none_or(|(_, at)| at != run.feed_at) {
                        return Err(Lost::Taken);
                    }
                    let found = read::<FeedStatus>(store, &status_key).await?;
                    let Some(found) = found.filter(|(status, _)| is_of(status, run.id)) else {
                        return Err(Lost::Taken);
                    };
                    (run.status, run.status_at) = found;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(Lost::Taken)
    }

    async fn carry_out(&self, mut run: Run, now: Timestamp) -> Result<(), Lost> {
        let began = tokio::time::Instant::now();
        let at = |began: tokio::time::Instant| {
            let passed = SignedDuration::try_from(began.elapsed()).unwrap_or(SignedDuration::MAX);
            now.saturating_add(passed).unwrap_or(Timestamp::MAX)
        };
        let mut failed = None;
        let mut retry_after = None;
        match self.parts(&run.feed).await {
            Err(error) => failed = Some(error.to_string()),
            Ok(parts) => {
                // Sets that it no longer fills are not its business.
                let stays = |set: &Name| parts.iter().any(|part| part.set == *set);
                let is_by_folder =
                    run.feed.content.is_by_country() && run.feed.content.countries.is_empty();
                if !is_by_folder && !run.status.sets.keys().all(stays) {
                    self.note(&mut run, |status| status.sets.retain(|set, _| stays(set)))
                        .await?;
                }
                for part in &parts {
                    let done = self.fill(&mut run, part, at(began)).await;
                    self.tell(&run, &part.set, &done);
                    retry_after = retry_after.max(done.retry_after);
                    let claim = self.claim_of(run.id, at(began));
                    self.note(&mut run, |status| {
                        let set = status.sets.entry(part.set.clone()).or_default();
                        let used = done.accepted;
                        if set
                            .accept
                            .as_ref()
                            .is_some_and(|accept| Some(accept.at) == used)
                        {
                            set.accept = None;
                        }
                        set.last_try = Some(done.last_try.clone());
                        if let Some(good) = &done.good {
                            set.last_good = Some(good.clone());
                        }
                        status.claim = Some(claim.clone());
                    })
                    .await?;
                }
                let tried = parts
                    .iter()
                    .filter_map(|part| run.status.sets.get(&part.set)?.last_try.as_ref());
                if tried.into_iter().any(|last| !last.outcome.is_good()) {
                    failed = Some(String::new());
                }
            }
        }
        let failures = match failed {
            Some(_) => run.status.failures.saturating_add(1),
            None => 0,
        };
        let seconds = pause(
            run.feed.content.every,
            failures,
            retry_after,
            rand::random(),
        );
        let seconds = SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
        let next = at(began).saturating_add(seconds).unwrap_or(Timestamp::MAX);
        let due = run.due;
        let error = failed.filter(|text| !text.is_empty());
        if let Some(error) = &error {
            log::warn!("feed {}: {error}", run.feed.name);
        }
        self.note(&mut run, |status| {
            status.claim = None;
            status.failures = failures;
            status.ran = Some(now);
            status.error.clone_from(&error);
            // Else somebody has asked for a run meanwhile.
            if status.next == due {
                status.next = next;
            }
        })
        .await
    }

    /// Reads one set of a feed, and replaces what it has if that is right.
    async fn fill(&self, run: &mut Run, part: &Part, now: Timestamp) -> Done {
        let state = run.status.sets.get(&part.set).cloned().unwrap_or_default();
        match self.try_fill(run, part, &state, now).await {
            Ok(done) => done,
            Err(failure) => {
                let outcome = failure.outcome();
                Done {
                    last_try: LastTry {
                        at: now,
                        outcome,
                        error: Some(failure.to_string()),
                        entries: failure.entries(),
                        acceptable: failure.is_acceptable(),
                    },
                    good: None,
                    retry_after: failure.retry_after(),
                    accepted: None,
                }
            }
        }
    }

    async fn try_fill(
        &self,
        run: &mut Run,
        part: &Part,
        state: &SetStatus,
        now: Timestamp,
    ) -> Result<Done, Failure> {
        let feed = &run.feed.clone();
        let content = &feed.content;
        let current = self.0.core.view().sets().get(&part.set).cloned();
        let default_expiry = current.as_ref().and_then(|set| set.default_expiry);
        let expiry = content.expiry.or(default_expiry);
        // "Not modified" will do if the set still has what this very feed brought, and will have it for long enough.
        let known = state.last_good.as_ref().filter(|good| {
            good.feed_version == feed.version
                && current.as_ref().is_some_and(|set| {
                    set.version == good.set_version && !is_renewal_due(&set.entries, expiry, now)
                })
        });
        let (new, validators) = match self.read(feed, part, known).await? {
            Brought::Set(new, validators) => (new, validators),
            Brought::NotModified => {
                let good = known.map(|good| LastGood {
                    at: now,
                    ..good.clone()
                });
                let entries = good.as_ref().map(|good| good.entries);
                return Ok(Done::good(now, Outcome::NotModified, entries, good));
            }
        };
        let count = new.len() as u64;
        let last = state.last_good.as_ref().map(|good| good.entries);
        let before = last.or_else(|| current.as_ref().map(|set| set.entries.len() as u64));
        let accept = state.accept.clone();
        let limits = content.limits.clone();
        let entries = current.as_ref().map(|set| Arc::clone(&set.entries));
        let (digest, wanted) = wait(move || {
            judged(&new, before, &limits, accept.map(|accept| accept.entries))?;
            let wanted = wanted(&new, entries.as_deref(), expiry, now);
            Ok::<_, Bad>((digest(&new), wanted))
        })
        .await?;
        let unchanged = current.as_ref().filter(|set| *set.entries == wanted);
        let (outcome, set_version) = match unchanged {
            Some(set) => (Outcome::Unchanged, set.version),
            None => {
                // Reading may have taken long: it has to be this controller's run still.
                let claim = self.claim_of(run.id, now);
                let renew = |status: &mut FeedStatus| status.claim = Some(claim.clone());
                self.note(run, renew)
                    .await
                    .map_err(|lost| overtaken(feed, &lost))?;
                let version = self.replace(run, part, current.as_deref(), wanted).await?;
                (Outcome::Replaced, version)
            }
        };
        let good = LastGood {
            at: now,
            entries: count,
            digest,
            set_version,
            feed_version: feed.version,
            validators,
        };
        Ok(Done {
            accepted: state.accept.as_ref().map(|accept| accept.at),
            ..Done::good(now, outcome, Some(count), Some(good))
        })
    }

    /// A new version of a set.
    async fn replace(
        &self,
        run: &Run,
        part: &Part,
        current: Option<&SetState>,
        entries: xdpgate::policy::AddressSet,
    ) -> Result<u64, Failure> {
        let feed = &run.feed;
        let actor = Actor {
            name: format!("feed/{}", feed.name),
            role: Role::Operator,
            origin: "local".to_owned(),
        };
        let content = SetContent {
            entries: Arc::new(entries),
            default_expiry: match current {
                Some(set) => set.default_expiry,
                None => feed.content.expiry,
            },
            comment: match current {
                Some(set) => set.comment.clone(),
                None => Some(format!("filled by feed {}", feed.name)),
            },
        };
        let options = Options {
            // Who changed the set meanwhile is not overwritten; the next run sees it.
            expect: Some(current.map_or(0, |set| set.version)),
            why: format!("feed {}", feed.name),
            on_behalf: Some((feed_key(&feed.name), run.feed_at)),
            ..Options::default()
        };
        let set = part.set.clone();
        let outcome = self
            .0
            .core
            .execute(&actor, vec![Command::PutSet { set, content }], &options)
            .await?;
        match outcome.effects.into_iter().next() {
            Some(effect) => Ok(effect?.version),
            None => Err(Failure::Command(CommandError::new(
                ErrorKind::Unavailable,
                format!("set/{}", part.set),
                "nothing came of the change",
            ))),
        }
    }

    /// Says what became of a set: in the log, in metrics, and to who listens if it is news.
    fn tell(&self, run: &Run, set: &Name, done: &Done) {
        let feed = &run.feed.name;
        let last = &done.last_try;
        let word = last.outcome.as_str();
        metrics::counter!(FEED_RUNS, "feed" => feed.to_string(), "outcome" => word).increment(1);
        let before = run
            .status
            .sets
            .get(set)
            .and_then(|set| set.last_try.as_ref());
        let is_news = before
            .is_none_or(|before| before.outcome != last.outcome || before.error != last.error);
        match (&last.error, last.outcome) {
            (Some(error), _) if is_news => log::warn!("feed {feed}: set {set}: {word}: {error}"),
            (Some(error), _) => log::debug!("feed {feed}: set {set}: {word} again: {error}"),
            (None, Outcome::Replaced) => {
                let entries = last.entries.unwrap_or(0);
                log::info!("feed {feed}: set {set} has {entries} entries now");
            }
            (None, _) => log::debug!("feed {feed}: set {set}: {word}"),
        }
        if last.outcome == Outcome::Replaced || (is_news && !last.outcome.is_good()) {
            let detail = json!({"entries": last.entries, "error": last.error});
            self.publish(feed, Some(set), last.outcome.into(), last.at, detail);
        }
    }
}

impl Done {
    fn good(at: Timestamp, outcome: Outcome, entries: Option<u64>, good: Option<LastGood>) -> Self {
        let last_try = LastTry {
            at,
            outcome,
            error: None,
            entries,
            acceptable: false,
        };
        Self {
            last_try,
            good,
            retry_after: None,
            accepted: None,
        }
    }
}

/// Why a set was not filled.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Nothing(#[from] Nothing),
    #[error(transparent)]
    Bad(#[from] Bad),
    #[error(transparent)]
    Command(#[from] CommandError),
}

impl Failure {
    fn outcome(&self) -> Outcome {
        use super::FetchError::{Encoding, Html, NoText, Packed, TooLarge, Url};
        match self {
            Self::Nothing(Nothing::Unread { error, .. }) => match error {
                Url(_) | TooLarge(_) | Encoding(_) | Packed(_) | NoText(_) | Html => {
                    Outcome::Refused
                }
                _ => Outcome::Failed,
            },
            Self::Nothing(Nothing::Bad(_)) | Self::Bad(_) => Outcome::Refused,
            Self::Command(error) => match error.kind {
                ErrorKind::Unavailable | ErrorKind::Conflict => Outcome::Failed,
                _ => Outcome::Refused,
            },
        }
    }

    fn entries(&self) -> Option<u64> {
        match self {
            Self::Bad(Bad::Refused { entries, .. }) => Some(*entries),
            _ => None,
        }
    }

    fn is_acceptable(&self) -> bool {
        use super::Refusal::{Grew, Shrank};
        matches!(
            self,
            Self::Bad(Bad::Refused {
                refusal: Shrank { .. } | Grew { .. },
                ..
            })
        )
    }

    fn retry_after(&self) -> Option<u64> {
        match self {
            Self::Nothing(Nothing::Unread { error, .. }) => error.retry_after(),
            _ => None,
        }
    }
}

fn is_of(status: &FeedStatus, run: u64) -> bool {
    status.claim.as_ref().is_some_and(|claim| claim.run == run)
}

fn overtaken(feed: &Feed, lost: &Lost) -> Failure {
    let object = format!("feed/{}", feed.name);
    let error = CommandError::new(ErrorKind::Conflict, object, lost.to_string());
    Failure::Command(error)
}
