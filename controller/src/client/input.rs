//! What comes from files and from the command line.

use std::io::Read as _;
use std::path::Path;

use serde_json::{Map, Value};
use xdpgate::policy::Rule;
use xdpgate_service::Failure;

use super::yaml;

/// A file, or standard input for `-`.
pub(super) fn read(file: &Path) -> Result<String, Failure> {
    let wrong = |e: std::io::Error| Failure::input(file.display(), e);
    if file.as_os_str() != "-" {
        return std::fs::read_to_string(file).map_err(wrong);
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map_err(wrong)?;
    Ok(text)
}

/// A rule in YAML, as JSON; `-` reads it from standard input.
pub(super) fn rule(text: &str) -> Result<Value, Failure> {
    let text = match text {
        "-" => read(Path::new("-"))?,
        text => text.to_owned(),
    };
    let rule = Rule::from_yaml(&text).map_err(|e| Failure::input("the rule", e))?;
    serde_json::from_str(&rule.to_json()).map_err(Failure::operation)
}

/// `FIELD=VALUE`, of which the value is YAML and `null` clears, as a merge patch. Dots go into a field.
pub(super) fn patch(sets: &[String]) -> Result<Value, Failure> {
    let mut patch = Map::new();
    for set in sets {
        let wrong = |reason: &str| Failure::input(format!("{set:?}"), reason);
        let (field, text) = set
            .split_once('=')
            .ok_or_else(|| wrong("write it as FIELD=VALUE"))?;
        let value = yaml::value(text).map_err(|e| wrong(&e))?;
        let mut path: Vec<&str> = field.split('.').collect();
        let last = path
            .pop()
            .filter(|last| !last.is_empty())
            .ok_or_else(|| wrong("it has no field"))?;
        let mut at = &mut patch;
        for part in path {
            let below = at.entry(part).or_insert_with(|| Value::Object(Map::new()));
            at = below
                .as_object_mut()
                .ok_or_else(|| wrong("the field is set twice"))?;
        }
        at.insert(last.to_owned(), value);
    }
    Ok(Value::Object(patch))
}

/// `KEY=VALUE` pairs; with `clear` also `KEY-`, which is null.
pub(super) fn labels(pairs: &[String], clear: bool) -> Result<Value, Failure> {
    let mut labels = Map::new();
    for pair in pairs {
        let (name, value) = match pair.split_once('=') {
            Some((name, value)) => (name, Value::from(value)),
            None if clear && pair.ends_with('-') => (pair.trim_end_matches('-'), Value::Null),
            None if clear => {
                return Err(Failure::input(
                    format!("{pair:?}"),
                    "write KEY=VALUE, or KEY- to clear it",
                ));
            }
            None => return Err(Failure::input(format!("{pair:?}"), "write KEY=VALUE")),
        };
        labels.insert(name.to_owned(), value);
    }
    Ok(Value::Object(labels))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{labels, patch};

    fn owned(texts: &[&str]) -> Vec<String> {
        texts.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn pairs() {
        let sets = owned(&[
            "priority=10",
            "comment=null",
            "name=a=b",
            "match.src=[10.0.0.0/8, '@bad']",
            "match.dst=null",
        ]);
        let expected = json!({
            "priority": 10, "comment": null, "name": "a=b", "match": { "src": ["10.0.0.0/8", "@bad"], "dst": null },
        });
        assert_eq!(patch(&sets).unwrap(), expected);
        assert!(
            patch(&owned(&["priority"]))
                .unwrap_err()
                .to_string()
                .contains("FIELD=VALUE")
        );
        assert!(
            patch(&owned(&["match=1", "match.src=2"]))
                .unwrap_err()
                .to_string()
                .contains("twice")
        );
        assert_eq!(
            labels(&owned(&["a=1", "b-"]), true).unwrap(),
            json!({ "a": "1", "b": null })
        );
        labels(&owned(&["b-"]), false).unwrap_err();
    }
}
