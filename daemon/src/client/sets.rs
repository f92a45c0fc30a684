//! `xdpgate set`: address sets of the policy in force.

use std::time::Duration;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::json;
use xdpgate::Policy;
use xdpgate::policy::{AddressItem, AddressMatch, EntryCounters, Prefix, Rule, SetName};
use xdpgate_api::v1::{
    AddressSet, Change, GetPolicyRequest, ListSetEntriesRequest, SetEntry, change,
};

use super::args::Remote;
use super::change::{self as changes, Guard};
use super::import;
use super::out::{answer, print, print_json, print_json_line};
use super::remote::Enough;
use super::table::{Align, Table};
use super::{duration, remote};
use crate::Failure;

#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  xdpgate set list
  xdpgate set import feed list.txt
  xdpgate set add bad-hosts 203.0.113.7 --expires 1h")]
pub(super) enum Set {
    /// List the sets: how many entries, and which rules name them
    List(List),
    /// Print the entries of a set
    Show(Show),
    /// Change a set by a list: one address or prefix a line
    Import(import::Import),
    /// Add entries
    Add(Add),
    /// Take out entries
    Remove(Remove),
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  xdpgate set list\n  xdpgate set list --json | jq '.sets[0]'")]
pub(super) struct List {
    #[command(flatten)]
    pub remote: Remote,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  xdpgate set show bad-hosts
  xdpgate set show bad-hosts --covering 203.0.113.7      is it in, and by which entries?")]
pub(super) struct Show {
    /// The set
    pub name: String,
    /// Only entries that cover this address or prefix
    #[arg(long, value_name = "PREFIX")]
    pub covering: Option<Prefix>,
    #[command(flatten)]
    pub remote: Remote,
}

#[derive(Debug, Args)]
#[command(after_help = "\
What the set has already lasts as long as the longer of both.

Examples:
  xdpgate set add bad-hosts 203.0.113.7 198.51.100.0/24
  xdpgate set add bad-hosts 2001:db8::/32 --expires 1h")]
pub(super) struct Add {
    /// The set
    pub name: String,
    /// Addresses and prefixes
    #[arg(required = true, value_name = "PREFIX")]
    pub prefixes: Vec<Prefix>,
    /// In how long they are not in the set any more; without it never
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub expires: Option<Duration>,
    #[command(flatten)]
    pub guard: Guard,
    #[command(flatten)]
    pub remote: Remote,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Only the very prefix is taken out, not what lies within.

Examples:
  xdpgate set remove bad-hosts 203.0.113.7")]
pub(super) struct Remove {
    /// The set
    pub name: String,
    /// Addresses and prefixes
    #[arg(required = true, value_name = "PREFIX")]
    pub prefixes: Vec<Prefix>,
    #[command(flatten)]
    pub guard: Guard,
    #[command(flatten)]
    pub remote: Remote,
}

pub(super) fn run(command: &Set) -> Result<(), Failure> {
    match command {
        Set::List(args) => list(args),
        Set::Show(args) => show(args),
        Set::Import(args) => import::run(args),
        Set::Add(args) => add(args),
        Set::Remove(args) => remove(args),
    }
}

fn list(args: &List) -> Result<(), Failure> {
    let policy = remote::call(&args.remote, async |mut client| {
        client.get_policy(GetPolicyRequest {}).await
    })?;
    let generation = policy.generation;
    let policy = Policy::from_yaml(&policy.yaml)
        .map_err(|e| Failure::operation(format!("the policy in force: {e}")))?;
    let users = |name: &SetName| -> Vec<String> {
        let rules = policy.rules().iter().filter(|rule| names(rule, name));
        rules.map(|rule| rule.id.to_string()).collect()
    };
    if args.remote.json {
        let sets: Vec<_> = policy
            .sets()
            .iter()
            .map(|(name, set)| {
                json!({
                    "name": name.as_str(),
                    "entries": set.len(),
                    "expiring": set.expiring().count(),
                    "count_entries": set.counters() == EntryCounters::Entry,
                    "rules": users(name),
                })
            })
            .collect();
        return print_json(&json!({ "generation": generation, "sets": sets }));
    }
    let mut table = Table::new(&[
        ("SET", Align::Left),
        ("ENTRIES", Align::Right),
        ("EXPIRING", Align::Right),
        ("COUNTERS", Align::Left),
        ("RULES", Align::Left),
    ]);
    for (name, set) in policy.sets() {
        table.row([
            name.to_string(),
            set.len().to_string(),
            set.expiring().count().to_string(),
            match set.counters() {
                EntryCounters::None => "-".to_owned(),
                EntryCounters::Entry => "entry".to_owned(),
            },
            users(name).join(", "),
        ]);
    }
    print(&table.to_string())
}

/// Whether a rule names a set.
fn names(rule: &Rule, set: &SetName) -> bool {
    let in_match = |addresses: &Option<AddressMatch>| {
        let items = addresses.iter().flat_map(|a| &a.items);
        items
            .into_iter()
            .any(|item| matches!(item, AddressItem::Set(name) if name == set))
    };
    in_match(&rule.matches.src) || in_match(&rule.matches.dst)
}

fn show(args: &Show) -> Result<(), Failure> {
    let request = ListSetEntriesRequest {
        set: args.name.clone(),
        covering: args.covering.map(|p| p.to_string()).unwrap_or_default(),
    };
    remote::session(&args.remote, async |mut client| {
        let stream = client.list_set_entries(request).await;
        let stream = stream.map_err(|status| remote::refused(&args.remote, &status))?;
        remote::each(&args.remote, stream.into_inner(), |message| {
            match args.remote.json {
                true => {
                    for entry in &message.entries {
                        print_json_line(&super::json::of(entry)?)?;
                    }
                }
                false => print(&message.entries.iter().map(entry_text).collect::<String>())?,
            }
            Ok(Enough::No)
        })
        .await
    })
}

fn entry_text(entry: &SetEntry) -> String {
    match entry.expires {
        None => format!("{}\n", entry.prefix),
        Some(at) => format!(
            "{}  # until {} ({})\n",
            entry.prefix,
            duration::time_text(Some(at)),
            duration::until(Some(at))
        ),
    }
}

fn add(args: &Add) -> Result<(), Failure> {
    let expires = args
        .expires
        .map(|left| Timestamp::now().checked_add(left))
        .transpose()
        .map_err(|e| Failure::input("--expires", e))?;
    let entries = entries(&args.name, &args.prefixes, expires);
    let change = change::Change::AddEntries(entries);
    changed(&args.remote, &args.guard, &args.name, change)
}

fn remove(args: &Remove) -> Result<(), Failure> {
    let entries = entries(&args.name, &args.prefixes, None);
    let change = change::Change::RemoveEntries(entries);
    changed(&args.remote, &args.guard, &args.name, change)
}

fn entries(name: &str, prefixes: &[Prefix], expires: Option<Timestamp>) -> AddressSet {
    let expires = expires.map(duration::proto_time);
    let entry = |prefix: &Prefix| SetEntry {
        prefix: prefix.to_string(),
        expires,
    };
    AddressSet {
        name: name.to_owned(),
        entries: prefixes.iter().map(entry).collect(),
        count_entries: false,
    }
}

fn changed(
    remote: &Remote,
    guard: &Guard,
    name: &str,
    change: change::Change,
) -> Result<(), Failure> {
    let change = Change {
        change: Some(change),
    };
    let done = changes::make(remote, guard, vec![change])?;
    answer(remote.json, &done, |done| {
        changes::text(&format!("set {name}"), done)
    })
}
