//! The policy on disk, for the next process.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use tempfile::Builder;

use super::error::{LoadError, SavedPolicyError};
use crate::policy::Policy;

/// A directory that holds the last policy.
#[derive(Debug, Clone)]
pub(super) struct StateDir {
    dir: PathBuf,
    /// Two processes would overwrite each other's policy.
    _lock: Arc<Flock<File>>,
}

/// The file of the policy, in canonical form.
const POLICY: &str = "policy.yaml";
/// How the name of a file begins that is being written.
const UNFINISHED: &str = ".policy-";

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
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    pub(super) fn policy_path(&self) -> PathBuf {
        self.dir.join(POLICY)
    }

    /// The policy that was saved last, if there is one.
    pub(super) fn policy(&self) -> Result<Option<Policy>, SavedPolicyError> {
        match fs::read_to_string(self.policy_path()) {
            Ok(text) => Policy::from_yaml(&text)
                .map(Some)
                .map_err(SavedPolicyError::Policy),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(SavedPolicyError::Read(error)),
        }
    }

    /// Saves a policy. Whoever reads finds it or the one before, whole, also after a power failure.
    pub(super) fn save(&self, policy: &Policy) -> io::Result<()> {
        let path = self.policy_path();
        let named =
            |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        let write = || -> io::Result<()> {
            let mut file = Builder::new().prefix(UNFINISHED).tempfile_in(&self.dir)?;
            file.write_all(policy.to_yaml().as_bytes())?;
            file.as_file().sync_all()?;
            file.persist(&path)?;
            File::open(&self.dir)?.sync_all()
        };
        write().map_err(named)
    }
}
