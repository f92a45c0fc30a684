//! The schema, and how a file of an older one becomes one of this.
//!
//! `user_version` says which schema a file has. Each step is one transaction, and before the first one the
//! file is copied beside itself, as `FILE.schema-N`, so that the program that wrote it can be gone back to.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use crate::store::OpenError;

/// Step N makes schema N of schema N - 1. Never change one that was released: add another one.
const STEPS: [&str; 3] = [
    // Records, what they were, chunks.
    "CREATE TABLE store (
         id INTEGER PRIMARY KEY CHECK (id = 1),
         epoch TEXT NOT NULL,
         revision INTEGER NOT NULL CHECK (revision >= 0),
         compacted INTEGER NOT NULL CHECK (compacted BETWEEN 0 AND revision)
     ) STRICT;
     CREATE TABLE record (
         key TEXT NOT NULL PRIMARY KEY,
         revision INTEGER NOT NULL CHECK (revision > 0),
         value BLOB NOT NULL
     ) STRICT;
     CREATE TABLE history (
         revision INTEGER NOT NULL CHECK (revision > 0),
         key TEXT NOT NULL,
         deleted INTEGER NOT NULL CHECK (deleted IN (0, 1)),
         value BLOB NOT NULL,
         PRIMARY KEY (revision, key)
     ) STRICT;
     CREATE TABLE chunk (
         digest BLOB NOT NULL PRIMARY KEY CHECK (length(digest) = 32),
         put INTEGER NOT NULL,
         bytes BLOB NOT NULL
     ) STRICT;",
    // What a key was at a revision, without reading all of the history.
    "CREATE UNIQUE INDEX history_of_key ON history (key, revision);",
    // The time of a chunk apart from its bytes, so that it is renewed without writing them; chunks compressed:
    // their first byte says how, 0 is not at all.
    "ALTER TABLE chunk RENAME TO chunk_before;
     CREATE TABLE chunk (
         id INTEGER NOT NULL PRIMARY KEY,
         digest BLOB NOT NULL UNIQUE CHECK (length(digest) = 32),
         put INTEGER NOT NULL
     ) STRICT;
     CREATE TABLE chunk_bytes (
         id INTEGER NOT NULL PRIMARY KEY REFERENCES chunk (id) ON DELETE CASCADE,
         packed BLOB NOT NULL
     ) STRICT;
     INSERT INTO chunk (digest, put) SELECT digest, put FROM chunk_before;
     INSERT INTO chunk_bytes (id, packed)
         SELECT chunk.id, CAST(x'00' || chunk_before.bytes AS BLOB)
         FROM chunk JOIN chunk_before USING (digest);
     DROP TABLE chunk_before;",
];

/// The schema of this version.
pub(super) const SCHEMA: u32 = STEPS.len() as u32;

/// Where a migration is; tests end the process there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum At {
    /// The copy is being made.
    Copying,
    /// It is there.
    Copied,
    /// The changes to this schema are made, but not committed.
    Changed(u32),
    /// They are.
    Committed(u32),
}

/// Brings a file to the schema of this version. A new file gets it from nothing, with `epoch`.
pub(super) fn migrate(
    connection: &mut Connection,
    path: &Path,
    epoch: &str,
    at: &mut dyn FnMut(At),
) -> Result<(), OpenError> {
    let failed = |error: rusqlite::Error| super::open_error(path, &error);
    let found: u32 = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(failed)?;
    if found > SCHEMA {
        let path = path.to_owned();
        return Err(OpenError::Newer {
            path,
            found,
            known: SCHEMA,
        });
    }
    if found > 0 && found < SCHEMA {
        copy(connection, path, found, at)?;
        at(At::Copied);
    }
    for schema in found + 1..=SCHEMA {
        let mut step = || -> rusqlite::Result<()> {
            let transaction = connection.transaction()?;
            transaction.execute_batch(STEPS[schema as usize - 1])?;
            if schema == 1 {
                let new = "INSERT INTO store (id, epoch, revision, compacted) VALUES (1, ?1, 0, 0)";
                transaction.execute(new, [epoch])?;
            }
            transaction.pragma_update(None, "user_version", schema)?;
            at(At::Changed(schema));
            transaction.commit()?;
            at(At::Committed(schema));
            Ok(())
        };
        step().map_err(failed)?;
    }
    Ok(())
}

/// Where the copy of a file of an older schema is.
pub(super) fn copy_path(path: &Path, schema: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".schema-{schema}"));
    name.into()
}

/// Whole or not there: it is made under another name.
fn copy(
    connection: &Connection,
    path: &Path,
    schema: u32,
    at: &mut dyn FnMut(At),
) -> Result<(), OpenError> {
    let to = copy_path(path, schema);
    let mut unfinished = to.as_os_str().to_owned();
    unfinished.push(".unfinished");
    let unfinished = PathBuf::from(unfinished);
    let failed = |error: std::io::Error| OpenError::File {
        path: to.clone(),
        error: error.to_string(),
    };
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    drop(options.open(&unfinished).map_err(failed)?);
    at(At::Copying);
    connection
        .execute("VACUUM INTO ?1", [unfinished.to_string_lossy()])
        .map_err(|error| super::open_error(&to, &error))?;
    File::open(&unfinished)
        .and_then(|file| file.sync_all())
        .and_then(|()| fs::rename(&unfinished, &to))
        .and_then(|()| super::sync_folder(&to))
        .map_err(failed)
}
