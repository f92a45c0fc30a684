//! The simulator of `benches/fleet` with few nodes: all of them come to have what they shall have, also beside one that reads
//! nothing and after the controller was killed, and a change of one rule is as small for a large policy. Nothing about speed.

#![allow(unreachable_pub, missing_docs, reason = "shared with a program")]

#[path = "../../benches/fleet/controller.rs"]
mod controller;
#[path = "../../benches/fleet/crowd.rs"]
mod crowd;
#[path = "../../benches/fleet/fetcher.rs"]
mod fetcher;
#[path = "../../benches/fleet/figures.rs"]
mod figures;
#[path = "../../benches/fleet/ground.rs"]
mod ground;
#[path = "../../benches/fleet/scenarios.rs"]
mod scenarios;

use std::path::Path;
use std::time::Duration;

use scenarios::Scale;

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_nodes_have_what_they_shall_have() {
    let scale = Scale {
        nodes: 200,
        rules: [20, 200, 2_000],
        entries: 2_000,
        snapshot: (20_000, 5),
        idle: Duration::from_secs(1),
        changes: 2,
    };
    let program = Path::new(env!("CARGO_BIN_EXE_xdpgate-controller"));
    let wrong = scenarios::run(program, scale).await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
