//! What keeps one node, or many at once, from taking too much.

use std::sync::Arc;
use std::time::Duration;

use tonic::{Code, Request};
use tonic_types::StatusExt as _;
use xdpgate_api::fleet::v1::fleet_client::FleetClient;
use xdpgate_api::fleet::v1::{FetchRequest, FromNode, Heartbeat, Hello, from_node::Message as Up};
use xdpgate_controller::fleet::testing::Manners;

use crate::board::{Board, config, id, policy, rule, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_waits_in_line_and_who_would_wait_too_long_is_told_when_to_come() {
    let mut config = config();
    config.connects_per_second = 20;
    config.connects_burst = 10;
    config.connect_within = Duration::from_millis(500);
    let board = Board::start(config, None).await;
    let names: Vec<String> = (0..60).map(|i| format!("n-{i}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    board.set(&names, &policy(3), None);
    let mut channels = Vec::new();
    for name in &names {
        channels.push((*name, board.channel().await));
    }
    let nodes: Vec<_> = channels
        .into_iter()
        .map(|(name, channel)| board.node(name).start(channel))
        .collect();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let inside = board.fleet.sessions();
    assert!((10..60).contains(&inside), "{inside}");
    let mut refused = 0;
    for node in nodes {
        if node.seen.borrow().hash.is_some() {
            continue;
        }
        let (_, status) = node.ended().await;
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
        let again = status
            .get_details_retry_info()
            .unwrap()
            .retry_delay
            .unwrap();
        assert!(
            again > Duration::ZERO && again < Duration::from_secs(20),
            "{again:?}"
        );
        refused += 1;
    }
    assert_eq!(inside + refused, 60, "none is lost");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_sessions_than_allowed_and_a_second_one_ends_the_first() {
    let mut config = config();
    config.sessions = 2;
    let board = Board::start(config, None).await;
    let revision = board.set(&["a", "b", "c"], &policy(3), None);
    let first = board.run(board.node("a")).await;
    first.until("a policy", |seen| seen.hash.is_some()).await;
    let second = board.run(board.node("a")).await;
    let (_, status) = first.ended().await;
    assert_eq!(status.code(), Code::Aborted, "{status}");
    until("one session", || board.fleet.sessions() == 1).await;
    second.until("a policy", |seen| seen.hash.is_some()).await;
    assert!(
        board.fleet.status(&id("a")).unwrap().address.is_some(),
        "the end of the first is not that of the second"
    );
    let b = board.run(board.node("b")).await;
    b.until("a policy", |seen| seen.hash.is_some()).await;
    let (_, status) = board.run(board.node("c")).await.ended().await;
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.get_details_retry_info().is_some());
    board.applied(revision, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_fetches_only_what_is_part_of_its_own_snapshot() {
    let board = Board::start(config(), None).await;
    board.set(&["mine"], &policy(50), None);
    let (_, secret) = {
        board.set(&["other"], &policy(50), None);
        board.change(&["other"], &[rule("{ id: secret, action: count }")])
    };
    let hangs = Manners {
        hangs: true,
        ..Manners::default()
    };
    let other = board.run(board.node("other").with(hangs)).await;
    other.until("a snapshot", |seen| seen.snapshots == 1).await;
    // What `other` has, by its own fetches: all digests of the chunks of this policy.
    let chunk = {
        use prost::Message as _;
        let rules = secret
            .rules()
            .iter()
            .map(xdpgate::policy::Rule::to_json)
            .collect();
        xdpgate_api::fleet::v1::Rules { rules }.encode_to_vec()
    };
    let digest = xdpgate_controller::store::Digest::of(&chunk).0.to_vec();
    let mut client = FleetClient::new(board.channel().await);
    let mut fetch = async |node: &str, digests: Vec<Vec<u8>>| {
        let mut request = Request::new(FetchRequest { digests });
        request
            .metadata_mut()
            .insert("x-node", node.parse().unwrap());
        let mut chunks = client.fetch(request).await?.into_inner();
        let mut contents = Vec::new();
        while let Some(chunk) = chunks.message().await? {
            contents.push(chunk.content);
        }
        Ok::<_, tonic::Status>(contents)
    };
    if secret.rules().len() < 64 {
        // All rules are in one chunk, unless an id says otherwise.
        let got = fetch("other", vec![digest.clone()]).await;
        if let Ok(contents) = got {
            assert_eq!(contents, [chunk]);
        }
    }
    let status = fetch("mine", vec![digest]).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "{status}");
    let status = fetch("nobody", vec![]).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    let status = fetch("mine", vec![vec![1; 31]]).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let status = fetch("mine", vec![vec![1; 32]; 1025]).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_are_bounded_in_size_and_rate_and_hello_comes_first() {
    let mut config = config();
    config.messages_per_second = 5;
    config.messages_burst = 20;
    let board = Board::start(config, None).await;
    board.set(&["a"], &policy(3), None);
    let hello = || {
        Up::Hello(Hello {
            protocol: 1,
            ..Hello::default()
        })
    };
    let long = Heartbeat {
        broken: Some("x".repeat(300 << 10)),
        ..Heartbeat::default()
    };
    let small = || Up::Heartbeat(Heartbeat::default());
    let old = Up::Hello(Hello {
        protocol: 9,
        ..Hello::default()
    });
    let many = std::iter::once(hello())
        .chain(std::iter::repeat_with(small).take(500))
        .collect();
    for (messages, code) in [
        (vec![small()], Code::InvalidArgument),
        (vec![hello(), hello()], Code::InvalidArgument),
        (vec![old], Code::FailedPrecondition),
        (vec![hello(), Up::Heartbeat(long)], Code::OutOfRange),
        (many, Code::ResourceExhausted),
    ] {
        let messages = messages.into_iter().map(|message| FromNode {
            message: Some(message),
        });
        let stream = futures_util::stream::iter(messages.collect::<Vec<_>>());
        // The stream stays open: it is the controller that ends the session.
        let stream = futures_util::StreamExt::chain(stream, futures_util::stream::pending());
        let mut request = Request::new(stream);
        request
            .metadata_mut()
            .insert("x-node", "a".parse().unwrap());
        let mut client = FleetClient::new(board.channel().await);
        let mut answers = client.session(request).await.unwrap().into_inner();
        let status = loop {
            match answers.message().await {
                Ok(Some(_)) => (),
                Ok(None) => panic!("it ended well, and not by {code:?}"),
                Err(status) => break status,
            }
        };
        assert_eq!(status.code(), code, "{status}");
    }
    until("no session is left", || board.fleet.sessions() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_its_stop_the_controller_tells_nodes_to_go_and_ends_those_that_stay() {
    let board = Board::start(config(), None).await;
    let revision = board.set(&["a", "b"], &policy(3), None);
    let a = board.run(board.node("a")).await;
    let b = board.run(board.node("b")).await;
    board.applied(revision, 2).await;
    board
        .fleet
        .drain(Duration::from_millis(200), Duration::from_millis(300))
        .await;
    for node in [a, b] {
        let (node, status) = node.ended().await;
        assert_eq!(
            (node.seen().drained, status.code()),
            (1, Code::Unavailable),
            "{status}"
        );
    }
    let (_, status) = board.run(board.node("a")).await.ended().await;
    assert_eq!(status.code(), Code::Unavailable);
    until("no session is left", || board.fleet.sessions() == 0).await;
    let _: Arc<_> = board.shared.clone();
}
