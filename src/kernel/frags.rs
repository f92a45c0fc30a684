//! The form of the programs: for frames in one buffer, or in several.

use nix::errno::Errno;

use super::error::LoadError;
use super::sys;

/// Whether programs take frames that lie in several buffers (`xdp.frags`, Linux 5.18).
///
/// Drivers receive into several buffers above the MTU that one buffer holds, some 3,500 bytes on a
/// page of 4 KiB. A program that does not take them is refused in native mode there.
///
/// A program can only tail-call, and be tail-called by, programs of the same form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Frags {
    /// If the kernel can.
    #[default]
    Auto,
    /// Never: the form that all kernels have.
    Off,
    /// Or not load at all.
    Require,
}

impl Frags {
    /// Asks the kernel if need be.
    pub(super) fn resolve(self) -> Result<bool, LoadError> {
        if self == Self::Off {
            return Ok(false);
        }
        match sys::probe_frags() {
            Ok(()) => Ok(true),
            Err(source) if source.raw_os_error() != Some(Errno::EINVAL as i32) => {
                Err(LoadError::Syscall {
                    call: "bpf(BPF_PROG_LOAD) of the probe for xdp.frags",
                    source,
                })
            }
            Err(_) if self == Self::Require => Err(LoadError::NoFrags),
            Err(_) => {
                log::info!("the kernel has no xdp.frags programs: frames in one buffer only");
                Ok(false)
            }
        }
    }
}
