//! Pins: names in a BPF file system that keep programs and maps in the kernel.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use libbpf_rs::{ErrorKind, MapCore, MapFlags, MapHandle, MapType, ProgramHandle, libbpf_sys};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use super::error::PinError;
use super::layout::HostShape;
use super::program::{SharedMaps, to_io};
use crate::abi::IMAGE_LAYOUT;

/// The name of the pin of the entry program.
const ENTRY: &str = "xdpgate";
/// The name of the pin of a map that says how the counters are laid out.
const LAYOUT: &str = "layout";
/// All that a directory of pins may hold.
const NAMES: [&str; 17] = [
    ENTRY,
    "policy_slot",
    "control",
    "bans",
    "interfaces",
    "verdict_counters",
    "rule_counters",
    "rate_budgets",
    "rate_sources",
    "rate_overflows",
    "flows",
    "events",
    "event_budgets",
    "event_counters",
    "evaluation",
    "ports",
    LAYOUT,
];
/// The first word of the layout map, by which it is known as ours: "XDPG".
const MAGIC: u32 = u32::from_be_bytes(*b"XDPG");
/// The words of the layout map: magic, layout version, CPUs, interface slots, rule slots,
/// lines of `rate_sources`.
type Layout = [u32; 6];

/// Pins the entry program and what belongs to it; all or nothing.
///
/// `policy_slot` is among it because the kernel empties a map of programs when its last user is
/// gone, a program that jumps through it notwithstanding.
pub(super) fn pin(
    dir: &Path,
    entry: &ProgramHandle,
    maps: &SharedMaps,
    host: HostShape,
    cpus: u32,
) -> Result<(), PinError> {
    let made = prepare(dir)?;
    let mut pinned = Vec::new();
    let result = pin_all(dir, entry, maps, host, cpus, &mut pinned);
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
fn pin_all(
    dir: &Path,
    entry: &ProgramHandle,
    maps: &SharedMaps,
    host: HostShape,
    cpus: u32,
    pinned: &mut Vec<PathBuf>,
) -> Result<(), PinError> {
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
    pin_map(LAYOUT, layout_map(host, cpus))?;
    for (name, map) in [
        ("policy_slot", &maps.policy_slot),
        ("control", &maps.control),
        ("bans", &maps.bans),
        ("interfaces", &maps.interfaces),
        ("verdict_counters", &maps.verdict_counters),
        ("rule_counters", &maps.rule_counters),
        ("rate_budgets", &maps.rate_budgets),
        ("rate_sources", &maps.rate_sources),
        ("rate_overflows", &maps.rate_overflows),
        ("flows", &maps.flows),
        ("events", &maps.events),
        ("event_budgets", &maps.event_budgets),
        ("event_counters", &maps.event_counters),
        ("evaluation", &maps.evaluation),
        ("ports", &maps.ports),
    ] {
        pin_map(name, MapHandle::try_from(map))?;
    }
    // Last: where this pin is, the others are.
    entry.pin(dir.join(ENTRY)).map_err(|e| failed(ENTRY, e))
}

fn layout_map(host: HostShape, cpus: u32) -> libbpf_rs::Result<MapHandle> {
    let numbers: Layout = [
        MAGIC,
        IMAGE_LAYOUT,
        cpus,
        host.interface_slots,
        host.rule_slots,
        host.source_lines,
    ];
    let options = libbpf_sys::bpf_map_create_opts {
        sz: size_of::<libbpf_sys::bpf_map_create_opts>() as libbpf_sys::size_t,
        ..Default::default()
    };
    let (key_size, value_size) = (size_of::<u32>() as u32, size_of_val(&numbers) as u32);
    let map = MapHandle::create(
        MapType::Array,
        Some(LAYOUT),
        key_size,
        value_size,
        1,
        &options,
    )?;
    map.update(
        &0u32.to_ne_bytes(),
        bytemuck::bytes_of(&numbers),
        MapFlags::ANY,
    )?;
    map.freeze()?;
    Ok(map)
}

/// Whether a directory has the pin of a layout map, and it is one that `layout_map` made.
fn has_layout(dir: &Path) -> Result<bool, PinError> {
    let path = dir.join(LAYOUT);
    let read = || -> libbpf_rs::Result<bool> {
        let map = MapHandle::from_pinned_path(&path)?;
        let is_alike = map.name() == LAYOUT
            && map.map_type() == MapType::Array
            && map.key_size() as usize == size_of::<u32>()
            && map.value_size() as usize == size_of::<Layout>();
        if !is_alike {
            return Ok(false);
        }
        let value = map.lookup(&0u32.to_ne_bytes(), MapFlags::ANY)?;
        Ok(value.is_some_and(|v| v.starts_with(&MAGIC.to_ne_bytes())))
    };
    match read() {
        Ok(found) => Ok(found),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Err(PinError::Syscall {
            path,
            source: to_io(&error),
        }),
        // Not there, or no map at all.
        Err(_) => Ok(false),
    }
}

/// Removes what [`Firewall::pin`](crate::Firewall::pin) made in a directory, and the directory.
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
/// The directory is not there, not on a BPF file system, holds something that is not ours, or has
/// no `layout` of ours. Then nothing is removed. Or a pin cannot be read or removed.
pub fn unpin(dir: impl AsRef<Path>) -> Result<(), PinError> {
    let dir = dir.as_ref();
    let syscall = |path: &Path, source| PinError::Syscall {
        path: path.to_owned(),
        source,
    };
    check_bpffs(dir, dir)?;
    let names = entries(dir)?;
    if let Some(name) = names.iter().find(|n| !NAMES.contains(&n.as_str())) {
        return Err(PinError::Foreign {
            dir: dir.to_owned(),
            name: name.clone(),
        });
    }
    if !has_layout(dir)? {
        return Err(PinError::NoLayout {
            dir: dir.to_owned(),
        });
    }
    // The entry program first: nobody finds it without what it needs. The layout last: what an
    // error leaves behind is still known as ours.
    for name in NAMES
        .iter()
        .filter(|n| names.iter().any(|found| found == *n))
    {
        let path = dir.join(name);
        fs::remove_file(&path).map_err(|e| syscall(&path, e))?;
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
        Some(name) if NAMES.contains(&name.as_str()) => Err(PinError::Exists {
            dir: dir.to_owned(),
        }),
        Some(name) => Err(PinError::Foreign {
            dir: dir.to_owned(),
            name,
        }),
    }
}

/// `path` is `dir`, or its parent if `dir` is not there yet.
fn check_bpffs(path: &Path, dir: &Path) -> Result<(), PinError> {
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
fn entries(dir: &Path) -> Result<Vec<String>, PinError> {
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
