//! Address sets that come in parts.

use jiff::Timestamp;

use super::address::{Family, Prefix};
use super::set::{AddressSet, EntryCounters};

/// Makes an [`AddressSet`] of entries that come little by little: it holds what the set will hold, 4
/// bytes for an IPv4 host, and nothing of the text or message that an entry came in.
///
/// ```
/// use xdpgate::policy::{AddressSetBuilder, EntryCounters, Family};
///
/// let mut builder = AddressSetBuilder::default();
/// builder.push("2001:db8::/32".parse()?, None);
/// builder.push_packed(Family::Ipv4, &[203, 0, 113, 7, 32, 198, 51, 100, 0, 24])?;
/// assert_eq!(builder.pushed(), 3);
/// let set = builder.build(EntryCounters::None);
/// assert!(set.contains("198.51.100.9".parse()?));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct AddressSetBuilder {
    set: AddressSet,
    pushed: usize,
}

/// Why packed entries were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PackedError {
    /// The bytes are no whole number of entries.
    #[error(
        "{bytes} bytes are no whole number of entries: one takes {each}, address and prefix length"
    )]
    Length {
        /// How many bytes there are.
        bytes: usize,
        /// How many an entry takes: 5 or 17.
        each: usize,
    },
    /// An entry is no prefix.
    #[error(
        "entry {index}: {address}/{len} is no prefix: the length must be at most {most}, and no bit \
         beyond it be set"
    )]
    Entry {
        /// Its place, from 0.
        index: usize,
        /// The address.
        address: std::net::IpAddr,
        /// The prefix length.
        len: u8,
        /// The longest prefix length of the family.
        most: u8,
    },
}

impl AddressSetBuilder {
    /// Adds an entry, with the time from which on it is not in the set, or `None` if it never expires.
    /// One that is there already lasts as long as the longer of both.
    pub fn push(&mut self, prefix: Prefix, expires: Option<Timestamp>) {
        self.set.push(prefix, expires);
        self.pushed += 1;
    }

    /// Adds packed entries, none of which expires: 4 or 16 bytes of an address in network order and one
    /// of the prefix length each. Returns how many there were.
    ///
    /// # Errors
    /// The bytes are not such entries. Those before the one at fault are added.
    pub fn push_packed(&mut self, family: Family, packed: &[u8]) -> Result<usize, PackedError> {
        let (each, most) = match family {
            Family::Ipv4 => (5, 32),
            Family::Ipv6 => (17, 128),
        };
        let bytes = packed.len();
        if !bytes.is_multiple_of(each) {
            return Err(PackedError::Length { bytes, each });
        }
        for (index, entry) in packed.chunks_exact(each).enumerate() {
            let len = entry[each - 1];
            let address = match *entry {
                [a, b, c, d, _] => [a, b, c, d].into(),
                _ => {
                    let mut octets = [0; 16];
                    octets.copy_from_slice(&entry[..16]);
                    octets.into()
                }
            };
            let prefix = Prefix::new(address, len).ok_or(PackedError::Entry {
                index,
                address,
                len,
                most,
            })?;
            self.push(prefix, None);
        }
        Ok(bytes / each)
    }

    /// How many entries were added, repeats counted.
    pub fn pushed(&self) -> usize {
        self.pushed
    }

    /// The set, with these counters.
    pub fn build(mut self, counters: EntryCounters) -> AddressSet {
        self.set.finish();
        self.set.with_counters(counters)
    }
}
