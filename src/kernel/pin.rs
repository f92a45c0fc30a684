//! Pins: names in a BPF file system that keep programs and maps in the kernel.

use std::fs;
use std::io;
use std::path::Path;

use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType, ProgramHandle, libbpf_sys};
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
const NAMES: [&str; 8] = [
    ENTRY,
    "policy_slot",
    "control",
    "interfaces",
    "verdict_counters",
    "rule_counters",
    "evaluation",
    LAYOUT,
];

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
    let result = pin_all(dir, entry, maps, host, cpus);
    if result.is_err() {
        for name in NAMES {
            let _ = fs::remove_file(dir.join(name));
        }
        if made {
            let _ = fs::remove_dir(dir);
        }
    }
    result
}

fn pin_all(
    dir: &Path,
    entry: &ProgramHandle,
    maps: &SharedMaps,
    host: HostShape,
    cpus: u32,
) -> Result<(), PinError> {
    let failed = |name: &str, error: libbpf_rs::Error| PinError::Syscall {
        path: dir.join(name),
        source: to_io(&error),
    };
    for (name, map) in [
        ("policy_slot", &maps.policy_slot),
        ("control", &maps.control),
        ("interfaces", &maps.interfaces),
        ("verdict_counters", &maps.verdict_counters),
        ("rule_counters", &maps.rule_counters),
        ("evaluation", &maps.evaluation),
    ] {
        let mut map = MapHandle::try_from(map).map_err(|e| failed(name, e))?;
        map.pin(dir.join(name)).map_err(|e| failed(name, e))?;
    }
    let mut layout = layout_map(host, cpus).map_err(|e| failed(LAYOUT, e))?;
    layout
        .pin(dir.join(LAYOUT))
        .map_err(|e| failed(LAYOUT, e))?;
    // Last: where this pin is, the others are.
    entry.pin(dir.join(ENTRY)).map_err(|e| failed(ENTRY, e))
}

/// One line of numbers: layout version, CPUs, interface slots, rule slots.
fn layout_map(host: HostShape, cpus: u32) -> libbpf_rs::Result<MapHandle> {
    let numbers = [IMAGE_LAYOUT, cpus, host.interface_slots, host.rule_slots];
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

/// Removes what [`Firewall::pin`](crate::Firewall::pin) made in a directory, and the directory.
///
/// Nothing else is ever removed: a directory that holds anything else stays as it is. The programs
/// leave the kernel with the last interface or process that uses them.
///
/// # Errors
/// The directory is not there, not on a BPF file system, or holds something that is not ours.
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
    // The entry program first: nobody finds it without what it needs.
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
