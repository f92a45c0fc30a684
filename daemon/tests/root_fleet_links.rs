//! What may happen to the link between a node and its fleet: transfers that break off, cables that are pulled,
//! certificates that end, settings that change, questions in between.

mod common;

use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

use common::fleet_scene::{BAD, CLOSED, Scene, in_force, policy, wait_in_force};
use common::{is_root, wait_for, wait_up_to};
use nix::sys::signal::{Signal, kill};
use xdpgate::Policy;
use xdpgate_api::fleet::v1::ask::Question;
use xdpgate_api::fleet::v1::from_controller::Message as Said;
use xdpgate_api::fleet::v1::result::Reason;
use xdpgate_api::fleet::v1::{Ask, RuleIds, answer};
use xdpgate_api::v1::{Mode, WatchEventsRequest};

/// Some thousand entries, the bad address among them, and a rule.
fn large() -> Policy {
    let mut text = "version: 1\nsets:\n  many:\n    entries:\n      - 203.0.113.7\n".to_owned();
    for n in 0..6000 {
        let _ = writeln!(text, "      - 198.18.{}.{}", n / 250, n % 250);
    }
    text += "rules: [{ id: many, match: { src: '@many' }, action: drop }]\n";
    policy(&text)
}

/// A snapshot that breaks off in the middle: nothing of it is in force, and only the rest comes again.
#[test]
fn a_snapshot_that_broke_off_goes_on_where_it_was() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let (controller, daemon) = scene.member("");
    let (fleet, large) = (&scene.fleet, large());
    fleet.book().chunks_left = Some(30);
    fleet.send(5, &large, Mode::Enforce);
    let said = fleet.refused(Reason::Chunks);
    assert!(said.error.contains("broken off"), "{said:?}");
    assert_eq!(in_force(&daemon), None);
    assert!(scene.bad_arrives());
    let kept = fs::read_dir(scene.kept("chunks"))
        .expect("a directory")
        .count();
    assert_eq!(kept, 30);
    // The daemon too: what came is on disk.
    daemon.signal(Signal::SIGKILL);
    drop(daemon);
    controller.kill();
    let _controller = scene.serve();
    let daemon = scene.start_member();
    fleet.hello(2);
    fleet.book().chunks_left = None;
    fleet.send(5, &large, Mode::Enforce);
    fleet.applied();
    let book = fleet.book();
    let whole: usize = book.chunks.values().map(Vec::len).sum();
    assert_eq!(book.served, whole, "each byte once");
    drop(book);
    assert_eq!(in_force(&daemon), Some(large.hash().to_string()));
    assert!(!scene.bad_arrives());
    // What is in force already is not fetched for the mode alone.
    fleet.send(6, &large, Mode::DryRun);
    fleet.applied();
    assert_eq!(fleet.book().served, whole);
    assert!(scene.bad_arrives());
}

/// The cable is pulled while chunks come: the old policy stays, and the new one comes as a whole.
#[test]
fn a_link_that_is_lost_in_the_middle_leaves_the_whole_old_or_the_whole_new() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let (_controller, daemon) = scene.member("");
    let (fleet, large) = (&scene.fleet, large());
    let bad = policy(BAD);
    fleet.send(5, &bad, Mode::Enforce);
    fleet.applied();
    fleet.book().pause = Duration::from_millis(300);
    fleet.send(6, &large, Mode::Enforce);
    wait_for("some chunks", || (fleet.book().served > 0).then_some(()));
    scene.neighbour.ip("link set nb0 down");
    let status = wait_up_to(Duration::from_secs(60), "the loss", || {
        let shown = daemon.json(&["fleet", "status"]);
        shown["controller"].is_null().then_some(shown)
    });
    assert!(status["problem"].is_string(), "{status}");
    assert_eq!(in_force(&daemon), Some(bad.hash().to_string()));
    scene.neighbour.ip("link set nb0 up");
    scene.host.ip("route replace 203.0.113.7/32 dev xg0");
    let hello = wait_up_to(Duration::from_secs(60), "another session", || {
        fleet.book().hellos.get(1).cloned()
    });
    let held = hello.held.expect("what it has").policy_hash;
    assert_eq!(held, bad.hash().as_bytes());
    fleet.book().pause = Duration::ZERO;
    fleet.hello(2);
    fleet.book().results.clear();
    fleet.send(6, &large, Mode::Enforce);
    fleet.applied();
    assert_eq!(in_force(&daemon), Some(large.hash().to_string()));
    assert!(!scene.bad_arrives());
}

/// A certificate of some seconds is renewed by a new key before it ends; a node that was off for longer says so,
/// and joins again as who it was by a new token.
#[test]
fn a_certificate_is_renewed_and_one_that_expired_takes_a_token() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    scene.fleet.book().life = Duration::from_secs(6);
    let (controller, daemon) = scene.member("");
    let key = || fs::read_to_string(scene.kept("identity.json")).expect("there");
    let first = key();
    scene.fleet.hello(3);
    assert!(scene.fleet.book().renewed >= 2);
    assert_ne!(key(), first);
    scene.assert_private("identity.json");
    controller.kill();
    wait_up_to(Duration::from_secs(30), "the end of it", || {
        let shown = daemon.json(&["fleet", "status"]);
        let problem = shown["problem"].as_str().unwrap_or_default().to_owned();
        (problem.contains("has expired on") && problem.contains("node-1")).then_some(())
    });
    scene.fleet.book().life = Duration::from_secs(3600);
    let hellos = scene.fleet.book().hellos.len();
    let _controller = scene.serve();
    let token = scene.put_token();
    // It looks once a minute, or when it is told to.
    kill(daemon.pid(), Signal::SIGHUP).expect("it runs");
    scene.fleet.hello(hellos + 1);
    let joined = scene.fleet.book().joined.clone();
    assert_eq!((joined.len(), joined[1].node_id.as_str()), (2, "node-1"));
    assert!(!token.exists());
}

/// All of `[fleet]` takes effect at a reload; what is wrong is refused and changes nothing.
#[test]
fn the_section_is_reloaded() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    scene.put_token();
    scene.configure("");
    let whole = fs::read_to_string(scene.scratch.path("xdpgated.toml")).expect("a file");
    scene.scratch.file("xdpgated.toml", "");
    let daemon = scene.start_member();
    daemon
        .ask(&["fleet", "status"])
        .refused(1, &["no fleet", "[fleet]"]);
    let _controller = scene.serve();
    scene.scratch.file("xdpgated.toml", &whole);
    daemon.ask(&["reload"]).ok();
    scene.fleet.hello(1);
    scene.fleet.send(5, &policy(BAD), Mode::Enforce);
    scene.fleet.applied();

    scene.configure("local_changes = 'refuse'");
    daemon.ask(&["reload"]).ok();
    scene.fleet.hello(2);
    let closed = scene.scratch.file("closed.yaml", CLOSED);
    for change in [
        &["policy", "apply", &closed][..],
        &["rule", "remove", "bad"],
    ] {
        daemon
            .ask(change)
            .refused(1, &["fleet's", "fleet.local_changes"]);
    }
    daemon.ask(&["ban", "192.0.2.9", "--for", "1h"]).ok();
    assert!(!scene.bad_arrives());

    scene.configure("local_changes = 'keep'");
    let said = daemon.ask(&["reload"]);
    assert!(said.stderr.contains("fleet.local_changes"), "{said}");
    // What was labelled anew is told.
    let labelled = whole.replace("env=test", "env=prod");
    scene.scratch.file("xdpgated.toml", labelled);
    daemon.ask(&["reload"]).ok();
    assert_eq!(scene.fleet.hello(3).labels["env"], "prod");
    scene.scratch.file("xdpgated.toml", "");
    daemon.ask(&["reload"]).ok();
    daemon.ask(&["fleet", "status"]).refused(1, &["no fleet"]);
    assert!(!scene.bad_arrives(), "what it had stays");
}

/// Counters and sampled frames, by question.
#[test]
fn questions_are_answered_until_they_are_stopped() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let (_controller, daemon) = scene.member("");
    let (fleet, bad) = (&scene.fleet, policy(BAD));
    fleet.send(5, &bad, Mode::Enforce);
    fleet.applied();
    wait_in_force(&daemon, &bad);
    let ask = |id, question| {
        fleet.say(Said::Ask(Ask {
            id,
            question: Some(question),
        }));
    };
    ask(1, Question::Events(WatchEventsRequest::default()));
    let sampled = || {
        let book = fleet.book();
        let events = book
            .answers
            .iter()
            .filter_map(|answer| match &answer.answer {
                Some(answer::Answer::Events(events)) => Some(events.events.len()),
                _ => None,
            });
        events.sum::<usize>()
    };
    wait_for("a sampled frame", || {
        assert!(!scene.bad_arrives());
        (sampled() > 0).then_some(())
    });
    ask(
        2,
        Question::RuleCounters(RuleIds {
            ids: vec!["bad".to_owned(), "none".to_owned()],
        }),
    );
    let counted = wait_for("counters", || {
        let book = fleet.book();
        book.answers.iter().find_map(|answer| match &answer.answer {
            Some(answer::Answer::RuleCounters(counters)) if answer.id == 2 => {
                Some(counters.clone())
            }
            _ => None,
        })
    });
    assert_eq!(counted.rules.len(), 1);
    assert!(counted.rules[0].packets > 0, "{counted:?}");
    ask(3, Question::Stop(1));
    std::thread::sleep(Duration::from_millis(500));
    let before = sampled();
    assert!(!scene.bad_arrives());
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(sampled(), before);
    // No more than some at a time, and more are refused with a reason.
    for id in 10..20 {
        ask(id, Question::Events(WatchEventsRequest::default()));
    }
    wait_for("a refusal", || {
        let book = fleet.book();
        let is_refused = |answer: &xdpgate_api::fleet::v1::Answer| matches!(&answer.answer, Some(answer::Answer::Error(e)) if e.contains("stop one"));
        book.answers.iter().any(is_refused).then_some(())
    });
}
