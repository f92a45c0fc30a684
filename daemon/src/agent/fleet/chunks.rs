//! The chunks of a snapshot, under the names that their content gives them.

use std::collections::HashSet;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use sha2::{Digest, Sha256};
use xdpgate_api::fleet::v1::{Chunk, Snapshot};

use super::decide::hex;

/// A snapshot that is larger than this is refused: some hundred million entries.
const MOST_BYTES: u64 = 2 << 30;

/// How many chunks are asked for together, by number and by bytes.
const MOST_TOGETHER: usize = 1024;
const MOST_BYTES_TOGETHER: u64 = 32 << 20;

/// Where they are kept, so that a transfer that was broken off goes on where it was.
#[derive(Debug, Clone)]
pub(super) struct Chunks {
    dir: PathBuf,
}

/// All that a snapshot points to.
pub(super) fn of(snapshot: &Snapshot) -> impl Iterator<Item = &Chunk> {
    let sets = snapshot.sets.iter().flat_map(|set| &set.chunks);
    snapshot.rules.iter().chain(sets)
}

impl Chunks {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Leaves only those of this snapshot, and says which are not there, in portions to be asked for.
    ///
    /// # Errors
    /// It is too large, a digest is none, or the directory cannot be used.
    pub(super) fn begin(&self, snapshot: &Snapshot) -> Result<Vec<Vec<Chunk>>, String> {
        let mut wanted = HashSet::new();
        let mut missing: Vec<Vec<Chunk>> = Vec::new();
        let (mut total, mut together) = (0, 0);
        let failed = |e: io::Error| format!("{}: {e}", self.dir.display());
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.dir)
            .map_err(failed)?;
        for chunk in of(snapshot) {
            if chunk.digest.len() != 32 {
                return Err("a digest has not 32 bytes".to_owned());
            }
            let name = hex(&chunk.digest);
            let size = u64::from(chunk.size);
            total += size;
            if total > MOST_BYTES {
                return Err(format!("the snapshot has more than {MOST_BYTES} bytes"));
            }
            let is_there = || {
                let found = fs::metadata(self.dir.join(&name));
                found.is_ok_and(|found| found.len() == size)
            };
            if wanted.contains(&name) || is_there() {
                wanted.insert(name);
                continue;
            }
            wanted.insert(name);
            let is_full = missing
                .last()
                .is_none_or(|portion| portion.len() == MOST_TOGETHER)
                || together + size > MOST_BYTES_TOGETHER;
            if is_full {
                missing.push(Vec::new());
                together = 0;
            }
            together += size;
            if let Some(portion) = missing.last_mut() {
                portion.push(chunk.clone());
            }
        }
        for entry in fs::read_dir(&self.dir).map_err(failed)?.flatten() {
            if !wanted.contains(entry.file_name().to_string_lossy().as_ref()) {
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(missing)
    }

    /// Keeps a chunk that came.
    ///
    /// # Errors
    /// It is not what was asked for, or there is no room.
    pub(super) fn put(&self, asked: &Chunk, content: &[u8]) -> Result<(), String> {
        if content.len() != asked.size as usize || !is(&asked.digest, content) {
            return Err(format!(
                "chunk {}: what came is not what its digest says",
                hex(&asked.digest)
            ));
        }
        let path = self.dir.join(hex(&asked.digest));
        let unfinished = self.dir.join(format!(".{}", hex(&asked.digest)));
        // Not synced: what a power failure leaves is looked at again before it is used.
        fs::write(&unfinished, content)
            .and_then(|()| fs::rename(&unfinished, &path))
            .map_err(|e| format!("{}: {e}", path.display()))
    }

    /// The content of a chunk.
    ///
    /// # Errors
    /// It is not there or not what it was; then it is asked for again the next time.
    pub(super) fn get(&self, chunk: &Chunk) -> Result<Vec<u8>, String> {
        let path = self.dir.join(hex(&chunk.digest));
        let content = fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        if !is(&chunk.digest, &content) {
            let _ = fs::remove_file(&path);
            return Err(format!("{}: it was altered; send it again", path.display()));
        }
        Ok(content)
    }
}

fn is(digest: &[u8], content: &[u8]) -> bool {
    Sha256::digest(content).as_slice() == digest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(content: &[u8]) -> Chunk {
        Chunk {
            digest: Sha256::digest(content).to_vec(),
            size: content.len() as u32,
        }
    }

    fn snapshot(contents: &[&[u8]]) -> Snapshot {
        Snapshot {
            rules: contents.iter().map(|content| chunk(content)).collect(),
            ..Snapshot::default()
        }
    }

    #[test]
    fn what_is_there_is_not_asked_for_and_what_is_not_wanted_goes() {
        let scratch = tempfile::tempdir().expect("a directory");
        let chunks = Chunks::new(scratch.path().join("chunks"));
        let first = snapshot(&[b"a", b"b", b"b"]);
        let missing = chunks.begin(&first).expect("room");
        assert_eq!(missing, [[chunk(b"a"), chunk(b"b")]]);
        chunks.put(&chunk(b"a"), b"a").expect("room");
        let refused = chunks.put(&chunk(b"b"), b"x").expect_err("another one");
        assert!(refused.contains("digest"), "{refused}");
        let missing = chunks.begin(&first).expect("room");
        assert_eq!(missing, [[chunk(b"b")]]);
        chunks.put(&chunk(b"b"), b"b").expect("room");
        assert_eq!(chunks.get(&chunk(b"a")), Ok(b"a".to_vec()));
        // The next snapshot shares one.
        let missing = chunks.begin(&snapshot(&[b"b", b"c"])).expect("room");
        assert_eq!(missing, [[chunk(b"c")]]);
        assert!(chunks.get(&chunk(b"a")).is_err());
        // One that was altered is found and asked for again.
        let path = chunks.dir.join(hex(&chunk(b"b").digest));
        fs::write(&path, b"B").expect("ours");
        assert!(chunks.get(&chunk(b"b")).is_err());
        let missing = chunks.begin(&snapshot(&[b"b"])).expect("room");
        assert_eq!(missing, [[chunk(b"b")]]);
    }

    #[test]
    fn portions_are_bounded() {
        let scratch = tempfile::tempdir().expect("a directory");
        let chunks = Chunks::new(scratch.path().join("chunks"));
        let sized = |n: u32, size| Chunk {
            digest: [n.to_be_bytes().to_vec(), vec![0; 28]].concat(),
            size,
        };
        let of = |all: Vec<Chunk>| Snapshot {
            rules: all,
            ..Snapshot::default()
        };
        let lengths = |missing: Vec<Vec<Chunk>>| missing.iter().map(Vec::len).collect::<Vec<_>>();
        let many = of((0..2500).map(|n| sized(n, 1)).collect());
        assert_eq!(
            lengths(chunks.begin(&many).expect("room")),
            [1024, 1024, 452]
        );
        let large = of((0..5).map(|n| sized(n, 16 << 20)).collect());
        assert_eq!(lengths(chunks.begin(&large).expect("room")), [2, 2, 1]);
        let huge = of((0..40).map(|n| sized(n, 1 << 28)).collect());
        assert!(chunks.begin(&huge).is_err());
        let short = of(vec![Chunk {
            digest: vec![1],
            size: 1,
        }]);
        assert!(chunks.begin(&short).is_err());
    }
}
