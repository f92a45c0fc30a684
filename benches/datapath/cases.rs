//! The policies that are measured and the packets that are judged by them.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use xdpgate::policy::{
    Action, AddressItem, AddressMatch, AddressSet, Policy, Prefix, Rule, RuleId, SetName,
};

/// One policy with packets that hit it and packets that miss it.
pub struct Case {
    pub name: String,
    pub v6: bool,
    /// What the `block` set holds; empty for the policy without rules.
    pub entries: Vec<Prefix>,
    pub hits: Vec<[u8; 64]>,
    pub misses: Vec<[u8; 64]>,
}

impl Case {
    /// One rule: drop what comes from the set.
    pub fn policy(&self) -> Policy {
        if self.entries.is_empty() {
            return Policy::builder().build().expect("an empty policy");
        }
        let set = SetName::new("block").expect("a name");
        let mut rule = Rule::new(RuleId::new("block").expect("an id"), 10, Action::Drop);
        rule.matches.src = Some(AddressMatch {
            negated: false,
            items: vec![AddressItem::Set(set.clone())],
        });
        let entries = AddressSet::from_prefixes(self.entries.iter().copied());
        Policy::builder()
            .set(set, entries)
            .rule(rule)
            .build()
            .expect("a block list")
    }

    /// Whether the floor of this case is the kernel's LPM trie rather than its hash.
    pub fn has_prefixes(&self) -> bool {
        self.entries.iter().any(|p| !p.is_host())
    }
}

/// A bijection of 32-bit numbers, so that random addresses never repeat.
fn mix32(mut x: u32) -> u32 {
    x ^= x >> 16;
    x = x.wrapping_mul(0x7feb_352d);
    x ^= x >> 15;
    x = x.wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}

fn v4(i: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(mix32(i)))
}

fn v6(i: u32) -> IpAddr {
    let words = [mix32(i), mix32(i ^ 0x5bd1_e995), mix32(i.wrapping_add(77))].map(u128::from);
    IpAddr::V6(Ipv6Addr::from_bits(
        0x2001 << 112 | words[0] << 80 | words[1] << 48 | words[2],
    ))
}

/// The first 64 bytes of L3 of a TCP packet from this source.
fn flow(src: IpAddr, port: u16) -> [u8; 64] {
    let mut b = [0; 64];
    let l4 = match src {
        IpAddr::V4(a) => {
            b[..4].copy_from_slice(&[0x45, 0, 0, 64]);
            b[8..10].copy_from_slice(&[64, 6]);
            b[12..16].copy_from_slice(&a.octets());
            b[16..20].copy_from_slice(&[198, 18, 0, 1]);
            20
        }
        IpAddr::V6(a) => {
            b[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, 24, 6, 64]);
            b[8..24].copy_from_slice(&a.octets());
            b[24..40].copy_from_slice(&"2001:db8::1".parse::<Ipv6Addr>().expect("it is").octets());
            40
        }
    };
    b[l4..l4 + 2].copy_from_slice(&port.to_be_bytes());
    b[l4 + 2..l4 + 4].copy_from_slice(&443u16.to_be_bytes());
    b[l4 + 12..l4 + 14].copy_from_slice(&[0x50, 0x02]);
    b
}

/// A power of two of flows: enough to leave the caches at this many entries.
fn flow_count(entries: usize) -> u32 {
    match entries {
        0..=1024 => 1 << 16,
        1025..=131_072 => 1 << 18,
        _ => 1 << 20,
    }
}

fn flows(count: u32, source: impl Fn(u32) -> IpAddr) -> Vec<[u8; 64]> {
    (0..count)
        .map(|i| flow(source(mix32(i ^ 0x9e37)), 1024 + (i % 60_000) as u16))
        .collect()
}

/// `count` random hosts.
pub fn hosts(count: u32, is_v6: bool) -> Case {
    let address = if is_v6 { v6 } else { v4 };
    let flow_total = flow_count(count as usize);
    Case {
        name: format!(
            "{} hosts {}",
            if is_v6 { "v6" } else { "v4" },
            short(count as usize)
        ),
        v6: is_v6,
        entries: (0..count).map(|i| Prefix::host(address(i))).collect(),
        hits: flows(flow_total, |r| address(r % count)),
        misses: flows(flow_total, |r| {
            address(count + 2_000_000 + r % 2_000_000_000)
        }),
    }
}

/// `count` random prefixes, IPv4 /12 to /31 or IPv6 /32 to /64, none nested in another's hits.
pub fn prefixes(count: u32, is_v6: bool) -> Case {
    let prefix = |i: u32| {
        let r = mix32(i ^ 0x1234_5678) % 100;
        match if is_v6 { v6(i) } else { v4(i) } {
            IpAddr::V4(a) => {
                let len = if r < 60 {
                    24
                } else if r < 80 {
                    25 + (r % 7) as u8
                } else {
                    20 + (r % 4) as u8
                };
                let a = a.to_bits() & (u32::MAX << (32 - len));
                Prefix::new(IpAddr::V4(Ipv4Addr::from_bits(a)), len)
            }
            IpAddr::V6(a) => {
                let len = if r < 50 {
                    48
                } else if r < 75 {
                    64
                } else {
                    32 + (r % 32) as u8
                };
                let a = a.to_bits() & (u128::MAX << (128 - len));
                Prefix::new(IpAddr::V6(Ipv6Addr::from_bits(a)), len)
            }
        }
        .expect("masked")
    };
    let entries: Vec<Prefix> = (0..count).map(prefix).collect();
    let set = AddressSet::from_prefixes(entries.iter().copied());
    let flow_total = flow_count(count as usize);
    let misses = |r: u32| {
        let address = if is_v6 { v6 } else { v4 };
        (0..)
            .map(|k| address(r.wrapping_add(k << 8) | 1 << 31))
            .find(|a| !set.contains(*a))
    };
    Case {
        name: format!(
            "{} prefixes {}",
            if is_v6 { "v6" } else { "v4" },
            short(count as usize)
        ),
        v6: is_v6,
        hits: flows(flow_total, |r| entries[(r % count) as usize].addr()),
        misses: flows(flow_total, |r| misses(r).expect("an address outside")),
        entries,
    }
}

/// The policy without rules.
pub fn no_rules(is_v6: bool) -> Case {
    let address = if is_v6 { v6 } else { v4 };
    Case {
        name: format!("no rules {}", if is_v6 { "v6" } else { "v4" }),
        v6: is_v6,
        entries: Vec::new(),
        hits: Vec::new(),
        misses: flows(1 << 16, address),
    }
}

/// The ipsum list, if the data folder is there.
pub fn ipsum() -> Option<Case> {
    let path = data_dir()?.join("lists/ipsum.txt.gz");
    let mut child = Command::new("gzip")
        .arg("-dc")
        .arg(path)
        .stdout(Stdio::piped())
        .spawn()
        .ok()?;
    let mut text = String::new();
    child.stdout.take()?.read_to_string(&mut text).ok()?;
    child.wait().ok().filter(|s| s.success())?;
    let set = AddressSet::from_list(&text).ok()?;
    let entries: Vec<Prefix> = set.iter().collect();
    let count = entries.len() as u32;
    let flow_total = flow_count(entries.len());
    let misses = |r: u32| {
        (0..)
            .map(|k| v4(r.wrapping_add(k)))
            .find(|a| !set.contains(*a))
    };
    Some(Case {
        name: format!("ipsum {}", short(entries.len())),
        v6: false,
        hits: flows(flow_total, |r| entries[(r % count) as usize].addr()),
        misses: flows(flow_total, |r| misses(r).expect("an address outside")),
        entries,
    })
}

fn data_dir() -> Option<PathBuf> {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data");
    let dir = std::env::var_os("XDPGATE_DATA").map_or(beside, PathBuf::from);
    dir.is_dir().then_some(dir)
}

fn short(n: usize) -> String {
    match n {
        n if n >= 1_000_000 && n.is_multiple_of(1_000_000) => format!("{}M", n / 1_000_000),
        n if n >= 1000 => format!("{}k", n / 1000),
        n => n.to_string(),
    }
}
