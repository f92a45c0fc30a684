//! The whole state as one file, and back, between stores of any kind.
//!
//! ```text
//! "xdpgate backup\n", version (4 bytes), then zstd of frames, then SHA-256 of all before it
//! frame: kind (1 byte), length (4 bytes), bytes
//! ```
//! Numbers are little-endian. The first frame is the header, then come chunks, then records, then the end, which
//! counts both.

mod file;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    CommitError, Key, MAX_OPERATIONS, MAX_PAGE, MAX_TRANSACTION, Revision, Store, StoreError,
    Transaction,
};
use crate::content::{ContentError, Contents, named_in};
use file::{Frame, Reader, Writer};

/// Where it is written that a restore has begun; deleted by its last transaction.
const MARK: &str = "restore/unfinished";
/// Chunks that are read or put at a time.
const AT_ONCE: usize = 32;
/// The cache of what names chunks.
const CACHE: usize = 8 << 20;

/// What a backup says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The store that it is of.
    pub epoch: String,
    /// The transaction as of which it is.
    pub revision: u64,
    /// When it was made.
    pub made: jiff::Timestamp,
}

/// What is in a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// What it says of itself.
    pub header: Header,
    /// How many records it has.
    pub records: u64,
    /// How many chunks.
    pub chunks: u64,
}

/// Why a backup cannot be made or restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// The file cannot be read or written.
    #[error("{}: {error}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// It is not a whole backup. Nothing was restored.
    #[error("{} is not a whole backup ({reason}): nothing was restored; take another copy of it", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The store has records already.
    #[error("the store is not empty: it has {0}; restore into a new one")]
    NotEmpty(String),
    /// Something was written into the store while it was restored.
    #[error("another process writes into the store: stop it, and restore into a new one")]
    Disturbed,
    /// The store does not give or take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Writes all records as of now, and every chunk that their contents are made of, to a file that only its owner
/// may read. Writes to the store go on meanwhile. Under another name until it is whole.
///
/// # Errors
/// [`BackupError`]; then there is no file.
pub async fn backup(store: &Arc<dyn Store>, path: &Path) -> Result<Summary, BackupError> {
    let file_error = |error| BackupError::File {
        path: path.to_owned(),
        error,
    };
    let first = store.list("", None, 1, None).await?;
    let header = Header {
        epoch: store.epoch().to_owned(),
        revision: first.revision.0,
        made: jiff::Timestamp::now(),
    };
    let mut writer = Writer::create(path, &header).map_err(file_error)?;
    let contents = Contents::new(Arc::clone(store), CACHE);
    let mut reached = HashSet::new();
    // Chunks come first in the file, so that what a record names is there before it.
    let mut after = None;
    while let Some(page) = page_after(store, &mut after, first.revision).await? {
        for (key, value) in page {
            if key == mark() {
                return Err(StoreError::Damaged(unfinished_text()).into());
            }
            for content in named_in(&value) {
                contents
                    .reach(&content, &mut reached)
                    .await
                    .map_err(store_error)?;
            }
        }
    }
    let chunks = reached.len() as u64;
    for digest in reached {
        let Some(chunk) = store.chunk(digest).await? else {
            return Err(StoreError::Damaged(format!("chunk {digest} is missing")).into());
        };
        writer.chunk(&chunk).map_err(file_error)?;
    }
    let (mut records, mut after) = (0, None);
    while let Some(page) = page_after(store, &mut after, first.revision).await? {
        for (key, value) in page {
            writer.record(key.as_str(), &value).map_err(file_error)?;
            records += 1;
        }
    }
    writer.finish(chunks, records).map_err(file_error)?;
    Ok(Summary {
        header,
        records,
        chunks,
    })
}

/// The records after a key, which then is the last of them; `None` if there are none.
async fn page_after(
    store: &Arc<dyn Store>,
    after: &mut Option<Key>,
    at: Revision,
) -> Result<Option<Vec<(Key, Bytes)>>, StoreError> {
    let page = store.list("", after.as_ref(), MAX_PAGE, Some(at)).await?;
    let records = page.records.into_iter();
    let records: Vec<_> = records.map(|(key, record)| (key, record.value)).collect();
    *after = records.last().map(|(key, _)| key.clone()).or(after.take());
    Ok((!records.is_empty()).then_some(records))
}

/// Whether a file is a whole backup, and what is in it. Reads all of it.
///
/// # Errors
/// [`BackupError::File`], [`BackupError::Damaged`].
pub fn verify(path: &Path) -> Result<Summary, BackupError> {
    let mut reader = Reader::open(path)?;
    let (mut records, mut chunks) = (0, 0);
    loop {
        match reader.next()? {
            Frame::Chunk(_) => chunks += 1,
            Frame::Record(..) => records += 1,
            Frame::End => break,
        }
    }
    Ok(Summary {
        header: reader.header().clone(),
        records,
        chunks,
    })
}

/// What is of a moment: sessions and join tokens, of which some have ended or were used since; answers to requests; and what
/// running controllers say of themselves.
const NOT_RESTORED: [&str; 5] = [
    "session/",
    "join-token/",
    "done/",
    "rollout-status/",
    "controller/",
];

/// Puts a backup into a new store, which keeps its own epoch. The file is checked as a whole before anything is
/// written. Sessions and join tokens are left out. Until the last record is there, [`unfinished`] says so; the same backup may then be restored again.
///
/// # Errors
/// [`BackupError`].
pub async fn restore(store: &Arc<dyn Store>, path: &Path) -> Result<Summary, BackupError> {
    let summary = verify(path)?;
    let mark = mark();
    let name = Bytes::from(serde_json::to_vec(&summary.header).unwrap_or_default());
    let page = store.list("", None, 1, None).await?;
    let begun = store.get(&mark).await?;
    match (&begun, page.records.first()) {
        (Some(begun), _) if begun.value == name => {}
        (_, Some((key, _))) => return Err(BackupError::NotEmpty(key.as_str().to_owned())),
        (_, None) => {}
    }
    let begin = Transaction {
        expect: vec![(mark.clone(), begun.map(|record| record.revision))],
        write: vec![(mark.clone(), Some(name))],
    };
    let begun = commit(store, begin).await?;
    let mut reader = Reader::open(path)?;
    let (mut chunks, mut write, mut size) = (Vec::new(), Vec::new(), 0);
    // Each transaction sees that nobody else has begun a restore.
    let made = |write| Transaction {
        expect: vec![(mark.clone(), Some(begun))],
        write,
    };
    loop {
        match reader.next()? {
            Frame::Chunk(chunk) => {
                chunks.push(chunk);
                if chunks.len() == AT_ONCE {
                    store.put_chunks(std::mem::take(&mut chunks)).await?;
                }
            }
            // What was used up or has ended since would be good again.
            Frame::Record(key, _) if NOT_RESTORED.iter().any(|p| key.as_str().starts_with(p)) => {}
            Frame::Record(key, value) => {
                store.put_chunks(std::mem::take(&mut chunks)).await?;
                let more = key.as_str().len() + value.len();
                if write.len() + 2 > MAX_OPERATIONS || size + more > MAX_TRANSACTION {
                    commit(store, made(std::mem::take(&mut write))).await?;
                    size = 0;
                }
                size += more;
                write.push((key, Some(value)));
            }
            Frame::End => break,
        }
    }
    store.put_chunks(chunks).await?;
    commit(store, made(write)).await?;
    commit(store, made(vec![(mark.clone(), None)])).await?;
    Ok(summary)
}

/// Whether a restore into this store was broken off: then nothing else may use it.
///
/// # Errors
/// [`StoreError`].
pub async fn unfinished(store: &dyn Store) -> Result<Option<String>, StoreError> {
    Ok(store.get(&mark()).await?.map(|_| unfinished_text()))
}

fn unfinished_text() -> String {
    "a restore into this store was broken off: restore the same backup again".to_owned()
}

fn mark() -> Key {
    Key(MARK.to_owned())
}

async fn commit(store: &Arc<dyn Store>, transaction: Transaction) -> Result<Revision, BackupError> {
    match store.commit(transaction).await {
        Ok(revision) => Ok(revision),
        Err(CommitError::Conflict(_)) => Err(BackupError::Disturbed),
        Err(CommitError::Store(error)) => Err(error.into()),
        // The same backup may be restored again.
        Err(error) => Err(StoreError::Unavailable(error.to_string()).into()),
    }
}

/// Reading makes no other error.
fn store_error(error: ContentError) -> BackupError {
    match error {
        ContentError::Store(error) => error.into(),
        error => StoreError::Damaged(error.to_string()).into(),
    }
}
