//! YAML as JSON values: the part of it that policy files have, with no anchors, aliases and tags.

use saphyr_parser::{Event, Parser, ScalarStyle, Span, StrInput};
use serde_json::{Map, Number, Value};

/// Nothing that is read here is nested half as deep.
const MAX_DEPTH: usize = 32;

/// The documents of a text, each with the line in which it starts.
pub(super) fn documents(text: &str) -> Result<Vec<(usize, Value)>, String> {
    let mut reader = Reader(Parser::new_from_str(text));
    let mut all = Vec::new();
    loop {
        match reader.next()? {
            (Event::DocumentStart(_), _) => {
                let (event, span) = reader.next()?;
                let value = reader.value(event, &span, 0)?;
                if !value.is_null() {
                    all.push((span.start.line(), value));
                }
            }
            (Event::StreamEnd, _) => return Ok(all),
            _ => {}
        }
    }
}

/// One value.
pub(super) fn value(text: &str) -> Result<Value, String> {
    let mut all = documents(text)?;
    match all.len() {
        0 => Ok(Value::Null),
        1 => Ok(all.remove(0).1),
        _ => Err("it has several documents".to_owned()),
    }
}

struct Reader<'a>(Parser<'a, StrInput<'a>>);

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), String> {
        match self.0.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => {
                let at = error.marker();
                Err(format!(
                    "line {}, column {}: not YAML: {}",
                    at.line(),
                    at.col() + 1,
                    error.info()
                ))
            }
            None => Err("it ends too early".to_owned()),
        }
    }

    fn value(&mut self, event: Event<'a>, span: &Span, depth: usize) -> Result<Value, String> {
        let wrong = |what: &str| {
            Err(format!(
                "line {}, column {}: {what}",
                span.start.line(),
                span.start.col() + 1
            ))
        };
        if depth > MAX_DEPTH {
            return wrong("it is nested too deep");
        }
        match event {
            Event::Scalar(text, style, 0, None) => Ok(scalar(&text, style)),
            Event::SequenceStart(0, None) => {
                let mut items = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => return Ok(Value::Array(items)),
                        (event, span) => items.push(self.value(event, &span, depth + 1)?),
                    }
                }
            }
            Event::MappingStart(0, None) => {
                let mut fields = Map::new();
                loop {
                    let (key, span) = match self.next()? {
                        (Event::MappingEnd, _) => return Ok(Value::Object(fields)),
                        (Event::Scalar(key, _, 0, None), span) => (key.into_owned(), span),
                        (_, span) => {
                            return Err(format!(
                                "line {}: a key must be a word",
                                span.start.line()
                            ));
                        }
                    };
                    if fields.contains_key(&key) {
                        return Err(format!("line {}: {key} is there twice", span.start.line()));
                    }
                    let (event, span) = self.next()?;
                    let value = self.value(event, &span, depth + 1)?;
                    fields.insert(key, value);
                }
            }
            _ => wrong(
                "anchors, aliases and tags are not taken: quote text that starts with &, * or !",
            ),
        }
    }
}

/// By the core schema, but that numbers are decimal.
fn scalar(text: &str, style: ScalarStyle) -> Value {
    if style != ScalarStyle::Plain {
        return text.into();
    }
    match text {
        "" | "~" | "null" => return Value::Null,
        "true" => return true.into(),
        "false" => return false.into(),
        _ => {}
    }
    // Only what is written as numbers are, so that no text changes on its way.
    let number = text
        .parse::<u64>()
        .map(Number::from)
        .or_else(|_| text.parse::<i64>().map(Number::from));
    let number = number
        .ok()
        .or_else(|| Number::from_f64(text.parse::<f64>().ok()?));
    match number.filter(|number| number.to_string() == text) {
        Some(number) => Value::Number(number),
        None => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{documents, value};

    #[test]
    fn values() {
        let text = "a: 1\nb: [x, '7', 007, 1.5, -3]\nc: {d: null, e: true}\nf: 10.0.0.1\ni: 1.10\ng: 2001:db8::/32\nh:\n";
        let expected = json!({
            "a": 1, "b": ["x", "7", "007", 1.5, -3], "c": { "d": null, "e": true }, "f": "10.0.0.1", "i": "1.10", "g": "2001:db8::/32", "h": null,
        });
        assert_eq!(value(text).unwrap(), expected);
        assert_eq!(
            documents("---\na: 1\n---\nb: 2\n").unwrap(),
            [(2, json!({ "a": 1 })), (4, json!({ "b": 2 }))]
        );
        for (wrong, says) in [
            ("a: &x 1", "anchors"),
            ("a: *x", "line 1"),
            ("a: 1\na: 2", "twice"),
            ("a: [", "line"),
        ] {
            let error = value(wrong).unwrap_err();
            assert!(error.contains(says), "{wrong}: {error}");
        }
    }
}
