//! Processes that end in the middle of traffic, by SIGKILL and by SIGTERM, and others that take over:
//! no packet is judged by anything but the policy, and counters never go backwards.
//!
//! The process is this test binary, run again with `CHILD` in its environment.
#![cfg(feature = "kernel")]

#[allow(dead_code, unreachable_pub, reason = "shared with other tests")]
mod common {
    pub mod netns;
    pub mod packet;
}

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use common::netns::{self, Wire, veth};
use common::packet;
use tempfile::TempDir;
use xdpgate::policy::Policy;
use xdpgate::{BanScope, Disposition, Firewall, IfIndex, ModePreference, Pinning, Reason};

/// In the environment of a child: the directory of its pins, and of its state.
const CHILD: &str = "XDPGATE_TEST_CHILD";

const POLICY: &str = "
version: 1
failsafe: none
default: drop
rules:
  - { id: block, priority: 10, match: { src: 203.0.113.0/24 }, action: drop }
  - { id: let, priority: 20, match: { src: 192.0.2.0/24, protocol: udp, dport: 2000 }, action: pass }
";

/// What a child does: takes over or begins, and tells its counters until it is killed. The last but one
/// is what the ban dropped, the last are all.
fn child(dirs: &str) -> ! {
    let [pins, state, max_rules] = dirs.splitn(3, ':').collect::<Vec<_>>()[..] else {
        panic!("{dirs}");
    };
    let firewall = Firewall::loader()
        .pin(Pinning::Require)
        .pin_root(pins)
        .state_dir(state)
        .max_rules(max_rules.parse().unwrap())
        .load()
        .expect("load");
    if firewall.policy().is_none() {
        firewall.set_dry_run(false);
        let ban = "192.0.2.77".parse().unwrap();
        let day = Duration::from_secs(86_400);
        firewall.ban(ban, BanScope::Source, day).expect("ban");
        firewall
            .apply(&Policy::from_yaml(POLICY).unwrap())
            .expect("apply");
    }
    if firewall.attachments().is_empty() {
        let a0 = IfIndex::from_name("a0").unwrap();
        firewall
            .attach(a0, ModePreference::BestAvailable)
            .expect("attach");
    }
    loop {
        let stats = firewall.stats();
        let rules = stats.rules.iter().map(|r| r.matched.packets);
        let counts = &stats.interfaces[0].counts;
        let banned = counts.get(Reason::Ban, Disposition::Dropped).packets;
        let numbers = rules.chain([banned, counts.total().packets]);
        let numbers: Vec<String> = numbers.map(|n| n.to_string()).collect();
        println!("counters {}", numbers.join(" "));
        std::io::stdout().flush().unwrap();
    }
}

struct Process(Child, BufReader<ChildStdout>);

impl Process {
    /// `max_rules`: another number makes other maps.
    fn start(dirs: &str, max_rules: u32) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "r58_r64_killed_and_restarted_under_traffic"])
            .args(["--nocapture", "--test-threads=1"])
            .env(CHILD, format!("{dirs}:{max_rules}"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self(child, lines)
    }

    /// The next counters that it tells.
    fn counters(&mut self) -> Vec<u64> {
        loop {
            let mut line = String::new();
            assert_ne!(self.1.read_line(&mut line).unwrap(), 0, "it ended");
            // The harness may have written a word before it.
            if let Some((_, numbers)) = line.split_once("counters ") {
                return numbers
                    .split_whitespace()
                    .map(|n| n.parse().unwrap())
                    .collect();
            }
        }
    }

    fn end(&mut self, signal: &str) {
        netns::sh(&format!("kill -{signal} {}", self.0.id()));
        self.0.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn probe(src: &str, number: u64) -> Vec<u8> {
    let payload = number.to_be_bytes();
    let udp = packet::ip(src, "198.51.100.1").udp(1000, 2000);
    udp.payload(&payload).build()
}

#[test]
fn r58_r64_killed_and_restarted_under_traffic() {
    if let Ok(dirs) = env::var(CHILD) {
        child(&dirs);
    }
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        let mount = env::temp_dir().join(format!("xdpgate-kill-{}", std::process::id()));
        netns::mount_bpffs(&mount);
        veth("a0", "b0");
        let state = TempDir::new().unwrap();
        let dirs = format!(
            "{}:{}",
            mount.join("pins").display(),
            state.path().display()
        );
        restarts(&dirs, &mount, 50, &[100]);
    });
}

/// Each process makes maps of its own and takes over what the one before counted and banned.
#[test]
fn r58_killed_and_restarted_with_other_sizes() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        let mount = env::temp_dir().join(format!("xdpgate-resize-{}", std::process::id()));
        netns::mount_bpffs(&mount);
        veth("a0", "b0");
        let state = TempDir::new().unwrap();
        let pins = mount.join("pins");
        let dirs = format!("{}:{}", pins.display(), state.path().display());
        restarts(&dirs, &mount, 15, &[100, 101]);
    });
}

fn restarts(dirs: &str, mount: &Path, count: usize, sizes: &[u32]) {
    let (sender, receiver) = (Wire::open("b0"), Wire::open("a0"));
    let (done, sent, arrived) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let wrong = AtomicU64::new(0);
    let mut process = Process::start(dirs, sizes[0]);
    let mut last = process.counters();
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                let number = sent.load(Ordering::SeqCst);
                sender.send(&probe("203.0.113.1", number));
                sender.send(&probe("192.0.2.77", number));
                sender.send(&probe("192.0.2.1", number));
                sent.store(number + 1, Ordering::SeqCst);
                // Never more on the wire than it holds, so that none is lost there.
                let mut waited = 0;
                while number + 1 - arrived.load(Ordering::SeqCst) >= 64 && waited < 10_000 {
                    thread::sleep(Duration::from_micros(100));
                    waited += 1;
                }
            }
        });
        scope.spawn(|| {
            loop {
                match receiver.receive() {
                    Some(frame) => match &frame[26..29] {
                        [192, 0, 2] if frame[29] == 77 => {
                            wrong.fetch_add(1, Ordering::SeqCst);
                        }
                        [192, 0, 2] => drop(arrived.fetch_add(1, Ordering::SeqCst)),
                        [203, 0, 113] => drop(wrong.fetch_add(1, Ordering::SeqCst)),
                        _ => {}
                    },
                    None if done.load(Ordering::SeqCst) => return,
                    None => {}
                }
            }
        });
        for restart in 0..count {
            let size = sizes[restart % sizes.len()];
            process.end(if restart % 2 == 0 { "KILL" } else { "TERM" });
            process = Process::start(dirs, size);
            // Now and then it is killed in the middle of taking over.
            if restart % 5 == 4 {
                thread::sleep(Duration::from_millis(17 * (restart as u64 % 7)));
                process.end("KILL");
                process = Process::start(dirs, size);
            }
            let now = process.counters();
            let backwards = now.iter().zip(&last).any(|(now, last)| now < last);
            assert!(!backwards, "restart {restart}: {last:?}, then {now:?}");
            last = now;
        }
        done.store(true, Ordering::SeqCst);
    });
    let (sent, arrived) = (sent.into_inner(), arrived.into_inner());
    println!("{count} restarts, {sent} probes of each kind");
    assert!(sent > 1000, "there was traffic: {sent}");
    assert_eq!(wrong.into_inner(), 0, "that had to be dropped came through");
    assert_eq!(arrived, sent, "that had to pass");
    // Each of them was counted, by whichever process.
    let mut counted = process.counters();
    counted = process.counters().max(counted);
    if sizes.len() == 1 {
        assert_eq!(counted, [sent, sent, sent, 3 * sent]);
    } else {
        // Those that were judged while a process compiled are not.
        let enough = counted.iter().all(|n| *n > sent / 2);
        assert!(enough, "{counted:?} of {sent}");
    }
    let links = mount.join("pins").join("links");
    assert_eq!(std::fs::read_dir(links).unwrap().count(), 1);
}
