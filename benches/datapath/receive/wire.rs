//! Veth pairs in a network namespace, with a receiver whose time can be told from the sender's.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use libbpf_rs::{MapHandle, Object, ProgramInput};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, CpuSet, sched_setaffinity, unshare};
use nix::time::{ClockId, clock_getcpuclockid};
use nix::unistd::Pid;
use xdpgate::IfIndex;

use crate::flow::{FRAME, frame};
use crate::harness::{Harness, Setup, program};

const F_TEST_XDP_LIVE_FRAMES: u32 = 1 << 1;

/// The kernel's batch of live frames. The ring of a veth takes four of them.
const BATCH: u32 = 64;

/// How many frames one call sends. Each call makes a pool of pages and waits for a grace period, so
/// many; what the ring has no room for is discarded at once.
const CALL: u32 = 8192 * BATCH;

/// The CPU of the receiver; the sender has the other.
const RECEIVER_CPU: usize = 1;

/// Runs on a thread of its own, in a new network namespace whose devices are in `/sys`. Both are
/// gone with the thread.
pub fn in_namespace<T: Send>(body: impl FnOnce() -> T + Send) -> Result<T, String> {
    thread::scope(|scope| {
        let isolated = || -> Result<T, String> {
            let failed = |what: &'static str| move |e| format!("{what}: {e}");
            unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
                .map_err(failed("unshare"))?;
            let none = None::<&str>;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
                .map_err(failed("mount"))?;
            mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), none)
                .map_err(failed("mount sysfs"))?;
            // Neighbour discovery and the like would be received as well.
            for conf in ["all", "default"] {
                let path = format!("/proc/sys/net/ipv6/conf/{conf}/disable_ipv6");
                // Without IPv6 there is no such file.
                let _ = fs::write(path, "1");
            }
            Ok(body())
        };
        scope
            .spawn(isolated)
            .join()
            .unwrap_or_else(|_| Err("the thread panicked".to_owned()))
    })
}

/// Two joined interfaces.
pub struct Pair {
    sender: String,
    pub receiver: String,
}

impl Pair {
    /// A pair with a number of its own.
    pub fn new(number: usize) -> Result<Self, String> {
        // The receiver's thread is found by this name, among those of all namespaces.
        let receiver = format!("x{}r{number}", std::process::id() % 100_000);
        let sender = receiver.replace('r', "s");
        let queues = "numrxqueues 1 numtxqueues 1";
        ip(&format!(
            "link add {sender} {queues} type veth peer name {receiver} {queues}"
        ))?;
        let pair = Self { sender, receiver };
        for name in [&pair.sender, &pair.receiver] {
            ip(&format!("link set {name} arp off up"))?;
        }
        Ok(pair)
    }

    pub fn receiver_index(&self) -> Result<IfIndex, String> {
        IfIndex::from_name(&self.receiver).map_err(|e| e.to_string())
    }

    fn received(&self) -> Result<u64, String> {
        let path = format!("/sys/class/net/{}/statistics/rx_packets", self.receiver);
        let text = fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
        text.trim().parse().map_err(|e| format!("{path}: {e}"))
    }

    /// How many packets came to the end of the receive path, which is where those for another host
    /// are discarded.
    pub fn passed(&self) -> Result<u64, String> {
        let output = Command::new("ip")
            .args(["-j", "-s", "-s", "link", "show", "dev", &self.receiver])
            .output()
            .map_err(|e| format!("ip: {e}"))?;
        let links: serde_json::Value =
            serde_json::from_slice(&output.stdout).map_err(|e| format!("ip -j: {e}"))?;
        // Not there while it is 0.
        Ok(links[0]["stats64"]["rx"]["otherhost"].as_u64().unwrap_or(0))
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        // The namespace takes it along if this fails.
        let _ = ip(&format!("link del {}", self.sender));
    }
}

/// A pair with frames coming through it. The receiver needs an XDP program before.
pub struct Lane {
    transmit: Object,
    frame: Vec<u8>,
    receiver_time: ClockId,
    pub pair: Pair,
}

/// What one stretch of traffic cost.
pub struct Stretch {
    pub receiver_ns: f64,
    pub mpps: f64,
}

impl Lane {
    pub fn new(
        harness: &Harness,
        pair: Pair,
        flows: &MapHandle,
        flow_count: usize,
    ) -> Result<Self, String> {
        let threaded = format!("/sys/class/net/{}/threaded", pair.receiver);
        fs::write(&threaded, "1").map_err(|e| format!("{threaded}: {e}"))?;
        let receiver = napi_thread(&pair.receiver)?;
        let mut cpus = CpuSet::new();
        if cpus.set(RECEIVER_CPU).is_ok() {
            // With one CPU only the figures are still those of the receiver.
            let _ = sched_setaffinity(receiver, &cpus);
        }
        let receiver_time =
            clock_getcpuclockid(receiver).map_err(|e| format!("{receiver}: {e}"))?;
        let sender = IfIndex::from_name(&pair.sender).map_err(|e| e.to_string())?;
        let setup = Setup {
            flows: Some(flows),
            flow_count: flow_count as u32,
            ifindex: sender.get(),
            ..Setup::of("transmit")
        };
        let transmit = harness.load(&setup).map_err(|e| format!("{e:#}"))?;
        Ok(Self {
            transmit,
            frame: frame(None, false, FRAME),
            receiver_time,
            pair,
        })
    }

    /// Sends as fast as can be for a while.
    pub fn run(&self, duration: Duration) -> Result<Stretch, String> {
        let before = (self.spent()?, self.pair.received()?);
        let started = Instant::now();
        while started.elapsed() < duration {
            self.send(CALL)?;
        }
        let sending = started.elapsed();
        self.drain()?;
        let spent = self.spent()? - before.0;
        let received = (self.pair.received()? - before.1).max(1) as f64;
        Ok(Stretch {
            receiver_ns: spent.as_nanos() as f64 / received,
            mpps: received / sending.as_secs_f64() / 1e6,
        })
    }

    /// Sends the first flows once, slowly: none is lost.
    pub fn send_each_once(&self, count: usize) -> Result<(), String> {
        for _ in 0..count / BATCH as usize {
            let wanted = self.pair.received()? + u64::from(BATCH);
            self.send(BATCH)?;
            let deadline = Instant::now() + Duration::from_secs(2);
            while self.pair.received()? < wanted {
                if Instant::now() > deadline {
                    return Err("frames were lost on the way".to_owned());
                }
                thread::sleep(Duration::from_micros(100));
            }
        }
        self.drain()
    }

    fn send(&self, frames: u32) -> Result<(), String> {
        let input = ProgramInput {
            data_in: Some(&self.frame),
            flags: F_TEST_XDP_LIVE_FRAMES,
            repeat: frames,
            ..Default::default()
        };
        match program(&self.transmit, "transmit").0.test_run(input) {
            Ok(_) => Ok(()),
            Err(e) => Err(format!("live frames (Linux 5.18): {e}")),
        }
    }

    /// Waits until nothing comes any more and the receiver is done with what came: it counts
    /// frames before the stack has seen them.
    fn drain(&self) -> Result<(), String> {
        let mut before = (self.pair.received()?, self.spent()?);
        loop {
            thread::sleep(Duration::from_millis(50));
            let now = (self.pair.received()?, self.spent()?);
            if now == before {
                return Ok(());
            }
            before = now;
        }
    }

    fn spent(&self) -> Result<Duration, String> {
        let now = self
            .receiver_time
            .now()
            .map_err(|e| format!("time of the receiver: {e}"))?;
        Ok(now.into())
    }
}

/// The kernel thread that receives for this interface.
fn napi_thread(interface: &str) -> Result<Pid, String> {
    let wanted = format!("napi/{interface}-");
    let processes = fs::read_dir("/proc").map_err(|e| format!("/proc: {e}"))?;
    for process in processes.flatten() {
        let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
        let number = process.file_name().to_string_lossy().parse();
        if let (true, Ok(number)) = (name.starts_with(&wanted), number) {
            return Ok(Pid::from_raw(number));
        }
    }
    Err(format!(
        "no kernel thread {wanted}N: is this a process namespace of its own?"
    ))
}

fn ip(arguments: &str) -> Result<(), String> {
    let output = Command::new("ip")
        .args(arguments.split_whitespace())
        .output();
    let output = output.map_err(|e| format!("ip: {e}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!(
            "ip {arguments}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
    }
}
