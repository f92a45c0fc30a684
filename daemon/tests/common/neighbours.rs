//! A protected host and a neighbour with a good and a bad address.

use std::net::UdpSocket;
use std::time::Duration;

use super::daemon::Daemon;
use super::namespace::Namespace;
use super::{Scratch, wait_for};

/// A policy that drops what comes from the bad address.
pub const BLOCK: &str = "
version: 1
rules: [{ id: block-bad, match: { src: 203.0.113.7 }, action: drop }]
";

/// The host's interface is `xg0` with 192.0.2.1, the neighbour's `nb0` with 192.0.2.2 and 203.0.113.7.
pub struct Neighbours {
    pub host: Namespace,
    pub neighbour: Namespace,
    pub scratch: Scratch,
}

impl Neighbours {
    pub fn new() -> Self {
        let host = Namespace::new();
        let neighbour = host.neighbour(("xg0", "192.0.2.1/24"), ("nb0", "192.0.2.2/24"));
        neighbour.ip("address add 203.0.113.7/32 dev nb0");
        host.ip("route add 203.0.113.7/32 dev xg0");
        Self {
            host,
            neighbour,
            scratch: Scratch::new(),
        }
    }

    /// Starts a daemon on the host.
    #[track_caller]
    pub fn start(&self, arguments: &[&str]) -> Daemon {
        Daemon::start(&self.host, &self.scratch, arguments)
    }

    /// Likewise, attached to `xg0`.
    #[track_caller]
    pub fn daemon(&self, more: &[&str]) -> Daemon {
        self.start(&[&["--interface", "xg0"], more].concat())
    }

    /// Whether a datagram from an address of the neighbour arrives in a fifth of a second.
    pub fn reaches(&self, from: &str) -> bool {
        let receiver = self.receiver();
        let sent = self.sender(from).send_to(b"x", "192.0.2.1:9000");
        sent.expect("it goes out");
        receiver.recv_from(&mut [0; 8]).is_ok()
    }

    /// Whether a datagram of the bad address arrives. One of the good address, sent after it on the
    /// same path, shows that it had its time.
    #[track_caller]
    pub fn bad_arrives(&self) -> bool {
        let receiver = self.receiver();
        let (bad, good) = (self.sender("203.0.113.7"), self.sender("192.0.2.2"));
        bad.send_to(b"bad", "192.0.2.1:9000").expect("sent");
        let mut arrived = false;
        let mut buffer = [0; 8];
        wait_for("the good one", || {
            good.send_to(b"good", "192.0.2.1:9000").expect("sent");
            while let Ok(length) = receiver.recv(&mut buffer) {
                match &buffer[..length] {
                    b"good" => return Some(()),
                    _ => arrived = true,
                }
            }
            None
        });
        arrived
    }

    fn receiver(&self) -> UdpSocket {
        let receiver = self.host.receiver("192.0.2.1:9000");
        let short = Some(Duration::from_millis(200));
        receiver.set_read_timeout(short).expect("set");
        receiver
    }

    fn sender(&self, from: &str) -> UdpSocket {
        let socket = self.neighbour.run(|| UdpSocket::bind((from, 0)));
        socket.expect("a socket")
    }
}
