//! The store of a single controller: one SQLite file.
//!
//! One thread writes; what comes to it meanwhile is made in one transaction of the file, so that many
//! commits share one `fsync`. Reads have connections of their own and see what was committed last. A lock on
//! `FILE.lock` keeps a second process out.

mod migrations;
mod read;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use nix::fcntl::{Flock, FlockArg};
use rusqlite::backup::{Backup, StepResult};
use rusqlite::types::{FromSql, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, ErrorCode, OpenFlags};
use tokio::sync::watch;

use super::{
    CommitError, Digest, Key, MAX_PAGE, OpenError, Page, Record, Revision, Store, StoreError,
    Transaction, Watch,
};
use migrations::At;
use writer::{Job, Writer};

/// Connections that are kept for reading; more are opened when more reads come at once.
const READERS: usize = 4;

/// A store in one file.
///
/// ```
/// use xdpgate_controller::store::{Key, Store, Transaction, sqlite::Sqlite};
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("controller.db");
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let store = Sqlite::open(&path)?;
/// let key = Key::new("group/web").ok_or("not a key")?;
/// let create = Transaction {
///     expect: vec![(key.clone(), None)],
///     write: vec![(key.clone(), Some("{}".into()))],
/// };
/// let revision = store.commit(create.clone()).await?;
/// assert_eq!(store.get(&key).await?.map(|record| record.revision), Some(revision));
/// assert!(store.commit(create).await.is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Sqlite {
    epoch: String,
    writer: Writer,
    reads: Arc<Reads>,
    /// The revision of now.
    revision: watch::Receiver<Revision>,
}

/// Connections that read.
#[derive(Debug)]
struct Reads {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
}

impl Sqlite {
    /// Opens a file, or makes it. Reads all of it once, to find damage.
    ///
    /// # Errors
    /// [`OpenError`] with the file and the mend.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::open_with(path.as_ref(), &mut |_| ())
    }

    fn open_with(path: &Path, at: &mut dyn FnMut(At)) -> Result<Self, OpenError> {
        let lock = lock(path)?;
        let failed = |error: rusqlite::Error| open_error(path, &error);
        let mut connection = private_file(path).and_then(|()| connect(path).map_err(failed))?;
        check(&connection, path)?;
        migrations::migrate(&mut connection, path, &super::new_epoch(), at)?;
        let select = "SELECT epoch, revision FROM store";
        let (epoch, revision) = connection
            .query_row(select, [], |row| Ok((row.get(0)?, row.get(1)?)))
            .map_err(failed)?;
        let (sender, receiver) = watch::channel(revision);
        let reads = Arc::new(Reads {
            path: path.to_owned(),
            idle: Mutex::default(),
        });
        Ok(Self {
            epoch,
            writer: Writer::start(connection, sender, lock),
            reads,
            revision: receiver,
        })
    }
}

/// Copies the file of a store, as of one moment, also while another process has it open.
///
/// # Errors
/// [`OpenError`]: there is no such file, or the copy cannot be written.
pub fn copy(from: &Path, to: &Path) -> Result<(), OpenError> {
    let source = Connection::open_with_flags(from, OpenFlags::SQLITE_OPEN_READ_ONLY)
        .map_err(|error| open_error(from, &error))?;
    source
        .busy_timeout(Duration::from_secs(10))
        .map_err(|error| open_error(from, &error))?;
    private_file(to)?;
    let failed = |error: rusqlite::Error| open_error(to, &error);
    let mut target = Connection::open(to).map_err(failed)?;
    let copying = Backup::new(&source, &mut target).map_err(failed)?;
    // All at once: a copy in steps begins anew whenever something is written.
    match copying.step(-1).map_err(failed)? {
        StepResult::Done => Ok(()),
        _ => Err(OpenError::InUse(from.to_owned())),
    }
}

impl Reads {
    /// Does something with a connection, on a thread that may wait.
    async fn with<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let this = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || {
            let idle = this.idle().pop();
            let mut connection = match idle {
                Some(connection) => connection,
                None => connect(&this.path).map_err(|error| store_error(&error))?,
            };
            let result = read(&mut connection);
            let mut idle = this.idle();
            if idle.len() < READERS {
                idle.push(connection);
            }
            result
        });
        let stopped = |_| StoreError::Unavailable("a read was broken off".to_owned());
        done.await.map_err(stopped)?
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Store for Sqlite {
    fn epoch(&self) -> &str {
        &self.epoch
    }

    async fn get(&self, key: &Key) -> Result<Option<Record>, StoreError> {
        let key = key.clone();
        self.reads.with(move |c| read::get(c, &key)).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&Key>,
        limit: usize,
        at: Option<Revision>,
    ) -> Result<Page, StoreError> {
        let (prefix, after) = (prefix.to_owned(), after.cloned());
        let limit = limit.min(MAX_PAGE);
        self.reads
            .with(move |c| read::list(c, &prefix, after.as_ref(), limit, at))
            .await
    }

    async fn commit(&self, transaction: Transaction) -> Result<Revision, CommitError> {
        transaction.check()?;
        self.writer
            .ask(|answer| Job::Commit(transaction, answer))
            .await
    }

    async fn watch(&self, after: Revision) -> Result<Watch, StoreError> {
        read::watch(Arc::clone(&self.reads), self.revision.clone(), after).await
    }

    async fn put_chunks(&self, chunks: Vec<Bytes>) -> Result<Vec<Digest>, StoreError> {
        super::check_chunks(&chunks)?;
        let (digests, rows) = self.reads.with(move |c| read::pack(c, &chunks)).await?;
        self.writer.ask(|answer| Job::Chunks(rows, answer)).await?;
        Ok(digests)
    }

    async fn chunk(&self, digest: Digest) -> Result<Option<Bytes>, StoreError> {
        self.reads.with(move |c| read::chunk(c, digest)).await
    }

    async fn sweep(&self, keep: &HashSet<Digest>, older_than: Duration) -> Result<u64, StoreError> {
        let seconds = i64::try_from(older_than.as_secs()).unwrap_or(i64::MAX);
        let before = super::unix_now().saturating_sub(seconds);
        let lost = self
            .reads
            .with(move |c| read::chunks_before(c, before))
            .await?;
        let lost: Vec<Digest> = lost.into_iter().filter(|d| !keep.contains(d)).collect();
        let mut swept = 0;
        for some in lost.chunks(256) {
            let some = some.to_vec();
            swept += self
                .writer
                .ask(|answer| Job::Sweep(some, before, answer))
                .await?;
        }
        Ok(swept)
    }

    async fn compact(&self, before: Revision) -> Result<(), StoreError> {
        self.writer.ask(|answer| Job::Compact(before, answer)).await
    }
}

impl FromSql for Revision {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        // The schema has none below 0.
        i64::column_result(value).map(|number| Self(number.unsigned_abs()))
    }
}

impl ToSql for Revision {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        // One that SQLite cannot have is later than any that it has.
        Ok(i64::try_from(self.0).unwrap_or(i64::MAX).into())
    }
}

/// The lock of a file, or who has it is in the way.
fn lock(path: &Path) -> Result<Flock<File>, OpenError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(&name).map_err(|error| OpenError::File {
        path: name.clone().into(),
        error: error.to_string(),
    })?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .map_err(|_| OpenError::InUse(path.to_owned()))
}

/// SQLite gives the files beside it the permissions of this one.
fn private_file(path: &Path) -> Result<(), OpenError> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(path);
    file.and_then(|_| fs::set_permissions(path, Permissions::from_mode(0o600)))
        .and_then(|()| sync_folder(path))
        .map_err(|error| OpenError::File {
            path: path.to_owned(),
            error: error.to_string(),
        })
}

/// The folder says that the file is there, also after a power cut.
pub(super) fn sync_folder(path: &Path) -> std::io::Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::from_secs(10))?;
    connection.execute_batch(
        "PRAGMA journal_mode = WAL;
         PRAGMA synchronous = FULL;
         PRAGMA foreign_keys = ON;
         PRAGMA journal_size_limit = 67108864;",
    )?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// Finds damage before it is built upon.
fn check(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let found: String = connection
        .pragma_query_value(None, "quick_check", |row| row.get(0))
        .map_err(|error| open_error(path, &error))?;
    if found == "ok" {
        return Ok(());
    }
    Err(OpenError::Damaged {
        path: path.to_owned(),
        reason: found.lines().last().unwrap_or_default().to_owned(),
    })
}

fn open_error(path: &Path, error: &rusqlite::Error) -> OpenError {
    let path = path.to_owned();
    match store_error(error) {
        StoreError::Damaged(reason) => OpenError::Damaged { path, reason },
        error => OpenError::File {
            path,
            error: error.to_string(),
        },
    }
}

/// What SQLite says, by what helps.
fn store_error(error: &rusqlite::Error) -> StoreError {
    let text = error.to_string();
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StoreError::Full(text),
        // The index of the log could not grow.
        Some(ErrorCode::SystemIoFailure) if extended(error) == Some(SHM_SIZE) => {
            StoreError::Full(text)
        }
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreError::Damaged(text),
        _ => StoreError::Unavailable(text),
    }
}

/// `SQLITE_IOERR_SHMSIZE`.
const SHM_SIZE: i32 = rusqlite::ffi::SQLITE_IOERR_SHMSIZE;

fn extended(error: &rusqlite::Error) -> Option<i32> {
    error.sqlite_error().map(|error| error.extended_code)
}
