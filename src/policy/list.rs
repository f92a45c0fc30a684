//! Address lists: files of one address or prefix a line, as blocklist feeds publish them.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::address::{Prefix, PrefixParseError, mask32};
use super::set::AddressSet;

/// Why an address list was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListError {
    /// A line does not start with an address or prefix.
    #[error("{}{line}: {source}", OptionalPath(.path))]
    Entry {
        /// The file; `None` for a list that was given as text.
        path: Option<PathBuf>,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        source: PrefixParseError,
    },
    /// The file cannot be read.
    #[error("{}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

struct OptionalPath<'a>(&'a Option<PathBuf>);

impl fmt::Display for OptionalPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(path) => write!(f, "{}:", path.display()),
            None => f.write_str("line "),
        }
    }
}

impl AddressSet {
    /// The set of all entries of a list.
    ///
    /// One address or prefix a line. What follows it behind a blank, tab, comma or semicolon is
    /// ignored, as are empty lines and lines that start with `#` or `;`. Both line endings are
    /// understood. No entry of a list expires.
    ///
    /// ```
    /// use xdpgate::policy::AddressSet;
    ///
    /// let set = AddressSet::from_list("# feed of today\n203.0.113.7\t12\n2001:db8::/32\n")?;
    /// assert_eq!(set.len(), 2);
    /// # Ok::<(), xdpgate::policy::ListError>(())
    /// ```
    ///
    /// # Errors
    /// [`ListError::Entry`] for the first line that starts with anything else, host bits beyond a
    /// prefix length included.
    pub fn from_list(text: &str) -> Result<Self, ListError> {
        parse(text.as_bytes()).map_err(|(line, source)| ListError::Entry {
            path: None,
            line,
            source,
        })
    }

    /// Reads a list file; see [`AddressSet::from_list`] for what it may hold.
    ///
    /// # Errors
    /// [`ListError::Read`] if the file cannot be read, else as for [`AddressSet::from_list`].
    pub fn read_list(path: impl AsRef<Path>) -> Result<Self, ListError> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(|source| ListError::Read {
            path: path.to_owned(),
            source,
        })?;
        parse(&bytes).map_err(|(line, source)| ListError::Entry {
            path: Some(path.to_owned()),
            line,
            source,
        })
    }
}

/// Bytes, because feeds carry comments and columns in whatever encoding.
fn parse(mut rest: &[u8]) -> Result<AddressSet, (usize, PrefixParseError)> {
    let mut set = AddressSet::default();
    let mut line = 0;
    rest = rest.strip_prefix("\u{feff}".as_bytes()).unwrap_or(rest);
    while !rest.is_empty() {
        line += 1;
        while let [b' ' | b'\t' | b'\r', tail @ ..] = rest {
            rest = tail;
        }
        if !matches!(rest, [] | [b'\n' | b'#' | b';', ..]) {
            rest = match ipv4(rest) {
                Some((addr, 32, tail)) => {
                    set.v4_hosts.push(addr);
                    tail
                }
                Some((addr, len, tail)) => {
                    set.v4_prefixes.push((addr, len));
                    tail
                }
                None => {
                    let (column, tail) = rest.split_at(column_end(rest));
                    let column = String::from_utf8_lossy(column);
                    set.push(column.parse::<Prefix>().map_err(|e| (line, e))?, None);
                    tail
                }
            };
        }
        rest = match rest.iter().position(|b| *b == b'\n') {
            Some(end) => &rest[end + 1..],
            None => &[],
        };
    }
    set.finish();
    Ok(set)
}

fn ends_column(byte: u8) -> bool {
    byte.is_ascii_whitespace() || matches!(byte, b',' | b';' | b'#')
}

fn column_end(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .position(|b| ends_column(*b))
        .unwrap_or(bytes.len())
}

/// The common case without the detour over `str`: a well-formed IPv4 address or prefix and the end
/// of its column. All else is `None` and left to [`Prefix::from_str`](std::str::FromStr), which
/// knows what is wrong with it.
fn ipv4(bytes: &[u8]) -> Option<(u32, u8, &[u8])> {
    let octet = |bytes| decimal(bytes, 3).filter(|(n, _)| *n <= 255);
    let (mut addr, mut rest) = octet(bytes)?;
    for _ in 0..3 {
        let (next, tail) = octet(rest.strip_prefix(b".")?)?;
        (addr, rest) = (addr << 8 | next, tail);
    }
    let mut len = 32;
    if let Some(tail) = rest.strip_prefix(b"/") {
        (len, rest) = decimal(tail, 2)?;
    }
    let len = u8::try_from(len)
        .ok()
        .filter(|l| *l <= 32 && addr & !mask32(*l) == 0)?;
    rest.first()
        .is_none_or(|b| ends_column(*b))
        .then_some((addr, len, rest))
}

/// A decimal number without leading zeros and what follows it.
fn decimal(bytes: &[u8], max_digits: usize) -> Option<(u32, &[u8])> {
    let digits = bytes
        .iter()
        .take(max_digits)
        .take_while(|b| b.is_ascii_digit())
        .count();
    if digits == 0 || (digits > 1 && bytes[0] == b'0') {
        return None;
    }
    let value = bytes[..digits]
        .iter()
        .fold(0, |n, b| n * 10 + u32::from(b - b'0'));
    Some((value, &bytes[digits..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Vec<String> {
        AddressSet::from_list(text)
            .unwrap()
            .iter()
            .map(|p| p.to_string())
            .collect()
    }

    #[test]
    fn columns_comments_and_line_endings() {
        let text = "\u{feff}# IPsum\r\n; DROP\r\n\r\n  1.2.3.4\t10\r\n5.6.7.0/24;SBL1\n\
                    9.9.9.9,ads # x\n2001:db8::1 y\n::/0#z\n0.0.0.0/0";
        let entries = [
            "1.2.3.4",
            "9.9.9.9",
            "0.0.0.0/0",
            "5.6.7.0/24",
            "2001:db8::1",
            "::/0",
        ];
        assert_eq!(list(text), entries);
        assert!(list("").is_empty());
        assert_eq!(list("1.1.1.1\n1.1.1.1"), ["1.1.1.1"]);
    }

    #[test]
    fn the_fast_path_accepts_what_the_slow_one_does() {
        for text in [
            "1.2.3.4",
            "255.255.255.255/32",
            "10.0.0.0/8",
            "0.0.0.0/0",
            "1.2.3.4/32",
        ] {
            let prefix: Prefix = text.parse().unwrap();
            let (addr, len, rest) = ipv4(text.as_bytes()).unwrap();
            assert_eq!(
                Prefix::new(std::net::Ipv4Addr::from_bits(addr).into(), len),
                Some(prefix)
            );
            assert!(rest.is_empty());
        }
        for text in [
            "256.1.1.1",
            "1.2.3",
            "1.2.3.4.5",
            "1.2.3.4/33",
            "1.2.3.4/8",
            "01.2.3.4",
        ] {
            assert!(ipv4(text.as_bytes()).is_none(), "{text}");
            assert!(text.parse::<Prefix>().is_err(), "{text}");
        }
    }

    #[test]
    fn errors_name_the_line() {
        let error = |text| AddressSet::from_list(text).unwrap_err().to_string();
        let reason = "\"nonsense\" is not an IPv4 or IPv6 address or prefix";
        assert_eq!(
            error("1.1.1.1\n\nnonsense here\n"),
            format!("line 3: {reason}")
        );
        assert!(error("1.2.3.4-1.2.3.9").starts_with("line 1: "));
        assert!(error("10.0.0.1/8").ends_with("did you mean 10.0.0.0/8?"));
    }
}
