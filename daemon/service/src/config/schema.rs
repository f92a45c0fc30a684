//! The JSON Schema of the configuration, and what one can ask of a place in it.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::Configuration;

/// The schema of a configuration, without references. The order of its keys is that of the structs.
pub fn schema_of<C: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
    });
    settings.into_generator().into_root_schema_for::<C>().into()
}

/// The JSON Schema of the file, as text.
pub fn json_schema<C: Configuration>() -> String {
    format!("{:#}\n", C::schema())
}

/// A place in the schema.
#[derive(Debug, Clone, Copy)]
pub(super) struct Node<'a>(&'a Value);

impl Node<'static> {
    pub(super) fn root<C: Configuration>() -> Self {
        Node(C::schema())
    }
}

impl<'a> Node<'a> {
    /// The keys of a table, in their order; `None` if it is none.
    pub(super) fn keys(self) -> Option<impl Iterator<Item = (&'a str, Node<'a>)>> {
        let properties = self.content().0.get("properties")?.as_object()?;
        Some(
            properties
                .iter()
                .map(|(key, schema)| (key.as_str(), Node(schema))),
        )
    }

    pub(super) fn key(self, key: &str) -> Option<Node<'a>> {
        self.content().0.get("properties")?.get(key).map(Node)
    }

    /// What the elements of a list are; `None` if it is none.
    pub(super) fn element(self) -> Option<Node<'a>> {
        self.content().0.get("items").map(Node)
    }

    /// Keys that a table must have.
    pub(super) fn required(self) -> impl Iterator<Item = &'a str> {
        let required = self.content().0.get("required").and_then(Value::as_array);
        required.into_iter().flatten().filter_map(Value::as_str)
    }

    /// What it says of itself, in paragraphs.
    pub(super) fn doc(self) -> Option<&'a str> {
        let doc = |node: Node<'a>| node.0.get("description").and_then(Value::as_str);
        doc(self)
            .or_else(|| doc(self.content()))
            .or_else(|| self.element().and_then(Node::doc))
    }

    /// A value to show where there is no default.
    pub(super) fn example(self) -> Option<&'a Value> {
        self.0.get("examples")?.as_array()?.first()
    }

    pub(super) fn default(self) -> Option<&'a Value> {
        self.0.get("default")
    }

    /// The words that are taken, and what they mean; none if others are.
    pub(super) fn words(self) -> Vec<(&'a str, Option<&'a str>)> {
        let content = self.content().0;
        let list = |key: &str| {
            content
                .get(key)
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
        };
        let plain = list("enum")
            .filter_map(Value::as_str)
            .map(|word| (word, None));
        let explained = list("oneOf").filter_map(|one| {
            let word = one.get("const")?.as_str()?;
            Some((word, one.get("description").and_then(Value::as_str)))
        });
        let several = list("oneOf")
            .filter_map(|one| one.get("enum")?.as_array())
            .flatten()
            .filter_map(|word| Some((word.as_str()?, None)));
        plain.chain(explained).chain(several).collect()
    }

    /// `string`, `integer`, `boolean`, `array`, `object`, `number`.
    pub(super) fn kind(self) -> &'a str {
        let kind = self.content().0.get("type");
        match kind {
            Some(Value::String(kind)) => kind,
            // With null: it may be left out.
            Some(Value::Array(kinds)) => kinds
                .iter()
                .filter_map(Value::as_str)
                .find(|kind| *kind != "null")
                .unwrap_or_default(),
            _ => "string",
        }
    }

    /// The least and the greatest whole number.
    pub(super) fn range(self) -> (i64, i64) {
        let content = self.content().0;
        let bound = |key: &str| content.get(key).and_then(Value::as_i64);
        let format = content.get("format").and_then(Value::as_str);
        let greatest = match format {
            Some("uint8") => u8::MAX.into(),
            Some("uint16") => u16::MAX.into(),
            Some("uint32") => u32::MAX.into(),
            _ => i64::MAX,
        };
        (
            bound("minimum").unwrap_or(i64::MIN),
            bound("maximum").unwrap_or(greatest),
        )
    }

    /// Without the null by which it may be left out.
    fn content(self) -> Node<'a> {
        let choices = self.0.get("anyOf").and_then(Value::as_array);
        let content = choices.and_then(|choices| {
            let is_null = |choice: &&Value| choice.get("type") == Some(&Value::from("null"));
            choices.iter().find(|choice| !is_null(choice))
        });
        content.map_or(self, Node)
    }
}
