//! A policy from text.
//!
//! `tree` knows YAML, `read` turns nodes into typed values, `matches` and `rule` know the format,
//! and what a policy as a whole must hold to is left to the builder. Errors are made without a
//! place where they arise and get it on their way out.

mod matches;
mod one_rule;
mod parts;
mod read;
mod rule;
mod tree;

use std::path::Path;

use jiff::Timestamp;

use super::address::{Prefix, SetName};
use super::builder::PolicyBuilder;
use super::error::{PolicyError, PolicyErrorKind};
use super::names::{COUNTERS, VERDICTS};
use super::rule::Rule;
use super::set::AddressSet;
use super::validate::{Fault, Place};
use super::{Failsafe, Policy};
pub use parts::PolicyParts;
use read::Result;
use tree::{Entry, Node, Value};

const KEYS: &[&str] = &[
    "version",
    "default",
    "malformed",
    "failsafe",
    "sets",
    "rules",
];

impl Policy {
    /// Parses and validates a policy: YAML, so JSON too.
    ///
    /// Reads no file, so text of others is safe to parse: a set with `file` is refused. Defaults
    /// are those of the format: verdict `pass`, malformed frames `pass`, a rule's priority 10 times
    /// its place in the list, a burst of one second's worth, one budget per rule. `per: source/24`
    /// means a /24 for IPv4 and a /64 for IPv6.
    ///
    /// ```
    /// use xdpgate::Policy;
    ///
    /// let policy = Policy::from_yaml("
    /// version: 1
    /// rules:
    ///   - id: block-bad
    ///     match: { src: [203.0.113.7, 198.51.100.0/24] }
    ///     action: drop
    /// ")?;
    /// assert_eq!(policy.rules()[0].priority, 10);
    /// # Ok::<(), xdpgate::PolicyError>(())
    /// ```
    ///
    /// # Errors
    /// A [`PolicyError`] for the first fault, with its line and column, rule and field: text that
    /// is not YAML, unknown or repeated keys, values of the wrong type or out of range, and all
    /// that [`PolicyBuilder::build`] refuses.
    pub fn from_yaml(text: &str) -> Result<Self> {
        parse(text, None)
    }

    /// [`Policy::from_yaml`], with the `file` of a set taken relative to `base_dir`.
    ///
    /// # Errors
    /// As for [`Policy::from_yaml`], and [`PolicyErrorKind::File`] for a list file that cannot be
    /// read or has a line that is not an address or prefix. See [`AddressSet::from_list`].
    pub fn from_yaml_in(text: &str, base_dir: &Path) -> Result<Self> {
        parse(text, Some(base_dir))
    }

    /// Reads a policy file; the `file` of a set is taken relative to it.
    ///
    /// # Errors
    /// As for [`Policy::from_yaml_in`], and [`PolicyErrorKind::File`] if the file itself cannot be
    /// read or is not UTF-8.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(|e| {
            PolicyError::new(PolicyErrorKind::File, format!("{}: {e}", path.display()))
        })?;
        parse(&text, Some(path.parent().unwrap_or(Path::new(""))))
    }
}

fn parse(text: &str, base_dir: Option<&Path>) -> Result<Policy> {
    let root = tree::parse(text)?;
    let builder = document(&root, base_dir)?;
    builder.check().map_err(|fault| located(&root, fault))
}

fn document(root: &Node<'_>, base_dir: Option<&Path>) -> Result<PolicyBuilder> {
    let fields = root.fields(KEYS)?;
    fields.require("version", "start with `version: 1`", version)?;
    Ok(PolicyBuilder {
        default: fields
            .read("default", |n| n.word(VERDICTS))?
            .unwrap_or_default(),
        malformed: fields
            .read("malformed", |n| n.word(VERDICTS))?
            .unwrap_or_default(),
        failsafe: fields.read("failsafe", failsafe)?.unwrap_or_default(),
        sets: sets(fields.get("sets"), base_dir)?,
        rules: rules(fields.get("rules"))?,
    })
}

fn rules(node: Option<&Node<'_>>) -> Result<Vec<Rule>> {
    match node.map(|node| (node, &node.value)) {
        None => Ok(Vec::new()),
        Some((_, Value::List(items))) => items
            .iter()
            .enumerate()
            .map(|(i, n)| rule::rule(n, i))
            .collect(),
        Some((node, _)) => Err(node.unlike("a list of rules").in_field("rules")),
    }
}

fn version(node: &Node<'_>) -> Result<()> {
    match node.text("the number 1")? {
        "1" => Ok(()),
        other => Err(node
            .error(
                PolicyErrorKind::NotSupported,
                format!("{} is not known", read::quote(other)),
            )
            .mend("this release reads version 1")),
    }
}

fn failsafe(node: &Node<'_>) -> Result<Failsafe> {
    if matches!(&node.value, Value::Scalar(text) if text == "none") {
        return Ok(Failsafe {
            enabled: false,
            ssh_from: Vec::new(),
        });
    }
    let Value::Map(_) = node.value else {
        return Err(node.unlike("`none` or a mapping"));
    };
    let ssh_from = node.fields(&["ssh_from"])?.read("ssh_from", |n| {
        n.list("a list of prefixes")?
            .iter()
            .map(matches::prefix)
            .collect()
    })?;
    Ok(Failsafe {
        enabled: true,
        ssh_from: ssh_from.unwrap_or_default(),
    })
}

fn sets(node: Option<&Node<'_>>, base_dir: Option<&Path>) -> Result<Vec<(SetName, AddressSet)>> {
    let Some(node) = node else {
        return Ok(Vec::new());
    };
    let entries = node.entries().map_err(|e| e.in_field("sets"))?;
    entries
        .iter()
        .map(|entry| {
            let name = set_name(entry)?;
            let set = set(&entry.node, base_dir).map_err(|e| e.about(&name))?;
            Ok((name, set))
        })
        .collect()
}

fn set_name(entry: &Entry<'_>) -> Result<SetName> {
    SetName::new(&entry.key).ok_or_else(|| {
        let reason = format!("{} is not the name of a set", read::quote(&entry.key));
        PolicyError::new(PolicyErrorKind::InvalidValue, reason)
            .mend("names are 1 to 64 of a-z A-Z 0-9 . _ -")
            .at(entry.position)
            .in_field("sets")
    })
}

fn set(node: &Node<'_>, base_dir: Option<&Path>) -> Result<AddressSet> {
    let fields = node.fields(&["entries", "file", "counters"])?;
    let mut set = AddressSet::default();
    if let Some(file) = fields.get("file") {
        set = list_file(file, base_dir).map_err(|e| e.in_field("file"))?;
    }
    fields.read("entries", |entries| {
        for entry in entries.list("a list of addresses and prefixes")? {
            let (prefix, expires) = set_entry(entry)?;
            set.push(prefix, expires);
        }
        Ok(())
    })?;
    set.finish();
    set.counters = fields
        .read("counters", |n| n.word(COUNTERS))?
        .unwrap_or_default();
    Ok(set)
}

/// An address or prefix, alone or with the time at which it expires.
fn set_entry(node: &Node<'_>) -> Result<(Prefix, Option<Timestamp>)> {
    if !node.is_mapping() {
        return Ok((matches::prefix(node)?, None));
    }
    let fields = node.fields(&["entry", "expires"])?;
    let mend = "write {entry: 203.0.113.7, expires: 2030-01-01T00:00:00Z}";
    Ok((
        fields.require("entry", mend, matches::prefix)?,
        fields.read("expires", Node::expires)?,
    ))
}

fn list_file(node: &Node<'_>, base_dir: Option<&Path>) -> Result<AddressSet> {
    let name = node.text("a path")?;
    let Some(base_dir) = base_dir else {
        return Err(node
            .error(
                PolicyErrorKind::NotSupported,
                "this policy was not read from a file",
            )
            .mend("give the addresses as entries"));
    };
    AddressSet::read_list(base_dir.join(name))
        .map_err(|e| node.error(PolicyErrorKind::File, e.to_string()))
}

/// Gives an error of the whole policy the place in the text that it is about.
fn located(root: &Node<'_>, fault: Fault) -> PolicyError {
    let part = match fault.place {
        Place::Policy => Some(root),
        Place::Set(i) => match root.value("sets").map(|n| &n.value) {
            Some(Value::Map(entries)) => entries.get(i).map(|e| &e.node),
            _ => None,
        },
        Place::Rule(i) => match root.value("rules").map(|n| &n.value) {
            Some(Value::List(items)) => items.get(i),
            _ => None,
        },
    };
    let mut node = part.unwrap_or(root);
    for key in fault.error.field().unwrap_or("").split('.') {
        let written_as = matches::written_as(key).and_then(|k| node.value(k));
        match node.value(key).or(written_as) {
            Some(inner) => node = inner,
            None => break,
        }
    }
    if let Some(item) = fault.item.and_then(|item| node.find(&item)) {
        node = item;
    }
    fault.error.at(node.position)
}
