//! What a connected node costs the controller in memory. The nodes are in a process of their own.

#[path = "fleet/board.rs"]
#[allow(dead_code, reason = "this file uses a part of it")]
mod board;

use std::process::{Child, Command};
use std::sync::Arc;
use std::time::Duration;

use tonic::transport::Endpoint;
use xdpgate_api::fleet::v1::Heartbeat;
use xdpgate_api::v1::{Rate, Rates, RuleRates, RuleStats, VerdictCount, VerdictRates};
use xdpgate_controller::fleet::testing::{Manners, Node, Shared};

use board::{Board, config, id, policy, until};

/// So many nodes, the address of the controller behind it.
const VARIABLE: &str = "XDPGATE_TEST_NODES";
const NODES: usize = 1000;
/// Of one connected node, in KiB. 28 of these are the buffers with which h2 begins each connection.
const MOST: usize = 56;

struct Nodes(Child);

impl Drop for Nodes {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4
}

/// As large as heartbeats come.
fn says() -> Manners {
    let rate = Some(Rate {
        packets: 1.5,
        bits: 700.0,
    });
    let heartbeat = Heartbeat {
        verdicts: (0..40)
            .map(|i| VerdictCount {
                reason: format!("reason-{}", i / 3),
                disposition: 1 + i % 3,
                packets: 1,
                bytes: 64,
            })
            .collect(),
        rates: Some(Rates {
            other: Some(VerdictRates {
                passed: rate,
                dropped: rate,
                would_drop: rate,
            }),
            ..Rates::default()
        }),
        top_rules: (0..20)
            .map(|i| RuleRates {
                id: format!("r-{i}"),
                matched: rate,
                dropped: 1.0,
                would_drop: 0.0,
            })
            .collect(),
        top_rule_stats: (0..20)
            .map(|i| RuleStats {
                id: format!("r-{i}"),
                packets: 9,
                ..RuleStats::default()
            })
            .collect(),
        ..Heartbeat::default()
    };
    Manners {
        says: Some(Box::new(heartbeat)),
        ..Manners::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connected_node_costs_less_than_56_kib() {
    if let Ok(address) = std::env::var(VARIABLE) {
        return be_nodes(&address).await;
    }
    let mut config = config();
    config.health.every = Duration::from_secs(1);
    let board = Board::start(config, None).await;
    let names: Vec<String> = (0..NODES + 100).map(|i| format!("n-{i}")).collect();
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut revision = board.set(&all, &policy(200), None);
    // The first ones bring with them what is there once.
    let warm = board.run(board.node(all[NODES]).with(says())).await;
    board.applied(revision, 1).await;
    let before = resident();
    let child = Command::new(std::env::current_exe().unwrap())
        .arg("--nocapture")
        .env(VARIABLE, board.address.to_string())
        .spawn();
    let _nodes = Nodes(child.unwrap());
    board.applied(revision, NODES + 1).await;
    for i in 0..3 {
        let rule = board::rule(&format!("{{ id: new-{i}, action: count }}"));
        revision = board.change(&all, &[rule]).0;
        board.applied(revision, NODES + 1).await;
    }
    until("all are fresh", || {
        board.fleet.overview().fresh as usize == NODES + 1
    })
    .await;
    let each = (resident() - before) / NODES;
    println!("a connected node costs {each} KiB");
    assert!(each < MOST, "a connected node costs {each} KiB");
    drop(warm);
}

async fn be_nodes(address: &str) {
    let shared = Arc::<Shared>::default();
    let before = resident();
    let mut nodes = Vec::new();
    for i in 0..NODES {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        let channel = endpoint.connect().await.unwrap();
        nodes.push(
            Node::new(id(&format!("n-{i}")), &shared)
                .with(says())
                .start(channel),
        );
    }
    nodes[NODES - 1].until("all", |seen| seen.deltas == 3).await;
    println!(
        "a simulated node costs {} KiB",
        (resident() - before) / NODES
    );
    // Until the controller ends this process, but not for ever.
    tokio::time::sleep(Duration::from_secs(60)).await;
}
