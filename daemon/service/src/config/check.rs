//! Values against the schema: every key that is unknown, missing, or has a value that it does not take.

use serde_json::Value;

use super::Invalid;
use super::schema::Node;

/// All that is wrong in a place of the schema `root`. `key` is where the value is, from the root; empty for the root.
pub(super) fn check(
    root: Node<'_>,
    node: Node<'_>,
    key: &str,
    value: &Value,
    invalid: &mut Vec<Invalid>,
) {
    match value {
        // Left out.
        Value::Null => {}
        Value::Object(table) if node.keys().is_some() => {
            for (name, value) in table {
                match node.key(name) {
                    Some(node) => check(root, node, &join(key, name), value, invalid),
                    None => invalid.push(Invalid::new(join(key, name), unknown(root, node, name))),
                }
            }
            for name in node.required().filter(|name| !table.contains_key(*name)) {
                invalid.push(Invalid::new(join(key, name), "it is missing"));
            }
        }
        Value::Array(values) if node.kind() == "array" => {
            for (index, value) in values.iter().enumerate() {
                if let Some(element) = node.element() {
                    check(root, element, &format!("{key}[{index}]"), value, invalid);
                }
            }
        }
        value => {
            if let Some(reason) = refusal(node, value) {
                invalid.push(Invalid::new(key, reason));
            }
        }
    }
}

pub(super) fn join(table: &str, key: &str) -> String {
    match table {
        "" => key.to_owned(),
        table => format!("{table}.{key}"),
    }
}

/// The known word that is nearest to `word`, if one is near enough to be meant.
pub(super) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let distance = |known| strsim::damerau_levenshtein(&word.to_lowercase(), known);
    known
        .map(|known| (distance(known), known))
        .filter(|(distance, _)| *distance <= 1 + word.len() / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

fn unknown(root: Node<'_>, table: Node<'_>, name: &str) -> String {
    let known = || table.keys().into_iter().flatten().map(|(key, _)| key);
    match nearest(name, known()) {
        Some(near) => format!("there is no such key; did you mean {near}?"),
        None => {
            // The key may be right and the section wrong.
            let sections = root.keys().into_iter().flatten();
            let elsewhere = sections
                .filter(|(_, section)| section.key(name).is_some())
                .map(|(section, _)| format!("; there is one in [{section}]"))
                .next();
            format!("there is no such key{}", elsewhere.unwrap_or_default())
        }
    }
}

/// Why a value is not taken.
fn refusal(node: Node<'_>, value: &Value) -> Option<String> {
    let words = node.words();
    let expected = match node.kind() {
        _ if !words.is_empty() => {
            if words.iter().any(|(word, _)| value == *word) {
                return None;
            }
            let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            let near = value
                .as_str()
                .and_then(|v| nearest(v, names.iter().copied()));
            let near = near.map_or_else(String::new, |near| format!("; did you mean {near}?"));
            return Some(format!("{value} is none of {}{near}", names.join(", ")));
        }
        "boolean" if !value.is_boolean() => "true or false".to_owned(),
        "string" if !value.is_string() => "a text in quotes".to_owned(),
        "array" => "a list in brackets".to_owned(),
        "object" => "a table".to_owned(),
        "number" if !value.is_number() => "a number".to_owned(),
        "integer" => {
            let (least, greatest) = node.range();
            match value.as_i64() {
                Some(number) if (least..=greatest).contains(&number) => return None,
                _ if greatest == i64::MAX => format!("a whole number of {least} or more"),
                _ => format!("a whole number from {least} to {greatest}"),
            }
        }
        _ => return None,
    };
    Some(format!("{value} is not {expected}"))
}
