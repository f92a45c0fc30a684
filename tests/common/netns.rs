//! Network namespaces, veth pairs and raw frames, for tests that need root.
//!
//! Nothing here touches the machine's own interfaces: everything happens in a namespace that is
//! gone with its thread.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket,
    sockopt::{RcvBufForce, ReceiveTimeout},
};
use nix::sys::time::{TimeVal, TimeValLike};
use xdpgate::IfIndex;

/// Says that a test is skipped if it cannot run here; use as `if netns::skipped() { return; }`.
pub fn skipped() -> bool {
    let skipped = !nix::unistd::geteuid().is_root();
    if skipped {
        println!("skipped: needs root");
    }
    skipped
}

/// Runs a test on a thread of its own, in a new network namespace. Threads and commands that it
/// starts are in the same one.
pub fn run<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let body = || {
            enter_new();
            sh("ip link set lo up");
            test()
        };
        scope
            .spawn(body)
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Moves this thread into a new network namespace.
fn enter_new() {
    unshare(CloneFlags::CLONE_NEWNET).expect("unshare");
    // Neighbour discovery and the like would be counted as well.
    for conf in ["all", "default"] {
        let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{conf}/disable_ipv6"), "1");
    }
}

/// Mounts of this thread are its own from now on.
pub fn mount_private() {
    unshare(CloneFlags::CLONE_NEWNS).expect("unshare");
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("mount");
}

/// Mounts a BPF file system that only this thread sees, at a directory that is made for it.
pub fn mount_bpffs(dir: &std::path::Path) {
    mount_alone(dir, "bpf");
}

/// The same with an empty file system in memory.
pub fn mount_tmpfs(dir: &std::path::Path) {
    mount_alone(dir, "tmpfs");
}

fn mount_alone(dir: &std::path::Path, kind: &str) {
    mount_private();
    fs::create_dir_all(dir).expect("a directory to mount at");
    let options = None::<&str>;
    mount(Some(kind), dir, Some(kind), MsFlags::empty(), options).expect("mount");
}

/// Runs a command; fails if it fails.
pub fn sh(command: &str) -> String {
    let mut words = command.split_whitespace();
    let program = words.next().expect("a command");
    let output = Command::new(program).args(words).output().expect(program);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Makes two interfaces that are joined by a wire, both up.
pub fn veth(a: &str, b: &str) {
    sh(&format!("ip link add {a} type veth peer name {b}"));
    for name in [a, b] {
        sh(&format!("ip link set {name} up"));
    }
    // The carrier comes a moment after both ends are up, and what is sent goes nowhere until the
    // kernel has seen it.
    wait_until("carrier", || {
        [a, b]
            .iter()
            .all(|name| sh(&format!("ip link show {name}")).contains("state UP"))
    });
}

/// The index of an interface that is there.
pub fn index(name: &str) -> IfIndex {
    IfIndex::from_name(name).unwrap()
}

/// Waits for something that comes soon or never.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}: did not come");
        thread::sleep(Duration::from_millis(2));
    }
}

/// A packet socket on one interface: sends raw frames, and sees those that came past XDP.
pub struct Wire(OwnedFd);

impl Wire {
    pub fn open(interface: &str) -> Self {
        let flags = SockFlag::SOCK_CLOEXEC;
        let protocol = Some(SockProtocol::EthAll);
        let fd = socket(AddressFamily::Packet, SockType::Raw, flags, protocol).expect("socket");
        bind(&fd, interface).expect("bind");
        let wire = Self(fd);
        // Each small frame takes the room of a page in it.
        setsockopt(&wire.0, RcvBufForce, &(8 << 20)).expect("setsockopt");
        setsockopt(&wire.0, ReceiveTimeout, &TimeVal::milliseconds(50)).expect("setsockopt");
        // What other interfaces received between socket and bind.
        while wire.receive().is_some() {}
        wire
    }

    pub fn send(&self, frame: &[u8]) {
        loop {
            match send(self.0.as_raw_fd(), frame, MsgFlags::empty()) {
                Ok(_) => return,
                Err(Errno::ENOBUFS | Errno::EINTR) => thread::sleep(Duration::from_micros(100)),
                Err(errno) => panic!("send: {errno}"),
            }
        }
    }

    /// Sends a frame if the interface can take it now.
    pub fn send_if_up(&self, frame: &[u8]) {
        let _ = send(self.0.as_raw_fd(), frame, MsgFlags::empty());
    }

    /// The next frame that came in, or `None` after 50 ms without one.
    pub fn receive(&self) -> Option<Vec<u8>> {
        // Longer than any frame of an MTU of 9000.
        let mut buffer = vec![0; 9216];
        loop {
            match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(length) => return Some(buffer[..length].to_vec()),
                Err(Errno::EAGAIN) => return None,
                Err(Errno::EINTR) => {}
                Err(errno) => panic!("recv: {errno}"),
            }
        }
    }
}

impl Wire {
    /// Like [`Wire::receive`], but with the outermost VLAN tag in its place: the kernel takes it out
    /// of a frame before packet sockets see it, and tells it beside.
    pub fn receive_whole(&self) -> Option<Vec<u8>> {
        let on: libc::c_int = 1;
        // SAFETY: the option's value is an int that outlives the call.
        let set = unsafe {
            libc::setsockopt(
                self.0.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_AUXDATA,
                (&raw const on).cast(),
                size_of_val(&on) as libc::socklen_t,
            )
        };
        assert_eq!(set, 0, "PACKET_AUXDATA");
        let (mut buffer, mut control) = (vec![0u8; 9216], [0u64; 16]);
        let mut part = libc::iovec {
            iov_base: buffer.as_mut_ptr().cast(),
            iov_len: buffer.len(),
        };
        // SAFETY: all zero is a valid msghdr.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        (message.msg_iov, message.msg_iovlen) = (&mut part, 1);
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control) as _;
        // SAFETY: both buffers outlive the call and are as long as is said.
        let length = unsafe { libc::recvmsg(self.0.as_raw_fd(), &mut message, 0) };
        if length < 0 {
            let error = Errno::last();
            assert!(error == Errno::EAGAIN || error == Errno::EINTR, "{error}");
            return None;
        }
        buffer.truncate(length as usize);
        // SAFETY: the kernel filled the message; the first header is null or whole.
        let header = unsafe { libc::CMSG_FIRSTHDR(&message).as_ref() };
        let Some(header) = header.filter(|h| h.cmsg_type == libc::PACKET_AUXDATA) else {
            return Some(buffer);
        };
        // SAFETY: what follows this header is a tpacket_auxdata, at any alignment.
        let beside = unsafe {
            let data = libc::CMSG_DATA(header).cast::<libc::tpacket_auxdata>();
            data.read_unaligned()
        };
        if beside.tp_status & libc::TP_STATUS_VLAN_VALID != 0 {
            let tag = [beside.tp_vlan_tpid, beside.tp_vlan_tci].map(u16::to_be_bytes);
            buffer.splice(12..12, tag.concat());
        }
        Some(buffer)
    }
}

fn bind(socket: &OwnedFd, interface: &str) -> io::Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
        sll_ifindex: index(interface).get() as i32,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the address is a whole sockaddr_ll, as long as `length` says.
    match unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

type Work = Box<dyn FnOnce() + Send>;

/// Another network namespace, on a thread of its own. It goes with this.
pub struct Other {
    thread: u32,
    work: Option<mpsc::Sender<Work>>,
    handle: Option<thread::JoinHandle<()>>,
}

impl Other {
    pub fn new() -> Self {
        let (work, todo) = mpsc::channel::<Work>();
        let (sender, started) = mpsc::channel();
        let handle = thread::spawn(move || {
            enter_new();
            sender.send(nix::unistd::gettid()).expect("who waits");
            for work in todo {
                work();
            }
        });
        let thread = started
            .recv()
            .expect("a namespace")
            .as_raw()
            .cast_unsigned();
        Self {
            thread,
            work: Some(work),
            handle: Some(handle),
        }
    }

    /// The number by which `ip link set NAME netns NUMBER` finds it.
    pub fn number(&self) -> u32 {
        self.thread
    }

    /// The file by which it is known.
    pub fn path(&self) -> std::path::PathBuf {
        format!("/proc/self/task/{}/ns/net", self.thread).into()
    }

    /// Runs something in it.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (sender, done) = mpsc::channel();
        let work = Box::new(move || drop(sender.send(work())));
        self.work
            .as_ref()
            .expect("a thread")
            .send(work)
            .expect("a thread");
        done.recv().expect("it panicked")
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        drop(self.work.take());
        let _ = self.handle.take().map(thread::JoinHandle::join);
    }
}
