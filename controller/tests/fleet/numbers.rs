//! The numbers of nodes, and questions to them.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use xdpgate_api::fleet::v1::Heartbeat;
use xdpgate_api::v1::{
    Disposition, Event as Frame, Rate, Rates, RuleRates, RuleStats, VerdictCount, VerdictRates,
    WatchEventsRequest, WatchEventsResponse,
};
use xdpgate_controller::fleet::testing::{Manners, Order};
use xdpgate_controller::fleet::{AskError, Fate, State, Steps};

use crate::board::{Board, config, id, policy, until};

/// A heartbeat that says so many drops, and rules with these rates and totals.
fn says(drops: u64, rules: &[(&str, f64, u64)]) -> Manners {
    let rate = |packets: f64| {
        Some(Rate {
            packets,
            bits: packets * 512.0,
        })
    };
    let rates = VerdictRates {
        passed: rate(0.0),
        dropped: rate(drops as f64),
        would_drop: None,
    };
    let heartbeat = Heartbeat {
        verdicts: vec![VerdictCount {
            reason: "rule".to_owned(),
            disposition: Disposition::Drop.into(),
            packets: drops,
            bytes: 64 * drops,
        }],
        rates: Some(Rates {
            other: Some(rates),
            ..Rates::default()
        }),
        top_rules: rules
            .iter()
            .map(|(id, packets, _)| RuleRates {
                id: (*id).to_owned(),
                matched: rate(*packets),
                ..RuleRates::default()
            })
            .collect(),
        top_rule_stats: rules
            .iter()
            .map(|(id, _, packets)| RuleStats {
                id: (*id).to_owned(),
                packets: *packets,
                ..RuleStats::default()
            })
            .collect(),
        rules: 100_000,
        bans: 1,
        ..Heartbeat::default()
    };
    Manners {
        says: Some(Box::new(heartbeat)),
        ..Manners::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r88_zero_is_shown_only_where_a_fresh_heartbeat_said_zero() {
    let board = Board::start(config(), None).await;
    board.set(&["a", "b"], &policy(3), None);
    let nothing = board.fleet.overview();
    assert_eq!((nothing.nodes, nothing.fresh), (2, 0));
    assert_eq!(
        (&nothing.rates, &nothing.counts, nothing.bans),
        (&None, &None, None),
        "no zero"
    );
    assert!(board.fleet.status(&id("a")).unwrap().numbers.is_none());

    let a = board.run(board.node("a").with(says(0, &[]))).await;
    until("a zero", || {
        board
            .fleet
            .overview()
            .rates
            .is_some_and(|rates| rates.dropped == 0.0)
    })
    .await;
    let overview = board.fleet.overview();
    assert_eq!(
        (overview.rates_of, overview.fresh, overview.bans),
        (1, 1, Some(1))
    );
    assert_eq!(overview.states[&State::NeverConnected], 1);
    assert_eq!(overview.counts.as_ref().unwrap()[0].count.packets, 0);

    // Counters go on in the sum when the daemon starts again, and when a node is away.
    a.tell(Order::Behave(says(100, &[]))).await;
    let total = || {
        let overview = board.fleet.overview();
        let row = overview
            .counts
            .iter()
            .flatten()
            .find(|row| row.fate == Fate::Drop);
        row.map_or(0, |row| row.count.packets)
    };
    until("100", || total() == 100).await;
    a.tell(Order::Behave(says(40, &[]))).await;
    until("140", || total() == 140).await;
    a.leave().await;
    until("no fresh numbers", || board.fleet.overview().fresh == 0).await;
    let overview = board.fleet.overview();
    assert_eq!(
        (&overview.rates, overview.bans),
        (&None, None),
        "the rates of a node that is gone are not 0"
    );
    assert_eq!(total(), 140);
    let status = board.fleet.status(&id("a")).unwrap();
    assert!(
        !status.fresh && status.numbers.is_some(),
        "its last numbers, as such"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r88_a_thousand_nodes_with_100000_rules_are_summed_without_a_rule_on_the_wire() {
    let mut config = config();
    // Heartbeats are not what is measured here.
    config.health.every = Duration::from_secs(60);
    let board = Board::start(config, None).await;
    let names: Vec<String> = (0..1000).map(|i| format!("n-{i}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let policy = policy(100_000);
    let revision = board.set(&names, &policy, None);
    let (shared, shared_hash) = (Arc::new(policy.clone()), policy.hash());
    let mut nodes = Vec::new();
    for (i, name) in names.iter().enumerate() {
        let rate = 1.0 + (i % 10) as f64;
        let own = format!("own-{i}");
        let node = board
            .node(name)
            .with(says(7, &[("r-7", rate, 10), (&own, 0.5, 1)]));
        nodes.push(board.run(node.holding(&shared, shared_hash)).await);
    }
    board.applied(revision, 1000).await;
    until("all are fresh", || board.fleet.overview().fresh == 1000).await;
    let overview = board.fleet.overview();
    assert_eq!(overview.rates.unwrap().dropped, 7000.0);
    assert_eq!(overview.counts.as_ref().unwrap()[0].count.packets, 7000);
    assert_eq!(overview.state, Some(State::Fresh));
    let top = &overview.top_rules[0];
    assert_eq!(
        (top.id.as_str(), top.matched, top.packets, top.nodes),
        ("r-7", 5500.0, Some(10_000), 1000)
    );
    assert_eq!(
        board.fleet.computed(),
        (0, 0),
        "no policy went over the wire"
    );
    assert_eq!(nodes[0].seen.borrow().fetched, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r89_top_rules_have_one_order_and_say_of_how_many_nodes_they_are() {
    let board = Board::start(config(), None).await;
    board.set(&["a", "b", "c"], &policy(3), None);
    let a = board
        .run(board.node("a").with(says(
            1,
            &[("x", 10.0, 5), ("tie-b", 3.0, 9), ("tie-a", 3.0, 9)],
        )))
        .await;
    let b = board
        .run(
            board
                .node("b")
                .with(says(1, &[("y", 12.0, 5), ("more", 3.0, 10)])),
        )
        .await;
    let c = board
        .run(board.node("c").with(says(1, &[("x", 4.0, 1)])))
        .await;
    let rows = || -> Vec<(String, u32)> {
        let overview = board.fleet.overview();
        overview
            .top_rules
            .iter()
            .map(|row| (row.id.clone(), row.nodes))
            .collect()
    };
    let expected = |rows: &[(&str, u32)]| {
        rows.iter()
            .map(|(id, n)| (id.to_string(), *n))
            .collect::<Vec<_>>()
    };
    let all = expected(&[("x", 2), ("y", 1), ("more", 1), ("tie-a", 1), ("tie-b", 1)]);
    until("all", || rows() == all).await;
    // With a node gone the data is partial, and says so.
    c.leave().await;
    let partial = expected(&[("y", 1), ("x", 1), ("more", 1), ("tie-a", 1), ("tie-b", 1)]);
    until("partial", || rows() == partial).await;
    let overview = board.fleet.overview();
    assert_eq!((overview.nodes, overview.fresh), (3, 2));
    drop((a, b));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_has_a_sample_from_the_start() {
    let board = Board::start(config(), None).await;
    board.set(&["a"], &policy(3), None);
    until("a sample", || !board.fleet.history(Steps::Fine).is_empty()).await;
    assert!(board.fleet.history(Steps::Coarse).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_are_answered_within_a_time_and_events_do_not_pile_up() {
    let mut config = config();
    config.watchers = 2;
    let board = Board::start(config, None).await;
    let revision = board.set(&["a"], &policy(3), None);
    let a = id("a");
    let ask = |ids: &[&str]| {
        let ids = ids.iter().map(|id| (*id).to_owned()).collect();
        board
            .fleet
            .rule_counters(&a, ids, Duration::from_millis(400))
    };
    assert_eq!(ask(&["r-1"]).await, Err(AskError::Offline(id("a"))));
    let counters = vec![RuleStats {
        id: "r-1".to_owned(),
        packets: 77,
        ..RuleStats::default()
    }];
    let node = board
        .run(board.node("a").with(Manners {
            counters,
            ..Manners::default()
        }))
        .await;
    board.applied(revision, 1).await;
    let answer = ask(&["r-1", "r-2"]).await.unwrap();
    assert_eq!((answer.len(), answer[0].packets), (1, 77));
    let many = vec!["r"; 1001];
    assert_eq!(ask(&many).await, Err(AskError::TooMany(1001)));

    // Events: who does not read misses some, and learns how many.
    let request = WatchEventsRequest::default();
    let mut events = board.fleet.watch_events(&id("a"), request.clone()).unwrap();
    let more = board.fleet.watch_events(&id("a"), request.clone()).unwrap();
    assert_eq!(
        board.fleet.watch_events(&id("a"), request.clone()).err(),
        Some(AskError::Busy)
    );
    drop(more);
    // The question has come when a later one is answered.
    ask(&["r-1"]).await.unwrap();
    let frames = |events: usize| WatchEventsResponse {
        events: vec![Frame::default(); events],
        lost: 0,
    };
    for _ in 0..100 {
        node.tell(Order::Events(frames(3))).await;
    }
    // A heartbeat that came after them says that they have come.
    node.tell(Order::Behave(says(55, &[]))).await;
    node.tell(Order::Beat).await;
    until("all have come", || {
        let numbers = board.fleet.status(&id("a")).unwrap().numbers;
        numbers.is_some_and(|numbers| numbers.counts.iter().any(|row| row.count.packets == 55))
    })
    .await;
    let mut heard = 0;
    for _ in 0..32 {
        heard += events.next().await.unwrap().events.len();
    }
    node.tell(Order::Events(frames(1))).await;
    let last = events.next().await.unwrap();
    assert_eq!(
        (heard, last.events.len(), last.lost),
        (96, 1, 204),
        "100 times 3 in all"
    );
    drop(events);
    drop(board.fleet.watch_events(&id("a"), request).unwrap());

    // One that hangs does not hold up who asks.
    node.tell(Order::Behave(Manners {
        hangs: true,
        ..Manners::default()
    }))
    .await;
    assert_eq!(
        ask(&["r-1"]).await,
        Err(AskError::Silent(id("a"), Duration::from_millis(400)))
    );
}
