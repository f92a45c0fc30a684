//! What keeps people from shutting themselves out, with real packets: changes that nobody confirms at a
//! daemon that is killed meanwhile, modes over restarts, the failsafe.

mod common;

use std::net::{TcpListener, TcpStream};
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::daemon::Daemon;
use common::host::audited;
use common::pinned::Scene;
use common::{is_root, wait_for, wait_up_to};
use nix::sys::signal::Signal;

/// A deadline within which some clients and a daemon start, on a busy machine too.
const WITHIN: Duration = Duration::from_secs(15);
/// What comes at such a deadline, or after some refusals, is waited for so long.
const LONG: Duration = Duration::from_secs(30);

/// Puts one in force that lasts, and one that shuts the neighbour out until it is confirmed; when, and
/// as which generation.
fn shut_out(scene: &Scene, daemon: &Daemon, lasting: &str) -> (Instant, u64) {
    daemon.ask(&["policy", "apply", lasting]).ok();
    assert!(scene.arrives());
    let shut = scene.policy("shut.yaml", 1, true);
    let within = format!("{}s", WITHIN.as_secs());
    let begun = Instant::now();
    let apply = ["policy", "apply", &shut, "--confirm-within", &within];
    let applied = daemon.json(&apply)["applied"].clone();
    assert!(!scene.arrives());
    let generation = applied["generation"].as_u64();
    (begun, generation.unwrap_or_else(|| panic!("{applied}")))
}

#[test]
fn r110_killed_and_started_before_the_deadline() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let daemon = scene.start(&["--enforce"]);
    let lasting = scene.policy("lasting.yaml", 1, false);
    let (begun, waits) = shut_out(&scene, &daemon, &lasting);
    daemon.stop(Signal::SIGKILL);
    assert!(!scene.arrives(), "what was pinned judges");

    let daemon = scene.start(&["--enforce"]);
    let pending = daemon.json(&["status"])["pending"].clone();
    if begun.elapsed() < WITHIN {
        assert_eq!(pending["policy_generation"], waits, "{pending}");
    }
    wait_up_to(LONG, "the policy before", || scene.arrives().then_some(()));
    assert!(begun.elapsed() >= WITHIN, "early");
    let line = audited(&daemon, &["who=\"deadline\"", "RollbackPolicy"]);
    assert!(line.contains(&format!("generation {waits}")), "{line}");
    let status = daemon.json(&["status"]);
    assert!(status["pending"].is_null(), "{status}");
    let generation = &status["policy"]["generation"];
    assert!(line.contains(&format!("generation={generation}")), "{line}");
}

#[test]
fn r110_killed_for_longer_than_the_deadline() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let daemon = scene.start(&["--enforce"]);
    let lasting = scene.policy("lasting.yaml", 1, false);
    let (begun, waits) = shut_out(&scene, &daemon, &lasting);
    daemon.stop(Signal::SIGKILL);
    sleep((WITHIN + Duration::from_millis(500)).saturating_sub(begun.elapsed()));
    assert!(!scene.arrives(), "there was nobody to take it back");

    let daemon = scene.start(&["--enforce"]);
    assert!(scene.arrives(), "before it says that it is ready");
    let line = audited(&daemon, &["who=\"deadline\"", "RollbackPolicy"]);
    assert!(line.contains(&format!("generation {waits}")), "{line}");
    assert!(daemon.json(&["status"])["pending"].is_null());
    // And so it stays.
    daemon.stop(Signal::SIGKILL);
    let daemon = scene.start(&["--enforce"]);
    assert!(scene.arrives());
    assert!(
        !daemon.log().contains("who=\"deadline\""),
        "{}",
        daemon.log()
    );
}

#[test]
fn r72_r110_killed_while_enforcement_waits() {
    if is_root() {
        kill_while_enforcement_waits(&[]);
    }
}

/// What the configuration says is no confirmation.
#[test]
fn r72_r110_killed_while_enforcement_waits_where_the_configuration_enforces() {
    if is_root() {
        kill_while_enforcement_waits(&["--enforce"]);
    }
}

fn kill_while_enforcement_waits(arguments: &[&str]) {
    let scene = Scene::new();
    let mut daemon = scene.start(arguments);
    let shut = scene.policy("shut.yaml", 1, true);
    daemon.ask(&["dry-run"]).ok();
    daemon.ask(&["policy", "apply", &shut]).ok();
    assert!(scene.arrives(), "dry run");
    for late in [false, true] {
        let begun = Instant::now();
        let within_text = format!("{}s", WITHIN.as_secs());
        daemon
            .ask(&["enforce", "--confirm-within", &within_text])
            .ok();
        assert!(!scene.arrives());
        daemon.stop(Signal::SIGKILL);
        if late {
            sleep((WITHIN + Duration::from_millis(500)).saturating_sub(begun.elapsed()));
        }
        assert!(!scene.arrives(), "what is pinned goes on");
        daemon = scene.start(arguments);
        wait_up_to(LONG, "dry run", || scene.arrives().then_some(()));
        assert!(begun.elapsed() >= WITHIN, "early");
        audited(&daemon, &["who=\"deadline\"", "SetMode dry run"]);
        assert_eq!(daemon.json(&["status"])["mode"], "dry_run");
    }
    // And so it stays.
    daemon.stop(Signal::SIGKILL);
    let daemon = scene.start(arguments);
    assert!(scene.arrives());
    assert_eq!(daemon.json(&["status"])["mode"], "dry_run");
}

/// A daemon that ends takes back, and the next one knows it until somebody chooses a mode.
#[test]
fn r72_r110_what_a_stop_took_back_the_configuration_does_not_enforce() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let daemon = scene.start(&["--enforce"]);
    let shut = scene.policy("shut.yaml", 1, true);
    daemon.ask(&["dry-run"]).ok();
    daemon.ask(&["policy", "apply", &shut]).ok();
    daemon.ask(&["enforce", "--confirm-within", "600s"]).ok();
    assert!(!scene.arrives());
    daemon.stop(Signal::SIGTERM);
    assert!(scene.arrives(), "taken back");
    for _ in 0..2 {
        let daemon = scene.start(&["--enforce"]);
        assert!(scene.arrives(), "the configuration is no confirmation");
        let status = daemon.json(&["status"]);
        assert_eq!(status["mode"], "dry_run", "{status}");
        assert_eq!(status["next_start_enforces"], false, "{status}");
        let (_, log) = daemon.stop(Signal::SIGTERM);
        assert!(log.contains("enforcement was not confirmed"), "{log}");
    }
    let daemon = scene.start(&["--enforce"]);
    daemon.ask(&["enforce"]).ok();
    assert!(!scene.arrives());
    daemon.stop(Signal::SIGTERM);
    let _daemon = scene.start(&["--enforce"]);
    assert!(!scene.arrives());
}

/// A start with too few places for the rules of the policy before cannot take back.
#[test]
fn r110_what_a_start_cannot_take_back_lets_everything_pass() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let daemon = scene.start(&["--enforce"]);
    let lasting = scene.policy("lasting.yaml", 8, false);
    let (begun, _) = shut_out(&scene, &daemon, &lasting);
    daemon.stop(Signal::SIGKILL);
    sleep((WITHIN + Duration::from_millis(500)).saturating_sub(begun.elapsed()));

    let daemon = scene.start(&["--enforce", "--max-rules", "4"]);
    assert!(!scene.arrives(), "what was pinned judges");
    let status = daemon.json(&["status"]);
    let reason = status["pending"]["refused"].as_str().expect("a reason");
    assert!(reason.contains("8 rules"), "{reason}");
    let broken = status["broken"].as_str().expect("broken");
    assert!(broken.contains("was not confirmed"), "{broken}");
    let shown = daemon.ask(&["status"]).ok();
    assert!(shown.contains("OVERDUE"), "{shown}");
    let late = daemon.ask(&["confirm"]);
    late.refused(1, &["was not confirmed in time", "apply the policy"]);

    wait_up_to(LONG, "pass mode", || scene.arrives().then_some(()));
    audited(&daemon, &["who=\"deadline\"", "SetMode pass"]);
    assert!(daemon.log().contains("PASS MODE"), "{}", daemon.log());
    assert_eq!(daemon.json(&["status"])["mode"], "pass");
    // The way out.
    let shut = scene.policy("smaller.yaml", 2, true);
    daemon.ask(&["policy", "apply", &shut]).ok();
    let status = daemon.json(&["status"]);
    assert!(
        status["pending"].is_null() && status["broken"].is_null(),
        "{status}"
    );
    assert!(scene.arrives(), "pass mode stays until it is ended");
    daemon.ask(&["enforce"]).ok();
    assert!(!scene.arrives());
}

/// What the file says holds at each start; a mode that was chosen by a call says so, and pass mode stays.
#[test]
fn r72_modes_over_restarts_where_the_configuration_enforces() {
    if !is_root() {
        return;
    }
    const NOTE: &str = "the configuration says to enforce";
    let scene = Scene::new();
    let daemon = scene.start(&["--enforce"]);
    let shut = scene.policy("shut.yaml", 1, true);
    daemon.ask(&["policy", "apply", &shut]).ok();
    assert_eq!(daemon.json(&["status"])["next_start_enforces"], false);
    let said = daemon.ask(&["dry-run"]).ok();
    assert!(said.contains(NOTE), "{said}");
    assert!(scene.arrives());
    let shown = daemon.ask(&["status"]).ok();
    assert!(shown.contains(NOTE), "{shown}");
    daemon.stop(Signal::SIGTERM);
    let daemon = scene.start(&["--enforce"]);
    assert!(!scene.arrives());

    let said = daemon.ask(&["panic-off"]).ok();
    assert!(!said.contains(NOTE), "{said}");
    daemon.stop(Signal::SIGTERM);
    let daemon = scene.start(&["--enforce"]);
    assert!(scene.arrives(), "pass mode stays");
    let shown = daemon.ask(&["status"]).ok();
    assert!(!shown.contains(NOTE), "{shown}");

    // Without it dry run lasts, and there is nothing to be said.
    daemon.ask(&["enforce"]).ok();
    daemon.stop(Signal::SIGTERM);
    let daemon = scene.start(&[]);
    assert!(!scene.arrives(), "what was chosen holds");
    let said = daemon.ask(&["dry-run"]).ok();
    assert!(!said.contains(NOTE), "{said}");
    daemon.stop(Signal::SIGTERM);
    let _daemon = scene.start(&[]);
    assert!(scene.arrives());
}

/// A default of drop, and management that gets through only while the failsafe names it.
#[test]
fn r73_the_failsafe_is_changed_by_itself() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let daemon = scene.start(&["--enforce"]);
    let closed = scene
        .scratch
        .file("closed.yaml", "version: 1\ndefault: drop\n");
    daemon.ask(&["policy", "apply", &closed]).ok();
    let listener = scene
        .host
        .run(|| TcpListener::bind("10.9.0.1:22"))
        .expect("a port");
    let server = "10.9.0.1:22".parse().expect("an address");
    let connects = || {
        let wait = Duration::from_millis(700);
        let stream = scene.peer.run(|| TcpStream::connect_timeout(&server, wait));
        stream.map(drop).is_ok()
    };
    assert!(!connects());
    let failsafe = ["policy", "failsafe", "on", "--ssh-from", "10.9.0.0/24"];
    let said = daemon.ask(&failsafe).ok();
    assert!(said.contains("failsafe: replaced"), "{said}");
    assert!(connects());
    let shown = daemon.ask(&["policy", "get"]).ok();
    assert!(shown.contains("10.9.0.0/24"), "{shown}");
    assert!(daemon.ask(&failsafe).ok().contains("nothing to change"));
    audited(&daemon, &["ChangePolicy failsafe", "ok"]);
    // The word "on" by itself shuts nobody out.
    let on = ["policy", "failsafe", "on"];
    let field = "changes[0].failsafe.ssh_from";
    daemon
        .ask(&on)
        .refused(2, &[field, "SSH from 10.9.0.0/24 would be out", "no_ssh"]);
    assert!(connects());
    let no_ssh = ["policy", "failsafe", "on", "--no-ssh"];
    daemon.ask(&no_ssh).ok();
    assert!(!connects());
    audited(&daemon, &["ChangePolicy failsafe without SSH", "ok"]);
    assert!(daemon.ask(&on).ok().contains("nothing to change"));
    daemon.ask(&failsafe).ok();
    assert!(connects());
    // Tried first: back by itself.
    let none = ["policy", "failsafe", "none", "--confirm-within", "1s"];
    daemon.ask(&none).ok();
    wait_for("its end", || connects().then_some(()));
    daemon.ask(&["policy", "failsafe", "none"]).ok();
    assert!(!connects());
    let both = ["policy", "failsafe", "none", "--ssh-from", "10.9.0.0/24"];
    daemon
        .ask(&both)
        .refused(2, &["changes[0].failsafe.ssh_from[0]", "leave one"]);
    let both = ["policy", "failsafe", "none", "--no-ssh"];
    daemon
        .ask(&both)
        .refused(2, &["changes[0].failsafe.no_ssh", "leave one"]);
    drop(listener);
}
