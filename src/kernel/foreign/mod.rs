//! An XDP program of another owner: who it is, and what would remove it. It is never removed here.

mod search;

use std::fmt;
use std::path::PathBuf;

use super::attach::AttachMode;
use super::shell::word;
pub(super) use search::{mode_of, on};

/// An XDP program that is in the place where ours would be.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ForeignProgram {
    /// Its number, as in `bpftool prog`.
    pub id: u32,
    /// Its name; empty if it has none.
    pub name: String,
    /// The mode that it runs in, if the kernel says.
    pub mode: Option<AttachMode>,
    /// How it is attached.
    pub attached_by: AttachedBy,
    /// Where it or its link is pinned, as far as was found under the mounted BPF file systems; of
    /// libxdp's dispatcher the directory that it keeps for it.
    pub pins: Vec<PathBuf>,
    /// Processes that hold it or its link open, as far as was found.
    pub holders: Vec<Holder>,
    /// The command that removes it, for whoever may.
    pub removal: Option<String>,
}

/// How an XDP program is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum AttachedBy {
    /// By a `bpf_link` with this number: it goes when nobody holds or pins the link.
    Link(u32),
    /// By netlink, as `ip link` does it: it stays until it is taken off.
    Netlink,
    /// The links could not be listed, which needs CAP_SYS_ADMIN.
    Unknown,
}

/// A process.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holder {
    /// Its number.
    pub pid: u32,
    /// Its name, as in `ps -o comm`.
    pub name: String,
}

/// The name of the program that libxdp puts in front of those that it runs one after the other.
const DISPATCHER: &str = "xdp_dispatcher";

impl ForeignProgram {
    /// It is libxdp's dispatcher, by its name: `xdp-loader status` lists what it runs. Programs of
    /// xdpgate do not run under it.
    pub fn is_dispatcher(&self) -> bool {
        self.name == DISPATCHER
    }

    /// The command that removes the program from an interface.
    fn removal_from(&self, interface: &str) -> Option<String> {
        let interface = word(interface);
        // `ip link` would leave its directory behind.
        if self.is_dispatcher() && self.attached_by == AttachedBy::Netlink && !self.pins.is_empty()
        {
            return Some(format!("xdp-loader unload {interface} --all"));
        }
        match self.attached_by {
            AttachedBy::Link(id) => Some(self.link_removal(id)),
            // Without the mode, `xdp off` would be about native mode wherever the driver has it.
            AttachedBy::Netlink => {
                let keyword = match self.mode {
                    Some(AttachMode::Native) => "xdpdrv",
                    Some(AttachMode::Generic) => "xdpgeneric",
                    Some(AttachMode::Offload) => "xdpoffload",
                    None => "xdp",
                };
                Some(format!("ip link set dev {interface} {keyword} off"))
            }
            AttachedBy::Unknown => None,
        }
    }

    /// A link goes with its last holder: pins are removed and processes are stopped.
    fn link_removal(&self, id: u32) -> String {
        let pins: Vec<String> = self
            .pins
            .iter()
            .map(|pin| word(&pin.display().to_string()))
            .collect();
        let pids: Vec<String> = self.holders.iter().map(|h| h.pid.to_string()).collect();
        match (pins.is_empty(), pids.is_empty()) {
            (true, true) => format!("bpftool link detach id {id}"),
            (true, false) => format!("kill {}", pids.join(" ")),
            (false, true) => format!("rm {}", pins.join(" ")),
            (false, false) => format!("rm {} && kill {}", pins.join(" "), pids.join(" ")),
        }
    }
}

impl fmt::Display for ForeignProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the XDP program {:?} (id {}", self.name, self.id)?;
        if let Some(mode) = self.mode {
            write!(f, ", {mode} mode")?;
        }
        match self.attached_by {
            AttachedBy::Link(id) => write!(f, ", link {id}")?,
            AttachedBy::Netlink => f.write_str(", attached by netlink")?,
            AttachedBy::Unknown => {}
        }
        f.write_str(")")?;
        let pins: Vec<_> = self.pins.iter().map(|p| p.display().to_string()).collect();
        if !pins.is_empty() {
            write!(f, ", pinned at {}", pins.join(", "))?;
        }
        let holders: Vec<_> = self.holders.iter().map(Holder::to_string).collect();
        if !holders.is_empty() {
            write!(f, ", held by {}", holders.join(", "))?;
        }
        if self.is_dispatcher() {
            f.write_str("; that is the dispatcher of libxdp, under which xdpgate does not run")?;
        }
        Ok(())
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A process may call itself what it likes.
        write!(f, "process {} ({})", self.pid, self.name.escape_debug())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(attached_by: AttachedBy) -> ForeignProgram {
        ForeignProgram {
            id: 7,
            name: "theirs".to_owned(),
            mode: Some(AttachMode::Generic),
            attached_by,
            pins: Vec::new(),
            holders: Vec::new(),
            removal: None,
        }
    }

    #[test]
    fn the_command_fits_the_way_it_is_attached() {
        let netlink = program(AttachedBy::Netlink);
        assert_eq!(
            netlink.removal_from("eth0").unwrap(),
            "ip link set dev eth0 xdpgeneric off"
        );
        let mut link = program(AttachedBy::Link(3));
        assert_eq!(
            link.removal_from("eth0").unwrap(),
            "bpftool link detach id 3"
        );
        link.holders.push(Holder {
            pid: 42,
            name: "daemon".to_owned(),
        });
        assert_eq!(link.removal_from("eth0").unwrap(), "kill 42");
        link.pins.push(PathBuf::from("/sys/fs/bpf/a b"));
        assert_eq!(
            link.removal_from("eth0").unwrap(),
            "rm '/sys/fs/bpf/a b' && kill 42"
        );
        assert_eq!(program(AttachedBy::Unknown).removal_from("eth0"), None);
    }

    #[test]
    fn all_that_is_known_is_said() {
        let mut link = program(AttachedBy::Link(3));
        link.name = DISPATCHER.to_owned();
        link.pins.push(PathBuf::from("/sys/fs/bpf/x"));
        link.holders.push(Holder {
            pid: 42,
            name: "daemon".to_owned(),
        });
        assert_eq!(
            link.to_string(),
            "the XDP program \"xdp_dispatcher\" (id 7, generic mode, link 3), pinned at \
             /sys/fs/bpf/x, held by process 42 (daemon); that is the dispatcher of libxdp, under \
             which xdpgate does not run"
        );
    }
}
