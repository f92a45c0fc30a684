//! An address set holds what was put into it, at every time; entries that expire in the policy file.

mod common;

use common::policy_strategy::{address, expiry, prefix};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use xdpgate::Policy;
use xdpgate::policy::{AddressSet, SetName};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(1000)))]

    /// Against the list as it was given, repeats included: an address is in the set as long as one
    /// of the entries that hold it lasts.
    #[test]
    fn a_set_holds_what_was_put_in(
        entries in vec((prefix(), option::of(expiry())), 0..16),
        addresses in vec(address(), 16),
        at in expiry(),
    ) {
        let set = AddressSet::from_entries(entries.clone());
        for addr in addresses {
            let mut holding = entries.iter().filter(|(p, _)| p.contains(addr));
            prop_assert_eq!(set.contains(addr), holding.clone().next().is_some(), "{}", addr);
            let lasts = holding.any(|(_, expires)| expires.is_none_or(|e| at < e));
            prop_assert_eq!(set.contains_at(addr, at), lasts, "{} at {}", addr, at);
        }
    }

    /// Every entry is there once, with the longest of its times, and the set is made of them again.
    #[test]
    fn entries_are_there_once(entries in vec((prefix(), option::of(expiry())), 0..16)) {
        let set = AddressSet::from_entries(entries.clone());
        prop_assert_eq!(set.len(), set.entries().count());
        for (prefix, expires) in set.entries() {
            let mut given = entries.iter().filter(|(p, _)| *p == prefix).map(|(_, at)| *at);
            let lasting = given.clone().any(|at| at.is_none());
            let longest = if lasting { None } else { given.clone().max().flatten() };
            prop_assert!(given.next().is_some());
            prop_assert_eq!(expires, longest, "{}", prefix);
        }
        for (prefix, _) in entries {
            prop_assert_eq!(set.iter().filter(|p| *p == prefix).count(), 1, "{}", prefix);
        }
        prop_assert_eq!(&AddressSet::from_entries(set.entries()), &set);
    }
}

/// The only set of a policy.
fn only_set(policy: &Policy) -> &AddressSet {
    &policy.sets()[&SetName::new("s").unwrap()]
}

#[test]
fn entries_with_and_without_expiry() {
    let text = "version: 1\nsets:\n  s:\n    entries:\n      - 10.0.0.2\n      - entry: 10.0.0.1\n        \
                expires: 2030-01-01T00:00:00.5Z\n      - { entry: 192.0.2.0/24 }\n      - \
                { expires: 9999-12-30T22:00:00.999999999Z, entry: \"2001:db8::\" }\n      - \
                { entry: 10.0.0.2, expires: 2030-01-01T00:00:00Z }\n";
    let policy = Policy::from_yaml(text).unwrap();
    let set = only_set(&policy);
    let entries: Vec<(String, Option<String>)> = set
        .entries()
        .map(|(p, at)| (p.to_string(), at.map(|at| at.to_string())))
        .collect();
    let time = |text: &str| Some(text.to_owned());
    assert_eq!(
        entries,
        [
            ("10.0.0.2".to_owned(), None),
            ("192.0.2.0/24".to_owned(), None),
            ("10.0.0.1".to_owned(), time("2030-01-01T00:00:00.5Z")),
            (
                "2001:db8::".to_owned(),
                time("9999-12-30T22:00:00.999999999Z")
            ),
        ]
    );
    assert_eq!(
        policy.to_yaml().split_once("    entries:\n").unwrap().1,
        "      - 10.0.0.2\n      - 192.0.2.0/24\n      \
         - {entry: 10.0.0.1, expires: 2030-01-01T00:00:00.5Z}\n      \
         - {entry: \"2001:db8::\", expires: 9999-12-30T22:00:00.999999999Z}\n"
    );
    assert_eq!(Policy::from_yaml(&policy.to_yaml()).unwrap(), policy);
}

/// Would take many minutes if the time for an entry grew with their number.
#[test]
fn many_entries_that_expire() {
    const COUNT: u32 = 100_000;
    let entry = |n: u32| {
        let address = std::net::Ipv4Addr::from_bits(0x0a00_0000 + n);
        format!("{{\"entry\": \"{address}\", \"expires\": \"2030-01-01T00:00:00Z\"}}")
    };
    let entries: Vec<String> = (0..COUNT).rev().map(entry).collect();
    let entries = entries.join(",");
    let json = format!("{{\"version\": 1, \"sets\": {{\"s\": {{\"entries\": [{entries}]}}}}}}");
    let policy = Policy::from_yaml(&json).unwrap();
    assert_eq!(only_set(&policy).expiring().count(), COUNT as usize);
}
