//! Where the controllers keep what they must not lose: small records, changed by transactions, and
//! chunks, named by their content.
//!
//! A record is some bytes under a key, with the revision of the store at which it was written last. A
//! transaction says what it read and what it writes: it is made whole if nothing that it read has changed
//! since, or not at all. Who [watches](Store::watch) gets every transaction once and in order.
//!
//! Large things (the rules of a policy, the entries of a set) are in chunks of some kilobytes under
//! the SHA-256 of their bytes; a record has the list of their names. So a small change of a large thing writes few
//! bytes, history shares what did not change, and one transaction of a few records publishes any change.

pub mod backup;
pub mod etcd;
pub mod keeping;
mod packed;
pub mod sqlite;

use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::Stream;

/// The largest transaction: how many records it may write and read together.
pub const MAX_OPERATIONS: usize = 100;
/// The largest record, and the largest chunk, in bytes.
pub const MAX_VALUE: usize = 512 << 10;
/// The largest transaction in bytes, keys and values together. etcd takes 1.5 MiB by default.
pub const MAX_TRANSACTION: usize = 1 << 20;

/// The most records of one [page](Store::list), whatever was asked for.
pub const MAX_PAGE: usize = 1_000;

/// The number of a transaction: greater than that of each one before it. The first is 1 or more; 0 is
/// "before everything".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Revision(pub u64);

/// The name of a record: parts of `[a-zA-Z0-9._@:-]` between slashes, up to 512 bytes, as `policy/default`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

/// What is stored under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The bytes.
    pub value: Bytes,
    /// The transaction that wrote them.
    pub revision: Revision,
}

/// SHA-256 of a chunk.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

/// All or nothing.
#[derive(Debug, Clone, Default)]
pub struct Transaction {
    /// Records that must be as they were read: at this revision, or absent (`None`).
    pub expect: Vec<(Key, Option<Revision>)>,
    /// What is written (`Some`) and what is deleted (`None`); each key once.
    pub write: Vec<(Key, Option<Bytes>)>,
}

/// What one transaction wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Its number.
    pub revision: Revision,
    /// What it wrote and what it deleted, in the order of the keys.
    pub changes: Vec<(Key, Option<Bytes>)>,
}

/// Records in the order of their keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The revision of the store as of which the page is.
    pub revision: Revision,
    /// Up to as many as were asked for.
    pub records: Vec<(Key, Record)>,
    /// Whether there are more.
    pub more: bool,
}

/// Transactions as they are made. Ends only with an error: [`StoreError::Compacted`] if it was too slow, so that it
/// must begin again with a list, or the store is gone.
pub type Watch = Pin<Box<dyn Stream<Item = Result<Batch, StoreError>> + Send>>;

/// A store. Calls may be made at once from many tasks.
#[async_trait]
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// The name of this very store: made up when it was made, another one after a restore.
    fn epoch(&self) -> &str;

    /// The record under a key, as of the last transaction.
    async fn get(&self, key: &Key) -> Result<Option<Record>, StoreError>;

    /// Records whose keys begin with `prefix`, after the key `after`, up to `limit` and [`MAX_PAGE`]. `at` asks
    /// for the state at an earlier revision, so that pages belong together; absent: now.
    async fn list(
        &self,
        prefix: &str,
        after: Option<&Key>,
        limit: usize,
        at: Option<Revision>,
    ) -> Result<Page, StoreError>;

    /// Makes a transaction, which is on disk when this returns. One that changes nothing (it only expects, or
    /// deletes what is not there) makes no batch, and returns the revision of now.
    async fn commit(&self, transaction: Transaction) -> Result<Revision, CommitError>;

    /// Every transaction after a revision, from one that is not compacted on.
    async fn watch(&self, after: Revision) -> Result<Watch, StoreError>;

    /// Keeps chunks. Those that are there already cost little.
    async fn put_chunks(&self, chunks: Vec<Bytes>) -> Result<Vec<Digest>, StoreError>;

    /// A chunk, whose bytes have been checked against its name; `None` if there is none.
    async fn chunk(&self, digest: Digest) -> Result<Option<Bytes>, StoreError>;

    /// Deletes the chunks that `keep` does not name and that were put longer ago than `older_than`. Returns how many.
    async fn sweep(&self, keep: &HashSet<Digest>, older_than: Duration) -> Result<u64, StoreError>;

    /// Forgets what was in force before a revision, for `list` and `watch`; records stay. Does nothing if that
    /// much is forgotten already, or if the revision is not there yet.
    async fn compact(&self, before: Revision) -> Result<(), StoreError>;
}

/// Why the store does not answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// What was asked for is forgotten.
    #[error("the store has forgotten what was before revision {}", .0.0)]
    Compacted(Revision),
    /// It cannot be reached, or has no quorum; later it may.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// No room is left; nothing was written.
    #[error("the store is full: {0}")]
    Full(String),
    /// What is stored is not what was written.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// A chunk is larger than one may be.
    #[error("too large to be stored: {0}")]
    TooLarge(String),
}

/// Why a transaction was not made. Nothing was written, but for [`CommitError::Unknown`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// Something that it read has changed.
    #[error("{0:?} has changed meanwhile")]
    Conflict(Key),
    /// It is larger than a transaction may be.
    #[error("the transaction is too large: {0}")]
    TooLarge(String),
    /// It writes one key twice.
    #[error("the transaction writes {0:?} twice")]
    Twice(Key),
    /// The connection broke while it was made: read again what has become of it.
    #[error("it is not known whether the change was stored: {0}")]
    Unknown(String),
    /// Any other.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has it.
    #[error("{} is in use by another process: stop that one, or give this one a file of its own", .0.display())]
    InUse(PathBuf),
    /// A later version of this program wrote it.
    #[error("{} has schema {found}, this program knows up to {known}: run the version that wrote it, or a later one", .path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: u32,
        /// The newest that is known.
        known: u32,
    },
    /// What is stored is not what was written.
    #[error("{} is damaged ({reason}): move it away and restore the last backup with `xdpgate-controller restore`", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The file cannot be made, read or written.
    #[error("{}: {error}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        error: String,
    },
    /// The options are wrong.
    #[error("{0}")]
    Options(String),
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Transaction {
    /// Whether a store may take it: what each implementation asks before anything else, so that all refuse alike.
    ///
    /// # Errors
    /// [`CommitError::TooLarge`], [`CommitError::Twice`].
    pub(crate) fn check(&self) -> Result<(), CommitError> {
        let operations = self.expect.len() + self.write.len();
        if operations > MAX_OPERATIONS {
            let text = format!("{operations} records, at most {MAX_OPERATIONS}");
            return Err(CommitError::TooLarge(text));
        }
        let mut total = 0;
        let mut keys = HashSet::new();
        for (key, value) in &self.write {
            let size = value.as_ref().map_or(0, Bytes::len);
            if size > MAX_VALUE {
                let text = format!("{} has {size} bytes, at most {MAX_VALUE}", key.as_str());
                return Err(CommitError::TooLarge(text));
            }
            total += key.as_str().len() + size;
            if !keys.insert(key) {
                return Err(CommitError::Twice(key.clone()));
            }
        }
        if total > MAX_TRANSACTION {
            let text = format!("{total} bytes, at most {MAX_TRANSACTION}");
            return Err(CommitError::TooLarge(text));
        }
        Ok(())
    }
}

/// Refuses chunks that no store takes.
fn check_chunks(chunks: &[Bytes]) -> Result<(), StoreError> {
    match chunks.iter().find(|chunk| chunk.len() > MAX_VALUE) {
        Some(chunk) => Err(StoreError::TooLarge(format!(
            "a chunk has {} bytes, at most {MAX_VALUE}",
            chunk.len()
        ))),
        None => Ok(()),
    }
}

/// The name of a new store.
fn new_epoch() -> String {
    format!("{:032x}", rand::random::<u128>())
}

/// Seconds since 1970.
fn unix_now() -> i64 {
    jiff::Timestamp::now().as_second()
}

impl Key {
    /// A key; `None` if it has a byte that keys do not have, an empty part, or is too long.
    pub fn new(key: impl Into<String>) -> Option<Self> {
        let key = key.into();
        let ok = |b: u8| b.is_ascii_alphanumeric() || b"._@:-".contains(&b);
        let fine = key.len() <= 512
            && key
                .split('/')
                .all(|part| !part.is_empty() && part.bytes().all(ok));
        fine.then_some(Self(key))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Digest {
    /// Of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::{Digest as _, Sha256};
        Self(Sha256::digest(bytes).into())
    }

    /// From its text.
    pub fn parse(text: &str) -> Option<Self> {
        let mut digest = [0; 32];
        if text.len() != 64 || !text.is_ascii() {
            return None;
        }
        for (i, byte) in digest.iter_mut().enumerate() {
            let digits = &text[2 * i..2 * i + 2];
            if digits
                .bytes()
                .any(|b| !matches!(b, b'0'..=b'9' | b'a'..=b'f'))
            {
                return None;
            }
            *byte = u8::from_str_radix(digits, 16).ok()?;
        }
        Some(Self(digest))
    }
}

/// 64 lower-case hexadecimal digits.
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl serde::Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not 64 hexadecimal digits"))
    }
}
