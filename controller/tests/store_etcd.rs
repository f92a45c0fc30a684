//! The etcd store does what every store does, and goes on when members fall.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::conformance::{Place, all, conformance, increment, key, number};
use common::etcd::Cluster;
use futures_util::StreamExt;
use xdpgate_controller::store::etcd::{Etcd, Options};
use xdpgate_controller::store::{OpenError, Revision, StoreError};

conformance!(Cluster::start(1));

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r121_a_member_that_is_killed_loses_no_change_and_doubles_none() {
    let Some(cluster) = Cluster::start(3).await else {
        return;
    };
    let (counters, writers, rounds) = (8, 40, 50);
    let store = cluster.open().await;
    let mut watch = store.watch(Revision(0)).await.unwrap();
    let watcher = tokio::spawn(async move {
        // Each mark is made once: a batch that came twice, or not at all, is seen.
        let (mut marks, mut last) = (Vec::new(), Revision(0));
        while marks.len() < writers * rounds {
            let batch = watch.next().await.unwrap().unwrap();
            assert!(batch.revision > last, "{:?} after {last:?}", batch.revision);
            last = batch.revision;
            let made = batch.changes.into_iter().map(|(key, _)| key);
            marks.extend(made.filter(|key| key.as_str().starts_with("mark/")));
        }
        marks
    });
    let tasks = (0..writers).map(|writer| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for round in 0..rounds {
                let counter = key(&format!("counter/{}", (writer + round) % counters));
                increment(&*store, &counter, &format!("{writer}-{round}")).await;
            }
        })
    });
    let tasks: Vec<_> = tasks.collect();
    // Each of them once, so also the one that leads and the one that is spoken to; the one before is back then.
    for member in 0..3 {
        let made = all(&*store, "mark/", 1_000).await.1.len();
        let due = (made + 200).min(writers * rounds - 1);
        while all(&*store, "mark/", 1_000).await.1.len() < due {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let made = all(&*store, "mark/", 1_000).await.1.len();
        assert!(
            member > 0 || made < writers * rounds,
            "all was over before the first kill"
        );
        cluster.kill(member);
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        cluster.restart(member);
        tokio::time::sleep(Duration::from_millis(1_500)).await;
    }
    for task in tasks {
        task.await.unwrap();
    }
    let mut total = 0;
    for counter in 0..counters {
        let record = store
            .get(&key(&format!("counter/{counter}")))
            .await
            .unwrap()
            .unwrap();
        total += number(&record.value);
    }
    assert_eq!(total as usize, writers * rounds);
    let mut marks = watcher.await.unwrap();
    marks.sort();
    marks.dedup();
    assert_eq!(marks.len(), writers * rounds);
}

#[tokio::test]
async fn without_a_quorum_it_says_so_and_a_watch_waits() {
    let Some(cluster) = Cluster::start(3).await else {
        return;
    };
    let options = {
        let mut options = cluster.options();
        options.timeout = Duration::from_secs(3);
        options
    };
    let store = Etcd::open(options).await.unwrap();
    let store: &dyn xdpgate_controller::store::Store = &store;
    increment(store, &key("counter/a"), "first").await;
    let at = all(store, "", 10).await.0;
    let mut watch = store.watch(at).await.unwrap();
    cluster.kill(0);
    cluster.kill(1);
    let read = store.get(&key("counter/a")).await;
    assert!(matches!(read, Err(StoreError::Unavailable(_))), "{read:?}");
    cluster.restart(0);
    increment(store, &key("counter/a"), "second").await;
    let batch = tokio::time::timeout(Duration::from_secs(30), watch.next())
        .await
        .unwrap();
    assert!(batch.unwrap().unwrap().revision > at);
}

#[tokio::test]
async fn options_that_are_wrong_are_named() {
    let open = |endpoint: &str, prefix: &str| {
        let mut options = Options::new([endpoint]);
        options.prefix = prefix.to_owned();
        options.timeout = Duration::from_secs(1);
        Etcd::open(options)
    };
    let cases = [
        (
            "127.0.0.1:2379",
            "/a/",
            "endpoint \"127.0.0.1:2379\": write it as https://host:2379",
        ),
        (
            "http://127.0.0.1:1",
            "a",
            "prefix \"a\": it begins and ends with a slash, as /xdpgate/",
        ),
    ];
    for (endpoint, prefix, text) in cases {
        let error = open(endpoint, prefix).await.unwrap_err();
        assert_eq!(error.to_string(), text);
    }
    // Nobody listens there.
    let error = open("http://127.0.0.1:1", "/a/").await.unwrap_err();
    assert!(
        matches!(error, OpenError::Store(StoreError::Unavailable(_))),
        "{error}"
    );
}
