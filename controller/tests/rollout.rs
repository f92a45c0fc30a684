//! Row 120: staged rollouts over the real core and SQLite store, with nodes that do as the test says.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::core::{Fleet, actor, name, rule};
use common::rollout::{Clock, Nodes, at, history, plan, rollout, start, versions};
use xdpgate_controller::core::{
    Command, CommandError, Core, ErrorKind, Options, PlanChoice, audit,
};
use xdpgate_controller::domain::Mode;
use xdpgate_controller::rollout::{Change, Planned, Reach, State, What};

const NODES: [&str; 8] = ["n-0", "n-1", "n-2", "n-3", "n-4", "n-5", "n-6", "n-7"];

async fn fleet() -> (Fleet, Arc<Nodes>) {
    let fleet = Fleet::new().await;
    let rule = "{ id: base, match: { src: 192.0.2.1 }, action: drop }";
    fleet.policy("web", &[rule]).await;
    fleet.group("all", "", &["web"]).await;
    for node in NODES {
        fleet.node(node, &[]).await;
    }
    let nodes = Nodes::new(&fleet.core, NODES.map(str::to_owned));
    (fleet, nodes)
}

fn canary() -> Planned {
    Planned::Nodes(vec!["n-3".to_owned()])
}

async fn change(fleet: &Fleet, seconds: u64, id: &str, change: Change) -> Result<(), CommandError> {
    let command = Command::ChangeRollout {
        rollout: name(id),
        change,
    };
    let options = Options {
        why: "the test says so".to_owned(),
        ..Options::default()
    };
    let actor = actor();
    let done = fleet
        .core
        .execute_at(at(seconds), &actor, vec![command], &options);
    done.await.map(drop)
}

/// How many controllers say what they see.
async fn statuses(core: &Core) -> usize {
    let page = core.store().list("rollout-status/", None, 10, None).await;
    page.expect("the store").records.len()
}

fn has(versions: &[u64], version: u64) -> usize {
    versions.iter().filter(|v| **v == version).count()
}

#[tokio::test]
async fn r120_a_good_policy_reaches_all_stage_by_stage() {
    let (fleet, nodes) = fleet().await;
    let core = &fleet.core;
    let mut clock = Clock::new(core, &nodes, "c-1");
    clock.pass(100).await;
    let half = plan(&[canary(), Planned::Percent(50)], 60);
    start(core, clock.seconds, "r-1", "new", half).await;
    assert_eq!(has(&versions(core, NODES), 2), 1, "the canary, at once");
    assert_eq!(versions(core, ["n-3"]), [2]);
    clock.pass(58).await;
    assert_eq!(rollout(core, "r-1").stage, 0, "it bakes");
    assert!(
        clock.executor.looks().borrow()["r-1"]
            .waits
            .contains("baking")
    );
    assert_eq!(statuses(core).await, 1);
    clock.pass(4).await;
    assert_eq!(rollout(core, "r-1").stage, 1);
    let some = has(&versions(core, NODES), 2);
    assert!((2..8).contains(&some), "{some}: about half of them");
    clock.pass(70).await;
    assert_eq!(rollout(core, "r-1").state, State::Done);
    assert_eq!(versions(core, NODES), [2; 8]);
    let wanted = [
        What::Started,
        What::Advanced,
        What::Advanced,
        What::Finished,
    ];
    assert_eq!(history(&rollout(core, "r-1")), wanted);
    clock.pass(2).await;
    assert_eq!(statuses(core).await, 0, "nothing is left of it");
}

/// Starts a rollout, has the canary do harm, and expects that it goes back by itself.
async fn harm(gate: &str, says: &str, harm: impl FnOnce(&Nodes)) {
    let (fleet, nodes) = fleet().await;
    let core = &fleet.core;
    let mut clock = Clock::new(core, &nodes, "c-1");
    nodes.set("n-3", |node| node.drops = 2);
    clock.pass(100).await;
    start(core, clock.seconds, "r-1", "bad", plan(&[canary()], 120)).await;
    clock.pass(10).await;
    assert_eq!(
        rollout(core, "r-1").state,
        State::Running,
        "all is well so far"
    );
    harm(&nodes);
    clock.pass(40).await;
    let after = rollout(core, "r-1");
    assert_eq!(after.state, State::RolledBack, "{after:?}");
    let reason = after.reason.as_deref().unwrap_or_default();
    assert!(reason.starts_with(gate), "{reason}");
    assert!(reason.contains("n-3") && reason.contains(says), "{reason}");
    assert_eq!(versions(core, NODES), [1; 8]);
    assert_eq!(history(&after), [What::Started, What::RolledBack]);
    assert_eq!(
        core.view().policies()[&name("web")].version,
        2,
        "the head is history"
    );
    assert_eq!(core.view().released(&name("web")), Some(1));
    // As the store has it, too.
    drop((clock, nodes));
    let fleet = fleet.restart().await;
    assert_eq!(versions(&fleet.core, NODES), [1; 8]);
}

#[tokio::test]
async fn r120_a_bad_policy_that_the_canary_refuses_stops_there() {
    let refuse = |nodes: &Nodes| nodes.set("n-3", |node| node.refuses = Some(2));
    harm("max_refused", "no such thing here", refuse).await;
}

#[tokio::test]
async fn r120_a_jump_of_drops_rolls_back() {
    let drop = |nodes: &Nodes| nodes.set("n-3", |node| node.drops_with = Some((2, 90)));
    harm("max_dropping", "2.0 % before", drop).await;
}

#[tokio::test]
async fn r120_a_link_that_is_lost_rolls_back() {
    let lose = |nodes: &Nodes| nodes.set("n-3", |node| node.away = true);
    harm("max_lost", "its link is gone for 20 s", lose).await;
}

#[tokio::test]
async fn r120_a_node_that_breaks_rolls_back() {
    let sicken = |nodes: &Nodes| nodes.set("n-3", |node| node.breaks = Some(2));
    harm("max_unhealthy", "not attached", sicken).await;
}

#[tokio::test]
async fn r120_a_link_that_comes_back_in_time_holds_up_but_ends_nothing() {
    let (fleet, nodes) = fleet().await;
    let core = &fleet.core;
    let mut clock = Clock::new(core, &nodes, "c-1");
    clock.pass(100).await;
    start(core, clock.seconds, "r-1", "new", plan(&[canary()], 30)).await;
    clock.pass(26).await;
    nodes.set("n-3", |node| node.away = true);
    clock.pass(12).await;
    assert_eq!(rollout(core, "r-1").stage, 0, "it is waited for");
    nodes.set("n-3", |node| node.away = false);
    clock.pass(26).await;
    assert_eq!(rollout(core, "r-1").stage, 0, "it bakes anew");
    clock.pass(8).await;
    assert_eq!(rollout(core, "r-1").state, State::Done);
}

#[tokio::test]
async fn r120_pause_resume_abort_and_the_kill_switch() {
    let (fleet, nodes) = fleet().await;
    let core = &fleet.core;
    let mut clock = Clock::new(core, &nodes, "c-1");
    clock.pass(100).await;
    start(core, clock.seconds, "r-1", "new", plan(&[canary()], 30)).await;
    clock.pass(20).await;
    change(&fleet, clock.seconds, "r-1", Change::Pause)
        .await
        .unwrap();
    clock.pass(200).await;
    assert_eq!(rollout(core, "r-1").stage, 0);
    assert_eq!(
        has(&versions(core, NODES), 2),
        1,
        "nodes keep what they have"
    );
    // One at a time.
    let again = Command::StartRollout {
        rollout: name("r-2"),
        policy: name("web"),
        plan: PlanChoice::Named(name("default")),
    };
    let error = fleet.run(again.clone()).await.expect_err("one is active");
    assert_eq!(error.kind, ErrorKind::Conflict, "{error}");
    change(&fleet, clock.seconds, "r-1", Change::Resume)
        .await
        .unwrap();
    clock.pass(6).await;
    assert_eq!(rollout(core, "r-1").stage, 0, "20 of 30 s were baked");

    fleet
        .run(Command::SetFleetMode {
            mode: Some(Mode::DryRun),
        })
        .await
        .unwrap();
    let paused = rollout(core, "r-1");
    assert_eq!(paused.state, State::Paused);
    assert!(
        paused.reason.as_deref().unwrap().contains("kill switch"),
        "{paused:?}"
    );
    let error = change(&fleet, clock.seconds, "r-1", Change::Resume).await;
    assert!(
        error
            .expect_err("in dry run")
            .to_string()
            .contains("kill switch")
    );
    fleet
        .run(Command::SetFleetMode { mode: None })
        .await
        .unwrap();
    assert_eq!(
        rollout(core, "r-1").state,
        State::Paused,
        "until somebody resumes it"
    );

    change(&fleet, clock.seconds, "r-1", Change::Abort)
        .await
        .unwrap();
    assert_eq!(versions(core, NODES), [1; 8]);
    clock.pass(100).await;
    assert_eq!(rollout(core, "r-1").state, State::Aborted);
    assert_eq!(
        rollout(core, "r-1").reason.as_deref(),
        Some("the test says so")
    );

    // The version that was aborted can be tried again, by the plan that is there without a setting.
    fleet.run(again).await.expect("it starts");
    let second = rollout(core, "r-2");
    assert_eq!((second.from, second.to), (1, 2));
    assert!(matches!(&second.stages[0].reach, Reach::Nodes(nodes) if nodes.len() == 1));
    assert!(!rollout(core, "r-1").in_force);
}

#[tokio::test]
async fn r120_what_was_rolled_back_does_not_come_with_the_next_change() {
    let (fleet, _) = fleet().await;
    let core = &fleet.core;
    start(core, 0, "r-1", "bad", plan(&[canary()], 30)).await;
    change(&fleet, 0, "r-1", Change::Abort).await.unwrap();
    let put = Command::PutRule {
        policy: name("web"),
        rule: rule("{ id: ban, match: { src: 192.0.2.9 }, action: drop }"),
    };
    let error = fleet
        .run(put.clone())
        .await
        .expect_err("it would bring version 2 too");
    assert_eq!(error.kind, ErrorKind::Conflict);
    assert!(error.mend.contains("revert to version 1"), "{error}");
    let revert = Command::RevertPolicy {
        policy: name("web"),
        version: 1,
    };
    fleet
        .with(vec![revert, put], &Options::default())
        .await
        .expect("both at once");
    assert_eq!(fleet.rules_of("n-0"), ["ban", "base"]);
    assert!(!rollout(core, "r-1").in_force);

    // Somebody who knows better releases it.
    start(core, 0, "r-2", "bad", plan(&[canary()], 30)).await;
    change(&fleet, 0, "r-2", Change::Abort).await.unwrap();
    assert_eq!(fleet.rules_of("n-0"), ["ban", "base"]);
    fleet
        .run(Command::ReleasePolicy {
            policy: name("web"),
        })
        .await
        .unwrap();
    assert_eq!(fleet.rules_of("n-0"), ["bad", "ban", "base"]);
}

#[tokio::test]
async fn r120_a_change_during_a_rollout_reaches_nobody_until_it_ends() {
    let (fleet, nodes) = fleet().await;
    let core = &fleet.core;
    let mut clock = Clock::new(core, &nodes, "c-1");
    clock.pass(100).await;
    start(core, clock.seconds, "r-1", "new", plan(&[canary()], 30)).await;
    let put = |id: &str, more: &str| Command::PutRule {
        policy: name("web"),
        rule: rule(&format!(
            "{{ id: {id}, match: {{ {more} }}, action: drop }}"
        )),
    };
    fleet.run(put("later", "src: 192.0.2.9")).await.unwrap();
    assert_eq!(core.view().policies()[&name("web")].version, 3);
    assert_eq!(fleet.rules_of("n-0"), ["base"]);
    assert_eq!(fleet.rules_of("n-3"), ["base", "new"]);
    let error = fleet.run(put("wrong", "src: '@nothing'")).await;
    let error = error.expect_err("what nobody has yet is looked at all the same");
    assert_eq!(error.kind, ErrorKind::Invalid, "{error}");
    let seconds = clock.seconds;
    drop((clock, nodes));
    let fleet = fleet.restart().await;
    assert_eq!(
        fleet.rules_of("n-0"),
        ["base"],
        "versions are read from the store"
    );
    assert_eq!(fleet.rules_of("n-3"), ["base", "new"]);
    let nodes = Nodes::new(&fleet.core, NODES.map(str::to_owned));
    let mut clock = Clock::new(&fleet.core, &nodes, "c-1");
    clock.seconds = seconds;
    clock.pass(100).await;
    assert_eq!(rollout(&fleet.core, "r-1").state, State::Done);
    assert_eq!(fleet.rules_of("n-0"), ["base", "later", "new"]);
}

#[tokio::test]
async fn r120_nodes_that_join_or_come_back_get_what_their_place_gives_them() {
    let (fleet, nodes) = fleet().await;
    let core = &fleet.core;
    let mut clock = Clock::new(core, &nodes, "c-1");
    for node in ["n-5", "n-6"] {
        nodes.set(node, |node| node.away = true);
    }
    clock.pass(100).await;
    let first = Planned::Nodes(vec!["n-3".to_owned(), "n-5".to_owned(), "n-6".to_owned()]);
    start(
        core,
        clock.seconds,
        "r-1",
        "new",
        plan(&[first, Planned::Percent(50)], 30),
    )
    .await;
    clock.pass(10).await;
    let look = clock.executor.looks().borrow()["r-1"].clone();
    assert_eq!(look.observed.offline, 2, "they hold nothing up: {look:?}");
    nodes.set("n-5", |node| node.away = false);
    clock.pass(40).await;
    assert_eq!(rollout(core, "r-1").stage, 1);
    for n in 100..140 {
        fleet.node(&format!("n-{n}"), &[]).await;
        nodes.set(&format!("n-{n}"), |_| {});
    }
    let joined: Vec<String> = (100..140).map(|n| format!("n-{n}")).collect();
    let some = has(&versions(core, joined.iter().map(String::as_str)), 2);
    assert!((8..=32).contains(&some), "{some} of 40: about half of them");
    // One that comes back late and refuses ends it all the same.
    nodes.set("n-6", |node| {
        node.away = false;
        node.refuses = Some(2);
    });
    clock.pass(4).await;
    let after = rollout(core, "r-1");
    assert_eq!(after.state, State::RolledBack);
    assert!(
        after.reason.as_deref().unwrap().contains("n-6"),
        "{after:?}"
    );
    assert_eq!(versions(core, joined.iter().map(String::as_str)), [1; 40]);
}

#[tokio::test]
async fn r120_a_stage_waits_for_who_does_not_answer_and_for_a_canary_that_is_away() {
    let (fleet, nodes) = fleet().await;
    let core = &fleet.core;
    let mut clock = Clock::new(core, &nodes, "c-1");
    nodes.set("n-3", |node| node.away = true);
    clock.pass(100).await;
    start(core, clock.seconds, "r-1", "new", plan(&[canary()], 0)).await;
    clock.pass(100).await;
    assert_eq!(rollout(core, "r-1").stage, 0, "it has proved nothing");
    nodes.set("n-3", |node| {
        node.away = false;
        node.hangs = true;
    });
    clock.pass(100).await;
    assert_eq!(rollout(core, "r-1").stage, 0, "it has not answered");
    nodes.set("n-3", |node| node.hangs = false);
    clock.pass(4).await;
    assert_eq!(rollout(core, "r-1").state, State::Done);
}

#[tokio::test]
async fn r120_after_a_restart_the_canary_must_come_back() {
    let (fleet, nodes) = fleet().await;
    let core = &fleet.core;
    let mut clock = Clock::new(core, &nodes, "c-1");
    clock.pass(100).await;
    start(core, clock.seconds, "r-1", "bad", plan(&[canary()], 10)).await;
    clock.pass(4).await;
    // The controller is killed, and the canary is not heard of again: this process does not know that it was there.
    let others = NODES.iter().filter(|node| **node != "n-3");
    let nodes = Nodes::new(core, others.map(|node| (*node).to_owned()));
    let seconds = clock.seconds;
    let mut clock = Clock::new(core, &nodes, "c-1");
    clock.seconds = seconds;
    clock.pass(70).await;
    assert_eq!(
        rollout(core, "r-1").state,
        State::Running,
        "it has time to come back"
    );
    clock.pass(20).await;
    let after = rollout(core, "r-1");
    assert_eq!(after.state, State::RolledBack);
    assert!(
        after.reason.as_deref().unwrap().contains("n-3"),
        "{after:?}"
    );
}

#[tokio::test]
async fn r120_two_executors_on_one_store_make_each_step_once() {
    let (fleet, _) = fleet().await;
    let one = &fleet.core;
    let two = &Core::open(one.store().clone())
        .await
        .expect("a second controller");
    let names = NODES.map(str::to_owned);
    let (left, right) = (names[..4].to_vec(), names[4..].to_vec());
    let (left, right) = (Nodes::new(one, left), Nodes::new(two, right));
    let (mut a, mut b) = (
        Clock::new(one, &left, "c-1"),
        Clock::new(two, &right, "c-2"),
    );
    let stages: Vec<_> = [20, 40, 60, 80].map(Planned::Percent).into();
    let first = [Planned::Count(2)]
        .into_iter()
        .chain(stages)
        .collect::<Vec<_>>();
    a.pass(100).await;
    b.pass(100).await;
    start(one, 100, "r-1", "new", plan(&first, 4)).await;
    for _ in 0..40 {
        a.seconds += 2;
        b.seconds += 2;
        // Both at once, each with the view that it has.
        tokio::join!(a.look(), b.look());
    }
    let done = rollout(one, "r-1");
    assert_eq!(done.state, State::Done, "{done:?}");
    let stages: Vec<usize> = done.events.iter().map(|event| event.stage).collect();
    assert_eq!(stages, [0, 1, 2, 3, 4, 5, 5]);
    let page = one
        .store()
        .list(audit::PREFIX, None, 1000, None)
        .await
        .unwrap();
    let mut actions: BTreeMap<String, usize> = BTreeMap::new();
    for (_, record) in page.records {
        let entry: audit::Entry = serde_json::from_slice(&record.value).unwrap();
        if entry.actor == "rollout" {
            *actions.entry(entry.action).or_default() += 1;
        }
    }
    let wanted = [("rollout.advance", 5), ("rollout.finish", 1)];
    assert_eq!(actions, wanted.map(|(a, n)| (a.to_owned(), n)).into());

    // A node that moves from one controller to the other is not lost.
    start(one, a.seconds, "r-2", "newer", plan(&first, 60)).await;
    tokio::join!(a.pass(10), b.pass(10));
    let canary = rollout(one, "r-2").stages[0].reach.clone();
    let Reach::Nodes(canary) = canary else {
        panic!("{canary:?}");
    };
    for node in &canary {
        left.set(node, |node| node.away = true);
        right.set(node, |node| node.away = false);
    }
    for _ in 0..22 {
        a.seconds += 2;
        b.seconds += 2;
        tokio::join!(a.look(), b.look());
    }
    let moved = rollout(one, "r-2");
    assert_eq!(moved.state, State::Running, "{moved:?}");
    // But one that neither of them sees is.
    right.set(&canary[0], |node| node.away = true);
    for _ in 0..12 {
        a.seconds += 2;
        b.seconds += 2;
        tokio::join!(a.look(), b.look());
    }
    assert_eq!(rollout(two, "r-2").state, State::RolledBack);
    left.take(&canary[0]);
}
