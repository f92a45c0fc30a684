//! Opening the socket of the API.

use std::fs::{self, DirBuilder};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, umask};

use crate::endpoint::Endpoint;
use crate::failure::Failure;

/// A socket that takes connections; nobody serves them yet.
#[derive(Debug)]
pub(super) enum Listener {
    Unix(UnixListener, SocketFile),
    Tcp(TcpListener, SocketAddr),
}

/// The file of a Unix socket, which goes when this does, if it is still the same one.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

impl Listener {
    /// Opens the socket. To be called while the process has one thread: it sets the umask.
    pub(super) fn bind(endpoint: &Endpoint) -> Result<Self, Failure> {
        Self::bind_as("--listen", endpoint)
    }

    /// Likewise, where another setting says at what endpoint.
    pub(super) fn bind_as(setting: &str, endpoint: &Endpoint) -> Result<Self, Failure> {
        match endpoint {
            Endpoint::Unix(path) => Self::unix(path, setting)
                .map_err(|e| Failure::operation(format!("{endpoint}: {e}"))),
            Endpoint::Tcp(address) => Self::tcp(*address).map_err(|e| {
                Failure::operation(format!("{endpoint}: {e}; choose another {setting}"))
            }),
        }
    }

    fn unix(path: &Path, setting: &str) -> io::Result<Self> {
        make_way(path, setting)?;
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
        listener.set_nonblocking(true)?;
        Ok(Self::Unix(listener, file))
    }

    fn tcp(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok(Self::Tcp(listener, address))
    }

    /// Where it listens; a port of 0 has become the one that the kernel chose.
    pub(super) fn endpoint(&self) -> Endpoint {
        match self {
            Self::Unix(_, file) => Endpoint::Unix(file.path.clone()),
            Self::Tcp(_, address) => Endpoint::Tcp(*address),
        }
    }
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
fn make_way(path: &Path, setting: &str) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        metadata => metadata?,
    };
    if !metadata.file_type().is_socket() {
        return Err(io::Error::other(format!(
            "there is a file of another kind; choose another {setting}"
        )));
    }
    match UnixStream::connect(path) {
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(e) => Err(e),
        Ok(_) => Err(io::Error::other(format!(
            "another daemon answers there; stop it or choose another {setting}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn sockets_are_private_and_go_with_their_daemon() {
        let path = std::env::temp_dir().join(format!("xdpgated-listen-{}", std::process::id()));
        let endpoint = Endpoint::Unix(path.clone());
        let first = Listener::bind(&endpoint).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let refused = Listener::bind(&endpoint).unwrap_err().to_string();
        assert!(refused.contains("another daemon answers"), "{refused}");
        drop(first);
        assert!(!path.exists());

        // As a killed daemon leaves it: the file without anybody behind it.
        drop(UnixListener::bind(&path).unwrap());
        let second = Listener::bind(&endpoint).unwrap();
        drop(second);

        fs::write(&path, "precious").unwrap();
        let refused = Listener::bind(&endpoint).unwrap_err().to_string();
        assert!(refused.contains("another kind"), "{refused}");
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        fs::remove_file(&path).unwrap();
    }
}
