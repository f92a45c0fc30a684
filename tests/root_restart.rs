//! What is left when a process ends, and what the next one makes of it. Each "process" here is a
//! firewall that is loaded and dropped; `root_kill` does the same with processes that are killed.
#![cfg(feature = "kernel")]

#[allow(dead_code, unreachable_pub, reason = "shared with other tests")]
mod common {
    pub mod netns;
    pub mod packet;
}

use std::fs;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::netns::{self, Wire, index, sh, veth};
use common::packet::udp_from as frame;
use libbpf_rs::query::{LinkInfo, LinkTypeInfo};
use libbpf_rs::{MapCore, MapFlags, MapHandle, Xdp, XdpFlags};
use tempfile::TempDir;
use xdpgate::policy::{Policy, SetName};
use xdpgate::{
    BanScope, Firewall, HealthError, IfIndex, LoadError, Loader, ModePreference, PinError, Pinning,
    RuleStats, Stats, unpin,
};

const POLICY: &str = "
version: 1
failsafe: none
sets: { bad: { entries: [203.0.113.0/24, 198.18.0.1], counters: entry } }
rules:
  - { id: block, match: { src: '@bad' }, action: drop }
  - { id: slow, match: { src: 192.0.2.1 }, action: { rate_limit: { packets_per_second: 1, burst: 5 } } }
";

/// With another rule before.
const OTHER: &str = "
version: 1
failsafe: none
rules: [{ id: former, match: { src: 198.51.100.0/24 }, action: drop }]
";

/// Where a test keeps what outlives its firewalls, and a wire.
struct Ground {
    pins: PathBuf,
    state: TempDir,
    sender: Wire,
    receiver: Wire,
}

impl Ground {
    fn new(test: &str) -> Self {
        let mount = std::env::temp_dir().join(format!("xdpgate-{test}-{}", std::process::id()));
        netns::mount_bpffs(&mount);
        veth("a0", "b0");
        Self {
            pins: mount.join("pins"),
            state: TempDir::new().unwrap(),
            sender: Wire::open("b0"),
            receiver: Wire::open("a0"),
        }
    }

    fn loader(&self, pinning: Pinning) -> Loader {
        Firewall::loader()
            .pin(pinning)
            .pin_root(&self.pins)
            .state_dir(self.state.path())
    }

    /// Sends frames from these sources; returns how many come through.
    fn send(&self, sources: &[&str]) -> usize {
        for source in sources {
            self.sender.send(&frame(source));
        }
        let received = std::iter::from_fn(|| self.receiver.receive());
        received.count()
    }

    fn names(&self) -> Vec<String> {
        names(&self.pins)
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten();
    let mut names: Vec<String> = entries
        .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn policy(text: &str) -> Policy {
    Policy::from_yaml(text).unwrap()
}

/// The program of a link, as long as it is attached. (Other tests have interfaces of the same numbers.)
fn program_of(link_id: u32) -> Option<u32> {
    // SAFETY: takes a number only.
    let fd = unsafe { libbpf_rs::libbpf_sys::bpf_link_get_fd_by_id(link_id) };
    if fd < 0 {
        return None;
    }
    // SAFETY: a new file descriptor that nobody else owns.
    let link = unsafe { OwnedFd::from_raw_fd(fd) };
    let link = LinkInfo::from_fd(link.as_fd()).unwrap();
    match link.info {
        LinkTypeInfo::Xdp(xdp) if xdp.ifindex != 0 => Some(link.prog_id),
        _ => None,
    }
}

/// The program of an interface, however it was attached.
fn program_on(interface: IfIndex) -> u32 {
    // Any descriptor will do for a question.
    let probe = MapHandle::create(
        libbpf_rs::MapType::Array,
        Some("probe"),
        4,
        4,
        1,
        &libbpf_rs::libbpf_sys::bpf_map_create_opts {
            sz: size_of::<libbpf_rs::libbpf_sys::bpf_map_create_opts>() as _,
            ..Default::default()
        },
    )
    .unwrap();
    let xdp = Xdp::new(probe.as_fd());
    xdp.query_id(interface.get() as i32, XdpFlags::NONE)
        .unwrap()
}

fn rule<'s>(stats: &'s Stats, id: &str) -> &'s RuleStats {
    stats.rules.iter().find(|r| r.id.as_str() == id).unwrap()
}

fn entry_packets(firewall: &Firewall) -> Vec<u64> {
    let set = SetName::new("bad").unwrap();
    let counted = firewall.entry_counters(&set).unwrap();
    counted.iter().map(|e| e.matched.packets).collect()
}

#[test]
fn r58_r59_a_restart_keeps_link_policy_counters_bans_and_rate_state() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        let ground = Ground::new("restart");
        let a0 = index("a0");
        let first = ground
            .loader(Pinning::Require)
            .dry_run(false)
            .load()
            .unwrap();
        assert_eq!(first.pin_root(), Some(ground.pins.as_path()));
        first.apply(&policy(POLICY)).unwrap();
        let attached = first.attach(a0, ModePreference::BestAvailable).unwrap();
        first
            .ban(
                "192.0.2.77".parse().unwrap(),
                BanScope::Source,
                Duration::from_secs(600),
            )
            .unwrap();
        // The burst of `slow` is used up: 5 of 8 pass.
        let spent = Instant::now();
        assert_eq!(ground.send(&["192.0.2.1"; 8]), 5);
        assert_eq!(ground.send(&["203.0.113.5", "192.0.2.77", "192.0.2.9"]), 1);
        let before = first.stats();
        let (generation, program) = (first.generation().unwrap(), program_on(a0));
        assert_eq!(entry_packets(&first), [0, 1]);
        drop(first);

        // Nobody is there: all goes on.
        assert_eq!(program_of(attached.link_id), Some(program));
        let sources = ["203.0.113.5", "192.0.2.77", "192.0.2.1", "192.0.2.9"];
        assert!(ground.send(&sources) <= 2, "192.0.2.1 may have earned one");

        let second = ground.loader(Pinning::Require).load().unwrap();
        assert!(!second.dry_run(), "as it was");
        let now = second.attachments();
        assert_eq!(now.len(), 1);
        assert_eq!(now[0].link_id, attached.link_id, "the same link");
        assert_eq!(now[0].mode, attached.mode);
        assert_ne!(now[0].program_id, program, "another program");
        assert_eq!(program_on(a0), now[0].program_id);
        assert!(second.generation().unwrap() > generation);
        assert_eq!(*second.policy().unwrap(), policy(POLICY));

        let after = second.stats();
        let counts = |stats: &Stats| stats.interfaces[0].counts.total().packets;
        assert_eq!(counts(&after), counts(&before) + 4);
        assert_eq!(rule(&after, "block").dropped, 2);
        assert_eq!(rule(&after, "slow").matched.packets, 9);
        assert_eq!(entry_packets(&second), [0, 2]);
        let bans = second.bans();
        assert_eq!((bans.len(), bans[0].packets), (1, 2));
        // The rule is at its limit still, and the ban holds.
        let passed = ground.send(&["192.0.2.1"; 8]) as u64;
        let earned = spent.elapsed().as_secs() + 1;
        assert!(passed <= earned, "{passed} of {earned}");
        assert_eq!(ground.send(&["192.0.2.77", "192.0.2.9"]), 1);
        assert!(second.unban("192.0.2.77".parse().unwrap(), BanScope::Source));
        assert_eq!(ground.send(&["192.0.2.77"]), 1);
        second.health().unwrap();
        assert_eq!(ground.names(), ["1", "links"]);

        let third = ground.loader(Pinning::Require).load();
        let in_use = third.unwrap_err();
        assert!(
            matches!(in_use, LoadError::Pin(PinError::InUse { .. })),
            "{in_use}"
        );
        assert!(matches!(unpin(&ground.pins), Err(PinError::InUse { .. })));
        second.detach(a0).unwrap();
        assert_eq!((program_of(attached.link_id), program_on(a0)), (None, 0));
    });
}

#[test]
fn r63_uninstalling_leaves_nothing() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        let ground = Ground::new("uninstall");
        let a0 = index("a0");
        let first = ground.loader(Pinning::Auto).load().unwrap();
        first.apply(&policy(POLICY)).unwrap();
        let attached = first.attach(a0, ModePreference::BestAvailable).unwrap();
        drop(first);
        assert_eq!(program_of(attached.link_id), Some(program_on(a0)));
        let second = ground.loader(Pinning::Auto).load().unwrap();
        second.uninstall().unwrap();
        drop(second);
        assert_eq!((program_of(attached.link_id), program_on(a0)), (None, 0));
        assert!(!ground.pins.exists());

        // The same by somebody else, without a process.
        let firewall = ground.loader(Pinning::Auto).load().unwrap();
        firewall.attach(a0, ModePreference::BestAvailable).unwrap();
        drop(firewall);
        assert_ne!(program_on(a0), 0);
        unpin(&ground.pins).unwrap();
        netns::wait_until("the interface to be free", || program_on(a0) == 0);
        assert!(!ground.pins.exists());
    });
}

#[test]
fn r60_pinning_does_as_it_is_named() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        let ground = Ground::new("named");
        let a0 = index("a0");
        // Without a BPF file system.
        let elsewhere = ground.state.path().join("pins");
        let load = |pinning| ground.loader(pinning).pin_root(&elsewhere).load();
        let refused = load(Pinning::Require).unwrap_err();
        assert!(
            matches!(refused, LoadError::Pin(PinError::NotBpffs { .. })),
            "{refused}"
        );
        for pinning in [Pinning::Auto, Pinning::Off] {
            let firewall = load(pinning).unwrap();
            assert_eq!(firewall.pin_root(), None);
            firewall.attach(a0, ModePreference::BestAvailable).unwrap();
            drop(firewall);
            assert_eq!(program_on(a0), 0, "it ended with its process");
        }
        assert!(!elsewhere.exists());

        // With one: what a pinned firewall left is taken over without a gap, and ends with this one.
        let pinned = ground.loader(Pinning::Auto).dry_run(false).load().unwrap();
        // Slots in another order than a first policy would have them, and flows of other generations.
        pinned.apply(&policy(OTHER)).unwrap();
        let attached = pinned.attach(a0, ModePreference::BestAvailable).unwrap();
        assert_eq!(
            ground.send(&["198.51.100.9", "198.51.100.9", "192.0.2.9"]),
            1
        );
        pinned.apply(&policy(POLICY)).unwrap();
        assert_eq!(ground.send(&["203.0.113.5", "192.0.2.9"]), 1);
        assert_eq!(entry_packets(&pinned), [0, 1]);
        drop(pinned);
        let off = ground.loader(Pinning::Off).load().unwrap();
        assert!(!ground.pins.exists(), "stale pins are swept");
        assert_eq!(off.attachments()[0].link_id, attached.link_id);
        assert_eq!(ground.send(&["203.0.113.5", "192.0.2.9"]), 1);
        let stats = off.stats();
        assert_eq!(rule(&stats, "block").dropped, 2);
        assert_eq!(rule(&stats, "slow").matched.packets, 0, "nobody else's");
        assert_eq!(stats.interfaces[0].counts.total().packets, 7);
        assert_eq!(entry_packets(&off), [0, 2]);
        assert!(off.generation().unwrap().get() > 2);
        assert_eq!(off.pin_root(), None);
        drop(off);
        assert_eq!((program_of(attached.link_id), program_on(a0)), (None, 0));

        // Something else is in the directory.
        let theirs = ground.pins.join("theirs");
        fs::create_dir_all(&theirs).unwrap();
        let refused = ground.loader(Pinning::Auto).load().unwrap_err();
        assert!(
            matches!(refused, LoadError::Pin(PinError::Foreign { .. })),
            "{refused}"
        );
        assert!(theirs.exists());
    });
}

#[test]
fn other_sizes_keep_counters_and_bans() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        let ground = Ground::new("sizes");
        let a0 = index("a0");
        let first = ground.loader(Pinning::Auto).dry_run(false).load().unwrap();
        first.apply(&policy(POLICY)).unwrap();
        let attached = first.attach(a0, ModePreference::BestAvailable).unwrap();
        let ban = "192.0.2.77".parse().unwrap();
        first
            .ban(ban, BanScope::Source, Duration::from_secs(600))
            .unwrap();
        assert_eq!(
            ground.send(&["203.0.113.5", "203.0.113.6", "192.0.2.77", "192.0.2.9"]),
            1
        );
        drop(first);
        let sizes = ground.loader(Pinning::Auto).max_rules(100).max_bans(7);
        let second = sizes.max_interfaces(3).load().unwrap();
        assert_eq!(ground.names(), ["2", "links"], "the old ones are gone");
        assert!(!second.dry_run());
        assert_eq!(second.attachments()[0].link_id, attached.link_id);
        let stats = second.stats();
        assert_eq!(rule(&stats, "block").dropped, 2);
        assert_eq!(stats.interfaces[0].counts.total().packets, 4);
        assert_eq!(second.bans()[0].packets, 1);
        assert_eq!(ground.send(&["203.0.113.5", "192.0.2.77", "192.0.2.9"]), 1);
        assert_eq!(rule(&second.stats(), "block").dropped, 3);
        assert_eq!(second.bans()[0].packets, 2);
        // Once more, from maps that began with what others had counted.
        drop(second);
        let third = ground.loader(Pinning::Auto).max_rules(100).load().unwrap();
        assert_eq!(ground.names(), ["3", "links"]);
        let stats = third.stats();
        assert_eq!(rule(&stats, "block").dropped, 3);
        assert_eq!(stats.interfaces[0].counts.total().packets, 7);
    });
}

/// The pins of a directory as another version of xdpgate would have made them.
fn make_foreign_version(dir: &Path) {
    let layout = MapHandle::from_pinned_path(dir.join("layout")).unwrap();
    let mut value = layout
        .lookup(&0u32.to_ne_bytes(), MapFlags::ANY)
        .unwrap()
        .unwrap();
    value.extend([0; 8]);
    value[4..8].copy_from_slice(&u32::MAX.to_ne_bytes());
    let options = libbpf_rs::libbpf_sys::bpf_map_create_opts {
        sz: size_of::<libbpf_rs::libbpf_sys::bpf_map_create_opts>() as _,
        ..Default::default()
    };
    let array = libbpf_rs::MapType::Array;
    let size = value.len() as u32;
    let mut other = MapHandle::create(array, Some("layout"), 4, size, 1, &options).unwrap();
    other
        .update(&0u32.to_ne_bytes(), &value, MapFlags::ANY)
        .unwrap();
    fs::remove_file(dir.join("layout")).unwrap();
    other.pin(dir.join("layout")).unwrap();
    // And a map that this version does not know.
    other.pin(dir.join("novelty")).unwrap();
}

#[test]
fn r61_pins_of_another_version_judge_until_the_saved_policy_does() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        let ground = Ground::new("version");
        let a0 = index("a0");
        let first = ground.loader(Pinning::Auto).dry_run(false).load().unwrap();
        first.apply(&policy(POLICY)).unwrap();
        let attached = first.attach(a0, ModePreference::BestAvailable).unwrap();
        drop(first);
        make_foreign_version(&ground.pins.join("1"));

        // Without the saved policy nothing is swapped before there is one.
        let saved = ground.state.path().join("policy.yaml");
        let text = fs::read_to_string(&saved).unwrap();
        fs::remove_file(&saved).unwrap();
        let second = ground.loader(Pinning::Auto).load().unwrap();
        assert!(!second.dry_run(), "known from any version");
        assert_eq!(second.policy(), None);
        assert_eq!(second.attachments()[0].program_id, attached.program_id);
        assert_eq!(ground.send(&["203.0.113.5", "192.0.2.9"]), 1);
        assert_eq!(ground.names(), ["1", "2", "links"]);
        drop(second);

        // A saved policy that is none: nothing changes, and the file is named.
        fs::write(&saved, "version: 7\n").unwrap();
        let error = ground.loader(Pinning::Auto).load().unwrap_err();
        assert!(error.to_string().contains("policy.yaml"), "{error}");
        assert_eq!(program_on(a0), attached.program_id);
        assert_eq!(ground.send(&["203.0.113.5", "192.0.2.9"]), 1);

        fs::write(&saved, text).unwrap();
        let third = ground.loader(Pinning::Auto).load().unwrap();
        let now = third.attachments();
        assert_eq!(now[0].link_id, attached.link_id);
        assert_ne!(now[0].program_id, attached.program_id);
        assert_eq!(ground.send(&["203.0.113.5", "192.0.2.9"]), 1);
        assert_eq!(ground.names(), ["2", "links"]);
        assert_eq!(rule(&third.stats(), "block").dropped, 1, "anew");
    });
}

#[test]
fn a_start_that_fails_changes_nothing_of_what_is_in_force() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        let ground = Ground::new("fails");
        let a0 = index("a0");
        let first = ground.loader(Pinning::Auto).dry_run(false).load().unwrap();
        first.apply(&policy(POLICY)).unwrap();
        first.attach(a0, ModePreference::BestAvailable).unwrap();
        assert_eq!(ground.send(&["203.0.113.5", "192.0.2.9"]), 1);
        drop(first);
        // Room for one rule, the policy has two; dry run would be harmless, letting go would not.
        for pinning in [Pinning::Auto, Pinning::Off] {
            let small = ground.loader(pinning).max_rules(1).dry_run(true).load();
            let error = small.unwrap_err();
            assert!(matches!(error, LoadError::SavedPolicy { .. }), "{error}");
            assert_eq!(ground.names(), ["1", "links"]);
            assert_eq!(ground.send(&["203.0.113.5", "192.0.2.9"]), 1);
        }
        let again = ground.loader(Pinning::Auto).load().unwrap();
        assert!(!again.dry_run());
        assert_eq!(rule(&again.stats(), "block").dropped, 3, "nothing is lost");
        assert_eq!(entry_packets(&again), [0, 3]);
    });
}

#[test]
fn a_directory_of_others_is_left_alone() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        let ground = Ground::new("others");
        let map = |name: &str| {
            let options = libbpf_rs::libbpf_sys::bpf_map_create_opts {
                sz: size_of::<libbpf_rs::libbpf_sys::bpf_map_create_opts>() as _,
                ..Default::default()
            };
            let array = libbpf_rs::MapType::Array;
            MapHandle::create(array, Some(name), 4, 4, 1, &options).unwrap()
        };
        // As other programs keep theirs: links by name, and numbered folders.
        fs::create_dir_all(ground.pins.join("links")).unwrap();
        map("theirs")
            .pin(ground.pins.join("links").join("cil_x"))
            .unwrap();
        let refused = || {
            for error in [
                unpin(&ground.pins).unwrap_err(),
                match ground.loader(Pinning::Auto).load().unwrap_err() {
                    LoadError::Pin(error) => error,
                    error => panic!("{error}"),
                },
            ] {
                assert!(matches!(error, PinError::Foreign { .. }), "{error}");
            }
        };
        refused();
        assert_eq!(names(&ground.pins.join("links")), ["cil_x"]);
        fs::remove_file(ground.pins.join("links").join("cil_x")).unwrap();
        fs::create_dir(ground.pins.join("7")).unwrap();
        map("theirs")
            .pin(ground.pins.join("7").join("theirs"))
            .unwrap();
        refused();
        assert_eq!(names(&ground.pins.join("7")), ["theirs"]);
    });
}

#[test]
fn an_interface_that_goes_while_nobody_runs_is_forgotten() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        let ground = Ground::new("gone");
        veth("c0", "d0");
        let first = ground.loader(Pinning::Auto).load().unwrap();
        first.apply(&policy(POLICY)).unwrap();
        for name in ["a0", "c0"] {
            first
                .attach(index(name), ModePreference::BestAvailable)
                .unwrap();
        }
        drop(first);
        let links = ground.pins.join("links");
        assert_eq!(names(&links).len(), 2);
        sh("ip link del c0");
        sh("ip link set a0 down");
        sh("ip link set a0 name other0");
        let second = ground.loader(Pinning::Auto).load().unwrap();
        let now = second.attachments();
        assert_eq!(now.len(), 1);
        assert_eq!(now[0].name, "other0");
        assert_eq!(names(&links).len(), 1);
        // Of one that goes while a process runs, the pin goes too.
        sh("ip link del other0");
        netns::wait_until("the attachment to be forgotten", || {
            second.attachments().is_empty()
        });
        assert_eq!(names(&links).len(), 0);
    });
}

#[test]
fn r66_a_jump_that_is_broken_is_seen() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        let firewall = Firewall::loader().dry_run(false).load().unwrap();
        firewall.health().unwrap();
        firewall.apply(&policy(POLICY)).unwrap();
        firewall.health().unwrap();
        let entry = firewall.program_info().entry.id;
        // The map by which the entry program jumps; found as `bpftool prog` does.
        let mut maps = libbpf_rs::query::ProgInfoIter::with_query_opts(
            libbpf_rs::query::ProgInfoQueryOptions::default().include_map_ids(true),
        );
        let entry = maps.find(|p| p.id == entry).unwrap();
        let mut maps = entry.map_ids.iter().map(|id| MapHandle::from_map_id(*id));
        let slot = maps
            .find_map(|m| m.ok().filter(|m| m.name() == "policy_slot"))
            .unwrap();
        slot.delete(&0u32.to_ne_bytes()).unwrap();
        let error = firewall.health().unwrap_err();
        assert!(
            matches!(error, HealthError::NotJudging { found: None, .. }),
            "{error}"
        );
        firewall.apply(&policy(POLICY)).unwrap();
        firewall.health().unwrap();
    });
}

#[test]
fn what_cannot_be_saved_is_said() {
    if netns::skipped() {
        return;
    }
    let state = TempDir::new().unwrap();
    let dir = state.path().join("state");
    let firewall = Firewall::loader().state_dir(&dir).load().unwrap();
    let applied = firewall.apply(&policy(POLICY)).unwrap();
    assert_eq!(applied.not_saved, None);
    let text = fs::read_to_string(dir.join("policy.yaml")).unwrap();
    assert_eq!(policy(&text), policy(POLICY));
    fs::remove_dir_all(&dir).unwrap();
    let applied = firewall.apply(&policy(POLICY)).unwrap();
    let why = applied.not_saved.unwrap();
    assert!(why.contains("policy.yaml"), "{why}");
    assert_eq!(firewall.generation(), Some(applied.generation));
}
