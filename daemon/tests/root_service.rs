//! The daemon under a service manager: what it tells it, and the few powers that its unit leaves.

mod common;

use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use common::daemon::{Daemon, daemon};
use common::namespace::Namespace;
use common::{Ended, Scratch, XDPGATE, is_root, run, text, wait_for};
use nix::sys::signal::{Signal, kill};

const UNIT: &str = include_str!("../packaging/xdpgated.service");

struct Scene {
    host: Namespace,
    scratch: Scratch,
    server: String,
    pins: PathBuf,
}

impl Scene {
    /// A host with `xg0` and a BPF file system.
    fn new() -> Self {
        let host = Namespace::new();
        host.ip("link add xg0 type veth peer name nb0");
        host.ip("link set xg0 up");
        host.ip("link set nb0 up");
        let scratch = Scratch::new();
        let bpffs = scratch.path("bpffs");
        host.mount_bpffs(&bpffs);
        Self {
            host,
            server: format!("unix:{}", text(&scratch.path("xdpgated.sock"))),
            pins: bpffs.join("xdpgate"),
            scratch,
        }
    }

    fn command(&self) -> Command {
        let mut command = daemon(&self.server, &[]);
        command
            .env("XDPGATED_INTERFACES_CLASS", "none")
            .env("XDPGATED_INTERFACES_INCLUDE", "xg0")
            .env("XDPGATED_PINS_PINNING", "require")
            .env("XDPGATED_PINS_ROOT", &self.pins);
        command
    }

    fn is_pinned(&self) -> bool {
        self.host.run(|| self.pins.exists())
    }

    fn unload(&self) -> Ended {
        let pins = text(&self.pins);
        self.host
            .run(|| run(XDPGATE, ["unload", "--pin", pins.as_str()]))
    }
}

/// A service manager: what it is told, datagram by datagram.
struct Manager(UnixDatagram);

impl Manager {
    fn new(scratch: &Scratch) -> (Self, PathBuf) {
        let path = scratch.path("notify.sock");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        let wait = Duration::from_secs(10);
        socket.set_read_timeout(Some(wait)).expect("set");
        (Self(socket), path)
    }

    /// Reads until something with this line comes; gives that, and how many were `WATCHDOG=1` before.
    #[track_caller]
    fn until(&self, line: &str) -> (String, usize) {
        let mut alive = 0;
        loop {
            let mut buffer = [0; 4096];
            let length = match self.0.recv(&mut buffer) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => panic!("waited in vain for {line}"),
                length => length.expect("a datagram"),
            };
            let said = String::from_utf8_lossy(&buffer[..length]).into_owned();
            alive += usize::from(said.trim() == "WATCHDOG=1");
            if said.lines().any(|l| l.starts_with(line)) {
                return (said, alive);
            }
        }
    }
}

#[test]
fn the_service_manager_is_told() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let (manager, socket) = Manager::new(&scene.scratch);
    let file = scene.scratch.file("xdpgated.toml", "");
    let mut command = scene.command();
    command
        .env("NOTIFY_SOCKET", &socket)
        .env("WATCHDOG_USEC", "400000")
        .args(["--config", &file]);
    let daemon = Daemon::start_with(&scene.host, &scene.server, command);
    let (ready, early) = manager.until("READY=1");
    assert_eq!(early, 0, "it is not alive before it is ready");
    let expected = "STATUS=no policy yet, 1 interface, dry run";
    assert!(ready.lines().any(|l| l == expected), "{ready}");
    // The API answers by then.
    daemon.ask(&["status"]).ok();

    let policy = scene.scratch.file("policy.yaml", "version: 1\n");
    daemon.ask(&["policy", "apply", &policy]).ok();
    let (status, _) = manager.until("STATUS=policy generation 1");
    assert!(status.contains("1 interface, dry run"), "{status}");
    // Ten of them at half of the time that was asked for; a machine that stands still for a moment
    // does not do so each time.
    let ten = || {
        let first = std::time::Instant::now();
        for _ in 0..10 {
            manager.until("WATCHDOG=1");
        }
        first.elapsed()
    };
    let took: Vec<Duration> = std::iter::repeat_with(ten).take(3).collect();
    assert!(
        took.iter()
            .any(|took| *took < Duration::from_millis(10 * 400)),
        "each within its time: {took:?}"
    );

    std::fs::write(&file, "enforce = true\n").expect("a file");
    kill(daemon.pid(), Signal::SIGHUP).expect("it runs");
    let (reloading, _) = manager.until("RELOADING=1");
    let time = reloading
        .lines()
        .find_map(|l| l.strip_prefix("MONOTONIC_USEC="));
    assert!(
        time.is_some_and(|t| t.parse::<u64>().is_ok()),
        "{reloading}"
    );
    let (ready, _) = manager.until("READY=1");
    assert!(
        ready.contains("STATUS=policy generation 1, 1 interface\n"),
        "{ready}"
    );

    // A reload that fails is over too.
    std::fs::write(&file, "enforce = 1\n").expect("a file");
    kill(daemon.pid(), Signal::SIGHUP).expect("it runs");
    manager.until("RELOADING=1");
    manager.until("READY=1");

    let (code, log) = daemon.stop(Signal::SIGTERM);
    assert_eq!(code, Some(0), "{log}");
    manager.until("STOPPING=1");
    scene.unload().ok();
}

/// A watchdog that is meant for another process is none of the daemon's.
#[test]
fn without_a_manager_nothing_is_told() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let (manager, socket) = Manager::new(&scene.scratch);
    let mut command = scene.command();
    command
        .env("NOTIFY_SOCKET", &socket)
        .env("WATCHDOG_USEC", "200000")
        .env("WATCHDOG_PID", "1");
    let daemon = Daemon::start_with(&scene.host, &scene.server, command);
    manager.until("READY=1");
    std::thread::sleep(Duration::from_millis(600));
    daemon.stop(Signal::SIGTERM);
    let (_, alive) = manager.until("STOPPING=1");
    assert_eq!(alive, 0);
    scene.unload().ok();
}

/// The capabilities that the unit leaves.
fn capabilities() -> Vec<String> {
    let line = UNIT
        .lines()
        .find_map(|l| l.strip_prefix("CapabilityBoundingSet="));
    let named = |name: &str| name.trim_start_matches("CAP_").to_lowercase();
    line.expect("a set").split_whitespace().map(named).collect()
}

/// The same command, as root with these capabilities and no others.
fn with_only(capabilities: &[String], command: &Command) -> Command {
    let mut set = "-all".to_owned();
    for capability in capabilities {
        set += &format!(",+{capability}");
    }
    let mut confined = Command::new("setpriv");
    confined
        .args([
            "--bounding-set",
            &set,
            "--inh-caps",
            "-all",
            "--no-new-privs",
        ])
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => confined.env(name, value),
            None => confined.env_remove(name),
        };
    }
    confined
}

fn link_id(daemon: &Daemon) -> serde_json::Value {
    let shown = daemon.json(&["interfaces"]);
    let interfaces = shown["interfaces"].as_array().expect("interfaces");
    let attached = interfaces.iter().find(|i| i["name"] == "xg0").expect("xg0");
    attached["attachment"]["link_id"].clone()
}

#[test]
fn r97_the_capabilities_of_the_unit_are_enough_for_a_start_and_a_restart() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let capabilities = capabilities();
    let policy = scene.scratch.file(
        "policy.yaml",
        "version: 1\nrules:\n  - { id: limit, match: { src: 192.0.2.7 }, action: { rate_limit: { \
         packets_per_second: 100, burst: 10 } } }\n  - { id: block, match: { src: '2001:db8::/32' }, \
         action: drop }\n",
    );
    let start = || {
        let command = with_only(&capabilities, &scene.command());
        Daemon::start_with(&scene.host, &scene.server, command)
    };
    let first = start();
    let effective = std::fs::read_to_string(format!("/proc/{}/status", first.pid()));
    let effective = effective.expect("it runs");
    let effective = effective.lines().find_map(|l| l.strip_prefix("CapEff:"));
    let effective = u64::from_str_radix(effective.expect("a line").trim(), 16).expect("a number");
    assert_eq!(
        effective.count_ones() as usize,
        capabilities.len(),
        "{effective:x}"
    );
    first.ask(&["policy", "apply", &policy]).ok();
    first.ask(&["preflight", "xg0"]).ok();
    let before = link_id(&first);
    assert!(before.is_u64(), "{before}");

    // A crash, and the next one takes over the same link.
    first.stop(Signal::SIGKILL);
    let second = start();
    assert_eq!(link_id(&second), before);
    assert!(
        second
            .log()
            .contains("the policy that was saved is in force"),
        "{}",
        second.log()
    );
    second.ask(&["policy", "apply", &policy]).ok();
    // Row 64: it ends in good order.
    let (code, log) = second.stop(Signal::SIGTERM);
    assert_eq!(code, Some(0), "{log}");
    assert!(scene.is_pinned());

    // Nothing is left when the last one is told so.
    let third = start();
    third.ask(&["stop", "--detach"]).ok();
    wait_for("its end", || (!scene.is_pinned()).then_some(()));
}

#[test]
fn r97_none_of_the_capabilities_can_be_spared() {
    if !is_root() {
        return;
    }
    let all = capabilities();
    assert!(!all.is_empty());
    for spared in &all {
        let scene = Scene::new();
        let rest: Vec<String> = all.iter().filter(|c| *c != spared).cloned().collect();
        let mut command = with_only(&rest, &scene.command());
        let ended: Ended = scene.host.run(|| command.output()).expect("setpriv").into();
        assert_eq!(ended.code, Some(1), "without {spared}: {ended}");
        assert!(
            ended.stderr.contains("CAP_BPF, CAP_PERFMON"),
            "without {spared}: {ended}"
        );
    }
}
