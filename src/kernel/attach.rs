//! How interfaces are attached: modes, fallback, and what came of it.

use std::fmt;
use std::io;

use nix::errno::Errno;

use super::backend::{Backend, XdpLink};
use super::error::{AttachError, CAPABILITIES};
use super::ifindex::IfIndex;

/// Where in the receive path the program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AttachMode {
    /// In the driver, before the kernel allocates anything for the packet.
    Native,
    /// In the network stack: works on every interface, at a fraction of the speed.
    Generic,
    /// On the device itself. No device can do it for this program yet: it jumps between programs.
    Offload,
}

impl AttachMode {
    /// The name used in output and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Offload => "offload",
        }
    }
}

impl fmt::Display for AttachMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which modes an attachment may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ModePreference {
    /// Native; generic where the interface has no native mode, and said in
    /// [`Attachment::fell_back`].
    #[default]
    BestAvailable,
    /// This one or none.
    Exactly(AttachMode),
}

impl ModePreference {
    fn modes(self) -> &'static [AttachMode] {
        match self {
            Self::BestAvailable => &[AttachMode::Native, AttachMode::Generic],
            Self::Exactly(AttachMode::Native) => &[AttachMode::Native],
            Self::Exactly(AttachMode::Generic) => &[AttachMode::Generic],
            Self::Exactly(AttachMode::Offload) => &[AttachMode::Offload],
        }
    }
}

/// An attached interface: what the kernel did, not what was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attachment {
    /// The interface.
    pub ifindex: IfIndex,
    /// Its name when it was attached.
    pub name: String,
    /// The mode that the program runs in.
    pub mode: AttachMode,
    /// The better mode that was tried first, and why it was not to be had.
    pub fell_back: Option<Fallback>,
    /// The number of the program, as in `bpftool prog`.
    pub program_id: u32,
    /// The number of the link, as in `bpftool link`.
    pub link_id: u32,
}

/// A mode that an interface does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fallback {
    /// The mode that was tried.
    pub from: AttachMode,
    /// The error number that the kernel gave.
    pub errno: i32,
    /// What that means here.
    pub reason: &'static str,
}

impl fmt::Display for Fallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let error = io::Error::from_raw_os_error(self.errno);
        write!(f, "no {} mode: {} ({error})", self.from, self.reason)
    }
}

/// A link and the mode that it came to be in.
pub(super) type Linked = (Box<dyn XdpLink>, AttachMode, Option<Fallback>);

/// Tries the modes in order. Only an error that says "not in this mode" leads to the next one.
pub(super) fn link(
    backend: &dyn Backend,
    ifindex: IfIndex,
    interface: &str,
    preference: ModePreference,
) -> Result<Linked, AttachError> {
    let mut fell_back = None;
    for mode in preference.modes() {
        let source = match backend.link(ifindex, *mode) {
            Ok(link) => return Ok((link, *mode, fell_back)),
            Err(source) => source,
        };
        let errno = source.raw_os_error().unwrap_or(0);
        let Some(reason) = unsupported(*mode, errno) else {
            return Err(refused(backend, ifindex, interface, source));
        };
        if preference.modes().last() == Some(mode) {
            let (interface, mode) = (interface.to_owned(), *mode);
            return Err(AttachError::ModeUnsupported {
                interface,
                mode,
                reason,
                source,
            });
        }
        fell_back = Some(Fallback {
            from: *mode,
            errno,
            reason,
        });
    }
    unreachable!("every preference has a mode")
}

/// ENOTSUPP, which the kernel keeps to itself but some drivers return.
const ENOTSUPP: i32 = 524;

/// What an error number of an attachment says about the mode; `None` if it is about something else.
fn unsupported(mode: AttachMode, errno: i32) -> Option<&'static str> {
    if errno == ENOTSUPP {
        return unsupported(mode, Errno::EOPNOTSUPP as i32);
    }
    match (mode, Errno::from_raw(errno)) {
        (AttachMode::Offload, Errno::EINVAL | Errno::EOPNOTSUPP) => {
            Some("the device cannot run this program itself")
        }
        (_, Errno::EOPNOTSUPP | Errno::ENOSYS) => Some("the driver does not offer it"),
        (_, Errno::ERANGE) => Some("the MTU is larger than it allows"),
        (AttachMode::Native, Errno::EINVAL) => {
            Some("the driver refuses it as configured, often for MTU or offloads")
        }
        (AttachMode::Native, Errno::ENOMEM) => Some("the device has not enough queues for it"),
        _ => None,
    }
}

fn refused(
    backend: &dyn Backend,
    ifindex: IfIndex,
    interface: &str,
    source: io::Error,
) -> AttachError {
    let name = interface.to_owned();
    match Errno::from_raw(source.raw_os_error().unwrap_or(0)) {
        Errno::EBUSY | Errno::EEXIST => {
            if let Some(occupant) = backend.occupant(ifindex) {
                return AttachError::Foreign {
                    interface: name,
                    program_id: occupant.program_id,
                    program: occupant.name,
                };
            }
        }
        Errno::ENODEV | Errno::ENXIO => return AttachError::NoSuchInterface(ifindex),
        Errno::EPERM | Errno::EACCES => {
            return AttachError::Capability {
                interface: name,
                needed: CAPABILITIES,
            };
        }
        _ => {}
    }
    AttachError::Syscall {
        interface: name,
        call: "bpf(BPF_LINK_CREATE)",
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_errors_about_the_mode_lead_to_a_fallback() {
        let native = |errno: Errno| unsupported(AttachMode::Native, errno as i32);
        for errno in [
            Errno::EOPNOTSUPP,
            Errno::ERANGE,
            Errno::EINVAL,
            Errno::ENOMEM,
        ] {
            assert!(native(errno).is_some(), "{errno}");
        }
        for errno in [Errno::EBUSY, Errno::EEXIST, Errno::EPERM, Errno::ENODEV] {
            assert!(native(errno).is_none(), "{errno}");
        }
        assert!(unsupported(AttachMode::Generic, Errno::EINVAL as i32).is_none());
        assert!(unsupported(AttachMode::Native, ENOTSUPP).is_some());
    }
}
