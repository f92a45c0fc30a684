//! A disk without room: a file system in memory, of a few megabytes, that only this test sees.

mod common;

use std::fs;
use std::path::Path;

use common::conformance::{all, key};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use xdpgate_controller::store::sqlite::Sqlite;
use xdpgate_controller::store::{CommitError, Store, StoreError, Transaction};

#[test]
fn r129_a_full_disk_refuses_whole_changes_and_goes_on_when_there_is_room() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: needs root");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let within = folder.path().to_owned();
    // What this thread and those that it starts see is theirs alone.
    let test = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let (none, private) = (None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE);
        mount(none, "/", none, private, none).unwrap();
        let (tmpfs, size) = (Some("tmpfs"), Some("size=4m"));
        mount(tmpfs, &within, tmpfs, MsFlags::empty(), size).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(fill_and_go_on(&within));
    });
    test.join().unwrap();
}

async fn fill_and_go_on(folder: &Path) {
    let path = folder.join("c.db");
    let store = Sqlite::open(&path).unwrap();
    let change = |n: usize| {
        let value = |part| (key(&format!("n/{n}/{part}")), Some(vec![7; 3_000].into()));
        Transaction {
            expect: vec![(key(&format!("n/{n}/0")), None)],
            write: (0..20).map(value).collect(),
        }
    };
    let ballast = folder.join("ballast");
    fs::write(&ballast, vec![1; 1 << 20]).unwrap();
    let mut made = 0;
    let full = loop {
        match store.commit(change(made)).await {
            Ok(_) => made += 1,
            Err(error) => break error,
        }
        assert!(made < 1_000, "it was never full");
    };
    assert!(
        matches!(full, CommitError::Store(StoreError::Full(_))),
        "{full:?}"
    );
    assert!(made > 3);
    for _ in 0..5 {
        let still = store.commit(change(made)).await;
        assert!(
            matches!(still, Err(CommitError::Store(StoreError::Full(_)))),
            "{still:?}"
        );
    }
    // What was stored is read, and nothing of what was refused.
    assert_eq!(all(&store, "n/", 100).await.1.len(), made * 20);
    fs::remove_file(&ballast).unwrap();
    for n in made..made + 3 {
        store.commit(change(n)).await.unwrap();
    }
    drop(store);
    let store = Sqlite::open(&path).unwrap();
    assert_eq!(all(&store, "n/", 100).await.1.len(), (made + 3) * 20);
}
