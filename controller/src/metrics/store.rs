//! A store whose calls are timed and whose transactions are counted.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;

use super::catalog::{STORE, TRANSACTIONS};
use crate::store::{
    CommitError, Digest, Key, Page, Record, Revision, Store, StoreError, Transaction, Watch,
};

/// Does what the store in it does.
#[derive(Debug)]
pub(crate) struct Measured(Arc<dyn Store>);

impl Measured {
    pub(crate) fn new(store: Arc<dyn Store>) -> Arc<dyn Store> {
        Arc::new(Self(store))
    }
}

async fn timed<T>(call: &'static str, work: impl Future<Output = T>) -> T {
    let began = Instant::now();
    let done = work.await;
    metrics::histogram!(STORE, "call" => call).record(began.elapsed().as_secs_f64());
    done
}

fn outcome(done: &Result<Revision, CommitError>) -> &'static str {
    match done {
        Ok(_) => "committed",
        Err(CommitError::Conflict(_)) => "conflict",
        Err(CommitError::TooLarge(_) | CommitError::Twice(_)) => "refused",
        Err(CommitError::Unknown(_)) => "unknown",
        Err(CommitError::Store(_)) => "failed",
    }
}

#[async_trait]
impl Store for Measured {
    fn epoch(&self) -> &str {
        self.0.epoch()
    }

    async fn get(&self, key: &Key) -> Result<Option<Record>, StoreError> {
        timed("get", self.0.get(key)).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&Key>,
        limit: usize,
        at: Option<Revision>,
    ) -> Result<Page, StoreError> {
        timed("list", self.0.list(prefix, after, limit, at)).await
    }

    async fn commit(&self, transaction: Transaction) -> Result<Revision, CommitError> {
        let done = timed("commit", self.0.commit(transaction)).await;
        metrics::counter!(TRANSACTIONS, "outcome" => outcome(&done)).increment(1);
        done
    }

    async fn watch(&self, after: Revision) -> Result<Watch, StoreError> {
        self.0.watch(after).await
    }

    async fn put_chunks(&self, chunks: Vec<Bytes>) -> Result<Vec<Digest>, StoreError> {
        timed("put_chunks", self.0.put_chunks(chunks)).await
    }

    async fn chunk(&self, digest: Digest) -> Result<Option<Bytes>, StoreError> {
        timed("chunk", self.0.chunk(digest)).await
    }

    async fn sweep(&self, keep: &HashSet<Digest>, older_than: Duration) -> Result<u64, StoreError> {
        self.0.sweep(keep, older_than).await
    }

    async fn compact(&self, before: Revision) -> Result<(), StoreError> {
        self.0.compact(before).await
    }
}
