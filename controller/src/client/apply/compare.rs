//! What differs between documents and a controller, as steps.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use xdpgate::policy::Rule;
use xdpgate_service::Failure;

use super::documents::{Body, Document, Entries, Group, Kind, Set};
use super::steps::{Act, Step};
use crate::client::group::content;
use crate::client::remote::{Api, items};
use crate::domain::PolicyContent;
use crate::feed::FeedContent;

/// Lines of a change that are said.
const LINES: usize = 50;

/// The steps to what the documents say, in an order in which nothing names what is not there; with `prune`, what has this mark
/// and no document goes.
pub(super) async fn steps(
    api: &Api,
    documents: &[Document],
    prune: Option<String>,
) -> Result<Vec<Step>, Failure> {
    let mut steps = Vec::new();
    // They are sorted by kind: sets, policies, groups, feeds.
    for document in documents {
        let path = [document.kind().plural(), document.name.as_str()];
        let before = api.get(&path).found().await?;
        match &document.body {
            Body::Set(set) => self::set(api, document, set, before, &mut steps).await?,
            Body::Policy { content, text } => {
                policy(api, document, content, text, before, &mut steps).await?
            }
            Body::Group(group) => self::group(document, group, before, &mut steps),
            Body::Feed(feed) => self::feed(document, feed, before, &mut steps)?,
        }
    }
    let Some(mark) = prune else {
        return Ok(steps);
    };
    for kind in [Kind::Feed, Kind::Group, Kind::Policy, Kind::Set] {
        let page = api.all(&[kind.plural()], &[], None).await?;
        for item in items(&page) {
            let name = item.get("name").and_then(Value::as_str).unwrap_or_default();
            let why = item
                .pointer("/created/why")
                .and_then(Value::as_str)
                .unwrap_or_default();
            let named = documents.iter().any(|d| d.kind() == kind && d.name == name);
            if why.contains(&mark) && !named {
                let version = version(item);
                steps.push(Step::new(kind, name, Act::Delete { version }, Vec::new()));
            }
        }
    }
    Ok(steps)
}

fn version(thing: &Value) -> u64 {
    thing
        .get("version")
        .and_then(Value::as_u64)
        .unwrap_or_default()
}

fn comment(thing: &Value) -> Option<&str> {
    thing.get("comment").and_then(Value::as_str)
}

async fn policy(
    api: &Api,
    document: &Document,
    wanted: &PolicyContent,
    text: &str,
    before: Option<Value>,
    steps: &mut Vec<Step>,
) -> Result<(), Failure> {
    let name = &document.name;
    let patch = || Act::PatchPolicy {
        patch: json!({ "comment": document.comment }),
    };
    let put = |version| Act::PutPolicy {
        text: text.to_owned(),
        version,
    };
    let Some(before) = before else {
        let lines = vec![format!("{} rules", wanted.rules.len())];
        steps.push(Step::new(Kind::Policy, name, put(None), lines));
        if document.comment.is_some() {
            steps.push(Step::new(
                Kind::Policy,
                name,
                patch(),
                vec!["comment".to_owned()],
            ));
        }
        return Ok(());
    };
    let current = api.get(&["policies", name, "text"]).text().await?;
    let current = PolicyContent::from_yaml(&current).map_err(|e| {
        Failure::operation(format!(
            "policy {name}: what the controller has cannot be read: {e}"
        ))
    })?;
    let lines = differences(&current, wanted);
    if !lines.is_empty() {
        steps.push(Step::new(
            Kind::Policy,
            name,
            put(Some(version(&before))),
            lines,
        ));
    }
    if comment(&before) != document.comment.as_deref() {
        steps.push(Step::new(
            Kind::Policy,
            name,
            patch(),
            vec!["comment".to_owned()],
        ));
    }
    Ok(())
}

/// What differs between two policies, a line each.
fn differences(from: &PolicyContent, to: &PolicyContent) -> Vec<String> {
    let mut lines = Vec::new();
    let settings =
        |content: &PolicyContent| serde_json::to_value(&content.settings).unwrap_or_default();
    let (old, new) = (settings(from), settings(to));
    for field in ["default", "malformed", "failsafe"] {
        let (old, new) = (old.get(field), new.get(field));
        if old != new {
            let word =
                |value: Option<&Value>| value.map_or_else(|| "absent".to_owned(), Value::to_string);
            lines.push(format!("~ {field}: {} -> {}", word(old), word(new)));
        }
    }
    // As the controller keeps them, however they are written.
    let canonical = |rule: &Rule| match Rule::from_yaml(&rule.to_json()) {
        Ok(rule) => rule.to_json(),
        Err(_) => rule.to_json(),
    };
    let rules = |content: &PolicyContent| -> BTreeMap<String, String> {
        let pairs = content
            .rules
            .iter()
            .map(|rule| (rule.id.to_string(), canonical(rule)));
        pairs.collect()
    };
    let (old, new) = (rules(from), rules(to));
    let ids: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for id in ids {
        match (old.get(id), new.get(id)) {
            (Some(old), Some(new)) if old != new => {
                lines.push(format!("- {old}"));
                lines.push(format!("+ {new}"));
            }
            (Some(old), None) => lines.push(format!("- {old}")),
            (None, Some(new)) => lines.push(format!("+ {new}")),
            _ => {}
        }
    }
    few(lines)
}

fn few(mut lines: Vec<String>) -> Vec<String> {
    let more = lines.len().saturating_sub(LINES);
    if more > 0 {
        lines.truncate(LINES);
        lines.push(format!("and {more} more"));
    }
    lines
}

async fn set(
    api: &Api,
    document: &Document,
    set: &Set,
    before: Option<Value>,
    steps: &mut Vec<Step>,
) -> Result<(), Failure> {
    let name = &document.name;
    let now = Timestamp::now();
    let in_force = |at: &Option<Timestamp>| at.is_none_or(|at| at > now);
    let Some(before) = before else {
        let mut entries = set.entries.clone().unwrap_or_default();
        entries.retain(|_, at| in_force(at));
        let lines = vec![format!("{} entries", entries.len())];
        let act = Act::CreateSet {
            settings: json!({
                "name": name,
                "comment": document.comment,
                "default_expiry": set.default_expiry,
                "counters": set.counters,
            }),
            entries,
        };
        steps.push(Step::new(Kind::Set, name, act, lines));
        return Ok(());
    };
    let mut patch = Map::new();
    if comment(&before) != document.comment.as_deref() {
        patch.insert("comment".to_owned(), json!(document.comment));
    }
    if before.get("default_expiry").and_then(Value::as_u64) != set.default_expiry {
        patch.insert("default_expiry".to_owned(), json!(set.default_expiry));
    }
    if before.get("counters").and_then(Value::as_str) != Some(&set.counters) {
        patch.insert("counters".to_owned(), json!(set.counters));
    }
    if !patch.is_empty() {
        let lines = patch
            .iter()
            .map(|(field, value)| format!("~ {field}: {value}"))
            .collect();
        let patch = Value::Object(patch);
        steps.push(Step::new(Kind::Set, name, Act::PatchSet { patch }, lines));
    }
    let Some(wanted) = &set.entries else {
        return Ok(());
    };
    let mut current = entries(api, name).await?;
    current.retain(|_, at| in_force(at));
    let mut wanted = wanted.clone();
    for (prefix, at) in &mut wanted {
        // It got the expiry of the set when it came, and keeps that.
        if at.is_none() && set.default_expiry.is_some() {
            *at = current.get(prefix).copied().flatten();
        }
    }
    wanted.retain(|_, at| in_force(at));
    if current == wanted {
        return Ok(());
    }
    let come = wanted
        .iter()
        .filter(|(prefix, at)| current.get(prefix) != Some(at));
    let come = come.map(|(prefix, _)| format!("+ {prefix}"));
    let gone = current.keys().filter(|prefix| !wanted.contains_key(prefix));
    let lines = gone
        .map(|prefix| format!("- {prefix}"))
        .chain(come)
        .collect();
    let act = Act::PutEntries { entries: wanted };
    steps.push(Step::new(Kind::Set, name, act, few(lines)));
    Ok(())
}

/// All entries of a set.
pub(super) async fn entries(api: &Api, name: &str) -> Result<Entries, Failure> {
    let page = api.all(&["sets", name, "entries"], &[], None).await?;
    let read = |item: &Value| {
        let prefix = item.get("address")?.as_str()?.parse().ok()?;
        let at = match item.get("expires") {
            None | Some(Value::Null) => None,
            Some(at) => Some(at.as_str()?.parse().ok()?),
        };
        Some((prefix, at))
    };
    let entries: Option<Entries> = items(&page).iter().map(read).collect();
    entries.ok_or_else(|| {
        Failure::operation(format!(
            "set {name}: what the controller answers cannot be read"
        ))
    })
}

fn group(document: &Document, group: &Group, before: Option<Value>, steps: &mut Vec<Step>) {
    let mut wanted =
        json!({ "selector": group.selector, "policies": group.policies, "rank": group.rank });
    if let Some(mode) = &group.mode {
        wanted["mode"] = mode.as_str().into();
    }
    if let Some(comment) = &document.comment {
        wanted["comment"] = comment.as_str().into();
    }
    let current = before.as_ref().map(content).map(Value::Object);
    if current.as_ref() == Some(&wanted) {
        return;
    }
    let fields = ["selector", "policies", "rank", "mode", "comment"];
    steps.push(put(document, wanted, current, before, &fields));
}

fn feed(
    document: &Document,
    feed: &FeedContent,
    before: Option<Value>,
    steps: &mut Vec<Step>,
) -> Result<(), Failure> {
    let wanted = serde_json::to_value(feed).map_err(Failure::operation)?;
    let current = before
        .as_ref()
        .and_then(|feed| feed.get("content").cloned());
    if current.as_ref() != Some(&wanted) {
        let both = [Some(&wanted), current.as_ref()].into_iter().flatten();
        let fields = both.filter_map(Value::as_object).flat_map(Map::keys);
        let fields: BTreeSet<String> = fields.cloned().collect();
        let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
        steps.push(put(document, wanted, current, before, &fields));
    }
    Ok(())
}

/// A step to what is wanted of a group or a feed, with what differs in these fields.
fn put(
    document: &Document,
    wanted: Value,
    current: Option<Value>,
    before: Option<Value>,
    fields: &[&str],
) -> Step {
    let mut lines = Vec::new();
    for field in fields {
        let old = current.as_ref().and_then(|current| current.get(field));
        let new = wanted.get(field);
        if old != new {
            let word =
                |value: Option<&Value>| value.map_or_else(|| "absent".to_owned(), Value::to_string);
            lines.push(match &current {
                Some(_) => format!("~ {field}: {} -> {}", word(old), word(new)),
                None => format!("+ {field}: {}", word(new)),
            });
        }
    }
    let act = Act::Put {
        content: wanted,
        version: before.as_ref().map(version),
    };
    Step::new(document.kind(), &document.name, act, lines)
}
