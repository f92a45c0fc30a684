//! Pins: names in a BPF file system that keep programs and maps in the kernel.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bytemuck::{Pod, Zeroable};
use libbpf_rs::{ErrorKind, MapCore, MapFlags, MapHandle, MapType, ProgramHandle, libbpf_sys};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use super::error::PinError;
use super::layout::HostShape;
use super::pin_root;
use super::program::to_io;
use super::shared_maps::SharedMaps;
use super::slot_memory;
use crate::abi::IMAGE_LAYOUT;

/// The name of the pin of the entry program.
pub(super) const ENTRY: &str = "xdpgate";
/// The name of the pin of a map that says how the counters are laid out.
pub(super) const LAYOUT: &str = "layout";
/// The name of the pin of a map that says who counts where: [`slot_memory`].
pub(super) const SLOTS: &str = "slots";

/// The first word of the layout map, by which it is known as ours: "XDPG".
const MAGIC: u32 = u32::from_be_bytes(*b"XDPG");

/// What the layout map holds. Its first word never changes its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Layout {
    magic: u32,
    image_layout: u32,
    pub cpus: u32,
    interface_slots: u32,
    rule_slots: u32,
    source_lines: u32,
    pub event_buffer: u32,
    slots_version: u32,
    /// A hash of the headers in `bpf/` that say what stands in maps: programs built from others do not
    /// share them.
    abi: u64,
    /// The rest of what the programs were specialised for.
    pub host: HostShape,
}

impl Layout {
    pub(super) fn new(host: HostShape, cpus: u32, event_buffer: u32) -> Self {
        Self {
            magic: MAGIC,
            image_layout: IMAGE_LAYOUT,
            cpus,
            interface_slots: host.interface_slots,
            rule_slots: host.rule_slots,
            source_lines: host.source_lines,
            event_buffer,
            slots_version: slot_memory::VERSION,
            abi: abi(),
            host,
        }
    }

    /// Whether this library understands what lies beside it.
    pub(super) fn is_known(&self) -> bool {
        let ours = Self::new(self.host, self.cpus, self.event_buffer);
        *self == ours
    }

    /// Whether programs that were specialised for `other` can use what lies beside it, if they take
    /// over what only the first process could choose.
    pub(super) fn suits(&self, other: &Self) -> bool {
        let host = HostShape {
            seed: self.host.seed,
            tick_zero: self.host.tick_zero,
            ..other.host
        };
        self.is_known() && *self == Self { host, ..*other }
    }
}

/// From the build.
fn abi() -> u64 {
    u64::from_str_radix(env!("XDPGATE_ABI"), 16).expect("written by build.rs")
}

/// Whether a directory may hold a pin of this name.
fn is_ours(name: &str) -> bool {
    [ENTRY, LAYOUT, SLOTS].contains(&name) || SharedMaps::NAMES.contains(&name)
}

/// What is pinned.
pub(super) struct Pinnable<'p> {
    pub entry: &'p ProgramHandle,
    pub maps: &'p SharedMaps,
    pub slots: Option<&'p MapHandle>,
    pub layout: Layout,
}

/// Pins the entry program and what belongs to it; all or nothing.
///
/// `policy_slot` is among it because the kernel empties a map of programs when its last user is
/// gone, a program that jumps through it notwithstanding.
pub(super) fn pin(dir: &Path, what: &Pinnable<'_>) -> Result<(), PinError> {
    let made = prepare(dir)?;
    let mut pinned = Vec::new();
    let result = pin_all(dir, what, &mut pinned);
    if result.is_err() {
        // The other way round, so that the layout goes last, as `unpin` does it.
        for path in pinned.iter().rev() {
            let _ = fs::remove_file(path);
        }
        if made {
            let _ = fs::remove_dir(dir);
        }
    }
    result
}

/// What was pinned is in `pinned`, also on error.
fn pin_all(dir: &Path, what: &Pinnable<'_>, pinned: &mut Vec<PathBuf>) -> Result<(), PinError> {
    let failed = |name: &str, error: libbpf_rs::Error| PinError::Syscall {
        path: dir.join(name),
        source: to_io(&error),
    };
    let mut pin_map = |name: &str, map: libbpf_rs::Result<MapHandle>| {
        let path = dir.join(name);
        map.and_then(|mut map| map.pin(&path))
            .map_err(|e| failed(name, e))?;
        pinned.push(path);
        Ok(())
    };
    // First: with it `unpin` removes what is left if this process is killed here.
    pin_map(LAYOUT, layout_map(&what.layout))?;
    let slots = what.slots.map(|map| (SLOTS, map));
    for (name, map) in slots.into_iter().chain(what.maps.all()) {
        pin_map(name, MapHandle::try_from(map))?;
    }
    // Last: where this pin is, the others are.
    let path = dir.join(ENTRY);
    what.entry.pin(path).map_err(|e| failed(ENTRY, e))
}

fn layout_map(layout: &Layout) -> libbpf_rs::Result<MapHandle> {
    let options = libbpf_sys::bpf_map_create_opts {
        sz: size_of::<libbpf_sys::bpf_map_create_opts>() as libbpf_sys::size_t,
        ..Default::default()
    };
    let (key_size, value_size) = (size_of::<u32>() as u32, size_of::<Layout>() as u32);
    let map = MapHandle::create(
        MapType::Array,
        Some(LAYOUT),
        key_size,
        value_size,
        1,
        &options,
    )?;
    let value = bytemuck::bytes_of(layout);
    map.update(&0u32.to_ne_bytes(), value, MapFlags::ANY)?;
    map.freeze()?;
    Ok(map)
}

/// What the pinned layout map of a directory holds; `None` if there is none of ours.
fn read_layout(dir: &Path) -> Result<Option<Vec<u8>>, PinError> {
    let path = dir.join(LAYOUT);
    let read = || -> libbpf_rs::Result<Option<Vec<u8>>> {
        let map = MapHandle::from_pinned_path(&path)?;
        let is_alike = map.name() == LAYOUT
            && map.map_type() == MapType::Array
            && map.key_size() as usize == size_of::<u32>()
            && map.value_size() as usize >= size_of::<u32>();
        if !is_alike {
            return Ok(None);
        }
        let value = map.lookup(&0u32.to_ne_bytes(), MapFlags::ANY)?;
        Ok(value.filter(|v| v.starts_with(&MAGIC.to_ne_bytes())))
    };
    match read() {
        Ok(found) => Ok(found),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Err(PinError::Syscall {
            path,
            source: to_io(&error),
        }),
        // Not there, or no map at all.
        Err(_) => Ok(None),
    }
}

/// Whether a directory has the layout map of any version.
pub(super) fn is_layout(dir: &Path) -> Result<bool, PinError> {
    Ok(read_layout(dir)?.is_some())
}

/// The layout of the pins in a directory, if this library understands it.
pub(super) fn known_layout(dir: &Path) -> Result<Option<Layout>, PinError> {
    let Some(bytes) = read_layout(dir)? else {
        return Ok(None);
    };
    let layout = bytemuck::try_pod_read_unaligned::<Layout>(&bytes).ok();
    Ok(layout.filter(Layout::is_known))
}

/// Removes what [`Firewall::pin`](crate::Firewall::pin) made in a directory, and the directory. Of a
/// directory that [`Loader::pin_root`](crate::Loader::pin_root) names it removes all: interfaces that
/// an earlier process left attached are detached.
///
/// Nothing else is ever removed: a directory that holds anything else, or in which the map `layout`
/// of [`Firewall::pin`](crate::Firewall::pin) is missing, stays as it is.
///
/// If the process that loaded the firewall is gone, the pins are all that holds the policy: the
/// kernel empties `policy_slot` once no pin and no process has it. The entry program then passes
/// every frame, as [`NoPolicy`](crate::Reason::NoPolicy), wherever it still runs, and leaves the
/// kernel with the last that uses it. While that process lives, the program judges as before.
///
/// # Errors
/// The directory is not there, not on a BPF file system, holds something that is not ours, has no
/// `layout` of ours, or a process uses it. Then nothing is removed. Or a pin cannot be read or removed.
pub fn unpin(dir: impl AsRef<Path>) -> Result<(), PinError> {
    let dir = dir.as_ref();
    let syscall = |path: &Path, source| PinError::Syscall {
        path: path.to_owned(),
        source,
    };
    check_bpffs(dir, dir)?;
    if pin_root::is_root(dir) {
        return pin_root::remove_root(dir);
    }
    let names = entries(dir)?;
    if let Some(name) = names.iter().find(|n| !is_ours(n)) {
        return Err(PinError::Foreign {
            dir: dir.to_owned(),
            name: name.clone(),
        });
    }
    if read_layout(dir)?.is_none() {
        return Err(PinError::NoLayout {
            dir: dir.to_owned(),
        });
    }
    // The entry program first: nobody finds it without what it needs. The layout last: what an
    // error leaves behind is still known as ours.
    let maps = SharedMaps::NAMES.iter().copied();
    for name in [ENTRY].into_iter().chain(maps).chain([SLOTS, LAYOUT]) {
        if names.iter().any(|found| found == name) {
            let path = dir.join(name);
            fs::remove_file(&path).map_err(|e| syscall(&path, e))?;
        }
    }
    fs::remove_dir(dir).map_err(|e| syscall(dir, e))
}

/// Makes the directory or finds it empty; returns whether it was made.
fn prepare(dir: &Path) -> Result<bool, PinError> {
    if !dir.exists() {
        let parent = dir
            .parent()
            .filter(|p| !p.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        check_bpffs(parent, dir)?;
        fs::create_dir(dir).map_err(|source| PinError::Syscall {
            path: dir.to_owned(),
            source,
        })?;
        return Ok(true);
    }
    check_bpffs(dir, dir)?;
    match entries(dir)?.into_iter().next() {
        None => Ok(false),
        Some(name) if is_ours(&name) => Err(PinError::Exists {
            dir: dir.to_owned(),
        }),
        Some(name) => Err(PinError::Foreign {
            dir: dir.to_owned(),
            name,
        }),
    }
}

/// `path` is `dir`, or its parent if `dir` is not there yet.
pub(super) fn check_bpffs(path: &Path, dir: &Path) -> Result<(), PinError> {
    match statfs(path) {
        Ok(stat) if stat.filesystem_type() == BPF_FS_MAGIC => Ok(()),
        Ok(_) => Err(PinError::NotBpffs {
            dir: dir.to_owned(),
        }),
        Err(nix::errno::Errno::ENOENT) => Err(PinError::NotPinned {
            dir: path.to_owned(),
        }),
        Err(errno) => Err(PinError::Syscall {
            path: path.to_owned(),
            source: errno.into(),
        }),
    }
}

/// The names in a directory, sorted.
pub(super) fn entries(dir: &Path) -> Result<Vec<String>, PinError> {
    let read = || -> io::Result<Vec<String>> {
        fs::read_dir(dir)?
            .map(|e| Ok(e?.file_name().to_string_lossy().into_owned()))
            .collect()
    };
    let mut names = read().map_err(|source| PinError::Syscall {
        path: dir.to_owned(),
        source,
    })?;
    names.sort();
    Ok(names)
}
