//! All unsafe code of the library: system calls that libbpf-rs does not offer, and shared memory.

#![allow(unsafe_code, reason = "the one module that may")]

use std::ffi::CString;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use libbpf_rs::libbpf_sys;
use libbpf_rs::skel::OpenSkel;
use libbpf_rs::{AsRawLibbpf, OpenProgramMut};
use memmap2::{MmapOptions, MmapRaw};
use neli::err::SocketError;
use neli::socket::synchronous::NlSocketHandle;
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType};

use super::skeleton::{OpenXdpgateSkel, XdpgateSkel};
use crate::abi::Line;

/// Loads an opened skeleton; the verifier's log goes to `log` and not to stderr.
///
/// libbpf keeps the pointer to the log for as long as the object lives, which is why both have the
/// same lifetime.
pub(super) fn load_logged<'o>(
    open: OpenXdpgateSkel<'o>,
    log: &'o mut [u8],
    level: u32,
) -> libbpf_rs::Result<XdpgateSkel<'o>> {
    let mut open = open;
    // The log of the clock is never read: all of them share one buffer, and the last one stays.
    for program in [
        &mut open.progs.xdpgate_clock,
        &mut open.progs.xdpgate,
        &mut open.progs.xdpgate_special,
        &mut open.progs.xdpgate_policy,
    ] {
        if program.autoload() {
            program.set_log_level(level);
            set_log_buffer(program, log)?;
        }
    }
    open.load()
}

/// The caller keeps `log` alive for as long as the program: see [`load_logged`].
fn set_log_buffer(program: &mut OpenProgramMut<'_>, log: &mut [u8]) -> libbpf_rs::Result<()> {
    let program = program.as_libbpf_object().as_ptr();
    // SAFETY: the program is open and not loaded; pointer and length are of one live slice, and
    // `load_logged` ties its lifetime to that of the object.
    let ret = unsafe {
        libbpf_sys::bpf_program__set_log_buf(
            program,
            log.as_mut_ptr().cast(),
            log.len() as libbpf_sys::size_t,
        )
    };
    match ret {
        0 => Ok(()),
        error => Err(libbpf_rs::Error::from_raw_os_error(-error)),
    }
}

/// Attaches an XDP program to an interface with a `bpf_link`; `flags` are `XDP_FLAGS_*_MODE`.
pub(super) fn link_xdp(program: BorrowedFd<'_>, ifindex: u32, flags: u32) -> io::Result<OwnedFd> {
    let options = libbpf_sys::bpf_link_create_opts {
        sz: size_of::<libbpf_sys::bpf_link_create_opts>() as libbpf_sys::size_t,
        flags,
        ..Default::default()
    };
    // SAFETY: the options outlive the call, which does not keep them; an ifindex stands in the
    // place of the target's file descriptor, as for every XDP link.
    let fd = unsafe {
        libbpf_sys::bpf_link_create(
            program.as_raw_fd(),
            ifindex as i32,
            libbpf_sys::BPF_XDP,
            &options,
        )
    };
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(-fd));
    }
    // SAFETY: a new file descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Detaches a link now, even if a forked child still holds a copy of its file descriptor.
pub(super) fn detach_link(link: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: takes a number only.
    match unsafe { libbpf_sys::bpf_link_detach(link.as_raw_fd()) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(-error)),
    }
}

/// Lets an attached link run another program, in one step: no packet is without one. Since Linux 5.9.
pub(super) fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let (link, program) = (link.as_raw_fd(), program.as_raw_fd());
    // SAFETY: takes numbers only; no options.
    match unsafe { libbpf_sys::bpf_link_update(link, program, std::ptr::null()) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(-error)),
    }
}

/// Binds no map to no program, to see whether the kernel knows the call: EBADF if it does, EINVAL if not.
pub(super) fn probe_bind_map() -> io::Error {
    // SAFETY: takes numbers only; no options.
    let ret = unsafe { libbpf_sys::bpf_prog_bind_map(-1, -1, std::ptr::null()) };
    io::Error::from_raw_os_error(-ret)
}

/// Gives something of BPF a name in a BPF file system.
pub(super) fn pin_object(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the path is a C string that outlives the call, which does not keep it.
    match unsafe { libbpf_sys::bpf_obj_pin(object.as_raw_fd(), path.as_ptr()) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(-error)),
    }
}

/// Opens what is pinned at a path of a BPF file system: a map, a program or a link.
pub(super) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the path is a C string that outlives the call, which does not keep it.
    let fd = unsafe { libbpf_sys::bpf_obj_get(path.as_ptr()) };
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(-fd));
    }
    // SAFETY: a new file descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Runs a program once over a frame (`BPF_PROG_TEST_RUN`); returns its return value.
///
/// Some kernels answer EINTR after the run if a signal is pending, so it is run again.
pub(super) fn test_run(program: BorrowedFd<'_>, frame: &[u8]) -> io::Result<u32> {
    let length = u32::try_from(frame.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    retry(|| {
        let mut options = libbpf_sys::bpf_test_run_opts {
            sz: size_of::<libbpf_sys::bpf_test_run_opts>() as libbpf_sys::size_t,
            data_in: frame.as_ptr().cast(),
            data_size_in: length,
            repeat: 1,
            ..Default::default()
        };
        // SAFETY: the options and the frame outlive the call; the kernel only reads the frame, and
        // writes nothing back but numbers in the options, as no output buffers are given.
        match unsafe { libbpf_sys::bpf_prog_test_run_opts(program.as_raw_fd(), &mut options) } {
            0 => Ok(options.retval),
            error => Err(io::Error::from_raw_os_error(-error)),
        }
    })
}

/// How often a call that a signal interrupted is tried.
const TRIES: usize = 100;

/// Calls again while a signal interrupts the call.
fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 1..TRIES {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
    call()
}

/// Loads the least XDP program as one that takes frames in several buffers, and lets it go.
pub(super) fn probe_frags() -> io::Result<()> {
    let action = libbpf_sys::bpf_insn {
        code: (libbpf_sys::BPF_ALU64 | libbpf_sys::BPF_MOV | libbpf_sys::BPF_K) as u8,
        imm: libbpf_sys::XDP_PASS as i32,
        ..Default::default()
    };
    let exit = libbpf_sys::bpf_insn {
        code: (libbpf_sys::BPF_JMP | libbpf_sys::BPF_EXIT) as u8,
        ..Default::default()
    };
    let program = [action, exit];
    let mut options = libbpf_sys::bpf_prog_load_opts {
        sz: size_of::<libbpf_sys::bpf_prog_load_opts>() as libbpf_sys::size_t,
        prog_flags: libbpf_sys::BPF_F_XDP_HAS_FRAGS,
        ..Default::default()
    };
    // SAFETY: name, licence, instructions and options outlive the call, which does not keep them;
    // the instructions are as many as is said.
    let fd = unsafe {
        libbpf_sys::bpf_prog_load(
            libbpf_sys::BPF_PROG_TYPE_XDP,
            c"xdpgate_probe".as_ptr(),
            c"Dual BSD/GPL".as_ptr(),
            program.as_ptr(),
            program.len() as libbpf_sys::size_t,
            &mut options,
        )
    };
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(-fd));
    }
    // SAFETY: a new file descriptor that nobody else owns.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
    Ok(())
}

/// The driver of a network interface, as `ethtool -i` shows it.
pub(super) fn interface_driver(name: &str) -> io::Result<String> {
    /// `ETHTOOL_GDRVINFO` of `include/uapi/linux/ethtool.h`.
    const GDRVINFO: u32 = 3;
    let socket = nix::sys::socket::socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_data: std::ptr::null_mut(),
        },
    };
    // The last byte stays zero.
    for (to, from) in request.ifr_name[..libc::IFNAMSIZ - 1]
        .iter_mut()
        .zip(name.bytes())
    {
        *to = from as libc::c_char;
    }
    // `struct ethtool_drvinfo`: the command, then the driver in 32 bytes, 196 bytes in all.
    let mut info = [0u8; 196];
    info[..4].copy_from_slice(&GDRVINFO.to_ne_bytes());
    request.ifr_ifru.ifru_data = info.as_mut_ptr().cast();
    // SAFETY: the request and what it points to outlive the call; the kernel writes no more than a
    // `struct ethtool_drvinfo`, which is as long as `info`.
    let ret = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &mut request) };
    if ret < 0 {
        return Err(io::Error::last_os_error());
    }
    let driver = info[4..36].split(|byte| *byte == 0).next();
    Ok(String::from_utf8_lossy(driver.unwrap_or_default()).into_owned())
}

/// Whether a device can hold an array of programs, which the programs of xdpgate jump through.
///
/// The kernel makes only arrays and hashes on a device (`bpf_map_offload_map_alloc`,
/// `kernel/bpf/offload.c`), so the answer has been "no" so far.
pub(super) fn offload_program_array(ifindex: u32) -> io::Result<()> {
    let options = libbpf_sys::bpf_map_create_opts {
        sz: size_of::<libbpf_sys::bpf_map_create_opts>() as libbpf_sys::size_t,
        map_ifindex: ifindex,
        ..Default::default()
    };
    // SAFETY: name and options outlive the call, which does not keep them.
    let fd = unsafe {
        libbpf_sys::bpf_map_create(
            libbpf_sys::BPF_MAP_TYPE_PROG_ARRAY,
            c"xdpgate_probe".as_ptr(),
            size_of::<u32>() as u32,
            size_of::<u32>() as u32,
            1,
            &options,
        )
    };
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(-fd));
    }
    // SAFETY: a new file descriptor that nobody else owns.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
    Ok(())
}

/// The next link in the kernel by number, `None` after the last; needs CAP_SYS_ADMIN. One that is
/// being made or is gone by now comes without a descriptor.
///
/// The iterator of libbpf-rs ends where it meets one that is being made (EAGAIN).
pub(super) fn next_link(after: u32) -> io::Result<Option<(u32, Option<OwnedFd>)>> {
    let mut id = 0;
    // SAFETY: the kernel writes one number, to `id`.
    match unsafe { libbpf_sys::bpf_link_get_next_id(after, &mut id) } {
        0 => {}
        error if error == -libc::ENOENT => return Ok(None),
        error => return Err(io::Error::from_raw_os_error(-error)),
    }
    // SAFETY: takes a number only.
    let fd = unsafe { libbpf_sys::bpf_link_get_fd_by_id(id) };
    if fd < 0 {
        return Ok(Some((id, None)));
    }
    // SAFETY: a new file descriptor that nobody else owns.
    Ok(Some((id, Some(unsafe { OwnedFd::from_raw_fd(fd) }))))
}

/// What the kernel tells of a loaded program; fields that it does not know stay 0.
pub(super) fn program_info(program: BorrowedFd<'_>) -> io::Result<libbpf_sys::bpf_prog_info> {
    let mut info = libbpf_sys::bpf_prog_info::default();
    let mut length = size_of::<libbpf_sys::bpf_prog_info>() as u32;
    // SAFETY: `info` is as long as `length` says, and all its pointers are null, so that the
    // kernel writes nowhere else.
    match unsafe {
        libbpf_sys::bpf_prog_get_info_by_fd(program.as_raw_fd(), &mut info, &mut length)
    } {
        0 => Ok(info),
        error => Err(io::Error::from_raw_os_error(-error)),
    }
}

/// The numbers of the maps that a program uses.
pub(super) fn program_maps(program: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut ids = vec![0u32; program_info(program)?.nr_map_ids as usize];
    let mut info = libbpf_sys::bpf_prog_info {
        nr_map_ids: ids.len() as u32,
        map_ids: ids.as_mut_ptr() as u64,
        ..Default::default()
    };
    let mut length = size_of::<libbpf_sys::bpf_prog_info>() as u32;
    // SAFETY: `info` is as long as `length` says; its one pointer that is not null is to as many
    // numbers as is said, which outlive the call.
    let ret =
        unsafe { libbpf_sys::bpf_prog_get_info_by_fd(program.as_raw_fd(), &mut info, &mut length) };
    match ret {
        0 => {
            ids.truncate(info.nr_map_ids as usize);
            Ok(ids)
        }
        error => Err(io::Error::from_raw_os_error(-error)),
    }
}

/// The error of a netlink socket, with the number that the kernel gave.
pub(super) fn netlink_error(error: &SocketError) -> io::Error {
    match error {
        SocketError::Io(error) => match error.raw_os_error() {
            Some(errno) => io::Error::from_raw_os_error(errno),
            None => io::Error::other(error.to_string()),
        },
        other => io::Error::other(other.to_string()),
    }
}

/// The file descriptor of a netlink socket, for as long as the socket is not closed.
pub(super) fn netlink_fd(socket: &NlSocketHandle) -> BorrowedFd<'_> {
    // SAFETY: the socket owns it and closes it when it is dropped, which the lifetime excludes.
    unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) }
}

/// The driver of an interface and the address of its device on the bus, as `ethtool -i` shows them;
/// empty where there is none. `socket` is any one of the interface's network namespace.
pub(super) fn driver_info(socket: BorrowedFd<'_>, name: &str) -> io::Result<(String, String)> {
    let mut info = DrvInfo {
        cmd: ETHTOOL_GDRVINFO,
        ..bytemuck::Zeroable::zeroed()
    };
    // SAFETY: all zeroes are an ifreq: it consists of numbers, and of a pointer in a union.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays zero.
    let room = request.ifr_name.len() - 1;
    if name.len() > room {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = (&raw mut info).cast();
    // SAFETY: the request names an interface by a string that ends, and points to a whole
    // `struct ethtool_drvinfo`, which outlives the call and into which the kernel writes.
    match unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) } {
        0 => Ok((text(&info.driver), text(&info.bus_info))),
        _ => Err(io::Error::last_os_error()),
    }
}

/// `struct ethtool_drvinfo` (`linux/ethtool.h`).
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Zeroable)]
struct DrvInfo {
    cmd: u32,
    driver: [u8; 32],
    version: [u8; 32],
    fw_version: [u8; 32],
    bus_info: [u8; 32],
    erom_version: [u8; 32],
    reserved: [u8; 12],
    numbers: [u32; 5],
}

const ETHTOOL_GDRVINFO: u32 = 3;

/// The text up to the first zero.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// A copy of a map's first lines. The map must be frozen, so that nobody writes to it meanwhile.
pub(super) fn read_lines(map: impl AsFd, lines: usize) -> io::Result<Vec<Line>> {
    with_lines(map, lines, <[Line]>::to_vec)
}

/// Looks at a map's first lines where they are. The map must be frozen likewise.
pub(super) fn with_lines<R>(
    map: impl AsFd,
    lines: usize,
    look: impl FnOnce(&[Line]) -> R,
) -> io::Result<R> {
    let fd = map.as_fd().as_raw_fd();
    let map = MmapOptions::new()
        .len(lines * size_of::<Line>())
        .map_raw_read_only(fd)?;
    // SAFETY: the mapping is page-aligned, readable and as long as the slice, and outlives the look. All
    // bit patterns are lines.
    Ok(look(unsafe {
        std::slice::from_raw_parts(map.as_ptr().cast::<Line>(), lines)
    }))
}

/// The first word of an mmapable array map.
pub(super) fn first_word(map: impl AsFd) -> io::Result<u32> {
    let words = SharedWords::<AtomicU32>::new(map, 1)?;
    Ok(words.words()[0].load(Ordering::SeqCst))
}

/// Sets the first word of a map's values alone.
pub(super) fn set_first_word(map: impl AsFd, word: u32) -> io::Result<()> {
    let words = SharedWords::<AtomicU32>::new(map, 1)?;
    words.words()[0].store(word, Ordering::SeqCst);
    Ok(())
}

/// Memory shared with the kernel: the values of an mmapable array map.
///
/// The data path changes them at any time, so they are seen as atomics only.
pub(super) struct SharedWords<A> {
    map: MmapRaw,
    words: usize,
    _atomic: std::marker::PhantomData<A>,
}

impl<A: Word> SharedWords<A> {
    /// Maps the first `words` words of a map.
    pub(super) fn new(map: impl AsFd, words: usize) -> io::Result<Self> {
        let fd = map.as_fd().as_raw_fd();
        let map = MmapOptions::new().len(words * size_of::<A>()).map_raw(fd)?;
        Ok(Self {
            map,
            words,
            _atomic: std::marker::PhantomData,
        })
    }

    pub(super) fn words(&self) -> &[A] {
        // SAFETY: the mapping is page-aligned, writable, as long as `words` and lives as long as
        // `self`. A map's memory is never truncated. All bit patterns are words, and whoever else
        // writes is the kernel or another process, which atomics allow.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().cast::<A>(), self.words) }
    }
}

impl<A> fmt::Debug for SharedWords<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedWords")
            .field("words", &self.words)
            .finish_non_exhaustive()
    }
}

/// A word that may be shared with the kernel.
///
/// # Safety
/// The type is an atomic integer: any bit pattern is valid, and it may change under a reference.
pub(super) unsafe trait Word: Sized {}

// SAFETY: an atomic integer.
unsafe impl Word for AtomicU32 {}
// SAFETY: an atomic integer.
unsafe impl Word for AtomicU64 {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupted_call_is_tried_again_but_not_for_ever() {
        let after = |interruptions: usize| {
            let mut calls = 0;
            let result = retry(|| {
                calls += 1;
                match calls > interruptions {
                    true => Ok(()),
                    false => Err(io::Error::from(nix::errno::Errno::EINTR)),
                }
            });
            (result.is_ok(), calls)
        };
        assert_eq!(after(0), (true, 1));
        assert_eq!(after(3), (true, 4));
        assert_eq!(after(TRIES - 1), (true, TRIES));
        assert_eq!(after(TRIES), (false, TRIES));
        let mut calls = 0;
        let other = retry(|| -> io::Result<()> {
            calls += 1;
            Err(io::ErrorKind::InvalidInput.into())
        });
        assert!(other.is_err());
        assert_eq!(calls, 1);
    }
}
