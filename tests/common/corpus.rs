//! The frame corpus: one frame, one policy, and what must come of it.
//!
//! The cases are data, in `tests/corpus/*.toml`: the oracle and the XDP program answer to the same
//! ones. `tests/corpus/README.md` says how they are written.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use xdpgate::policy::{Action, AddressSet, Mode, Policy, Rule};
use xdpgate::{Evaluation, Reason, Verdict};

/// One case.
#[derive(Debug, Clone)]
pub struct Case {
    /// The file it stands in, without the extension.
    pub file: String,
    /// Its name, unique in the corpus.
    pub name: String,
    /// What it shows, where the name does not say it.
    pub about: Option<String>,
    /// Which recipe of `tests/corpus_frames.rs` made the frame.
    pub recipe: String,
    /// What the policy uses beyond addresses, protocol, ports, `pass` and `drop`; see [`needs`].
    pub needs: Vec<String>,
    /// The frame.
    pub frame: Vec<u8>,
    /// The policy as YAML.
    pub policy: String,
    /// The interface that the frame comes in on.
    pub interface: Option<String>,
    /// When it comes.
    pub at: Timestamp,
    /// The verdict.
    pub verdict: Verdict,
    /// How it came about.
    pub reason: Reason,
    /// The rule that decided.
    pub rule: Option<String>,
    /// Rules in monitor mode that matched, in order.
    pub monitored: Vec<String>,
    /// The interface counters that move, by how many packets: exactly one, named
    /// `reason/verdict`.
    pub counters: BTreeMap<String, u64>,
    /// The rules whose counters move, by how many packets.
    pub hits: BTreeMap<String, u64>,
}

impl Case {
    /// The policy, parsed.
    pub fn policy(&self) -> Policy {
        Policy::from_yaml(&self.policy).unwrap_or_else(|e| panic!("{}: policy: {e}", self.name))
    }

    /// The policy with the expiries moved by as much as the case lies ahead of now.
    pub fn policy_as_of_now(&self) -> Policy {
        let hour = SignedDuration::from_hours(1);
        let shifted = |at: Timestamp| match at > self.at {
            true => Timestamp::now() + hour,
            false => Timestamp::now() - hour,
        };
        let policy = self.policy();
        let mut builder = Policy::builder()
            .default_verdict(policy.default_verdict())
            .malformed(policy.malformed())
            .failsafe(policy.failsafe().clone());
        for (name, set) in policy.sets() {
            let entries = set.entries().map(|(p, expires)| (p, expires.map(shifted)));
            builder = builder.set(name.clone(), AddressSet::from_entries(entries));
        }
        for rule in policy.rules() {
            let expires = rule.expires.map(shifted);
            builder = builder.rule(Rule {
                expires,
                ..rule.clone()
            });
        }
        builder.build().expect("it was valid before")
    }

    /// Panics with the whole case unless `said` is what the case expects.
    pub fn check(&self, said: &Evaluation) {
        let got = (
            said.verdict,
            said.reason,
            said.rule.as_ref().map(|id| id.as_str()),
            said.monitored
                .iter()
                .map(|id| id.as_str())
                .collect::<Vec<_>>(),
        );
        let want = (
            self.verdict,
            self.reason,
            self.rule.as_deref(),
            self.monitored
                .iter()
                .map(String::as_str)
                .collect::<Vec<_>>(),
        );
        assert_eq!(
            got, want,
            "{}/{}: got, want\n{:#?}",
            self.file, self.name, self
        );
    }
}

/// Compiled in, because the tests also run in virtual machines without this tree.
const TEXTS: &[(&str, &str)] = &[
    ("addresses", include_str!("../corpus/addresses.toml")),
    ("failsafe", include_str!("../corpus/failsafe.toml")),
    ("fields", include_str!("../corpus/fields.toml")),
    ("fragments", include_str!("../corpus/fragments.toml")),
    ("ipv6", include_str!("../corpus/ipv6.toml")),
    ("malformed", include_str!("../corpus/malformed.toml")),
    ("non_ip", include_str!("../corpus/non_ip.toml")),
    ("ports", include_str!("../corpus/ports.toml")),
    ("tags", include_str!("../corpus/tags.toml")),
];

/// All cases, in the order of files and lines.
pub fn load() -> Vec<Case> {
    TEXTS
        .iter()
        .flat_map(|(stem, text)| load_text(stem, text))
        .collect()
}

/// The files of the corpus, by name.
pub fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .expect("tests/corpus")
        .map(|entry| entry.expect("tests/corpus").path())
        .filter(|path| path.extension().is_some_and(|e| e == "toml"))
        .collect();
    files.sort();
    files
}

/// What a policy uses beyond addresses, sets, protocol, ports, `pass` and `drop`: a runner that
/// cannot do all of it yet leaves the case out. `failsafe` is in it only for the cases that say so.
pub fn needs(policy: &Policy) -> Vec<&'static str> {
    let mut out = Vec::new();
    let mut sets = policy.sets().values();
    out.extend(
        sets.any(|set| set.expiring().next().is_some())
            .then_some("entry_expires"),
    );
    for rule in policy.rules().iter().filter(|r| r.enabled) {
        let m = &rule.matches;
        let uses = [
            (
                "negation",
                [&m.src, &m.dst].into_iter().flatten().any(|a| a.negated),
            ),
            ("family", m.family.is_some()),
            ("tcp_flags", m.tcp_flags.is_some()),
            ("icmp", m.icmp.is_some()),
            ("length", m.length.is_some()),
            ("fragment", m.fragment.is_some()),
            ("vlan", m.vlan.is_some()),
            ("ttl", m.ttl.is_some()),
            ("dscp", m.dscp.is_some()),
            ("anomaly", m.anomaly.is_some()),
            ("count", rule.action == Action::Count),
            ("rate_limit", matches!(rule.action, Action::RateLimit(_))),
            ("monitor", rule.mode == Mode::Monitor),
            ("expires", rule.expires.is_some()),
            ("interfaces", !rule.interfaces.is_empty()),
        ];
        out.extend(
            uses.into_iter()
                .filter(|(_, used)| *used)
                .map(|(name, _)| name),
        );
    }
    out.sort_unstable();
    out.dedup();
    out
}

/// A file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// The policies that cases name.
    #[serde(default)]
    policies: BTreeMap<String, String>,
    case: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    about: Option<String>,
    recipe: String,
    #[serde(default)]
    needs: Vec<String>,
    policy: String,
    interface: Option<String>,
    at: Option<String>,
    expect: String,
    rule: Option<String>,
    #[serde(default)]
    monitored: Vec<String>,
    #[serde(default)]
    counted: Vec<String>,
    frame: String,
}

fn load_text(stem: &str, text: &str) -> Vec<Case> {
    let file: File = toml::from_str(text).unwrap_or_else(|e| panic!("{stem}: {e}"));
    file.case
        .into_iter()
        .map(|entry| entry.into_case(stem, &file.policies))
        .collect()
}

impl Entry {
    fn into_case(self, file: &str, policies: &BTreeMap<String, String>) -> Case {
        let Self {
            name,
            expect,
            rule,
            monitored,
            counted,
            ..
        } = self;
        let (reason, verdict) = expect
            .split_once('/')
            .and_then(|(reason, verdict)| Some((parse_reason(reason)?, parse_verdict(verdict)?)))
            .unwrap_or_else(|| panic!("{name}: expect = \"{expect}\""));
        let hits = monitored
            .iter()
            .chain(&counted)
            .chain(&rule)
            .map(|id| (id.clone(), 1));
        Case {
            hits: hits.collect(),
            counters: [(expect, 1)].into(),
            file: file.to_owned(),
            about: self.about,
            recipe: self.recipe,
            needs: self.needs,
            frame: parse_hex(&self.frame).unwrap_or_else(|| panic!("{name}: frame")),
            policy: policies.get(&self.policy).cloned().unwrap_or(self.policy),
            interface: self.interface,
            at: self
                .at
                .map_or(Timestamp::UNIX_EPOCH, |at| at.parse().expect("a timestamp")),
            verdict,
            reason,
            rule,
            monitored,
            name,
        }
    }
}

fn parse_reason(text: &str) -> Option<Reason> {
    Reason::ALL.into_iter().find(|r| r.as_str() == text)
}

fn parse_verdict(text: &str) -> Option<Verdict> {
    [Verdict::Pass, Verdict::Drop]
        .into_iter()
        .find(|v| v.to_string() == text)
}

/// Hex digits with any space between them; `#` starts a comment.
fn parse_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text
        .lines()
        .flat_map(|line| line.split('#').next().unwrap_or_default().bytes())
        .filter(|b| !b.is_ascii_whitespace())
        .collect();
    let (pairs, rest) = digits.as_chunks::<2>();
    rest.is_empty().then_some(())?;
    pairs
        .iter()
        .map(|p| u8::from_str_radix(std::str::from_utf8(p).ok()?, 16).ok())
        .collect()
}
