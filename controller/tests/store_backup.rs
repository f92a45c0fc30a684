//! The whole state to one file and back, between stores of both kinds.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::conformance::{Place, all, key};
use common::etcd::Cluster;
use tempfile::TempDir;
use xdpgate_controller::content::{Content, Contents, entries, named_in};
use xdpgate_controller::store::backup::{BackupError, backup, restore, unfinished, verify};
use xdpgate_controller::store::sqlite::Sqlite;
use xdpgate_controller::store::{Key, Store, StoreError, Transaction, keeping};

fn sqlite(folder: &TempDir, name: &str) -> Arc<dyn Store> {
    Arc::new(Sqlite::open(folder.path().join(name)).unwrap())
}

fn write(write: Vec<(Key, Bytes)>) -> Transaction {
    Transaction {
        expect: vec![],
        write: write
            .into_iter()
            .map(|(key, value)| (key, Some(value)))
            .collect(),
    }
}

fn named(content: &Content) -> Bytes {
    serde_json::to_vec(&serde_json::json!({ "entries": content }))
        .unwrap()
        .into()
}

/// Two sets, one of which has two versions, and some records.
async fn fill(store: &Arc<dyn Store>) {
    let contents = Contents::new(Arc::clone(store), 1 << 20);
    let entry =
        |n: u32| entries::entry(xdpgate::policy::Prefix::host(n.to_be_bytes().into()), None);
    let first = contents
        .build(entries::SHAPE, (0..50_000).map(entry))
        .await
        .unwrap();
    let changes = BTreeMap::from([(entry(7).0, None)]);
    let second = contents
        .edit(entries::SHAPE, &first, changes)
        .await
        .unwrap();
    let other = contents
        .build(entries::SHAPE, (9..12).map(entry))
        .await
        .unwrap();
    // Nothing names this one.
    contents
        .build(entries::SHAPE, (100..90_000).step_by(3).map(entry))
        .await
        .unwrap();
    let names = ["set/a", "set-version/a/1", "set/b"];
    let contents = [&second, &first, &other].map(named);
    store
        .commit(write(names.map(key).into_iter().zip(contents).collect()))
        .await
        .unwrap();
    for part in 0..30 {
        let many = (0..100).map(|n| (key(&format!("audit/{part}-{n}")), Bytes::from(vec![n; 300])));
        store.commit(write(many.collect())).await.unwrap();
    }
    store
        .commit(write(vec![(key("empty"), Bytes::new())]))
        .await
        .unwrap();
}

/// Records, and the entries that they name.
async fn state(store: &Arc<dyn Store>) -> (Vec<(Key, Bytes)>, Vec<(Bytes, Bytes)>) {
    let (_, records) = all(&**store, "", 1_000).await;
    let contents = Contents::new(Arc::clone(store), 0);
    let mut entries = Vec::new();
    for (_, record) in &records {
        for content in named_in(&record.value) {
            entries.extend(contents.all(&content).await.unwrap());
        }
    }
    let records = records.into_iter().map(|(key, record)| (key, record.value));
    (records.collect(), entries)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r124_the_whole_state_goes_to_one_file_and_back_while_writes_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let from = sqlite(&folder, "from.db");
    fill(&from).await;
    let file = folder.path().join("backup");
    let writer = tokio::spawn({
        let from = Arc::clone(&from);
        async move {
            for i in 0.. {
                // Both or none are in the backup, with the same number.
                let number = Bytes::from(format!("{i}"));
                let both = vec![(key("a/live"), number.clone()), (key("z/live"), number)];
                from.commit(write(both)).await.unwrap();
            }
        }
    });
    while from.get(&key("z/live")).await.unwrap().is_none() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let summary = backup(&from, &file).await.unwrap();
    let still = from.get(&key("z/live")).await.unwrap().unwrap();
    writer.abort();
    assert!(
        still.revision.0 > summary.header.revision,
        "no write came meanwhile"
    );
    assert_eq!(verify(&file).unwrap(), summary);
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );

    let to = sqlite(&folder, "to.db");
    assert_eq!(restore(&to, &file).await.unwrap(), summary);
    assert_eq!(unfinished(&*to).await.unwrap(), None);
    assert_ne!(to.epoch(), from.epoch());
    let (mut was, mut is) = (state(&from).await, state(&to).await);
    assert_eq!(is.0.len() as u64, summary.records);
    let live: Vec<Bytes> = ["a/live", "z/live"]
        .map(|name| {
            let at =
                is.0.iter()
                    .position(|(key, _)| key.as_str() == name)
                    .unwrap();
            is.0.remove(at).1
        })
        .into();
    assert_eq!(live[0], live[1]);
    was.0.retain(|(key, _)| !key.as_str().ends_with("live"));
    assert_eq!(is, was);
    assert_eq!(is.1.len(), 50_000 + 49_999 + 3);
    // What nothing names is not in the backup; a sweep deletes it, and nothing else, where it was.
    tokio::time::sleep(Duration::from_millis(2_100)).await;
    assert_eq!(keeping::sweep(&to, Duration::ZERO).await.unwrap(), 0);
    assert!(keeping::sweep(&from, Duration::ZERO).await.unwrap() > 0);
    assert_eq!(state(&from).await.1, is.1);
    assert!(
        matches!(restore(&to, &file).await, Err(BackupError::NotEmpty(key)) if key == "a/live")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r124_a_backup_of_sqlite_is_restored_into_etcd_and_back() {
    let Some(cluster) = Cluster::start(1).await else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let from = sqlite(&folder, "from.db");
    fill(&from).await;
    let (there, back) = (folder.path().join("there"), folder.path().join("back"));
    backup(&from, &there).await.unwrap();
    let etcd = cluster.open().await;
    restore(&etcd, &there).await.unwrap();
    let was = state(&from).await;
    assert_eq!(state(&etcd).await, was);
    backup(&etcd, &back).await.unwrap();
    let to = sqlite(&folder, "to.db");
    restore(&to, &back).await.unwrap();
    assert_eq!(state(&to).await, was);
}

#[tokio::test]
async fn r124_a_damaged_or_cut_backup_is_refused_and_restores_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let from = sqlite(&folder, "from.db");
    fill(&from).await;
    let file = folder.path().join("backup");
    backup(&from, &file).await.unwrap();
    let whole = fs::read(&file).unwrap();
    let to = sqlite(&folder, "to.db");
    let bad = folder.path().join("bad");
    let refused = async |bytes: &[u8]| {
        fs::write(&bad, bytes).unwrap();
        let refused = restore(&to, &bad).await;
        assert!(
            matches!(refused, Err(BackupError::Damaged { .. })),
            "{refused:?}"
        );
    };
    for cut in (0..whole.len())
        .step_by(whole.len() / 40)
        .chain([whole.len() - 1])
    {
        refused(&whole[..cut]).await;
    }
    for place in (0..whole.len())
        .step_by(whole.len() / 40)
        .chain([0, 15, whole.len() - 1])
    {
        let mut bytes = whole.clone();
        bytes[place] ^= 0x10;
        refused(&bytes).await;
    }
    refused(&[&whole[..], b"more"].concat()).await;
    let missing = restore(&to, Path::new("/nonexistent/backup")).await;
    assert!(
        matches!(missing, Err(BackupError::File { .. })),
        "{missing:?}"
    );
    assert!(to.list("", None, 1, None).await.unwrap().records.is_empty());
    restore(&to, &file).await.unwrap();
    assert_eq!(state(&to).await, state(&from).await);
}

#[tokio::test]
async fn r124_a_restore_that_is_broken_off_says_so_and_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let from = sqlite(&folder, "from.db");
    fill(&from).await;
    let (file, other) = (folder.path().join("backup"), folder.path().join("other"));
    backup(&from, &file).await.unwrap();
    backup(&from, &other).await.unwrap();
    let mut broken_off = 0;
    for wait in 1.. {
        let to = sqlite(&folder, &format!("to-{wait}.db"));
        let patience = Duration::from_millis(4 * wait * wait);
        let cut = tokio::time::timeout(patience, restore(&to, &file)).await;
        // What was on its way to the file has arrived when the store is closed.
        drop(to);
        let to = sqlite(&folder, &format!("to-{wait}.db"));
        if cut.is_err() && unfinished(&*to).await.unwrap().is_some() {
            broken_off += 1;
            let half = backup(&to, &folder.path().join("half")).await;
            assert!(
                matches!(half, Err(BackupError::Store(StoreError::Damaged(_)))),
                "{half:?}"
            );
            // Another one is not put on top of it.
            let mixed = restore(&to, &other).await;
            assert!(matches!(mixed, Err(BackupError::NotEmpty(_))), "{mixed:?}");
            restore(&to, &file).await.unwrap();
        }
        if let Ok(done) = cut {
            done.unwrap();
            break;
        }
    }
    assert!(broken_off > 0, "the first patience was enough");
    for entry in fs::read_dir(folder.path()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.starts_with("to-") && name.ends_with(".db") {
            let to = sqlite(&folder, &name);
            assert_eq!(unfinished(&*to).await.unwrap(), None, "{name}");
            if !to.list("", None, 1, None).await.unwrap().records.is_empty() {
                assert_eq!(state(&to).await, state(&from).await, "{name}");
            }
        }
    }
    assert!(!folder.path().join("half").exists());
}

#[tokio::test]
async fn a_backup_of_a_store_whose_chunk_is_lost_fails_and_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let from = sqlite(&folder, "from.db");
    fill(&from).await;
    tokio::time::sleep(Duration::from_millis(2_100)).await;
    from.sweep(&Default::default(), Duration::ZERO)
        .await
        .unwrap();
    let file = folder.path().join("backup");
    let lost = backup(&from, &file).await;
    assert!(
        matches!(lost, Err(BackupError::Store(StoreError::Damaged(_)))),
        "{lost:?}"
    );
    assert_eq!(
        fs::read_dir(folder.path())
            .unwrap()
            .filter(|entry| {
                entry
                    .as_ref()
                    .unwrap()
                    .file_name()
                    .to_string_lossy()
                    .starts_with("backup")
            })
            .count(),
        0
    );
    // Nor does a sweep go on when it cannot know what is needed.
    assert!(keeping::sweep(&from, Duration::ZERO).await.is_err());
}
