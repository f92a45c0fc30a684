//! Chunks as they are stored: compressed where that pays.

use bytes::Bytes;

use super::{Digest, MAX_VALUE, StoreError};

/// As they are.
const PLAIN: u8 = 0;
/// One zstd frame.
const ZSTD: u8 = 1;
/// The level of the zstd command line, and the best gain for its time on rules and addresses alike.
const LEVEL: i32 = 3;

/// One byte that says how, and the bytes.
pub(super) fn pack(chunk: &[u8]) -> Vec<u8> {
    let small = zstd::bulk::compress(chunk, LEVEL).ok();
    let (how, bytes) = match &small {
        Some(small) if small.len() < chunk.len() => (ZSTD, small.as_slice()),
        _ => (PLAIN, chunk),
    };
    let mut packed = Vec::with_capacity(1 + bytes.len());
    packed.push(how);
    packed.extend_from_slice(bytes);
    packed
}

/// The chunk, whose bytes have been checked against its name.
pub(super) fn unpack(digest: Digest, packed: &[u8]) -> Result<Bytes, StoreError> {
    let damaged = |reason: &str| StoreError::Damaged(format!("chunk {digest}: {reason}"));
    let chunk = match packed.split_first() {
        Some((&PLAIN, bytes)) => Bytes::copy_from_slice(bytes),
        Some((&ZSTD, bytes)) => zstd::bulk::decompress(bytes, MAX_VALUE)
            .map_err(|error| damaged(&error.to_string()))?
            .into(),
        _ => {
            return Err(damaged(
                "it is stored in a way that this version does not know",
            ));
        }
    };
    if Digest::of(&chunk) != digest {
        return Err(damaged("its bytes have another SHA-256"));
    }
    Ok(chunk)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_comes_back_and_is_not_larger_than_a_byte_more() {
        for chunk in [vec![], vec![7; 100_000], (0..=255).collect::<Vec<u8>>()] {
            let packed = pack(&chunk);
            assert!(packed.len() <= chunk.len() + 1, "{}", packed.len());
            assert_eq!(unpack(Digest::of(&chunk), &packed).unwrap(), chunk);
            assert!(unpack(Digest::of(b"else"), &packed).is_err());
        }
        assert!(unpack(Digest::of(b""), &[]).is_err());
    }

    #[test]
    fn a_chunk_does_not_grow_beyond_what_one_may_be() {
        let bomb = zstd::bulk::compress(&vec![0; MAX_VALUE + 1], LEVEL).unwrap();
        let packed = [&[ZSTD], bomb.as_slice()].concat();
        let digest = Digest::of(&vec![0; MAX_VALUE + 1]);
        assert!(matches!(
            unpack(digest, &packed),
            Err(StoreError::Damaged(_))
        ));
    }
}
