//! The list of the chunks of a content, in pieces, and the root that names these.

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::ContentError;
use super::coding::{self, Reader};
use crate::store::Digest;

/// A piece has so many chunks, on average.
const MEAN: u64 = 128;
/// The most bytes of a piece, whatever the keys are.
const MAX: usize = 64 << 10;

/// A chunk of entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) first_key: Bytes,
    pub(super) count: u64,
    /// The bytes of its entries.
    pub(super) size: u64,
    /// Whether it was cut for its size: then it depends on what comes after it.
    pub(super) for_size: bool,
    pub(super) digest: Digest,
}

/// Root and pieces. The last cut of a piece depends on the first key of the chunk after it alone.
pub(super) fn encode(parts: &[Part]) -> (Bytes, Vec<Bytes>) {
    let mut pieces = Vec::new();
    let mut piece = vec![coding::LIST];
    for part in parts {
        let cut = xxh3_64_with_seed(&part.first_key, 1) < u64::MAX / MEAN;
        if piece.len() > 1 && (cut || piece.len() + part.first_key.len() + 64 > MAX) {
            pieces.push(Bytes::from(std::mem::replace(
                &mut piece,
                vec![coding::LIST],
            )));
        }
        coding::put_bytes(&mut piece, &part.first_key);
        coding::put_number(&mut piece, part.count);
        coding::put_number(&mut piece, part.size << 1 | u64::from(part.for_size));
        piece.extend_from_slice(&part.digest.0);
    }
    if piece.len() > 1 {
        pieces.push(piece.into());
    }
    let mut root = vec![coding::ROOT];
    for piece in &pieces {
        root.extend_from_slice(&Digest::of(piece).0);
    }
    (root.into(), pieces)
}

/// The pieces that a root names.
pub(super) fn pieces(root: &Bytes) -> Result<Vec<Digest>, ContentError> {
    let mut reader = Reader::new(root.clone(), coding::ROOT)?;
    let mut pieces = Vec::new();
    while !reader.is_at_end() {
        pieces.push(reader.digest()?);
    }
    Ok(pieces)
}

/// The chunks that a piece lists.
pub(super) fn parts(piece: &Bytes) -> Result<Vec<Part>, ContentError> {
    let mut reader = Reader::new(piece.clone(), coding::LIST)?;
    let mut parts = Vec::new();
    while !reader.is_at_end() {
        let (first_key, count, size) = (reader.bytes()?, reader.number()?, reader.number()?);
        parts.push(Part {
            first_key,
            count,
            size: size >> 1,
            for_size: size & 1 == 1,
            digest: reader.digest()?,
        });
    }
    Ok(parts)
}

/// The chunk that a key is in, if it is in any.
pub(super) fn holder(parts: &[Part], key: &[u8]) -> Option<usize> {
    parts
        .partition_point(|part| part.first_key <= key)
        .checked_sub(1)
}
