//! The entries of an address set: under family, address and prefix length, when each expires.

use std::net::IpAddr;

use bytes::Bytes;
use jiff::Timestamp;
use xdpgate::policy::Prefix;

use super::Shape;

/// An IPv4 entry has 8 bytes, and many are changed at once.
pub const SHAPE: Shape = Shape {
    mean: 32 << 10,
    max: 256 << 10,
};

/// The key of an entry: 4 or 6, the address in network order, the prefix length. IPv4 comes first, then by
/// address, wider prefixes before those in them.
pub fn key(prefix: Prefix) -> Bytes {
    let mut key = Vec::with_capacity(18);
    match prefix.addr() {
        IpAddr::V4(address) => {
            key.push(4);
            key.extend_from_slice(&address.octets());
        }
        IpAddr::V6(address) => {
            key.push(6);
            key.extend_from_slice(&address.octets());
        }
    }
    key.push(prefix.len());
    key.into()
}

/// When an entry expires: seconds since 1970, and nanoseconds if there are any; nothing if it does not expire.
pub fn value(expires: Option<Timestamp>) -> Bytes {
    let Some(expires) = expires else {
        return Bytes::new();
    };
    let mut value = expires.as_second().to_be_bytes().to_vec();
    if expires.subsec_nanosecond() != 0 {
        value.extend_from_slice(&expires.subsec_nanosecond().to_be_bytes());
    }
    value.into()
}

/// An entry as key and value.
pub fn entry(prefix: Prefix, expires: Option<Timestamp>) -> (Bytes, Bytes) {
    (key(prefix), value(expires))
}

/// The prefix of a key; `None` if it is not one.
pub fn prefix(key: &[u8]) -> Option<Prefix> {
    let (family, rest) = key.split_first()?;
    let (len, address) = rest.split_last()?;
    let address = match family {
        4 => IpAddr::from(<[u8; 4]>::try_from(address).ok()?),
        6 => IpAddr::from(<[u8; 16]>::try_from(address).ok()?),
        _ => return None,
    };
    Prefix::new(address, *len)
}

/// When an entry expires, by its value: `Some(None)` if never, `None` if the value is not one.
pub fn expires(value: &[u8]) -> Option<Option<Timestamp>> {
    if value.is_empty() {
        return Some(None);
    }
    let (seconds, rest) = value.split_first_chunk::<8>()?;
    let nanoseconds = match rest {
        [] => 0,
        rest => i32::from_be_bytes(rest.try_into().ok()?),
    };
    Timestamp::new(i64::from_be_bytes(*seconds), nanoseconds)
        .ok()
        .map(Some)
}
