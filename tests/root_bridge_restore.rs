//! Ports of bridges are put back as they were: when the bridge or the firewall goes, and after a
//! process that was killed.
#![cfg(feature = "kernel")]

#[allow(dead_code, unreachable_pub, reason = "shared with other tests")]
mod common {
    pub mod bridged;
    pub mod netns;
    pub mod packet;
    pub mod places;
}

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use common::bridged::*;
use common::netns::{self, index, sh, skipped};
use xdpgate::{
    AttachError, Bridge, BridgeError, Filter, Firewall, LoadError, ModePreference, RestoreOutcome,
    restore_interfaces,
};

/// All that a bridge may change of an interface, as commands show it.
fn state(name: &str) -> String {
    let link = sh(&format!("ip -o link show {name}"));
    let flags = link.split(['<', '>']).nth(1).unwrap();
    let is_set = |flag: &str| flags.split(',').any(|f| f == flag);
    let (up, promiscuous) = (is_set("UP"), is_set("PROMISC"));
    let program = link.contains(" xdp");
    let features = sh(&format!("ethtool -k {name}"));
    format!("up {up} promiscuous {promiscuous}\nprogram {program}\n{features}")
}

fn states() -> [String; 2] {
    ["outer", "inner"].map(state)
}

/// Interfaces that have little in common before they become ports.
fn unlike_ports() {
    for port in ["outer", "inner"] {
        sh(&format!(
            "ip link add {port} type veth peer name {port}-peer"
        ));
    }
    sh("ip link set inner up promisc on");
    sh("ethtool -K inner rxvlan off gro on");
    sh("ethtool -K outer gro off");
}

fn is_prepared(state: &str) -> bool {
    state.starts_with("up true promiscuous true\n") && state.contains("rx-vlan-offload: off\n")
}

fn make(firewall: &Firewall) -> Result<(), BridgeError> {
    let bridge = Bridge::new(index("outer"), index("inner")).filter(Filter::Inbound);
    firewall.bridge(bridge).map(|_| ())
}

fn file_count(dir: &Path) -> usize {
    fs::read_dir(dir).map_or(0, |files| files.count())
}

#[test]
fn r48_a_bridge_that_goes_leaves_everything_as_it_was() {
    if skipped() {
        return;
    }
    netns::run(|| {
        unlike_ports();
        let before = states();
        assert!(before.iter().all(|state| !is_prepared(state)) || before[0] != before[1]);
        let dir = tempfile::tempdir().unwrap();
        let saved = dir.path().join("made/here");
        for with_files in [false, true] {
            let load = match with_files {
                true => loader().state_dir(&saved),
                false => loader(),
            };
            let firewall = load.load().unwrap();
            for _ in 0..2 {
                make(&firewall).unwrap();
                assert!(states().iter().all(|s| is_prepared(s)), "{:?}", states());
                assert_eq!(file_count(&saved), if with_files { 2 } else { 0 });
                firewall.unbridge(index("inner")).unwrap();
                assert_eq!(states(), before);
                assert_eq!(file_count(&saved), 0);
            }
            make(&firewall).unwrap();
            drop(firewall);
            assert_eq!(states(), before);
            assert_eq!(file_count(&saved), 0);
        }

        // Also from a thread that is in another namespace, and under another name.
        let firewall = loader().load().unwrap();
        make(&firewall).unwrap();
        sh("ip link set inner down");
        sh("ip link set inner name renamed");
        thread::spawn(|| netns::run(move || drop(firewall)))
            .join()
            .unwrap();
        sh("ip link set renamed down");
        sh("ip link set renamed name inner");
        sh("ip link set inner up");
        assert_eq!(states(), before);
    });
}

#[test]
fn r48_a_bridge_in_generic_mode_too() {
    if skipped() {
        return;
    }
    netns::run(|| {
        unlike_ports();
        let before = states();
        let firewall = loader().load().unwrap();
        let generic = ModePreference::Exactly(xdpgate::AttachMode::Generic);
        let bridge = Bridge::new(index("outer"), index("inner")).mode(generic);
        firewall.bridge(bridge).unwrap();
        for state in states() {
            let merging = "generic-receive-offload: off\n";
            assert!(is_prepared(&state) && state.contains(merging), "{state}");
        }
        firewall.unbridge(index("outer")).unwrap();
        assert_eq!(states(), before);
    });
}

#[test]
fn r48_what_cannot_be_made_leaves_everything_as_it_was() {
    if skipped() {
        return;
    }
    netns::run(|| {
        unlike_ports();
        let before = states();
        let dir = tempfile::tempdir().unwrap();
        let firewall = loader().state_dir(dir.path()).load().unwrap();
        let (outer, inner) = (index("outer"), index("inner"));

        let plain = Firewall::loader().load().unwrap();
        let error = make(&plain).unwrap_err();
        assert!(matches!(error, BridgeError::NotLoaded), "{error}");
        assert!(error.to_string().contains("fast_forward(true)"), "{error}");
        let error = firewall.bridge(Bridge::new(outer, outer)).unwrap_err();
        assert!(matches!(error, BridgeError::SamePort { .. }), "{error}");
        let nowhere = xdpgate::IfIndex::new(4711).unwrap();
        for bridge in [Bridge::new(outer, nowhere), Bridge::new(nowhere, inner)] {
            let error = firewall.bridge(bridge).unwrap_err();
            let there = matches!(error, BridgeError::Attach(AttachError::NoSuchInterface(i)) if i == nowhere);
            assert!(there, "{error}");
        }
        let error = firewall.unbridge(outer).unwrap_err();
        assert!(matches!(error, BridgeError::NotBridged(i) if i == outer));

        // The second port has a program of somebody else, the first one is undone.
        for taken in [inner, outer] {
            plain.attach(taken, ModePreference::BestAvailable).unwrap();
            let error = make(&firewall).unwrap_err();
            let foreign = matches!(error, BridgeError::Attach(AttachError::Foreign { .. }));
            assert!(foreign, "{error}");
            assert_eq!(firewall.attachments(), []);
            plain.detach(taken).unwrap();
        }
        // One that is attached already becomes a port, and is attached afterwards.
        let attached = firewall
            .attach(inner, ModePreference::BestAvailable)
            .unwrap();
        make(&firewall).unwrap();
        assert_eq!(firewall.attachments().len(), 2);
        firewall.unbridge(outer).unwrap();
        assert_eq!(firewall.attachments(), [attached]);
        firewall.detach(inner).unwrap();
        assert_eq!(states(), before);
        assert_eq!(file_count(dir.path()), 0);
        assert_eq!(firewall.bridges(), []);

        // Ports are attached and detached as a bridge only, and in one bridge each.
        make(&firewall).unwrap();
        let error = make(&firewall).unwrap_err();
        assert!(matches!(error, BridgeError::InBridge { .. }), "{error}");
        for error in [
            firewall.detach(outer).unwrap_err(),
            firewall
                .attach(inner, ModePreference::BestAvailable)
                .unwrap_err(),
        ] {
            assert!(matches!(error, AttachError::InBridge { .. }), "{error}");
        }
        firewall.unbridge(outer).unwrap();
        assert_eq!(states(), before);
    });
}

/// A process that has the bridge made in the namespace of the calling thread, until it is killed.
struct Bridging {
    child: Child,
    /// Its output has a reader for as long as it lives.
    _output: Box<dyn Iterator<Item = String>>,
}

const STATE_DIR: &str = "XDPGATE_TEST_BRIDGE_STATE_DIR";
const SAYS: [&str; 2] = ["loaded", "bridged"];

impl Bridging {
    /// Starts it and waits until it has said this.
    fn start(dir: &Path, until: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "--ignored",
                "--nocapture",
                "the_process_that_is_killed",
            ])
            .env(STATE_DIR, dir)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut lines = lines.map(|line| line.unwrap());
        assert!(lines.any(|line| line == until), "never {until}");
        Self {
            child,
            _output: Box::new(lines),
        }
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        let status = self.child.wait().unwrap();
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&status),
            Some(9)
        );
    }
}

#[test]
#[ignore = "started by the tests below"]
fn the_process_that_is_killed() {
    let dir = std::env::var_os(STATE_DIR).expect("started by a test");
    let firewall = loader().state_dir(dir).load().unwrap();
    println!("{}", SAYS[0]);
    make(&firewall).unwrap();
    println!("{}", SAYS[1]);
    thread::sleep(Duration::from_secs(60));
}

#[test]
fn r48_a_process_that_was_killed() {
    if skipped() {
        return;
    }
    netns::run(|| {
        unlike_ports();
        let before = states();
        let dir = tempfile::tempdir().unwrap();
        let outcomes = || {
            let all = restore_interfaces(dir.path()).unwrap();
            let all = all.into_iter().map(|r| (r.name, r.outcome));
            all.collect::<Vec<_>>()
        };
        let both = |outcome: RestoreOutcome| {
            vec![
                ("inner".to_owned(), outcome.clone()),
                ("outer".to_owned(), outcome),
            ]
        };

        let bridging = Bridging::start(dir.path(), SAYS[1]);
        // While it lives, nobody restores what it uses.
        let (used, files) = (states(), file_count(dir.path()));
        assert_eq!(files, 2);
        assert_eq!(outcomes(), both(RestoreOutcome::InUse));
        let error = loader().state_dir(dir.path()).load().unwrap_err();
        assert!(matches!(error, LoadError::StateDir { .. }), "{error}");
        assert_eq!((states(), file_count(dir.path())), (used.clone(), files));
        bridging.kill();
        let left = used
            .clone()
            .map(|state| state.replace("program true", "program false"));
        assert_eq!(states(), left, "nobody was there to put it back");
        // Somebody in another namespace leaves it alone.
        netns::run(|| assert_eq!(outcomes(), both(RestoreOutcome::OtherNamespace)));
        assert_eq!(outcomes(), both(RestoreOutcome::Restored));
        assert_eq!(states(), before);
        assert_eq!(outcomes(), []);

        // Killed twice, then a start that ends well: the first originals are those that count.
        for _ in 0..2 {
            Bridging::start(dir.path(), SAYS[1]).kill();
            assert_eq!(states(), left);
        }
        let firewall = loader().state_dir(dir.path()).load().unwrap();
        make(&firewall).unwrap();
        assert_eq!(states(), used);
        drop(firewall);
        assert_eq!(states(), before);
        assert_eq!(file_count(dir.path()), 0);
    });
}

#[test]
fn r48_a_process_that_was_killed_at_any_moment() {
    if skipped() {
        return;
    }
    netns::run(|| {
        unlike_ports();
        let before = states();
        let dir = tempfile::tempdir().unwrap();
        let mut changed = 0;
        for round in 0..24 {
            let bridging = Bridging::start(dir.path(), SAYS[0]);
            thread::sleep(Duration::from_micros(round * 2000));
            bridging.kill();
            changed += usize::from(states() != before);
            restore_interfaces(dir.path()).unwrap();
            assert_eq!(states(), before, "round {round}");
            let left = fs::read_dir(dir.path()).unwrap();
            let left = left.map(|file| file.unwrap().file_name().into_string().unwrap());
            assert!(left.into_iter().all(|name| name.ends_with(".tmp")));
        }
        println!("killed after changes: {changed} of 24");
        assert!(changed > 0);
    });
}

#[test]
fn r48_another_interface_is_left_alone() {
    if skipped() {
        return;
    }
    netns::run(|| {
        unlike_ports();
        let dir = tempfile::tempdir().unwrap();
        let (outer, inner) = (index("outer"), index("inner"));
        Bridging::start(dir.path(), SAYS[1]).kill();
        for port in ["outer", "inner"] {
            sh(&format!("ip link del {port}"));
        }
        // One number went to an interface of another name, one to none.
        sh(&format!(
            "ip link add other index {outer} type veth peer name other-peer"
        ));
        sh("ip link set other promisc on");
        let before = state("other");
        let all = restore_interfaces(dir.path()).unwrap();
        let outcome = |of| &all.iter().find(|r| r.ifindex == of).unwrap().outcome;
        assert_eq!(*outcome(inner), RestoreOutcome::Gone);
        let by = "other".to_owned();
        assert_eq!(*outcome(outer), RestoreOutcome::Replaced { by });
        assert_eq!(state("other"), before);
        assert_eq!(file_count(dir.path()), 1, "for whoever knows better");

        // The same name, another address.
        sh("ip link del other");
        sh(&format!(
            "ip link add outer index {outer} type veth peer name other-peer"
        ));
        sh("ip link set outer promisc on");
        let before = state("outer");
        let all = restore_interfaces(dir.path()).unwrap();
        let by = "outer".to_owned();
        assert_eq!(all[0].outcome, RestoreOutcome::Replaced { by });
        assert_eq!(state("outer"), before);

        // A file that is not ours to believe.
        let path = fs::read_dir(dir.path())
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path();
        fs::write(&path, "half a").unwrap();
        let error = restore_interfaces(dir.path()).unwrap_err();
        assert!(matches!(error, BridgeError::Corrupt { .. }), "{error}");
        assert!(path.exists());
    });
}
