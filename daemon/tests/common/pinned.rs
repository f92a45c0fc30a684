//! A daemon that may be killed: what it pins, and what it saves, is there for the next one.

use std::net::UdpSocket;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::api::arrives;
use super::daemon::{Daemon, daemon};
use super::namespace::Namespace;
use super::{Scratch, text};

/// A host with `xg0`, its neighbour, and a BPF file system in which all outlives the daemon.
pub struct Scene {
    pub host: Namespace,
    pub scratch: Scratch,
    pub server: String,
    pub pins: PathBuf,
    pub sender: UdpSocket,
    pub receiver: UdpSocket,
    pub peer: Namespace,
}

impl Scene {
    pub fn new() -> Self {
        let host = Namespace::new();
        let peer = host.neighbour(("xg0", "10.9.0.1/24"), ("xg1", "10.9.0.2/24"));
        let scratch = Scratch::new();
        let bpffs = scratch.path("bpffs");
        host.mount_bpffs(&bpffs);
        let receiver = host.receiver("10.9.0.1:9");
        let timeout = Some(Duration::from_millis(300));
        receiver.set_read_timeout(timeout).expect("a timeout");
        Self {
            server: format!("unix:{}", text(&scratch.path("xdpgated.sock"))),
            pins: bpffs.join("xdpgate"),
            sender: peer
                .run(|| UdpSocket::bind("10.9.0.2:0"))
                .expect("a socket"),
            receiver,
            host,
            scratch,
            peer,
        }
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let base = ["--interface", "xg0", "--log-level", "info"];
        let mut command = daemon(&self.server, &[&base, arguments].concat());
        command
            .env("XDPGATED_PINS_PINNING", "require")
            .env("XDPGATED_PINS_ROOT", &self.pins);
        command
    }

    pub fn start(&self, arguments: &[&str]) -> Daemon {
        Daemon::start_with(&self.host, &self.server, self.command(arguments))
    }

    /// A policy of so many rules, which drops what comes from the neighbour or not.
    pub fn policy(&self, name: &str, rules: usize, drops: bool) -> String {
        let mut yaml = "version: 1\nfailsafe: none\nrules:\n".to_owned();
        let action = if drops { "drop" } else { "count" };
        yaml += &format!("  - {{ id: it, match: {{ src: 10.9.0.2 }}, action: {action} }}\n");
        for n in 1..rules {
            yaml += &format!("  - {{ id: r{n}, match: {{ src: 192.0.2.{n} }}, action: drop }}\n");
        }
        self.scratch.file(name, yaml)
    }

    pub fn arrives(&self) -> bool {
        arrives(&self.sender, &self.receiver)
    }
}
