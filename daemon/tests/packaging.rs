//! The unit of the service and what a package is made of, as far as that can be known without one.

mod common;

use std::path::Path;
use std::process::Command;

use common::tools::has_tool;
use common::{Ended, Scratch, XDPGATED, run, text, xdpgate};

const DIR: &str = env!("CARGO_MANIFEST_DIR");
const UNIT: &str = include_str!("../packaging/xdpgated.service");

fn value(key: &str) -> Option<&'static str> {
    UNIT.lines()
        .find_map(|l| l.strip_prefix(key)?.strip_prefix('='))
}

/// systemd-analyze and man, which it asks for the pages that a unit names.
fn has_systemd_analyze() -> bool {
    has_tool("systemd-analyze", "--packaging") && has_tool("man", "--packaging")
}

/// The unit as it would be where this binary is installed.
fn unit(scratch: &Scratch) -> String {
    let here = UNIT.replace("/usr/bin/xdpgated", XDPGATED);
    scratch.file("xdpgated.service", here)
}

/// A test that asks a tool is skipped without it, and says so; under `CI` it fails.
#[test]
fn a_tool_that_is_missing_is_noticed() {
    let asked = |ci: Option<&str>| -> Ended {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command
            .args(["--exact", "r97_systemd_takes_the_unit", "--nocapture"])
            .env("PATH", "/nowhere")
            .env_remove("CI");
        if let Some(value) = ci {
            command.env("CI", value);
        }
        command.output().expect("it runs").into()
    };
    let word = "systemd-analyze is not here: scripts/setup --packaging installs it";
    for ci in [None, Some(""), Some("false")] {
        let ended = asked(ci);
        assert!(
            ended.stdout.contains(&format!("skipped: {word}")),
            "{ended}"
        );
        ended.ok();
    }
    let ended = asked(Some("true"));
    assert_eq!(ended.code, Some(101), "{ended}");
    assert!(
        ended.stderr.contains(&format!("CI is set and {word}")),
        "{ended}"
    );
}

/// With the manual pages that the package brings: the unit names one.
#[test]
fn r97_systemd_takes_the_unit() {
    if !has_systemd_analyze() {
        return;
    }
    let scratch = Scratch::new();
    let pages = text(&scratch.path("man"));
    xdpgate(["man", &pages]).ok();
    let verify = |pages: &str| -> Ended {
        let mut command = common::command("systemd-analyze");
        command.args(["verify", "--man=yes", &unit(&scratch)]);
        command
            .env("MANPATH", pages)
            .output()
            .expect("it runs")
            .into()
    };
    let ended = verify(&pages);
    assert_eq!(
        (ended.code, ended.stderr.as_str()),
        (Some(0), ""),
        "{ended}"
    );
    // And it does look for them.
    let ended = verify("/nowhere");
    assert!(ended.stderr.contains("xdpgated(8)"), "{ended}");
}

/// Of 10, where 10 is a service that may do anything.
#[test]
fn r97_the_unit_exposes_little() {
    if !has_systemd_analyze() {
        return;
    }
    let scratch = Scratch::new();
    let unit = unit(&scratch);
    let arguments = ["security", "--offline=true", "--threshold=30", &unit];
    run("systemd-analyze", arguments).ok();
}

#[test]
fn r97_what_the_unit_starts_is_right() {
    let command = value("ExecStart").expect("a command");
    let config = command
        .strip_prefix("/usr/bin/xdpgated --config ")
        .expect("the daemon");
    assert_eq!(config, "/etc/xdpgate/xdpgated.toml");
    // The directories of the configuration that is shipped are those that the unit makes.
    let shown = run(XDPGATED, ["config", "print-default"]).ok();
    for (key, under, line) in [
        (
            "StateDirectory",
            "/var/lib/",
            "state_dir = \"/var/lib/xdpgate\"",
        ),
        (
            "RuntimeDirectory",
            "/run/",
            "\"unix:/run/xdpgate/xdpgated.sock\"",
        ),
        ("ConfigurationDirectory", "/etc/", ""),
    ] {
        assert_eq!(value(key), Some("xdpgate"), "{key} below {under}");
        assert!(shown.contains(line), "{line}");
    }
    assert!(shown.contains("root = \"/sys/fs/bpf/xdpgate\""));
    assert_eq!(value("ReadWritePaths"), Some("/sys/fs/bpf"));
    // Exit code 2 is for what does not get right by itself.
    assert_eq!(value("RestartPreventExitStatus"), Some("2"));
}

#[test]
fn r131_what_a_package_is_made_of_is_there() {
    let manifest = std::fs::read_to_string(format!("{DIR}/Cargo.toml")).expect("a manifest");
    let manifest: toml::Table = manifest.parse().expect("TOML");
    let deb = &manifest["package"]["metadata"]["deb"];
    let mut installed = Vec::new();
    for asset in deb["assets"].as_array().expect("assets") {
        let part = |index: usize| asset[index].as_str().expect("a text");
        if !part(0).contains("target/") {
            assert!(Path::new(DIR).join(part(0)).exists(), "{asset:?}");
        }
        installed.push(format!("/{}", part(1)));
    }
    let configuration = deb["conf-files"][0].as_str().expect("a text");
    assert!(
        installed.iter().any(|i| i == configuration),
        "{installed:?}"
    );
    for dir in [
        "/usr/share/man/man1/",
        "/usr/share/man/man8/",
        "/usr/share/bash-completion/completions/",
    ] {
        assert!(installed.iter().any(|i| i == dir), "{dir}: {installed:?}");
    }
    let scripts = Path::new(DIR).join(deb["maintainer-scripts"].as_str().expect("a text"));
    for script in ["postinst", "prerm", "postrm"] {
        let path = scripts.join(script);
        let text = std::fs::read_to_string(&path).expect("a script");
        assert!(text.contains("\n#DEBHELPER#\n"), "{script}");
        let checked: Ended = Command::new("sh")
            .arg("-n")
            .arg(&path)
            .output()
            .expect("sh")
            .into();
        checked.ok();
    }
}
