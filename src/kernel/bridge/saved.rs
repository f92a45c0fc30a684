//! The originals of a port's settings in a file, so that they outlive this process.
//!
//! The file is whole or not there: it is written beside its place, synced and renamed. Whoever has
//! the port bridged holds a lock on it, which the kernel lets go with the process.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use tempfile::Builder;
use xxhash_rust::xxh3::xxh3_64;

use super::error::BridgeError;
use super::settings::Settings;
use crate::kernel::ifindex::IfIndex;

/// The first line: what the file is, and the version of its form.
const MAGIC: &str = "xdpgate bridge port, version 1";
const SUFFIX: &str = ".port";

/// Which interface it was, among all of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub ifindex: IfIndex,
    pub name: String,
    pub mac: [u8; 6],
    /// The number of its network namespace (`stat -L /proc/self/ns/net`).
    pub namespace: u64,
    /// `/proc/sys/kernel/random/boot_id`: what a boot before this one left has changed nothing.
    pub boot: String,
}

/// A file and the lock on it.
#[derive(Debug)]
pub(super) struct Saved {
    path: PathBuf,
    _lock: Flock<File>,
    pub identity: Identity,
    pub originals: Settings,
}

/// The namespace of the calling thread and the boot.
pub(super) fn here() -> io::Result<(u64, String)> {
    let namespace = fs::metadata("/proc/thread-self/ns/net")?.ino();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok((namespace, boot.trim().to_owned()))
}

impl Saved {
    /// Keeps the originals of an interface. If a process that is gone left some of the same
    /// interface, those are the originals, and `settings` what it made of them.
    pub(super) fn keep(
        dir: &Path,
        identity: Identity,
        settings: Settings,
    ) -> Result<Self, BridgeError> {
        let failed = |source| BridgeError::state(dir, source);
        fs::create_dir_all(dir).map_err(failed)?;
        let path = dir.join(file_name(&identity));
        if path.exists() {
            let saved = Self::open(path.clone())?;
            if saved.identity == identity {
                log::info!("{}: the originals of an earlier run", path.display());
                return Ok(saved);
            }
            if saved.identity.boot == identity.boot && saved.identity.mac != identity.mac {
                log::warn!(
                    "{}: is about another interface of this name and number, which is gone",
                    path.display()
                );
            }
            saved.remove()?;
        }
        let text = to_text(&identity, &settings);
        let write = || -> io::Result<Flock<File>> {
            let mut file = Builder::new().suffix(".tmp").tempfile_in(dir)?;
            file.write_all(text.as_bytes())?;
            file.as_file().sync_all()?;
            let file = file.persist_noclobber(&path)?;
            File::open(dir)?.sync_all()?;
            Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno.into())
        };
        Ok(Self {
            _lock: write().map_err(|source| BridgeError::state(&path, source))?,
            path,
            identity,
            originals: settings,
        })
    }

    /// Reads a file that nobody else has in use.
    pub(super) fn open(path: PathBuf) -> Result<Self, BridgeError> {
        let failed = |source| BridgeError::state(&path, source);
        let file = File::open(&path).map_err(failed)?;
        let mut lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((_, Errno::EWOULDBLOCK)) => return Err(BridgeError::InUse { path }),
            Err((_, errno)) => return Err(failed(errno.into())),
        };
        let mut text = String::new();
        lock.read_to_string(&mut text).map_err(failed)?;
        let Some((identity, originals)) = from_text(&text) else {
            return Err(BridgeError::Corrupt { path });
        };
        Ok(Self {
            path,
            _lock: lock,
            identity,
            originals,
        })
    }

    /// Whom a file is about that somebody else has in use.
    pub(super) fn peek(path: &Path) -> io::Result<(String, IfIndex)> {
        let identity = from_text(&fs::read_to_string(path)?).map(|(identity, _)| identity);
        let found = identity.map(|identity| (identity.name, identity.ifindex));
        found.ok_or(io::ErrorKind::InvalidData.into())
    }

    /// Takes the file away, for good.
    pub(super) fn remove(self) -> Result<(), BridgeError> {
        let remove = || -> io::Result<()> {
            fs::remove_file(&self.path)?;
            File::open(self.path.parent().unwrap_or(Path::new(".")))?.sync_all()
        };
        remove().map_err(|source| BridgeError::state(&self.path, source))
    }
}

/// The files of a directory, in order; none if there is no such directory.
pub(super) fn files(dir: &Path) -> Result<Vec<PathBuf>, BridgeError> {
    let list = || -> io::Result<Vec<PathBuf>> {
        let entries = match fs::read_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut paths = entries
            .map(|e| Ok(e?.path()))
            .collect::<io::Result<Vec<_>>>()?;
        paths.retain(|p| p.to_string_lossy().ends_with(SUFFIX));
        paths.sort();
        Ok(paths)
    };
    list().map_err(|source| BridgeError::state(dir, source))
}

/// A name of an interface holds neither a slash nor white space (`dev_valid_name`, `net/core/dev.c`).
fn file_name(identity: &Identity) -> String {
    let Identity {
        ifindex,
        name,
        namespace,
        ..
    } = identity;
    format!("{name}-{ifindex}-{namespace}{SUFFIX}")
}

fn to_text(identity: &Identity, settings: &Settings) -> String {
    let mac: Vec<String> = identity.mac.iter().map(|b| format!("{b:02x}")).collect();
    let mut text = format!(
        "{MAGIC}\nname {}\nifindex {}\nmac {}\nnamespace {}\nboot {}\nup {}\npromiscuous {}\n",
        identity.name,
        identity.ifindex,
        mac.join(":"),
        identity.namespace,
        identity.boot,
        settings.up,
        settings.promiscuous
    );
    for (feature, on) in &settings.features {
        writeln!(text, "feature {feature} {on}").expect("a string takes all");
    }
    let sum = xxh3_64(text.as_bytes());
    text + &format!("sum {sum:016x}\n")
}

fn from_text(text: &str) -> Option<(Identity, Settings)> {
    let (body, sum) = text.trim_end().rsplit_once("sum ")?;
    if u64::from_str_radix(sum, 16).ok()? != xxh3_64(body.as_bytes()) {
        return None;
    }
    let mut lines = body.lines();
    if lines.next()? != MAGIC {
        return None;
    }
    let mut value = |key: &str| {
        let (found, value) = lines.next()?.split_once(' ')?;
        (found == key).then_some(value)
    };
    let name = value("name")?.to_owned();
    let ifindex = IfIndex::new(value("ifindex")?.parse().ok()?)?;
    let mut mac = [0; 6];
    for (byte, text) in mac.iter_mut().zip(value("mac")?.split(':')) {
        *byte = u8::from_str_radix(text, 16).ok()?;
    }
    let namespace = value("namespace")?.parse().ok()?;
    let boot = value("boot")?.to_owned();
    let up = value("up")?.parse().ok()?;
    let promiscuous = value("promiscuous")?.parse().ok()?;
    let features = lines.map(|line| {
        let (feature, on) = line.strip_prefix("feature ")?.split_once(' ')?;
        Some((feature.to_owned(), on.parse().ok()?))
    });
    let identity = Identity {
        ifindex,
        name,
        mac,
        namespace,
        boot,
    };
    let settings = Settings {
        up,
        promiscuous,
        features: features.collect::<Option<_>>()?,
    };
    Some((identity, settings))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> (Identity, Settings) {
        let identity = Identity {
            ifindex: IfIndex::new(5).unwrap(),
            name: "eth0".into(),
            mac: [2, 0, 0, 0, 0xab, 1],
            namespace: 4_026_531_840,
            boot: "b".into(),
        };
        let settings = Settings {
            up: false,
            promiscuous: true,
            features: [("rx-lro".into(), true), ("rx-gro".into(), false)].into(),
        };
        (identity, settings)
    }

    #[test]
    fn r48_a_file_says_what_was_saved_or_is_refused() {
        let (identity, settings) = example();
        let text = to_text(&identity, &settings);
        assert_eq!(from_text(&text), Some(example()));
        for end in 0..text.len() - 1 {
            assert_eq!(from_text(&text[..end]), None, "cut off at {end}");
        }
        for at in 0..text.len() - 1 {
            let mut changed = text.clone().into_bytes();
            changed[at] ^= 1;
            let changed = String::from_utf8(changed).unwrap();
            assert_eq!(from_text(&changed), None, "changed at {at}");
        }
    }

    #[test]
    fn r48_the_first_originals_stay() {
        let dir = tempfile::tempdir().unwrap();
        let (identity, settings) = example();
        let other = Settings {
            up: true,
            ..settings.clone()
        };
        let first = Saved::keep(dir.path(), identity.clone(), settings.clone()).unwrap();
        let in_use = Saved::keep(dir.path(), identity.clone(), other.clone()).unwrap_err();
        assert!(matches!(in_use, BridgeError::InUse { .. }), "{in_use}");
        // As when the process dies: the file stays, the lock goes.
        drop(first);
        // And as if it had died while it wrote another file.
        fs::write(dir.path().join(".tmpabc.tmp"), "half").unwrap();
        let second = Saved::keep(dir.path(), identity.clone(), other.clone()).unwrap();
        assert_eq!(second.originals, settings);
        drop(second);
        assert_eq!(files(dir.path()).unwrap().len(), 1);

        // What an earlier boot left, or another interface, is not about this one.
        for other_one in [
            Identity {
                boot: "c".into(),
                ..identity.clone()
            },
            Identity {
                boot: "c".into(),
                mac: [9; 6],
                ..identity.clone()
            },
        ] {
            let saved = Saved::keep(dir.path(), other_one, other.clone()).unwrap();
            assert_eq!(saved.originals, other);
        }
        assert_eq!(files(dir.path()).unwrap().len(), 1);
    }
}
