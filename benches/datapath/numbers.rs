//! Pseudo-random numbers and addresses, the same in every run.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

#[path = "../../tests/common/random.rs"]
pub mod random;
pub use random::{Random, mix32};

/// The `i`-th IPv4 address.
pub fn v4(i: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(mix32(i)))
}

/// The `i`-th IPv6 address, in 2001::/16.
pub fn v6(i: u32) -> IpAddr {
    let words = [mix32(i), mix32(i ^ 0x5bd1_e995), mix32(i.wrapping_add(77))].map(u128::from);
    IpAddr::V6(Ipv6Addr::from_bits(
        0x2001 << 112 | words[0] << 80 | words[1] << 48 | words[2],
    ))
}

/// The `i`-th address of a family.
pub fn address(is_v6: bool, i: u32) -> IpAddr {
    if is_v6 { v6(i) } else { v4(i) }
}

/// `950`, `1k`, `175k`, `1M`.
pub fn short(n: usize) -> String {
    match n {
        n if n >= 1_000_000 && n.is_multiple_of(1_000_000) => format!("{}M", n / 1_000_000),
        n if n >= 1000 => format!("{}k", n / 1000),
        n => n.to_string(),
    }
}
