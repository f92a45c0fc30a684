//! The small pools that random policies and random frames draw from, so that they meet.
//!
//! The prefixes are nested and the addresses sit on both sides of their borders.

/// IPv4 prefixes (first address, length), several deep.
pub const V4_PREFIXES: &[(u32, u8)] = &[
    (v4(0, 0, 0, 0), 0),
    (v4(10, 0, 0, 0), 8),
    (v4(10, 1, 0, 0), 16),
    (v4(10, 1, 2, 0), 23),
    (v4(10, 1, 2, 0), 24),
    (v4(10, 1, 2, 128), 25),
    (v4(10, 1, 2, 3), 32),
    (v4(10, 1, 2, 200), 32),
    (v4(10, 200, 0, 0), 13),
    (v4(192, 0, 2, 0), 24),
    (v4(192, 0, 2, 7), 32),
    (v4(198, 51, 100, 0), 31),
    (v4(128, 0, 0, 0), 1),
];

/// IPv4 addresses in and around [`V4_PREFIXES`].
pub const V4_ADDRESSES: &[u32] = &[
    v4(10, 1, 2, 3),
    v4(10, 1, 2, 4),
    v4(10, 1, 2, 200),
    v4(10, 1, 2, 127),
    v4(10, 1, 3, 255),
    v4(10, 1, 4, 0),
    v4(10, 2, 0, 1),
    v4(10, 207, 255, 255),
    v4(10, 208, 0, 0),
    v4(11, 0, 0, 0),
    v4(9, 255, 255, 255),
    v4(127, 255, 255, 255),
    v4(192, 0, 2, 7),
    v4(192, 0, 2, 8),
    v4(198, 51, 100, 1),
    v4(198, 51, 100, 2),
    v4(0, 0, 0, 0),
    v4(255, 255, 255, 255),
];

/// IPv6 prefixes (first address, length), several deep; one holds all v4-mapped addresses.
pub const V6_PREFIXES: &[(u128, u8)] = &[
    (0, 0),
    (DOC, 32),
    (DOC | 1 << 80, 48),
    (DOC | 1 << 80, 64),
    (DOC | 1 << 80, 65),
    (DOC | 1 << 80, 127),
    (DOC | 1 << 80 | 1, 128),
    (DOC | 1 << 80 | 2 << 64, 64),
    (DOC | 1 << 80 | 2 << 64 | 5, 128),
    (0xfe80 << 112, 10),
    (0xffff << 32, 96),
    (1 << 127, 1),
];

/// IPv6 addresses in and around [`V6_PREFIXES`].
pub const V6_ADDRESSES: &[u128] = &[
    DOC | 1 << 80,
    DOC | 1 << 80 | 1,
    DOC | 1 << 80 | 2,
    DOC | 1 << 80 | 1 << 63,
    DOC | 1 << 80 | 2 << 64 | 5,
    DOC | 1 << 80 | 2 << 64 | 6,
    DOC | 2 << 80 | 1,
    DOC - 1,
    DOC + (1 << 96),
    (0xfe80 << 112) | 1,
    0xffff << 32 | v4(10, 1, 2, 3) as u128,
    0,
    1,
    u128::MAX,
];

/// Ports, with neighbours and both ends.
pub const PORTS: &[u16] = &[
    0, 1, 22, 53, 67, 68, 79, 80, 81, 443, 546, 547, 1023, 1024, 8000, 8999, 9000, 65535,
];

/// Protocols: those with L4 fields, some without, and IPv6 extension headers.
pub const PROTOCOLS: &[u8] = &[
    6, 17, 1, 58, 132, 136, 33, 2, 47, 50, 51, 41, 44, 59, 0, 255,
];

/// VLAN ids.
pub const VLANS: &[u16] = &[0, 1, 10, 100, 4094, 4095];

/// Interface names, of which random policies may name some or globs of them.
pub const INTERFACES: &[&str] = &["eth0", "eth1", "wan0"];

/// When rules and entries of sets expire, in seconds and nanoseconds: the time at which random frames come
/// (1970), next to it, far from it, and the last one there is.
pub const EXPIRIES: &[(i64, i32)] = &[
    (0, 0),
    (0, 1),
    (1, 0),
    (1_893_456_000, 0),
    (1_893_456_000, 500_000_000),
    (253_402_207_200, 999_999_999),
];

/// 2001:db8::
const DOC: u128 = 0x2001_0db8 << 96;

const fn v4(a: u8, b: u8, c: u8, d: u8) -> u32 {
    u32::from_be_bytes([a, b, c, d])
}

/// Management traffic of a host: ports of [`PORTS`], one that shares its lowest bits with another, and
/// peers among the addresses.
pub fn management() -> Vec<xdpgate::Management> {
    use xdpgate::ManagementPort::{Local, Remote};
    let flow = |peer: &str, port| xdpgate::Management::new(peer.parse().unwrap(), port);
    vec![
        flow("10.1.2.0/24", Local(443)),
        flow("0.0.0.0/0", Local(1024)),
        flow("192.0.2.7", Remote(8000)),
        flow("2001:db8::/32", Local(80)),
        flow("::/0", Remote(1023)),
    ]
}
