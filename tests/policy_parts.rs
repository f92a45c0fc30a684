//! Parts of policies: one rule as text, rules that are looked for, sets that come in parts, switching
//! rules on and off.

mod common;

use std::net::IpAddr;

use common::policy_strategy;
use proptest::prelude::*;
use xdpgate::policy::{
    AddressSet, AddressSetBuilder, Atomicity, Change, ChangeErrorKind, Effect, EntryCounters,
    Family, PackedError, Policy, Rule, RuleId, RuleQuery,
};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Also by another JSON parser, so that it is JSON and not only YAML.
    #[test]
    fn a_rule_comes_back_from_its_json(policy in policy_strategy::policy()) {
        for rule in policy.rules() {
            let json = rule.to_json();
            prop_assert_eq!(&Rule::from_yaml(&json).unwrap(), rule);
            let value: serde_json::Value = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(value["id"].as_str(), Some(rule.id.as_str()));
            prop_assert_eq!(value["priority"].as_u64(), Some(rule.priority.into()));
            prop_assert_eq!(&Rule::from_yaml(&value.to_string()).unwrap(), rule);
        }
    }
}

#[test]
fn text_stays_text_and_numbers_numbers() {
    let rule = Rule::from_yaml(
        r#"{ id: "12", match: { vlan: 7, dport: [80, 90-99] }, action: drop, enabled: false, name: "17",
             comment: "a \"b\"\n\u2028", labels: { match: "1", enabled: "true" } }"#,
    )
    .unwrap();
    let json: serde_json::Value = serde_json::from_str(&rule.to_json()).unwrap();
    assert_eq!(
        json,
        serde_json::json!({
            "id": "12", "priority": 10, "match": { "vlan": 7, "dport": [80, "90-99"] }, "action": "drop",
            "enabled": false, "name": "17", "comment": "a \"b\"\n\u{2028}",
            "labels": { "match": "1", "enabled": "true" },
        })
    );
}

#[test]
fn what_is_no_rule_is_refused_with_the_field() {
    for (text, words) in [
        ("", "the rule is empty"),
        ("[]", "mapping"),
        ("{ id: r }", "action"),
        ("{ id: r, action: drop, acton: pass }", "did you mean"),
        (
            "{ id: r, action: drop, match: { dport: 70000 } }",
            "match.dport",
        ),
    ] {
        let error = Rule::from_yaml(text).unwrap_err().to_string();
        assert!(error.contains(words), "{text}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

const RULES: &str = "
version: 1
sets: { bad: { entries: [203.0.113.0/24, '2001:db8::/32'] } }
rules:
  - { id: a, match: { src: '@bad' }, action: drop, name: Known BAD, labels: { owner: web, tier: '1' } }
  - { id: b, match: { dst: { not: 10.0.0.0/8 } }, action: count, labels: { owner: db } }
  - { id: c, match: { dport: 5353 }, action: pass, comment: mDNS, enabled: false }
";

fn found(query: RuleQuery) -> Vec<String> {
    let policy = Policy::from_yaml(RULES).unwrap();
    let ids = policy.find_rules(&query).map(|rule| rule.id.to_string());
    ids.collect()
}

#[test]
fn rules_are_found_by_words_addresses_and_labels() {
    let query = RuleQuery::default;
    let address = |text: &str| query().address(text.parse::<IpAddr>().unwrap());
    for (query, ids) in [
        (query().text("known bad"), vec!["a"]),
        (query().text("MDNS"), vec!["c"]),
        (query().text("5353"), vec!["c"]),
        (query().text("@BAD"), vec!["a"]),
        // What is in every rule's text but not in its words.
        (query().text("priority"), vec![]),
        (query().text("action"), vec![]),
        (address("203.0.113.9"), vec!["a", "b"]),
        (address("10.1.1.1"), vec![]),
        (address("2001:db8::1"), vec!["a", "b"]),
        (query().label("owner", None), vec!["a", "b"]),
        (query().label("owner", Some("db")), vec!["b"]),
        (
            query().label("owner", None).label("tier", Some("1")),
            vec!["a"],
        ),
        (query().label("tier", Some("2")), vec![]),
        (query().label("owner", None).text("bad"), vec!["a"]),
    ] {
        assert_eq!(found(query.clone()), ids, "{query:?}");
    }
}

#[test]
fn a_set_in_parts_is_the_set_at_once() {
    let texts = [
        "203.0.113.7",
        "198.51.100.0/24",
        "203.0.113.7",
        "::1",
        "2001:db8::/32",
    ];
    let prefixes = texts.map(|text| text.parse().unwrap());
    let mut builder = AddressSetBuilder::default();
    builder
        .push_packed(Family::Ipv4, &[198, 51, 100, 0, 24, 203, 0, 113, 7, 32])
        .unwrap();
    builder.push(prefixes[0], None);
    let mut v6 = [0; 34];
    (v6[15], v6[16]) = (1, 128);
    v6[17..21].copy_from_slice(&[0x20, 1, 0x0d, 0xb8]);
    v6[33] = 32;
    assert_eq!(builder.push_packed(Family::Ipv6, &v6), Ok(2));
    assert_eq!(builder.pushed(), 5);
    let set = builder.build(EntryCounters::Entry);
    let at_once = AddressSet::from_prefixes(prefixes);
    assert_eq!(set, at_once.with_counters(EntryCounters::Entry));
}

#[test]
fn packed_entries_that_are_none_are_refused() {
    let refused = |family, bytes: &[u8]| {
        AddressSetBuilder::default()
            .push_packed(family, bytes)
            .unwrap_err()
    };
    assert_eq!(
        refused(Family::Ipv4, &[1, 2, 3, 4]),
        PackedError::Length { bytes: 4, each: 5 }
    );
    assert_eq!(
        refused(Family::Ipv6, &[0; 16]),
        PackedError::Length {
            bytes: 16,
            each: 17
        }
    );
    for bad in [[10, 0, 0, 1, 8], [10, 0, 0, 0, 33]] {
        let error = refused(Family::Ipv4, &[&[10, 0, 0, 0, 8], &bad[..]].concat());
        assert!(
            matches!(error, PackedError::Entry { index: 1, .. }),
            "{error}"
        );
    }
}

#[test]
fn rules_are_switched_on_and_off() {
    let policy = Policy::from_yaml(RULES).unwrap();
    let id = |id: &str| RuleId::new(id).unwrap();
    let changes = [
        Change::EnableRule(id("a"), false),
        Change::EnableRule(id("c"), true),
        Change::EnableRule(id("b"), true),
    ];
    let changed = policy.change(&changes, Atomicity::AllOrNothing).unwrap();
    let effects: Vec<_> = changed.effects.into_iter().map(Result::unwrap).collect();
    assert_eq!(
        effects,
        [Effect::Replaced, Effect::Replaced, Effect::Unchanged]
    );
    let on = changed.policy.rules().iter().map(|rule| rule.enabled);
    assert_eq!(on.collect::<Vec<_>>(), [false, true, true]);

    let unknown = [Change::EnableRule(id("nowhere"), true)];
    let errors = policy
        .change(&unknown, Atomicity::AllOrNothing)
        .unwrap_err();
    let error = errors.iter().next().unwrap();
    assert_eq!(error.kind(), ChangeErrorKind::NotFound);
    assert!(error.to_string().contains("rule nowhere"), "{error}");
}
