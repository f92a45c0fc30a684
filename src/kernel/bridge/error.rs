//! Why a bridge was not made, unmade or restored.

use std::io;
use std::path::{Path, PathBuf};

use crate::kernel::error::AttachError;
use crate::kernel::ifindex::IfIndex;

/// Why a bridge was not made, or an interface not put back into its original state.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BridgeError {
    /// The programs cannot forward.
    #[error("this firewall was loaded without bridges: load it with fast_forward(true)")]
    NotLoaded,
    /// A bridge needs two ports.
    #[error("{interface} cannot be both ports of a bridge: name two interfaces")]
    SamePort {
        /// The interface.
        interface: String,
    },
    /// An interface is a port already.
    #[error("{interface} is a port of a bridge already: unbridge that one first")]
    InBridge {
        /// The interface.
        interface: String,
    },
    /// An interface is no port.
    #[error("the interface with index {0} is no port of a bridge")]
    NotBridged(IfIndex),
    /// A port could not be attached.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// A setting of a port could not be read or changed.
    #[error("{interface}: {call}: {source}")]
    Settings {
        /// The interface.
        interface: String,
        /// What was done.
        call: &'static str,
        /// The error.
        source: io::Error,
    },
    /// Original settings could not be saved or read.
    #[error("{}: {source}", .path.display())]
    State {
        /// The file or the directory.
        path: PathBuf,
        /// The error.
        source: io::Error,
    },
    /// A file with original settings is not what this library writes.
    #[error(
        "{}: does not say the original settings of a port: look at them with `ip link` and \
         `ethtool -k`, then remove the file",
        .path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
    },
    /// Another firewall has the port bridged.
    #[error("{}: another firewall has this port bridged: stop it first", .path.display())]
    InUse {
        /// The file with the original settings.
        path: PathBuf,
    },
    /// Another system call failed.
    #[error("{call}: {source}")]
    Syscall {
        /// The call.
        call: &'static str,
        /// Its error.
        source: io::Error,
    },
}

impl BridgeError {
    pub(super) fn state(path: &Path, source: io::Error) -> Self {
        Self::State {
            path: path.to_owned(),
            source,
        }
    }

    pub(super) fn settings(
        interface: &str,
        call: &'static str,
    ) -> impl FnOnce(io::Error) -> Self + use<> {
        let interface = interface.to_owned();
        move |source| Self::Settings {
            interface,
            call,
            source,
        }
    }
}
