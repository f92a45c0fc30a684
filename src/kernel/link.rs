//! An attachment in the kernel: a `bpf_link`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use libbpf_rs::libbpf_sys;
use libbpf_rs::query::{LinkInfo, LinkTypeInfo};

use super::attach::AttachMode;
use super::backend::XdpLink;
use super::ifindex::IfIndex;
use super::program::to_io;
use super::sys;

#[derive(Debug)]
pub(super) struct Link {
    fd: OwnedFd,
    id: u32,
    program_id: u32,
}

impl Link {
    pub(super) fn new(
        program: BorrowedFd<'_>,
        ifindex: IfIndex,
        mode: AttachMode,
    ) -> io::Result<Self> {
        let flags = match mode {
            AttachMode::Native => libbpf_sys::XDP_FLAGS_DRV_MODE,
            AttachMode::Generic => libbpf_sys::XDP_FLAGS_SKB_MODE,
            AttachMode::Offload => libbpf_sys::XDP_FLAGS_HW_MODE,
        };
        if mode == AttachMode::Offload {
            // Found out for real, so that it is noticed when a kernel can. EPERM says nothing about
            // the device: making maps on one takes CAP_SYS_ADMIN, attaching does not.
            match sys::offload_program_array(ifindex.get()) {
                Err(error) if error.kind() != io::ErrorKind::PermissionDenied => return Err(error),
                _ => {}
            }
        }
        let fd = sys::link_xdp(program, ifindex.get(), flags)?;
        let info = LinkInfo::from_fd(fd.as_fd()).map_err(|e| to_io(&e))?;
        Ok(Self {
            fd,
            id: info.id,
            program_id: info.prog_id,
        })
    }
}

impl XdpLink for Link {
    fn id(&self) -> u32 {
        self.id
    }

    fn program_id(&self) -> u32 {
        self.program_id
    }

    fn is_alive(&self) -> bool {
        match LinkInfo::from_fd(self.fd.as_fd()).map(|l| l.info) {
            Ok(LinkTypeInfo::Xdp(xdp)) => xdp.ifindex != 0,
            _ => true,
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Err(error) = sys::detach_link(self.fd.as_fd()) {
            log::debug!(
                "XDP link {} was gone before it was detached: {error}",
                self.id
            );
        }
    }
}
