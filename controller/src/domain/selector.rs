//! Which nodes: a condition over labels.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Labels;
use super::labels::{is_name, is_value};

/// A condition over labels, all parts of which must hold. The empty one holds for every node.
///
/// Written as in Kubernetes: `env=prod,tier in (a,b),zone!=x,disk notin (old),gpu,!legacy`. As there, `!=` and `notin`
/// hold for nodes without the label too.
///
/// ```
/// use xdpgate_controller::domain::{Labels, Selector};
///
/// let selector: Selector = "env=prod,tier in (a, b),!legacy".parse()?;
/// let labels = |text: &[(&str, &str)]| -> Labels {
///     text.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
/// };
/// assert!(selector.holds(&labels(&[("env", "prod"), ("tier", "b")])));
/// assert!(!selector.holds(&labels(&[("env", "prod"), ("tier", "c")])));
/// assert!(!selector.holds(&labels(&[("env", "prod"), ("tier", "a"), ("legacy", "")])));
/// assert_eq!(selector.to_string(), "env=prod,tier in (a,b),!legacy");
/// # Ok::<(), xdpgate_controller::domain::SelectorError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Selector(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    label: String,
    test: Test,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Absent,
}

/// Why a text is no selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("selector: {reason} at {place:?}; write for example env=prod,tier in (a,b),!legacy")]
pub struct SelectorError {
    reason: &'static str,
    /// What was left to read.
    place: String,
}

impl Selector {
    /// Whether it holds for a node with these labels.
    pub fn holds(&self, labels: &Labels) -> bool {
        self.0.iter().all(|Part { label, test }| {
            let value = labels.get(label);
            match test {
                Test::In(values) => value.is_some_and(|value| values.contains(value)),
                Test::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
                Test::Exists => value.is_some(),
                Test::Absent => value.is_none(),
            }
        })
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let mut reader = Reader(text.trim());
        let mut parts = Vec::new();
        while !reader.0.is_empty() {
            parts.push(reader.part()?);
            if !reader.eat(",") {
                break;
            }
            if reader.0.is_empty() {
                return Err(reader.error("a condition is missing after the comma"));
            }
        }
        if !reader.0.is_empty() {
            return Err(reader.error("a comma or the end is expected"));
        }
        Ok(Self(parts))
    }
}

struct Reader<'a>(&'a str);

impl<'a> Reader<'a> {
    fn part(&mut self) -> Result<Part, SelectorError> {
        if self.eat("!") {
            let label = self.label()?;
            return Ok(Part {
                label,
                test: Test::Absent,
            });
        }
        let label = self.label()?;
        let test = if self.eat("!=") {
            Test::NotIn(vec![self.value()?])
        } else if self.eat("==") || self.eat("=") {
            Test::In(vec![self.value()?])
        } else if self.eat_word("in") {
            Test::In(self.values()?)
        } else if self.eat_word("notin") {
            Test::NotIn(self.values()?)
        } else {
            Test::Exists
        };
        Ok(Part { label, test })
    }

    fn values(&mut self) -> Result<Vec<String>, SelectorError> {
        if !self.eat("(") {
            return Err(self.error("a list in parentheses is expected"));
        }
        let mut values = vec![self.value()?];
        while self.eat(",") {
            values.push(self.value()?);
        }
        if !self.eat(")") {
            return Err(self.error("a comma or \")\" is expected"));
        }
        values.sort();
        values.dedup();
        Ok(values)
    }

    fn label(&mut self) -> Result<String, SelectorError> {
        let word = self.word();
        if !is_name(word) {
            return Err(self.error("the name of a label is expected"));
        }
        Ok(self.take(word))
    }

    fn value(&mut self) -> Result<String, SelectorError> {
        let word = self.word();
        if !is_value(word) {
            return Err(self.error("the value of a label is expected"));
        }
        Ok(self.take(word))
    }

    /// What stands here up to a character that neither names nor values have.
    fn word(&self) -> &'a str {
        let ends = |c: char| !(c.is_ascii_alphanumeric() || "._-/".contains(c));
        self.0.split(ends).next().unwrap_or("")
    }

    fn take(&mut self, word: &str) -> String {
        self.0 = self.0[word.len()..].trim_start();
        word.to_owned()
    }

    fn eat(&mut self, mark: &str) -> bool {
        match self.0.strip_prefix(mark) {
            Some(rest) => {
                self.0 = rest.trim_start();
                true
            }
            None => false,
        }
    }

    fn eat_word(&mut self, word: &str) -> bool {
        self.word() == word && self.eat(word)
    }

    fn error(&self, reason: &'static str) -> SelectorError {
        let place = self.0.chars().take(40).collect();
        SelectorError { reason, place }
    }
}

/// In canonical form.
impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, Part { label, test }) in self.0.iter().enumerate() {
            f.write_str(if i > 0 { "," } else { "" })?;
            match test {
                Test::In(values) => match &values[..] {
                    [value] => write!(f, "{label}={value}")?,
                    _ => write!(f, "{label} in ({})", values.join(","))?,
                },
                Test::NotIn(values) => match &values[..] {
                    [value] => write!(f, "{label}!={value}")?,
                    _ => write!(f, "{label} notin ({})", values.join(","))?,
                },
                Test::Exists => f.write_str(label)?,
                Test::Absent => write!(f, "!{label}")?,
            }
        }
        Ok(())
    }
}

impl TryFrom<String> for Selector {
    type Error = SelectorError;

    fn try_from(text: String) -> Result<Self, SelectorError> {
        text.parse()
    }
}

impl From<Selector> for String {
    fn from(selector: Selector) -> Self {
        selector.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (text, reason) in [
            ("env=", ""),
            ("=prod", "the name of a label"),
            ("env=prod,", "missing after the comma"),
            ("env in a", "a list in parentheses"),
            ("env in (a", "a comma or \")\""),
            ("env prod", "a comma or the end"),
            ("a b=c", "a comma or the end"),
            ("!", "the name of a label"),
            ("env=pr od", "a comma or the end"),
        ] {
            let parsed = text.parse::<Selector>();
            if reason.is_empty() {
                assert!(parsed.is_ok(), "{text}: an empty value is a value");
                continue;
            }
            let error = parsed.expect_err(text).to_string();
            assert!(error.contains(reason), "{text}: {error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn each_test_holds_as_in_kubernetes() {
        let labels: Labels = [("env", "prod"), ("in", "x"), ("empty", "")]
            .map(|(n, v)| (n.to_owned(), v.to_owned()))
            .into();
        for (text, holds) in [
            ("", true),
            ("env", true),
            ("!env", false),
            ("other", false),
            ("!other", true),
            ("env=prod", true),
            ("env==prod", true),
            ("env = prod , in = x", true),
            ("env!=prod", false),
            ("other!=prod", true),
            ("env in (dev,prod)", true),
            ("env notin (dev)", true),
            ("other notin (dev)", true),
            ("env notin (dev, prod)", false),
            ("in in (x)", true),
            ("in", true),
            ("empty=", true),
            ("env=dev", false),
        ] {
            let selector: Selector = text.parse().expect(text);
            assert_eq!(selector.holds(&labels), holds, "{text}");
            let again: Selector = selector.to_string().parse().expect("canonical");
            assert_eq!(again, selector, "{text}");
        }
    }
}
