//! What nodes are sent, and what the controller knows of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use tonic::Code;
use xdpgate::policy::{AddressSet, Change, Prefix, RuleId, SetName};
use xdpgate_api::fleet::v1::result::Reason as Says;
use xdpgate_api::v1 as api;
use xdpgate_controller::domain::{Mode, Name};
use xdpgate_controller::fleet::testing::{Manners, Order};
use xdpgate_controller::fleet::{Delivery, Event, Reason, Scope, Signer, State};

use crate::board::{Board, config, id, policy, rule, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r80_each_failed_node_is_named_and_a_hung_one_delays_nobody() {
    let mut config = config();
    config.answer_within = Duration::from_millis(500);
    config.answers_missed = 8;
    let board = Board::start(config, None).await;
    let all = ["good-1", "good-2", "hung", "refuses", "away"];
    board.set(&all, &policy(10), None);
    let mut good = Vec::new();
    for name in &all[..2] {
        good.push(board.run(board.node(name)).await);
    }
    let hangs = Manners {
        hangs: true,
        ..Manners::default()
    };
    let hung = board.run(board.node("hung").with(hangs)).await;
    let error = (Says::Policy, "rules[3]: too many prefix lengths".to_owned());
    let manners = Manners {
        refuses: Some(error),
        ..Manners::default()
    };
    let refuses = board.run(board.node("refuses").with(manners)).await;
    let mut events = board.fleet.events();

    // Three changes, one after the other: who answers gets each, while one hangs over the first.
    let mut last = 0;
    for i in 0..3 {
        let (revision, policy) =
            board.change(&all, &[rule(&format!("{{ id: new-{i}, action: count }}"))]);
        last = revision;
        for node in &good {
            let seen = node
                .until("the change", |seen| seen.sequence == revision)
                .await;
            assert_eq!(seen.hash, Some(policy.hash()));
        }
    }
    let began = Instant::now();
    let progress = board
        .fleet
        .wait(&Scope::Revision(last), 1.0, Duration::from_millis(300))
        .await;
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "the caller is held up: {:?}",
        began.elapsed()
    );
    assert_eq!(progress.applied, 2);
    let text = "rules[3]: too many prefix lengths".to_owned();
    assert_eq!(progress.refused, [(id("refuses"), Reason::Policy, text)]);
    assert_eq!(
        (progress.pending, progress.offline),
        (vec![id("hung")], vec![id("away")])
    );
    let share = board
        .fleet
        .wait(&Scope::Revision(last), 0.4, Duration::from_secs(20))
        .await;
    assert_eq!(share.applied, 2, "2 of 5 are 40 %");
    assert_eq!(
        hung.seen.borrow().snapshots + hung.seen.borrow().deltas,
        1,
        "one state waits for its answer"
    );

    // It is reported, and after a while its session ends.
    until("it is overdue", || {
        board.fleet.state(&id("hung")).unwrap().1 == Delivery::Pending { overdue: true }
    })
    .await;
    let silent = events.by_ref().any(|event| {
        std::future::ready(matches!(event, Event::Silent { node, .. } if node == id("hung")))
    });
    assert!(
        tokio::time::timeout(Duration::from_secs(20), silent)
            .await
            .unwrap()
    );
    let (_, status) = hung.ended().await;
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    let progress = board
        .fleet
        .progress(&Scope::Policy(Name::new("web").unwrap(), last));
    assert!(!progress.seen, "the view of this test has no policies");
    drop((good, refuses));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r83_full_diff_and_forced_sync_end_with_the_same_digest() {
    let board = Board::start(config(), None).await;
    let names: Vec<String> = (0..20).map(|i| format!("n-{i}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let hosts = (0..30_000_u32).map(|i| Prefix::host(std::net::Ipv4Addr::from(i * 3).into()));
    let bad = SetName::new("bad").unwrap();
    let first = policy(2000)
        .to_builder()
        .set(bad.clone(), AddressSet::from_prefixes(hosts));
    let first = first.build().unwrap();
    let revision = board.set(&names, &first, Some(Mode::Enforce));
    let mut nodes = Vec::new();
    for name in &names {
        nodes.push(board.run(board.node(name)).await);
    }
    board.applied(revision, 20).await;
    assert_eq!(board.fleet.computed(), (0, 1), "one snapshot for all");

    // A change costs what it changes, and is computed once.
    let until = Some("2031-01-01T00:00:00Z".parse().unwrap());
    let changes = [
        rule("{ id: new, priority: 7, match: { src: '@bad' }, action: drop }"),
        Change::RemoveRule(RuleId::new("r-5").unwrap()),
        Change::RemoveEntries(bad.clone(), vec!["0.0.0.3".parse().unwrap()]),
        Change::AddEntries(bad, vec![("198.51.100.0/24".parse().unwrap(), until)]),
    ];
    let (revision, second) = board.change(&names, &changes);
    board.applied(revision, 20).await;
    assert_eq!(board.fleet.computed(), (1, 1));
    for node in &nodes {
        let seen = node
            .until("the change", |seen| seen.sequence == revision)
            .await;
        assert_eq!((seen.snapshots, seen.deltas, seen.changes), (1, 1, 3));
        assert_eq!(
            (seen.hash, seen.mode),
            (Some(second.hash()), api::Mode::Enforce.into())
        );
    }
    // Only the mode: no changes at all.
    let revision = board.set(&names, &second, Some(Mode::DryRun));
    board.applied(revision, 20).await;
    let seen = nodes[3]
        .until("the mode", |seen| seen.sequence == revision)
        .await;
    assert_eq!(
        (seen.deltas, seen.changes, seen.mode),
        (2, 3, api::Mode::DryRun.into())
    );

    // By force: all of it, though it is there.
    assert!(board.fleet.sync(&id("n-3")));
    assert!(!board.fleet.sync(&id("nobody")));
    nodes[3]
        .until("a snapshot", |seen| seen.snapshots == 2)
        .await;
    assert_eq!(board.fleet.sync_all(), 20);
    for (i, node) in nodes.iter().enumerate() {
        let snapshots = if i == 3 { 3 } else { 2 };
        node.until("a snapshot", |seen| seen.snapshots == snapshots)
            .await;
    }
    assert_eq!(board.fleet.computed(), (1, 2));
    board.applied(revision, 20).await;
    // The digest is that of the policy, which was really built of what came.
    let policy = nodes.remove(3).leave().await.policy().unwrap().clone();
    assert_eq!(*policy, second);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r83_a_snapshot_is_built_of_chunks_and_the_next_one_fetches_only_what_is_new() {
    let board = Board::start(config(), None).await;
    let first = policy(3000);
    board.set(&["a"], &first, None);
    let keeps = Manners {
        keeps_chunks: true,
        ..Manners::default()
    };
    let node = board.run(board.node("a").with(keeps)).await;
    let whole = node
        .until("all", |seen| seen.hash == Some(first.hash()))
        .await
        .fetched;
    assert!(whole > 200_000, "{whole}");
    let (_, second) = board.change(&["a"], &[rule("{ id: new, priority: 70, action: count }")]);
    node.until("the change", |seen| seen.hash == Some(second.hash()))
        .await;
    assert!(board.fleet.sync(&id("a")));
    let seen = node.until("a snapshot", |seen| seen.snapshots == 2).await;
    assert!(
        seen.fetched > whole && seen.fetched - whole < whole / 5,
        "{seen:?} after {whole}"
    );
    assert_eq!(node.leave().await.policy().unwrap().rules().len(), 3001);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r84_a_node_that_was_offline_has_the_same_digest_soon_after_its_return() {
    let board = Board::start(config(), None).await;
    let first = policy(500);
    let revision = board.set(&["stays", "goes"], &first, None);
    let stays = board.run(board.node("stays")).await;
    let goes = board.run(board.node("goes")).await;
    board.applied(revision, 2).await;
    let goes = goes.leave().await;
    until("it is gone", || board.fleet.sessions() == 1).await;
    // Edited, deleted and added, each as a change of its own; one is taken back.
    let nodes = ["stays", "goes"];
    board.change(
        &nodes,
        &[rule(
            "{ id: r-7, priority: 1, match: { src: 192.0.2.7 }, action: pass }",
        )],
    );
    board.change(&nodes, &[Change::RemoveRule(RuleId::new("r-8").unwrap())]);
    board.change(
        &nodes,
        &[rule("{ id: added, action: drop, match: { dport: 25 } }")],
    );
    board.change(&nodes, &[rule("{ id: gone-again, action: count }")]);
    let (revision, now) = board.change(
        &nodes,
        &[Change::RemoveRule(RuleId::new("gone-again").unwrap())],
    );
    let progress = board.applied(revision, 1).await;
    assert_eq!(progress.offline, [id("goes")]);
    let goes = board.run(goes).await;
    let seen = goes
        .until("the changes", |seen| seen.hash == Some(now.hash()))
        .await;
    assert_eq!(
        (seen.snapshots, seen.deltas, seen.changes),
        (1, 1, 3),
        "only what differs in the end"
    );
    board.applied(revision, 2).await;
    // One that has something that nobody knows.
    let goes = goes.leave().await;
    let foreign = board.run(board.node("goes")).await;
    foreign
        .until("all", |seen| seen.hash == Some(now.hash()))
        .await;
    foreign
        .tell(Order::Change(vec![rule("{ id: own, action: count }")]))
        .await;
    let foreign = foreign.leave().await;
    let foreign = board.run(foreign).await;
    let seen = foreign
        .until("all again", |seen| seen.hash == Some(now.hash()))
        .await;
    assert_eq!((seen.snapshots, seen.deltas), (2, 0));
    drop((goes, stays));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r82_drift_is_counted_and_put_right_within_a_heartbeat() {
    let board = Board::start(config(), None).await;
    let first = policy(100);
    let revision = board.set(&["a"], &first, Some(Mode::Enforce));
    let node = board.run(board.node("a")).await;
    board.applied(revision, 1).await;
    let mut events = board.fleet.events();
    assert_eq!(board.fleet.status(&id("a")).unwrap().drift, 0);

    // A value at the node is another one: the next heartbeat tells, and nothing else is waited for.
    node.tell(Order::Change(vec![rule(
        "{ id: r-3, match: { src: 10.0.0.99 }, action: pass }",
    )]))
    .await;
    node.until("another policy", |seen| seen.hash != Some(first.hash()))
        .await;
    let began = Instant::now();
    node.tell(Order::Beat).await;
    node.until("the repair", |seen| seen.hash == Some(first.hash()))
        .await;
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    until("it is counted", || {
        let status = board.fleet.status(&id("a")).unwrap();
        status.drift == 1 && status.delivery == Delivery::Applied
    })
    .await;
    let drift = events
        .by_ref()
        .any(|event| std::future::ready(event == Event::Drift { node: id("a") }));
    assert!(
        tokio::time::timeout(Duration::from_secs(20), drift)
            .await
            .unwrap()
    );

    // The mode, too.
    node.tell(Order::Mode(api::Mode::DryRun)).await;
    node.tell(Order::Beat).await;
    node.until("the mode", |seen| {
        seen.mode == i32::from(api::Mode::Enforce)
    })
    .await;
    until("it is counted", || {
        board.fleet.status(&id("a")).unwrap().drift == 2
    })
    .await;
    // And what a node could not be brought to is shown.
    let stubborn = Manners {
        refuses: Some((Says::Node, "no memory".to_owned())),
        ..Manners::default()
    };
    node.tell(Order::Behave(stubborn)).await;
    node.tell(Order::Mode(api::Mode::DryRun)).await;
    node.tell(Order::Beat).await;
    until("it is shown", || {
        board.fleet.state(&id("a")).unwrap().0 == State::Drifted
    })
    .await;
    assert_eq!(
        node.leave().await.policy().unwrap().rule("r-3"),
        first.rule("r-3")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn states_are_signed_and_a_node_that_trusts_another_key_takes_none() {
    let key = ed25519_dalek::SigningKey::from_bytes(&[7; 32]);
    let public = Signer::public_key(&key);
    let board = Board::start(config(), Some(Arc::new(key))).await;
    let revision = board.set(&["right", "wrong"], &policy(5), None);
    let trusts = |key| Manners {
        key: Some(key),
        ..Manners::default()
    };
    let right = board.run(board.node("right").with(trusts(public))).await;
    let other = Signer::public_key(&ed25519_dalek::SigningKey::from_bytes(&[8; 32]));
    let wrong = board.run(board.node("wrong").with(trusts(other))).await;
    let refused = || {
        board
            .fleet
            .progress(&Scope::Revision(revision))
            .refused
            .len()
            == 1
    };
    until("one refuses", refused).await;
    let progress = board.applied(revision, 1).await;
    let names: Vec<_> = progress
        .refused
        .iter()
        .map(|r| (r.0.as_str(), r.1))
        .collect();
    assert_eq!(names, [("wrong", Reason::Signature)]);
    assert_eq!(board.fleet.state(&id("wrong")).unwrap().0, State::Refused);
    drop((right, wrong));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_delta_is_followed_by_a_snapshot_and_a_refused_policy_by_the_next_change() {
    let board = Board::start(config(), None).await;
    let revision = board.set(&["a"], &policy(5), None);
    let node = board.run(board.node("a")).await;
    board.applied(revision, 1).await;
    let refuses = |reason| Manners {
        refuses: Some((reason, "no".to_owned())),
        ..Manners::default()
    };
    node.tell(Order::Behave(refuses(Says::Base))).await;
    board.change(&["a"], &[rule("{ id: one, action: count }")]);
    let seen = node.until("a snapshot", |seen| seen.snapshots == 2).await;
    assert_eq!(seen.deltas, 1);
    node.tell(Order::Behave(refuses(Says::Policy))).await;
    let (revision, _) = board.change(&["a"], &[rule("{ id: two, action: count }")]);
    let all = Duration::from_secs(20);
    let progress = board.fleet.wait(&Scope::Revision(revision), 1.0, all).await;
    assert_eq!(
        progress.refused,
        [(id("a"), Reason::Policy, "no".to_owned())]
    );
    node.tell(Order::Behave(Manners::default())).await;
    let (revision, now) = board.change(&["a"], &[rule("{ id: three, action: count }")]);
    board.applied(revision, 1).await;
    assert_eq!(node.seen.borrow().hash, Some(now.hash()));
}
