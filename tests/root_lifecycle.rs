//! Loading, evaluating and pinning in the real kernel.
#![cfg(feature = "kernel")]

#[allow(dead_code, unreachable_pub, reason = "shared with other tests")]
mod common {
    pub mod netns;
    pub mod packet;
}

use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use common::netns::{self, Wire, index, veth};
use common::packet::{self, udp_from as frame};
use libbpf_rs::{MapHandle, ProgramHandle, Xdp, XdpFlags};
use nix::libc;
use xdpgate::policy::Policy;
use xdpgate::{
    EvaluateError, Firewall, IfIndex, LoadError, ModePreference, PinError, Reason, Verdict, unpin,
};

const BLOCK: &str = "
version: 1
failsafe: none
malformed: drop
rules:
  - { id: block, match: { src: 203.0.113.0/24 }, action: drop }
";

fn policy(text: &str) -> Policy {
    Policy::from_yaml(text).unwrap()
}

/// What a directory of pins holds, sorted.
const PINS: [&str; 17] = [
    "bans",
    "control",
    "evaluation",
    "event_budgets",
    "event_counters",
    "events",
    "flows",
    "interfaces",
    "layout",
    "policy_slot",
    "ports",
    "rate_budgets",
    "rate_overflows",
    "rate_sources",
    "rule_counters",
    "verdict_counters",
    "xdpgate",
];

#[test]
fn frames_are_evaluated_and_not_counted() {
    if netns::skipped() {
        return;
    }
    let firewall = Firewall::loader().load().unwrap();
    let evaluate = |bytes: &[u8]| {
        let evaluation = firewall.evaluate(bytes).unwrap();
        let rule = evaluation.rule.map(|r| r.as_str().to_owned());
        (evaluation.verdict, evaluation.reason, rule)
    };
    let bad = frame("203.0.113.9");
    assert_eq!(evaluate(&bad), (Verdict::Pass, Reason::NoPolicy, None));
    firewall.apply(&policy(BLOCK)).unwrap();
    assert!(firewall.dry_run());
    let blocked = (Verdict::Drop, Reason::Rule, Some("block".to_owned()));
    assert_eq!(evaluate(&bad), blocked);
    assert_eq!(
        evaluate(&frame("192.0.2.9")),
        (Verdict::Pass, Reason::Default, None)
    );
    for length in 0..14 {
        assert_eq!(
            evaluate(&bad[..length]),
            (Verdict::Drop, Reason::Malformed, None),
            "{length}"
        );
    }
    assert_eq!(
        evaluate(&bad[..14]),
        (Verdict::Drop, Reason::Malformed, None)
    );

    let long = |payload: usize| {
        packet::ip("203.0.113.9", "198.51.100.1")
            .udp(1, 2)
            .payload(&vec![0; payload])
    };
    assert_eq!(evaluate(&long(3030).build()), blocked);
    let limit = match firewall.program_info().frags {
        true => 64 << 10,
        false => 3072,
    };
    assert_eq!(evaluate(&long(limit - 42).length(1500).build()), blocked);
    match firewall.evaluate(&vec![0; limit + 1]) {
        Err(EvaluateError::TooLong { bytes, limit: said }) => {
            assert_eq!((bytes, said), (limit + 1, limit));
        }
        other => panic!("{other:?}"),
    }
    let stats = firewall.stats();
    assert_eq!(stats.other.total().packets, 0);
    assert_eq!(stats.rules[0].matched.packets, 0);
}

#[test]
fn an_evaluation_belongs_to_one_generation() {
    if netns::skipped() {
        return;
    }
    let firewall = Firewall::loader().load().unwrap();
    // The rule that blocks has another number and another name in each.
    let versions = ["first", "second"].map(|id| {
        let others: String = match id {
            "first" => String::new(),
            _ => (0..5)
                .map(|n| format!("  - {{ id: o{n}, match: {{ src: 10.0.{n}.0/24 }}, action: drop }}\n"))
                .collect(),
        };
        policy(&format!(
            "version: 1\nrules:\n{others}  - {{ id: {id}, match: {{ src: 203.0.113.0/24 }}, action: drop }}\n"
        ))
    });
    firewall.apply(&versions[0]).unwrap();
    let (done, bad) = (AtomicBool::new(false), frame("203.0.113.9"));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::SeqCst) {
                    let rule = firewall.evaluate(&bad).unwrap().rule.unwrap();
                    assert!(["first", "second"].contains(&rule.as_str()), "{rule}");
                }
            });
        }
        for turn in 0..30 {
            firewall.apply(&versions[turn % 2]).unwrap();
        }
        done.store(true, Ordering::SeqCst);
    });
}

/// A BPF file system of this test alone, and a directory of pins in it that is not there yet.
fn pin_directory(test: &str) -> PathBuf {
    let mount = std::env::temp_dir().join(format!("xdpgate-{test}-{}", std::process::id()));
    netns::mount_bpffs(&mount);
    mount.join("pins")
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = entries
        .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn what_is_pinned_goes_on_without_the_process() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        let dir = pin_directory("pinned");
        veth("a0", "b0");
        let firewall = Firewall::loader().dry_run(false).load().unwrap();
        firewall.apply(&policy(BLOCK)).unwrap();
        firewall.pin(&dir).unwrap();
        assert_eq!(names(&dir), PINS);
        let again = firewall.pin(&dir).unwrap_err();
        assert!(matches!(again, PinError::Exists { .. }), "{again}");
        drop(firewall);

        // As another loader would do it.
        let program = ProgramHandle::from_pinned_path(dir.join("xdpgate")).unwrap();
        Xdp::new(program.as_fd())
            .attach(index("a0").get() as i32, XdpFlags::DRV_MODE)
            .unwrap();
        let (sender, receiver) = (Wire::open("b0"), Wire::open("a0"));
        let good = frame("192.0.2.9");
        sender.send(&frame("203.0.113.9"));
        sender.send(&good);
        assert_eq!(receiver.receive(), Some(good));
        assert_eq!(receiver.receive(), None);

        unpin(&dir).unwrap();
        assert!(!dir.exists());
        let gone = unpin(&dir).unwrap_err();
        assert!(matches!(gone, PinError::NotPinned { .. }), "{gone}");
    });
}

/// A map of somebody else.
fn foreign_map(name: &str, value_size: u32) -> MapHandle {
    let options = libbpf_rs::libbpf_sys::bpf_map_create_opts {
        sz: size_of::<libbpf_rs::libbpf_sys::bpf_map_create_opts>() as u64 as _,
        ..Default::default()
    };
    let kind = libbpf_rs::MapType::Array;
    MapHandle::create(kind, Some(name), 4, value_size, 1, &options).unwrap()
}

#[test]
fn pins_of_others_under_our_names_stay() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        let dir = pin_directory("alike");
        fs::create_dir(&dir).unwrap();
        let refused = |expected: &[&str]| {
            let error = unpin(&dir).unwrap_err();
            assert!(matches!(error, PinError::NoLayout { .. }), "{error}");
            assert!(error.to_string().contains("\"layout\""), "{error}");
            assert_eq!(names(&dir), expected);
        };
        refused(&[]);
        for name in ["control", "interfaces"] {
            foreign_map(name, 64).pin(dir.join(name)).unwrap();
        }
        refused(&["control", "interfaces"]);
        // Another name, another size, another content, and no map.
        for (name, value_size) in [("theirs", 20), ("layout", 4), ("layout", 20)] {
            foreign_map(name, value_size)
                .pin(dir.join("layout"))
                .unwrap();
            refused(&["control", "interfaces", "layout"]);
            fs::remove_file(dir.join("layout")).unwrap();
        }
        let ours = Firewall::loader().load().unwrap();
        let program = ProgramHandle::from_prog_id(ours.program_info().entry.id).unwrap();
        program.pin(dir.join("layout")).unwrap();
        refused(&["control", "interfaces", "layout"]);
    });
}

#[test]
fn who_pins_first_keeps_the_pins() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        let dir = pin_directory("race");
        let firewalls = [(); 2].map(|()| Firewall::loader().load().unwrap());
        for _ in 0..50 {
            let start = Barrier::new(2);
            let pin = |firewall: &Firewall| {
                start.wait();
                firewall.pin(&dir)
            };
            let pinned = thread::scope(|scope| {
                let handles = [0, 1].map(|i| {
                    scope.spawn({
                        let (pin, firewall) = (&pin, &firewalls[i]);
                        move || pin(firewall).is_ok()
                    })
                });
                handles.map(|handle| handle.join().unwrap())
            });
            assert_ne!(pinned[0], pinned[1], "one of them");
            assert_eq!(names(&dir).len(), PINS.len());
            unpin(&dir).unwrap();
        }
    });
}

#[test]
fn what_is_not_ours_is_neither_used_nor_removed() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        let dir = pin_directory("foreign");
        let firewall = Firewall::loader().load().unwrap();
        fs::create_dir(&dir).unwrap();
        let mut map = foreign_map("theirs", 4);
        map.pin(dir.join("theirs")).unwrap();
        for error in [firewall.pin(&dir).unwrap_err(), unpin(&dir).unwrap_err()] {
            assert!(
                matches!(&error, PinError::Foreign { name, .. } if name == "theirs"),
                "{error}"
            );
        }
        assert_eq!(names(&dir), ["theirs"]);
        fs::remove_file(dir.join("theirs")).unwrap();
        firewall.pin(&dir).unwrap();
        map.pin(dir.join("theirs")).unwrap();
        assert!(matches!(unpin(&dir), Err(PinError::Foreign { .. })));
        assert_eq!(names(&dir).len(), PINS.len() + 1, "all or nothing");

        let elsewhere = std::env::temp_dir();
        let error = firewall.pin(elsewhere.join("xdpgate-pins")).unwrap_err();
        assert!(matches!(error, PinError::NotBpffs { .. }), "{error}");
        assert!(error.to_string().contains("mount -t bpf"), "{error}");
        assert!(!elsewhere.join("xdpgate-pins").exists());
        assert!(matches!(unpin(&elsewhere), Err(PinError::NotBpffs { .. })));
    });
}

const CAP_NET_ADMIN: u32 = 12;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// Leaves this thread only these capabilities.
fn keep_capabilities(kept: &[u32]) {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    #[repr(C)]
    struct Data {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    let mask = kept
        .iter()
        .fold(0u64, |mask, capability| mask | 1 << capability);
    let header = Header {
        version: 0x2008_0522,
        pid: 0,
    };
    let data = [mask as u32, (mask >> 32) as u32].map(|half| Data {
        effective: half,
        permitted: half,
        inheritable: 0,
    });
    // SAFETY: header and data are laid out as capset of version 3 wants them.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) };
    assert_eq!(result, 0);
}

#[test]
fn missing_capabilities_are_named() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        keep_capabilities(&[CAP_BPF]);
        match Firewall::loader().load() {
            Err(error @ LoadError::Capability(_)) => assert_eq!(
                error.to_string(),
                "no permission to load XDP programs: CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN are \
                 needed; run as root"
            ),
            other => panic!("{other:?}"),
        }
    });
}

/// Since 5.11. libbpf asks in the same way: by a helper that came at the same time.
fn charges_memory_to_cgroups() -> bool {
    use libbpf_rs::libbpf_sys::{BPF_FUNC_ktime_get_coarse_ns, BPF_PROG_TYPE_SOCKET_FILTER};
    // SAFETY: takes numbers only; no options.
    let said = unsafe {
        libbpf_rs::libbpf_sys::libbpf_probe_bpf_helper(
            BPF_PROG_TYPE_SOCKET_FILTER,
            BPF_FUNC_ktime_get_coarse_ns,
            std::ptr::null(),
        )
    };
    said == 1
}

#[test]
fn the_named_capabilities_suffice() {
    if netns::skipped() {
        return;
    }
    if !charges_memory_to_cgroups() {
        println!("skipped: memory for maps is under a limit that only CAP_SYS_RESOURCE may raise");
        return;
    }
    netns::run(|| {
        veth("a0", "b0");
        keep_capabilities(&[CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN]);
        let firewall = Firewall::loader().load().unwrap();
        firewall.apply(&policy(BLOCK)).unwrap();
        firewall
            .attach(index("a0"), ModePreference::BestAvailable)
            .unwrap();
        firewall.evaluate(&frame("203.0.113.9")).unwrap();
        firewall.detach(index("a0")).unwrap();
    });
}

#[test]
fn sizes_out_of_range_are_named() {
    if netns::skipped() {
        return;
    }
    for loader in [
        Firewall::loader().max_rules(0),
        Firewall::loader().max_rules(u32::MAX),
        Firewall::loader().max_interfaces(0),
    ] {
        match loader.load() {
            Err(LoadError::Limit { knob, .. }) => assert!(knob.starts_with("max_")),
            other => panic!("{other:?}"),
        }
    }
    let one = Firewall::loader()
        .max_interfaces(1)
        .max_rules(1)
        .load()
        .unwrap();
    assert_eq!(one.attachments(), []);
    assert_eq!(IfIndex::new(0), None);
}
