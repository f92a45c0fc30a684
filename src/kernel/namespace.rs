//! The network namespace that a firewall works in.
//!
//! Interface numbers and names mean nothing without their namespace, and the kernel takes that of
//! the calling thread. A firewall of another namespace lets threads enter it for what depends on it.

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::panic;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use nix::sched::{CloneFlags, setns};

/// That of whoever calls, or one that is held open.
#[derive(Debug, Clone, Default)]
pub(super) struct Namespace(Option<Arc<Held>>);

#[derive(Debug)]
struct Held {
    file: File,
    id: Id,
}

/// Device and inode of the namespace's file: what `lsns` tells namespaces apart by.
type Id = (u64, u64);

thread_local! {
    /// The namespace that this thread entered for good.
    static ENTERED: Cell<Option<Id>> = const { Cell::new(None) };
}

impl Namespace {
    /// The namespace of a file such as `/run/netns/blue` or `/proc/1234/ns/net`. It lives for as
    /// long as this, its name and its processes gone or not. Enters it once, to see that it can.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        let id = (metadata.dev(), metadata.ino());
        let namespace = Self(Some(Arc::new(Held { file, id })));
        namespace.run(|| ())?;
        Ok(namespace)
    }

    /// Runs something in the namespace: here if this thread is in it, on a thread of its own
    /// otherwise.
    pub(super) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        let Some(held) = &self.0 else {
            return Ok(work());
        };
        if ENTERED.get() == Some(held.id) {
            return Ok(work());
        }
        thread::scope(|scope| {
            let inside = || {
                self.enter()?;
                Ok(work())
            };
            let thread = thread::Builder::new().spawn_scoped(scope, inside)?;
            thread
                .join()
                .unwrap_or_else(|panicked| panic::resume_unwind(panicked))
        })
    }

    /// Moves this thread into the namespace, for good.
    pub(super) fn enter(&self) -> io::Result<()> {
        let Some(held) = &self.0 else {
            return Ok(());
        };
        setns(&held.file, CloneFlags::CLONE_NEWNET)?;
        ENTERED.set(Some(held.id));
        Ok(())
    }
}
