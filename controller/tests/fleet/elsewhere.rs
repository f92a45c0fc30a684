//! Nodes that are at other controllers: two services in one process, which tell each other what a test has them tell.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use xdpgate_controller::fleet::testing::{Manners, Running};
use xdpgate_controller::fleet::{Claim, Filter, Fleet, Others, Part, Scope, State};

use crate::board::{Board, config, id, policy, until};

/// A far time, as of a controller whose clock is an hour ahead.
const AHEAD: u64 = 3_600_000;

async fn boards(nodes: &[&str]) -> [Board; 2] {
    let boards = [
        Board::start(config(), None).await,
        Board::start(config(), None).await,
    ];
    for board in &boards {
        board.set(nodes, &policy(1), None);
    }
    boards
}

fn now() -> u64 {
    jiff::Timestamp::now().as_millisecond() as u64
}

fn claims(fleet: &Fleet) -> Vec<Claim> {
    fleet.claims().0
}

fn claim(node: &str, at: u64) -> Claim {
    Claim { node: id(node), at }
}

/// All but the nodes of controllers that answer for themselves.
fn rest(answered: &[&str], silent: &[&str]) -> Part {
    let set = |names: &[&str]| {
        names
            .iter()
            .map(|name| Arc::from(*name))
            .collect::<HashSet<_>>()
    };
    Part::Rest(Others {
        answered: set(answered),
        silent: set(silent),
    })
}

async fn applied(board: &Board, node: &str) -> Running {
    let running = board.run(board.node(node)).await;
    running
        .until("its policy", |seen| seen.hash.is_some())
        .await;
    until("it is fresh", || {
        board.fleet.state(&id(node)).unwrap().0 == State::Fresh
    })
    .await;
    running
}

#[tokio::test]
async fn r121_a_node_that_moved_is_counted_once_and_its_old_session_ends() {
    let [a, b] = boards(&["n-1", "n-2"]).await;
    let old = applied(&a, "n-1").await;
    let here: Arc<str> = "a".into();
    b.fleet.hear_all(&here, claims(&a.fleet));
    assert_eq!(b.fleet.whereabouts(&id("n-1")), Some(here));
    let new = applied(&b, "n-1").await;
    assert_eq!(b.fleet.whereabouts(&id("n-1")), None, "it is here now");
    let [there]: [Claim; 1] = claims(&b.fleet).try_into().unwrap();
    assert!(there.at > claims(&a.fleet)[0].at);

    let to: Arc<str> = "b".into();
    a.fleet.hear(&to, vec![there.clone()]);
    let (_, status) = old.ended().await;
    assert!(status.message().contains("another session"), "{status:?}");
    assert_eq!(a.fleet.sessions(), 0);
    assert_eq!(claims(&a.fleet), []);
    // What both say together is of two nodes: one that is well and one that was nowhere.
    let own = b.fleet.sum(None, &Part::Own).unwrap();
    let all = a.fleet.sum(None, &rest(&["b"], &[])).unwrap().join(own);
    assert_eq!(
        (all.nodes, all.online, all.applied, all.fresh),
        (2, 1, 1, 1)
    );
    assert_eq!(
        (
            all.states[&State::Fresh],
            all.states[&State::NeverConnected]
        ),
        (1, 1)
    );
    assert_eq!(all.states.values().sum::<u32>(), 2);
    let scope = Scope::Revision(1);
    let own = b.fleet.progress_of(&scope, &Part::Own);
    let far = a.fleet.progress_of(&scope, &rest(&["b"], &[])).join(own);
    assert_eq!((far.applied, far.offline), (1, vec![id("n-2")]));

    // Older news changes nothing, whoever brings it.
    b.fleet.hear(&"a".into(), vec![claim("n-1", there.at - 1)]);
    assert_eq!(b.fleet.state(&id("n-1")).unwrap().0, State::Fresh);
    new.leave().await;
}

#[tokio::test]
async fn r121_clocks_that_differ_decide_nothing() {
    let [a, _] = boards(&["n-1"]).await;
    // It was at a controller that is an hour ahead.
    a.fleet
        .hear(&"ahead".into(), vec![claim("n-1", now() + AHEAD)]);
    let node = applied(&a, "n-1").await;
    let [here]: [Claim; 1] = claims(&a.fleet).try_into().unwrap();
    assert!(here.at > now() + AHEAD / 2, "newer than the one before");
    a.fleet
        .hear(&"ahead".into(), vec![claim("n-1", here.at - 1)]);
    assert_eq!(a.fleet.state(&id("n-1")).unwrap().0, State::Fresh);
    node.leave().await;
}

#[tokio::test]
async fn r121_nodes_of_a_silent_controller_are_unknown_and_of_one_that_is_gone_offline() {
    let [a, _] = boards(&["n-1", "n-2"]).await;
    let (b, at) = (Arc::<str>::from("b"), now());
    a.fleet
        .hear_all(&b, vec![claim("n-1", at), claim("n-2", at)]);
    let view = a.fleet.targets().view.clone();
    let offline = |part: &Part| {
        let sum = a.fleet.sum(None, part).unwrap();
        (
            sum.nodes,
            sum.states[&State::Offline],
            sum.states.values().sum::<u32>(),
        )
    };
    assert_eq!(offline(&rest(&["b"], &[])), (2, 0, 0));
    assert_eq!(offline(&rest(&[], &["b"])), (2, 0, 0));
    assert_eq!(offline(&rest(&[], &[])), (2, 2, 2));
    let far = |part: &Part| {
        let far = a.fleet.progress_of(&Scope::Revision(1), part);
        (far.pending.len(), far.offline.len())
    };
    assert_eq!(far(&rest(&["b"], &[])), (0, 0));
    assert_eq!(far(&rest(&[], &["b"])), (2, 0), "they may have it");
    assert_eq!(far(&rest(&[], &[])), (0, 2));
    // After a restart it has one of them no more.
    a.fleet.hear_all(&b, vec![claim("n-1", at)]);
    assert_eq!(offline(&rest(&["b"], &[])), (2, 1, 1));
    assert_eq!(a.fleet.whereabouts(&id("n-2")), None);
    // The view of this test has no nodes, so there are none to list.
    assert_eq!(a.fleet.find(&view, &Filter::default(), &Part::Own).total, 0);
}

#[tokio::test]
async fn r121_what_a_node_counted_elsewhere_is_not_counted_again() {
    use xdpgate_api::fleet::v1::Heartbeat;
    use xdpgate_api::v1::{Disposition, VerdictCount};
    let [a, b] = boards(&["n-1"]).await;
    let says = |packets| Manners {
        says: Some(Box::new(Heartbeat {
            verdicts: vec![VerdictCount {
                reason: "rule".to_owned(),
                disposition: Disposition::Drop.into(),
                packets,
                bytes: 0,
            }],
            ..Heartbeat::default()
        })),
        ..Manners::default()
    };
    let counted = |board: &Board| {
        let counts = board.fleet.sum(None, &Part::Own).unwrap().counts;
        counts.map_or(0, |rows| rows.iter().map(|row| row.count.packets).sum())
    };
    let old = a.run(a.node("n-1").with(says(1_000))).await;
    until("it is counted", || counted(&a) == 1_000).await;
    b.fleet.hear_all(&"a".into(), claims(&a.fleet));
    let new = b.run(b.node("n-1").with(says(1_005))).await;
    until("it is here", || {
        b.fleet.state(&id("n-1")).unwrap().0 == State::Fresh
    })
    .await;
    a.fleet.hear(&"b".into(), claims(&b.fleet));
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!((counted(&a), counted(&b)), (1_000, 0));
    new.tell(xdpgate_controller::fleet::testing::Order::Behave(says(
        1_105,
    )))
    .await;
    until("what came since", || counted(&b) == 100).await;
    drop(old);
}
