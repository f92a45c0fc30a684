//! What is read, each from one snapshot of the file.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::try_unfold;
use rusqlite::{Connection, OptionalExtension, Row, params};
use tokio::sync::watch::Receiver;

use super::writer::ChunkRow;
use super::{Reads, store_error};
use crate::store::{Batch, Digest, Key, Page, Record, Revision, StoreError, Watch, packed};

/// About how many bytes one page, or one read of a watch, has at most.
const ABOUT: usize = 8 << 20;

pub(super) fn get(connection: &Connection, key: &Key) -> Result<Option<Record>, StoreError> {
    let select = "SELECT revision, value FROM record WHERE key = ?1";
    let record = connection.prepare_cached(select).and_then(|mut select| {
        let record = |row: &Row<'_>| {
            Ok(Record {
                revision: row.get(0)?,
                value: row.get::<_, Vec<u8>>(1)?.into(),
            })
        };
        select.query_row([key.as_str()], record).optional()
    });
    record.map_err(|error| store_error(&error))
}

pub(super) fn list(
    connection: &mut Connection,
    prefix: &str,
    after: Option<&Key>,
    limit: usize,
    at: Option<Revision>,
) -> Result<Page, StoreError> {
    let mut read = || -> rusqlite::Result<Result<Page, StoreError>> {
        let snapshot = connection.transaction()?;
        let (now, compacted) = revisions(&snapshot)?;
        let revision = at.unwrap_or(now);
        if revision < compacted {
            return Ok(Err(StoreError::Compacted(compacted)));
        }
        if revision > now {
            let text = format!("revision {} is not there yet", revision.0);
            return Ok(Err(StoreError::Unavailable(text)));
        }
        let mut select = snapshot.prepare_cached(if revision == now { NOW } else { THEN })?;
        // No key has a byte as high as this.
        let end = format!("{prefix}\x7f");
        let after = after.map_or("", Key::as_str);
        let mut rows = select.query(params![prefix, end, after, limit as i64 + 1, revision])?;
        let (mut records, mut more, mut size) = (Vec::new(), false, 0);
        while let Some(row) = rows.next()? {
            if records.len() == limit || size > ABOUT {
                more = true;
                break;
            }
            let value: Bytes = row.get::<_, Vec<u8>>(2)?.into();
            let revision = row.get(1)?;
            size += value.len();
            records.push((Key(row.get(0)?), Record { value, revision }));
        }
        Ok(Ok(Page {
            revision,
            records,
            more,
        }))
    };
    read().map_err(|error| store_error(&error))?
}

const NOW: &str = "SELECT key, revision, value FROM record
     WHERE key >= ?1 AND key < ?2 AND key > ?3 AND revision <= ?5 ORDER BY key LIMIT ?4";

/// What was not written since is as it is; of what was, the history has what it was before.
const THEN: &str = "SELECT key, revision, value FROM record
     WHERE key >= ?1 AND key < ?2 AND key > ?3 AND revision <= ?5
     UNION ALL
     SELECT key, revision, value FROM history AS past
     WHERE key >= ?1 AND key < ?2 AND key > ?3 AND revision <= ?5 AND NOT deleted
       AND NOT EXISTS (SELECT 1 FROM history AS later
           WHERE later.key = past.key AND later.revision > past.revision AND later.revision <= ?5)
       AND NOT EXISTS (SELECT 1 FROM record WHERE record.key = past.key AND record.revision <= ?5)
     ORDER BY key LIMIT ?4";

/// That of now, and that before which all is forgotten.
pub(super) fn revisions(connection: &Connection) -> rusqlite::Result<(Revision, Revision)> {
    connection
        .prepare_cached("SELECT revision, compacted FROM store")?
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))
}

pub(super) async fn watch(
    reads: Arc<Reads>,
    revision: Receiver<Revision>,
    after: Revision,
) -> Result<Watch, StoreError> {
    // Says at once that it is compacted.
    let first = reads.with(move |c| batches(c, after)).await?;
    let state = (reads, revision, after, VecDeque::from(first));
    let stream = try_unfold(
        state,
        |(reads, mut revision, after, mut ready)| async move {
            while ready.is_empty() {
                let newer = revision.wait_for(|now| *now > after).await.is_ok();
                if !newer {
                    return Err(StoreError::Unavailable("the store was closed".to_owned()));
                }
                ready = reads.with(move |c| batches(c, after)).await?.into();
            }
            let Some(batch) = ready.pop_front() else {
                return Ok(None);
            };
            let after = batch.revision;
            Ok(Some((batch, (reads, revision, after, ready))))
        },
    );
    Ok(stream.boxed())
}

/// Some of what came after a revision, whole batches.
fn batches(connection: &mut Connection, after: Revision) -> Result<Vec<Batch>, StoreError> {
    let mut read = || -> rusqlite::Result<Result<Vec<Batch>, StoreError>> {
        let snapshot = connection.transaction()?;
        let (_, compacted) = revisions(&snapshot)?;
        if after < compacted {
            return Ok(Err(StoreError::Compacted(compacted)));
        }
        let mut select = snapshot.prepare_cached(
            "SELECT revision, key, deleted, value FROM history
             WHERE revision > ?1 ORDER BY revision, key",
        )?;
        let mut rows = select.query([after])?;
        let (mut batches, mut size) = (Vec::<Batch>::new(), 0);
        while let Some(row) = rows.next()? {
            let revision: Revision = row.get(0)?;
            let deleted: bool = row.get(2)?;
            let value: Bytes = row.get::<_, Vec<u8>>(3)?.into();
            let same = batches.last().is_some_and(|last| last.revision == revision);
            if !same && size > ABOUT {
                break;
            }
            size += value.len() + 64;
            let change = (Key(row.get(1)?), (!deleted).then_some(value));
            match batches.last_mut() {
                Some(last) if same => last.changes.push(change),
                _ => batches.push(Batch {
                    revision,
                    changes: vec![change],
                }),
            }
        }
        Ok(Ok(batches))
    };
    read().map_err(|error| store_error(&error))?
}

/// Names chunks, and compresses those that are not there yet.
pub(super) fn pack(
    connection: &Connection,
    chunks: &[Bytes],
) -> Result<(Vec<Digest>, Vec<ChunkRow>), StoreError> {
    let digests: Vec<Digest> = chunks.iter().map(|chunk| Digest::of(chunk)).collect();
    let there = |digest: &Digest| {
        connection
            .prepare_cached("SELECT 1 FROM chunk WHERE digest = ?1")?
            .exists([&digest.0])
    };
    let mut rows = Vec::with_capacity(chunks.len());
    for (digest, chunk) in digests.iter().zip(chunks) {
        let packed = if there(digest).map_err(|error| store_error(&error))? {
            None
        } else {
            Some(packed::pack(chunk))
        };
        rows.push(ChunkRow {
            digest: *digest,
            chunk: chunk.clone(),
            packed,
        });
    }
    Ok((digests, rows))
}

pub(super) fn chunk(connection: &Connection, digest: Digest) -> Result<Option<Bytes>, StoreError> {
    let select = "SELECT packed FROM chunk JOIN chunk_bytes USING (id) WHERE digest = ?1";
    let packed = connection.prepare_cached(select).and_then(|mut select| {
        select
            .query_row([&digest.0], |row| row.get::<_, Vec<u8>>(0))
            .optional()
    });
    let packed = packed.map_err(|error| store_error(&error))?;
    packed
        .map(|packed| packed::unpack(digest, &packed))
        .transpose()
}

/// Chunks that were put before a time.
pub(super) fn chunks_before(
    connection: &Connection,
    before: i64,
) -> Result<Vec<Digest>, StoreError> {
    let read = || {
        connection
            .prepare_cached("SELECT digest FROM chunk WHERE put < ?1")?
            .query_map([before], |row| Ok(Digest(row.get(0)?)))?
            .collect::<rusqlite::Result<_>>()
    };
    read().map_err(|error| store_error(&error))
}
