//! Who attached a program, who pins it and who holds it: best effort, and bounded.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use libbpf_rs::query::{LinkInfo, LinkTypeInfo};
use libbpf_rs::{ProgramHandle, Xdp, XdpFlags};

use super::{AttachedBy, ForeignProgram, Holder};
use crate::kernel::attach::AttachMode;
use crate::kernel::ifindex::IfIndex;
use crate::kernel::sys;

/// How long pins and processes are each searched for.
const PATIENCE: Duration = Duration::from_millis(500);
/// How deep directories of pins are searched.
const DEPTH: usize = 8;

/// The program on an interface, whoever attached it; `None` if there is none.
pub(in crate::kernel) fn on(ifindex: IfIndex, interface: &str) -> Option<ForeignProgram> {
    let (id, mode) = attached(ifindex)?;
    let name = ProgramHandle::from_prog_id(id)
        .map(|program| program.name().to_string_lossy().into_owned())
        .unwrap_or_default();
    let attached_by = attached_by(ifindex, id);
    let is_it = |ids: Ids| match attached_by {
        AttachedBy::Link(link) => ids.link == Some(link),
        _ => ids.link.is_none() && ids.program == Some(id),
    };
    let mut program = ForeignProgram {
        id,
        name,
        mode,
        attached_by,
        pins: pins(is_it, &format!("dispatch-{ifindex}-{id}")),
        holders: holders(is_it),
        removal: None,
    };
    program.removal = program.removal_from(interface);
    Some(program)
}

/// In which mode an interface runs a program.
pub(in crate::kernel) fn mode_of(ifindex: IfIndex, program: u32) -> Option<AttachMode> {
    let running = running(ifindex)?;
    running.into_iter().find(|(id, _)| *id == program)?.1
}

/// The number of the program on an interface, and the mode that it is in.
fn attached(ifindex: IfIndex) -> Option<(u32, Option<AttachMode>)> {
    running(ifindex)?.into_iter().find(|(id, _)| *id != 0)
}

/// The number of the program in each mode, 0 where there is none.
fn running(ifindex: IfIndex) -> Option<[(u32, Option<AttachMode>); 4]> {
    // Only the descriptor of a program that is attached matters, and none is.
    let nothing = fs::File::open("/dev/null").ok()?;
    let found = Xdp::new(nothing.as_fd())
        .query(ifindex.get().try_into().ok()?, XdpFlags::NONE)
        .ok()?;
    // Programs in several modes at once have no common `prog_id`.
    Some([
        (found.hw_prog_id, Some(AttachMode::Offload)),
        (found.drv_prog_id, Some(AttachMode::Native)),
        (found.skb_prog_id, Some(AttachMode::Generic)),
        (found.prog_id, None),
    ])
}

/// A link knows its interface by number alone, and not the namespace that the number is of: one
/// with the same program on the same number elsewhere is taken for this one.
fn attached_by(ifindex: IfIndex, program: u32) -> AttachedBy {
    let mut last = 0;
    loop {
        let fd = match sys::next_link(last) {
            Ok(Some((id, fd))) => {
                last = id;
                fd
            }
            Ok(None) => return AttachedBy::Netlink,
            Err(_) => return AttachedBy::Unknown,
        };
        if let Some(fd) = fd
            && let Ok(link) = LinkInfo::from_fd(fd.as_fd())
            && let LinkTypeInfo::Xdp(xdp) = &link.info
            && xdp.ifindex == ifindex.get()
            && link.prog_id == program
        {
            return AttachedBy::Link(link.id);
        }
    }
}

/// What a file descriptor of BPF is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Ids {
    link: Option<u32>,
    program: Option<u32>,
}

/// Reads `/proc/PID/fdinfo/FD`.
fn ids(fdinfo: &str) -> Ids {
    let number = |key: &str| {
        let value = fdinfo.lines().find_map(|line| line.strip_prefix(key))?;
        value.trim().parse().ok()
    };
    Ids {
        link: number("link_id:"),
        program: number("prog_id:"),
    }
}

/// Paths in BPF file systems, sorted. libxdp does not pin its dispatcher, but what runs behind it,
/// in a directory that is named after it (`lib/libxdp/protocol.org` of xdp-tools).
fn pins(is_it: impl Fn(Ids) -> bool, dispatcher: &str) -> Vec<PathBuf> {
    let deadline = Instant::now() + PATIENCE;
    let mounts = fs::read("/proc/thread-self/mounts").unwrap_or_default();
    let mut found = Vec::new();
    let mut open: Vec<(PathBuf, usize)> = bpf_mounts(&mounts).map(|dir| (dir, 0)).collect();
    while let Some((dir, depth)) = open.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if Instant::now() > deadline {
                return found;
            }
            let path = entry.path();
            if entry.file_name() == dispatcher {
                found.push(path.clone());
            }
            match entry.file_type() {
                Ok(kind) if kind.is_dir() && depth < DEPTH => open.push((path, depth + 1)),
                Ok(kind) if kind.is_file() && pinned(&path).is_some_and(&is_it) => found.push(path),
                _ => {}
            }
        }
    }
    found.sort();
    found.dedup();
    found
}

/// Where BPF file systems are mounted, from the form of `/proc/mounts`.
fn bpf_mounts(mounts: &[u8]) -> impl Iterator<Item = PathBuf> {
    mounts.split(|byte| *byte == b'\n').filter_map(|line| {
        let mut words = line.split(|byte| *byte == b' ').skip(1);
        let (dir, kind) = (words.next()?, words.next()?);
        (kind == b"bpf").then(|| PathBuf::from(std::ffi::OsString::from_vec(unescaped(dir))))
    })
}

/// Blanks and the like stand as `\040` there.
fn unescaped(path: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..3).and_then(|d| std::str::from_utf8(d).ok());
        let code = digits.and_then(|d| u8::from_str_radix(d, 8).ok());
        match (first, code) {
            (b'\\', Some(code)) => {
                bytes.push(code);
                rest = &after[3..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    bytes
}

fn pinned(path: &Path) -> Option<Ids> {
    let fd = sys::open_pin(path).ok()?;
    let fdinfo = format!("/proc/thread-self/fdinfo/{}", fd.as_raw_fd());
    Some(ids(&fs::read_to_string(fdinfo).ok()?))
}

/// Processes that have it open, by number. Only root sees those of others.
fn holders(is_it: impl Fn(Ids) -> bool) -> Vec<Holder> {
    let deadline = Instant::now() + PATIENCE;
    let mut found = Vec::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        if Instant::now() > deadline {
            break;
        }
        let Some(pid) = process
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        if holds(&process.path(), &is_it) {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            let name = name.trim_end().to_owned();
            found.push(Holder { pid, name });
        }
    }
    found.sort_by_key(|holder| holder.pid);
    found
}

fn holds(process: &Path, is_it: impl Fn(Ids) -> bool) -> bool {
    let of_bpf = |fd: &fs::DirEntry| {
        // `anon_inode:bpf_link`, `anon_inode:bpf-prog`.
        fs::read_link(fd.path()).is_ok_and(|to| to.as_os_str().as_bytes().starts_with(BPF_INODE))
    };
    let fds = fs::read_dir(process.join("fd")).into_iter().flatten();
    fds.flatten().filter(of_bpf).any(|fd| {
        let fdinfo = process.join("fdinfo").join(fd.file_name());
        fs::read_to_string(fdinfo).is_ok_and(|text| is_it(ids(&text)))
    })
}

const BPF_INODE: &[u8] = b"anon_inode:bpf";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_proc_says_is_read() {
        let link =
            "pos:\t0\nlink_type:\txdp\nlink_id:\t5\nprog_tag:\tab\nprog_id:\t9\nifindex:\t2\n";
        assert_eq!(
            ids(link),
            Ids {
                link: Some(5),
                program: Some(9)
            }
        );
        assert_eq!(ids("prog_type:\t6\nprog_id:\t9\n").link, None);
        assert_eq!(ids("pos:\t0\n"), Ids::default());
        let mounts = b"proc /proc proc rw 0 0\nbpf /sys/fs/bpf bpf rw 0 0\nx /a\\040b bpf rw 0 0\n";
        let dirs: Vec<PathBuf> = bpf_mounts(mounts).collect();
        assert_eq!(dirs, ["/sys/fs/bpf", "/a b"].map(PathBuf::from));
    }
}
