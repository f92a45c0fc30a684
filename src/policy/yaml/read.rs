//! Typed values out of the tree; each error names the place, the reason and what is wanted.

use std::collections::HashSet;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;

use super::super::error::{PolicyError, PolicyErrorKind};
use super::super::names::{self, Names};
use super::super::suggest;
use super::tree::{self, Entry, Node, Value};

use PolicyErrorKind::{Duplicate, InvalidValue, MissingKey, UnknownKey, WrongType};

pub(super) type Result<T> = std::result::Result<T, PolicyError>;

impl<'a> Node<'a> {
    /// An error at this node.
    pub(super) fn error(&self, kind: PolicyErrorKind, reason: impl Into<String>) -> PolicyError {
        PolicyError::new(kind, reason.into()).at(self.position)
    }

    /// The value of the node is not allowed.
    pub(super) fn invalid(&self, reason: impl Into<String>) -> PolicyError {
        self.error(InvalidValue, reason)
    }

    /// The node is not of the type that is wanted.
    pub(super) fn unlike(&self, wanted: &str) -> PolicyError {
        let is = match &self.value {
            Value::Null => "nothing is given".to_owned(),
            Value::Scalar(text) => format!("{} is not {wanted}", quote(text)),
            Value::List(_) => "a list is given".to_owned(),
            Value::Map(_) => "a mapping is given".to_owned(),
            Value::Extra(sign) => return tree::extra(*sign).at(self.position),
        };
        let error = self.error(WrongType, is);
        match &self.value {
            Value::Scalar(_) => error,
            Value::Map(entries) if entries.iter().any(|e| looks_like_ipv6(&e.key)) => {
                error.mend("quote IPv6 addresses that end with a colon")
            }
            _ => error.mend(format!("{wanted} is wanted")),
        }
    }

    /// Text as it stands.
    pub(super) fn text(&self, wanted: &str) -> Result<&str> {
        match &self.value {
            Value::Scalar(text) => Ok(text),
            _ => Err(self.unlike(wanted)),
        }
    }

    pub(super) fn free_text(&self) -> Result<String> {
        self.text("text").map(str::to_owned)
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(&self, names: Names<T>) -> Result<T> {
        let words: Vec<&str> = names.iter().map(|(n, _)| *n).collect();
        let text = self.text(&format!("one of {}", words.join(", ")))?;
        names::value_of(names, text).ok_or_else(|| {
            self.invalid(format!("{} is not known", quote(text)))
                .mend(did_you_mean(text, &words))
        })
    }

    pub(super) fn truth(&self) -> Result<bool> {
        match self.text("true or false")? {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(self.unlike("true or false")),
        }
    }

    /// A whole number from 0 to `max`, in decimal digits only.
    pub(super) fn number<T: TryFrom<u64>>(&self, max: u64) -> Result<T> {
        let text = self.text(&format!("a number from 0 to {max}"))?;
        decimal(text, max)
            .ok_or_else(|| self.invalid(format!("{} is not a number from 0 to {max}", quote(text))))
    }

    /// A number or an inclusive range `a-b`.
    pub(super) fn range<T: TryFrom<u64> + Copy + Ord>(&self, max: u64) -> Result<(T, T)> {
        let wanted = format!("a number or a range a-b from 0 to {max}");
        let text = self.text(&wanted)?;
        let (lo, hi) = text.split_once('-').unwrap_or((text, text));
        let (Some(from), Some(to)) = (decimal(lo, max), decimal(hi, max)) else {
            return Err(self.invalid(format!("{} is not {wanted}", quote(text))));
        };
        if from > to {
            let reason = format!("the range {text} is reversed");
            return Err(self.invalid(reason).mend(format!("write {hi}-{lo}")));
        }
        Ok((from, to))
    }

    /// When a rule or an entry expires: RFC 3339 in UTC, which is less than what jiff reads.
    pub(super) fn expires(&self) -> Result<Timestamp> {
        let text = self.text("a time as 2030-01-01T00:00:00Z")?;
        let plain = |t: &&str| {
            t.as_bytes().get(10) == Some(&b'T')
                && t.bytes()
                    .all(|b| b.is_ascii_digit() || b"-:.T".contains(&b))
        };
        let civil = text.strip_suffix('Z').filter(plain);
        let civil: Option<DateTime> = civil.and_then(|t| t.parse().ok());
        let Some(civil) = civil else {
            return Err(self
                .invalid(format!("{} is not a time in UTC", quote(text)))
                .mend("write it as 2030-01-01T00:00:00Z"));
        };
        match Offset::UTC.to_timestamp(civil) {
            Ok(at) if at < Timestamp::UNIX_EPOCH => Err(self.invalid("before 1970")),
            Ok(at) => Ok(at),
            Err(_) => Err(self
                .invalid(format!("after {:.0}, which is the last", Timestamp::MAX))
                .mend("leave it out for what never expires")),
        }
    }

    /// The items of a list that is not empty.
    pub(super) fn list(&self, wanted: &str) -> Result<&[Node<'a>]> {
        match &self.value {
            Value::List(items) if items.is_empty() => Err(self
                .invalid("an empty list")
                .mend("leave the key out, or give it an item")),
            Value::List(items) => Ok(items),
            _ => Err(self.unlike(wanted)),
        }
    }

    /// The items of a list that is not empty, or the node itself.
    pub(super) fn one_or_more(&self) -> Result<&[Node<'a>]> {
        match self.value {
            Value::List(_) => self.list(""),
            _ => Ok(std::slice::from_ref(self)),
        }
    }

    /// The entries of a mapping with any keys, none of them twice.
    pub(super) fn entries(&self) -> Result<&[Entry<'a>]> {
        let Value::Map(entries) = &self.value else {
            return Err(self.unlike("a mapping"));
        };
        let mut seen = HashSet::with_capacity(entries.len());
        match entries.iter().find(|e| !seen.insert(&*e.key)) {
            Some(twice) => Err(PolicyError::new(Duplicate, "the key is there twice")
                .at(twice.position)
                .in_field(&printable(&twice.key))),
            None => Ok(entries),
        }
    }

    /// The fields of a mapping with these keys and no others.
    pub(super) fn fields(&self, keys: &[&str]) -> Result<Fields<'_, 'a>> {
        let entries = self.entries()?;
        match entries.iter().find(|e| !keys.contains(&&*e.key)) {
            Some(other) => Err(PolicyError::new(UnknownKey, "unknown key")
                .mend(did_you_mean(&other.key, keys))
                .at(other.position)
                .in_field(&printable(&other.key))),
            None => Ok(Fields {
                node: self,
                entries,
            }),
        }
    }

    /// Whether a mapping is meant: IPv6 addresses that end with a colon, too, make one out of what
    /// was meant as text.
    pub(super) fn is_mapping(&self) -> bool {
        matches!(&self.value, Value::Map(entries) if entries.iter().all(|e| !e.key.contains(':')))
    }

    /// The value behind a key, whatever the node is.
    pub(super) fn value(&self, key: &str) -> Option<&Node<'a>> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|e| e.key == key).map(|e| &e.node),
            _ => None,
        }
    }

    /// The first scalar in or below this node that has this text.
    pub(super) fn find(&self, wanted: &str) -> Option<&Node<'a>> {
        match &self.value {
            Value::Scalar(text) => (text == wanted).then_some(self),
            Value::Null | Value::Extra(_) => None,
            Value::List(items) => items.iter().find_map(|n| n.find(wanted)),
            Value::Map(entries) => entries.iter().find_map(|e| e.node.find(wanted)),
        }
    }
}

/// A mapping whose keys are all known.
#[derive(Clone, Copy)]
pub(super) struct Fields<'n, 'a> {
    node: &'n Node<'a>,
    entries: &'n [Entry<'a>],
}

impl<'n, 'a> Fields<'n, 'a> {
    pub(super) fn get(&self, key: &str) -> Option<&'n Node<'a>> {
        self.entries.iter().find(|e| e.key == key).map(|e| &e.node)
    }

    /// The value behind a key, if the key is there.
    pub(super) fn read<T>(
        &self,
        key: &str,
        read: impl FnOnce(&'n Node<'a>) -> Result<T>,
    ) -> Result<Option<T>> {
        self.get(key)
            .map(|node| read(node).map_err(|e| e.in_field(key)))
            .transpose()
    }

    /// The value behind a key that must be there.
    pub(super) fn require<T>(
        &self,
        key: &str,
        mend: &str,
        read: impl FnOnce(&'n Node<'a>) -> Result<T>,
    ) -> Result<T> {
        self.read(key, read)?.ok_or_else(|| {
            self.node
                .error(MissingKey, "missing")
                .mend(mend.to_owned())
                .in_field(key)
        })
    }
}

/// Decimal digits; no sign, no leading zero, which some read as octal.
fn decimal<T: TryFrom<u64>>(text: &str, max: u64) -> Option<T> {
    let plain = text.bytes().all(|b| b.is_ascii_digit());
    let plain = plain && (text == "0" || !text.starts_with('0'));
    let number: u64 = text.parse().ok().filter(|n| plain && *n <= max)?;
    T::try_from(number).ok()
}

/// Text of the user in an error.
pub(super) fn quote(text: &str) -> String {
    format!("\"{}\"", printable(text))
}

/// On one line and not too long.
pub(super) fn printable(text: &str) -> String {
    const MAX: usize = 80;
    let mut out: String = text
        .chars()
        .take(MAX)
        .flat_map(char::escape_debug)
        .collect();
    if text.chars().nth(MAX).is_some() {
        out.push_str("...");
    }
    out
}

fn did_you_mean(word: &str, known: &[&str]) -> String {
    let all = known.join(", ");
    match suggest::nearest(word, known.iter().copied()) {
        Some(near) => format!("did you mean \"{near}\"? Known are {all}"),
        None => format!("known are {all}"),
    }
}

fn looks_like_ipv6(key: &str) -> bool {
    key.contains(':') && key.bytes().all(|b| b.is_ascii_hexdigit() || b == b':')
}
