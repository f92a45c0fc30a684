//! The forms in which address lists are published.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use xdpgate::policy::{AddressSet, Prefix};

/// The form of a feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// By what it looks like: Spamhaus' JSON if its first line is an object, else a list.
    #[default]
    Auto,
    /// An address or prefix at the beginning of each line, `#` or `;` before comments: plain lists, CIDR lists, and
    /// Spamhaus DROP as text.
    List,
    /// A list with a number behind each address, as [ipsum](https://github.com/stamparm/ipsum): on how many lists it is.
    Ipsum,
    /// Spamhaus DROP as JSON: an object on each line, with `cidr`, as <https://www.spamhaus.org/drop/drop_v4.json>.
    DropJson,
}

/// Why the text of a feed is no list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FeedError {
    /// A line is not what its form says.
    #[error("line {line}: {reason}")]
    Line {
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// It is a page for people.
    #[error("it is a page of HTML, not a list: look at the address")]
    Html,
}

/// The addresses of a feed. With [`Format::Ipsum`] those that are on `at_least` lists.
///
/// # Errors
/// The first line that is wrong. Nothing is left out in silence.
pub fn parse(text: &str, format: Format, at_least: u32) -> Result<AddressSet, FeedError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let beginning = text.trim_start();
    if beginning.get(..1) == Some("<") {
        return Err(FeedError::Html);
    }
    match format {
        Format::Auto if beginning.starts_with('{') => drop_json(text),
        Format::DropJson => drop_json(text),
        Format::Ipsum => ipsum(text, at_least),
        Format::Auto | Format::List => list(text),
    }
}

fn list(text: &str) -> Result<AddressSet, FeedError> {
    AddressSet::from_list(text).map_err(|error| match error {
        xdpgate::policy::ListError::Entry { line, source, .. } => FeedError::Line {
            line,
            reason: source.to_string(),
        },
        other => FeedError::Line {
            line: 0,
            reason: other.to_string(),
        },
    })
}

fn ipsum(text: &str, at_least: u32) -> Result<AddressSet, FeedError> {
    let mut kept = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let wrong = |reason: String| FeedError::Line {
            line: index + 1,
            reason,
        };
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut columns = line.split_whitespace();
        let (Some(address), Some(count)) = (columns.next(), columns.next()) else {
            return Err(wrong(format!("{line:?} is not an address and a number")));
        };
        let address: Prefix = address.parse().map_err(|e| wrong(format!("{e}")))?;
        let count: u32 = count
            .parse()
            .map_err(|_| wrong(format!("{count:?} is not the number of lists")))?;
        if count >= at_least {
            kept.push(address);
        }
    }
    Ok(AddressSet::from_prefixes(kept))
}

/// A line of Spamhaus' JSON: a prefix, or at the end what the file is.
#[derive(Deserialize)]
struct DropLine {
    cidr: Option<String>,
    r#type: Option<String>,
}

fn drop_json(text: &str) -> Result<AddressSet, FeedError> {
    let mut kept = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let wrong = |reason: String| FeedError::Line {
            line: index + 1,
            reason,
        };
        if line.trim().is_empty() {
            continue;
        }
        let entry: DropLine = serde_json::from_str(line).map_err(|e| wrong(e.to_string()))?;
        match (entry.cidr, entry.r#type.as_deref()) {
            (Some(cidr), _) => {
                kept.push(cidr.parse::<Prefix>().map_err(|e| wrong(e.to_string()))?);
            }
            (None, Some("metadata")) => {}
            (None, _) => return Err(wrong("it has no cidr".to_owned())),
        }
    }
    Ok(AddressSet::from_prefixes(kept))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r117_each_form_is_read() {
        let plain = "# today\n203.0.113.7\n\n2001:db8::/32 # v6\n";
        assert_eq!(parse(plain, Format::Auto, 0).unwrap().len(), 2);
        let drop = "; Spamhaus DROP\n1.10.16.0/20 ; SBL256894\n1.19.0.0/16 ; SBL434604\n";
        assert_eq!(parse(drop, Format::Auto, 0).unwrap().len(), 2);
        let json = "{\"cidr\":\"1.10.16.0/20\",\"sblid\":\"SBL256894\",\"rir\":\"apnic\"}\n\
                    {\"type\":\"metadata\",\"timestamp\":1,\"size\":9,\"records\":1}\n";
        for format in [Format::Auto, Format::DropJson] {
            assert_eq!(parse(json, format, 0).unwrap().len(), 1);
        }
        let ipsum = "# IPsum\n203.0.113.7\t9\n203.0.113.8\t2\n";
        assert_eq!(parse(ipsum, Format::Ipsum, 3).unwrap().len(), 1);
        assert_eq!(parse(ipsum, Format::Ipsum, 1).unwrap().len(), 2);
        assert_eq!(parse(ipsum, Format::List, 9).unwrap().len(), 2);
    }

    #[test]
    fn r117_what_is_no_list_is_refused() {
        let line = |text: &str, format| match parse(text, format, 0).unwrap_err() {
            FeedError::Line { line, .. } => line,
            FeedError::Html => 0,
        };
        assert_eq!(line("<!doctype html><p>503</p>", Format::Auto), 0);
        assert_eq!(line("203.0.113.7\nnot found\n", Format::List), 2);
        assert_eq!(line("203.0.113.7 many\n", Format::Ipsum), 1);
        assert_eq!(line("203.0.113.7\n", Format::Ipsum), 1);
        assert_eq!(line("{\"sblid\":\"x\"}\n", Format::DropJson), 1);
        assert_eq!(line("{\"cidr\":\"1.10.16.1/20\"}\n", Format::DropJson), 1);
        assert_eq!(
            line("{\"cidr\":\"1.10.16.0/20\"}\n1.2.3.4\n", Format::Auto),
            2
        );
    }
}
