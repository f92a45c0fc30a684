//! An interface that is prepared to be a port, and put back into its original state afterwards.

use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::error::BridgeError;
use super::ethtool::Control;
use super::saved::{Identity, Saved, files, here};
use super::settings::{self, Settings};
use crate::kernel::ifindex::IfIndex;

/// A port whose settings can be put back. One that is dropped stays as it is.
pub(crate) trait PreparedPort: std::fmt::Debug + Send + Sync {
    /// Prepares it for generic mode as well.
    fn prepare_generic(&self) -> Result<(), BridgeError>;
    /// The largest packet that it takes.
    fn mtu(&self) -> Option<u32>;
    /// Puts back what it was. `is_same`: it is known to be the same interface that was prepared; if
    /// not, its name and address are compared, and another interface is left alone.
    fn restore(self: Box<Self>, is_same: bool) -> Result<(), BridgeError>;
}

/// A port in the kernel.
#[derive(Debug)]
pub(crate) struct Port {
    /// Of the network namespace of the interface, whichever thread restores it.
    control: Control,
    ifindex: IfIndex,
    name: String,
    mac: [u8; 6],
    originals: Originals,
}

#[derive(Debug)]
enum Originals {
    InFile(Box<Saved>),
    InMemory(Settings),
}

impl Port {
    /// Saves the settings of an interface, in `state_dir` if there is one, and prepares it. On error
    /// it is as it was.
    pub(crate) fn prepare(
        ifindex: IfIndex,
        name: &str,
        state_dir: Option<&Path>,
    ) -> Result<Self, BridgeError> {
        let failed = |call| BridgeError::settings(name, call);
        let control = Control::open().map_err(failed("socket"))?;
        let settings = Settings::read(&control, name).map_err(failed("reading its settings"))?;
        let mac = control.mac(name).map_err(failed("reading its address"))?;
        let originals = match state_dir {
            None => Originals::InMemory(settings),
            Some(dir) => {
                let (namespace, boot) = here().map_err(failed("reading its namespace"))?;
                let identity = Identity {
                    ifindex,
                    name: name.to_owned(),
                    mac,
                    namespace,
                    boot,
                };
                Originals::InFile(Box::new(Saved::keep(dir, identity, settings)?))
            }
        };
        let port = Self {
            control,
            ifindex,
            name: name.to_owned(),
            mac,
            originals,
        };
        if let Err(source) = settings::prepare(&port.control, name) {
            if let Err(error) = Box::new(port).restore(true) {
                log::warn!("{error}");
            }
            return Err(failed("preparing it")(source));
        }
        Ok(port)
    }
}

impl Port {
    fn put_back(&self, is_same: bool) -> io::Result<()> {
        // The same one may have been renamed.
        let name = self.control.name(self.ifindex)?;
        if !is_same && (name != self.name || self.control.mac(&name)? != self.mac) {
            log::info!("{}: gone, nothing to restore", self.name);
            return Ok(());
        }
        let originals = match &self.originals {
            Originals::InFile(saved) => &saved.originals,
            Originals::InMemory(settings) => settings,
        };
        originals.restore(&self.control, &name)
    }
}

impl PreparedPort for Port {
    fn prepare_generic(&self) -> Result<(), BridgeError> {
        settings::prepare_generic(&self.control, &self.name).map_err(BridgeError::settings(
            &self.name,
            "preparing it for generic mode",
        ))
    }

    fn mtu(&self) -> Option<u32> {
        self.control.mtu(&self.name).ok()
    }

    fn restore(self: Box<Self>, is_same: bool) -> Result<(), BridgeError> {
        self.put_back(is_same)
            .or_else(|error| if_there(error).map_or(Ok(()), Err))
            .map_err(BridgeError::settings(&self.name, "restoring its settings"))?;
        match self.originals {
            Originals::InFile(saved) => saved.remove(),
            Originals::InMemory(_) => Ok(()),
        }
    }
}

/// `None` if an error says that the interface is gone.
fn if_there(error: io::Error) -> Option<io::Error> {
    let gone = [Errno::ENODEV, Errno::ENXIO].map(|e| Some(e as i32));
    (!gone.contains(&error.raw_os_error())).then_some(error)
}

/// What became of one saved port; see [`restore_interfaces`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Restored {
    /// The name of the interface when its settings were saved.
    pub name: String,
    /// Its number then.
    pub ifindex: IfIndex,
    /// What became of it.
    pub outcome: RestoreOutcome,
}

/// What became of the saved settings of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RestoreOutcome {
    /// The interface is as it was before it became a port; the file is gone.
    Restored,
    /// There is no interface with this number, or the host was booted since: there is nothing to
    /// restore, and the file is gone.
    Gone,
    /// The number belongs to another interface now, or to the same one under another name or
    /// hardware address. It was not touched, and the file is still there.
    Replaced {
        /// The name of the interface that has the number now.
        by: String,
    },
    /// The interface was in another network namespace than that of the calling thread. The file is
    /// still there.
    OtherNamespace,
    /// A firewall that lives has the interface bridged. It was not touched.
    InUse,
}

/// Puts interfaces back into the state that they had before they became ports of a bridge, after a
/// process that was killed: from the files that it left in its
/// [`Loader::state_dir`](crate::Loader::state_dir), for interfaces of the network namespace of the
/// calling thread.
///
/// Not needed if the same bridges are made again: [`Firewall::bridge`](crate::Firewall::bridge) goes
/// on with the originals that it finds, and restores those when it ends.
///
/// ```no_run
/// for port in xdpgate::restore_interfaces("/var/lib/xdpgate")? {
///     println!("{}: {:?}", port.name, port.outcome);
/// }
/// # Ok::<(), xdpgate::BridgeError>(())
/// ```
///
/// # Errors
/// A file cannot be read, or is not one of ours; or a setting cannot be changed. What comes before it
/// is restored, and the files of what is not are still there.
pub fn restore_interfaces(state_dir: impl Into<PathBuf>) -> Result<Vec<Restored>, BridgeError> {
    let failed = |call| move |source| BridgeError::Syscall { call, source };
    let control = Control::open().map_err(failed("socket"))?;
    let here = here().map_err(failed("reading the network namespace"))?;
    let mut all = Vec::new();
    for path in files(&state_dir.into())? {
        let saved = match Saved::open(path) {
            Err(BridgeError::InUse { path }) => {
                let (name, ifindex) = match Saved::peek(&path) {
                    Ok(found) => found,
                    Err(_) => continue, // just restored by its owner
                };
                let outcome = RestoreOutcome::InUse;
                all.push(Restored {
                    name,
                    ifindex,
                    outcome,
                });
                continue;
            }
            saved => saved?,
        };
        let (name, ifindex) = (saved.identity.name.clone(), saved.identity.ifindex);
        let outcome = restore_one(&control, saved, &here)?;
        all.push(Restored {
            name,
            ifindex,
            outcome,
        });
    }
    Ok(all)
}

fn restore_one(
    control: &Control,
    saved: Saved,
    here: &(u64, String),
) -> Result<RestoreOutcome, BridgeError> {
    let identity = saved.identity.clone();
    let failed = |call| BridgeError::settings(&identity.name, call);
    if identity.boot != here.1 {
        saved.remove()?;
        return Ok(RestoreOutcome::Gone);
    }
    if identity.namespace != here.0 {
        return Ok(RestoreOutcome::OtherNamespace);
    }
    let found = control.name(identity.ifindex);
    let found = found.and_then(|name| Ok((control.mac(&name)?, name)));
    let (mac, name) = match found {
        Ok(found) => found,
        Err(error) => {
            return match if_there(error) {
                Some(error) => Err(failed("looking for it")(error)),
                None => saved.remove().map(|()| RestoreOutcome::Gone),
            };
        }
    };
    if name != identity.name || mac != identity.mac {
        return Ok(RestoreOutcome::Replaced { by: name });
    }
    let restored = saved.originals.restore(control, &name);
    restored.map_err(failed("restoring its settings"))?;
    saved.remove()?;
    Ok(RestoreOutcome::Restored)
}
