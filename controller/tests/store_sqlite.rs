//! The SQLite store does what every store does.

mod common;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use common::conformance::{Place, conformance};
use tempfile::TempDir;
use xdpgate_controller::store::sqlite::Sqlite;
use xdpgate_controller::store::{Digest, Store};

struct Folder(TempDir);

impl Folder {
    async fn new() -> Option<Self> {
        Some(Self(tempfile::tempdir().expect("a folder")))
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("controller.db")
    }
}

#[async_trait]
impl Place for Folder {
    async fn open(&self) -> Arc<dyn Store> {
        Arc::new(Sqlite::open(self.file()).expect("the store opens"))
    }

    async fn damage(&self, digest: Digest) {
        let file = rusqlite::Connection::open(self.file()).unwrap();
        let update = "UPDATE chunk_bytes SET packed = x'006f74686572'
             WHERE id = (SELECT id FROM chunk WHERE digest = ?1)";
        assert_eq!(file.execute(update, [&digest.0]).unwrap(), 1);
    }
}

conformance!(Folder::new());
