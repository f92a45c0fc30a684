//! Documents: read and checked, all of them, before anything is asked of a controller.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde_json::{Map, Value};
use xdpgate::policy::Prefix;
use xdpgate_service::Failure;

use crate::client::{input, yaml};
use crate::domain::{Name, PolicyContent, Selector};
use crate::feed::FeedContent;

/// Entries of a set, each with its expiry.
pub(super) type Entries = BTreeMap<Prefix, Option<Timestamp>>;

/// What a document is about; in the order in which they are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Kind {
    Set,
    Policy,
    Group,
    Feed,
}

/// A document.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) name: String,
    pub(super) comment: Option<String>,
    pub(super) body: Body,
}

/// What a thing is made of.
#[derive(Debug)]
pub(super) enum Body {
    Policy {
        content: PolicyContent,
        text: String,
    },
    Set(Set),
    Group(Group),
    Feed(FeedContent),
}

/// A set.
#[derive(Debug)]
pub(super) struct Set {
    pub(super) default_expiry: Option<u64>,
    pub(super) counters: String,
    /// `None`: as they are.
    pub(super) entries: Option<Entries>,
}

/// A group.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) selector: String,
    pub(super) policies: Vec<String>,
    pub(super) rank: u64,
    pub(super) mode: Option<String>,
}

impl Kind {
    /// As in paths of the API and in directories.
    pub(super) fn plural(self) -> &'static str {
        match self {
            Self::Set => "sets",
            Self::Policy => "policies",
            Self::Group => "groups",
            Self::Feed => "feeds",
        }
    }

    /// As people call it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Set => "set",
            Self::Policy => "policy",
            Self::Group => "group",
            Self::Feed => "feed",
        }
    }
}

impl Document {
    pub(super) fn kind(&self) -> Kind {
        match self.body {
            Body::Policy { .. } => Kind::Policy,
            Body::Set(_) => Kind::Set,
            Body::Group(_) => Kind::Group,
            Body::Feed(_) => Kind::Feed,
        }
    }
}

/// All documents of files and directories, in the order in which they are made.
pub(super) fn read(paths: &[PathBuf]) -> Result<Vec<Document>, Failure> {
    let mut files = Vec::new();
    for path in paths {
        match path.is_dir() {
            true => walk(path, &mut files)?,
            false => files.push(path.clone()),
        }
    }
    let mut faults = Vec::new();
    let mut all: Vec<(String, Document)> = Vec::new();
    for file in &files {
        let text = input::read(file)?;
        let documents = match yaml::documents(&text) {
            Ok(documents) => documents,
            Err(error) => {
                faults.push(format!("{}: {error}", file.display()));
                continue;
            }
        };
        for (line, value) in documents {
            let at = format!("{}:{line}", file.display());
            match document(file, value) {
                Err(error) => faults.push(format!("{at}: {error}")),
                Ok(new) => {
                    let same =
                        |(_, d): &&(String, Document)| d.kind() == new.kind() && d.name == new.name;
                    match all.iter().find(same) {
                        Some((before, _)) => {
                            let word = new.kind().word();
                            faults.push(format!(
                                "{at}: {word} {} is in {before} too: keep one",
                                new.name
                            ));
                        }
                        None => all.push((at, new)),
                    }
                }
            }
        }
    }
    if !faults.is_empty() {
        return Err(Failure::Faults(faults));
    }
    let mut all: Vec<Document> = all.into_iter().map(|(_, document)| document).collect();
    all.sort_by(|a, b| (a.kind(), &a.name).cmp(&(b.kind(), &b.name)));
    Ok(all)
}

/// The files of YAML below a directory, but for hidden directories.
fn walk(dir: &Path, files: &mut Vec<PathBuf>) -> Result<(), Failure> {
    let wrong = |e: std::io::Error| Failure::input(dir.display(), e);
    let mut entries = Vec::new();
    for entry in fs::read_dir(dir).map_err(wrong)? {
        entries.push(entry.map_err(wrong)?.path());
    }
    entries.sort();
    for path in entries {
        let hidden = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let is_yaml = path
            .extension()
            .is_some_and(|kind| kind == "yaml" || kind == "yml");
        match path.is_dir() {
            true if !hidden => walk(&path, files)?,
            false if is_yaml => files.push(path),
            _ => {}
        }
    }
    Ok(())
}

fn document(file: &Path, value: Value) -> Result<Document, String> {
    let Value::Object(mut fields) = value else {
        return Err("a document has fields: begin with `kind: Policy` and `name: ...`".to_owned());
    };
    let kind = text(&mut fields, "kind")?.ok_or("it has no kind: Policy, Set, Group or Feed")?;
    let name = text(&mut fields, "name")?.ok_or("it has no name")?;
    let name = Name::new(&name)
        .map_err(|e| format!("name: {e}"))?
        .to_string();
    let comment = text(&mut fields, "comment")?;
    let body = match kind.as_str() {
        "Policy" => policy(fields),
        "Set" => set(file, fields).map(Body::Set),
        "Group" => group(fields).map(Body::Group),
        "Feed" => feed(fields, comment.as_deref()).map(Body::Feed),
        other => Err(format!(
            "kind: there is no {other:?}: it is Policy, Set, Group or Feed"
        )),
    };
    let body = body.map_err(|e| format!("{} {name}: {e}", kind.to_lowercase()))?;
    Ok(Document {
        name,
        comment,
        body,
    })
}

fn policy(mut fields: Map<String, Value>) -> Result<Body, String> {
    fields.entry("version").or_insert(1.into());
    let text = Value::Object(fields).to_string();
    // Not its position: the text is ours.
    let content = PolicyContent::from_yaml(&text).map_err(|error| {
        let rule = error
            .rule()
            .map(|rule| format!("rule {rule}: "))
            .unwrap_or_default();
        let field = error
            .field()
            .map(|field| format!("{field}: "))
            .unwrap_or_default();
        let mend = error
            .suggestion()
            .map(|mend| format!("; {mend}"))
            .unwrap_or_default();
        format!("{rule}{field}{}{mend}", error.reason())
    })?;
    Ok(Body::Policy { content, text })
}

fn set(file: &Path, mut fields: Map<String, Value>) -> Result<Set, String> {
    let list = fields.remove("entries");
    let beside = text(&mut fields, "file")?;
    let default_expiry = match fields.remove("default_expiry") {
        None | Some(Value::Null) => None,
        Some(value) => Some(
            value
                .as_u64()
                .ok_or("default_expiry: it is a number of seconds")?,
        ),
    };
    let counters = text(&mut fields, "counters")?.unwrap_or_else(|| "none".to_owned());
    nothing_else(&fields, "default_expiry, counters, entries and file")?;
    let entries = match (list, beside) {
        (Some(_), Some(_)) => return Err("it has entries and a file: keep one".to_owned()),
        (None, None) => None,
        (Some(list), None) => Some(entries(list)?),
        (None, Some(beside)) => {
            let path = file.parent().unwrap_or(Path::new("")).join(beside);
            let text =
                fs::read_to_string(&path).map_err(|e| format!("file: {}: {e}", path.display()))?;
            Some(lines(&text).map_err(|e| format!("{}: {e}", path.display()))?)
        }
    };
    Ok(Set {
        default_expiry,
        counters,
        entries,
    })
}

fn entries(list: Value) -> Result<Entries, String> {
    let items = match list {
        Value::Array(items) => items,
        Value::Null => Vec::new(),
        _ => return Err("entries: it is a list".to_owned()),
    };
    let mut entries = Entries::new();
    for (i, item) in items.into_iter().enumerate() {
        let wrong = |e: String| format!("entries[{i}]: {e}");
        let (address, expires) = match item {
            Value::Object(mut fields) => {
                let parts = (text(&mut fields, "address")?, text(&mut fields, "expires")?);
                nothing_else(&fields, "address and expires").map_err(wrong)?;
                parts
            }
            other => (scalar(&other), None),
        };
        let address = address.ok_or_else(|| wrong("it is an address or prefix".to_owned()))?;
        let (prefix, at) = entry(&address, expires.as_deref()).map_err(wrong)?;
        entries.insert(prefix, at);
    }
    Ok(entries)
}

/// A list: an address or prefix a line, and behind it its expiry if it has one.
fn lines(text: &str) -> Result<Entries, String> {
    let mut entries = Entries::new();
    for (i, line) in text.lines().enumerate() {
        let mut words = line
            .split('#')
            .next()
            .unwrap_or_default()
            .split_whitespace();
        let Some(address) = words.next() else {
            continue;
        };
        let wrong = |e: String| format!("line {}: {e}", i + 1);
        let (prefix, at) = entry(address, words.next()).map_err(wrong)?;
        if words.next().is_some() {
            return Err(wrong(
                "a line is an address, and its expiry if it has one".to_owned(),
            ));
        }
        entries.insert(prefix, at);
    }
    Ok(entries)
}

fn entry(address: &str, expires: Option<&str>) -> Result<(Prefix, Option<Timestamp>), String> {
    let prefix = address.parse::<Prefix>().map_err(|e| e.to_string())?;
    let at = expires.map(|text| {
        let at = text.parse::<Timestamp>();
        at.map_err(|_| format!("expires: {text:?} is not a time, as 2030-01-01T00:00:00Z"))
    });
    Ok((prefix, at.transpose()?))
}

fn group(mut fields: Map<String, Value>) -> Result<Group, String> {
    let selector = text(&mut fields, "selector")?.ok_or("it has no selector; '' is all nodes")?;
    let selector = selector
        .parse::<Selector>()
        .map_err(|e| format!("selector: {e}"))?
        .to_string();
    let policies = match fields.remove("policies") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(items)) => {
            let names: Option<Vec<String>> = items.iter().map(scalar).collect();
            names.ok_or("policies: it is a list of names")?
        }
        Some(_) => return Err("policies: it is a list of names".to_owned()),
    };
    let rank = match fields.remove("rank") {
        None | Some(Value::Null) => 0,
        Some(value) => value.as_u64().ok_or("rank: it is a number")?,
    };
    let mode = text(&mut fields, "mode")?;
    nothing_else(&fields, "selector, policies, rank and mode")?;
    Ok(Group {
        selector,
        policies,
        rank,
        mode,
    })
}

/// What the API takes, with its defaults.
fn feed(mut fields: Map<String, Value>, comment: Option<&str>) -> Result<FeedContent, String> {
    if let Some(comment) = comment {
        fields.insert("comment".to_owned(), comment.into());
    }
    serde_json::from_value(Value::Object(fields)).map_err(|e| e.to_string())
}

/// A field that is text, taken out; what looks like a number or a truth value is text here too.
fn text(fields: &mut Map<String, Value>, name: &str) -> Result<Option<String>, String> {
    match fields.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => scalar(&value)
            .map(Some)
            .ok_or_else(|| format!("{name}: it is text")),
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(is) => Some(is.to_string()),
        _ => None,
    }
}

fn nothing_else(fields: &Map<String, Value>, known: &str) -> Result<(), String> {
    match fields.keys().next() {
        Some(name) => Err(format!("{name}: it has no such field; it has {known}")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Body, document};
    use crate::client::yaml;

    fn read(text: &str) -> Result<super::Document, String> {
        document(Path::new("x.yaml"), yaml::value(text).unwrap())
    }

    #[test]
    fn kinds() {
        let policy = read(
            "kind: Policy\nname: web\nrules: [{ id: a, match: { src: '@bad' }, action: drop }]",
        )
        .unwrap();
        assert!(matches!(&policy.body, Body::Policy { content, .. } if content.rules.len() == 1));
        let set = read("kind: Set\nname: 7\nentries: ['10.0.0.0/8', { address: '::1', expires: 2030-01-01T00:00:00Z }]").unwrap();
        assert_eq!(set.name, "7");
        assert!(matches!(&set.body, Body::Set(set) if set.entries.as_ref().unwrap().len() == 2));
        let feed = read("kind: Feed\nname: f\ncomment: c\nsource: { kind: file, paths: [a] }\nlimits: { max_entries: 7 }").unwrap();
        assert!(
            matches!(&feed.body, Body::Feed(feed) if feed.limits.max_entries == 7 && feed.every == 3600 && feed.comment.is_some())
        );
        let group = read("kind: Group\nname: g\nselector: ''\npolicies: [web]\nrank: 3").unwrap();
        assert!(
            matches!(&group.body, Body::Group(group) if group.rank == 3 && group.policies == ["web"])
        );
    }

    #[test]
    fn faults_name_their_place() {
        for (text, says) in [
            ("name: web", "kind"),
            ("kind: Policy", "name"),
            ("kind: Polcy\nname: web", "Polcy"),
            (
                "kind: Policy\nname: web\nrules: [{ id: a, action: drp }]",
                "policy web: rule a: ",
            ),
            (
                "kind: Set\nname: bad\nentries: [10.0.0.1, nonsense]",
                "set bad: entries[1]",
            ),
            ("kind: Set\nname: bad\nentres: []", "entres"),
            (
                "kind: Set\nname: bad\nfile: /nonexistent/list",
                "/nonexistent/list",
            ),
            ("kind: Group\nname: g\nselector: 'a in'", "selector"),
            ("kind: Feed\nname: f", "feed f: missing field `source`"),
            (
                "kind: Feed\nname: f\nsource: { kind: kubernetes }\nevry: 5",
                "evry",
            ),
            (
                "kind: Group\nname: g\nselector: ''\npolicy: web",
                "policy: it has no such field",
            ),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
