//! What goes to stdout: tables and lines of what the API answers, or its JSON.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use serde_json::Value;
use xdpgate_service::Failure;
use xdpgate_service::table::{Align, Cell, Table};

use super::remote::items;

/// A column: its heading, and where its values are (a JSON pointer).
pub(super) type Column<'a> = (&'a str, &'a str);

/// Prints text.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut out = anstream::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|e| Failure::output(&e))
}

/// Prints JSON, indented.
pub(super) fn print_json(value: &Value) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(Failure::operation)?;
    raw(&(text + "\n"))
}

/// Prints text as it is.
pub(super) fn raw(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|e| Failure::output(&e))
}

/// Prints an answer: as JSON if that is asked for, else as what `text` makes of it.
pub(super) fn answer(
    as_json: bool,
    value: &Value,
    text: impl FnOnce(&Value) -> String,
) -> Result<(), Failure> {
    match as_json {
        true => print_json(value),
        false => print(&text(value)),
    }
}

/// Prints the items of a list.
pub(super) fn list(as_json: bool, page: &Value, columns: &[Column<'_>]) -> Result<(), Failure> {
    answer(as_json, page, |page| {
        let mut text = table(items(page), columns);
        let more = page.get("next").is_some();
        if more {
            text += "There are more: ask for them by --limit.\n";
        }
        text
    })
}

/// A table of values. Columns of numbers align as such.
pub(super) fn table(rows: &[Value], columns: &[Column<'_>]) -> String {
    if rows.is_empty() {
        return "none\n".to_owned();
    }
    let numbers = |at: &str| {
        let mut values = rows
            .iter()
            .filter_map(|row| row.pointer(at))
            .filter(|v| !v.is_null());
        values.all(Value::is_number)
    };
    let heads: Vec<(&str, Align)> = columns
        .iter()
        .map(|(head, at)| {
            (
                *head,
                if numbers(at) {
                    Align::Right
                } else {
                    Align::Left
                },
            )
        })
        .collect();
    let mut table = Table::new(&heads);
    for row in rows {
        let cells = columns.iter().map(|(_, at)| Cell::from(at_text(row, at)));
        table.row_of(cells.collect());
    }
    table.to_string()
}

/// Lines with a name each; what is absent has none.
pub(super) fn fields(value: &Value, names: &[Column<'_>]) -> String {
    let width = names.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 2;
    let mut text = String::new();
    for (name, at) in names {
        let value = at_text(value, at);
        if !value.is_empty() {
            let head = format!("{name}:");
            // Writing to a string does not fail.
            let _ = writeln!(text, "{head:width$}{value}");
        }
    }
    text
}

/// What is at a place, for people.
pub(super) fn at_text(value: &Value, at: &str) -> String {
    value.pointer(at).map(plain).unwrap_or_default()
}

/// A value on one line, for people.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Number(number) => match number.as_f64().filter(|_| number.is_f64()) {
            Some(number) => format!("{number:.1}"),
            None => number.to_string(),
        },
        Value::String(text) => one_line(text),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(", "),
        Value::Object(fields) => {
            let pairs = fields
                .iter()
                .map(|(name, value)| format!("{name}={}", plain(value)));
            pairs.collect::<Vec<_>>().join(" ")
        }
    }
}

/// No control characters: they would reach the terminal.
fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{fields, table};

    #[test]
    fn tables_and_lines() {
        let rows = [
            json!({ "name": "web", "n": 5, "labels": { "env": "prod" }, "on": true }),
            json!({ "name": "evil\u{1b}[31m", "n": 123, "on": null }),
        ];
        let columns = [
            ("NAME", "/name"),
            ("N", "/n"),
            ("LABELS", "/labels"),
            ("ON", "/on"),
        ];
        let text = anstream::adapter::strip_str(&table(&rows, &columns)).to_string();
        assert_eq!(
            text,
            "NAME         N  LABELS    ON\nweb          5  env=prod  yes\nevil [31m  123\n"
        );
        assert_eq!(
            fields(
                &rows[0],
                &[("name", "/name"), ("labels", "/labels"), ("gone", "/x")]
            ),
            "name:   web\nlabels: env=prod\n"
        );
    }
}
