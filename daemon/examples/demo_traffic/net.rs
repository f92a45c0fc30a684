//! Sockets in network namespaces, and the two ends of the link between them.

use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, scope};
use std::time::Duration;

use nix::ifaddrs::getifaddrs;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::sockopt::{RcvBufForce, ReceiveTimeout};
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, recvfrom, sendto,
    setsockopt, socket,
};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::Result;
use crate::frame::MARK;

/// A network namespace that `ip netns` made.
pub(crate) struct Namespace(File);

impl Namespace {
    pub(crate) fn open(name: &str) -> Result<Self> {
        let path = format!("/run/netns/{name}");
        Ok(Self(File::open(&path).map_err(|e| format!("{path}: {e}"))?))
    }

    /// Does something there, on a thread of its own.
    pub(crate) fn run<R: Send>(&self, work: impl FnOnce() -> Result<R> + Send) -> Result<R> {
        scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&self.0, CloneFlags::CLONE_NEWNET)?;
                work()
            });
            thread
                .join()
                .unwrap_or_else(|_| Err("a thread panicked".into()))
        })
    }

    pub(crate) fn udp(&self, address: SocketAddr) -> Result<UdpSocket> {
        self.run(|| Ok(UdpSocket::bind(address).map_err(|e| format!("UDP {address}: {e}"))?))
    }

    pub(crate) fn listen(&self, address: SocketAddr) -> Result<TcpListener> {
        self.run(|| Ok(TcpListener::bind(address).map_err(|e| format!("TCP {address}: {e}"))?))
    }

    fn packet_socket(&self) -> Result<OwnedFd> {
        self.run(|| {
            let flags = SockFlag::SOCK_CLOEXEC;
            let protocol = SockProtocol::EthAll;
            Ok(socket(
                AddressFamily::Packet,
                SockType::Raw,
                flags,
                protocol,
            )?)
        })
    }
}

/// Puts frames on the link as the source, and sees them arrive as the host does: behind XDP.
pub(crate) struct Link<'n> {
    host: &'n Namespace,
    sender: OwnedFd,
    source_end: LinkAddr,
}

impl<'n> Link<'n> {
    pub(crate) fn open(source: &Namespace, host: &'n Namespace, name: &str) -> Result<Self> {
        let source_end = source.run(|| {
            let mut addresses = getifaddrs()?.filter(|i| i.interface_name == name);
            let address = addresses.find_map(|i| i.address?.as_link_addr().copied());
            Ok(address.ok_or(format!("no interface {name}"))?)
        })?;
        Ok(Self {
            host,
            sender: source.packet_socket()?,
            source_end,
        })
    }

    pub(crate) fn send(&self, frame: &[u8]) -> Result<()> {
        sendto(
            self.sender.as_raw_fd(),
            frame,
            &self.source_end,
            MsgFlags::empty(),
        )?;
        Ok(())
    }

    /// Counts the demo's frames that arrive from now on.
    pub(crate) fn sniff(&self) -> Result<Sniffer> {
        let socket = self.host.packet_socket()?;
        setsockopt(&socket, RcvBufForce, &(8 << 20))?;
        setsockopt(&socket, ReceiveTimeout, &TimeVal::milliseconds(50))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || count(&socket, &stopped));
        Ok(Sniffer { stop, thread })
    }
}

/// Counts until it is stopped.
pub(crate) struct Sniffer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Sniffer {
    /// Waits until nothing more comes, and gives the count.
    pub(crate) fn stop(self) -> u64 {
        std::thread::sleep(Duration::from_millis(20));
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or(0)
    }
}

fn count(socket: &OwnedFd, stop: &AtomicBool) -> u64 {
    let mut frames = 0;
    let mut buffer = [0; 2048];
    loop {
        match recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut buffer) {
            Ok((length, from)) => {
                let ours = buffer[..length]
                    .windows(MARK.len())
                    .any(|bytes| bytes == MARK);
                let outgoing = from.is_some_and(|from| from.pkttype() == PACKET_OUTGOING);
                frames += u64::from(ours && !outgoing);
            }
            Err(e) if io::Error::from(e).kind() == io::ErrorKind::WouldBlock => {
                if stop.load(Ordering::Relaxed) {
                    return frames;
                }
            }
            Err(_) => return frames,
        }
    }
}

/// From `linux/if_packet.h`: what the host itself sends.
const PACKET_OUTGOING: u8 = 4;
