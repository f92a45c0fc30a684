//! The store of several controllers: etcd.
//!
//! All is under a prefix: `epoch`, records under `record/`, which alone is watched, chunks under `chunk/`, and
//! when each was put last under `chunk-put/`. Revisions are those of etcd, which others may move too.

mod members;
mod watch;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use etcd_client::{
    Compare, CompareOp, GetOptions, GetResponse, SortOrder, SortTarget, Txn, TxnOp, TxnOpResponse,
    TxnResponse,
};

use super::{
    CommitError, Digest, Key, MAX_PAGE, MAX_TRANSACTION, OpenError, Page, Record, Revision, Store,
    StoreError, Transaction, Watch, packed,
};
use members::{Failure, Members};

/// Chunks of one transaction, each with its time.
const CHUNKS: usize = super::MAX_OPERATIONS / 2;

/// How etcd is reached.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// `https://host:2379`, or `http://` where the way is safe. The next one is taken when one does not answer.
    pub endpoints: Vec<String>,
    /// What all keys begin with.
    pub prefix: String,
    /// User and password.
    pub user: Option<(String, String)>,
    /// For `https://`.
    pub tls: Option<Tls>,
    /// How long one call may take, with all that is tried.
    pub timeout: Duration,
}

/// Certificates, PEM.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    /// The authority of the members.
    pub authority: Vec<u8>,
    /// Certificate and key of this client.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl Options {
    /// These endpoints, the prefix `/xdpgate/`, 10 s, no user, no TLS.
    pub fn new(endpoints: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            prefix: "/xdpgate/".to_owned(),
            user: None,
            tls: None,
            timeout: Duration::from_secs(10),
        }
    }
}

/// A store in etcd.
#[derive(Debug)]
pub struct Etcd {
    epoch: String,
    place: Arc<Place>,
}

/// The members, and where in them the store is.
#[derive(Debug)]
struct Place {
    members: Members,
    prefix: String,
}

impl Etcd {
    /// Finds the store, or makes it.
    ///
    /// # Errors
    /// [`OpenError::Options`], or [`OpenError::Store`] if no member answers.
    pub async fn open(options: Options) -> Result<Self, OpenError> {
        let prefix = options.prefix.clone();
        if !prefix.starts_with('/') || !prefix.ends_with('/') {
            let text = format!("prefix {prefix:?}: it begins and ends with a slash, as /xdpgate/");
            return Err(OpenError::Options(text));
        }
        let members = Members::new(options).map_err(OpenError::Options)?;
        let place = Arc::new(Place { members, prefix });
        // Whoever is first names it. What is made twice is made once.
        let key = place.key("epoch");
        let create = Txn::new()
            .when([Compare::version(key.clone(), CompareOp::Equal, 0)])
            .and_then([TxnOp::put(key, super::new_epoch(), None)]);
        place.txn_that_may_repeat(&create).await?;
        let epoch = place.epoch().await?;
        Ok(Self { epoch, place })
    }
}

impl Place {
    fn key(&self, name: &str) -> Vec<u8> {
        [self.prefix.as_bytes(), name.as_bytes()].concat()
    }

    fn record(&self, key: &str) -> Vec<u8> {
        [self.prefix.as_bytes(), b"record/", key.as_bytes()].concat()
    }

    fn chunk(&self, digest: Digest) -> Vec<u8> {
        self.key(&format!("chunk/{digest}"))
    }

    fn chunk_put(&self, digest: Digest) -> Vec<u8> {
        self.key(&format!("chunk-put/{digest}"))
    }

    async fn epoch(&self) -> Result<String, StoreError> {
        let found = self.get(self.key("epoch"), GetOptions::new()).await?;
        let epoch = found.kvs().first().and_then(|kv| kv.value_str().ok());
        epoch
            .map(str::to_owned)
            .ok_or_else(|| StoreError::Damaged(format!("etcd has no store under {}", self.prefix)))
    }

    async fn get(&self, key: Vec<u8>, options: GetOptions) -> Result<GetResponse, StoreError> {
        let call = |client: etcd_client::Client| {
            let (key, options) = (key.clone(), options.clone());
            async move { members::kv(&client).get(key, Some(options)).await }
        };
        Ok(self.members.repeat(call).await?)
    }

    async fn txn_that_may_repeat(&self, txn: &Txn) -> Result<TxnResponse, StoreError> {
        let call = |client: etcd_client::Client| {
            let txn = txn.clone();
            async move { members::kv(&client).txn(txn).await }
        };
        Ok(self.members.repeat(call).await?)
    }

    /// Writes chunks and their times, or their times alone.
    async fn write_chunks(&self, chunks: &[(Digest, Option<Vec<u8>>)]) -> Result<bool, StoreError> {
        let now = super::unix_now().to_string();
        let (mut operations, mut there) = (Vec::new(), Vec::new());
        for (digest, packed) in chunks {
            match packed {
                Some(packed) => {
                    operations.push(TxnOp::put(self.chunk(*digest), packed.clone(), None))
                }
                None => there.push(Compare::version(self.chunk(*digest), CompareOp::Greater, 0)),
            }
            operations.push(TxnOp::put(self.chunk_put(*digest), now.clone(), None));
        }
        let txn = Txn::new().when(there).and_then(operations);
        Ok(self.txn_that_may_repeat(&txn).await?.succeeded())
    }

    /// Which chunks are there.
    async fn which(&self, digests: &[Digest]) -> Result<Vec<bool>, StoreError> {
        let keys_only = || Some(GetOptions::new().with_keys_only());
        let gets = digests
            .iter()
            .map(|digest| TxnOp::get(self.chunk(*digest), keys_only()));
        let txn = Txn::new().and_then(gets.collect::<Vec<_>>());
        let answer = self.txn_that_may_repeat(&txn).await?;
        let found = answer.op_responses().into_iter();
        Ok(found
            .map(|r| matches!(r, TxnOpResponse::Get(get) if !get.kvs().is_empty()))
            .collect())
    }

    /// Deletes chunks whose times are still as they were read.
    async fn delete_chunks(&self, chunks: &[(Digest, i64)]) -> Result<bool, StoreError> {
        let same = chunks.iter().map(|(digest, revision)| {
            Compare::mod_revision(self.chunk_put(*digest), CompareOp::Equal, *revision)
        });
        let deletes = chunks.iter().flat_map(|(digest, _)| {
            [self.chunk(*digest), self.chunk_put(*digest)].map(|key| TxnOp::delete(key, None))
        });
        let txn = Txn::new()
            .when(same.collect::<Vec<_>>())
            .and_then(deletes.collect::<Vec<_>>());
        Ok(self.txn_that_may_repeat(&txn).await?.succeeded())
    }
}

#[async_trait]
impl Store for Etcd {
    fn epoch(&self) -> &str {
        &self.epoch
    }

    async fn get(&self, key: &Key) -> Result<Option<Record>, StoreError> {
        let mut found = self
            .place
            .get(self.place.record(key.as_str()), GetOptions::new())
            .await?;
        Ok(found.take_kvs().pop().map(record))
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&Key>,
        limit: usize,
        at: Option<Revision>,
    ) -> Result<Page, StoreError> {
        let limit = limit.min(MAX_PAGE);
        let (start, end) = (
            self.place.record(prefix),
            self.place.record(&format!("{prefix}\x7f")),
        );
        let after = after.map(|key| [&self.place.record(key.as_str())[..], b"\0"].concat());
        let start = after.filter(|after| *after > start).unwrap_or(start);
        if start >= end {
            let revision = match at {
                Some(at) => at,
                None => now(&self
                    .place
                    .get(self.place.key("epoch"), GetOptions::new())
                    .await?),
            };
            return Ok(Page {
                revision,
                records: Vec::new(),
                more: false,
            });
        }
        let options = GetOptions::new()
            .with_range(end)
            .with_limit(limit as i64 + 1)
            .with_sort(SortTarget::Key, SortOrder::Ascend)
            .with_revision(at.map_or(0, signed));
        let mut found = self
            .place
            .get(start, options)
            .await
            .map_err(|error| compacted(error, at))?;
        let base = self.place.record("").len();
        let mut records = Vec::new();
        for kv in found.take_kvs() {
            let name = String::from_utf8_lossy(&kv.key()[base..]).into_owned();
            records.push((Key(name), record(kv)));
        }
        let more = records.len() > limit;
        records.truncate(limit);
        Ok(Page {
            revision: at.unwrap_or_else(|| now(&found)),
            records,
            more,
        })
    }

    async fn commit(&self, transaction: Transaction) -> Result<Revision, CommitError> {
        transaction.check()?;
        let as_read = |(key, revision): &(Key, Option<Revision>)| {
            let name = self.place.record(key.as_str());
            match revision {
                Some(revision) => Compare::mod_revision(name, CompareOp::Equal, signed(*revision)),
                None => Compare::version(name, CompareOp::Equal, 0),
            }
        };
        let write = |(key, value): &(Key, Option<Bytes>)| {
            let name = self.place.record(key.as_str());
            match value {
                Some(value) => TxnOp::put(name, value.to_vec(), None),
                None => TxnOp::delete(name, None),
            }
        };
        let keys_only = || Some(GetOptions::new().with_keys_only());
        let read = |(key, _): &(Key, Option<Revision>)| {
            TxnOp::get(self.place.record(key.as_str()), keys_only())
        };
        let txn = Txn::new()
            .when(transaction.expect.iter().map(as_read).collect::<Vec<_>>())
            .and_then(transaction.write.iter().map(write).collect::<Vec<_>>())
            .or_else(transaction.expect.iter().map(read).collect::<Vec<_>>());
        let call = |client: etcd_client::Client| {
            let txn = txn.clone();
            async move { members::kv(&client).txn(txn).await }
        };
        let answer = self
            .place
            .members
            .once(call)
            .await
            .map_err(|failure| match failure {
                Failure::Unknown(text) => CommitError::Unknown(text),
                failure => StoreError::from(failure).into(),
            })?;
        if answer.succeeded() {
            return Ok(answer
                .header()
                .map_or(Revision(0), |h| unsigned(h.revision())));
        }
        // It read all of them as of one moment, in which one at least was another.
        let is = |response: &TxnOpResponse| match response {
            TxnOpResponse::Get(get) => get.kvs().first().map(|kv| unsigned(kv.mod_revision())),
            _ => None,
        };
        let mut read = transaction.expect.into_iter().zip(answer.op_responses());
        let other = read.find(|((_, expected), response)| *expected != is(response));
        Err(match other {
            Some(((key, _), _)) => CommitError::Conflict(key),
            None => CommitError::Unknown("etcd refused it and does not say why".to_owned()),
        })
    }

    async fn watch(&self, after: Revision) -> Result<Watch, StoreError> {
        watch::watch(Arc::clone(&self.place), self.epoch.clone(), after).await
    }

    async fn put_chunks(&self, chunks: Vec<Bytes>) -> Result<Vec<Digest>, StoreError> {
        super::check_chunks(&chunks)?;
        let digests: Vec<Digest> = chunks.iter().map(|chunk| Digest::of(chunk)).collect();
        let mut seen = HashSet::new();
        let once: Vec<(Digest, &Bytes)> = digests
            .iter()
            .copied()
            .zip(&chunks)
            .filter(|(digest, _)| seen.insert(*digest))
            .collect();
        for some in once.chunks(CHUNKS) {
            let names: Vec<Digest> = some.iter().map(|(digest, _)| *digest).collect();
            let there = self.place.which(&names).await?;
            let old: Vec<_> = names
                .iter()
                .zip(&there)
                .filter(|(_, there)| **there)
                .map(|(d, _)| (*d, None))
                .collect();
            // One that was swept since it was looked for is put again.
            let renewed = old.is_empty() || self.place.write_chunks(&old).await?;
            let (mut batch, mut size) = (Vec::new(), 0);
            for ((digest, chunk), there) in some.iter().zip(there) {
                if there && renewed {
                    continue;
                }
                let packed = packed::pack(chunk);
                if size + packed.len() > MAX_TRANSACTION && !batch.is_empty() {
                    self.place.write_chunks(&std::mem::take(&mut batch)).await?;
                    size = 0;
                }
                size += packed.len();
                batch.push((*digest, Some(packed)));
            }
            if !batch.is_empty() {
                self.place.write_chunks(&batch).await?;
            }
        }
        Ok(digests)
    }

    async fn chunk(&self, digest: Digest) -> Result<Option<Bytes>, StoreError> {
        let found = self
            .place
            .get(self.place.chunk(digest), GetOptions::new())
            .await?;
        found
            .kvs()
            .first()
            .map(|kv| packed::unpack(digest, kv.value()))
            .transpose()
    }

    async fn sweep(&self, keep: &HashSet<Digest>, older_than: Duration) -> Result<u64, StoreError> {
        let seconds = i64::try_from(older_than.as_secs()).unwrap_or(i64::MAX);
        let before = super::unix_now().saturating_sub(seconds);
        let base = self.place.key("chunk-put/");
        let end = self.place.key("chunk-put/\x7f");
        let (mut start, mut swept) = (base.clone(), 0);
        loop {
            let options = GetOptions::new()
                .with_range(end.clone())
                .with_limit(MAX_PAGE as i64);
            let found = self.place.get(start.clone(), options).await?;
            let mut lost = Vec::new();
            for kv in found.kvs() {
                let digest = kv
                    .key_str()
                    .ok()
                    .and_then(|key| Digest::parse(&key[base.len()..]));
                let put = kv
                    .value_str()
                    .ok()
                    .and_then(|text| text.parse::<i64>().ok());
                if let (Some(digest), Some(put)) = (digest, put)
                    && put < before
                    && !keep.contains(&digest)
                {
                    lost.push((digest, kv.mod_revision()));
                }
            }
            for some in lost.chunks(CHUNKS) {
                if self.place.delete_chunks(some).await? {
                    swept += some.len() as u64;
                    continue;
                }
                // One of them was put again meanwhile.
                for one in some {
                    swept += u64::from(self.place.delete_chunks(&[*one]).await?);
                }
            }
            match found.kvs().last() {
                Some(last) if found.more() => start = [last.key(), b"\0"].concat(),
                _ => return Ok(swept),
            }
        }
    }

    /// All of etcd is compacted, not this prefix alone.
    async fn compact(&self, before: Revision) -> Result<(), StoreError> {
        let call = |client: etcd_client::Client| async move {
            members::kv(&client).compact(signed(before), None).await
        };
        match self
            .place
            .members
            .repeat(call)
            .await
            .map_err(StoreError::from)
        {
            Err(StoreError::Compacted(_)) => Ok(()),
            Err(StoreError::Unavailable(text)) if text.contains(members::FUTURE) => Ok(()),
            result => result.map(drop),
        }
    }
}

fn record(kv: etcd_client::KeyValue) -> Record {
    let revision = unsigned(kv.mod_revision());
    Record {
        value: Bytes::from(kv.into_key_value().1),
        revision,
    }
}

fn now(found: &GetResponse) -> Revision {
    found
        .header()
        .map_or(Revision(0), |header| unsigned(header.revision()))
}

/// Of whom it was asked for: etcd does not say since when.
fn compacted(error: StoreError, at: Option<Revision>) -> StoreError {
    match (error, at) {
        (StoreError::Compacted(_), Some(at)) => StoreError::Compacted(Revision(at.0 + 1)),
        (error, _) => error,
    }
}

/// etcd's revisions have a sign and are never negative.
fn unsigned(revision: i64) -> Revision {
    Revision(revision.unsigned_abs())
}

fn signed(revision: Revision) -> i64 {
    i64::try_from(revision.0).unwrap_or(i64::MAX)
}
