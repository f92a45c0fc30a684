//! What is a node's own: its policy until something is assigned to it, and pass mode.

use futures_util::StreamExt as _;
use std::time::Duration;

use xdpgate::Policy;
use xdpgate_api::v1 as api;
use xdpgate_controller::domain::Mode;
use xdpgate_controller::fleet::testing::{Order, Running};
use xdpgate_controller::fleet::{Delivery, Event, Scope, State};

use crate::board::{Board, config, id, policy, rule, until};

/// A board, and a node that has a policy of its own and enforces it.
async fn with_own(own: &Policy) -> (Board, Running) {
    let board = Board::start(config(), None).await;
    board.unassign(&["a"], None);
    let node = board.node("a");
    let node = node.holding(&std::sync::Arc::new(own.clone()), own.hash());
    let node = board.run(node).await;
    node.tell(Order::Mode(api::Mode::Enforce)).await;
    node.tell(Order::Beat).await;
    until("it is here", || is(&board, State::Unassigned)).await;
    (board, node)
}

fn is(board: &Board, state: State) -> bool {
    board.fleet.state(&id("a")).unwrap().0 == state
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_keeps_its_own_policy_until_something_is_assigned_to_it() {
    let own = policy(3);
    let (board, node) = with_own(&own).await;
    let nothing = board.unassign(&["a"], None);
    let progress = board.fleet.progress(&Scope::Revision(nothing));
    assert_eq!((progress.seen, progress.nodes()), (true, 0), "{progress:?}");
    assert_eq!(board.fleet.overview().state, Some(State::Unassigned));
    // Whoever asks for a full state gets none.
    assert!(board.fleet.sync(&id("a")));
    // The kill switch: the mode alone, whatever the policy.
    board.unassign(&["a"], Some(Mode::DryRun));
    let dry = i32::from(api::Mode::DryRun);
    let seen = node.until("dry run", |seen| seen.mode == dry).await;
    assert_eq!((seen.deltas, seen.changes, seen.snapshots), (1, 0, 0));
    assert_eq!((seen.hash, seen.sequence), (Some(own.hash()), 0));
    // The operator's changes at the node are none of the fleet's business.
    node.tell(Order::Change(vec![rule("{ id: more, action: count }")]))
        .await;
    node.tell(Order::Beat).await;
    until("it is told", || {
        board.fleet.status(&id("a")).unwrap().has != Some(own.hash().to_string())
    })
    .await;
    assert!(is(&board, State::Unassigned));
    assert_eq!(board.fleet.status(&id("a")).unwrap().drift, 0);

    // From the first policy on it is under the fleet, and has nothing once nothing is left.
    let first = policy(5);
    board.set(&["a"], &first, Some(Mode::Enforce));
    node.until("the fleet's", |seen| seen.hash == Some(first.hash()))
        .await;
    until("it is fresh", || is(&board, State::Fresh)).await;
    let nothing = board.unassign(&["a"], None);
    board.applied(nothing, 1).await;
    let empty = Policy::default().hash();
    assert_eq!(node.seen.borrow().hash, Some(empty));
    assert!(is(&board, State::Fresh));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_policy_goes_also_from_a_node_that_was_away_or_had_the_same_as_its_own() {
    let own = policy(3);
    let (board, node) = with_own(&own).await;
    // The fleet's policy is the one that it has: it is told so, that it knows whose it is.
    let revision = board.set(&["a"], &own, None);
    board.applied(revision, 1).await;
    let seen = node.seen.borrow().clone();
    assert_eq!((seen.deltas, seen.changes, seen.snapshots), (1, 0, 0));
    assert!(seen.sequence > 0);
    let node = node.leave().await;
    // To the controllers of another store, what this one gave it is its own.
    let other = Board::of_store("epoch-2", config(), None).await;
    let nothing = other.unassign(&["a"], None);
    let node = node.start(other.channel().await);
    until("it is there", || is(&other, State::Unassigned)).await;
    assert_eq!(other.fleet.progress(&Scope::Revision(nothing)).nodes(), 0);
    assert_eq!(node.seen.borrow().hash, Some(own.hash()));
    let node = node.leave().await;
    let nothing = board.unassign(&["a"], None);
    let progress = || board.fleet.progress(&Scope::Revision(nothing));
    until("it is away", || progress().offline == [id("a")]).await;
    let node = board.run(node).await;
    board.applied(nothing, 1).await;
    assert_eq!(node.seen.borrow().hash, Some(Policy::default().hash()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pass_mode_is_the_nodes_own_and_shown() {
    let board = Board::start(config(), None).await;
    let revision = board.set(&["a"], &policy(3), Some(Mode::Enforce));
    let node = board.run(board.node("a")).await;
    board.applied(revision, 1).await;
    let mut events = board.fleet.events();
    let mut turned = async |on| {
        let event = Event::PanicOff { node: id("a"), on };
        let told = events
            .by_ref()
            .any(|seen| std::future::ready(seen == event));
        let told = tokio::time::timeout(Duration::from_secs(20), told).await;
        assert!(told.unwrap());
    };
    let pass = i32::from(api::Mode::Pass);
    node.tell(Order::Mode(api::Mode::Pass)).await;
    node.tell(Order::Beat).await;
    turned(true).await;
    // It gets what it shall have, and no mode is forced on it: it is not repaired again and again.
    let (revision, _) = board.change(&["a"], &[rule("{ id: more, action: count }")]);
    board.applied(revision, 1).await;
    let before = node.seen.borrow().clone();
    for _ in 0..3 {
        node.tell(Order::Beat).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let after = node.seen.borrow().clone();
    assert_eq!((after.mode, after.deltas), (pass, before.deltas));
    let status = board.fleet.status(&id("a")).unwrap();
    assert_eq!((status.panic_off, status.drift), (true, 0));
    assert_eq!(
        (status.state, status.delivery),
        (State::Fresh, Delivery::Applied)
    );
    until("the sum", || board.fleet.overview().panic_off == 1).await;
    // Taken back at the node, the fleet's mode counts again.
    node.tell(Order::Mode(api::Mode::DryRun)).await;
    node.tell(Order::Beat).await;
    turned(false).await;
    let enforce = i32::from(api::Mode::Enforce);
    node.until("the fleet's mode", |seen| seen.mode == enforce)
        .await;
    assert!(!board.fleet.status(&id("a")).unwrap().panic_off);
}
