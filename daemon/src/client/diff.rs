//! `xdpgate policy diff`: two policies, rule by rule and entry by entry.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};
use similar::{ChangeTag, TextDiff};
use tonic::Code;
use xdpgate::Policy;
use xdpgate::policy::{AddressSet, Prefix, SetName};
use xdpgate_api::v1::GetPolicyRequest;

use super::args::Remote;
use super::out::{BAD, GOOD, HEAD, print, print_json, styled};
use super::{policy, remote};
use crate::Failure;

#[derive(Debug, Args)]
#[command(after_help = "\
Policies are compared by what they say, not by how it is written: in canonical form, rules by id, sets
entry by entry. The exit code is 0 if they are equal, 1 if they differ, as that of diff.

Examples:
  xdpgate policy diff old.yaml new.yaml
  xdpgate policy diff policy.yaml              what is in force, against the file
  xdpgate policy diff policy.yaml --json | jq '.sets[].added | length'")]
pub(super) struct Diff {
    /// A policy file
    pub a: PathBuf,
    /// Another one; without it A is what is wanted, and compared with what is in force
    pub b: Option<PathBuf>,
    #[command(flatten)]
    pub remote: Remote,
}

pub(super) fn run(args: &Diff) -> Result<(), Failure> {
    let (old_name, old, new_name, new) = match &args.b {
        Some(b) => (
            args.a.display().to_string(),
            policy::read(&args.a)?,
            b.display().to_string(),
            policy::read(b)?,
        ),
        None => {
            let (name, old) = in_force(&args.remote)?;
            let new = policy::read(&args.a)?;
            (name, old, args.a.display().to_string(), new)
        }
    };
    let differences = Differences::between(&old, &new);
    match args.remote.json {
        true => print_json(&differences.json())?,
        false if differences.is_empty() => {}
        false => {
            let head = format!("--- {old_name}\n+++ {new_name}\n");
            print(&(styled(HEAD, head) + &differences.text()))?;
        }
    }
    match differences.is_empty() {
        true => Ok(()),
        false => Err(Failure::Differs),
    }
}

/// The policy in force and what it is called; where there is none everything passes, as in an empty
/// one.
fn in_force(server: &Remote) -> Result<(String, Policy), Failure> {
    let got = remote::session(server, async |mut client| {
        match client.get_policy(GetPolicyRequest {}).await {
            Ok(policy) => Ok(Some(policy.into_inner())),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(remote::refused(server, &status)),
        }
    })?;
    let Some(got) = got else {
        return Ok(("none in force".to_owned(), Policy::default()));
    };
    let policy = Policy::from_yaml(&got.yaml)
        .map_err(|e| Failure::operation(format!("the policy in force: {e}")))?;
    Ok((format!("in force, generation {}", got.generation), policy))
}

/// An entry of a set and when it expires.
type Entry = (Prefix, Option<Timestamp>);

/// What differs between two policies.
struct Differences {
    /// Beside rules and sets: the lines of both.
    head: Option<(String, String)>,
    /// Rules that differ, with the lines of both; empty where there is no such rule.
    rules: Vec<(String, String, String)>,
    sets: Vec<SetDifference>,
}

struct SetDifference {
    name: String,
    old: Option<String>,
    new: Option<String>,
    removed: Vec<Entry>,
    added: Vec<Entry>,
}

impl Differences {
    fn between(old: &Policy, new: &Policy) -> Self {
        let (old_head, old_rules) = split(old);
        let (new_head, new_rules) = split(new);
        let ids = || {
            let gone = old_rules
                .iter()
                .filter(|(id, _)| !new_rules.iter().any(|(other, _)| other == id));
            new_rules.iter().chain(gone).map(|(id, _)| id)
        };
        let by_id = |rules: &[(String, String)]| -> BTreeMap<String, String> {
            rules.iter().cloned().collect()
        };
        let (old_by_id, new_by_id) = (by_id(&old_rules), by_id(&new_rules));
        let text = |rules: &BTreeMap<String, String>, id: &String| {
            rules.get(id).cloned().unwrap_or_default()
        };
        Self {
            head: (old_head != new_head).then_some((old_head, new_head)),
            rules: ids()
                .map(|id| (id.clone(), text(&old_by_id, id), text(&new_by_id, id)))
                .filter(|(_, old, new)| old != new)
                .collect(),
            sets: set_names(old, new)
                .into_iter()
                .filter_map(|name| {
                    SetDifference::between(name, old.sets().get(name), new.sets().get(name))
                })
                .collect(),
        }
    }

    fn is_empty(&self) -> bool {
        self.head.is_none() && self.rules.is_empty() && self.sets.is_empty()
    }

    fn text(&self) -> String {
        let mut out = String::new();
        if let Some((old, new)) = &self.head {
            out += &hunk("policy", old, new);
        }
        for (id, old, new) in &self.rules {
            let what = match (old.is_empty(), new.is_empty()) {
                (true, _) => "rule added",
                (_, true) => "rule removed",
                _ => "rule",
            };
            out += &hunk(&format!("{what} {id}"), old, new);
        }
        for set in &self.sets {
            let (removed, added) = (set.removed.len(), set.added.len());
            out += &section(&format!(
                "set {}: {removed} removed, {added} added",
                set.name
            ));
            out += &lines(
                set.old.as_deref().unwrap_or_default(),
                set.new.as_deref().unwrap_or_default(),
            );
            for (sign, style, entries) in [('-', BAD, &set.removed), ('+', GOOD, &set.added)] {
                for entry in entries {
                    out += &styled(style, format!("{sign}{}", entry_text(entry)));
                    out.push('\n');
                }
            }
        }
        out
    }

    fn json(&self) -> Value {
        let text = |text: &String| match text.is_empty() {
            true => Value::Null,
            false => Value::String(text.clone()),
        };
        let entries = |all: &[Entry]| -> Vec<Value> {
            let entry = |(prefix, expires): &Entry| {
                let expires = expires.map(|at| at.to_string());
                json!({ "prefix": prefix.to_string(), "expires": expires })
            };
            all.iter().map(entry).collect()
        };
        json!({
            "equal": self.is_empty(),
            "policy": self.head.as_ref().map(|(old, new)| json!({ "old": old, "new": new })),
            "rules": self.rules.iter().map(|(id, old, new)| json!({
                "id": id, "old": text(old), "new": text(new),
            })).collect::<Vec<_>>(),
            "sets": self.sets.iter().map(|set| json!({
                "name": set.name,
                "old": set.old,
                "new": set.new,
                "removed": entries(&set.removed),
                "added": entries(&set.added),
            })).collect::<Vec<_>>(),
        })
    }
}

fn set_names<'p>(old: &'p Policy, new: &'p Policy) -> Vec<&'p SetName> {
    let mut names: Vec<&SetName> = old.sets().keys().chain(new.sets().keys()).collect();
    names.sort();
    names.dedup();
    names
}

impl SetDifference {
    fn between(name: &SetName, old: Option<&AddressSet>, new: Option<&AddressSet>) -> Option<Self> {
        if old == new {
            return None;
        }
        let entries = |set: Option<&AddressSet>| -> BTreeMap<Prefix, Option<Timestamp>> {
            set.iter().flat_map(|set| set.entries()).collect()
        };
        let about = |set: Option<&AddressSet>| {
            set.map(|set| format!("counters: {:?}\n", set.counters()).to_lowercase())
        };
        let (before, after) = (entries(old), entries(new));
        let missing = |all: &BTreeMap<Prefix, Option<Timestamp>>,
                       other: &BTreeMap<Prefix, Option<Timestamp>>| {
            let differs =
                |(prefix, at): &(&Prefix, &Option<Timestamp>)| other.get(prefix) != Some(at);
            all.iter()
                .filter(differs)
                .map(|(p, at)| (*p, *at))
                .collect()
        };
        Some(Self {
            name: name.to_string(),
            old: about(old),
            new: about(new),
            removed: missing(&before, &after),
            added: missing(&after, &before),
        })
    }
}

fn entry_text((prefix, expires): &Entry) -> String {
    match expires {
        None => prefix.to_string(),
        Some(at) => format!("{prefix} until {at}"),
    }
}

/// The canonical text of a policy without its sets: what is before the rules, and each rule.
fn split(policy: &Policy) -> (String, Vec<(String, String)>) {
    let mut head = String::new();
    let mut rules: Vec<(String, String)> = Vec::new();
    let mut place = Place::Head;
    for line in policy.to_yaml().lines() {
        place = match (line, place) {
            ("sets:", _) => Place::Sets,
            ("rules:", _) => Place::Rules,
            (line, Place::Sets) if !line.starts_with(' ') => Place::Head,
            (_, place) => place,
        };
        match place {
            Place::Sets => {}
            Place::Rules => match line.strip_prefix("  - id: ") {
                Some(id) => rules.push((
                    id.to_owned(),
                    format!("{}\n", line.trim_start_matches("  - ")),
                )),
                None => {
                    if let Some((_, text)) = rules.last_mut() {
                        *text += &format!("{}\n", line.strip_prefix("    ").unwrap_or(line));
                    }
                }
            },
            Place::Head => head += &format!("{line}\n"),
        }
    }
    (head, rules)
}

/// Where in the canonical text a line is.
#[derive(Clone, Copy)]
enum Place {
    Head,
    Sets,
    Rules,
}

fn section(title: &str) -> String {
    styled(HEAD, format!("@@ {title} @@")) + "\n"
}

fn hunk(title: &str, old: &str, new: &str) -> String {
    section(title) + &lines(old, new)
}

fn lines(old: &str, new: &str) -> String {
    let mut out = String::new();
    for change in TextDiff::from_lines(old, new).iter_all_changes() {
        let line = change.value().trim_end();
        out += &match change.tag() {
            ChangeTag::Delete => styled(BAD, format!("-{line}")),
            ChangeTag::Insert => styled(GOOD, format!("+{line}")),
            ChangeTag::Equal => format!(" {line}"),
        };
        out.push('\n');
    }
    out
}
