//! Frames of a backup, and whether they are all there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::{BackupError, Header};
use crate::store::{Key, MAX_TRANSACTION, MAX_VALUE};

const MAGIC: &[u8] = b"xdpgate backup\n";
const VERSION: u32 = 1;
/// SHA-256.
const TRAILER: u64 = 32;

const HEADER: u8 = 0;
const CHUNK: u8 = 1;
const RECORD: u8 = 2;
const END: u8 = 3;

/// What comes next.
pub(super) enum Frame {
    Chunk(Bytes),
    Record(Key, Bytes),
    End,
}

/// A file in the making.
pub(super) struct Writer {
    frames: zstd::Encoder<'static, Hashed>,
    path: PathBuf,
    unfinished: PathBuf,
    done: bool,
}

/// Bytes on their way to the file.
struct Hashed {
    file: BufWriter<File>,
    hash: Sha256,
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Writer {
    pub(super) fn create(path: &Path, header: &Header) -> io::Result<Self> {
        let mut unfinished = path.as_os_str().to_owned();
        unfinished.push(".unfinished");
        let unfinished = PathBuf::from(unfinished);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = Hashed {
            file: BufWriter::new(options.open(&unfinished)?),
            hash: Sha256::new(),
        };
        file.write_all(MAGIC)?;
        file.write_all(&VERSION.to_le_bytes())?;
        let mut writer = Self {
            frames: zstd::Encoder::new(file, 3)?,
            path: path.to_owned(),
            unfinished,
            done: false,
        };
        writer.frame(HEADER, &[&serde_json::to_vec(header)?])?;
        Ok(writer)
    }

    pub(super) fn chunk(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.frame(CHUNK, &[chunk])
    }

    pub(super) fn record(&mut self, key: &str, value: &[u8]) -> io::Result<()> {
        // No key has this byte.
        self.frame(RECORD, &[key.as_bytes(), b"\0", value])
    }

    /// The file has its name when this returns.
    pub(super) fn finish(mut self, chunks: u64, records: u64) -> io::Result<()> {
        self.frame(END, &[&chunks.to_le_bytes(), &records.to_le_bytes()])?;
        self.frames.do_finish()?;
        let file = self.frames.get_mut();
        let trailer = file.hash.clone().finalize();
        file.file.write_all(&trailer)?;
        file.file.flush()?;
        file.file.get_ref().sync_all()?;
        fs::rename(&self.unfinished, &self.path)?;
        self.done = true;
        crate::store::sqlite::sync_folder(&self.path)
    }

    fn frame(&mut self, kind: u8, parts: &[&[u8]]) -> io::Result<()> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let length = u32::try_from(length).map_err(io::Error::other)?;
        self.frames.write_all(&[kind])?;
        self.frames.write_all(&length.to_le_bytes())?;
        parts
            .iter()
            .try_for_each(|part| self.frames.write_all(part))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.done {
            // What is left of it is of no use, and is made anew by the next one.
            let _ = fs::remove_file(&self.unfinished);
        }
    }
}

/// A file that is whole: its SHA-256 is right.
pub(super) struct Reader {
    frames: zstd::Decoder<'static, BufReader<io::Take<File>>>,
    path: PathBuf,
    header: Header,
    chunks: u64,
    records: u64,
}

impl Reader {
    pub(super) fn open(path: &Path) -> Result<Self, BackupError> {
        let error = |error| BackupError::File {
            path: path.to_owned(),
            error,
        };
        let mut file = File::open(path).map_err(error)?;
        let length = file.metadata().map_err(error)?.len();
        let start = (MAGIC.len() + 4) as u64;
        let Some(body) = length.checked_sub(TRAILER).filter(|body| *body >= start) else {
            return Err(damaged(path, "it is too short"));
        };
        let mut hash = Hash(Sha256::new());
        io::copy(&mut (&mut file).take(body), &mut hash).map_err(error)?;
        let mut trailer = [0; TRAILER as usize];
        file.read_exact(&mut trailer).map_err(error)?;
        file.seek(SeekFrom::Start(0)).map_err(error)?;
        let mut magic = [0; MAGIC.len()];
        let mut version = [0; 4];
        file.read_exact(&mut magic).map_err(error)?;
        file.read_exact(&mut version).map_err(error)?;
        if magic != MAGIC {
            return Err(damaged(path, "it does not begin as one"));
        }
        if hash.0.finalize().as_slice() != trailer {
            return Err(damaged(path, "its SHA-256 is another"));
        }
        let version = u32::from_le_bytes(version);
        if version != VERSION {
            let reason = format!("it has version {version}, this program knows {VERSION}");
            return Err(damaged(path, &reason));
        }
        let mut reader = Self {
            frames: zstd::Decoder::new(file.take(body - start)).map_err(error)?,
            path: path.to_owned(),
            header: Header {
                epoch: String::new(),
                revision: 0,
                made: jiff::Timestamp::UNIX_EPOCH,
            },
            chunks: 0,
            records: 0,
        };
        reader.header = match reader.frame()? {
            (HEADER, bytes) => serde_json::from_slice(&bytes).ok(),
            _ => None,
        }
        .ok_or_else(|| reader.damaged("it has no header"))?;
        Ok(reader)
    }

    pub(super) fn header(&self) -> &Header {
        &self.header
    }

    pub(super) fn next(&mut self) -> Result<Frame, BackupError> {
        match self.frame()? {
            (CHUNK, chunk) if chunk.len() <= MAX_VALUE => {
                self.chunks += 1;
                Ok(Frame::Chunk(chunk))
            }
            (RECORD, bytes) => {
                self.records += 1;
                let split = bytes.iter().position(|byte| *byte == 0);
                let split = split.ok_or_else(|| self.damaged("a record has no key"))?;
                let key = String::from_utf8_lossy(&bytes[..split]).into_owned();
                let value = bytes.slice(split + 1..);
                let key = Key::new(key).filter(|_| value.len() <= MAX_VALUE);
                let key = key.ok_or_else(|| self.damaged("a record is none"))?;
                Ok(Frame::Record(key, value))
            }
            (END, bytes) => {
                let counts = [self.chunks.to_le_bytes(), self.records.to_le_bytes()].concat();
                if bytes != counts {
                    return Err(self.damaged("it has not as much as it says"));
                }
                Ok(Frame::End)
            }
            _ => Err(self.damaged("something in it is unknown")),
        }
    }

    fn frame(&mut self) -> Result<(u8, Bytes), BackupError> {
        let mut read = || {
            let mut head = [0; 5];
            self.frames.read_exact(&mut head)?;
            let [kind, length @ ..] = head;
            let length = u32::from_le_bytes(length) as usize;
            if length > MAX_TRANSACTION {
                return Err(io::Error::other("a part is too large"));
            }
            let mut bytes = vec![0; length];
            self.frames.read_exact(&mut bytes)?;
            Ok((kind, Bytes::from(bytes)))
        };
        let frame = read();
        frame.map_err(|error: io::Error| self.damaged(&error.to_string()))
    }

    fn damaged(&self, reason: &str) -> BackupError {
        damaged(&self.path, reason)
    }
}

struct Hash(Sha256);

impl Write for Hash {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn damaged(path: &Path, reason: &str) -> BackupError {
    BackupError::Damaged {
        path: path.to_owned(),
        reason: reason.to_owned(),
    }
}
