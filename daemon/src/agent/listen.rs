//! Opening the socket of the API.

use std::fs::{self, DirBuilder};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket,
    sockopt,
};
use nix::sys::stat::{Mode, umask};
use nix::unistd::Group;
use xdpgate::policy::Prefix;
use xdpgate::{Management, ManagementPort};

use super::config::Api;
use crate::Failure;
use crate::endpoint::Endpoint;

/// A socket that takes connections; nobody serves them yet.
#[derive(Debug)]
pub(super) enum Listener {
    Unix(UnixListener, SocketFile),
    Tcp(TcpListener, SocketAddr),
    Tls(TcpListener, SocketAddr),
}

/// The file of a Unix socket, which goes when this does, if it is still the same one.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

impl Listener {
    /// Opens every socket that the configuration names. To be called while the process has one thread: it
    /// sets the umask.
    pub(super) fn bind_all(api: &Api) -> Result<Vec<Self>, Failure> {
        let endpoints = api.endpoints().map_err(Failure::Input)?;
        let access = FileAccess::new(api)?;
        let bind = |endpoint| Self::bind("--listen", endpoint, access);
        endpoints.iter().map(bind).collect()
    }

    /// Opens a socket for something else, at the endpoint of this setting; the file of a Unix socket is
    /// for its owner alone. To be called while the process has one thread.
    pub(super) fn bind_private(setting: &str, endpoint: &Endpoint) -> Result<Self, Failure> {
        Self::bind(setting, endpoint, FileAccess::OWNER)
    }

    fn bind(setting: &str, endpoint: &Endpoint, access: FileAccess) -> Result<Self, Failure> {
        let failed = |e| Failure::operation(format!("{endpoint}: {e}; choose another {setting}"));
        let address = endpoint.address().map_err(Failure::operation)?;
        match (endpoint, address) {
            (Endpoint::Unix(path), _) => Self::unix(path, access).map_err(failed),
            (Endpoint::Tls { .. }, Some(address)) => {
                let (listener, address) = tcp(address).map_err(failed)?;
                Ok(Self::Tls(listener, address))
            }
            (_, Some(address)) => {
                let (listener, address) = tcp(address).map_err(failed)?;
                Ok(Self::Tcp(listener, address))
            }
            (_, None) => Err(Failure::operation(format!("{endpoint}: it has no address"))),
        }
    }

    fn unix(path: &Path, access: FileAccess) -> io::Result<Self> {
        make_way(path)?;
        if let Some(parent) = path
            .parent()
            .filter(|p| !p.as_os_str().is_empty() && !p.exists())
        {
            DirBuilder::new().mode(0o755).create(parent)?;
        }
        let others = umask(Mode::S_IRWXG | Mode::S_IRWXO | Mode::S_IXUSR);
        let bound = UnixListener::bind(path);
        umask(others);
        let listener = bound?;
        let metadata = fs::symlink_metadata(path)?;
        let file = SocketFile {
            path: path.to_owned(),
            identity: (metadata.dev(), metadata.ino()),
        };
        // The group first: until then nobody else may open it.
        if let Some(group) = access.group {
            chown(path, None, Some(group))?;
        }
        fs::set_permissions(path, fs::Permissions::from_mode(access.mode))?;
        listener.set_nonblocking(true)?;
        Ok(Self::Unix(listener, file))
    }

    /// Where it listens; a port of 0 has become the one that the kernel chose.
    pub(super) fn endpoint(&self) -> Endpoint {
        match self {
            Self::Unix(_, file) => Endpoint::Unix(file.path.clone()),
            Self::Tcp(_, address) => Endpoint::Tcp(*address),
            Self::Tls(_, address) => Endpoint::Tls {
                host: address.ip().to_string(),
                port: address.port(),
            },
        }
    }
}

/// The port of an endpoint that others than this host can reach, if there is one.
pub(super) fn open_port(endpoint: &Endpoint) -> Option<u16> {
    match (endpoint, endpoint.address()) {
        (Endpoint::Tls { port, .. }, Ok(Some(address))) if !address.ip().is_loopback() => {
            Some(*port)
        }
        _ => None,
    }
}

/// The traffic by which others than this host reach the API: it passes whatever the policy is.
pub(super) fn management(listeners: &[Listener], api: &Api) -> Result<Vec<Management>, String> {
    let peers = api.peers()?;
    let ports = listeners.iter().filter_map(|l| open_port(&l.endpoint()));
    let by_port = |port| {
        let flow = move |peer: &Prefix| Management::new(*peer, ManagementPort::Local(port));
        peers.iter().map(flow)
    };
    Ok(ports.flat_map(by_port).collect())
}

/// Who may open the file of a socket.
#[derive(Debug, Clone, Copy)]
struct FileAccess {
    mode: u32,
    group: Option<u32>,
}

impl FileAccess {
    const OWNER: Self = Self {
        mode: 0o600,
        group: None,
    };

    fn new(api: &Api) -> Result<Self, Failure> {
        let mode = api.mode().map_err(Failure::Input)?;
        let group = match &api.socket_group {
            None => None,
            Some(name) => {
                let wrong = |e: &str| Failure::Input(format!("api.socket_group: {name:?}: {e}"));
                let group = Group::from_name(name).map_err(|e| wrong(e.desc()))?;
                Some(
                    group
                        .ok_or_else(|| wrong("there is no such group"))?
                        .gid
                        .as_raw(),
                )
            }
        };
        Ok(Self { mode, group })
    }
}

/// Also at an address that no interface has yet: the daemon starts before the network is up.
fn tcp(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    setsockopt(&socket, sockopt::IpFreebind, &true)?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    let listener = TcpListener::from(socket);
    // As many as the kernel lets wait (net.core.somaxconn): whoever connects while others flood it has to
    // get into the queue.
    listen(&listener, Backlog::MAXCONN)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let same =
            fs::symlink_metadata(&self.path).is_ok_and(|m| (m.dev(), m.ino()) == self.identity);
        if same {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes the socket of a daemon that was killed: one at which nobody answers.
fn make_way(path: &Path) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        metadata => metadata?,
    };
    if !metadata.file_type().is_socket() {
        return Err(io::Error::other("there is a file of another kind"));
    }
    match UnixStream::connect(path) {
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(e) => Err(e),
        Ok(_) => Err(io::Error::other("another daemon answers there; stop it")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_private_and_go_with_their_daemon() {
        let path = std::env::temp_dir().join(format!("xdpgated-listen-{}", std::process::id()));
        let endpoint = Endpoint::Unix(path.clone());
        let bind = || Listener::bind_private("--listen", &endpoint);
        let first = bind().unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let refused = bind().unwrap_err().to_string();
        assert!(refused.contains("another daemon answers"), "{refused}");
        drop(first);
        assert!(!path.exists());

        // As a killed daemon leaves it: the file without anybody behind it.
        drop(UnixListener::bind(&path).unwrap());
        let second = bind().unwrap();
        drop(second);

        fs::write(&path, "precious").unwrap();
        let refused = bind().unwrap_err().to_string();
        assert!(refused.contains("another kind"), "{refused}");
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        fs::remove_file(&path).unwrap();
    }
}
