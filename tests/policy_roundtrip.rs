//! What any valid policy must keep: its text reads back as itself, and its hash is of what it says.

mod common;

use common::policy_strategy::{policy, subset_policy};
use proptest::prelude::*;
use xdpgate::{Policy, Verdict};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(512)))]

    #[test]
    fn canonical_text_reads_back(policy in policy()) {
        let text = policy.to_yaml();
        let again = Policy::from_yaml(&text)
            .unwrap_or_else(|e| panic!("{e}\n{text}"));
        prop_assert_eq!(&again, &policy, "{}", &text);
        prop_assert_eq!(again.to_yaml(), text);
        prop_assert_eq!(again.hash(), policy.hash());
    }

    #[test]
    fn subset_reads_back(policy in subset_policy()) {
        prop_assert_eq!(&Policy::from_yaml(&policy.to_yaml()).unwrap(), &policy);
    }

    #[test]
    fn builder_keeps_everything(policy in policy()) {
        prop_assert_eq!(&policy.to_builder().build().unwrap(), &policy);
    }

    #[test]
    fn different_policies_differ_in_hash(a in policy(), b in policy()) {
        prop_assert_eq!(a == b, a.hash() == b.hash());
    }

    #[test]
    fn rules_are_in_evaluation_order(policy in policy()) {
        let keys: Vec<_> = policy.rules().iter().map(|r| (r.priority, &r.id)).collect();
        prop_assert!(keys.is_sorted());
    }

    #[test]
    fn any_text_is_parsed_or_refused(text in any::<String>()) {
        let _ = Policy::from_yaml(&text);
    }

    /// A policy with a piece cut out or doubled: still parsed or refused, on one line.
    #[test]
    fn damaged_text_is_parsed_or_refused(
        policy in policy(),
        from in any::<prop::sample::Index>(),
        len in 0usize..12,
        twice in any::<bool>(),
    ) {
        let text: Vec<char> = policy.to_yaml().chars().collect();
        let from = from.index(text.len());
        let to = (from + len).min(text.len());
        let middle = if twice { &text[from..to] } else { &[] };
        let damaged: String = [&text[..to], middle, &text[to..]].concat().into_iter().collect();
        let cut: String = [&text[..from], &text[to..]].concat().into_iter().collect();
        for text in [damaged, cut] {
            if let Err(error) = Policy::from_yaml(&text) {
                prop_assert!(error.position().is_some(), "{}", error);
                prop_assert!(!error.to_string().contains('\n'), "{}", error);
            }
        }
    }
}

#[test]
fn hash_is_fixed() {
    let policy = Policy::builder()
        .default_verdict(Verdict::Drop)
        .build()
        .unwrap();
    assert_eq!(
        policy.hash().to_string(),
        "dd8bcb69c49651aa48fd4aac070303d86f30fed5193eb9dd7ce12d87f05925c4",
        "a changed encoding takes another FORMAT"
    );
    let set = |entries: &str| {
        let text = format!("version: 1\nsets: {{ s: {{ entries: [10.0.0.0/8, {entries}] }} }}");
        Policy::from_yaml(&text).unwrap().hash().to_string()
    };
    assert_eq!(
        set("10.0.0.1"),
        "ada8259b9f8b650e75d7f7d23037eea4a863426f7ff74ffcde111cad900f574e",
        "what was there before entries could expire keeps its hash"
    );
    let expiring = set("{ entry: 10.0.0.1, expires: 2030-01-01T00:00:00Z }");
    let later = set("{ entry: 10.0.0.1, expires: 2030-01-01T00:00:00.000000001Z }");
    assert_ne!(expiring, set("10.0.0.1"));
    assert_ne!(expiring, later);
}
