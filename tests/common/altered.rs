//! A mistake by hand in the memory of a published policy: its map is frozen for programs in user space, so
//! that a BPF program has to make it.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use libbpf_rs::libbpf_sys::{self, bpf_insn, bpf_test_run_opts};
use libbpf_rs::query::{MapInfoIter, ProgInfoIter, ProgInfoQueryOptions};
use libbpf_rs::{MapCore, MapFlags, MapHandle};

/// The map of this name that a program uses.
pub fn map_of(program_id: u32, name: &str) -> MapHandle {
    let options = ProgInfoQueryOptions::default().include_map_ids(true);
    let mut programs = ProgInfoIter::with_query_opts(options);
    let program = programs.find(|program| program.id == program_id);
    let ids = program.expect("it is loaded").map_ids;
    let mut maps = MapInfoIter::default();
    let map = maps.find(|map| ids.contains(&map.id) && map.name == *name);
    MapHandle::from_map_id(map.expect("it has one").id).expect("it is there")
}

/// Inverts eight bytes of a line of the image that a program judges by.
pub fn invert(program_id: u32, line: u32) {
    let map = map_of(program_id, "image");
    let fd = map.as_fd().as_raw_fd();
    let plain = |code: u32, registers: (u8, u8), off: i16, imm: i32| {
        let mut insn = bpf_insn {
            code: code as u8,
            off,
            imm,
            ..Default::default()
        };
        insn.set_dst_reg(registers.0);
        insn.set_src_reg(registers.1);
        insn
    };
    let is_read_only = map.update(&line.to_ne_bytes(), &[0; 64], MapFlags::ANY);
    assert!(is_read_only.is_err(), "the map is frozen");
    let program = [
        // r1 = map; *(u32 *)(r10 - 4) = line; r2 = r10 - 4; r0 = lookup(r1, r2)
        plain(0x18, (1, 1), 0, fd),
        plain(0, (0, 0), 0, 0),
        plain(0x62, (10, 0), -4, line as i32),
        plain(0xbf, (2, 10), 0, 0),
        plain(0x07, (2, 0), 0, -4),
        plain(0x85, (0, 0), 0, 1),
        // if r0 == 0 goto exit; r1 = *r0; r1 ^= -1; *r0 = r1
        plain(0x15, (0, 0), 3, 0),
        plain(0x79, (1, 0), 0, 0),
        plain(0xa7, (1, 0), 0, -1),
        plain(0x7b, (0, 1), 0, 0),
        // exit: r0 = XDP_PASS
        plain(0xb7, (0, 0), 0, 2),
        plain(0x95, (0, 0), 0, 0),
    ];
    // SAFETY: name, licence and instructions outlive the call, and are as long as is said.
    let fd = unsafe {
        libbpf_sys::bpf_prog_load(
            libbpf_sys::BPF_PROG_TYPE_XDP,
            c"alter".as_ptr(),
            c"GPL".as_ptr(),
            program.as_ptr(),
            program.len() as libbpf_sys::size_t,
            std::ptr::null_mut(),
        )
    };
    assert!(fd >= 0, "{}", std::io::Error::from_raw_os_error(-fd));
    // SAFETY: a new file descriptor that nobody else owns.
    let program = unsafe { OwnedFd::from_raw_fd(fd) };
    let frame = [0u8; 64];
    let mut options = bpf_test_run_opts {
        sz: size_of::<bpf_test_run_opts>() as _,
        data_in: frame.as_ptr().cast(),
        data_size_in: frame.len() as u32,
        ..Default::default()
    };
    // SAFETY: the frame outlives the call, and is as long as is said.
    let done = unsafe { libbpf_sys::bpf_prog_test_run_opts(program.as_raw_fd(), &mut options) };
    assert_eq!((done, options.retval), (0, 2));
}
