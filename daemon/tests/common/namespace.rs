//! Network and mount namespaces that go when their thread does, however the test ends.

use std::fs::File;
use std::net::UdpSocket;
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

/// A network and a mount namespace of their own, held by a thread.
pub struct Namespace {
    /// The number of the thread, by which `ip link set ... netns` names the namespace.
    pub tid: i32,
    hold: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Namespace {
    pub fn new() -> Self {
        let (hold, held) = channel();
        let (ready, started) = channel();
        let thread = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("root may");
            let none = None::<&str>;
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(none, "/", none, private, none).expect("root may");
            ready
                .send(nix::unistd::gettid().as_raw())
                .expect("somebody waits");
            // Until the other end is dropped.
            let _ = held.recv();
        });
        Self {
            tid: started.recv().expect("the thread started"),
            hold: Some(hold),
            thread: Some(thread),
        }
    }

    /// A namespace that is connected with this one by a veth pair: `theirs` there, `ours` here, both
    /// up and with these addresses.
    pub fn neighbour(&self, ours: (&str, &str), theirs: (&str, &str)) -> Self {
        let other = Self::new();
        let (here, there) = (ours.0, theirs.0);
        self.ip(&format!("link add {here} type veth peer name {there}"));
        self.ip(&format!("link set {there} netns {}", other.tid));
        for (namespace, (name, address)) in [(self, ours), (&other, theirs)] {
            namespace.ip("link set lo up");
            namespace.ip(&format!("address add {address} dev {name}"));
            namespace.ip(&format!("link set {name} up"));
        }
        super::wait_for("the link", || {
            let links = [(self, here), (&other, there)];
            links
                .iter()
                .all(|(namespace, name)| namespace.is_up(name))
                .then_some(())
        });
        other
    }

    fn is_up(&self, name: &str) -> bool {
        let shown = self.run(|| super::run("ip", ["-o", "link", "show", name]));
        shown.ok().contains("state UP")
    }

    /// How many frames that were sent through an interface did not go out: the other end of a veth pair has
    /// room for 256, and loses more while its CPU does something else.
    #[track_caller]
    pub fn unsent(&self, name: &str) -> u64 {
        let arguments = ["-json", "-statistics", "link", "show", "dev", name];
        let shown = self.run(|| super::run("ip", arguments)).ok();
        let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
        let dropped = shown[0]["stats64"]["tx"]["dropped"].as_u64();
        dropped.expect("a counter")
    }

    /// Runs `ip` there, with these words as its arguments.
    #[track_caller]
    pub fn ip(&self, arguments: &str) {
        self.run(|| super::run("ip", arguments.split_whitespace()))
            .ok();
    }

    /// Runs something there, on a thread of its own, and waits for it. Processes that it starts are
    /// there too.
    #[track_caller]
    pub fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        let result = std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.enter();
                work()
            });
            thread.join()
        });
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// A socket there that receives datagrams. It may take a moment until the address is free again: a
    /// process that another test is just starting has a copy of the socket before.
    #[track_caller]
    pub fn receiver(&self, address: &str) -> UdpSocket {
        super::wait_for("the address", || self.run(|| UdpSocket::bind(address)).ok())
    }

    /// Makes a directory and mounts a BPF file system on it, which is seen there only.
    pub fn mount_bpffs(&self, dir: &Path) {
        self.run(|| {
            std::fs::create_dir(dir).expect("a directory");
            mount(
                Some("bpf"),
                dir,
                Some("bpf"),
                MsFlags::empty(),
                None::<&str>,
            )
            .expect("root may");
        });
    }

    /// Puts the calling thread there.
    fn enter(&self) {
        let open = |kind: &str| File::open(format!("/proc/self/task/{}/ns/{kind}", self.tid));
        // Another mount namespace needs a file-system context that no other thread shares.
        unshare(CloneFlags::CLONE_FS).expect("root may");
        setns(open("net").expect("a namespace"), CloneFlags::CLONE_NEWNET).expect("root may");
        setns(open("mnt").expect("a namespace"), CloneFlags::CLONE_NEWNS).expect("root may");
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.hold.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
