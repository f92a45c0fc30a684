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
use xdpgate::{Firewall, IfIndex, ModePreference, Pinning};

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

/// What a child does: takes over or begins, and tells its counters until it is killed.
fn child(dirs: &str) -> ! {
    let (pins, state) = dirs.split_once(':').unwrap();
    let firewall = Firewall::loader()
        .pin(Pinning::Require)
        .pin_root(pins)
        .state_dir(state)
        .load()
        .expect("load");
    if firewall.policy().is_none() {
        firewall.set_dry_run(false);
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
        let all = stats.interfaces[0].counts.total().packets;
        let numbers: Vec<String> = rules.chain([all]).map(|n| n.to_string()).collect();
        println!("counters {}", numbers.join(" "));
        std::io::stdout().flush().unwrap();
    }
}

struct Process(Child, BufReader<ChildStdout>);

impl Process {
    fn start(dirs: &str) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "r58_r64_killed_and_restarted_under_traffic"])
            .args(["--nocapture", "--test-threads=1"])
            .env(CHILD, dirs)
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
        restarts(&dirs, &mount);
    });
}

fn restarts(dirs: &str, mount: &Path) {
    const RESTARTS: usize = 50;
    let (sender, receiver) = (Wire::open("b0"), Wire::open("a0"));
    let (done, sent, arrived) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let wrong = AtomicU64::new(0);
    let mut process = Process::start(dirs);
    let mut last = process.counters();
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                let number = sent.load(Ordering::SeqCst);
                sender.send(&probe("203.0.113.1", number));
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
                        [192, 0, 2] => drop(arrived.fetch_add(1, Ordering::SeqCst)),
                        [203, 0, 113] => drop(wrong.fetch_add(1, Ordering::SeqCst)),
                        _ => {}
                    },
                    None if done.load(Ordering::SeqCst) => return,
                    None => {}
                }
            }
        });
        for restart in 0..RESTARTS {
            process.end(if restart % 2 == 0 { "KILL" } else { "TERM" });
            process = Process::start(dirs);
            // Now and then it is killed in the middle of taking over.
            if restart % 5 == 4 {
                thread::sleep(Duration::from_millis(17 * (restart as u64 % 7)));
                process.end("KILL");
                process = Process::start(dirs);
            }
            let now = process.counters();
            let backwards = now.iter().zip(&last).any(|(now, last)| now < last);
            assert!(!backwards, "restart {restart}: {last:?}, then {now:?}");
            last = now;
        }
        done.store(true, Ordering::SeqCst);
    });
    let (sent, arrived) = (sent.into_inner(), arrived.into_inner());
    println!("{RESTARTS} restarts, {sent} probes of each kind");
    assert!(sent > 1000, "there was traffic: {sent}");
    assert_eq!(wrong.into_inner(), 0, "that had to be dropped came through");
    assert_eq!(arrived, sent, "that had to pass");
    // Each of them was counted, by whichever process.
    let mut counted = process.counters();
    counted = process.counters().max(counted);
    assert_eq!(counted, [sent, sent, 2 * sent]);
    let links = mount.join("pins").join("links");
    assert_eq!(std::fs::read_dir(links).unwrap().count(), 1);
}
