//! The configuration as a file: the default one with its comments, and the one in force.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Configuration;
use super::check::join;
use super::problem::Source;
use super::schema::Node;
use super::sources::{Loaded, tree};

/// How long the lines of comments are.
const WIDTH: usize = 100;

/// All keys with their defaults and what they are, as a file.
pub fn default_file<C: Configuration>() -> String {
    let mut out = String::new();
    let root = Node::root::<C>();
    comment(&mut out, root.doc().unwrap_or_default());
    table(&mut out, root, "", &tree(&C::default()));
    out
}

/// All keys with the values in force, and where those are from that are not the default.
pub fn effective<C: Configuration>(loaded: &Loaded<C>) -> String {
    let mut out = String::new();
    values(
        &mut out,
        Node::root::<C>(),
        "",
        &tree(&loaded.config),
        &loaded.sources,
    );
    out.trim_start().to_owned()
}

/// The keys of a table, and then the tables in it.
fn table(out: &mut String, node: Node<'_>, path: &str, value: &Value) {
    for (index, (key, node)) in keys(node).filter(|(_, node)| !is_table(*node)).enumerate() {
        if index > 0 || path.is_empty() {
            out.push('\n');
        }
        explain(out, node);
        match said(&value[key]) {
            Some(value) => *out += &format!("{key} = {value}\n"),
            None => *out += &format!("# {key} = {}\n", example(node)),
        }
    }
    for (key, node) in keys(node).filter(|(_, node)| is_table(*node)) {
        out.push('\n');
        explain(out, node);
        let path = join(path, key);
        match (node.element(), &value[key]) {
            (Some(element), _) => commented(out, &format!("[[{path}]]"), element),
            (None, Value::Null) => commented(out, &format!("[{path}]"), node),
            (None, value) => {
                *out += &format!("[{path}]\n");
                table(out, node, &path, value);
            }
        }
    }
}

/// A table that is not there by default.
fn commented(out: &mut String, head: &str, node: Node<'_>) {
    *out += &format!("# {head}\n");
    for (key, node) in keys(node) {
        explain(out, node);
        *out += &format!("# {key} = {}\n", example(node));
    }
}

fn values(
    out: &mut String,
    node: Node<'_>,
    path: &str,
    value: &Value,
    sources: &BTreeMap<String, Source>,
) {
    for (key, _) in keys(node).filter(|(_, node)| !is_table(*node)) {
        if let Some(said) = said(&value[key]) {
            let source = sources.get(&join(path, key));
            let source = source.map_or_else(String::new, |source| format!("  # {source}"));
            *out += &format!("{key} = {said}{source}\n");
        }
    }
    for (key, node) in keys(node).filter(|(_, node)| is_table(*node)) {
        let path = join(path, key);
        match (node.element(), &value[key]) {
            (_, Value::Null) => {}
            (Some(element), tables) => {
                let source = sources.get(&path);
                let source = source.map_or_else(String::new, |source| format!("  # {source}"));
                for table in tables.as_array().into_iter().flatten() {
                    *out += &format!("\n[[{path}]]{source}\n");
                    values(out, element, &path, table, &BTreeMap::new());
                }
            }
            (None, table) => {
                *out += &format!("\n[{path}]\n");
                values(out, node, &path, table, sources);
            }
        }
    }
}

fn keys<'a>(node: Node<'a>) -> impl Iterator<Item = (&'a str, Node<'a>)> {
    node.keys().into_iter().flatten()
}

/// A table, or a list of tables.
fn is_table(node: Node<'_>) -> bool {
    node.element().unwrap_or(node).keys().is_some()
}

/// A value in TOML: texts, numbers and lists of them are written as in JSON.
fn said(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::Array(values) => {
            let values: Vec<String> = values.iter().map(Value::to_string).collect();
            Some(format!("[{}]", values.join(", ")))
        }
        value => Some(value.to_string()),
    }
}

/// A value that a key may have which has none by default.
fn example(node: Node<'_>) -> String {
    let default = node.default().filter(|default| !default.is_null());
    if let Some(example) = node.example().or(default) {
        return example.to_string();
    }
    if let Some((word, _)) = node.words().first() {
        return format!("{word:?}");
    }
    match node.kind() {
        "boolean" => "false",
        "integer" | "number" => "1",
        "array" => "[]",
        _ => "\"\"",
    }
    .to_owned()
}

fn explain(out: &mut String, node: Node<'_>) {
    comment(out, node.doc().unwrap_or_default());
    for (word, meaning) in node.words() {
        if let Some(meaning) = meaning {
            let mut letters = meaning.chars();
            let first = letters
                .next()
                .map(|letter| letter.to_lowercase().to_string());
            let rest = letters.as_str();
            *out += &format!("#   {word}: {}{rest}\n", first.unwrap_or_default());
        }
    }
}

/// Paragraphs, in lines of their own length.
fn comment(out: &mut String, text: &str) {
    for (index, paragraph) in text.split("\n\n").enumerate() {
        if index > 0 {
            *out += "#\n";
        }
        let mut line = String::new();
        for word in paragraph.split_whitespace() {
            if !line.is_empty() && line.len() + 1 + word.len() > WIDTH - 2 {
                *out += &format!("# {line}\n");
                line.clear();
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line += word;
        }
        if !line.is_empty() {
            *out += &format!("# {line}\n");
        }
    }
}
