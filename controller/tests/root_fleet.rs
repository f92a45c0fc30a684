//! The real controller and three real nodes with real packets, by the script of the demo, which makes its own namespaces.

use std::path::Path;
use std::process::Command;

const CONTROLLER: &str = env!("CARGO_BIN_EXE_xdpgate-controller");

#[test]
fn r84_a_node_that_was_cut_off_has_what_the_others_have() {
    if !nix::unistd::Uid::effective().is_root() {
        eprintln!("skipped: it needs root, for network namespaces and XDP");
        return;
    }
    let binaries = Path::new(CONTROLLER).parent().expect("a folder");
    let daemon = binaries.join("xdpgated");
    assert!(
        daemon.is_file(),
        "{} is missing: cargo build -p xdpgated, or test the whole workspace",
        daemon.display()
    );
    let profile = binaries.file_name().expect("a name");
    let target = binaries.parent().expect("a folder");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/demo-fleet");
    let ran = Command::new(script)
        .env("CARGO_TARGET_DIR", target)
        .env("PROFILE", profile)
        .output()
        .expect("the script");
    let said = String::from_utf8_lossy(&ran.stdout);
    let complained = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{said}\n{complained}");
    for claim in [
        "three nodes have joined",
        "one rule, made once: dropped on all three",
        "it enforces what it had",
        "node 3 is back: all three have",
        "a version by stages: one node first, then all; done",
        "metrics: ",
        "demo-fleet: ok",
    ] {
        assert!(said.contains(claim), "no {claim:?} in: {said}");
    }
}
