//! XDP programs of somebody else: they pass every frame.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use libbpf_rs::libbpf_sys::{self, bpf_insn};
use libbpf_rs::query::LinkInfo;
use libbpf_rs::{Link, ProgramHandle, Xdp, XdpFlags};
use xdpgate::AttachMode;

use super::netns::index;

/// A loaded program, which goes when nothing holds it.
pub struct Foreign {
    program: OwnedFd,
    id: u32,
}

impl Foreign {
    pub fn load(name: &str) -> Self {
        let pass = bpf_insn {
            code: (libbpf_sys::BPF_ALU64 | libbpf_sys::BPF_MOV | libbpf_sys::BPF_K) as u8,
            imm: libbpf_sys::XDP_PASS as i32,
            ..Default::default()
        };
        let exit = bpf_insn {
            code: (libbpf_sys::BPF_JMP | libbpf_sys::BPF_EXIT) as u8,
            ..Default::default()
        };
        let program = [pass, exit];
        let name = std::ffi::CString::new(name).unwrap();
        // SAFETY: name, licence and instructions outlive the call, and are as long as is said.
        let fd = unsafe {
            libbpf_sys::bpf_prog_load(
                libbpf_sys::BPF_PROG_TYPE_XDP,
                name.as_ptr(),
                c"GPL".as_ptr(),
                program.as_ptr(),
                program.len() as libbpf_sys::size_t,
                std::ptr::null_mut(),
            )
        };
        assert!(fd >= 0, "{}", std::io::Error::from_raw_os_error(-fd));
        // SAFETY: a new file descriptor that nobody else owns.
        let program = unsafe { OwnedFd::from_raw_fd(fd) };
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap();
        let id = info.lines().find_map(|l| l.strip_prefix("prog_id:"));
        let id = id.unwrap().trim().parse().unwrap();
        assert!(ProgramHandle::from_prog_id(id).is_ok());
        Self { program, id }
    }

    pub fn id(&self) -> u32 {
        self.id
    }

    /// Attaches it as `ip link` does: it stays until it is taken off.
    pub fn attach(&self, interface: &str, mode: AttachMode) {
        self.try_attach(interface, mode).unwrap();
    }

    pub fn try_attach(&self, interface: &str, mode: AttachMode) -> libbpf_rs::Result<()> {
        let flags = match mode {
            AttachMode::Native => XdpFlags::DRV_MODE,
            _ => XdpFlags::SKB_MODE,
        };
        let flags = flags | XdpFlags::UPDATE_IF_NOEXIST;
        Xdp::new(self.program.as_fd()).attach(index(interface).get() as i32, flags)
    }

    /// Attaches it by a link that only a pin holds; returns the number of the link.
    pub fn link_and_pin(&self, interface: &str, pin: &Path) -> u32 {
        // SAFETY: takes numbers only; an ifindex stands in the place of the target.
        let fd = unsafe {
            libbpf_sys::bpf_link_create(
                self.program.as_raw_fd(),
                index(interface).get() as i32,
                libbpf_sys::BPF_XDP,
                std::ptr::null(),
            )
        };
        assert!(fd >= 0, "{}", std::io::Error::from_raw_os_error(-fd));
        // SAFETY: a new file descriptor that nobody else owns.
        let link = unsafe { OwnedFd::from_raw_fd(fd) };
        let path = std::ffi::CString::new(pin.to_str().unwrap()).unwrap();
        // SAFETY: the path outlives the call, which does not keep it.
        let pinned = unsafe { libbpf_sys::bpf_obj_pin(link.as_raw_fd(), path.as_ptr()) };
        assert_eq!(pinned, 0, "{}", pin.display());
        // By its pin, so that the descriptor here can go.
        let id = LinkInfo::from_fd(link.as_fd()).unwrap().id;
        drop(link);
        assert!(Link::open(pin).is_ok());
        id
    }
}

/// The number of the XDP program on an interface; 0 if there is none.
pub fn program_on(interface: &str) -> u32 {
    let nothing = std::fs::File::open("/dev/null").unwrap();
    Xdp::new(nothing.as_fd())
        .query_id(index(interface).get() as i32, XdpFlags::NONE)
        .unwrap()
}
