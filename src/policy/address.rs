//! Addresses, prefixes, and what a match asks of them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// An IP address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

/// An address and a prefix length, without host bits. A host is a prefix of full length.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    addr: IpAddr,
    len: u8,
}

impl Prefix {
    /// A prefix; `None` if `len` is too long for the family or `addr` has bits beyond it.
    pub fn new(addr: IpAddr, len: u8) -> Option<Self> {
        let (bits, width) = match addr {
            IpAddr::V4(a) => (u128::from(a.to_bits()) << 96, 32),
            IpAddr::V6(a) => (a.to_bits(), 128),
        };
        (len <= width && bits & !mask128(len) == 0).then_some(Self { addr, len })
    }

    /// The prefix of full length that holds only this address.
    pub fn host(addr: IpAddr) -> Self {
        Self {
            addr,
            len: if addr.is_ipv4() { 32 } else { 128 },
        }
    }

    /// The prefix of these bits, none of which is beyond `len`.
    pub(super) fn v4(bits: u32, len: u8) -> Self {
        Self {
            addr: IpAddr::V4(Ipv4Addr::from_bits(bits)),
            len,
        }
    }

    /// The prefix of these bits, none of which is beyond `len`.
    pub(super) fn v6(bits: u128, len: u8) -> Self {
        Self {
            addr: IpAddr::V6(Ipv6Addr::from_bits(bits)),
            len,
        }
    }

    /// The first address of the prefix.
    pub fn addr(&self) -> IpAddr {
        self.addr
    }

    /// The prefix length in bits.
    #[allow(
        clippy::len_without_is_empty,
        reason = "a prefix length, not a container's"
    )]
    pub fn len(&self) -> u8 {
        self.len
    }

    /// The family of the prefix.
    pub fn family(&self) -> Family {
        if self.addr.is_ipv4() {
            Family::Ipv4
        } else {
            Family::Ipv6
        }
    }

    /// Whether the prefix stands for one address only.
    pub fn is_host(&self) -> bool {
        self.len == if self.addr.is_ipv4() { 32 } else { 128 }
    }

    /// Whether `addr` is of the prefix's family and inside it.
    pub fn contains(&self, addr: IpAddr) -> bool {
        match (self.addr, addr) {
            (IpAddr::V4(p), IpAddr::V4(a)) => a.to_bits() & mask32(self.len) == p.to_bits(),
            (IpAddr::V6(p), IpAddr::V6(a)) => a.to_bits() & mask128(self.len) == p.to_bits(),
            _ => false,
        }
    }
}

/// The network mask of an IPv4 prefix length.
pub(crate) fn mask32(len: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0)
}

/// The network mask of an IPv6 prefix length.
pub(crate) fn mask128(len: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0)
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_host() {
            write!(f, "{}", self.addr)
        } else {
            write!(f, "{}/{}", self.addr, self.len)
        }
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is not a prefix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PrefixParseError {
    /// The part before the slash is not an address.
    #[error("{0:?} is not an IPv4 or IPv6 address or prefix")]
    Address(String),
    /// The part after the slash is not a length that the family has.
    #[error("{text:?}: the prefix length must be a number from 0 to {max}")]
    Length {
        /// The text, shortened if it is very long.
        text: String,
        /// The longest prefix length of the family.
        max: u8,
    },
    /// Bits beyond the prefix length are set.
    #[error("{text:?} has bits set beyond the prefix length; did you mean {suggestion}?")]
    HostBits {
        /// The text, shortened if it is very long.
        text: String,
        /// The same prefix with these bits cleared.
        suggestion: Prefix,
    },
}

impl FromStr for Prefix {
    type Err = PrefixParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (addr, len) = match text.split_once('/') {
            Some((addr, len)) => (addr, Some(len)),
            None => (text, None),
        };
        let addr: IpAddr = addr
            .parse()
            .map_err(|_| PrefixParseError::Address(shorten(text)))?;
        let max = if addr.is_ipv4() { 32 } else { 128 };
        let len = match len {
            None => max,
            Some(l) => l
                .parse::<u8>()
                .ok()
                .filter(|n| *n <= max && l.bytes().all(|b| b.is_ascii_digit()))
                .filter(|_| l == "0" || !l.starts_with('0'))
                .ok_or_else(|| PrefixParseError::Length {
                    text: text.to_owned(),
                    max,
                })?,
        };
        Self::new(addr, len).ok_or_else(|| PrefixParseError::HostBits {
            text: text.to_owned(),
            suggestion: match addr {
                IpAddr::V4(a) => Self::v4(a.to_bits() & mask32(len), len),
                IpAddr::V6(a) => Self::v6(a.to_bits() & mask128(len), len),
            },
        })
    }
}

/// Text for an error: a line of a file may be of any length.
pub(super) fn shorten(text: &str) -> String {
    const MAX: usize = 64;
    match text.char_indices().nth(MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// The name of an address set: `[a-zA-Z0-9._-]{1,64}`, written `@name` in a match.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SetName(pub(crate) String);

impl SetName {
    /// A set name; `None` unless it is 1 to 64 characters of `[a-zA-Z0-9._-]`.
    pub fn new(name: &str) -> Option<Self> {
        super::rule::is_identifier(name).then(|| Self(name.to_owned()))
    }

    /// The name without the `@`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One item of an address match.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AddressItem {
    /// An address or prefix.
    Prefix(Prefix),
    /// A named set of the same policy.
    Set(SetName),
}

/// What a source or destination address must be: in any of the items, or in none of them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AddressMatch {
    /// `true`: the address must be in none of the items. Plain negation: every IPv6 address is
    /// outside of 10.0.0.0/8.
    pub negated: bool,
    /// Prefixes and sets, at least one.
    pub items: Vec<AddressItem>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        text.parse::<Prefix>().unwrap_err().to_string()
    }

    #[test]
    fn prefixes_round_trip() {
        for text in [
            "0.0.0.0/0",
            "10.0.0.0/8",
            "203.0.113.7",
            "::/0",
            "2001:db8::/32",
            "fe80::1",
        ] {
            assert_eq!(text.parse::<Prefix>().unwrap().to_string(), text);
        }
        assert_eq!(
            "10.0.0.1/32".parse::<Prefix>().unwrap().to_string(),
            "10.0.0.1"
        );
    }

    #[test]
    fn mapped_addresses_stay_ipv6() {
        let mapped: Prefix = "::ffff:10.0.0.1".parse().unwrap();
        assert_eq!(mapped.family(), Family::Ipv6);
        assert!(
            !"10.0.0.0/8"
                .parse::<Prefix>()
                .unwrap()
                .contains(mapped.addr())
        );
    }

    #[test]
    fn host_bits_are_refused_with_the_mend() {
        assert!(error("10.0.0.1/8").ends_with("did you mean 10.0.0.0/8?"));
        assert!(error("2001:db8::1/32").ends_with("did you mean 2001:db8::/32?"));
        assert_eq!(Prefix::new("10.0.0.1".parse().unwrap(), 8), None);
    }

    #[test]
    fn lengths_are_of_the_family() {
        for text in [
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0.0.0/08",
            "::/129",
        ] {
            assert!(error(text).contains("prefix length"), "{text}");
        }
    }

    #[test]
    fn contains_at_the_edges() {
        let inside = |prefix: &str, addr: &str| {
            prefix
                .parse::<Prefix>()
                .unwrap()
                .contains(addr.parse().unwrap())
        };
        assert!(inside("10.0.0.0/8", "10.255.255.255"));
        assert!(!inside("10.0.0.0/8", "11.0.0.0"));
        assert!(inside("0.0.0.0/0", "255.255.255.255"));
        assert!(!inside("0.0.0.0/0", "::"));
        assert!(inside("::/0", "ffff::"));
        assert!(!inside("2001:db8::/127", "2001:db8::2"));
    }

    #[test]
    fn long_text_is_shortened() {
        assert!(error(&"x".repeat(10_000)).len() < 200);
    }
}
