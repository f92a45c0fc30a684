//! What the client does with the kernel and without a daemon: `eval`, `load`, `unload`.

mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use common::namespace::Namespace;
use common::{
    Ended, Scratch, TOO_SLOW, XDPGATE, captures, copy_program, frames, is_root, run, text, xdpgate,
};

const POLICY: &str = "
version: 1
malformed: drop
sets:
  bad-hosts: { entries: [203.0.113.7, '2001:db8::/32'] }
rules:
  - { id: allow-office, match: { src: 192.0.2.0/24 }, action: pass }
  - { id: block-bad, match: { src: '@bad-hosts' }, action: drop }
  - { id: block-dns, match: { dport: 53 }, action: drop }
";

fn sample() -> Vec<Vec<u8>> {
    let mut cut = frames::udp("198.51.100.9", "192.0.2.10", 80);
    cut.truncate(20);
    vec![
        frames::udp("192.0.2.1", "192.0.2.10", 53),
        frames::udp("203.0.113.7", "192.0.2.10", 80),
        frames::udp("2001:db8::1", "2001:db9::1", 53),
        frames::udp("203.0.113.8", "192.0.2.10", 80),
        frames::udp("203.0.113.8", "192.0.2.10", 53),
        frames::arp(),
        cut,
        vec![0; 13],
        vec![],
    ]
}

const NOBODY: [&str; 3] = ["--reuid=65534", "--regid=65534", "--clear-groups"];

#[test]
fn r108_kernel_and_oracle_say_the_same() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let policy = scratch.file("policy.yaml", POLICY);
    let pcap = scratch.file("sample.pcap", captures::simple(&sample()));
    for form in [&["--json"][..], &[]] {
        let arguments = [&["eval", "--policy", &policy, "--pcap", &pcap], form].concat();
        let kernel = xdpgate(&arguments).ok();
        let oracle = xdpgate([&arguments[..], &["--oracle"]].concat()).ok();
        assert_eq!(kernel, oracle);
        assert!(kernel.contains("block-dns"), "{kernel}");
    }
}

#[test]
fn r108_what_the_kernel_cannot_judge_is_said() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let policy = scratch.file("policy.yaml", POLICY);
    let slow = scratch.file("slow.yaml", TOO_SLOW);
    let pcap = scratch.file("sample.pcap", captures::simple(&sample()));
    xdpgate(["eval", "--json", "--policy", &slow, "--pcap", &pcap]).refused(
        2,
        &["slow.yaml: ", "rule slow", "let it be at most", "--oracle"],
    );
    let long = scratch.file("long.pcap", captures::simple(&[vec![0; 100_000]]));
    xdpgate(["eval", "--json", "--policy", &policy, "--pcap", &long])
        .refused(1, &["long.pcap: frame 0", "too long", "--oracle"]);

    let program = anybody_may_run(&scratch);
    let arguments = ["eval", "--json", "--policy", &policy, "--pcap", &pcap];
    run("setpriv", [&NOBODY[..], &[&program], &arguments].concat())
        .refused(1, &["no permission", "--oracle"]);
}

/// A mount namespace with a BPF file system of its own.
struct Pins {
    namespace: Namespace,
    scratch: Scratch,
    dir: String,
}

impl Pins {
    fn new() -> Self {
        let (namespace, scratch) = (Namespace::new(), Scratch::new());
        let bpffs = scratch.path("bpf");
        std::fs::create_dir(&bpffs).expect("a directory");
        namespace
            .run(|| run("mount", ["-t", "bpf", "bpf", &text(&bpffs)]))
            .ok();
        let dir = text(&bpffs.join("pins"));
        Self {
            namespace,
            scratch,
            dir,
        }
    }

    fn xdpgate(&self, arguments: &[&str]) -> Ended {
        self.namespace.run(|| xdpgate(arguments))
    }

    fn load(&self, policy: &str, more: &[&str]) -> Ended {
        self.xdpgate(&[&["load", "--policy", policy, "--pin", &self.dir], more].concat())
    }

    fn unload(&self) -> Ended {
        self.xdpgate(&["unload", "--pin", &self.dir])
    }

    fn exists(&self) -> bool {
        self.namespace.run(|| Path::new(&self.dir).exists())
    }

    /// What the pinned program returns for a frame, by `bpftool prog run`: another tool than ours.
    fn returns(&self, frame: &[u8]) -> u64 {
        let frame = self.scratch.file("frame", frame);
        let pinned = format!("{}/xdpgate", self.dir);
        let arguments = ["-j", "prog", "run", "pinned", &pinned, "data_in", &frame];
        let said = self.namespace.run(|| run("bpftool", arguments)).ok();
        let said: serde_json::Value = serde_json::from_str(&said).expect("JSON");
        said["retval"].as_u64().expect("a number")
    }
}

const XDP_DROP: u64 = 1;
const XDP_PASS: u64 = 2;

#[test]
fn pinned_programs_judge_and_go() {
    if !is_root() {
        return;
    }
    let pins = Pins::new();
    let policy = pins.scratch.file("policy.yaml", POLICY);
    let bad = frames::udp("203.0.113.7", "192.0.2.10", 80);
    let good = frames::udp("203.0.113.8", "192.0.2.10", 80);
    for (more, verdict) in [
        (&["--no-frags"][..], XDP_DROP),
        (&[], XDP_DROP),
        (&["--dry-run"], XDP_PASS),
    ] {
        assert_eq!(pins.load(&policy, more).ok(), "");
        assert_eq!(
            (pins.returns(&bad), pins.returns(&good)),
            (verdict, XDP_PASS),
            "{more:?}"
        );
        assert_eq!(pins.unload().ok(), "");
        assert!(!pins.exists());
    }
}

#[test]
fn pins_are_never_overwritten() {
    if !is_root() {
        return;
    }
    let pins = Pins::new();
    let policy = pins.scratch.file("policy.yaml", POLICY);
    let bad = frames::udp("203.0.113.7", "192.0.2.10", 80);
    pins.load(&policy, &[]).ok();
    pins.load(&policy, &["--dry-run"])
        .refused(1, &["holds pins already", "xdpgate unload --pin"]);
    assert_eq!(pins.returns(&bad), XDP_DROP);
    pins.unload().ok();
    pins.unload().refused(1, &["no such directory"]);
}

#[test]
fn a_load_that_fails_leaves_nothing() {
    if !is_root() {
        return;
    }
    let pins = Pins::new();
    let scratch = &pins.scratch;
    let policy = scratch.file("policy.yaml", POLICY);
    let wrong = scratch.file("wrong.yaml", "version: 1\nrulez: []\n");
    pins.load(&wrong, &[])
        .refused(2, &["wrong.yaml: 2:1", "rulez"]);
    let slow = scratch.file("slow.yaml", TOO_SLOW);
    pins.load(&slow, &[])
        .refused(2, &["slow.yaml: ", "rule slow", "let it be at most"]);
    assert!(!pins.exists());

    let elsewhere = text(&scratch.path("elsewhere"));
    pins.xdpgate(&["load", "--policy", &policy, "--pin", &elsewhere])
        .refused(1, &["elsewhere: not on a BPF file system", "mount -t bpf"]);
    assert!(!Path::new(&elsewhere).exists());
    pins.xdpgate(&["unload", "--pin", &text(&scratch.path("."))])
        .refused(1, &["not on a BPF file system"]);
    assert!(Path::new(&policy).exists());

    let program = anybody_may_run(scratch);
    let arguments = ["load", "--policy", &policy, "--pin", &pins.dir];
    pins.namespace
        .run(|| run("setpriv", [&NOBODY[..], &[&program], &arguments].concat()))
        .refused(1, &["no permission"]);
    assert!(!pins.exists());
}

/// A copy of the client where anybody may run it.
fn anybody_may_run(scratch: &Scratch) -> String {
    let program = scratch.path("xdpgate");
    copy_program(XDPGATE, &program);
    let everybody = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(program.parent().expect("a directory"), everybody).expect("set");
    text(&program)
}
