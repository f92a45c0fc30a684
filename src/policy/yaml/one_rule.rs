//! One rule alone, as text.

use std::fmt::{self, Write};

use super::super::canonical::write_rule;
use super::super::error::{PolicyError, PolicyErrorKind, Position};
use super::super::rule::Rule;
use super::read::Result;
use super::tree::{self, Entry, Node, Value};

impl Rule {
    /// Parses one rule as it stands in the list of a policy: YAML, so JSON too. Without a priority it
    /// has that of the first one of a list, 10.
    ///
    /// What a rule must hold to beside the policy (that its sets are there, say) is left to
    /// [`Policy::change`](crate::Policy::change) and [`PolicyBuilder::build`](super::super::PolicyBuilder::build).
    ///
    /// ```
    /// use xdpgate::policy::{Action, Rule};
    ///
    /// let rule = Rule::from_yaml("{ id: block, match: { src: 203.0.113.7 }, action: drop }")?;
    /// assert_eq!((rule.priority, &rule.action), (10, &Action::Drop));
    /// assert_eq!(Rule::from_yaml(&rule.to_json())?, rule);
    /// # Ok::<(), xdpgate::PolicyError>(())
    /// ```
    ///
    /// # Errors
    /// As for [`Policy::from_yaml`](crate::Policy::from_yaml), but for what is left out as said.
    pub fn from_yaml(text: &str) -> Result<Self> {
        if text.trim().is_empty() {
            let error = PolicyError::new(PolicyErrorKind::Syntax, "the rule is empty")
                .mend("write { id: block, match: { src: 203.0.113.7 }, action: drop }");
            return Err(error.at(Position { line: 1, column: 1 }));
        }
        super::rule::rule(&tree::parse(text)?, 0)
    }

    /// The rule in canonical form, as JSON on one line: see [`Policy::to_yaml`](crate::Policy::to_yaml).
    /// [`Rule::from_yaml`] reads it back as an equal rule.
    ///
    /// ```
    /// use xdpgate::policy::Rule;
    ///
    /// let rule = Rule::from_yaml("{ id: web, match: { dport: [80, 443], preset: tcp_rst }, action: pass }")?;
    /// assert_eq!(
    ///     rule.to_json(),
    ///     r#"{"id":"web","priority":10,"match":{"protocol":"tcp","dport":[80,443],"tcp_flags":"RST"},"action":"pass"}"#,
    /// );
    /// # Ok::<(), xdpgate::PolicyError>(())
    /// ```
    pub fn to_json(&self) -> String {
        let mut yaml = String::new();
        let mut out = String::new();
        // Writing to a string does not fail, and the canonical text is a list of this one rule.
        let _ = write_rule(&mut yaml, self);
        let Ok(root) = tree::parse(&yaml) else {
            return out;
        };
        if let Value::List(items) = &root.value {
            for rule in items {
                let _ = write_rule_node(&mut out, rule);
            }
        }
        out
    }
}

/// The rule, whose own keys say what their values are.
fn write_rule_node(out: &mut String, rule: &Node<'_>) -> fmt::Result {
    let Value::Map(entries) = &rule.value else {
        return write_node(out, rule, false);
    };
    write_map(out, entries, |key| TYPED.contains(&key))
}

fn write_map(out: &mut String, entries: &[Entry<'_>], typed: impl Fn(&str) -> bool) -> fmt::Result {
    out.write_char('{')?;
    for (i, entry) in entries.iter().enumerate() {
        out.write_str(if i > 0 { "," } else { "" })?;
        write_text(out, &entry.key)?;
        out.write_char(':')?;
        write_node(out, &entry.node, typed(&entry.key))?;
    }
    out.write_char('}')
}

/// `typed`: numbers and truth values are meant as such, and not as text.
fn write_node(out: &mut String, node: &Node<'_>, typed: bool) -> fmt::Result {
    match &node.value {
        Value::Null | Value::Extra(_) => out.write_str("null"),
        Value::Scalar(text) if typed && is_literal(text) => out.write_str(text),
        Value::Scalar(text) => write_text(out, text),
        Value::List(items) => {
            out.write_char('[')?;
            for (i, item) in items.iter().enumerate() {
                out.write_str(if i > 0 { "," } else { "" })?;
                write_node(out, item, typed)?;
            }
            out.write_char(']')
        }
        Value::Map(entries) => write_map(out, entries, |_| typed),
    }
}

/// The keys of a rule whose values, and all within, may be numbers and truth values.
const TYPED: &[&str] = &["priority", "match", "action", "enabled"];

fn is_literal(text: &str) -> bool {
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    is_number || text == "true" || text == "false"
}

/// A JSON string: RFC 8259, section 7.
fn write_text(out: &mut String, text: &str) -> fmt::Result {
    out.write_char('"')?;
    for c in text.chars() {
        match c {
            '"' | '\\' => write!(out, "\\{c}")?,
            // YAML takes fewer characters as they are than JSON does.
            c if c.is_control() || ('\u{2028}'..='\u{2029}').contains(&c) || is_bmp_end(c) => {
                write!(out, "\\u{:04x}", u32::from(c))?;
            }
            c => out.write_char(c)?,
        }
    }
    out.write_char('"')
}

fn is_bmp_end(c: char) -> bool {
    matches!(c, '\u{fffe}' | '\u{ffff}' | '\u{feff}')
}
