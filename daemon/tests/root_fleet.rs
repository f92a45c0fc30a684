//! A node of a fleet: the real daemon, a controller that speaks the real protocol, and real packets between
//! them.

mod common;

use std::fs;
use std::time::{Duration, Instant};

use common::controller::{ADDRESS, Fleets};
use common::fleet_scene::{BAD, CLOSED, Scene, in_force, policy, wait_in_force};
use common::scrape::Scrape;
use common::{altered, is_root, text, wait_for, wait_up_to};
use nix::sys::signal::Signal;
use xdpgate_api::fleet::v1::from_controller::Message as Said;
use xdpgate_api::fleet::v1::result::Reason;
use xdpgate_api::v1::Mode;

/// Row 74: the first state brings what passes and what drops in one step, to a node that was attached and
/// dropped nothing; what is disabled or expired judges nothing.
#[test]
fn r74_a_node_joins_and_the_first_state_is_in_force_as_a_whole() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let (controller, daemon) = scene.member("");
    let hello = scene.fleet.hello(1);
    assert_eq!((hello.protocol, hello.labels["env"].as_str()), (1, "test"));
    let held = hello.held.expect("what it has");
    assert_eq!((held.state, held.policy_hash), (None, Vec::new()));
    assert!(!scene.scratch.path("token").exists(), "it is used up");
    scene.assert_private("identity.json");
    let joined = scene.fleet.book().joined[0].clone();
    assert_eq!(
        (joined.name.as_str(), joined.labels["env"].as_str()),
        ("edge", "test")
    );
    assert!(scene.bad_arrives());

    let first = policy(
        "version: 1\ndefault: drop\nrules:\n\
         - { id: allow, priority: 1, match: { src: 192.0.2.0/24 }, action: pass }\n\
         - { id: off, priority: 2, match: { src: 203.0.113.7 }, action: pass, enabled: false }\n\
         - { id: gone, priority: 3, match: { src: 203.0.113.7 }, action: pass, expires: 2020-01-01T00:00:00Z }\n",
    );
    let from_first = scene.reaches("192.0.2.2");
    scene.fleet.send(5, &first, Mode::Enforce);
    scene.fleet.applied();
    assert!(from_first && scene.reaches("192.0.2.2"));
    assert!(!scene.bad_arrives());
    let beat = scene.fleet.heartbeat("the state", |beat| {
        beat.held.as_ref().is_some_and(|held| held.state.is_some())
    });
    let held = beat.held.as_ref().expect("what it has");
    assert_eq!(held.policy_hash, first.hash().as_bytes());
    assert_eq!(held.mode(), Mode::Enforce);
    assert_eq!((beat.rules, beat.attached), (3, 1));
    let dropped: u64 = beat.verdicts.iter().map(|v| v.packets).sum();
    assert!(dropped > 0, "{:?}", beat.verdicts);

    let shown = daemon.json(&["fleet", "status"]);
    assert_eq!(shown["node_id"], "node-1");
    assert_eq!(shown["controller"], format!("https://{ADDRESS}"));
    assert_eq!(shown["state"]["sequence"], 5);
    assert_eq!(shown["changed_here"], false);
    let text = daemon.ask(&["status"]).ok();
    assert!(
        text.contains("node-1 connected to https://192.0.2.2:7443"),
        "{text}"
    );

    // It is the same after a restart, without a token, and says what it has.
    daemon.stop(Signal::SIGTERM);
    let daemon = scene.start_member();
    let held = scene.fleet.hello(2).held.expect("what it has");
    assert_eq!(held.state.map(|s| s.sequence), Some(5));
    assert_eq!(held.policy_hash, first.hash().as_bytes());
    assert_eq!(scene.fleet.book().joined.len(), 1);
    drop((daemon, controller));
}

/// Row 123, and with it all that a node refuses: nothing changes, and the reason is told.
#[test]
fn r123_what_is_not_right_is_refused_and_nothing_changes() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let key = scene.fleet.sign_with(1);
    let (_controller, daemon) = scene.member(&format!("trusted_key = '{key}'"));
    let (fleet, bad) = (&scene.fleet, policy(BAD));
    let unchanged = || {
        assert_eq!(in_force(&daemon), Some(bad.hash().to_string()));
        assert!(!scene.bad_arrives());
    };
    fleet.send(5, &bad, Mode::Enforce);
    fleet.applied();
    unchanged();

    let open = policy("{ version: 1 }");
    let good = fleet.delta(fleet.state(6, &open, Mode::Unspecified), &bad, &open);
    let with = |change: &dyn Fn(&mut xdpgate_api::fleet::v1::Delta)| {
        let mut delta = good.clone();
        change(&mut delta);
        fleet.say(Said::Delta(delta));
    };
    fleet.sign_with(2);
    let by_another = fleet.state(6, &open, Mode::Unspecified);
    fleet.sign_with(1);
    with(&|delta| delta.to = Some(by_another.clone()));
    fleet.refused(Reason::Signature);
    unchanged();
    with(&|delta| delta.to.as_mut().expect("one").signature.clear());
    fleet.refused(Reason::Signature);
    // One that was signed, with another mode.
    with(&|delta| delta.to.as_mut().expect("one").mode = Mode::DryRun.into());
    fleet.refused(Reason::Signature);
    unchanged();
    with(&|delta| delta.changes.clear());
    let said = fleet.refused(Reason::Hash);
    assert!(said.error.contains("promised"), "{said:?}");
    with(&|delta| delta.from_hash[0] ^= 1);
    fleet.refused(Reason::Base);
    with(&|delta| delta.to = Some(fleet.state(4, &open, Mode::Unspecified)));
    fleet.refused(Reason::Stale);
    unchanged();
    // Nothing is fetched for a snapshot that is refused anyway.
    let served = fleet.book().served;
    fleet.send(4, &policy(CLOSED), Mode::Enforce);
    fleet.refused(Reason::Stale);
    assert_eq!(fleet.book().served, served);
    unchanged();
    let shown = daemon.json(&["fleet", "status"]);
    assert_eq!(
        (&shown["refusal"]["reason"], &shown["signed"]),
        (&"stale".into(), &true.into())
    );

    fleet.say(Said::Delta(good));
    fleet.applied();
    assert!(scene.bad_arrives());
}

/// Row 77: with its controller killed a node enforces, what expires does so on time, and it comes back from
/// its disk.
#[test]
fn r77_a_node_alone_enforces_expires_and_restarts() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let (controller, daemon) = scene.member("");
    let expires = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(12);
    let both = policy(&format!(
        "version: 1\nrules:\n\
         - {{ id: lasting, match: {{ src: 203.0.113.7 }}, action: drop }}\n\
         - {{ id: passing, match: {{ src: 192.0.2.2, protocol: udp }}, action: drop, expires: '{expires}' }}\n"
    ));
    scene.fleet.send(5, &both, Mode::Enforce);
    scene.fleet.applied();
    controller.kill();
    wait_for("the loss", || {
        let shown = daemon.json(&["fleet", "status"]);
        shown["controller"].is_null().then_some(())
    });
    assert!(!scene.reaches("192.0.2.2"));
    assert!(!scene.reaches("203.0.113.7"));
    let (code, log) = daemon.stop(Signal::SIGKILL);
    assert_eq!(code, None, "{log}");

    let daemon = scene.start_member();
    assert_eq!(in_force(&daemon), Some(both.hash().to_string()));
    assert!(!scene.reaches("203.0.113.7"));
    let late = wait_up_to(Duration::from_secs(20), "the expiry", || {
        scene.reaches("192.0.2.2").then(jiff::Timestamp::now)
    });
    let late = late.duration_since(expires).as_secs_f64();
    assert!((0.0..=1.5).contains(&late), "{late} s after it expired");
    assert!(!scene.reaches("203.0.113.7"));

    // The controller is back: the node comes to it by itself, and has lost nothing.
    let _controller = scene.serve();
    let held = scene.fleet.hello(2).held.expect("what it has");
    assert_eq!(held.policy_hash, both.hash().as_bytes());
}

/// Row 107: no policy cuts a node off from its controllers, also not from one that it has to find anew.
#[test]
fn r107_the_controller_link_survives_a_policy_that_drops_all() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let (controller, daemon) = scene.member("");
    let closed = policy(CLOSED);
    scene.fleet.send(5, &closed, Mode::Enforce);
    scene.fleet.applied();
    assert!(!scene.reaches("192.0.2.2"));
    for _ in 0..3 {
        scene.fleet.heartbeat("another heartbeat", |_| true);
    }
    controller.kill();
    let controller = scene.serve();
    scene.fleet.hello(2);
    // And a daemon that starts with that policy.
    daemon.stop(Signal::SIGTERM);
    let _daemon = scene.start_member();
    scene.fleet.hello(3);
    assert!(!scene.reaches("192.0.2.2"));
    let open = policy(BAD);
    let delta = scene
        .fleet
        .delta(scene.fleet.state(6, &open, Mode::Enforce), &closed, &open);
    scene.fleet.say(Said::Delta(delta));
    scene.fleet.applied();
    assert!(scene.reaches("192.0.2.2"));
    drop(controller);
}

/// Row 82: a change at the node is told with the next heartbeat, and put right by the same state again; and a
/// value that is altered in the kernel is found and written anew.
#[test]
fn r82_drift_is_told_and_repaired() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let (_controller, daemon) = scene.member("");
    let (fleet, bad) = (&scene.fleet, policy(BAD));
    fleet.send(5, &bad, Mode::Enforce);
    fleet.applied();
    daemon.ask(&["rule", "remove", "bad"]).ok();
    assert!(scene.bad_arrives());
    let other = fleet.heartbeat("another hash", |beat| {
        let held = beat.held.as_ref().expect("what it has");
        held.policy_hash != bad.hash().as_bytes()
    });
    let held = other.held.expect("what it has");
    assert_eq!(held.state.map(|s| s.sequence), Some(5));
    assert_eq!(daemon.json(&["fleet", "status"])["changed_here"], true);
    fleet.send(5, &bad, Mode::Enforce);
    fleet.applied();
    assert!(!scene.bad_arrives());
    // The mode, too.
    daemon.ask(&["dry-run"]).ok();
    fleet.heartbeat("another mode", |beat| {
        beat.held
            .as_ref()
            .is_some_and(|held| held.mode() == Mode::DryRun)
    });
    fleet.send(5, &bad, Mode::Enforce);
    fleet.applied();
    assert!(!scene.bad_arrives());

    let status = daemon.json(&["status"]);
    let program = status["policy_program"]["id"].as_u64().expect("a program");
    let generation = status["policy"]["generation"].clone();
    let lines = altered::map_of(program as u32, "image");
    let lines = libbpf_rs::MapCore::max_entries(&lines);
    altered::invert(program as u32, lines - 1);
    wait_up_to(Duration::from_secs(25), "the repair", || {
        (daemon.json(&["status"])["policy"]["generation"] != generation).then_some(())
    });
    assert!(
        daemon.log().contains("is not what was written"),
        "{}",
        daemon.log()
    );
    assert!(!scene.bad_arrives());
    assert_eq!(in_force(&daemon), Some(bad.hash().to_string()));
}

/// Row 84: what was edited, deleted and added while the node was away is there soon after it is back.
#[test]
fn r84_a_node_that_was_away_is_equal_soon_after() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let (controller, daemon) = scene.member("");
    let before = policy(
        "version: 1\nrules:\n- { id: edited, match: { src: 203.0.113.7 }, action: drop }\n\
         - { id: deleted, match: { src: 192.0.2.2, protocol: udp }, action: drop }\n",
    );
    scene.fleet.send(5, &before, Mode::Enforce);
    scene.fleet.applied();
    controller.kill();
    let after = policy(
        "version: 1\nrules:\n- { id: edited, match: { src: 203.0.113.7 }, action: pass }\n\
         - { id: added, match: { src: 198.51.100.0/24 }, action: drop }\n",
    );
    let _controller = scene.serve();
    let hello = scene.fleet.hello(2);
    let back = Instant::now();
    let held = hello.held.expect("what it has");
    assert_eq!(held.policy_hash, before.hash().as_bytes());
    let delta = scene
        .fleet
        .delta(scene.fleet.state(9, &after, Mode::Enforce), &before, &after);
    assert_eq!(delta.changes.len(), 3);
    scene.fleet.say(Said::Delta(delta));
    scene.fleet.applied();
    wait_in_force(&daemon, &after);
    assert!(
        back.elapsed() < Duration::from_secs(10),
        "{:?}",
        back.elapsed()
    );
    assert!(scene.bad_arrives() && scene.reaches("192.0.2.2"));
}

/// A token of another fleet: the node says nothing to a controller that is not of the authority in it.
#[test]
fn a_controller_that_is_not_of_the_token_is_told_nothing() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let token = scene.put_token();
    let other = Fleets::new();
    other.book().tokens.push(
        fs::read_to_string(&token)
            .expect("a token")
            .trim()
            .to_owned(),
    );
    let _controller = other.serve(&scene.neighbour);
    scene.configure("");
    let daemon = scene.start_member();
    let problem = wait_for("the refusal", || {
        let shown = daemon.json(&["fleet", "status"]);
        shown["problem"]
            .as_str()
            .filter(|p| p.contains("UnknownIssuer"))
            .map(str::to_owned)
    });
    assert!(problem.contains("joining"), "{problem}");
    assert!(token.exists() && other.book().joined.is_empty());
}

/// What docs/monitoring.md says of a fleet is exported.
#[test]
fn r130_the_metrics_of_a_fleet_are_those_of_the_page() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let socket = scene.scratch.path("metrics.sock");
    let metrics = format!("[metrics]\nlisten = 'unix:{}'", text(&socket));
    let (_controller, _daemon) = scene.member(&metrics);
    scene.fleet.send(5, &policy(BAD), Mode::Enforce);
    scene.fleet.applied();
    scene.fleet.send(4, &policy(BAD), Mode::Enforce);
    scene.fleet.refused(Reason::Stale);
    let told = Scrape::of(&socket);
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/monitoring.md");
    let page = fs::read_to_string(page).expect("a page");
    let rows = page
        .lines()
        .filter_map(|line| line.strip_prefix("- `xdpgate_fleet_"));
    let rows: Vec<(String, &str)> = rows
        .filter_map(|row| row.split_once("` ("))
        .map(|(name, rest)| (format!("xdpgate_fleet_{name}"), rest))
        .collect();
    let types = told.types();
    let exported = types
        .keys()
        .filter(|name| name.starts_with("xdpgate_fleet_"));
    assert_eq!(exported.count(), rows.len());
    for (name, rest) in rows {
        assert!(rest.starts_with(types[&name].as_str()), "{name}: {rest}");
    }
    for line in ["{outcome=\"applied\"} 1", "{outcome=\"stale\"} 1"] {
        let line = format!("xdpgate_fleet_states_total{line}");
        assert!(told.text.contains(&line), "no {line} in {}", told.text);
    }
    assert!(
        told.text.contains("xdpgate_fleet_connected 1"),
        "{}",
        told.text
    );
}
