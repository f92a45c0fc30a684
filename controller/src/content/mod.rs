//! Large ordered maps (the rules of a policy, the entries of a set) as chunks of the store.
//!
//! Keys and values are bytes. Entries in the order of their keys are cut into chunks where the hash of a key
//! says so, not after a count: so the same entries give the same chunks, whatever was changed in which
//! order to come there, and a change makes new only the chunk that it is in. The chunks are listed, the list is cut
//! in the same way, and a root names its pieces. [`Content`] is the name of the root, which is what a record
//! holds: equal contents have equal names.
//!
//! ```text
//! record -> root -> pieces of the list: first key, entries, bytes, digest of each chunk -> chunks of entries
//! ```

mod chunker;
mod coding;
mod compare;
mod edit;
pub mod entries;
mod list;
pub mod rules;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt};
use lru::LruCache;
use serde::{Deserialize, Serialize};

use crate::store::{Digest, MAX_VALUE, Store, StoreError};
use chunker::Chunker;
use list::Part;

pub use compare::Difference;

/// The longest key.
pub const MAX_KEY: usize = 1024;
/// The largest entry, key and value together.
pub const MAX_ENTRY: usize = MAX_VALUE - 1024;

/// Chunks that are read ahead.
const AHEAD: usize = 8;
/// Bytes that are put at a time.
const PUT: usize = 4 << 20;

/// The name of a content: equal if, and only if, the entries and the [`Shape`] are. As JSON it is an object that
/// [`named_in`] finds in a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Content {
    /// The chunk where it begins.
    #[serde(rename = "$content")]
    pub root: Digest,
    /// How many entries there are.
    pub count: u64,
    /// The bytes of all entries, before they are compressed.
    pub bytes: u64,
}

/// How entries are cut. One kind of content has one shape for ever, else equal contents get different names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Bytes of a chunk, on average.
    pub mean: usize,
    /// The most, whatever the keys are; a larger entry has a chunk of its own.
    pub max: usize,
}

/// Contents in a store.
#[derive(Debug, Clone)]
pub struct Contents {
    store: Arc<dyn Store>,
    cache: Arc<Mutex<Cache>>,
}

/// Chunks that were read or made last.
#[derive(Debug)]
struct Cache {
    chunks: LruCache<Digest, Bytes>,
    bytes: usize,
    most: usize,
}

/// Why a content cannot be made or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContentError {
    /// An entry is larger than any may be.
    #[error("{key} has {size} bytes, at most {MAX_ENTRY} (and {MAX_KEY} of the key)")]
    TooLarge {
        /// Its key, as far as it is text.
        key: String,
        /// Its size, with the key.
        size: usize,
    },
    /// Entries came out of order, or one came twice.
    #[error("{0} is not after the entry before it")]
    Order(String),
    /// The store does not give or take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Contents {
    /// Contents in a store. Up to `cache` bytes of chunks are kept in memory.
    pub fn new(store: Arc<dyn Store>, cache: usize) -> Self {
        let cache = Cache {
            chunks: LruCache::unbounded(),
            bytes: 0,
            most: cache,
        };
        Self {
            store,
            cache: Arc::new(Mutex::new(cache)),
        }
    }

    /// A content of these entries, in the order of their keys, each key once. Its chunks are in the store when
    /// this returns: put its name into a record before they are swept.
    ///
    /// # Errors
    /// [`ContentError`].
    pub async fn build(
        &self,
        shape: Shape,
        entries: impl IntoIterator<Item = (Bytes, Bytes), IntoIter: Send>,
    ) -> Result<Content, ContentError> {
        let mut chunker = Chunker::new(shape);
        let mut parts = Vec::new();
        for (key, value) in entries {
            chunker.push(key, value)?;
            if chunker.made_bytes() >= PUT {
                self.keep(chunker.take(), &mut parts, None).await?;
            }
        }
        chunker.finish();
        self.keep(chunker.take(), &mut parts, None).await?;
        self.name(&parts, &HashSet::new()).await
    }

    /// The value of a key.
    ///
    /// # Errors
    /// [`ContentError::Store`].
    pub async fn get(&self, content: &Content, key: &[u8]) -> Result<Option<Bytes>, ContentError> {
        let parts = self.parts(content).await?;
        let Some(part) = list::holder(&parts, key).map(|i| &parts[i]) else {
            return Ok(None);
        };
        for entry in coding::entries(self.read(part.digest).await?)? {
            let (found, value) = entry?;
            if found >= key {
                return Ok((found == key).then_some(value));
            }
        }
        Ok(None)
    }

    /// Entries after a key, up to `limit`. Fewer than that are the last ones.
    ///
    /// # Errors
    /// [`ContentError::Store`].
    pub async fn page(
        &self,
        content: &Content,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, ContentError> {
        let parts = self.parts(content).await?;
        let after = after.unwrap_or_default();
        let first = list::holder(&parts, after).unwrap_or(0);
        let mut page = Vec::new();
        for part in &parts[first..] {
            for entry in coding::entries(self.read(part.digest).await?)? {
                if page.len() == limit {
                    return Ok(page);
                }
                let (key, value) = entry?;
                if key > after {
                    page.push((key, value));
                }
            }
        }
        Ok(page)
    }

    /// All entries in order, those of a chunk at a time.
    ///
    /// # Errors
    /// [`ContentError::Store`].
    pub async fn stream(
        &self,
        content: &Content,
    ) -> Result<impl Stream<Item = Result<Vec<(Bytes, Bytes)>, ContentError>> + Send, ContentError>
    {
        let parts = self.parts(content).await?;
        let digests: Vec<Digest> = parts.iter().map(|part| part.digest).collect();
        Ok(self.clone().entries_of(digests))
    }

    /// All entries in order.
    ///
    /// # Errors
    /// [`ContentError::Store`].
    pub async fn all(&self, content: &Content) -> Result<Vec<(Bytes, Bytes)>, ContentError> {
        self.stream(content).await?.try_concat().await
    }

    /// Adds every chunk that a content is made of, for a sweep or a backup. Pieces that are in `reached` already are
    /// not read again, so many versions of one thing cost little more than one.
    ///
    /// # Errors
    /// [`ContentError::Store`].
    pub async fn reach(
        &self,
        content: &Content,
        reached: &mut HashSet<Digest>,
    ) -> Result<(), ContentError> {
        if !reached.insert(content.root) {
            return Ok(());
        }
        for piece in list::pieces(&self.read(content.root).await?)? {
            if reached.insert(piece) {
                let parts = list::parts(&self.read(piece).await?)?;
                reached.extend(parts.iter().map(|part| part.digest));
            }
        }
        Ok(())
    }

    /// The list of a content.
    async fn parts(&self, content: &Content) -> Result<Vec<Part>, ContentError> {
        let mut parts = Vec::new();
        for piece in list::pieces(&self.read(content.root).await?)? {
            parts.append(&mut list::parts(&self.read(piece).await?)?);
        }
        if parts.iter().map(|part| part.count).sum::<u64>() != content.count {
            let text = format!(
                "content {} has not the entries that its record says",
                content.root
            );
            return Err(StoreError::Damaged(text).into());
        }
        Ok(parts)
    }

    /// Entries of chunks, in their order.
    fn entries_of(
        self,
        digests: Vec<Digest>,
    ) -> impl Stream<Item = Result<Vec<(Bytes, Bytes)>, ContentError>> + Send {
        let read = move |digest| {
            let this = self.clone();
            async move { coding::entries(this.read(digest).await?)?.collect() }
        };
        futures_util::stream::iter(digests)
            .map(read)
            .buffered(AHEAD)
    }

    async fn read(&self, digest: Digest) -> Result<Bytes, ContentError> {
        if let Some(chunk) = self.cache().chunks.get(&digest) {
            return Ok(chunk.clone());
        }
        let Some(chunk) = self.store.chunk(digest).await? else {
            return Err(StoreError::Damaged(format!("chunk {digest} is missing")).into());
        };
        self.cache().add(digest, chunk.clone());
        Ok(chunk)
    }

    /// Puts chunks of entries, but for those of the content that they came from, and lists them.
    async fn keep(
        &self,
        made: Vec<(Part, Bytes)>,
        parts: &mut Vec<Part>,
        from: Option<&HashSet<Digest>>,
    ) -> Result<(), ContentError> {
        let new = |part: &Part| from.is_none_or(|from| !from.contains(&part.digest));
        let mut chunks = Vec::new();
        for (part, chunk) in made {
            if new(&part) {
                chunks.push(chunk);
            }
            parts.push(part);
        }
        self.put(chunks).await
    }

    async fn put(&self, chunks: Vec<Bytes>) -> Result<(), ContentError> {
        if chunks.is_empty() {
            return Ok(());
        }
        let digests = self.store.put_chunks(chunks.clone()).await?;
        let mut cache = self.cache();
        for (digest, chunk) in digests.into_iter().zip(chunks) {
            cache.add(digest, chunk);
        }
        Ok(())
    }

    /// Puts the list, but for pieces of the list that it came from, and the root.
    async fn name(&self, parts: &[Part], from: &HashSet<Digest>) -> Result<Content, ContentError> {
        let (root, pieces) = list::encode(parts);
        let name = Content {
            root: Digest::of(&root),
            count: parts.iter().map(|part| part.count).sum(),
            bytes: parts.iter().map(|part| part.size).sum(),
        };
        let pieces = pieces
            .into_iter()
            .filter(|piece| !from.contains(&Digest::of(piece)));
        self.put(pieces.chain([root]).collect()).await?;
        Ok(name)
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cache {
    fn add(&mut self, digest: Digest, chunk: Bytes) {
        self.bytes += chunk.len();
        if let Some(before) = self.chunks.put(digest, chunk) {
            self.bytes -= before.len();
        }
        while self.bytes > self.most {
            let Some((_, oldest)) = self.chunks.pop_lru() else {
                break;
            };
            self.bytes -= oldest.len();
        }
    }
}

/// The contents that a record names, in any place of its JSON; none if it is not JSON.
pub fn named_in(record: &[u8]) -> Vec<Content> {
    fn walk(value: &serde_json::Value, found: &mut Vec<Content>) {
        match value {
            serde_json::Value::Object(map) => {
                if map.contains_key("$content") {
                    found.extend(serde_json::from_value::<Content>(value.clone()));
                }
                map.values().for_each(|value| walk(value, found));
            }
            serde_json::Value::Array(list) => list.iter().for_each(|value| walk(value, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    let mark = br#""$content""#;
    if record.windows(mark.len()).any(|bytes| bytes == mark)
        && let Ok(value) = serde_json::from_slice(record)
    {
        walk(&value, &mut found);
    }
    found
}
