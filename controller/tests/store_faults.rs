//! What the SQLite store has said is stored is there, whatever ends the process.

mod common;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use common::conformance::{all, increment, key, number};
use xdpgate_controller::store::Store;
use xdpgate_controller::store::sqlite::Sqlite;

const CHILD: &str = "XDPGATE_TEST_WRITE";

/// Not a test of its own: the process that is killed while it writes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r129_child() {
    let Some(path) = std::env::var_os(CHILD) else {
        return;
    };
    let store = Arc::new(Sqlite::open(Path::new(&path)).unwrap());
    let round = std::process::id();
    let writers = (0..8).map(|writer| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            // Ends by itself if nobody kills it.
            for i in 0..20_000 {
                let who = format!("{round}-{writer}-{i}");
                increment(&*store, &key("counter/all"), &who).await;
                println!("\nSTORED {who}");
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
}

#[tokio::test]
async fn r129_killed_at_random_points_the_store_has_all_that_it_said_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.db");
    let mut told = Vec::new();
    for round in 0..12_u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "r129_child", "--nocapture"])
            .env(CHILD, &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let reader = std::thread::spawn(move || {
            let lines = output.lines().map_while(Result::ok);
            // The last line may be cut by the kill: then it is not taken.
            let whole = lines.filter_map(|line| line.strip_prefix("STORED ").map(str::to_owned));
            whole.collect::<Vec<_>>()
        });
        tokio::time::sleep(Duration::from_millis(150 + rand::random_range(0..150))).await;
        child.kill().unwrap();
        child.wait().unwrap();
        let mut lines = reader.join().unwrap();
        lines.pop();
        told.extend(lines);

        let store = Sqlite::open(&path).unwrap();
        let marks = all(&store, "mark/", 1_000).await.1;
        let counter = store.get(&key("counter/all")).await.unwrap();
        // Both are of one transaction, so they agree also in what was not told any more.
        let count = counter.map_or(0, |record| number(&record.value));
        assert_eq!(marks.len() as u64, count, "round {round}");
        let names: std::collections::HashSet<&str> =
            marks.iter().map(|(key, _)| &key.as_str()[5..]).collect();
        let lost: Vec<&String> = told
            .iter()
            .filter(|who| !names.contains(who.as_str()))
            .collect();
        assert!(lost.is_empty(), "round {round}: {lost:?}");
    }
    assert!(told.len() > 50, "only {} writes were told", told.len());
}
