//! The hash of a request: what an idempotency key stands for.

use std::time::Duration;

use super::Encoder;
use crate::policy::address::{Prefix, SetName};
use crate::policy::change::{Atomicity, Change};
use crate::policy::set::AddressSet;
use crate::policy::{Failsafe, Policy};

/// Named in every hash; a change of the encoding takes another name. It is kept in `state.json`, so that
/// a request is known again by a later version, too.
const FORMAT: &[u8] = b"xdpgate-request-1\n";

/// What is asked for under a key.
#[derive(Debug, Clone, Copy)]
pub(crate) enum RequestBody<'r> {
    Apply(&'r Policy),
    Transact(&'r [Change], Atomicity),
}

/// SHA-256 over all that a request asks for. Nothing of it is copied: a set of a million entries is
/// hashed piece by piece.
pub(crate) fn request_hash(body: RequestBody<'_>, within: Option<Duration>) -> [u8; 32] {
    let mut out = Encoder::new(FORMAT);
    out.option(within.as_ref(), |o, within| {
        o.number(within.as_secs());
        o.number(within.subsec_nanos().into());
    });
    match body {
        RequestBody::Apply(policy) => {
            out.byte(0);
            out.bytes(policy.hash().as_bytes());
        }
        RequestBody::Transact(changes, atomicity) => {
            out.byte(1);
            out.byte(match atomicity {
                Atomicity::AllOrNothing => 0,
                Atomicity::Partial => 1,
            });
            out.list(changes, Encoder::change);
        }
    }
    *out.finish().as_bytes()
}

impl Encoder {
    fn change(&mut self, change: &Change) {
        match change {
            Change::CreateRule(rule) => {
                self.byte(0);
                self.rule(rule);
            }
            Change::PutRule(rule) => {
                self.byte(1);
                self.rule(rule);
            }
            Change::RemoveRule(id) => {
                self.byte(2);
                self.text(id.as_str());
            }
            Change::CreateSet(name, set) => self.named_set(3, name, set),
            Change::PutSet(name, set) => self.named_set(4, name, set),
            Change::RemoveSet(name) => {
                self.byte(5);
                self.text(name.as_str());
            }
            Change::AddEntries(name, entries) => {
                self.byte(6);
                self.text(name.as_str());
                self.list(entries, |o, (prefix, expires)| {
                    o.prefix(*prefix);
                    o.option(expires.as_ref(), |o, at| o.time(*at));
                });
            }
            Change::RemoveEntries(name, entries) => {
                self.byte(7);
                self.text(name.as_str());
                self.prefixes(entries);
            }
            Change::EnableRule(id, enabled) => {
                self.byte(8);
                self.text(id.as_str());
                self.flag(*enabled);
            }
            Change::DefaultVerdict(verdict) => {
                self.byte(9);
                self.verdict(*verdict);
            }
            Change::Malformed(verdict) => {
                self.byte(10);
                self.verdict(*verdict);
            }
            Change::Failsafe(Failsafe { enabled, ssh_from }) => {
                self.byte(11);
                self.flag(*enabled);
                self.prefixes(ssh_from);
            }
            Change::FailsafeWithoutSsh => self.byte(12),
        }
    }

    fn named_set(&mut self, what: u8, name: &SetName, set: &AddressSet) {
        self.byte(what);
        self.text(name.as_str());
        self.set(set);
    }

    fn prefixes(&mut self, prefixes: &[Prefix]) {
        self.list(prefixes, |o, prefix| o.prefix(*prefix));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::policy::{RuleId, Verdict};

    fn policy() -> Policy {
        let text = "
version: 1
sets: { bad: { entries: [203.0.113.7, 2001:db8::/32, { entry: 198.51.100.0/24, expires: 2030-01-01T00:00:00Z }] } }
rules:
  - { id: web, priority: 10, match: { src: '@bad', protocol: tcp, dport: [80, 443] }, action: drop }
";
        Policy::from_yaml(text).unwrap()
    }

    /// One of each kind.
    fn changes() -> Vec<Change> {
        let policy = policy();
        let rule = policy.rules()[0].clone();
        let (name, set) = policy.sets().iter().next().unwrap();
        let (name, set) = (|| name.clone(), || set.clone());
        let id = || RuleId::new("web").unwrap();
        let prefix: Prefix = "203.0.113.0/24".parse().unwrap();
        let expires = "2031-02-03T04:05:06.000000007Z".parse().unwrap();
        let failsafe = Failsafe {
            enabled: true,
            ssh_from: vec![prefix],
        };
        vec![
            Change::CreateRule(rule.clone()),
            Change::PutRule(rule),
            Change::RemoveRule(id()),
            Change::CreateSet(name(), set()),
            Change::PutSet(name(), set()),
            Change::RemoveSet(name()),
            Change::AddEntries(name(), vec![(prefix, None), (prefix, Some(expires))]),
            Change::RemoveEntries(name(), vec![prefix]),
            Change::EnableRule(id(), false),
            Change::DefaultVerdict(Verdict::Drop),
            Change::Malformed(Verdict::Drop),
            Change::Failsafe(failsafe),
        ]
    }

    fn hex(hash: [u8; 32]) -> String {
        hash.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// These stand in state directories: they must be the same in every version.
    #[test]
    fn r129_requests_have_the_hashes_that_they_always_had() {
        let (policy, changes) = (policy(), changes());
        let minute = Some(Duration::new(60, 5));
        let said = [
            request_hash(RequestBody::Apply(&policy), None),
            request_hash(RequestBody::Apply(&policy), minute),
            request_hash(
                RequestBody::Transact(&changes, Atomicity::AllOrNothing),
                None,
            ),
            request_hash(RequestBody::Transact(&changes, Atomicity::Partial), minute),
            request_hash(
                RequestBody::Transact(&changes[2..3], Atomicity::AllOrNothing),
                None,
            ),
        ];
        let expected = [
            "4a049dd6dcaf11959917919e80bf6a94708fbd3b778a303615a0971bf27b8620",
            "59ce120ac0982e6557693968cf0398913ded435b19aa49d29d7d26bd398c7ce6",
            "afdad10dd83a64c5e8489d5473408458ca4c084a30c13f6ed8dc42bb59719faa",
            "1737e32e26527785bb1e69db2bc7fed9878d1d17860b35279f930a7971285b21",
            // The same by hand: { printf 'xdpgate-request-1\n\0\1\0'; printf '\0\0\0\0\0\0\0\1\2'
            //   printf '\0\0\0\0\0\0\0\3web'; } | sha256sum
            "4f6b6072b7e86f8cd0391bf67c6d8d56bdcefb13e2e5e4c45f2badb91142bd34",
        ];
        assert_eq!(said.map(hex), expected);
    }

    /// Requests that differ in anything have other hashes.
    #[test]
    fn requests_that_differ_have_other_hashes() {
        let all = changes();
        let mut seen = HashSet::new();
        let mut add = |changes: &[Change]| {
            for atomicity in [Atomicity::AllOrNothing, Atomicity::Partial] {
                for within in [None, Some(Duration::ZERO), Some(Duration::from_nanos(1))] {
                    let hash = request_hash(RequestBody::Transact(changes, atomicity), within);
                    assert!(seen.insert(hash), "{changes:?} {atomicity:?} {within:?}");
                }
            }
        };
        for some in 0..=all.len() {
            add(&all[..some]);
        }
        for one in &all[1..] {
            add(std::slice::from_ref(one));
        }
        add(&[Change::FailsafeWithoutSsh]);
        add(&[Change::Failsafe(Failsafe::default())]);
        let bad = SetName::new("bad").unwrap();
        let prefix = |text: &str| text.parse::<Prefix>().unwrap();
        for prefixes in [
            vec![],
            vec![prefix("10.0.0.0/8")],
            vec![prefix("10.0.0.0/9")],
            vec![prefix("10.0.0.0/8"), prefix("10.0.0.0/8")],
            vec![prefix("a00::/8")],
        ] {
            let added = prefixes.iter().map(|p| (*p, None)).collect();
            add(&[Change::AddEntries(bad.clone(), added)]);
            add(&[Change::RemoveEntries(bad.clone(), prefixes)]);
        }
    }
}
