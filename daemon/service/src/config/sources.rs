//! From flags, environment, file and defaults to one configuration that remembers where it is from.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::{env, fs};

use serde_json::{Map, Value};
use toml::de::{DeTable, DeValue};

use super::check::{check, join, nearest};
use super::problem::Source;
use super::schema::Node;
use super::{Configuration, Invalid, Problem};

/// What a flag says of a key.
#[derive(Debug, Clone)]
pub struct Override {
    /// The flag, as `--enforce`.
    pub flag: &'static str,
    /// The key, as `api.listen`.
    pub key: &'static str,
    /// What it is.
    pub value: Value,
}

/// A flag, its key, and what it says, if it was given.
pub type Said = (&'static str, &'static str, Option<Value>);

impl Override {
    /// Of those flags that were given.
    pub fn of(flags: impl IntoIterator<Item = Said>) -> Vec<Self> {
        flags
            .into_iter()
            .filter_map(|(flag, key, value)| {
                let value = value?;
                Some(Self { flag, key, value })
            })
            .collect()
    }
}

/// A configuration that was read and is right.
#[derive(Debug, Clone)]
pub struct Loaded<C> {
    /// The configuration.
    pub config: C,
    /// Of each key that something said, the default aside.
    pub sources: BTreeMap<String, Source>,
    /// What is strange and no error.
    pub warnings: Vec<String>,
}

/// The variables of this process that may be of the configuration.
pub fn environment<C: Configuration>() -> Vec<(String, String)> {
    let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    env::vars_os()
        .map(|(name, value)| (text(name), text(value)))
        .filter(|(name, value)| name.starts_with(C::PREFIX) && !value.is_empty())
        .filter(|(name, _)| name != C::FILE_VARIABLE)
        .collect()
}

/// Reads and checks it all.
///
/// # Errors
///
/// All that is wrong, in the order of the file. If it is no TOML, only what is wrong with that.
pub fn load<C: Configuration>(
    file: Option<&Path>,
    environment: &[(String, String)],
    flags: &[Override],
) -> Result<Loaded<C>, Vec<Problem>> {
    let text = match file {
        Some(path) => fs::read_to_string(path).map_err(|error| {
            let reason = format!("{}: {error}", path.display());
            vec![problem(None, reason)]
        })?,
        None => String::new(),
    };
    let (document, errors) = DeTable::parse_recoverable(&text);
    let file = Document {
        path: file.map(Path::to_owned).unwrap_or_default(),
        text: &text,
        table: document.get_ref(),
    };
    if !errors.is_empty() {
        let describe = |error: &toml::de::Error| {
            let at = error.span().map_or(0, |span| span.start);
            problem(Some(file.at(at)), error.message().replace('\n', ", "))
        };
        return Err(errors.iter().map(describe).collect());
    }
    let mut layers = Layers::<C>::new();
    layers.file(&file);
    layers.environment(environment);
    for flag in flags {
        layers.say(flag.key, flag.value.clone(), Source::Flag(flag.flag));
    }
    layers.finish(&file)
}

/// The keys whose values differ.
pub fn differences<C: Configuration>(one: &C, other: &C) -> Vec<String> {
    let (one, other) = (tree(one), tree(other));
    let mut keys = Vec::new();
    compare(Node::root::<C>(), "", &one, &other, &mut keys);
    keys
}

/// `new` with what `former` has for these keys.
pub fn keep<C: Configuration>(new: &C, former: &C, keys: &[String]) -> C {
    let (mut kept, former) = (tree(new), tree(former));
    for key in keys {
        put_back(&mut kept, &former, key);
    }
    serde_json::from_value(kept).expect("each value is of a configuration that was right")
}

fn compare(node: Node<'_>, key: &str, one: &Value, other: &Value, keys: &mut Vec<String>) {
    if let (Some(inner), Value::Object(_), Value::Object(_)) = (node.keys(), one, other) {
        for (name, node) in inner {
            compare(node, &join(key, name), &one[name], &other[name], keys);
        }
    } else if one != other {
        keys.push(key.to_owned());
    }
}

/// A configuration as a tree.
pub(super) fn tree<C: Configuration>(config: &C) -> Value {
    serde_json::to_value(config).expect("a configuration is a tree of texts and numbers")
}

fn problem(source: Option<Source>, reason: String) -> Problem {
    Problem {
        source,
        key: String::new(),
        reason,
    }
}

/// What was said so far, one upon the other.
struct Layers<C> {
    values: Value,
    sources: BTreeMap<String, Source>,
    warnings: Vec<String>,
    of: PhantomData<C>,
}

impl<C: Configuration> Layers<C> {
    fn new() -> Self {
        Self {
            values: tree(&C::default()),
            sources: BTreeMap::new(),
            warnings: Vec::new(),
            of: PhantomData,
        }
    }

    fn say(&mut self, key: &str, value: Value, source: Source) {
        let mut place = &mut self.values;
        for name in key.split('.') {
            if place.is_null() {
                *place = Value::Object(Map::new());
            }
            // A text where there should be a table: that is a problem of its own.
            let Value::Object(table) = place else { return };
            place = table.entry(name).or_insert(Value::Null);
        }
        *place = value;
        self.sources.insert(key.to_owned(), source);
    }

    fn file(&mut self, file: &Document<'_>) {
        self.table(file, Node::root::<C>(), "", file.table);
    }

    fn table(&mut self, file: &Document<'_>, node: Node<'_>, key: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let key = join(key, name.get_ref());
            let inner = node.key(name.get_ref());
            match (inner, value.get_ref()) {
                (Some(inner), DeValue::Table(table)) if inner.keys().is_some() => {
                    self.table(file, inner, &key, table);
                }
                (_, value) => {
                    let source = file.at(name.span().start);
                    self.say(&key, json(value), source);
                }
            }
        }
    }

    fn environment(&mut self, environment: &[(String, String)]) {
        let mut known = Vec::new();
        variables(C::PREFIX, Node::root::<C>(), "", &mut known);
        for (variable, text) in environment {
            match known.iter().find(|(name, ..)| name == variable) {
                Some((_, key, node)) => {
                    let source = Source::Environment(variable.clone());
                    self.say(key, from_text(*node, text), source);
                }
                None => {
                    let names = known.iter().map(|(name, ..)| name.to_lowercase());
                    let names: Vec<String> = names.collect();
                    let near = nearest(variable, names.iter().map(String::as_str));
                    let near = near.map(|near| format!("; did you mean {}?", near.to_uppercase()));
                    self.warnings.push(format!(
                        "{variable}: no key has this variable, so it does nothing{}",
                        near.unwrap_or_default()
                    ));
                }
            }
        }
    }

    fn finish(mut self, file: &Document<'_>) -> Result<Loaded<C>, Vec<Problem>> {
        let mut invalid = Vec::new();
        let root = Node::root::<C>();
        check(root, root, "", &self.values, &mut invalid);
        // The rest is checked too, with the defaults in place of what is wrong.
        let defaults = tree(&C::default());
        for Invalid { key, .. } in &invalid {
            put_back(&mut self.values, &defaults, key);
        }
        let config = serde_json::from_value::<C>(self.values.clone());
        match &config {
            Ok(config) => invalid.extend(config.invalid()),
            Err(error) if invalid.is_empty() => {
                return Err(vec![problem(None, error.to_string())]);
            }
            Err(_) => {}
        }
        match config {
            Ok(config) if invalid.is_empty() => Ok(Loaded {
                config,
                sources: self.sources,
                warnings: self.warnings,
            }),
            _ => {
                let mut problems: Vec<Problem> =
                    invalid.into_iter().map(|i| self.place(i, file)).collect();
                problems.sort_by_key(|problem| match &problem.source {
                    Some(Source::File(_, line)) => *line,
                    _ => usize::MAX,
                });
                Err(problems)
            }
        }
    }

    /// Where a value was said, as near as can be.
    fn place(&self, invalid: Invalid, file: &Document<'_>) -> Problem {
        let mut said = self.sources.get(&invalid.key);
        let mut outer = invalid.key.as_str();
        while said.is_none()
            && let Some(end) = outer.rfind(['.', '['])
        {
            outer = &outer[..end];
            said = self.sources.get(outer);
        }
        let source = match said {
            Some(Source::File(..)) | None => file.locate(&invalid.key),
            Some(other) => Some(other.clone()),
        };
        Problem {
            source,
            key: invalid.key,
            reason: invalid.reason,
        }
    }
}

/// Makes a key what it is by default: the list if it is of an element.
fn put_back(values: &mut Value, defaults: &Value, key: &str) {
    let key = key.split('[').next().unwrap_or_default();
    let (table, name) = key.rsplit_once('.').unwrap_or(("", key));
    let pointer = match table {
        "" => String::new(),
        table => format!("/{}", table.replace('.', "/")),
    };
    let default = defaults.pointer(&pointer).and_then(|table| table.get(name));
    if let Some(Value::Object(table)) = values.pointer_mut(&pointer) {
        match default {
            Some(default) => drop(table.insert(name.to_owned(), default.clone())),
            None => drop(table.remove(name)),
        }
    }
}

/// The variable of each key that has one: lists of tables have none.
fn variables<'a>(
    prefix: &str,
    node: Node<'a>,
    key: &str,
    known: &mut Vec<(String, String, Node<'a>)>,
) {
    for (name, node) in node.keys().into_iter().flatten() {
        let key = join(key, name);
        if node.keys().is_some() {
            variables(prefix, node, &key, known);
        } else if node.element().is_none_or(|e| e.keys().is_none()) {
            let variable = format!("{prefix}{}", key.replace('.', "_").to_uppercase());
            known.push((variable, key, node));
        }
    }
}

/// What the text of a variable says; what is not of the key's kind stays text, and is refused as such.
fn from_text(node: Node<'_>, text: &str) -> Value {
    let said = match node.kind() {
        "boolean" => text.parse().ok().map(Value::Bool),
        "integer" => text.parse::<i64>().ok().map(Value::from),
        "array" => Some(text.split(',').map(str::trim).map(Value::from).collect()),
        _ => None,
    };
    said.unwrap_or_else(|| Value::from(text))
}

fn json(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::from(text.as_ref()),
        DeValue::Boolean(value) => Value::Bool(*value),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or_else(|_| Value::from(number.to_string()), Value::from),
        DeValue::Float(number) => number
            .as_str()
            .parse::<f64>()
            .map_or_else(|_| Value::from(number.as_str()), Value::from),
        DeValue::Datetime(time) => Value::from(time.to_string()),
        DeValue::Array(values) => values.iter().map(|value| json(value.get_ref())).collect(),
        DeValue::Table(table) => table
            .iter()
            .map(|(name, value)| (name.get_ref().to_string(), json(value.get_ref())))
            .collect(),
    }
}

/// The file, with the places of its keys.
struct Document<'a> {
    path: PathBuf,
    text: &'a str,
    table: &'a DeTable<'a>,
}

impl Document<'_> {
    fn at(&self, offset: usize) -> Source {
        let before = self.text.get(..offset).unwrap_or_default();
        Source::File(self.path.clone(), 1 + before.matches('\n').count())
    }

    /// Where a key is, or what it would be in.
    fn locate(&self, key: &str) -> Option<Source> {
        let mut found = None;
        let mut table = Some(self.table);
        for name in key.split('.') {
            let (name, index) = match name.split_once('[') {
                Some((name, index)) => (name, index.trim_end_matches(']').parse().ok()),
                None => (name, None::<usize>),
            };
            let mut entries = table.into_iter().flat_map(|table| table.iter());
            let Some((key, value)) = entries.find(|(key, _)| key.get_ref().as_ref() == name) else {
                break;
            };
            found = Some(key.span().start);
            let mut value = value;
            if let (Some(index), DeValue::Array(values)) = (index, value.get_ref())
                && let Some(element) = values.get(index)
            {
                found = Some(element.span().start);
                value = element;
            }
            table = match value.get_ref() {
                DeValue::Table(table) => Some(table),
                _ => None,
            };
        }
        found.map(|offset| self.at(offset))
    }
}
