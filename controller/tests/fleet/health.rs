//! Whether nodes are there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use xdpgate_controller::fleet::testing::{Manners, Order};
use xdpgate_controller::fleet::{Event, State};

use crate::board::{Board, config, id, policy, rule, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r85_three_missed_heartbeats_are_offline_and_one_good_one_is_online_and_synced() {
    let board = Board::start(config(), None).await;
    let revision = board.set(&["a"], &policy(5), None);
    assert_eq!(
        board.fleet.state(&id("a")).unwrap().0,
        State::NeverConnected
    );
    let mut events = board.fleet.events();
    let node = board.run(board.node("a")).await;
    board.applied(revision, 1).await;
    until("fresh", || {
        board.fleet.state(&id("a")).unwrap().0 == State::Fresh
    })
    .await;

    // It hangs up: stale at once, and offline only after three heartbeats.
    let gone = Instant::now();
    let mut node = node.leave().await;
    until("stale", || {
        board.fleet.state(&id("a")).unwrap().0 == State::Stale
    })
    .await;
    until("offline", || {
        board.fleet.state(&id("a")).unwrap().0 == State::Offline
    })
    .await;
    assert!(
        gone.elapsed() > Duration::from_millis(400),
        "{:?}",
        gone.elapsed()
    );
    assert_eq!(board.fleet.overview().online, 0);

    // While it is away something changes. It comes back: connecting, until its first heartbeat.
    let (revision, now) = board.change(&["a"], &[rule("{ id: new, action: count }")]);
    node.manners = Manners {
        silent: true,
        ..Manners::default()
    };
    let node = board.run(node).await;
    node.until("the change", |seen| seen.hash == Some(now.hash()))
        .await;
    assert_eq!(
        board.fleet.state(&id("a")).unwrap().0,
        State::Offline,
        "no heartbeat yet"
    );
    node.tell(Order::Behave(Manners::default())).await;
    until("fresh", || {
        board.fleet.state(&id("a")).unwrap().0 == State::Fresh
    })
    .await;
    board.applied(revision, 1).await;

    let mut turns = Vec::new();
    while turns.len() < 3 {
        let event = tokio::time::timeout(Duration::from_secs(20), events.next()).await;
        let event = event.unwrap().unwrap();
        if matches!(event, Event::Online { .. } | Event::Offline { .. }) {
            turns.push(event);
        }
    }
    let a = || id("a");
    assert_eq!(
        turns[..3],
        [
            Event::Online { node: a() },
            Event::Offline { node: a() },
            Event::Online { node: a() },
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r88_states_that_operators_and_the_controller_make() {
    let board = Board::start(config(), None).await;
    let revision = board.set(&["a", "b"], &policy(5), None);
    let a = board.run(board.node("a")).await;
    let b = board.run(board.node("b")).await;
    board.applied(revision, 2).await;
    let state = |node: &str| board.fleet.state(&id(node)).unwrap().0;
    board.edit_record("a", |record| record.maintenance = true);
    assert_eq!(state("a"), State::Maintenance);
    board.edit_record("a", |record| record.maintenance = false);
    // Who is revoked is thrown out, and let in no more.
    board.edit_record("a", |record| record.revoked = true);
    let (a, status) = a.ended().await;
    assert_eq!(status.code(), tonic::Code::Unauthenticated, "{status}");
    assert!(status.message().contains("revoked"), "{status}");
    assert_eq!(state("a"), State::Revoked);
    let (_, status) = board.run(a).await.ended().await;
    assert_eq!(status.code(), tonic::Code::Unauthenticated);
    // So is who is no member.
    board.edit(|targets| {
        Arc::make_mut(&mut targets.nodes).remove("b");
    });
    assert_eq!(b.ended().await.1.code(), tonic::Code::Unauthenticated);
    let (_, status) = board.run(board.node("nobody")).await.ended().await;
    assert_eq!(status.code(), tonic::Code::Unauthenticated);
    assert!(board.fleet.status(&id("nobody")).is_none());
}
