//! The policies and the state on disk, for the next process.
//!
//! ```text
//! policy.yaml        the last policy that needs no confirmation (any more)
//! pending.yaml       the policy in force, while it waits for one
//! previous-N.yaml    the policy before generation N
//! state.json         generation, mode, pending change, idempotency keys
//! pass               is there: pass mode
//! ```
//!
//! Every file is written beside its place, synced and renamed. All that takes room on the disk is done
//! before the first rename, so that a full disk changes nothing. The order of the renames is: the
//! previous policy (under a name that nothing mentions yet), the pending one, `policy.yaml`,
//! `state.json`; then files that nobody names any more are removed. A process may be killed between
//! any two of them:
//!
//! - `policy.yaml` is newer than `state.json`: it counts. The policy was in force, or its
//!   confirmation was on its way.
//! - `state.json` speaks of a pending policy, and `pending.yaml` is not there: if `policy.yaml` is
//!   that policy it was confirmed, otherwise `policy.yaml` counts.

mod record;

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use tempfile::{Builder, NamedTempFile};

use super::error::{LoadError, SavedPolicyError};
use crate::policy::Policy;

pub(super) use record::{
    Hash, KeyRecord, PendingChange, PendingRecord, PreviousRecord, Record, SavedFile, text,
};

/// A directory that holds the last policy.
#[derive(Debug, Clone)]
pub(super) struct StateDir {
    dir: PathBuf,
    /// Two processes would overwrite each other's policy.
    _lock: Arc<Flock<File>>,
}

/// The file of the policy, in canonical form.
pub(super) const POLICY: &str = "policy.yaml";
pub(super) const PENDING: &str = "pending.yaml";
const STATE: &str = "state.json";
const PASS: &str = "pass";
/// How the name of a file begins that is being written.
const UNFINISHED: &str = ".policy-";
const PREVIOUS: &str = "previous-";

/// A policy that was read, and the hash of its text.
pub(super) type Read = (Policy, Hash);

/// A file that is written and has not its name yet.
#[derive(Debug)]
pub(super) struct Prepared {
    file: NamedTempFile,
    to: PathBuf,
}

impl Prepared {
    pub(super) fn put_in_place(self) -> io::Result<()> {
        let failed = |e: io::Error| named(&self.to, &e);
        let persisted = self.file.persist(&self.to);
        persisted.map(drop).map_err(|e| failed(e.error))
    }
}

impl StateDir {
    /// Makes the directory if need be; only its owner may look into it.
    pub(super) fn open(dir: &Path) -> Result<Self, LoadError> {
        let failed = |source| LoadError::StateDir {
            dir: dir.to_owned(),
            source,
        };
        let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.map_err(failed)?;
        let file = File::open(dir).map_err(failed)?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock);
        let lock = lock.map_err(|(_, errno)| match errno {
            Errno::EWOULDBLOCK => failed(io::Error::other(
                "another process keeps its policy there: stop it, or choose another directory",
            )),
            errno => failed(errno.into()),
        })?;
        let state = Self {
            dir: dir.to_owned(),
            _lock: Arc::new(lock),
        };
        state.clean_up();
        Ok(state)
    }

    /// Removes what processes left that were killed while they saved.
    fn clean_up(&self) {
        self.remove(|name| name.starts_with(UNFINISHED));
    }

    fn remove(&self, which: impl Fn(&str) -> bool) {
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            if which(&entry.file_name().to_string_lossy()) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The policy in a file, if that is there.
    pub(super) fn policy(&self, name: &str) -> Result<Option<Read>, SavedPolicyError> {
        match fs::read_to_string(self.path(name)) {
            Ok(text) => {
                let policy = Policy::from_yaml(&text).map_err(SavedPolicyError::Policy)?;
                Ok(Some((policy, Hash::of(&text))))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(SavedPolicyError::Read(error)),
        }
    }

    /// What `state.json` says; the default if there is none.
    pub(super) fn record(&self) -> Result<Record, LoadError> {
        let path = self.path(STATE);
        let failed = |reason| LoadError::SavedState {
            path: path.clone(),
            reason,
        };
        match fs::read_to_string(&path) {
            Ok(text) => Record::parse(&text).map_err(failed),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Record::default()),
            Err(error) => Err(failed(error.to_string())),
        }
    }

    /// The name of the file for the policy before a generation.
    pub(super) fn previous_name(generation: u64) -> String {
        format!("{PREVIOUS}{generation}.yaml")
    }

    pub(super) fn prepare_record(&self, record: &Record) -> io::Result<Prepared> {
        self.prepare(STATE, &record.to_text())
    }

    /// Writes a text beside the place of a file.
    pub(super) fn prepare(&self, name: &str, text: &str) -> io::Result<Prepared> {
        let to = self.path(name);
        let write = || -> io::Result<NamedTempFile> {
            let mut file = Builder::new().prefix(UNFINISHED).tempfile_in(&self.dir)?;
            file.write_all(text.as_bytes())?;
            file.as_file().sync_all()?;
            Ok(file)
        };
        let file = write().map_err(|error| named(&to, &error))?;
        Ok(Prepared { file, to })
    }

    /// Gives a file a second name, which costs no room.
    pub(super) fn link(&self, from: &str, to: &str) -> io::Result<()> {
        let to = self.path(to);
        match fs::remove_file(&to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(named(&to, &error)),
            _ => fs::hard_link(self.path(from), &to).map_err(|error| named(&to, &error)),
        }
    }

    pub(super) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let to = self.path(to);
        fs::rename(self.path(from), &to).map_err(|error| named(&to, &error))
    }

    /// Makes the renames so far outlive a power failure.
    pub(super) fn sync(&self) -> io::Result<()> {
        let synced = File::open(&self.dir).and_then(|dir| dir.sync_all());
        synced.map_err(|error| named(&self.dir, &error))
    }

    /// Removes policies that the record does not name.
    pub(super) fn remove_unnamed(&self, record: &Record) {
        let previous = record.previous.as_ref().and_then(|p| p.file.as_ref());
        let is_pending = matches!(
            record.pending.as_ref().map(|p| &p.change),
            Some(PendingChange::Policy { .. })
        );
        self.remove(|name| match name {
            PENDING => !is_pending,
            name => name.starts_with(PREVIOUS) && previous.is_none_or(|file| file.name != name),
        });
    }

    pub(super) fn is_pass(&self) -> bool {
        self.path(PASS).exists()
    }

    pub(super) fn set_pass(&self, is_pass: bool) -> io::Result<()> {
        match is_pass {
            true => mark_pass(&self.dir),
            false => match fs::remove_file(self.path(PASS)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    Err(named(&self.path(PASS), &error))
                }
                _ => self.sync(),
            },
        }
    }
}

/// Says in a state directory, whoever holds its lock, that the next process begins in pass mode.
pub(super) fn mark_pass(dir: &Path) -> io::Result<()> {
    let path = dir.join(PASS);
    let made = File::create(&path).and_then(|file| file.sync_all());
    let synced = made.and_then(|()| File::open(dir)?.sync_all());
    synced.map_err(|error| named(&path, &error))
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
