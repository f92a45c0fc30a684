//! Where entries are cut.
//!
//! After an entry whose key has a low hash, by its size: so chunks have the same mean for small entries and for large
//! ones. Who chooses keys that all have high hashes gets chunks that are cut for their size, after
//! the lowest hash of their second half: that too depends on content alone, and comes back into step soon after a change.

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use super::list::Part;
use super::{ContentError, MAX_ENTRY, MAX_KEY, Shape, coding};
use crate::store::Digest;

/// Cuts entries that come in order.
pub(super) struct Chunker {
    shape: Shape,
    /// Entries since the last cut, with their sizes and hashes.
    pending: Vec<(Bytes, Bytes, usize, u64)>,
    /// Their bytes.
    size: usize,
    made: Vec<(Part, Bytes)>,
    made_bytes: usize,
    /// The key before `pending`.
    last: Option<Bytes>,
}

impl Chunker {
    pub(super) fn new(shape: Shape) -> Self {
        Self {
            shape,
            pending: Vec::new(),
            size: 0,
            made: Vec::new(),
            made_bytes: 0,
            last: None,
        }
    }

    pub(super) fn push(&mut self, key: Bytes, value: Bytes) -> Result<(), ContentError> {
        let size = coding::entry_size(&key, &value);
        if key.len() > MAX_KEY || size > MAX_ENTRY {
            let key = String::from_utf8_lossy(&key).into_owned();
            return Err(ContentError::TooLarge { key, size });
        }
        let before = self.pending.last().map(|(key, ..)| key);
        if before
            .or(self.last.as_ref())
            .is_some_and(|last| *last >= key)
        {
            let key = String::from_utf8_lossy(&key).into_owned();
            return Err(ContentError::Order(key));
        }
        while !self.pending.is_empty() && self.size + size > self.shape.max {
            self.cut_for_size();
        }
        let hash = xxh3_64(&key);
        self.pending.push((key, value, size, hash));
        self.size += size;
        let low = (u64::MAX / self.shape.mean as u64).saturating_mul(size as u64);
        if hash < low || size >= self.shape.mean {
            self.cut(self.pending.len(), false);
        }
        Ok(())
    }

    /// No entry comes any more.
    pub(super) fn finish(&mut self) {
        if !self.pending.is_empty() {
            self.cut(self.pending.len(), false);
        }
    }

    /// The first key since the last cut.
    pub(super) fn pending(&self) -> Option<&Bytes> {
        self.pending.first().map(|(key, ..)| key)
    }

    /// Forgets what came since the last cut.
    pub(super) fn forget_pending(&mut self) {
        self.pending.clear();
        self.size = 0;
        self.last = None;
    }

    pub(super) fn made_bytes(&self) -> usize {
        self.made_bytes
    }

    /// The chunks that were cut.
    pub(super) fn take(&mut self) -> Vec<(Part, Bytes)> {
        self.made_bytes = 0;
        std::mem::take(&mut self.made)
    }

    fn cut_for_size(&mut self) {
        let mut end = 0;
        let second_half = self
            .pending
            .iter()
            .enumerate()
            .filter(|(_, (_, _, size, _))| {
                end += size;
                2 * end >= self.size
            });
        let lowest = second_half.min_by_key(|(_, (.., hash))| *hash);
        let count = lowest.map_or(self.pending.len(), |(i, _)| i + 1);
        self.cut(count, true);
    }

    fn cut(&mut self, count: usize, for_size: bool) {
        let mut chunk = vec![coding::ENTRIES];
        let mut first_key = None;
        for (key, value, ..) in self.pending.drain(..count) {
            coding::put_bytes(&mut chunk, &key);
            coding::put_bytes(&mut chunk, &value);
            first_key.get_or_insert_with(|| key.clone());
            self.last = Some(key);
        }
        let size = chunk.len() - 1;
        self.size -= size;
        self.made_bytes += chunk.len();
        let part = Part {
            first_key: first_key.unwrap_or_default(),
            count: count as u64,
            size: size as u64,
            for_size,
            digest: Digest::of(&chunk),
        };
        self.made.push((part, chunk.into()));
    }
}
