//! Entries, lists and roots as bytes. Each chunk begins with a byte that says what it is.

use bytes::Bytes;

use super::ContentError;
use crate::store::{Digest, StoreError};

/// Entries: length of the key, key, length of the value, value.
pub(super) const ENTRIES: u8 = 1;
/// A piece of a list: of each chunk length of the first key, first key, entries, twice the bytes and one if it
/// was cut for its size, digest.
pub(super) const LIST: u8 = 2;
/// A root: digests of the pieces.
pub(super) const ROOT: u8 = 3;

/// Seven bits a byte, lowest first.
pub(super) fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// The bytes of an entry in a chunk.
pub(super) fn entry_size(key: &[u8], value: &[u8]) -> usize {
    let length = |n: usize| (1 + (n | 1).ilog2() / 7) as usize;
    length(key.len()) + key.len() + length(value.len()) + value.len()
}

/// What is left of a chunk to read. Every piece shares the memory of the chunk.
pub(super) struct Reader {
    chunk: Bytes,
    at: usize,
}

impl Reader {
    /// Reads a chunk of a kind.
    pub(super) fn new(chunk: Bytes, kind: u8) -> Result<Self, ContentError> {
        if chunk.first() != Some(&kind) {
            return Err(damaged());
        }
        Ok(Self { chunk, at: 1 })
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.at == self.chunk.len()
    }

    pub(super) fn number(&mut self) -> Result<u64, ContentError> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = *self.chunk.get(self.at).ok_or_else(damaged)?;
            self.at += 1;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(damaged())
    }

    pub(super) fn bytes(&mut self) -> Result<Bytes, ContentError> {
        let length = usize::try_from(self.number()?).map_err(|_| damaged())?;
        self.take(length)
    }

    pub(super) fn digest(&mut self) -> Result<Digest, ContentError> {
        let bytes = self.take(32)?;
        bytes.as_ref().try_into().map(Digest).map_err(|_| damaged())
    }

    fn take(&mut self, length: usize) -> Result<Bytes, ContentError> {
        let end = self.at.checked_add(length).ok_or_else(damaged)?;
        if end > self.chunk.len() {
            return Err(damaged());
        }
        let bytes = self.chunk.slice(self.at..end);
        self.at = end;
        Ok(bytes)
    }
}

/// The entries of a chunk.
pub(super) fn entries(
    chunk: Bytes,
) -> Result<impl Iterator<Item = Result<(Bytes, Bytes), ContentError>>, ContentError> {
    let mut reader = Reader::new(chunk, ENTRIES)?;
    Ok(std::iter::from_fn(move || {
        if reader.is_at_end() {
            return None;
        }
        let entry = reader.bytes().and_then(|key| Ok((key, reader.bytes()?)));
        if entry.is_err() {
            // Nothing after it can be read.
            reader.at = reader.chunk.len();
        }
        Some(entry)
    }))
}

/// The digest of a chunk is right, so this one was never such a chunk.
fn damaged() -> ContentError {
    StoreError::Damaged("a chunk of a content is not what its list says".to_owned()).into()
}
