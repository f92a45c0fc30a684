//! How much sets that count their entries may ask of one policy.

use xdpgate::compile::{CompileOptions, compile};
use xdpgate::policy::{AddressSet, EntryCounters, Policy, PolicyError, Prefix, SetName};

fn compiled(sets: impl IntoIterator<Item = AddressSet>) -> Result<(), PolicyError> {
    let sets = sets.into_iter().enumerate();
    let policy = sets.fold(Policy::builder(), |policy, (n, set)| {
        let name = SetName::new(&format!("s{n:03}")).unwrap();
        policy.set(name, set.with_counters(EntryCounters::Entry))
    });
    compile(&policy.build().unwrap(), &CompileOptions::default()).map(drop)
}

/// IPv6 prefixes of the first so many lengths, each inside of the one before.
fn nested(count: u8) -> AddressSet {
    let prefix = |len| format!("::/{len}").parse::<Prefix>().unwrap();
    AddressSet::from_prefixes((0..count).map(prefix))
}

fn is_refused(result: Result<(), PolicyError>, words: &[&str]) {
    let error = result.expect_err("a limit").to_string();
    for word in words {
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn r104_64_sets_may_count_and_no_more() {
    let one = || nested(1);
    compiled((0..64).map(|_| one())).expect("64 sets");
    let result = compiled((0..65).map(|_| one()));
    is_refused(result, &["set s064", "counters", "more than 64"]);
}

#[test]
fn r104_160_entries_may_hold_one_address_and_no_more() {
    compiled([nested(129), nested(31)]).expect("160 entries");
    let result = compiled([nested(129), nested(32)]);
    is_refused(result, &["161 entries", "the limit is 160"]);
}
