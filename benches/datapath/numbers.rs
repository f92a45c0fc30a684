//! Pseudo-random numbers and addresses, the same in every run.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A bijection of 32-bit numbers, so that random addresses never repeat.
pub fn mix32(mut x: u32) -> u32 {
    x ^= x >> 16;
    x = x.wrapping_mul(0x7feb_352d);
    x ^= x >> 15;
    x = x.wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}

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

/// A stream of random numbers (xorshift).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed ^ 0x9e37_79b9_7f4a_7c15)
    }

    pub fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(2_685_821_657_736_338_717) >> 32) as u32
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u32) -> u32 {
        self.next() % end
    }

    /// A number from `first` to `last`, both included.
    pub fn within(&mut self, first: u16, last: u16) -> u16 {
        first + self.below(u32::from(last - first) + 1) as u16
    }
}

/// `950`, `1k`, `175k`, `1M`.
pub fn short(n: usize) -> String {
    match n {
        n if n >= 1_000_000 && n.is_multiple_of(1_000_000) => format!("{}M", n / 1_000_000),
        n if n >= 1000 => format!("{}k", n / 1000),
        n => n.to_string(),
    }
}
