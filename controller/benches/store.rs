//! Figures of the SQLite store and of contents in it: `cargo bench -p xdpgate-controller --bench store`. The store
//! is in `TMPDIR`, whose disk decides how many commits there are in a second.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use xdpgate::policy::{Prefix, Rule};
use xdpgate_controller::content::{Content, Contents, Shape, entries, rules};
use xdpgate_controller::store::sqlite::Sqlite;
use xdpgate_controller::store::{Key, Store, Transaction};

fn main() {
    let folder = tempfile::tempdir().expect("a folder");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        for tasks in [1, 16, 256] {
            commits(folder.path(), tasks).await;
        }
        let hosts = |n: u32| {
            let prefix = Prefix::host(n.wrapping_mul(0x9e37_79b1).to_be_bytes().into());
            entries::entry(prefix, None)
        };
        let new = entries::entry("198.51.100.7/32".parse().expect("a prefix"), None);
        contents(folder.path(), "IPv4 hosts", entries::SHAPE, (0..1_000_000).map(hosts).collect(), new).await;
        let rule = |n: u32| {
            let [_, a, b, c] = n.wrapping_mul(0x9e37_79b1).to_be_bytes();
            let text = format!(
                "{{ id: rule-{n}, name: block {n}, priority: {n}, comment: seen by detector {c}, labels: {{ team: net, ticket: T-{n} }}, \
                 match: {{ src: 10.{a}.{b}.{c}, protocol: tcp, dport: [{}, {}] }}, action: drop }}",
                1 + n % 60_000, 1 + n % 60_001,
            );
            rules::entry(&Rule::from_yaml(&text).expect("a rule"))
        };
        let new = rule(100_001);
        contents(folder.path(), "rules", rules::SHAPE, (0..100_000).map(rule).collect(), new).await;
    });
}

/// Commits of 300 bytes, each of which also writes an entry of 300 bytes as the audit does.
async fn commits(folder: &Path, tasks: usize) {
    let store = Arc::new(Sqlite::open(folder.join(format!("{tasks}.db"))).expect("a store"));
    let start = Instant::now();
    let tasks_made = (0..tasks).map(|task| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let mut made = 0;
            while start.elapsed() < Duration::from_secs(3) {
                let write = ["record", "audit"].map(|kind| {
                    let key = Key::new(format!("{kind}/{task}-{made}")).expect("a key");
                    (key, Some(Bytes::from(vec![7; 300])))
                });
                let expect = Vec::new();
                let write = write.into();
                store
                    .commit(Transaction { expect, write })
                    .await
                    .expect("a commit");
                made += 1;
            }
            made
        })
    });
    let mut total = 0;
    for task in tasks_made.collect::<Vec<_>>() {
        total += task.await.expect("a count");
    }
    let rate = f64::from(total) / start.elapsed().as_secs_f64();
    println!("{tasks:4} tasks: {rate:.0} commits/s");
}

async fn contents(
    folder: &Path,
    what: &str,
    shape: Shape,
    map: BTreeMap<Bytes, Bytes>,
    new: (Bytes, Bytes),
) {
    let path = folder.join(format!("{what}.db"));
    let store: Arc<dyn Store> = Arc::new(Sqlite::open(&path).expect("a store"));
    let made = Contents::new(Arc::clone(&store), 64 << 20);
    let start = Instant::now();
    let content = made.build(shape, map).await.expect("a content");
    let built = start.elapsed();
    let before = reach(&made, &content).await;
    let start = Instant::now();
    let changes = BTreeMap::from([(new.0, Some(new.1))]);
    let edited = made
        .edit(shape, &content, changes)
        .await
        .expect("a content");
    let edit = start.elapsed();
    let after = reach(&made, &edited).await;
    let start = Instant::now();
    assert_eq!(
        made.diff(&content, &edited)
            .await
            .expect("a difference")
            .len(),
        1
    );
    let diff = start.elapsed();
    let cold = Contents::new(Arc::clone(&store), 0);
    let start = Instant::now();
    assert_eq!(
        cold.all(&edited).await.expect("entries").len() as u64,
        edited.count
    );
    let read = start.elapsed();
    let (mut chunks, mut raw) = (0, 0);
    for digest in after.difference(&before) {
        chunks += 1;
        raw += store
            .chunk(*digest)
            .await
            .expect("a chunk")
            .expect("it is there")
            .len();
    }
    let chunks_all = before.len();
    drop((made, cold, store));
    let file = rusqlite::Connection::open(&path).expect("the file");
    let sum = "SELECT sum(length(packed)) FROM chunk_bytes";
    let stored: u64 = file
        .query_row(sum, [], |row| row.get::<_, i64>(0))
        .expect("a sum") as u64;
    println!(
        "{what}: {} entries, {} bytes in {chunks_all} chunks, stored {stored} ({:.0} %); build {built:.0?}, read all {read:.0?}",
        content.count,
        content.bytes,
        100.0 * stored as f64 / content.bytes as f64,
    );
    println!(
        "{what}: one entry more: {chunks} chunks, {raw} bytes before compression; edit {edit:.1?}, diff {diff:.1?}"
    );
}

async fn reach(
    contents: &Contents,
    content: &Content,
) -> HashSet<xdpgate_controller::store::Digest> {
    let mut reached = HashSet::new();
    contents.reach(content, &mut reached).await.expect("chunks");
    reached
}
