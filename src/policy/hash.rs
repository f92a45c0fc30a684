//! The hash of a policy: the same for the same policy, wherever it came from.

#[cfg(feature = "kernel")]
mod request;

use std::fmt;
use std::net::IpAddr;

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::address::{AddressItem, AddressMatch, Family, Prefix};
use super::fields::{FragmentMatch, Ranges, VlanMatch};
use super::rule::{Action, Match, Mode, RateLimit, RateScope, RateUnit, Rule};
use super::set::{AddressSet, EntryCounters};
use super::{Policy, Verdict};
#[cfg(feature = "kernel")]
pub(crate) use request::{RequestBody, request_hash};

/// Named in every hash; a change of the encoding below takes another name, unless all that could be
/// said before keeps its bytes.
const FORMAT: &[u8] = b"xdpgate-policy-hash-1\n";

/// SHA-256 over all that a [`Policy`] says: equal for equal policies, on every host.
///
/// The order of rules and entries in the text, its comments, and whether a preset or its expansion
/// was written make no difference.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PolicyHash([u8; 32]);

impl PolicyHash {
    /// The 32 bytes of the hash.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for PolicyHash {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

/// 64 lower-case hexadecimal digits.
impl fmt::Display for PolicyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for PolicyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PolicyHash({self})")
    }
}

impl Policy {
    /// The hash of everything that this policy says.
    ///
    /// Takes some ten milliseconds for a set of a million hosts: the numbers are hashed, not their
    /// text.
    pub fn hash(&self) -> PolicyHash {
        let mut out = Encoder::new(FORMAT);
        out.verdict(self.default);
        out.verdict(self.malformed);
        out.flag(self.failsafe.enabled);
        out.list(&self.failsafe.ssh_from, |o, p| o.prefix(*p));
        out.count(self.sets.len());
        for (name, set) in &self.sets {
            out.text(name.as_str());
            out.set(set);
        }
        out.list(&self.rules, Encoder::rule);
        out.finish()
    }
}

/// Bytes are gathered up to this many before they are hashed.
const CHUNK: usize = 8192;

/// Writes values so that no two policies give the same bytes: fixed widths, big-endian, every list
/// and text behind its length, every optional value behind a flag.
struct Encoder {
    sha: Sha256,
    buffer: Vec<u8>,
}

impl Encoder {
    fn new(format: &[u8]) -> Self {
        let mut out = Self {
            sha: Sha256::new(),
            buffer: Vec::with_capacity(2 * CHUNK),
        };
        out.bytes(format);
        out
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK {
            self.sha.update(&self.buffer);
            self.buffer.clear();
        }
    }

    fn finish(mut self) -> PolicyHash {
        self.sha.update(&self.buffer);
        PolicyHash(self.sha.finalize().into())
    }

    fn byte(&mut self, byte: u8) {
        self.bytes(&[byte]);
    }

    fn flag(&mut self, flag: bool) {
        self.byte(u8::from(flag));
    }

    fn number(&mut self, number: u64) {
        self.bytes(&number.to_be_bytes());
    }

    fn count(&mut self, count: usize) {
        self.number(count as u64);
    }

    fn text(&mut self, text: &str) {
        self.count(text.len());
        self.bytes(text.as_bytes());
    }

    fn time(&mut self, at: Timestamp) {
        self.bytes(&at.as_nanosecond().to_be_bytes());
    }

    fn list<T>(&mut self, items: &[T], mut each: impl FnMut(&mut Self, &T)) {
        self.count(items.len());
        items.iter().for_each(|item| each(self, item));
    }

    fn option<T>(&mut self, value: Option<&T>, write: impl FnOnce(&mut Self, &T)) {
        self.flag(value.is_some());
        if let Some(value) = value {
            write(self, value);
        }
    }

    fn verdict(&mut self, verdict: Verdict) {
        self.byte(match verdict {
            Verdict::Pass => 0,
            Verdict::Drop => 1,
        });
    }

    fn prefix(&mut self, prefix: Prefix) {
        match prefix.addr() {
            IpAddr::V4(a) => {
                self.byte(4);
                self.bytes(&a.octets());
            }
            IpAddr::V6(a) => {
                self.byte(6);
                self.bytes(&a.octets());
            }
        }
        self.byte(prefix.len());
    }

    fn set(&mut self, set: &AddressSet) {
        let counters = match set.counters {
            EntryCounters::None => 0,
            EntryCounters::Entry => 1,
        };
        // A set of which nothing expires has the hash that it had before entries could.
        let expires = !set.v4_expiring().is_empty() || !set.v6_expiring().is_empty();
        self.byte(counters | u8::from(expires) << 1);
        self.list(&set.v4_hosts, |o, a| o.bytes(&a.to_be_bytes()));
        self.list(&set.v4_prefixes, |o, (a, len)| {
            o.bytes(&a.to_be_bytes());
            o.byte(*len);
        });
        self.list(&set.v6_hosts, |o, a| o.bytes(&a.to_be_bytes()));
        self.list(&set.v6_prefixes, |o, (a, len)| {
            o.bytes(&a.to_be_bytes());
            o.byte(*len);
        });
        if expires {
            self.list(set.v4_expiring(), |o, (a, len, at)| {
                o.bytes(&a.to_be_bytes());
                o.byte(*len);
                o.time(*at);
            });
            self.list(set.v6_expiring(), |o, (a, len, at)| {
                o.bytes(&a.to_be_bytes());
                o.byte(*len);
                o.time(*at);
            });
        }
    }

    fn rule(&mut self, rule: &Rule) {
        self.text(rule.id.as_str());
        self.number(rule.priority.into());
        self.matches(&rule.matches);
        self.action(&rule.action);
        self.byte(match rule.mode {
            Mode::Enforce => 0,
            Mode::Monitor => 1,
        });
        self.flag(rule.enabled);
        self.option(rule.expires.as_ref(), |o, at| o.time(*at));
        self.list(&rule.interfaces, |o, name| o.text(name));
        self.option(rule.name.as_ref(), |o, name| o.text(name));
        self.option(rule.comment.as_ref(), |o, comment| o.text(comment));
        self.count(rule.labels.len());
        for (key, value) in &rule.labels {
            self.text(key);
            self.text(value);
        }
    }

    fn matches(&mut self, m: &Match) {
        self.option(m.src.as_ref(), Self::addresses);
        self.option(m.dst.as_ref(), Self::addresses);
        self.option(m.family.as_ref(), |o, family| {
            o.byte(match family {
                Family::Ipv4 => 4,
                Family::Ipv6 => 6,
            });
        });
        self.option(m.protocol.as_ref(), Self::ranges);
        self.option(m.sport.as_ref(), Self::ranges);
        self.option(m.dport.as_ref(), Self::ranges);
        self.option(m.tcp_flags.as_ref(), |o, f| o.bytes(&[f.mask, f.value]));
        self.option(m.icmp.as_ref(), |o, icmp| {
            o.byte(icmp.icmp_type);
            o.option(icmp.code.as_ref(), |o, code| o.byte(*code));
        });
        self.option(m.length.as_ref(), Self::ranges);
        self.option(m.fragment.as_ref(), |o, fragment| {
            o.byte(match fragment {
                FragmentMatch::None => 0,
                FragmentMatch::First => 1,
                FragmentMatch::Later => 2,
                FragmentMatch::Any => 3,
            });
        });
        self.option(m.vlan.as_ref(), |o, vlan| match vlan {
            VlanMatch::None => o.byte(0),
            VlanMatch::Any => o.byte(1),
            VlanMatch::Ids(ids) => {
                o.byte(2);
                o.ranges(ids);
            }
        });
        self.option(m.ttl.as_ref(), Self::ranges);
        self.option(m.dscp.as_ref(), Self::ranges);
        self.option(m.anomaly.as_ref(), |o, a| {
            o.flag(a.bad_fragment);
            o.flag(a.invalid);
        });
    }

    fn addresses(&mut self, m: &AddressMatch) {
        self.flag(m.negated);
        self.list(&m.items, |o, item| match item {
            AddressItem::Prefix(prefix) => {
                o.byte(0);
                o.prefix(*prefix);
            }
            AddressItem::Set(name) => {
                o.byte(1);
                o.text(name.as_str());
            }
        });
    }

    fn ranges<T: Copy + Ord + Into<u32> + TryFrom<u32>>(&mut self, ranges: &Ranges<T>) {
        self.list(ranges.as_slice(), |o, (lo, hi)| {
            o.number((*lo).into().into());
            o.number((*hi).into().into());
        });
    }

    fn action(&mut self, action: &Action) {
        match action {
            Action::Drop => self.byte(0),
            Action::Pass => self.byte(1),
            Action::Count => self.byte(2),
            Action::RateLimit(RateLimit {
                unit,
                rate,
                burst,
                scope,
            }) => {
                self.byte(3);
                self.byte(match unit {
                    RateUnit::Packets => 0,
                    RateUnit::Bits => 1,
                });
                self.number(*rate);
                self.number(*burst);
                match *scope {
                    RateScope::Rule => self.byte(0),
                    RateScope::Source { v4, v6 } => self.bytes(&[1, v4, v6]),
                }
            }
        }
    }
}
