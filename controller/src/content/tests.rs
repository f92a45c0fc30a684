//! Contents in a real store.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use tokio::runtime::{Builder, Runtime};
use xxhash_rust::xxh3::xxh3_64;

use super::{Content, ContentError, Contents, Difference, MAX_ENTRY, MAX_KEY, Shape, named_in};
use crate::store::sqlite::Sqlite;
use crate::store::{Digest, MAX_VALUE, Store, StoreError};

type Map = BTreeMap<Bytes, Bytes>;

/// Small, so that few entries have many chunks.
const SHAPE: Shape = Shape { mean: 64, max: 256 };

fn store() -> (tempfile::TempDir, Arc<dyn Store>, Contents) {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(Sqlite::open(folder.path().join("c.db")).unwrap());
    let contents = Contents::new(Arc::clone(&store), 1 << 20);
    (folder, store, contents)
}

fn runtime() -> Runtime {
    Builder::new_current_thread().build().unwrap()
}

fn number(n: u32) -> Bytes {
    Bytes::copy_from_slice(&n.to_be_bytes())
}

fn naive(from: &Map, to: &Map) -> Vec<Difference> {
    let keys: std::collections::BTreeSet<&Bytes> = from.keys().chain(to.keys()).collect();
    keys.into_iter()
        .filter(|key| from.get(*key) != to.get(*key))
        .map(|key| Difference {
            key: key.clone(),
            from: from.get(key).cloned(),
            to: to.get(key).cloned(),
        })
        .collect()
}

fn apply(map: &mut Map, changes: &BTreeMap<Bytes, Option<Bytes>>) {
    for (key, value) in changes {
        match value {
            Some(value) => map.insert(key.clone(), value.clone()),
            None => map.remove(key),
        };
    }
}

/// Keys that no chunk is cut after, as an attacker would choose them.
fn hostile(n: usize) -> Vec<Bytes> {
    let high = |key: &Bytes| xxh3_64(key) > u64::MAX / 2;
    (0..).map(number).filter(high).take(n).collect()
}

/// Histories of some steps: few keys, so that they meet, and values of sizes up to beyond the largest chunk. Half
/// of them with keys of which none is cut after.
fn history() -> impl Strategy<Value = Vec<BTreeMap<Bytes, Option<Bytes>>>> {
    let value = prop_oneof![
        4 => (0..12_usize).prop_map(Some),
        1 => (0..400_usize).prop_map(Some),
        3 => Just(None),
    ];
    let value =
        (value, any::<u8>()).prop_map(|(size, byte)| size.map(|n| Bytes::from(vec![byte; n])));
    let hostile = hostile(300);
    let key = (any::<bool>(), 0..300_usize);
    let step = (any::<bool>(), prop::collection::vec((key, value), 0..40));
    prop::collection::vec(step, 1..6).prop_map(move |steps| {
        let key = |(bad, n): (bool, usize)| {
            if bad {
                hostile[n].clone()
            } else {
                number(n as u32)
            }
        };
        let change = |bad, ((one, n), value)| (key((bad || one, n)), value);
        let step =
            |(bad, changes): (bool, Vec<_>)| changes.into_iter().map(|c| change(bad, c)).collect();
        steps.into_iter().map(step).collect()
    })
}

/// How many histories; each has several steps. `CONTENT_HISTORIES` asks for more.
fn histories() -> ProptestConfig {
    let asked = std::env::var("CONTENT_HISTORIES").ok();
    let cases = asked.and_then(|text| text.parse().ok()).unwrap_or(400);
    ProptestConfig {
        cases,
        max_shrink_iters: 2_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

#[test]
fn an_edited_content_is_the_one_that_is_built_and_differs_as_the_maps_do() {
    let (_folder, _, contents) = store();
    let runtime = runtime();
    proptest!(histories(), |(steps in history())| {
        runtime.block_on(async {
            let mut map = Map::new();
            let mut content = contents.build(SHAPE, []).await.unwrap();
            for changes in steps {
                let before = (map.clone(), content);
                apply(&mut map, &changes);
                content = contents.edit(SHAPE, &content, changes).await.unwrap();
                let built = contents.build(SHAPE, map.clone()).await.unwrap();
                prop_assert_eq!(content, built);
                let all: Map = contents.all(&content).await.unwrap().into_iter().collect();
                prop_assert_eq!(&all, &map);
                let diff = contents.diff(&before.1, &content).await.unwrap();
                prop_assert_eq!(diff, naive(&before.0, &map));
            }
            Ok(())
        })?;
    });
}

#[test]
fn keys_and_pages_are_found() {
    let (_folder, _, contents) = store();
    runtime().block_on(async {
        let even = |n: u32| (number(2 * n), Bytes::from(vec![1; n as usize % 9]));
        let content = contents.build(SHAPE, (0..500).map(even)).await.unwrap();
        assert_eq!((content.count, content.bytes > 500), (500, true));
        for n in 0..1_001 {
            let found = contents.get(&content, &number(n)).await.unwrap();
            let there = (n % 2 == 0 && n < 1_000).then(|| even(n / 2).1);
            assert_eq!(found, there, "{n}");
        }
        for after in [
            None,
            Some(0),
            Some(1),
            Some(498),
            Some(997),
            Some(998),
            Some(5_000),
        ] {
            let key = after.map(number);
            let page = contents.page(&content, key.as_deref(), 7).await.unwrap();
            let first = after.map_or(0, |after| after / 2 + 1);
            let expected: Vec<_> = (first..500).map(even).take(7).collect();
            assert_eq!(page, expected, "{after:?}");
        }
        let empty = contents.build(SHAPE, []).await.unwrap();
        assert_eq!(contents.get(&empty, b"a").await.unwrap(), None);
        assert!(contents.page(&empty, None, 5).await.unwrap().is_empty());
    });
}

#[test]
fn whatever_the_keys_are_no_chunk_is_too_large_and_a_change_stays_small() {
    let (_folder, store, contents) = store();
    runtime().block_on(async {
        let shape = super::entries::SHAPE;
        let keys = hostile(200_000);
        let entries = keys.iter().map(|key| (key.clone(), Bytes::new()));
        // The hash of a key counts by the size of the entry, so these are cut nowhere of themselves.
        let content = contents.build(shape, entries).await.unwrap();
        let parts = contents.parts(&content).await.unwrap();
        assert!(parts.len() >= 4);
        assert!(parts[..parts.len() - 1].iter().all(|part| part.for_size));
        assert!(parts.iter().all(|part| part.size <= shape.max as u64));
        let mut before = HashSet::new();
        contents.reach(&content, &mut before).await.unwrap();
        let changes = BTreeMap::from([(keys[20].clone(), None)]);
        let edited = contents.edit(shape, &content, changes).await.unwrap();
        let mut after = HashSet::new();
        contents.reach(&edited, &mut after).await.unwrap();
        let new = after.difference(&before).count();
        // One or two chunks of entries, a piece of the list, the root.
        assert!(new <= 4, "{new} of {}", after.len());

        for (key, value) in [(MAX_KEY + 1, 0), (1, MAX_ENTRY)] {
            let entry = (Bytes::from(vec![b'k'; key]), Bytes::from(vec![0; value]));
            let refused = contents.build(shape, [entry]).await;
            assert!(
                matches!(refused, Err(ContentError::TooLarge { .. })),
                "{refused:?}"
            );
        }
        let large = (
            Bytes::from_static(b"k"),
            Bytes::from(vec![0; MAX_ENTRY - 8]),
        );
        contents.build(shape, [large]).await.unwrap();
        for digest in after {
            assert!(store.chunk(digest).await.unwrap().unwrap().len() <= MAX_VALUE);
        }
        let unordered = contents
            .build(
                shape,
                [("b", ""), ("a", "")].map(|(k, v)| (k.into(), v.into())),
            )
            .await;
        assert!(matches!(unordered, Err(ContentError::Order(key)) if key == "a"));
    });
}

#[test]
fn one_change_of_many_writes_few_bytes() {
    let (_folder, store, contents) = store();
    runtime().block_on(async {
        let shape = super::entries::SHAPE;
        let entry = |n: u32| {
            (
                Bytes::from(n.wrapping_mul(0x9e37_79b1).to_be_bytes().to_vec()),
                Bytes::new(),
            )
        };
        let map: Map = (0..300_000).map(entry).collect();
        let content = contents.build(shape, map).await.unwrap();
        let mut before = HashSet::new();
        contents.reach(&content, &mut before).await.unwrap();
        let changes = BTreeMap::from([(Bytes::from_static(b"\x77new"), Some(Bytes::new()))]);
        let edited = contents.edit(shape, &content, changes).await.unwrap();
        let mut after = HashSet::new();
        contents.reach(&edited, &mut after).await.unwrap();
        assert_eq!(edited.count, content.count + 1);
        let new: Vec<&Digest> = after.difference(&before).collect();
        assert!(new.len() <= 4, "{}", new.len());
        let mut bytes = 0;
        for digest in new {
            bytes += store.chunk(*digest).await.unwrap().unwrap().len();
        }
        assert!(bytes < 4 * shape.max, "{bytes}");
    });
}

#[test]
fn a_missing_or_foreign_chunk_is_damage_not_an_empty_content() {
    let (_folder, store, contents) = store();
    runtime().block_on(async {
        let lost = Content {
            root: Digest::of(b"lost"),
            count: 0,
            bytes: 0,
        };
        let other = store
            .put_chunks(vec!["something else".into()])
            .await
            .unwrap()[0];
        let other = Content {
            root: other,
            ..lost
        };
        let mut less = contents
            .build(SHAPE, [(number(1), number(1))])
            .await
            .unwrap();
        less.count = 2;
        for content in [lost, other, less] {
            let read = contents.all(&content).await;
            assert!(
                matches!(read, Err(ContentError::Store(StoreError::Damaged(_)))),
                "{read:?}"
            );
        }
    });
}

#[test]
fn records_name_their_contents() {
    let content = |n: u8| Content {
        root: Digest([n; 32]),
        count: n.into(),
        bytes: 7,
    };
    let record = serde_json::json!({
        "rules": content(1),
        "sets": [{ "entries": content(2) }],
        // What people write is text, and is no name.
        "labels": { "$content": content(3).root.to_string(), "count": "1", "bytes": "1" },
        "comment": serde_json::to_string(&content(4)).unwrap(),
    });
    let bytes = serde_json::to_vec(&record).unwrap();
    let mut found = named_in(&bytes);
    found.sort_by_key(|content| content.count);
    assert_eq!(found, [content(1), content(2)]);
    assert_eq!(named_in(b"not JSON \"$content\""), []);
    let text = serde_json::to_string(&content(5)).unwrap();
    assert_eq!(serde_json::from_str::<Content>(&text).unwrap(), content(5));
}

#[test]
fn rules_and_entries_come_back_as_they_were() {
    use super::{entries, rules};
    use xdpgate::policy::{Prefix, Rule};
    let rule = Rule::from_yaml(
        "{ id: web, match: { dport: [80, 443] }, action: pass, comment: '\u{e4}' }",
    )
    .unwrap();
    let (key, value) = rules::entry(&rule);
    assert_eq!(key, "web");
    assert_eq!(rules::rule(&value).unwrap(), rule);
    let times = [
        "2030-01-01T00:00:00Z",
        "2030-01-01T00:00:00.25Z",
        "1960-01-01T00:00:00.5Z",
    ];
    let times = times.map(|time| Some(time.parse().unwrap()));
    for text in ["0.0.0.0/0", "192.0.2.7/32", "::/0", "2001:db8::/33"] {
        let prefix: Prefix = text.parse().unwrap();
        for time in times.into_iter().chain([None]) {
            let (key, value) = entries::entry(prefix, time);
            assert_eq!(entries::prefix(&key), Some(prefix));
            assert_eq!(entries::expires(&value), Some(time));
        }
    }
    for key in [
        &b""[..],
        b"\x04",
        b"\x04\x01\x02\x03\x04\x21",
        b"\x04\x01\x02\x03\x04\x08",
        b"\x05\0\0\0\0\0",
    ] {
        assert_eq!(entries::prefix(key), None);
    }
    assert_eq!(entries::expires(b"123"), None);
}
