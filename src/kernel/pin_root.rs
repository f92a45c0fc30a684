//! The directory of pins by which a firewall outlives its process.
//!
//! ```text
//! ROOT/links/IFINDEX   the attachments
//! ROOT/1/              the maps, what they are for, and the program that interfaces run
//! ROOT/2/              the same for a later process, which could not use those of 1
//! ```
//!
//! The links are what makes a restart free of gaps: each runs the program of the process before until
//! that of the next one has a policy. Only then directories that nobody uses any more are removed. So
//! whoever is killed in between leaves a filter that judges, and everything for the next to go on.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use libbpf_rs::{MapCore, MapFlags, MapHandle, ProgramHandle};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MsFlags, mount};

use super::enforcement::Enforcement;
use super::error::{LoadError, PinError};
use super::ifindex::IfIndex;
use super::link::Link;
use super::pin::{self, ENTRY, LAYOUT, Layout, SLOTS};
use super::program::to_io;
use super::shared_maps::SharedMaps;
use super::sys;

/// Whether a firewall is to outlive its process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pinning {
    /// If there is a BPF file system, or one can be mounted; a warning in the log says if not.
    Auto,
    /// Or not load at all.
    Require,
    /// No. What an earlier process left pinned is taken over without a gap, and is gone with this one.
    Off,
}

/// Where BPF file systems are mounted, and the one place where this library mounts one.
const BPFFS: &str = "/sys/fs/bpf";
/// The folder of the pinned links.
const LINKS: &str = "links";
/// The map whose first word says whether frames are dropped.
const CONTROL: &str = "control";
/// The name of an entry program that is about to take the place of another.
const NEXT_ENTRY: &str = "xdpgate_next";

/// The directory, locked: two processes would attach to the same interfaces.
#[derive(Debug)]
pub(super) struct PinRoot {
    pub dir: PathBuf,
    _lock: Flock<File>,
}

/// The maps that an earlier process left.
pub(super) struct Legacy {
    pub dir: PathBuf,
    pub layout: Layout,
    pub maps: SharedMaps,
    pub slots: MapHandle,
}

impl Legacy {
    /// Whether a program judges by them.
    fn has_policy(&self) -> bool {
        let slot = self
            .maps
            .policy_slot
            .lookup(&0u32.to_ne_bytes(), MapFlags::ANY);
        matches!(slot, Ok(Some(id)) if id.iter().any(|byte| *byte != 0))
    }
}

impl PinRoot {
    /// Opens or makes the directory; `None` if nothing is to be pinned or can be.
    pub(super) fn open(
        pinning: Pinning,
        dir: &Path,
        may_mount: bool,
    ) -> Result<Option<Self>, LoadError> {
        if may_mount && pinning != Pinning::Off {
            mount_bpffs(dir);
        }
        let there = dir.ancestors().find(|d| d.exists());
        if let Err(error) = pin::check_bpffs(there.unwrap_or(dir), dir) {
            return match pinning {
                Pinning::Require => Err(error.into()),
                Pinning::Auto => {
                    log::warn!("nothing is pinned, and all ends with this process: {error}");
                    Ok(None)
                }
                Pinning::Off => Ok(None),
            };
        }
        if pinning == Pinning::Off && !dir.exists() {
            return Ok(None);
        }
        let links = dir.join(LINKS);
        let failed = |path: &Path, source| PinError::Syscall {
            path: path.to_owned(),
            source,
        };
        // What is there is looked at before anything is made, and while nobody else changes it.
        let existing = match dir.exists() {
            true => Some(lock(dir)?),
            false => None,
        };
        if existing.is_some() {
            check(dir)?;
        }
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&links);
        match made {
            Ok(()) => {}
            // As in containers, where it may be mounted for reading only.
            Err(error) if pinning == Pinning::Auto && !links.exists() => {
                log::warn!(
                    "nothing is pinned, and all ends with this process: {}: {error}",
                    links.display()
                );
                return Ok(None);
            }
            Err(error) => return Err(failed(&links, error).into()),
        }
        let root = Self {
            _lock: match existing {
                Some(lock) => lock,
                None => {
                    let lock = lock(dir)?;
                    check(dir)?;
                    lock
                }
            },
            dir: dir.to_owned(),
        };
        Ok(Some(root))
    }

    /// The numbered directories, the newest first.
    fn numbered(&self) -> Result<Vec<(u32, PathBuf)>, PinError> {
        numbered(&self.dir)
    }

    /// The newest maps that this library understands.
    pub(super) fn legacy(&self) -> Result<Option<Legacy>, PinError> {
        let mut newest = None;
        for dir in self.complete()? {
            let Some(layout) = pin::known_layout(&dir)? else {
                log::info!(
                    "{}: of another version of xdpgate, so its counters, bans and rate state end; \
                     its policy judges until this process has one",
                    dir.display()
                );
                continue;
            };
            let failed = |error: libbpf_rs::Error| PinError::Syscall {
                path: dir.clone(),
                source: to_io(&error),
            };
            let found = Legacy {
                layout,
                maps: SharedMaps::from_pins(&dir).map_err(failed)?,
                slots: MapHandle::from_pinned_path(dir.join(SLOTS)).map_err(failed)?,
                dir: dir.clone(),
            };
            // Maps that never had a policy are of a start that was cut off: the ones before judge.
            if found.has_policy() {
                return Ok(Some(found));
            }
            newest.get_or_insert(found);
        }
        Ok(newest)
    }

    /// The numbered directories that hold all that was to be pinned there, the newest first.
    fn complete(&self) -> Result<Vec<PathBuf>, PinError> {
        let dirs = self.numbered()?.into_iter().map(|(_, dir)| dir);
        // It is pinned last.
        Ok(dirs.filter(|dir| dir.join(ENTRY).exists()).collect())
    }

    /// Whether frames were dropped, by the newest maps of any version.
    pub(super) fn enforcement(&self) -> Option<Enforcement> {
        let dirs = self.complete().ok()?.into_iter();
        let mut controls = dirs.filter_map(|dir| {
            let control = MapHandle::from_pinned_path(dir.join(CONTROL)).ok()?;
            sys::first_word(&control).ok()
        });
        Some(Enforcement::from_word(controls.next()?))
    }

    /// The switches of all programs that interfaces may run.
    pub(super) fn policy_slots(&self) -> Result<Vec<MapHandle>, PinError> {
        let dirs = self.numbered()?.into_iter();
        let open = |(_, dir): (u32, PathBuf)| MapHandle::from_pinned_path(dir.join("policy_slot"));
        Ok(dirs.filter_map(|dir| open(dir).ok()).collect())
    }

    /// A directory for maps that nobody has pinned yet.
    pub(super) fn next_dir(&self) -> Result<PathBuf, PinError> {
        let newest = self.numbered()?.first().map_or(0, |(number, _)| *number);
        Ok(self.dir.join((newest + 1).to_string()))
    }

    /// The pinned links of interfaces that are still there. Those of others are removed.
    pub(super) fn links(
        &self,
        successor: BorrowedFd<'_>,
    ) -> Result<Vec<(Link, IfIndex)>, PinError> {
        let dir = self.dir.join(LINKS);
        let mut links = Vec::new();
        for name in pin::entries(&dir)? {
            let path = dir.join(&name);
            let failed = |source| PinError::Syscall {
                path: path.clone(),
                source,
            };
            match Link::adopt(&path, successor).map_err(failed)? {
                Some((link, ifindex)) => links.push((link, ifindex)),
                None => {
                    log::info!("{}: its interface is gone", path.display());
                    fs::remove_file(&path).map_err(failed)?;
                }
            }
        }
        Ok(links)
    }

    /// The name under which the link of an interface is pinned.
    pub(super) fn link_path(&self, ifindex: IfIndex) -> PathBuf {
        self.dir.join(LINKS).join(ifindex.to_string())
    }

    /// Makes a program the one that is pinned in a directory of maps.
    pub(super) fn replace_entry(&self, dir: &Path, entry: &ProgramHandle) -> Result<(), PinError> {
        let next = dir.join(NEXT_ENTRY);
        let failed = |source| PinError::Syscall {
            path: next.clone(),
            source,
        };
        let _ = fs::remove_file(&next);
        sys::pin_object(entry.as_fd(), &next).map_err(failed)?;
        fs::rename(&next, dir.join(ENTRY)).map_err(failed)
    }

    /// Removes a directory of maps, and the root if nothing else is in it.
    pub(super) fn remove_one(&self, dir: &Path) -> Result<(), PinError> {
        remove_maps(dir)?;
        // Not if something is there.
        let _ = fs::remove_dir(self.dir.join(LINKS)).and_then(|()| fs::remove_dir(&self.dir));
        Ok(())
    }

    /// Removes all directories of maps but one.
    pub(super) fn remove_others(&self, kept: &Path) -> Result<(), PinError> {
        for (_, dir) in self.numbered()? {
            if dir != kept {
                remove_maps(&dir)?;
            }
        }
        Ok(())
    }

    /// Removes everything: links that nobody holds are detached.
    pub(super) fn remove(&self) -> Result<(), PinError> {
        let failed = |path: &Path, source| PinError::Syscall {
            path: path.to_owned(),
            source,
        };
        let links = self.dir.join(LINKS);
        for name in pin::entries(&links)? {
            let path = links.join(name);
            fs::remove_file(&path).map_err(|e| failed(&path, e))?;
        }
        for (_, dir) in self.numbered()? {
            remove_maps(&dir)?;
        }
        for dir in [&links, &self.dir] {
            fs::remove_dir(dir).map_err(|e| failed(dir, e))?;
        }
        Ok(())
    }
}

/// Whether a directory is one that `PinRoot` made, and not one of maps.
pub(super) fn is_root(dir: &Path) -> bool {
    dir.join(LINKS).is_dir()
}

fn numbered(root: &Path) -> Result<Vec<(u32, PathBuf)>, PinError> {
    let names = pin::entries(root)?.into_iter();
    let mut found: Vec<_> = names
        .filter_map(|name| Some((number(&name)?, root.join(name))))
        .collect();
    found.sort_by(|a, b| b.cmp(a));
    Ok(found)
}

/// Switches all maps of a root to pass mode, whoever uses them.
pub(super) fn pass_all(root: &Path) -> Result<(), PinError> {
    if !root.exists() {
        return Err(PinError::NotPinned {
            dir: root.to_owned(),
        });
    }
    pin::check_bpffs(root, root)?;
    let (mut switched, mut failed) = (false, None);
    // All that can be switched is, the newest first.
    for (_, dir) in numbered(root)? {
        match pass(&dir) {
            Ok(is_there) => switched |= is_there,
            Err(error) => {
                failed.get_or_insert(error);
            }
        }
    }
    match failed {
        Some(error) => Err(error),
        None if switched => Ok(()),
        None => Err(PinError::NotPinned {
            dir: root.to_owned(),
        }),
    }
}

/// Switches the maps of one directory to pass mode; says if there are any.
fn pass(dir: &Path) -> Result<bool, PinError> {
    // One that a process is just filling or emptying is looked for in vain.
    if !pin::is_layout(dir)? {
        return Ok(false);
    }
    let path = dir.join(CONTROL);
    let failed = |source| PinError::Syscall {
        path: path.clone(),
        source,
    };
    let control = MapHandle::from_pinned_path(&path).map_err(|e| failed(to_io(&e)))?;
    sys::set_first_word(&control, Enforcement::Pass.word()).map_err(failed)?;
    Ok(true)
}

/// Removes a whole root that no process uses: its interfaces are detached.
pub(super) fn remove_root(dir: &Path) -> Result<(), PinError> {
    let root = PinRoot {
        _lock: lock(dir)?,
        dir: dir.to_owned(),
    };
    check(dir)?;
    root.remove()
}

/// Refuses a directory that holds anything that this library has not made. Nothing is changed.
fn check(dir: &Path) -> Result<(), PinError> {
    let foreign = |dir: &Path, name: String| PinError::Foreign {
        dir: dir.to_owned(),
        name,
    };
    for name in pin::entries(dir)? {
        let path = dir.join(&name);
        match number(&name) {
            // An empty one was about to be filled, or had been emptied.
            Some(_) if pin::is_layout(&path)? || pin::entries(&path)?.is_empty() => {}
            None if name == LINKS => {}
            _ => return Err(foreign(dir, name)),
        }
    }
    let links = dir.join(LINKS);
    for name in pin::entries(&links).unwrap_or_default() {
        let path = links.join(&name);
        let is_ours = Link::is_ours(&path, number(&name)).map_err(|source| PinError::Syscall {
            path: path.clone(),
            source,
        })?;
        if !is_ours {
            return Err(foreign(&links, name));
        }
    }
    Ok(())
}

/// Removes a directory of maps, of whatever version: its layout last, by which it is known as ours.
fn remove_maps(dir: &Path) -> Result<(), PinError> {
    let failed = |path: &Path, source| PinError::Syscall {
        path: path.to_owned(),
        source,
    };
    let names = pin::entries(dir)?;
    let (layout, others): (Vec<_>, Vec<_>) = names.into_iter().partition(|n| n == LAYOUT);
    for name in others.iter().chain(&layout) {
        let path = dir.join(name);
        fs::remove_file(&path).map_err(|e| failed(&path, e))?;
    }
    fs::remove_dir(dir).map_err(|e| failed(dir, e))
}

fn number(name: &str) -> Option<u32> {
    name.parse().ok().filter(|n: &u32| n.to_string() == name)
}

fn lock(dir: &Path) -> Result<Flock<File>, PinError> {
    let failed = |source| PinError::Syscall {
        path: dir.to_owned(),
        source,
    };
    let file = File::open(dir).map_err(failed)?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        Errno::EWOULDBLOCK => PinError::InUse {
            dir: dir.to_owned(),
        },
        errno => failed(io::Error::from(errno)),
    })
}

/// Mounts a BPF file system at its usual place, if pins are to be there and none is.
fn mount_bpffs(dir: &Path) {
    let place = Path::new(BPFFS);
    if !dir.starts_with(place) || pin::check_bpffs(place, dir).is_ok() {
        return;
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    match mount(Some("bpf"), place, Some("bpf"), flags, Some("mode=0700")) {
        Ok(()) => log::info!("{BPFFS}: mounted a BPF file system"),
        Err(errno) => log::info!("{BPFFS}: cannot mount a BPF file system: {errno}"),
    }
}
