//! An attachment in the kernel: a `bpf_link`, pinned or not.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use libbpf_rs::query::{LinkInfo, LinkTypeInfo};
use libbpf_rs::{ProgramHandle, libbpf_sys};

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
    /// Its name in a BPF file system, by which it outlives this process.
    pin: Option<PathBuf>,
    /// The program that is to take the place of the one that it still runs.
    successor: Option<OwnedFd>,
}

/// How the names of all entry programs begin.
const PROGRAM: &str = "xdpgate";

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
            pin: None,
            successor: None,
        })
    }

    /// Whether a pin is of a link that an earlier process made for an interface with this number, be
    /// that gone or there.
    pub(super) fn is_ours(pin: &Path, number: Option<u32>) -> io::Result<bool> {
        let fd = sys::open_pin(pin)?;
        let Ok(info) = LinkInfo::from_fd(fd.as_fd()) else {
            return Ok(false);
        };
        let LinkTypeInfo::Xdp(xdp) = &info.info else {
            return Ok(false);
        };
        let is_ours = match ProgramHandle::from_prog_id(info.prog_id) {
            Ok(program) => program.name().to_string_lossy().starts_with(PROGRAM),
            // To look at a program by its number takes CAP_SYS_ADMIN, which is much for a name: without
            // it the place of the pin has to do, into which only root can write.
            Err(error) => to_io(&error).kind() == io::ErrorKind::PermissionDenied,
        };
        Ok(is_ours && (xdp.ifindex == 0 || Some(xdp.ifindex) == number))
    }

    /// Takes over a pinned link, and the number of its interface; `None` if that is gone. It goes on
    /// with its program until [`XdpLink::succeed`].
    pub(super) fn adopt(
        pin: &Path,
        successor: BorrowedFd<'_>,
    ) -> io::Result<Option<(Self, IfIndex)>> {
        let fd = sys::open_pin(pin)?;
        let info = LinkInfo::from_fd(fd.as_fd()).map_err(|e| to_io(&e))?;
        let LinkTypeInfo::Xdp(xdp) = &info.info else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let Some(ifindex) = IfIndex::new(xdp.ifindex) else {
            return Ok(None);
        };
        let link = Self {
            fd,
            id: info.id,
            program_id: info.prog_id,
            pin: Some(pin.to_owned()),
            successor: Some(successor.try_clone_to_owned()?),
        };
        Ok(Some((link, ifindex)))
    }

    /// Gives it a name, by which it outlives this process.
    pub(super) fn pin(&mut self, pin: PathBuf) -> io::Result<()> {
        sys::pin_object(self.fd.as_fd(), &pin)?;
        self.pin = Some(pin);
        Ok(())
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

    fn succeed(&mut self) -> io::Result<()> {
        let Some(successor) = &self.successor else {
            return Ok(());
        };
        sys::update_link(self.fd.as_fd(), successor.as_fd())?;
        self.successor = None;
        let info = LinkInfo::from_fd(self.fd.as_fd()).map_err(|e| to_io(&e))?;
        self.program_id = info.prog_id;
        Ok(())
    }

    fn unpin(&mut self) {
        if let Some(pin) = self.pin.take()
            && let Err(error) = fs::remove_file(&pin)
        {
            log::warn!("{}: cannot remove the pin: {error}", pin.display());
        }
    }
}

impl Drop for Link {
    /// Detaches, unless a pin is to keep it.
    fn drop(&mut self) {
        if self.pin.is_some() {
            if self.is_alive() {
                return;
            }
            self.unpin();
        }
        if let Err(error) = sys::detach_link(self.fd.as_fd()) {
            log::debug!(
                "XDP link {} was gone before it was detached: {error}",
                self.id
            );
        }
    }
}
