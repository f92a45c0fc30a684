//! A configuration that changes while the daemon runs, with real packets.

mod common;

use std::ops::Deref;

use common::daemon::Daemon;
use common::neighbours::{BLOCK, Neighbours};
use common::{is_root, text, wait_for};
use nix::sys::signal::{Signal, kill};
use serde_json::Value;

/// Neighbours whose host has `xg1` and `xg2` as well.
struct Scene(Neighbours);

impl Scene {
    fn new() -> Self {
        let scene = Neighbours::new();
        for n in [1, 2] {
            scene
                .host
                .ip(&format!("link add xg{n} type veth peer name nb{n}"));
            scene.host.ip(&format!("link set xg{n} up"));
            scene.host.ip(&format!("link set nb{n} up"));
        }
        scene.scratch.file("policy.yaml", BLOCK);
        Self(scene)
    }

    fn configure(&self, more: &str) -> String {
        let policy = self.scratch.path("policy.yaml");
        let text = format!("policy = {policy:?}\n{more}");
        self.scratch.file("xdpgated.toml", text)
    }

    fn daemon(&self) -> Daemon {
        let file = text(&self.scratch.path("xdpgated.toml"));
        self.start(&["--config", &file])
    }
}

impl Deref for Scene {
    type Target = Neighbours;

    fn deref(&self) -> &Neighbours {
        &self.0
    }
}

/// Sends SIGHUP and gives what is logged from then on, up to the outcome.
#[track_caller]
fn reload(daemon: &Daemon) -> String {
    let before = daemon.log().len();
    kill(daemon.pid(), Signal::SIGHUP).expect("it runs");
    wait_for("the outcome", || {
        let log = daemon.log()[before..].to_owned();
        let ended = log.contains("configuration: ") || log.contains("stays in force");
        ended.then_some(log)
    })
}

/// Interface and number of the kernel's link, of all that are attached.
fn attached(daemon: &Daemon) -> Vec<(String, Value)> {
    let shown = daemon.json(&["interfaces"]);
    let interfaces = shown["interfaces"].as_array().expect("interfaces");
    let mut attached: Vec<(String, Value)> = interfaces
        .iter()
        .filter(|i| !i["attachment"].is_null())
        .map(|i| {
            (
                i["name"].as_str().unwrap_or_default().to_owned(),
                i["attachment"].clone(),
            )
        })
        .collect();
    attached.sort_by(|a, b| a.0.cmp(&b.0));
    attached
}

fn names(attached: &[(String, Value)]) -> Vec<&str> {
    attached.iter().map(|(name, _)| name.as_str()).collect()
}

#[test]
fn the_selection_changes_and_what_both_take_stays() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    scene.configure("enforce = true\n[interfaces]\nclass = 'none'\ninclude = ['xg0', 'xg1']\n");
    let daemon = scene.daemon();
    let before = attached(&daemon);
    assert_eq!(names(&before), ["xg0", "xg1"]);

    scene.configure(
        "enforce = true\nmax_rules = 99\n[interfaces]\nclass = 'none'\ninclude = ['xg0', 'xg2']\n\
         mode = 'generic'\n",
    );
    let log = reload(&daemon);
    for words in [
        "in force: interfaces.include, interfaces.mode",
        "with the next start: max_rules",
    ] {
        assert!(log.contains(words), "no {words:?} in:\n{log}");
    }
    let after = attached(&daemon);
    assert_eq!(names(&after), ["xg0", "xg2"]);
    // The same attachment: a new one would be another program on another link.
    assert_eq!(before[0], after[0]);
    assert_eq!(after[1].1["mode"], "generic", "{after:?}");
    assert!(!scene.bad_arrives());

    // What appears is judged by the new selection.
    scene.host.ip("link del xg2");
    scene.host.ip("link add xg2 type veth peer name nb2");
    wait_for("the new one", || {
        (names(&attached(&daemon)) == ["xg0", "xg2"]).then_some(())
    });

    // What waits for a restart is said until there is one; what is in force is not said again.
    let log = reload(&daemon);
    assert!(
        log.contains("configuration: with the next start: max_rules\n"),
        "{log}"
    );
    let (code, log) = daemon.stop(Signal::SIGTERM);
    assert_eq!(code, Some(0), "{log}");
}

#[test]
fn enforcement_changes_under_traffic() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let interfaces = "[interfaces]\nclass = 'none'\ninclude = ['xg0']\n";
    scene.configure(interfaces);
    let daemon = scene.daemon();
    assert!(scene.bad_arrives(), "a dry run drops nothing");
    scene.configure(&format!("enforce = true\n{interfaces}"));
    let log = reload(&daemon);
    assert!(log.contains("in force: enforce\n"), "{log}");
    assert!(!scene.bad_arrives());
    scene.configure(interfaces);
    reload(&daemon);
    assert!(scene.bad_arrives());
    // Nothing to do is said too.
    assert!(reload(&daemon).contains("nothing changed"));
}

#[test]
fn r73_a_wrong_configuration_leaves_the_former_in_force() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let good = "enforce = true\n[interfaces]\nclass = 'none'\ninclude = ['xg0', 'xg1']\n";
    scene.configure(good);
    let daemon = scene.daemon();
    let before = attached(&daemon);
    scene
        .configure("enforce = false\n[interfaces]\nclass = 'none'\ninclude = ['xg[']\nmod = 'x'\n");
    let log = reload(&daemon);
    for words in [
        "the former configuration stays in force",
        "xdpgated.toml:5: interfaces.include[0]: \"xg[\"",
        "xdpgated.toml:6: interfaces.mod: ",
        "did you mean mode?",
    ] {
        assert!(log.contains(words), "no {words:?} in:\n{log}");
    }
    assert_eq!(attached(&daemon), before);
    assert!(!scene.bad_arrives(), "it goes on dropping");
    // As if it had never been there.
    scene.configure(good);
    assert!(reload(&daemon).contains("nothing changed"));
}

/// Interfaces that were named on the command line are no matter of the file.
#[test]
fn named_interfaces_stay() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let file = scene.configure("");
    let arguments = ["--config", file.as_str(), "--interface", "xg1"];
    let daemon = scene.start(&arguments);
    scene.configure("[interfaces]\nclass = 'none'\ninclude = ['xg0']\n");
    let log = reload(&daemon);
    assert!(
        log.contains("with the next start: interfaces.class, interfaces.include"),
        "{log}"
    );
    assert_eq!(names(&attached(&daemon)), ["xg1"]);
}

/// A key that holds until the end does not keep the others from changing.
#[test]
fn where_the_api_is_served_changes_with_the_next_start() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let interfaces = "[interfaces]\nclass = 'none'\ninclude = ['xg0']\n";
    scene.configure(interfaces);
    let daemon = scene.daemon();
    scene.configure(&format!(
        "{interfaces}[api]\nsocket_mode = '0660'\n[api.limits]\nmax_streams = 7\n\
         requests_per_second = 7\n[log]\nlevel = 'debug'\n"
    ));
    let log = reload(&daemon);
    for words in [
        "in force: api.limits.requests_per_second, log.level;",
        "with the next start: api.socket_mode, api.limits.max_streams",
    ] {
        assert!(log.contains(words), "no {words:?} in:\n{log}");
    }
}
