//! The number of a network interface.

use std::fmt;
use std::num::NonZeroU32;

use nix::errno::Errno;
use nix::net::if_::{if_indextoname, if_nametoindex};

use super::error::AttachError;

/// The number by which the kernel knows a network interface, in the network namespace of the
/// calling thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IfIndex(NonZeroU32);

impl IfIndex {
    /// An interface number; `None` for 0, which no interface has.
    pub fn new(index: u32) -> Option<Self> {
        NonZeroU32::new(index).map(Self)
    }

    /// The number of the interface with this name.
    ///
    /// # Errors
    /// [`AttachError::NoSuchName`] if there is none.
    pub fn from_name(name: &str) -> Result<Self, AttachError> {
        let no_such_name = || AttachError::NoSuchName {
            name: name.to_owned(),
        };
        match if_nametoindex(name) {
            Ok(index) => Self::new(index).ok_or_else(no_such_name),
            Err(Errno::ENODEV | Errno::ENXIO | Errno::EINVAL | Errno::ENAMETOOLONG) => {
                Err(no_such_name())
            }
            Err(errno) => Err(AttachError::Syscall {
                interface: name.to_owned(),
                call: "if_nametoindex",
                source: errno.into(),
            }),
        }
    }

    /// The number.
    pub fn get(self) -> u32 {
        self.0.get()
    }

    /// The name that the interface has now; `None` if it is gone.
    pub fn name(self) -> Option<String> {
        // nix 0.31 takes the null pointer of "no such interface" for success with an empty name.
        let name = if_indextoname(self.get())
            .ok()
            .filter(|name| !name.is_empty());
        name.map(|name| name.to_string_lossy().into_owned())
    }
}

impl fmt::Display for IfIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
