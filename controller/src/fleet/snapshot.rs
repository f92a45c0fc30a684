//! A whole policy in chunks that are named by their content.
//!
//! Where a chunk ends is said by the content itself: by the id of a rule, by the address of an entry. So
//! one rule more moves no other boundary, and two successive snapshots share nearly all chunks: a node
//! that has the chunks of the last one fetches a few. What did not change since the last snapshot is not even
//! encoded again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use prost::Message;
use xdpgate::Policy;
use xdpgate::policy::{AddressSet, EntryCounters, Prefix, Rule};
use xdpgate_api::fleet::v1;
use xxhash_rust::xxh3::xxh3_64;

use super::frame::Frame;
use super::wire;
use crate::store::Digest;

/// Rules in a chunk: on average, and at most.
const RULES: (u64, usize) = (64, 256);
/// No rule is added to a chunk that is as large as this, in bytes.
const RULE_BYTES: usize = 128 << 10;
/// Entries in a chunk that do not expire, and those that do, which are larger.
const ENTRIES: (u64, usize) = (4096, 16384);
const EXPIRING: (u64, usize) = (512, 2048);

/// Some rules or entries, and the answer to who fetches them.
#[derive(Debug)]
pub(super) struct Chunk {
    pub digest: Digest,
    pub size: usize,
    pub frame: Frame,
}

/// A policy in chunks.
#[derive(Debug)]
pub(super) struct Snapshot {
    frame: String,
    /// The rules, and the chunks of each part of them.
    policy: Arc<Policy>,
    rules: Vec<Part>,
    sets: Vec<Set>,
    by_digest: HashMap<Digest, Arc<Chunk>>,
    bytes: usize,
}

/// Rules between two boundaries; several chunks if they are very large.
#[derive(Debug, Clone)]
struct Part {
    from: usize,
    to: usize,
    chunks: Vec<Arc<Chunk>>,
}

#[derive(Debug)]
struct Set {
    name: String,
    count_entries: bool,
    chunks: Vec<Arc<Chunk>>,
}

/// Chunks of snapshots that somebody still has.
#[derive(Debug, Default)]
pub(super) struct Chunks(Mutex<HashMap<Digest, Weak<Chunk>>>);

impl Chunks {
    fn chunk(&self, content: Vec<u8>) -> Arc<Chunk> {
        let digest = Digest::of(&content);
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(chunk) = lock().get(&digest).and_then(Weak::upgrade) {
            return chunk;
        }
        let size = content.len();
        let frame = Frame::new(&v1::FetchResponse {
            digest: digest.0.to_vec(),
            content,
        });
        let chunk = Arc::new(Chunk {
            digest,
            size,
            frame,
        });
        lock().insert(digest, Arc::downgrade(&chunk));
        chunk
    }

    /// Forgets chunks that nobody has any more.
    fn tidy(&self) {
        let mut chunks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        chunks.retain(|_, chunk| chunk.strong_count() > 0);
    }
}

impl Snapshot {
    /// Of a policy; `before` is one whose parts may serve again. Not for async threads.
    pub(super) fn new(policy: &Arc<Policy>, before: Option<&Self>, chunks: &Chunks) -> Self {
        let parts: HashMap<&str, &Part> = before.into_iter().flat_map(Self::parts).collect();
        let rules = policy.rules();
        let same = |from: usize, to: usize| {
            let part = *parts.get(rules[from].id.as_str())?;
            let old = before?.policy.rules().get(part.from..part.to)?;
            (old == &rules[from..to]).then(|| part.chunks.clone())
        };
        let mut of_rules = Vec::new();
        let mut from = 0;
        while from < rules.len() {
            let to = from
                + boundary(&rules[from..], RULES, |rule| {
                    xxh3_64(rule.id.as_str().as_bytes())
                });
            let made = same(from, to).unwrap_or_else(|| of_part(&rules[from..to], chunks));
            of_rules.push(Part {
                from,
                to,
                chunks: made,
            });
            from = to;
        }
        let sets = policy.sets().iter().map(|(name, set)| Set {
            name: name.to_string(),
            count_entries: set.counters() == EntryCounters::Entry,
            chunks: of_set(set, chunks),
        });
        let mut snapshot = Self {
            frame: frame(policy),
            policy: policy.clone(),
            rules: of_rules,
            sets: sets.collect(),
            by_digest: HashMap::new(),
            bytes: 0,
        };
        snapshot.by_digest = snapshot.all().map(|c| (c.digest, c.clone())).collect();
        snapshot.bytes = snapshot.all().map(|chunk| chunk.size).sum();
        chunks.tidy();
        snapshot
    }

    fn parts(&self) -> impl Iterator<Item = (&str, &Part)> {
        let rules = self.policy.rules();
        let first = |part: &Part| rules.get(part.from).map(|rule| rule.id.as_str());
        self.rules
            .iter()
            .filter_map(move |part| Some((first(part)?, part)))
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Chunk>> {
        let rules = self.rules.iter().flat_map(|part| &part.chunks);
        rules.chain(self.sets.iter().flat_map(|set| &set.chunks))
    }

    /// How large all chunks are together.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The chunk of this name, if it is one of this snapshot.
    pub(super) fn chunk(&self, digest: &Digest) -> Option<&Arc<Chunk>> {
        self.by_digest.get(digest)
    }

    /// The names of all chunks.
    #[cfg(test)]
    pub(super) fn digests(&self) -> std::collections::HashSet<Digest> {
        self.by_digest.keys().copied().collect()
    }

    /// What a node is told.
    pub(super) fn message(&self, to: v1::State) -> v1::Snapshot {
        let rules = self.rules.iter().flat_map(|part| &part.chunks);
        let sets = self.sets.iter().map(|set| v1::SetChunks {
            set: set.name.clone(),
            count_entries: set.count_entries,
            chunks: set.chunks.iter().map(pointer).collect(),
        });
        v1::Snapshot {
            to: Some(to),
            frame: self.frame.clone(),
            rules: rules.map(pointer).collect(),
            sets: sets.collect(),
        }
    }

    /// How much memory it takes, chunks that it shares with others as if it had them alone.
    pub(super) fn weight(&self) -> usize {
        let chunks = self.by_digest.values();
        chunks
            .map(|chunk| chunk.frame.weight() + 128)
            .sum::<usize>()
            + self.frame.len()
            + 256
    }
}

fn pointer(chunk: &Arc<Chunk>) -> v1::Chunk {
    v1::Chunk {
        digest: chunk.digest.0.to_vec(),
        // Chunks are below a megabyte.
        size: u32::try_from(chunk.size).unwrap_or(u32::MAX),
    }
}

/// The policy without rules and entries.
fn frame(policy: &Policy) -> String {
    let settings = Policy::builder()
        .default_verdict(policy.default_verdict())
        .malformed(policy.malformed())
        .failsafe(policy.failsafe().clone());
    // What a policy with rules says of these, one without them may say too.
    let settings = settings.build().unwrap_or_default();
    settings.to_yaml()
}

/// How many of these are before the next boundary: the first has none before it.
fn boundary<T>(items: &[T], (mean, most): (u64, usize), hash: impl Fn(&T) -> u64) -> usize {
    let next = items
        .iter()
        .take(most)
        .skip(1)
        .position(|item| hash(item).is_multiple_of(mean));
    next.map_or(items.len().min(most), |place| place + 1)
}

fn of_part(rules: &[Rule], chunks: &Chunks) -> Vec<Arc<Chunk>> {
    let mut out = Vec::new();
    let mut open = v1::Rules::default();
    let mut bytes = 0;
    for rule in rules {
        let json = rule.to_json();
        if bytes > 0 && bytes + json.len() > RULE_BYTES {
            out.push(chunks.chunk(std::mem::take(&mut open).encode_to_vec()));
            bytes = 0;
        }
        bytes += json.len();
        open.rules.push(json);
    }
    out.push(chunks.chunk(open.encode_to_vec()));
    out
}

fn of_set(set: &AddressSet, chunks: &Chunks) -> Vec<Arc<Chunk>> {
    // Of one kind each, so that those of one kind move no boundary of another.
    let kind = |(prefix, expires): &(Prefix, Option<_>)| {
        (expires.is_some(), prefix.family(), prefix.is_host())
    };
    let entries: Vec<_> = set.entries().collect();
    let mut out = Vec::new();
    for alike in entries.chunk_by(|a, b| kind(a) == kind(b)) {
        let sizes = if alike[0].1.is_some() {
            EXPIRING
        } else {
            ENTRIES
        };
        let mut rest = alike;
        while !rest.is_empty() {
            let (part, after) = rest.split_at(boundary(rest, sizes, |(prefix, _)| hash(prefix)));
            let message = wire::pack(part.iter().copied());
            out.push(chunks.chunk(message.encode_to_vec()));
            rest = after;
        }
    }
    out
}

fn hash(prefix: &Prefix) -> u64 {
    let mut bytes = [0; 17];
    match prefix.addr() {
        std::net::IpAddr::V4(address) => bytes[..4].copy_from_slice(&address.octets()),
        std::net::IpAddr::V6(address) => bytes[..16].copy_from_slice(&address.octets()),
    }
    bytes[16] = prefix.len();
    xxh3_64(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use xdpgate::policy::{Atomicity, Change, SetName};

    fn policy(rules: u32, entries: u32) -> Arc<Policy> {
        let mut builder = Policy::builder();
        if entries > 0 {
            let hosts = (0..entries).map(|i| Prefix::host(std::net::Ipv4Addr::from(i * 7).into()));
            builder = builder.set(
                SetName::new("bad").unwrap(),
                AddressSet::from_prefixes(hosts),
            );
        }
        for i in 0..rules {
            let text = format!(
                "{{ id: r-{i}, priority: {}, match: {{ src: 10.0.{}.{} }}, action: drop }}",
                i / 10,
                i / 256 % 256,
                i % 256
            );
            builder = builder.rule(Rule::from_yaml(&text).unwrap());
        }
        Arc::new(builder.build().unwrap())
    }

    fn new_chunks(now: &Snapshot, before: &Snapshot) -> usize {
        now.digests().difference(&before.digests()).count()
    }

    #[test]
    fn two_successive_snapshots_share_nearly_all_chunks() {
        let chunks = Chunks::default();
        let first = policy(3000, 60_000);
        let before = Snapshot::new(&first, None, &chunks);
        assert!(before.digests().len() > 40, "{}", before.digests().len());
        let rule =
            Rule::from_yaml("{ id: new, priority: 120, match: { src: 192.0.2.1 }, action: drop }");
        let entry = ("192.0.2.77".parse().unwrap(), None);
        let more = [
            Change::PutRule(rule.unwrap()),
            Change::AddEntries(SetName::new("bad").unwrap(), vec![entry]),
        ];
        let second = first.change(&more, Atomicity::AllOrNothing).unwrap().policy;
        let second = Arc::new(second);
        let now = Snapshot::new(&second, Some(&before), &chunks);
        let new = new_chunks(&now, &before);
        assert!((2..=4).contains(&new), "{new} of {}", now.digests().len());
        // The way to a policy makes no difference.
        let anew = Snapshot::new(&second, None, &Chunks::default());
        assert_eq!(anew.digests(), now.digests());
        let alike = |s: &Snapshot| s.message(v1::State::default()).encode_to_vec();
        assert_eq!(alike(&anew), alike(&now));
    }

    #[test]
    fn chunks_that_nobody_has_are_forgotten() {
        let chunks = Chunks::default();
        let one = Snapshot::new(&policy(500, 0), None, &chunks);
        drop(one);
        let small = Snapshot::new(&policy(3, 0), None, &chunks);
        assert_eq!(chunks.0.lock().unwrap().len(), small.digests().len());
    }

    #[test]
    fn no_chunk_is_large_whatever_the_content() {
        let chunks = Chunks::default();
        let comment = "x".repeat(3000);
        let mut builder = Policy::builder();
        for i in 0..600 {
            let text = format!("{{ id: r{i}, comment: {comment}, action: count }}");
            builder = builder.rule(Rule::from_yaml(&text).unwrap());
        }
        let snapshot = Snapshot::new(&Arc::new(builder.build().unwrap()), None, &chunks);
        let largest = snapshot.all().map(|chunk| chunk.size).max().unwrap();
        assert!(largest <= RULE_BYTES + 8192, "{largest}");
    }
}
