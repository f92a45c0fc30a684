//! What tests of auto-attach share.

use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};

use super::netns::wait_until;
use libbpf_rs::libbpf_sys;
use libbpf_rs::query::{LinkInfo, LinkInfoIter, LinkTypeInfo};
use xdpgate::{AutoAttach, Decision, Firewall};

/// A firewall that drops, with room for so many interfaces.
pub fn loaded(max_interfaces: u16) -> Firewall {
    Firewall::loader()
        .dry_run(false)
        .max_interfaces(max_interfaces)
        .load()
        .unwrap()
}

/// The names of the attached interfaces, sorted.
pub fn attached(firewall: &Firewall) -> Vec<String> {
    let mut names: Vec<String> = firewall.attachments().into_iter().map(|a| a.name).collect();
    names.sort();
    names
}

pub fn decision(auto: &AutoAttach, name: &str) -> Decision {
    let interfaces = auto.interfaces();
    let found = interfaces.iter().find(|i| i.interface.name == name);
    found.expect("an interface").decision.clone()
}

/// The reason for which an interface is skipped, in words.
pub fn skipped_because(auto: &AutoAttach, name: &str) -> String {
    match decision(auto, name) {
        Decision::Skip(reason) => reason.to_string(),
        Decision::Attach => panic!("{name} is attached"),
    }
}

/// The number of the program that a firewall attaches.
pub fn program(firewall: &Firewall) -> u32 {
    firewall.program_info().entry.id
}

/// The links in the kernel by which a program is attached: the numbers of the interfaces, sorted. It
/// walks all links of the machine, whoever made them.
pub fn links_of(program: u32) -> Vec<u32> {
    let xdp = |link: LinkInfo| match link.info {
        LinkTypeInfo::Xdp(xdp) if link.prog_id == program => Some(xdp.ifindex),
        _ => None,
    };
    let mut interfaces: Vec<u32> = LinkInfoIter::default().filter_map(xdp).collect();
    interfaces.sort_unstable();
    interfaces
}

/// Detaches a link as `bpftool link detach` does.
pub fn detach_link(id: u32) {
    // SAFETY: takes a number, gives a new file descriptor.
    let fd = unsafe { libbpf_sys::bpf_link_get_fd_by_id(id) };
    assert!(fd >= 0, "link {id}");
    // SAFETY: a file descriptor that nobody else owns.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: takes a number.
    let result = unsafe { libbpf_sys::bpf_link_detach(fd.as_raw_fd()) };
    assert_eq!(result, 0, "link {id}");
}

/// Waits until a program is attached by so many links. The kernel takes a moment to let one go.
pub fn wait_for_links(program: u32, count: usize) {
    let what = format!("{count} links");
    wait_until(&what, || links_of(program).len() == count);
}

/// Lets one `ip` do many commands, one a line; those that fail are skipped.
pub fn ip_batch(commands: &str) {
    let mut ip = Command::new("ip")
        .args(["-force", "-batch", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("ip");
    let mut stdin = ip.stdin.take().expect("stdin");
    stdin.write_all(commands.as_bytes()).expect("ip reads");
    drop(stdin);
    ip.wait().expect("ip");
}

/// An `ip` that takes commands as they come.
pub struct Ip(Child);

impl Ip {
    pub fn start() -> Self {
        let ip = Command::new("ip")
            .args(["-force", "-batch", "-"])
            .stdin(Stdio::piped())
            .spawn();
        Self(ip.expect("ip"))
    }

    pub fn run(&mut self, commands: &str) {
        let stdin = self.0.stdin.as_mut().expect("stdin");
        stdin.write_all(commands.as_bytes()).expect("ip reads");
    }
}

impl Drop for Ip {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}
