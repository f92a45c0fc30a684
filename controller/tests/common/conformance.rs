//! What every store does: one suite, run for each by `conformance!`.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use xdpgate_controller::store::{
    Batch, CommitError, Digest, Key, MAX_OPERATIONS, MAX_PAGE, MAX_TRANSACTION, MAX_VALUE, Record,
    Revision, Store, StoreError, Transaction, Watch,
};

/// Where a store is, empty at first.
#[async_trait]
pub trait Place: Send + Sync {
    /// The store, as a process that starts sees it. The one before has been dropped.
    async fn open(&self) -> Arc<dyn Store>;
    /// Changes the stored bytes of a chunk.
    async fn damage(&self, digest: Digest);
}

/// The suite, for what an expression makes a place of; it is `None` where the store cannot be had.
macro_rules! conformance {
    ($place:expr; $($test:ident)*) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $test() {
            if let Some(place) = $place.await {
                common::conformance::$test(&place).await;
            }
        })*
    };
    ($place:expr) => {
        $crate::common::conformance::conformance!($place;
            increments_of_sixteen_writers_are_made_once_each
            r44_of_two_identical_creates_one_wins
            what_is_written_is_read_and_what_is_deleted_is_gone
            a_transaction_is_made_whole_or_not_at_all
            transactions_that_change_nothing_make_no_batch
            pages_belong_to_one_revision_while_writes_go_on
            an_earlier_revision_is_as_it_was_until_it_is_compacted
            a_watch_has_every_batch_once_and_in_order_from_any_revision
            a_watch_of_what_is_compacted_begins_again_with_a_list
            what_is_too_large_is_refused_and_what_just_fits_is_not
            chunks_are_kept_once_and_found_by_their_name
            a_sweep_spares_what_is_kept_and_what_is_new
            a_damaged_chunk_is_found
            a_store_that_is_opened_again_has_everything
        );
    };
}
pub(crate) use conformance;

pub fn key(text: &str) -> Key {
    Key::new(text).expect("a key")
}

fn put(text: &str, value: impl Into<Bytes>) -> (Key, Option<Bytes>) {
    (key(text), Some(value.into()))
}

fn write(write: Vec<(Key, Option<Bytes>)>) -> Transaction {
    Transaction {
        expect: vec![],
        write,
    }
}

/// Every page below a prefix, as of one revision.
pub async fn all(store: &dyn Store, prefix: &str, limit: usize) -> (Revision, Vec<(Key, Record)>) {
    let (mut at, mut records) = (None, Vec::<(Key, Record)>::new());
    loop {
        let after = records.last().map(|(key, _)| key.clone());
        let page = store
            .list(prefix, after.as_ref(), limit, at)
            .await
            .expect("a page");
        assert!(page.records.len() <= limit);
        records.extend(page.records);
        assert!(at.is_none_or(|at| at == page.revision));
        at = Some(page.revision);
        if !page.more {
            return (page.revision, records);
        }
    }
}

async fn next(watch: &mut Watch) -> Result<Batch, StoreError> {
    tokio::time::timeout(Duration::from_secs(20), watch.next())
        .await
        .expect("a batch in time")
        .expect("the watch goes on")
}

/// Adds one to a number, however often it takes; what is not known is read back.
pub async fn increment(store: &dyn Store, counter: &Key, who: &str) {
    loop {
        let Ok(record) = store.get(counter).await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let number = record.as_ref().map_or(0, |r| number(&r.value));
        let mark = key(&format!("mark/{who}"));
        let transaction = Transaction {
            expect: vec![
                (counter.clone(), record.map(|r| r.revision)),
                (mark.clone(), None),
            ],
            write: vec![
                (counter.clone(), Some((number + 1).to_string().into())),
                (mark.clone(), Some(Bytes::new())),
            ],
        };
        match store.commit(transaction).await {
            Ok(_) => return,
            Err(CommitError::Conflict(at)) if at == mark => return,
            Err(CommitError::Conflict(_)) => {}
            // If it was made, the mark is there, and the next round says so.
            Err(CommitError::Unknown(_) | CommitError::Store(StoreError::Unavailable(_))) => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

pub fn number(value: &[u8]) -> u64 {
    std::str::from_utf8(value).unwrap().parse().unwrap()
}

pub async fn increments_of_sixteen_writers_are_made_once_each(place: &dyn Place) {
    let store = place.open().await;
    let counter = key("counter/one");
    let writers = (0..16).map(|writer| {
        let (store, counter) = (Arc::clone(&store), counter.clone());
        tokio::spawn(async move {
            for round in 0..20 {
                increment(&*store, &counter, &format!("{writer}-{round}")).await;
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let record = store.get(&counter).await.unwrap().unwrap();
    assert_eq!(number(&record.value), 320);
    assert_eq!(all(&*store, "mark/", 1_000).await.1.len(), 320);
}

pub async fn r44_of_two_identical_creates_one_wins(place: &dyn Place) {
    let store = place.open().await;
    for round in 0..20 {
        let create = Transaction {
            expect: vec![(key(&format!("policy/{round}")), None)],
            write: vec![put(&format!("policy/{round}"), "{}")],
        };
        let (a, b) = tokio::join!(store.commit(create.clone()), store.commit(create.clone()));
        let wins = [&a, &b].iter().filter(|result| result.is_ok()).count();
        assert_eq!(wins, 1, "{a:?} {b:?}");
        let lost = if a.is_ok() { b } else { a };
        assert!(matches!(lost, Err(CommitError::Conflict(at)) if at == create.write[0].0));
    }
}

pub async fn what_is_written_is_read_and_what_is_deleted_is_gone(place: &dyn Place) {
    let store = place.open().await;
    // In the order of their bytes; empty values and binary ones are values.
    let keys = ["a", "a-b/c", "a.b", "a/b", "a/b/c", "a0", "aB", "a_b", "ab"];
    let write = write(
        keys.map(|k| {
            put(
                k,
                if k == "a0" {
                    vec![]
                } else {
                    vec![0, 255, b'\'']
                },
            )
        })
        .into(),
    );
    let revision = store.commit(write).await.unwrap();
    let (at, records) = all(&*store, "", 2).await;
    assert!(at >= revision);
    let found: Vec<&str> = records.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(found, keys);
    for (key, record) in &records {
        assert_eq!(record.revision, revision);
        assert_eq!(store.get(key).await.unwrap().as_ref(), Some(record));
    }
    assert_eq!(records[5].1.value, Bytes::new());
    assert_eq!(records[4].1.value, vec![0, 255, b'\'']);
    let below = |prefix: &'static str| {
        let store = &store;
        async move { all(&**store, prefix, 10).await.1.len() }
    };
    assert_eq!(
        (below("a/").await, below("a/b").await, below("b").await),
        (2, 2, 0)
    );

    store
        .commit(self::write(vec![(key("a/b"), None)]))
        .await
        .unwrap();
    assert_eq!(store.get(&key("a/b")).await.unwrap(), None);
    assert_eq!(below("a/").await, 1);
    // What was deleted is absent, also for who saw it.
    let gone = Transaction {
        expect: vec![(key("a/b"), Some(revision))],
        write: vec![put("x", "")],
    };
    assert!(matches!(store.commit(gone).await, Err(CommitError::Conflict(at)) if at == key("a/b")));
    let anew = Transaction {
        expect: vec![(key("a/b"), None)],
        write: vec![put("a/b", "2")],
    };
    let again = store.commit(anew).await.unwrap();
    assert_eq!(
        store.get(&key("a/b")).await.unwrap().unwrap().revision,
        again
    );
}

pub async fn a_transaction_is_made_whole_or_not_at_all(place: &dyn Place) {
    let store = place.open().await;
    let first = store
        .commit(write(vec![put("a", "1"), put("b", "1")]))
        .await
        .unwrap();
    let second = store.commit(write(vec![put("b", "2")])).await.unwrap();
    assert!(second > first && first > Revision(0));
    let stale = Transaction {
        expect: vec![(key("a"), Some(first)), (key("b"), Some(first))],
        write: vec![put("a", "3"), put("c", "3")],
    };
    assert!(matches!(store.commit(stale).await, Err(CommitError::Conflict(at)) if at == key("b")));
    assert_eq!(store.get(&key("a")).await.unwrap().unwrap().value, "1");
    assert_eq!(store.get(&key("c")).await.unwrap(), None);
}

pub async fn transactions_that_change_nothing_make_no_batch(place: &dyn Place) {
    let store = place.open().await;
    let one = store.commit(write(vec![put("a", "1")])).await.unwrap();
    let mut watch = store.watch(one).await.unwrap();
    let only = Transaction {
        expect: vec![(key("a"), Some(one))],
        write: vec![],
    };
    assert_eq!(store.commit(only).await.unwrap(), one);
    assert_eq!(
        store.commit(write(vec![(key("b"), None)])).await.unwrap(),
        one
    );
    let two = store
        .commit(write(vec![(key("b"), None), put("c", "")]))
        .await
        .unwrap();
    let batch = next(&mut watch).await.unwrap();
    assert_eq!((batch.revision, batch.changes), (two, vec![put("c", "")]));
}

pub async fn pages_belong_to_one_revision_while_writes_go_on(place: &dyn Place) {
    let store = place.open().await;
    let numbers = 0..50;
    // All have the same value, at each revision.
    let round = move |round: u32| {
        write(
            numbers
                .clone()
                .map(|n| put(&format!("n/{n:02}"), round.to_string()))
                .collect(),
        )
    };
    store.commit(round(0)).await.unwrap();
    let writer = tokio::spawn({
        let store = Arc::clone(&store);
        async move {
            for i in 1..60 {
                let mut transaction = round(i);
                // In every second one, some are not there.
                if i % 2 == 1 {
                    for (_, value) in transaction.write.iter_mut().step_by(3) {
                        *value = None;
                    }
                }
                store.commit(transaction).await.unwrap();
            }
        }
    });
    let mut seen = HashSet::new();
    while !writer.is_finished() {
        let (_, records) = all(&*store, "n/", 7).await;
        let values: HashSet<&Bytes> = records.iter().map(|(_, r)| &r.value).collect();
        assert_eq!(values.len(), 1, "{values:?}");
        let odd = number(&records[0].1.value) % 2 == 1;
        assert_eq!(records.len(), if odd { 33 } else { 50 });
        seen.insert(records[0].1.value.clone());
    }
    writer.await.unwrap();
    assert!(seen.len() > 1, "no write came between two lists");
}

pub async fn an_earlier_revision_is_as_it_was_until_it_is_compacted(place: &dyn Place) {
    let store = place.open().await;
    let mut was = BTreeMap::new();
    let mut states = Vec::new();
    for i in 0..40_u32 {
        let name = format!("k/{}", i * 7 % 10);
        let change = (key(&name), (i % 4 != 3).then(|| Bytes::from(i.to_string())));
        match &change.1 {
            Some(value) => was.insert(change.0.clone(), value.clone()),
            None => was.remove(&change.0),
        };
        let revision = store.commit(write(vec![change])).await.unwrap();
        states.push((revision, was.clone()));
    }
    let check = |from: usize| {
        let (store, states) = (&store, &states);
        async move {
            for (revision, state) in &states[from..] {
                let page = store.list("k/", None, 100, Some(*revision)).await.unwrap();
                let records = page
                    .records
                    .into_iter()
                    .map(|(key, record)| (key, record.value));
                assert_eq!(&records.collect::<BTreeMap<_, _>>(), state, "{revision:?}");
            }
        }
    };
    check(0).await;
    for compacted in [10, 25, 39] {
        store.compact(states[compacted].0).await.unwrap();
        // Again, and earlier than that: nothing to do.
        store.compact(states[compacted].0).await.unwrap();
        store.compact(states[2].0).await.unwrap();
        check(compacted).await;
        let before = store
            .list("k/", None, 100, Some(states[compacted - 1].0))
            .await;
        assert!(
            matches!(before, Err(StoreError::Compacted(_))),
            "{before:?}"
        );
    }
    // What is written after all was forgotten is told from what was before.
    let last = states[39].clone();
    store
        .commit(write(
            (0..10).map(|i| put(&format!("k/{i}"), "new")).collect(),
        ))
        .await
        .unwrap();
    let page = store.list("k/", None, 100, Some(last.0)).await.unwrap();
    let records = page
        .records
        .into_iter()
        .map(|(key, record)| (key, record.value));
    assert_eq!(records.collect::<BTreeMap<_, _>>(), last.1);
    let future = store
        .list("k/", None, 100, Some(Revision(page.revision.0 + 1_000_000)))
        .await;
    assert!(
        matches!(future, Err(StoreError::Unavailable(_))),
        "{future:?}"
    );
}

pub async fn a_watch_has_every_batch_once_and_in_order_from_any_revision(place: &dyn Place) {
    let store = place.open().await;
    let mut made = Vec::new();
    for i in 0..30_u32 {
        let write = write(vec![
            put("z", i.to_string()),
            (key("y"), (i % 2 == 0).then(Bytes::new)),
            put("a/1", ""),
        ]);
        made.push(store.commit(write).await.unwrap());
    }
    let mut watches = Vec::new();
    for from in [0, 1, 15, 29] {
        let after = if from == 0 {
            Revision(0)
        } else {
            made[from - 1]
        };
        watches.push((from, store.watch(after).await.unwrap()));
    }
    // Writes of several tasks while it is watched.
    let writers = (0..4).map(|writer| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let mut made = Vec::new();
            for i in 0..25 {
                let value = put(&format!("w/{writer}"), i.to_string());
                made.push(store.commit(write(vec![value])).await.unwrap());
            }
            made
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        made.extend(writer.await.unwrap());
    }
    made.sort();
    for (from, mut watch) in watches {
        for revision in &made[from..] {
            let batch = next(&mut watch).await.unwrap();
            assert_eq!(batch.revision, *revision);
            assert!(batch.changes.is_sorted_by_key(|(key, _)| key.clone()));
            if let Some(i) = made[..30].iter().position(|made| made == revision) {
                // Deleting `y` is a change each time, since it was there before.
                let y = (key("y"), (i % 2 == 0).then(Bytes::new));
                assert_eq!(
                    batch.changes,
                    vec![put("a/1", ""), y, put("z", i.to_string())]
                );
            }
        }
        let more = tokio::time::timeout(Duration::from_millis(20), watch.next()).await;
        assert!(more.is_err(), "{more:?}");
    }
}

pub async fn a_watch_of_what_is_compacted_begins_again_with_a_list(place: &dyn Place) {
    let store = place.open().await;
    let mut made = Vec::new();
    for i in 0..20_u32 {
        made.push(
            store
                .commit(write(vec![put("z", i.to_string())]))
                .await
                .unwrap(),
        );
    }
    store.compact(made[10]).await.unwrap();
    for after in [Revision(0), made[0], made[9]] {
        let refused = match store.watch(after).await {
            Ok(mut watch) => next(&mut watch).await.err(),
            Err(error) => Some(error),
        };
        assert!(
            matches!(refused, Some(StoreError::Compacted(_))),
            "{after:?} {refused:?}"
        );
    }
    let mut watch = store.watch(made[10]).await.unwrap();
    for revision in &made[11..] {
        assert_eq!(next(&mut watch).await.unwrap().revision, *revision);
    }
    // A list, and a watch from there, miss nothing.
    let (at, records) = all(&*store, "", 10).await;
    assert_eq!(records[0].1.value, "19");
    let mut watch = store.watch(at).await.unwrap();
    let after = store.commit(write(vec![put("z", "20")])).await.unwrap();
    assert_eq!(next(&mut watch).await.unwrap().revision, after);
}

pub async fn what_is_too_large_is_refused_and_what_just_fits_is_not(place: &dyn Place) {
    let store = place.open().await;
    let many = |n: usize| write((0..n).map(|i| put(&format!("m/{i}"), "")).collect());
    let sized = |sizes: &[usize]| {
        let values = sizes.iter().enumerate();
        write(
            values
                .map(|(i, n)| put(&format!("s{i}"), vec![7; *n]))
                .collect(),
        )
    };
    let half = MAX_TRANSACTION / 2 - 2;
    store.commit(many(MAX_OPERATIONS)).await.unwrap();
    store.commit(sized(&[MAX_VALUE])).await.unwrap();
    store.commit(sized(&[half, half])).await.unwrap();
    let mut both = many(MAX_OPERATIONS);
    both.expect.push((key("other"), None));
    let refused = [
        many(MAX_OPERATIONS + 1),
        both,
        sized(&[MAX_VALUE + 1]),
        sized(&[half, half, 1]),
    ];
    for transaction in refused {
        let result = store.commit(transaction).await;
        assert!(
            matches!(result, Err(CommitError::TooLarge(_))),
            "{result:?}"
        );
    }
    let twice = write(vec![put("a", ""), (key("a"), None)]);
    assert!(matches!(store.commit(twice).await, Err(CommitError::Twice(at)) if at == key("a")));
    store
        .put_chunks(vec![vec![1; MAX_VALUE].into()])
        .await
        .unwrap();
    let large = store.put_chunks(vec![vec![1; MAX_VALUE + 1].into()]).await;
    assert!(matches!(large, Err(StoreError::TooLarge(_))), "{large:?}");
    let page = store.list("", None, 1_000_000, None).await.unwrap();
    assert!(page.records.len() <= MAX_PAGE);
}

pub async fn chunks_are_kept_once_and_found_by_their_name(place: &dyn Place) {
    let store = place.open().await;
    let before = store.commit(write(vec![put("a", "1")])).await.unwrap();
    let mut watch = store.watch(before).await.unwrap();
    let chunks: Vec<Bytes> = [&b""[..], b"one", &[0; 300_000], b"one"]
        .map(Bytes::from_static)
        .into();
    let digests = store.put_chunks(chunks.clone()).await.unwrap();
    let named: Vec<Digest> = chunks.iter().map(|chunk| Digest::of(chunk)).collect();
    assert_eq!(digests, named);
    assert_eq!(store.put_chunks(chunks.clone()).await.unwrap(), named);
    assert_eq!(store.put_chunks(vec![]).await.unwrap(), vec![]);
    for (digest, chunk) in digests.iter().zip(&chunks) {
        assert_eq!(store.chunk(*digest).await.unwrap().as_ref(), Some(chunk));
    }
    assert_eq!(store.chunk(Digest::of(b"two")).await.unwrap(), None);
    assert_eq!(
        store
            .sweep(&HashSet::new(), Duration::from_secs(3_600))
            .await
            .unwrap(),
        0
    );
    // Chunks are nothing that a watch tells.
    let after = store.commit(write(vec![put("a", "2")])).await.unwrap();
    assert_eq!(next(&mut watch).await.unwrap().revision, after);
}

pub async fn a_sweep_spares_what_is_kept_and_what_is_new(place: &dyn Place) {
    let store = place.open().await;
    let chunks = |names: &[&'static str]| {
        names
            .iter()
            .map(|n| Bytes::from_static(n.as_bytes()))
            .collect()
    };
    let old = store
        .put_chunks(chunks(&["kept", "lost", "renewed"]))
        .await
        .unwrap();
    // Times of chunks are whole seconds.
    tokio::time::sleep(Duration::from_millis(3_100)).await;
    let new = store.put_chunks(chunks(&["renewed", "new"])).await.unwrap();
    let keep = HashSet::from([old[0]]);
    assert_eq!(
        store.sweep(&keep, Duration::from_secs(60)).await.unwrap(),
        0
    );
    assert_eq!(store.sweep(&keep, Duration::from_secs(1)).await.unwrap(), 1);
    assert_eq!(store.chunk(old[1]).await.unwrap(), None);
    for digest in [old[0], old[2], new[1]] {
        assert!(store.chunk(digest).await.unwrap().is_some());
    }
    // What was swept may come again.
    store.put_chunks(chunks(&["lost"])).await.unwrap();
    assert_eq!(store.chunk(old[1]).await.unwrap().unwrap(), "lost");
}

pub async fn a_damaged_chunk_is_found(place: &dyn Place) {
    let store = place.open().await;
    let chunks = vec![Bytes::from(vec![5; 10_000]), Bytes::from_static(b"other")];
    let digests = store.put_chunks(chunks).await.unwrap();
    drop(store);
    place.damage(digests[0]).await;
    let store = place.open().await;
    let damaged = store.chunk(digests[0]).await;
    assert!(
        matches!(damaged, Err(StoreError::Damaged(_))),
        "{damaged:?}"
    );
    assert!(store.chunk(digests[1]).await.unwrap().is_some());
}

pub async fn a_store_that_is_opened_again_has_everything(place: &dyn Place) {
    let store = place.open().await;
    let epoch = store.epoch().to_owned();
    assert_eq!(epoch.len(), 32);
    let mut made = vec![];
    for i in 0..5_u32 {
        made.push(
            store
                .commit(write(vec![put("a", i.to_string())]))
                .await
                .unwrap(),
        );
    }
    let digests = store.put_chunks(vec!["chunk".into()]).await.unwrap();
    drop(store);
    let store = place.open().await;
    assert_eq!(store.epoch(), epoch);
    assert_eq!(
        store.get(&key("a")).await.unwrap().unwrap().revision,
        made[4]
    );
    assert_eq!(store.chunk(digests[0]).await.unwrap().unwrap(), "chunk");
    let mut watch = store.watch(made[1]).await.unwrap();
    for revision in &made[2..] {
        assert_eq!(next(&mut watch).await.unwrap().revision, *revision);
    }
    assert!(store.commit(write(vec![put("a", "5")])).await.unwrap() > made[4]);
}
