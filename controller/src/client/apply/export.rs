//! `export`: what a controller has, as files.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use xdpgate_service::Failure;

use super::documents::{Entries, Kind};
use super::{Export, compare, steps};
use crate::client::group::content;
use crate::client::out::{answer, print_json};
use crate::client::remote::{Api, items};
use crate::client::yaml;

/// Sets with more entries have a list beside them.
const INLINE: usize = 1_000;

/// Writes all files.
pub(in crate::client) async fn export(api: &Api, args: &Export) -> Result<(), Failure> {
    let root = &args.output;
    let mut out = Files::open(root, args.replace)?;
    let mut counts = Vec::new();
    let feeds = api.all(&["feeds"], &[], None).await?;
    let filled = items(&feeds).iter().flat_map(|feed| {
        let sets = feed.get("sets").and_then(Value::as_array);
        sets.into_iter().flatten().filter_map(|set| set.get("set"))
    });
    let filled: BTreeSet<&str> = filled.filter_map(Value::as_str).collect();
    for kind in [Kind::Policy, Kind::Set, Kind::Group, Kind::Feed] {
        let page = match kind {
            Kind::Feed => feeds.clone(),
            _ => api.all(&[kind.plural()], &[], None).await?,
        };
        for item in items(&page) {
            let name = item.get("name").and_then(Value::as_str).unwrap_or_default();
            let text = match kind {
                Kind::Policy => {
                    let text = api.get(&["policies", name, "text"]).text().await?;
                    head("Policy", name, item) + &text
                }
                // What a feed brings is not for files.
                Kind::Set if filled.contains(name) => {
                    let mut text = head("Set", name, item);
                    settings(&mut text, item);
                    text
                }
                Kind::Set => {
                    let entries = compare::entries(api, name).await?;
                    let mut text = head("Set", name, item);
                    set(&mut text, name, item, &entries);
                    if entries.len() > INLINE {
                        out.write(kind, &format!("{name}.txt"), &steps::list(&entries))?;
                    }
                    text
                }
                Kind::Group => {
                    let mut text = head("Group", name, item);
                    for (field, value) in content(item)
                        .iter()
                        .filter(|(field, _)| *field != "comment")
                    {
                        // Writing to a string does not fail. JSON is YAML.
                        let _ = writeln!(text, "{field}: {value}");
                    }
                    text
                }
                Kind::Feed => {
                    let content = item.get("content").cloned().unwrap_or_default();
                    let mut text = head("Feed", name, &content);
                    for (field, value) in content.as_object().into_iter().flatten() {
                        if field != "comment" {
                            // Writing to a string does not fail. JSON is YAML.
                            let _ = writeln!(text, "{field}: {value}");
                        }
                    }
                    text
                }
            };
            out.write(kind, &format!("{name}.yaml"), &text)?;
        }
        counts.push(items(&page).len());
    }
    out.finish()?;
    let said = json!({ "directory": root.display().to_string(), "policies": counts[0], "sets": counts[1], "groups": counts[2], "feeds": counts[3] });
    if api.json {
        return print_json(&said);
    }
    answer(false, &said, |_| {
        format!(
            "{}: {} policies, {} sets, {} groups, {} feeds\n",
            root.display(),
            counts[0],
            counts[1],
            counts[2],
            counts[3]
        )
    })
}

fn head(kind: &str, name: &str, item: &Value) -> String {
    let mut text = format!("kind: {kind}\nname: {}\n", word(name));
    if let Some(comment) = item.get("comment").filter(|comment| !comment.is_null()) {
        let _ = writeln!(text, "comment: {comment}");
    }
    text
}

/// What a set is, beside its entries.
fn settings(text: &mut String, item: &Value) {
    if let Some(expiry) = item
        .get("default_expiry")
        .filter(|expiry| !expiry.is_null())
    {
        let _ = writeln!(text, "default_expiry: {expiry}");
    }
    if let Some(counters) = item
        .get("counters")
        .and_then(Value::as_str)
        .filter(|counters| *counters != "none")
    {
        let _ = writeln!(text, "counters: {counters}");
    }
}

fn set(text: &mut String, name: &str, item: &Value, entries: &Entries) {
    settings(text, item);
    if entries.len() > INLINE {
        let _ = writeln!(text, "file: {}", word(&format!("{name}.txt")));
        return;
    }
    if entries.is_empty() {
        text.push_str("entries: []\n");
        return;
    }
    text.push_str("entries:\n");
    for (prefix, at) in entries {
        // Quoted, since an address may end with a colon.
        let _ = match at {
            Some(at) => writeln!(text, "  - {{ address: \"{prefix}\", expires: \"{at}\" }}"),
            None => writeln!(text, "  - \"{prefix}\""),
        };
    }
}

/// A name, in quotes where YAML would take it for something else.
fn word(name: &str) -> String {
    match yaml::value(name) {
        Ok(Value::String(text)) if text == name => text,
        _ => Value::from(name).to_string(),
    }
}

/// The files that are written.
struct Files {
    root: PathBuf,
    written: BTreeSet<PathBuf>,
}

impl Files {
    fn open(root: &Path, replace: bool) -> Result<Self, Failure> {
        fs::create_dir_all(root).map_err(|e| failed(root, &e))?;
        let mut inside = fs::read_dir(root).map_err(|e| failed(root, &e))?;
        if !replace && inside.next().is_some() {
            return Err(Failure::input(
                root.display(),
                "it is not empty: take another, or say --replace",
            ));
        }
        Ok(Self {
            root: root.to_owned(),
            written: BTreeSet::new(),
        })
    }

    fn write(&mut self, kind: Kind, name: &str, text: &str) -> Result<(), Failure> {
        let dir = self.root.join(kind.plural());
        fs::create_dir_all(&dir).map_err(|e| failed(&dir, &e))?;
        let path = dir.join(name);
        fs::write(&path, text).map_err(|e| failed(&path, &e))?;
        self.written.insert(path);
        Ok(())
    }

    /// Removes files of things that are gone.
    fn finish(self) -> Result<(), Failure> {
        for kind in [Kind::Policy, Kind::Set, Kind::Group, Kind::Feed] {
            let dir = self.root.join(kind.plural());
            let Ok(inside) = fs::read_dir(&dir) else {
                continue;
            };
            for path in inside.filter_map(|entry| Some(entry.ok()?.path())) {
                let ours = path
                    .extension()
                    .is_some_and(|kind| kind == "yaml" || kind == "txt");
                if ours && !self.written.contains(&path) {
                    fs::remove_file(&path).map_err(|e| failed(&path, &e))?;
                }
            }
        }
        Ok(())
    }
}

fn failed(path: &Path, error: &std::io::Error) -> Failure {
    Failure::operation(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::word;

    #[test]
    fn names_that_yaml_would_take_for_something_else_are_quoted() {
        for name in ["web", "bad-hosts", "a.b"] {
            assert_eq!(word(name), name);
        }
        for name in ["7", "true", "null", "1.5", "-"] {
            assert_eq!(word(name), format!("\"{name}\""));
        }
    }
}
