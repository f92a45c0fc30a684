//! `xdpgate policy convert`: what nft 1.0.6 and ipset 7.17 printed.

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use common::{Ended, Scratch, xdpgate};
use jiff::Timestamp;
use proptest::prelude::*;
use xdpgate::Policy;
use xdpgate::policy::{AddressSet, Prefix};

const NFT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/convert/nft.txt");
const NFT_JSON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/convert/nft.json");
const NFT_SET: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/convert/nft-set.txt");
const IPSET: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/convert/ipset.save");

/// What a set holds: each entry and in how many seconds it expires, in tens.
type Entries = Vec<(String, Option<i64>)>;

fn sets(policy: &str) -> BTreeMap<String, Entries> {
    let policy = Policy::from_yaml(policy).expect("a policy");
    let now = Timestamp::now();
    let left = |at: Timestamp| {
        let seconds = at.duration_since(now).as_secs_f64();
        (seconds / 10.0).round() as i64 * 10
    };
    let entries = |set: &AddressSet| {
        let entries = set.entries();
        entries
            .map(|(prefix, at)| (prefix.to_string(), at.map(left)))
            .collect()
    };
    let sets = policy.sets().iter();
    sets.map(|(name, set)| (name.to_string(), entries(set)))
        .collect()
}

fn convert(from: &str, file: &str, more: &[&str]) -> Ended {
    let arguments = ["policy", "convert", "--from", from, file];
    xdpgate([&arguments, more].concat())
}

#[track_caller]
fn has(entries: &Entries, expected: &[(&str, Option<i64>)]) {
    let mut entries = entries.clone();
    entries.sort();
    let mut expected: Entries = expected
        .iter()
        .map(|(p, at)| ((*p).to_owned(), *at))
        .collect();
    expected.sort();
    assert_eq!(entries, expected);
}

const BAD: &[(&str, Option<i64>)] = &[
    ("10.0.0.0/8", None),
    ("192.0.2.1", Some(3600)),
    ("198.51.100.7", None),
    // 203.0.113.1-203.0.113.9
    ("203.0.113.1", Some(93_600)),
    ("203.0.113.2/31", Some(93_600)),
    ("203.0.113.4/30", Some(93_600)),
    ("203.0.113.8/31", Some(93_600)),
];

#[track_caller]
fn as_nft_has_them(sets: &BTreeMap<String, Entries>) {
    assert_eq!(sets.keys().collect::<Vec<_>>(), ["bad", "bad6", "hosts"]);
    has(&sets["bad"], BAD);
    has(
        &sets["bad6"],
        &[
            ("::1", None),
            ("2001:db8::/32", None),
            ("2001:db9::1", None),
            ("2001:db9::2/127", None),
            ("2001:db9::4/127", None),
            ("2001:db9::6", None),
        ],
    );
    has(&sets["hosts"], &[("192.0.2.9", Some(3600))]);
}

/// The text and the JSON of one rule set come to the same; what is none is named, each with its place.
#[test]
fn nft_rule_sets() {
    for (file, unknown) in [
        (
            NFT,
            &[
                "line 25: set pairs is of type ipv4_addr . inet_service",
                "line 34: map m: only sets",
                "line 39: chain input: only sets",
                "set empty: it has no entries",
            ][..],
        ),
        (
            NFT_JSON,
            &[
                "nftables[5]: set pairs is of type",
                "nftables[7]: map m: only sets",
                "nftables[8]: chain input: only sets",
                "nftables[9]: a rule of chain input: only sets",
                "set empty: it has no entries",
            ],
        ),
    ] {
        let ended = convert("nft", file, &[]);
        assert_eq!(
            (ended.code, ended.stdout.as_str()),
            (Some(2), ""),
            "{ended}"
        );
        assert_eq!(ended.stderr.lines().count(), unknown.len(), "{ended}");
        for (line, words) in ended.stderr.lines().zip(unknown) {
            assert!(
                line.starts_with("error: ") && line.contains(words),
                "{line}: {words}"
            );
        }

        let ended = convert("nft", file, &["--skip-unknown"]);
        let counted = format!("skipped: {} in all\n", unknown.len());
        assert!(ended.stderr.ends_with(&counted), "{ended}");
        as_nft_has_them(&sets(&ended.ok()));
    }
}

#[test]
fn one_nft_set() {
    let ended = convert("nft", NFT_SET, &[]);
    assert_eq!(ended.stderr, "");
    has(&sets(&ended.ok())["bad"], BAD);
    // Nothing is said about the others then.
    for file in [NFT, NFT_JSON] {
        let ended = convert("nft", file, &["--set", "bad6"]);
        assert_eq!(ended.stderr, "");
        assert_eq!(sets(&ended.ok()).keys().collect::<Vec<_>>(), ["bad6"]);
    }
    convert("nft", NFT, &["--set", "none"]).refused(2, &["no set \"none\""]);
}

#[test]
fn ipset_save() {
    let ended = convert("ipset", IPSET, &[]);
    assert_eq!(
        (ended.code, ended.stdout.as_str()),
        (Some(2), ""),
        "{ended}"
    );
    let lines: Vec<&str> = ended.stderr.lines().collect();
    assert_eq!(lines.len(), 3, "{ended}");
    for (line, words) in lines.iter().zip([
        "line 11: set pairs",
        "line 15: 10.1.0.0/16",
        "line 20: set lists",
    ]) {
        assert!(line.contains(words), "{line}");
    }

    let sets = sets(&convert("ipset", IPSET, &["--skip-unknown"]).ok());
    // `holes` would hold more than it did without its exception.
    assert_eq!(
        sets.keys().collect::<Vec<_>>(),
        ["bad", "map", "masked", "net", "net6"]
    );
    let bad = [
        ("192.0.2.1", Some(3600)),
        ("192.0.2.7", Some(60)),
        ("198.51.100.9", None),
    ];
    has(&sets["bad"], &bad);
    has(
        &sets["net"],
        &[("10.0.0.0/8", None), ("203.0.113.0/24", None)],
    );
    has(
        &sets["net6"],
        &[("2001:db8::/32", Some(120)), ("2001:db9::1", None)],
    );
    has(&sets["masked"], &[("192.0.2.0/24", None)]);
    has(&sets["map"], &[("192.0.2.5", None)]);
}

#[test]
fn lists() {
    let scratch = Scratch::new();
    let file = scratch.file(
        "list.txt",
        "# feed\n203.0.113.7 ; bad\nexample.org\n10.0.0.1/8\n",
    );
    let ended = convert("list", &file, &[]);
    assert_eq!(ended.code, Some(2), "{ended}");
    let lines: Vec<&str> = ended.stderr.lines().collect();
    assert!(
        lines[0].contains("line 3: ") && lines[1].contains("line 4: "),
        "{ended}"
    );
    let ended = convert("list", &file, &["--skip-unknown", "--set", "feed"]);
    has(&sets(&ended.ok())["feed"], &[("203.0.113.7", None)]);
    convert("list", &file, &["--set", "a b"]).refused(2, &["a set is named by"]);
    convert("nft", &file, &[]).refused_each(&["line 2", "line 3", "line 4"]);
}

/// What is wrong is named and does not end in a policy that lacks it.
#[test]
fn faults_are_named() {
    let scratch = Scratch::new();
    let cases = [
        (
            "ipset",
            "add none 192.0.2.1\n",
            "line 1: set none was not created before",
        ),
        (
            "ipset",
            "create a hash:ip\nadd a 192.0.2.999\n",
            "line 2: 192.0.2.999",
        ),
        (
            "ipset",
            "create a hash:ip\nadd a 192.0.2.1 timeout soon\n",
            "timeout \"soon\"",
        ),
        (
            "ipset",
            "create a hash:ip\nflush a\n",
            "\"flush\" is no line",
        ),
        ("nft", "{\"nftables\": 7}", "nftables"),
        ("nft", "{", "not JSON"),
        (
            "nft",
            "table ip t {\n\tset a {\n\t\ttype ipv4_addr\n\t\telements = { 192.0.2.9-192.0.2.1 }\n\t}\n}\n",
            "line 4: 192.0.2.9-192.0.2.1",
        ),
    ];
    for (from, text, words) in cases {
        let file = scratch.file("dump", text);
        let ended = convert(from, &file, &[]);
        assert_eq!(
            (ended.code, ended.stdout.as_str()),
            (Some(2), ""),
            "{ended}"
        );
        assert!(ended.stderr.contains(words), "{words:?} in {ended}");
    }
}

trait RefusedEach {
    fn refused_each(self, words: &[&str]);
}

impl RefusedEach for Ended {
    #[track_caller]
    fn refused_each(self, words: &[&str]) {
        assert_eq!((self.code, self.stdout.as_str()), (Some(2), ""), "{self}");
        for (line, word) in self.stderr.lines().zip(words) {
            assert!(line.contains(word), "{word:?} in {self}");
        }
        assert_eq!(self.stderr.lines().count(), words.len(), "{self}");
    }
}

fn entries() -> impl Strategy<Value = Vec<(Prefix, Option<u32>)>> {
    let v4 = (any::<u32>(), 1u8..=32).prop_map(|(bits, len)| {
        let bits = bits & (u32::MAX << (32 - len));
        Prefix::new(std::net::Ipv4Addr::from(bits).into(), len).expect("a prefix")
    });
    proptest::collection::vec((v4, proptest::option::of(100u32..1_000_000)), 1..20)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// What is written as a dump of each program comes back, entry by entry.
    #[test]
    fn dumps_come_back(entries in entries()) {
        let scratch = Scratch::new();
        let mut unique = BTreeMap::new();
        for (prefix, seconds) in entries {
            unique.insert(prefix, seconds);
        }
        let ipset: String = unique
            .iter()
            .map(|(p, s)| format!("add s {p} timeout {}\n", s.unwrap_or(0)))
            .collect();
        let element = |(p, s): (&Prefix, &Option<u32>)| match s {
            None => p.to_string(),
            Some(s) => format!("{p} timeout {s}s expires {}", left(*s)),
        };
        let elements: Vec<String> = unique.iter().map(element).collect();
        let nft = format!(
            "table ip t {{\n\tset s {{\n\t\ttype ipv4_addr\n\t\tflags interval,timeout\n\t\telements = {{ {} }}\n\t}}\n}}\n",
            elements.join(",\n\t\t\t     ")
        );
        for (from, text) in [("ipset", format!("create s hash:net timeout 0\n{ipset}")), ("nft", nft)] {
            let file = scratch.file("dump", text);
            let policy = Policy::from_yaml(&convert(from, &file, &[]).ok()).expect("a policy");
            let now = Timestamp::now();
            let set = policy.sets().values().next().expect("a set");
            let found: BTreeMap<Prefix, Option<Timestamp>> = set.entries().collect();
            prop_assert_eq!(found.keys().collect::<Vec<_>>(), unique.keys().collect::<Vec<_>>());
            for (prefix, seconds) in &unique {
                let at = found[prefix].map(|at| at.duration_since(now).as_secs_f64());
                match (at, seconds) {
                    (None, None) => {}
                    (Some(left), Some(s)) => prop_assert!((left - f64::from(*s)).abs() < 10.0),
                    other => prop_assert!(false, "{}: {:?}", prefix, other),
                }
            }
        }
    }
}

/// As nft writes it: 1d2h3m4s.
fn left(seconds: u32) -> String {
    let duration = Duration::from_secs(seconds.into()).as_secs();
    let parts = [
        (duration / 86_400, "d"),
        (duration / 3600 % 24, "h"),
        (duration / 60 % 60, "m"),
        (duration % 60, "s"),
    ];
    parts
        .iter()
        .filter(|(n, _)| *n > 0)
        .map(|(n, unit)| format!("{n}{unit}"))
        .collect()
}
