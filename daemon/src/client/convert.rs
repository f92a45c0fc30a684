//! `xdpgate policy convert`: sets of other programs as a policy.

mod ipset;
mod nft;
mod nft_json;
mod range;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use jiff::{SignedDuration, Timestamp};
use xdpgate::Policy;
use xdpgate::policy::{AddressSet, ListError, Prefix, SetName};

use super::out::print;
use crate::Failure;

/// What is converted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum From {
    /// What `nft list set`, `nft list ruleset` and both with -j print
    Nft,
    /// What `ipset save` prints
    Ipset,
    /// One address or prefix a line
    List,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Sets of addresses become sets, with the times at which entries expire; ranges become the fewest prefixes
that are exactly the range. What cannot be converted (rules, maps, sets of ports, exceptions, ...) is named
on stderr with its line and the reason, and nothing is printed then, unless --skip-unknown is given.
The rules that use the sets are yours to write: add them to the policy.

Examples:
  nft -j list ruleset | xdpgate policy convert --from nft - --skip-unknown > policy.yaml
  nft list set inet fw bad | xdpgate policy convert --from nft -
  ipset save | xdpgate policy convert --from ipset - --set bad-hosts
  xdpgate policy convert --from list drop.txt --set feed")]
pub(super) struct Convert {
    /// What wrote the file
    #[arg(long, value_enum)]
    pub from: From,
    /// The file, or - for stdin
    pub file: PathBuf,
    /// Of a dump: only this set. Of a list: what the set is called [default: list]
    #[arg(long, value_name = "NAME")]
    pub set: Option<String>,
    /// Go on without what cannot be converted; it is counted
    #[arg(long)]
    pub skip_unknown: bool,
}

/// What was found, and what could not be converted.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The sets, by the table they are in if that has a name, and their own.
    sets: BTreeMap<String, Vec<Entry>>,
    /// Where it is and why, a line each.
    unknown: Vec<String>,
}

/// An entry and when it expires.
type Entry = (Prefix, Option<Timestamp>);

impl Found {
    fn unknown(&mut self, place: impl std::fmt::Display, reason: impl std::fmt::Display) {
        self.unknown.push(format!("{place}: {reason}"));
    }

    /// Begins a set; says so if there is one of the name already, or the name is none for us.
    fn begin(&mut self, place: impl std::fmt::Display, name: &str) -> bool {
        if SetName::new(name).is_none() {
            let form = "a set is named by 1 to 64 of a-z, A-Z, 0-9, `.`, `_`, `-`";
            self.unknown(place, format!("set {name:?}: {form}"));
            return false;
        }
        if self.sets.contains_key(name) {
            let reason = "there is another set of this name; convert their tables one by one";
            self.unknown(place, format!("set {name}: {reason}"));
            return false;
        }
        self.sets.insert(name.to_owned(), Vec::new());
        true
    }

    fn add(
        &mut self,
        set: &str,
        prefixes: impl IntoIterator<Item = Prefix>,
        at: Option<Timestamp>,
    ) {
        let entries = prefixes.into_iter().map(|prefix| (prefix, at));
        self.sets.entry(set.to_owned()).or_default().extend(entries);
    }
}

pub(super) fn run(args: &Convert) -> Result<(), Failure> {
    let (name, text) = read(args)?;
    let now = Timestamp::now();
    let wanted = |set: &str| args.set.as_deref().is_none_or(|only| only == set);
    let mut found = match args.from {
        From::List => list(args, &name, &text)?,
        From::Ipset => ipset::parse(&text, now, &wanted),
        From::Nft if text.trim_start().starts_with('{') => {
            nft_json::parse(&text, now, &wanted).map_err(|e| Failure::input(&name, e))?
        }
        From::Nft => nft::parse(&text, now, &wanted),
    };
    let empty: Vec<String> = found
        .sets
        .iter()
        .filter(|(_, entries)| entries.is_empty())
        .map(|(name, _)| name.clone())
        .collect();
    for set in empty {
        found.sets.remove(&set);
        found.unknown(
            format!("set {set}"),
            "it has no entries, and a policy has no empty sets",
        );
    }
    if found.sets.is_empty() && found.unknown.is_empty() {
        let what = match &args.set {
            Some(set) => format!("there is no set {set:?} in it"),
            None => "there is no set in it".to_owned(),
        };
        return Err(Failure::input(name, what));
    }
    if !found.unknown.is_empty() {
        let faults: Vec<String> = found
            .unknown
            .iter()
            .map(|u| format!("{name}: {u}"))
            .collect();
        if !args.skip_unknown {
            return Err(Failure::Faults(faults));
        }
        for fault in &faults {
            eprintln!("skipped: {fault}");
        }
        eprintln!("skipped: {} in all", faults.len());
    }
    print(&policy(found)?.to_yaml())
}

fn read(args: &Convert) -> Result<(String, String), Failure> {
    let mut bytes = Vec::new();
    let (name, read) = match args.file.to_str() {
        Some("-") => (
            "stdin".to_owned(),
            io::stdin().lock().read_to_end(&mut bytes),
        ),
        _ => (
            args.file.display().to_string(),
            fs::File::open(&args.file).and_then(|mut file| file.read_to_end(&mut bytes)),
        ),
    };
    read.map_err(|e| Failure::input(&name, e))?;
    Ok((name, String::from_utf8_lossy(&bytes).into_owned()))
}

/// A list: each line that is none is named.
fn list(args: &Convert, file: &str, text: &str) -> Result<Found, Failure> {
    let mut found = Found::default();
    let set = args.set.as_deref().unwrap_or("list");
    if !found.begin("--set", set) {
        return Err(Failure::Input(found.unknown.remove(0)));
    }
    // The library stops at the first fault, so line by line only if there is one.
    match AddressSet::from_list(text) {
        Ok(all) => found.add(set, all.iter(), None),
        Err(ListError::Entry { .. }) => {
            for (number, line) in (1..).zip(text.lines()) {
                match AddressSet::from_list(line) {
                    Ok(all) => found.add(set, all.iter(), None),
                    Err(ListError::Entry { source, .. }) => {
                        found.unknown(format!("line {number}"), source);
                    }
                    Err(other) => return Err(Failure::input(file, other)),
                }
            }
        }
        Err(other) => return Err(Failure::input(file, other)),
    }
    Ok(found)
}

fn policy(found: Found) -> Result<Policy, Failure> {
    let mut builder = Policy::builder();
    for (name, entries) in found.sets {
        let name = SetName::new(&name).ok_or_else(|| Failure::operation("a set without a name"))?;
        builder = builder.set(name, AddressSet::from_entries(entries));
    }
    builder.build().map_err(Failure::operation)
}

/// When what has this much left ends.
fn ends(now: Timestamp, left: SignedDuration) -> Result<Timestamp, String> {
    now.checked_add(left)
        .map_err(|_| "the time at which it expires is out of range".to_owned())
}
