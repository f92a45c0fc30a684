//! Controllers and members of etcd are killed while changes are made at any of them.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::common::controllers::{Controllers, node};
use crate::common::core::name;

const NODES: usize = 30;
const WRITERS: usize = 3;
/// How long controllers and members are killed, one after the other.
const CHAOS: Duration = Duration::from_secs(25);

/// Two rules that come together or not at all.
fn pair(writer: usize, number: usize) -> Value {
    let rule = |half: &str| {
        let source = format!("10.{writer}.{}.{}", number / 256, number % 256);
        json!({ "op": "create", "rule": {
            "id": format!("w{writer}-{number}-{half}"), "match": { "src": source }, "action": "drop",
        } })
    };
    json!({ "operations": [rule("a"), rule("b")] })
}

/// Makes one change after the other, each at any controller; what is not answered is asked again at any, by the same key. Returns
/// how many were acknowledged.
async fn write(
    controllers: &Controllers,
    writer: usize,
    stop: &AtomicBool,
    again: &AtomicUsize,
) -> usize {
    let mut number = 0;
    while !stop.load(Ordering::Acquire) {
        let (body, key) = (pair(writer, number), format!("w{writer}-{number}"));
        let began = Instant::now();
        loop {
            let member = rand::random_range(0..controllers.members.len());
            let path = "/policies/web/batch";
            let sent = controllers
                .send(member, Method::POST, path, Some(&body), Some(&key))
                .await;
            match sent {
                Some((status, _)) if status.is_success() => break,
                // It stands still until the store has a leader again, or is being started.
                None | Some((StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT, _)) => {
                    ()
                }
                Some((status, answer)) => panic!("{key}: {status}: {answer}"),
            }
            again.fetch_add(1, Ordering::Relaxed);
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "{key} is not made"
            );
            sleep(Duration::from_millis(100)).await;
        }
        number += 1;
    }
    number
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r121_controllers_and_members_die_and_no_change_is_lost_halved_or_doubled() {
    let Some(controllers) = Controllers::start(3, 3, NODES).await else {
        return;
    };
    let controllers = Arc::new(controllers);
    let crowd = controllers.crowd(NODES);
    all_well(&controllers).await;
    let before = crowd.sessions.load(Ordering::Relaxed);

    let (stop, again) = (
        Arc::new(AtomicBool::new(false)),
        Arc::<AtomicUsize>::default(),
    );
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (controllers, stop, again) = (controllers.clone(), stop.clone(), again.clone());
            tokio::spawn(async move { write(&controllers, writer, &stop, &again).await })
        })
        .collect();
    let end = Instant::now() + CHAOS;
    let mut kills = 0;
    while Instant::now() < end {
        let some = || Duration::from_millis(rand::random_range(500..2_000));
        sleep(some()).await;
        match kills % 3 {
            2 => {
                let member = rand::random_range(0..3);
                controllers.cluster.kill(member);
                sleep(some()).await;
                controllers.cluster.restart(member);
                // So that never two are away.
                sleep(Duration::from_secs(2)).await;
            }
            _ => {
                let member = &controllers.members[rand::random_range(0..3)];
                member.kill();
                sleep(some()).await;
                member.start();
            }
        }
        kills += 1;
    }
    stop.store(true, Ordering::Release);
    let mut made = Vec::new();
    for writer in writers {
        made.push(writer.await.expect("a writer"));
    }
    let all: usize = made.iter().sum();
    println!(
        "{kills} kills, {all} changes, {} asked again",
        again.load(Ordering::Relaxed)
    );
    assert!(
        kills >= 5 && all >= 10 * WRITERS,
        "{kills} kills, {made:?} changes"
    );
    assert!(
        again.load(Ordering::Relaxed) > 0,
        "nothing was in the way of a change"
    );

    controllers.together().await;
    all_well(&controllers).await;
    assert!(
        crowd.sessions.load(Ordering::Relaxed) > before,
        "no stream has moved"
    );
    // Each pair is there whole, and there is nothing else: each was one version, so none was made twice.
    let view = controllers.core.view();
    let desired = view.desired(&node(0)).expect("a policy");
    let rules: HashSet<String> = desired
        .policy
        .rules()
        .iter()
        .map(|rule| rule.id.to_string())
        .collect();
    let mut wanted = HashSet::from(["base".to_owned()]);
    for (writer, many) in made.iter().enumerate() {
        for number in 0..*many {
            wanted.extend(["a", "b"].map(|half| format!("w{writer}-{number}-{half}")));
        }
    }
    assert_eq!(rules, wanted);
    assert_eq!(view.policies()[&name("web")].version, 1 + all as u64);
    for seen in &crowd.seen {
        assert_eq!(seen.borrow().hash, Some(desired.hash));
    }
}

/// All controllers say, of all nodes, that they are there and have what they shall have; and they agree on who has which.
async fn all_well(controllers: &Controllers) {
    let mut holders = Vec::new();
    for member in 0..3 {
        let what = "all nodes have what they shall have";
        controllers
            .until(what, Duration::from_secs(90), async || {
                let stats = controllers.get(member, "/stats").await?;
                let is = |key: &str| stats[key] == NODES;
                let all = is("nodes") && is("online") && is("applied") && is("fresh");
                let everyone = stats["controllers"] == json!({ "answered": 3, "known": 3 });
                let well = all && everyone && stats["states"]["fresh"] == NODES;
                well.then_some(())
            })
            .await;
        let mut of_member = Vec::new();
        for number in 0..NODES {
            let path = format!("/nodes/{}", node(number));
            let one = controllers.get(member, &path).await.expect("a node");
            assert_eq!(one["status"]["state"], "fresh", "{one}");
            assert_eq!(one["status"]["delivery"], "applied", "{one}");
            of_member.push(
                one["status"]["controller"]
                    .as_str()
                    .expect("one")
                    .to_owned(),
            );
        }
        holders.push(of_member);
    }
    assert!(
        holders.windows(2).all(|two| two[0] == two[1]),
        "{holders:?}"
    );
}
