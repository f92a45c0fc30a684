//! The one thread that writes.

use std::fs::File;
use std::sync::mpsc;
use std::thread;

use bytes::Bytes;
use nix::fcntl::Flock;
use rusqlite::{Connection, ErrorCode, OptionalExtension, TransactionBehavior, params};
use tokio::sync::{oneshot, watch};

use super::{read, store_error};
use crate::store::{CommitError, Digest, Key, Revision, StoreError, Transaction, packed, unix_now};

/// Jobs that share one `fsync`, at most.
const GROUP: usize = 128;

type Answer<T, E> = oneshot::Sender<Result<T, E>>;

/// What it is asked to do.
#[derive(Debug)]
pub(super) enum Job {
    Commit(Transaction, Answer<Revision, CommitError>),
    Chunks(Vec<ChunkRow>, Answer<(), StoreError>),
    /// Chunks that are deleted if they were not put again since this time.
    Sweep(Vec<Digest>, i64, Answer<u64, StoreError>),
    Compact(Revision, Answer<(), StoreError>),
    /// The most pages that the file may have, as if the disk had no more.
    #[cfg(test)]
    Limit(u32, Answer<(), StoreError>),
}

/// A chunk to keep.
#[derive(Debug)]
pub(super) struct ChunkRow {
    pub(super) digest: Digest,
    pub(super) chunk: Bytes,
    /// As it is stored; not made if the chunk was there already.
    pub(super) packed: Option<Vec<u8>>,
}

/// The way to the thread, which ends when this is dropped and it has done all.
#[derive(Debug)]
pub(super) struct Writer {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Writer {
    pub(super) fn start(
        connection: Connection,
        revision: watch::Sender<Revision>,
        lock: Flock<File>,
    ) -> Self {
        let (jobs, queue) = mpsc::channel();
        let work = move || {
            run(connection, &queue, &revision);
            drop(lock);
        };
        Self {
            jobs: Some(jobs),
            thread: Some(thread::spawn(work)),
        }
    }

    /// Waits until it is done.
    pub(super) async fn ask<T, E: From<StoreError>>(
        &self,
        job: impl FnOnce(Answer<T, E>) -> Job,
    ) -> Result<T, E> {
        let (answer, done) = oneshot::channel();
        let gone = || StoreError::Unavailable("the thread that writes has ended".to_owned());
        let sent = self
            .jobs
            .as_ref()
            .is_some_and(|jobs| jobs.send(job(answer)).is_ok());
        if !sent {
            return Err(gone().into());
        }
        done.await.unwrap_or_else(|_| Err(gone().into()))
    }
}

/// The file is closed, and may be opened anew, when this is through.
impl Drop for Writer {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // If it panicked, there is nothing left to wait for.
            let _ = thread.join();
        }
    }
}

/// What came of a job.
enum Outcome {
    Committed(Result<Revision, CommitError>),
    Done,
    Swept(u64),
}

/// Why nothing of a group was done.
struct Failure {
    error: StoreError,
    /// It came while all was being committed, so that some later start may find it done.
    committing: bool,
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self {
            error: store_error(&error),
            committing: false,
        }
    }
}

fn run(mut connection: Connection, queue: &mpsc::Receiver<Job>, now: &watch::Sender<Revision>) {
    while let Ok(first) = queue.recv() {
        let mut jobs = vec![first];
        jobs.extend(queue.try_iter().take(GROUP - 1));
        match together(&mut connection, &jobs, now) {
            Ok(outcomes) => jobs
                .into_iter()
                .zip(outcomes)
                .for_each(|(job, outcome)| answer(job, outcome)),
            Err(failure) if jobs.len() == 1 => {
                jobs.into_iter().for_each(|job| refuse(job, &failure))
            }
            // Only those shall fail that must.
            Err(_) => jobs.into_iter().for_each(|job| {
                match together(&mut connection, std::slice::from_ref(&job), now) {
                    Ok(mut outcomes) => {
                        if let Some(outcome) = outcomes.pop() {
                            answer(job, outcome);
                        }
                    }
                    Err(failure) => refuse(job, &failure),
                }
            }),
        }
    }
}

/// All of them in one transaction of the file, or none.
fn together(
    connection: &mut Connection,
    jobs: &[Job],
    now: &watch::Sender<Revision>,
) -> Result<Vec<Outcome>, Failure> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let (before, _) = read::revisions(&transaction)?;
    let mut revision = before;
    let outcomes = jobs.iter().map(|job| one(&transaction, job, &mut revision));
    let outcomes = outcomes.collect::<rusqlite::Result<Vec<Outcome>>>()?;
    if revision != before {
        transaction.execute("UPDATE store SET revision = ?1", [revision])?;
    }
    transaction.commit().map_err(|error| Failure {
        committing: error.sqlite_error_code() == Some(ErrorCode::SystemIoFailure),
        error: store_error(&error),
    })?;
    if revision != before {
        now.send_replace(revision);
    }
    Ok(outcomes)
}

fn one(file: &Connection, job: &Job, revision: &mut Revision) -> rusqlite::Result<Outcome> {
    Ok(match job {
        Job::Commit(transaction, _) => Outcome::Committed(commit(file, transaction, revision)?),
        Job::Chunks(rows, _) => {
            rows.iter().try_for_each(|row| put(file, row))?;
            Outcome::Done
        }
        Job::Sweep(digests, before, _) => {
            let delete = "DELETE FROM chunk WHERE digest = ?1 AND put < ?2";
            let mut delete = file.prepare_cached(delete)?;
            let mut swept = 0;
            for digest in digests {
                swept += delete.execute(params![digest.0, before])? as u64;
            }
            Outcome::Swept(swept)
        }
        Job::Compact(before, _) => {
            compact(file, *before, *revision)?;
            Outcome::Done
        }
        #[cfg(test)]
        Job::Limit(pages, _) => {
            file.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))?;
            Outcome::Done
        }
    })
}

/// Writes nothing if it is refused.
fn commit(
    file: &Connection,
    transaction: &Transaction,
    revision: &mut Revision,
) -> rusqlite::Result<Result<Revision, CommitError>> {
    let mut select = file.prepare_cached("SELECT revision FROM record WHERE key = ?1")?;
    let mut is = |key: &Key| -> rusqlite::Result<Option<Revision>> {
        select
            .query_row([key.as_str()], |row| row.get(0))
            .optional()
    };
    for (key, expected) in &transaction.expect {
        if is(key)? != *expected {
            return Ok(Err(CommitError::Conflict(key.clone())));
        }
    }
    let mut writes = Vec::with_capacity(transaction.write.len());
    for (key, value) in &transaction.write {
        if value.is_some() || is(key)?.is_some() {
            writes.push((key, value));
        }
    }
    if writes.is_empty() {
        return Ok(Ok(*revision));
    }
    revision.0 += 1;
    // What it was, if that has left the history: `list` at an earlier revision needs it from now on.
    let mut before = file.prepare_cached(
        "INSERT OR IGNORE INTO history (revision, key, deleted, value)
         SELECT revision, key, 0, value FROM record WHERE key = ?1",
    )?;
    let mut history = file.prepare_cached(
        "INSERT INTO history (revision, key, deleted, value) VALUES (?1, ?2, ?3, ?4)",
    )?;
    let mut write = file.prepare_cached(
        "INSERT INTO record (key, revision, value) VALUES (?1, ?2, ?3)
         ON CONFLICT (key) DO UPDATE SET revision = excluded.revision, value = excluded.value",
    )?;
    let mut delete = file.prepare_cached("DELETE FROM record WHERE key = ?1")?;
    for (key, value) in writes {
        let (key, bytes) = (key.as_str(), value.as_deref().unwrap_or_default());
        before.execute([key])?;
        history.execute(params![*revision, key, value.is_none(), bytes])?;
        match value {
            Some(value) => write.execute(params![key, *revision, value.as_ref()])?,
            None => delete.execute([key])?,
        };
    }
    Ok(Ok(*revision))
}

fn put(file: &Connection, row: &ChunkRow) -> rusqlite::Result<()> {
    let touched = file
        .prepare_cached("UPDATE chunk SET put = ?2 WHERE digest = ?1")?
        .execute(params![row.digest.0, unix_now()])?;
    if touched > 0 {
        return Ok(());
    }
    file.prepare_cached("INSERT INTO chunk (digest, put) VALUES (?1, ?2)")?
        .execute(params![row.digest.0, unix_now()])?;
    let id = file.last_insert_rowid();
    let mut insert = file.prepare_cached("INSERT INTO chunk_bytes (id, packed) VALUES (?1, ?2)")?;
    // It was there when it was looked for, and has been swept since.
    let packed = row
        .packed
        .as_ref()
        .map_or_else(|| packed::pack(&row.chunk), Vec::clone);
    insert.execute(params![id, packed])?;
    Ok(())
}

/// Keeps of each key that was written since what it was then.
fn compact(file: &Connection, before: Revision, now: Revision) -> rusqlite::Result<()> {
    let (_, compacted) = read::revisions(file)?;
    if before <= compacted || before > now {
        return Ok(());
    }
    file.prepare_cached(
        "DELETE FROM history WHERE revision <= ?1 AND (
             EXISTS (SELECT 1 FROM history AS later WHERE later.key = history.key
                 AND later.revision > history.revision AND later.revision <= ?1)
             OR NOT EXISTS (SELECT 1 FROM history AS later WHERE later.key = history.key
                 AND later.revision > ?1))",
    )?
    .execute([before])?;
    file.execute(
        "UPDATE store SET revision = max(revision, ?1), compacted = ?1",
        [before],
    )?;
    Ok(())
}

/// Who asked may have gone: then nobody is told.
fn answer(job: Job, outcome: Outcome) {
    match (job, outcome) {
        (Job::Commit(_, answer), Outcome::Committed(result)) => drop(answer.send(result)),
        (Job::Chunks(_, answer) | Job::Compact(_, answer), Outcome::Done) => {
            drop(answer.send(Ok(())));
        }
        (Job::Sweep(_, _, answer), Outcome::Swept(swept)) => drop(answer.send(Ok(swept))),
        #[cfg(test)]
        (Job::Limit(_, answer), Outcome::Done) => drop(answer.send(Ok(()))),
        // Each job has the outcome of its kind.
        (_, Outcome::Committed(_) | Outcome::Done | Outcome::Swept(_)) => {}
    }
}

fn refuse(job: Job, failure: &Failure) {
    let error = || match &failure.error {
        StoreError::Full(text) => StoreError::Full(text.clone()),
        StoreError::Damaged(text) => StoreError::Damaged(text.clone()),
        error => StoreError::Unavailable(error.to_string()),
    };
    match job {
        Job::Commit(_, answer) => drop(answer.send(Err(if failure.committing {
            CommitError::Unknown(failure.error.to_string())
        } else {
            error().into()
        }))),
        Job::Chunks(_, answer) | Job::Compact(_, answer) => drop(answer.send(Err(error()))),
        Job::Sweep(_, _, answer) => drop(answer.send(Err(error()))),
        #[cfg(test)]
        Job::Limit(_, answer) => drop(answer.send(Err(error()))),
    }
}
