//! Row 84's arithmetic: what differs between two policies makes one of the other, to the hash.

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use xdpgate::Policy;
use xdpgate::Verdict;
use xdpgate::policy::{
    Action, AddressItem, AddressMatch, AddressSet, Atomicity, EntryCounters, Failsafe, Prefix,
    Ranges, Rule, RuleId, SetName,
};
use xdpgate_controller::domain::diff;

fn prefix() -> impl Strategy<Value = Prefix> {
    let v4 = (0..6_u8, 24..=32_u8).prop_map(|(host, len)| {
        let host = host & (0xff_u16 << (32 - len)) as u8;
        Prefix::new([192, 0, 2, host].into(), len).unwrap()
    });
    let v6 = (0..4_u8).prop_map(|host| {
        let mut octets = [0; 16];
        (octets[0], octets[15]) = (0x20, host);
        Prefix::new(octets.into(), 128).unwrap()
    });
    prop_oneof![3 => v4, 1 => v6]
}

fn set() -> impl Strategy<Value = AddressSet> {
    let expiry = prop_oneof![
        2 => Just(None),
        1 => (1..4_i64).prop_map(|s| Some(jiff::Timestamp::from_second(s * 1_000_000_000).unwrap())),
    ];
    let counters = prop_oneof![3 => Just(EntryCounters::None), 1 => Just(EntryCounters::Entry)];
    // An entry of each family, so that any rule may name it.
    let both = ["203.0.113.1", "2001:db8::1"].map(|text| (text.parse().unwrap(), None));
    (vec((prefix(), expiry), 0..12), counters).prop_map(move |(entries, counters)| {
        AddressSet::from_entries(entries.into_iter().chain(both)).with_counters(counters)
    })
}

fn policy() -> impl Strategy<Value = Policy> {
    let verdict = || prop_oneof![Just(Verdict::Pass), Just(Verdict::Drop)];
    let failsafe = prop_oneof![
        Just(Failsafe {
            enabled: false,
            ssh_from: Vec::new()
        }),
        vec(prefix(), 0..3).prop_map(|ssh_from| Failsafe {
            enabled: true,
            ssh_from
        }),
    ];
    let rule = (
        0..4_u32,
        1..4_u16,
        proptest::option::of(0..3_usize),
        any::<bool>(),
        0..3_i64,
    );
    (
        verdict(),
        verdict(),
        failsafe,
        btree_map(0..3_usize, set(), 0..4),
        btree_map(0..8_usize, rule, 0..9),
    )
        .prop_map(|(default, malformed, failsafe, sets, rules)| {
            let mut builder = Policy::builder()
                .default_verdict(default)
                .malformed(malformed)
                .failsafe(failsafe);
            for (id, (priority, port, source, enabled, expires)) in rules {
                let mut rule = Rule::new(
                    RuleId::new(&format!("r{id}")).unwrap(),
                    priority,
                    Action::Drop,
                );
                rule.matches.dport = Some(Ranges::single(port));
                rule.matches.src =
                    source
                        .filter(|set| sets.contains_key(set))
                        .map(|set| AddressMatch {
                            negated: false,
                            items: vec![AddressItem::Set(name(set))],
                        });
                rule.enabled = enabled;
                rule.expires = (expires > 0)
                    .then(|| jiff::Timestamp::from_second(expires * 1_000_000).unwrap());
                builder = builder.rule(rule);
            }
            for (set, entries) in sets {
                builder = builder.set(name(set), entries);
            }
            builder.build().expect("a valid policy")
        })
}

fn name(set: usize) -> SetName {
    SetName::new(&format!("s{set}")).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn r84_the_difference_makes_one_policy_of_the_other(from in policy(), to in policy()) {
        let changes = diff::between(&from, &to);
        prop_assert_eq!(changes.is_empty(), from.hash() == to.hash());
        let changed = from.change(&changes, Atomicity::AllOrNothing).expect("the changes fit");
        prop_assert_eq!(&changed.policy, &to);
        prop_assert_eq!(changed.policy.hash(), to.hash());
    }

    #[test]
    fn entries_that_differ_make_one_set_of_the_other(from in set(), to in set()) {
        let (gone, come) = diff::entries(&from, &to);
        let mut made = from.clone().with_counters(to.counters());
        prop_assert_eq!(made.remove(gone.iter().copied()), gone.len());
        made.insert(come);
        prop_assert_eq!(made, to);
    }
}
