//! Lists of changes to a policy: what each does, what is refused, and that repeating changes nothing.

use jiff::Timestamp;
use xdpgate::Verdict;
use xdpgate::policy::{
    Action, AddressItem, AddressMatch, AddressSet, Atomicity, Change, ChangeErrorKind, Effect,
    Failsafe, Match, Policy, PolicyErrorKind, Prefix, Rule, RuleId, SetName,
};

use Atomicity::{AllOrNothing, Partial};
use ChangeErrorKind::{AlreadyExists, InUse, Invalid, NotFound};
use Effect::{Created, Entries, Replaced};

fn policy(text: &str) -> Policy {
    Policy::from_yaml(&format!("version: 1\n{text}")).unwrap()
}

fn id(id: &str) -> RuleId {
    RuleId::new(id).unwrap()
}

fn name(name: &str) -> SetName {
    SetName::new(name).unwrap()
}

fn prefix(prefix: &str) -> Prefix {
    prefix.parse().unwrap()
}

fn entries<const N: usize>(prefixes: [&str; N]) -> Vec<(Prefix, Option<Timestamp>)> {
    prefixes.map(|p| (prefix(p), None)).into()
}

fn set<const N: usize>(prefixes: [&str; N]) -> AddressSet {
    AddressSet::from_prefixes(prefixes.map(prefix))
}

fn from(id: &str, item: &str, action: Action) -> Rule {
    let item = match item.strip_prefix('@') {
        Some(set) => AddressItem::Set(name(set)),
        None => AddressItem::Prefix(prefix(item)),
    };
    let src = Some(AddressMatch {
        negated: false,
        items: vec![item],
    });
    let matches = Match {
        src,
        ..Match::default()
    };
    Rule {
        matches,
        ..Rule::new(RuleId::new(id).unwrap(), 10, action)
    }
}

/// The effects of changes that are all made.
fn effects(policy: &Policy, changes: &[Change]) -> (Policy, Vec<Effect>) {
    let changed = policy.change(changes, AllOrNothing).unwrap();
    let effects = changed.effects.into_iter().map(Result::unwrap).collect();
    (changed.policy, effects)
}

/// Index, kind and text of every error.
fn errors(policy: &Policy, changes: &[Change]) -> Vec<(usize, ChangeErrorKind, String)> {
    let errors = policy.change(changes, AllOrNothing).unwrap_err();
    let text = |e: &xdpgate::policy::ChangeError| (e.index(), e.kind(), e.to_string());
    errors.iter().map(text).collect()
}

#[test]
fn each_change_does_what_it_says() {
    let before = policy(
        "sets: { bad: { entries: [203.0.113.7, 10.0.0.0/8] } }
rules:
  - { id: old, match: { src: '@bad' }, action: drop }
",
    );
    let failsafe = Failsafe {
        ssh_from: vec![prefix("192.0.2.0/24")],
        ..Failsafe::default()
    };
    let changes = [
        Change::CreateSet(name("good"), set(["192.0.2.0/24"])),
        Change::CreateRule(from("allow", "@good", Action::Pass)),
        Change::PutRule(from("old", "@bad", Action::Count)),
        Change::AddEntries(
            name("bad"),
            entries(["203.0.113.7", "203.0.113.8", "2001:db8::/32"]),
        ),
        Change::RemoveEntries(
            name("bad"),
            vec![prefix("10.0.0.0/8"), prefix("10.1.0.0/16")],
        ),
        Change::DefaultVerdict(Verdict::Drop),
        Change::Malformed(Verdict::Drop),
        Change::Failsafe(failsafe.clone()),
    ];
    let (after, done) = effects(&before, &changes);
    let want = [
        Created,
        Created,
        Replaced,
        Entries(2),
        Entries(1),
        Replaced,
        Replaced,
        Replaced,
    ];
    assert_eq!(done, want);
    assert_eq!(
        after.sets()[&name("bad")],
        set(["203.0.113.7", "203.0.113.8", "2001:db8::/32"])
    );
    assert_eq!(after.rule("old").unwrap().action, Action::Count);
    assert_eq!(after.rule("allow").unwrap().action, Action::Pass);
    assert_eq!(after.default_verdict(), Verdict::Drop);
    assert_eq!(after.malformed(), Verdict::Drop);
    assert_eq!(after.failsafe(), &failsafe);

    let gone = [
        Change::RemoveRule(id("old")),
        Change::RemoveSet(name("bad")),
        Change::RemoveRule(id("never-there")),
    ];
    let (last, done) = effects(&after, &gone);
    assert_eq!(done, [Effect::Removed, Effect::Removed, Effect::Unchanged]);
    assert_eq!(last.rules().len(), 1);
    assert_eq!(last.sets().len(), 1);
}

/// With a default of drop, "on" by itself would shut out who says it.
#[test]
fn r107_ssh_prefixes_go_only_by_name() {
    let before = policy("default: drop\nfailsafe: { ssh_from: [192.0.2.0/24, '2001:db8::/32'] }\n");
    let bare = Change::Failsafe(Failsafe::default());
    let kind = ChangeErrorKind::Invalid(PolicyErrorKind::MissingKey);
    let text = "change 0: ssh_from: SSH from 192.0.2.0/24, 2001:db8::/32 would be out; name the prefixes that \
                pass, or ask for it without SSH (no_ssh)";
    let refused = errors(&before, std::slice::from_ref(&bare));
    assert_eq!(refused, [(0, kind, text.to_owned())]);
    let some = [Change::DefaultVerdict(Verdict::Pass), bare.clone()];
    let partly = before.change(&some, Atomicity::Partial).unwrap();
    assert_eq!(partly.policy.failsafe(), before.failsafe());
    assert_eq!(partly.policy.default_verdict(), Verdict::Pass);

    // What says so, others in their place, and what takes nothing away.
    let without = Change::FailsafeWithoutSsh;
    let (after, done) = effects(&before, &[without.clone(), without, bare.clone()]);
    assert_eq!(done, [Replaced, Effect::Unchanged, Effect::Unchanged]);
    assert_eq!(after.failsafe(), &Failsafe::default());
    let other = Failsafe {
        ssh_from: vec![prefix("198.51.100.0/24")],
        ..Failsafe::default()
    };
    let (after, _) = effects(&before, &[Change::Failsafe(other.clone())]);
    assert_eq!(after.failsafe(), &other);
    let none = Failsafe {
        enabled: false,
        ..Failsafe::default()
    };
    let (after, _) = effects(&before, &[Change::Failsafe(none.clone())]);
    assert_eq!(after.failsafe(), &none);
    let (after, done) = effects(&after, &[bare]);
    assert_eq!(
        (after.failsafe(), done),
        (&Failsafe::default(), vec![Replaced])
    );
}

#[test]
fn r42_repeating_changes_nothing() {
    let changes = [
        Change::PutSet(name("bad"), set(["203.0.113.7"])),
        Change::AddEntries(name("bad"), entries(["203.0.113.8"])),
        Change::RemoveEntries(name("bad"), vec![prefix("203.0.113.9")]),
        Change::PutRule(from("block", "@bad", Action::Drop)),
        Change::RemoveRule(id("nobody")),
        Change::RemoveSet(name("nothing")),
        Change::DefaultVerdict(Verdict::Drop),
    ];
    let once = effects(&Policy::default(), &changes).0;
    // The set is put anew without what was added: only the end counts.
    assert_eq!(effects(&once, &changes).0, once);
    let steady: Vec<Change> = changes[1..].to_vec();
    let (twice, done) = effects(&once, &steady);
    assert_eq!(twice, once);
    assert!(done.iter().all(|e| *e == Effect::Unchanged), "{done:?}");
}

#[test]
fn r14_anomalies_on_one_tuple_add_up_once() {
    let anomaly = |id: &str, anomaly: &str| {
        let text = format!(
            "rules: [ {{ id: {id}, priority: 10, match: {{ dst: 198.51.100.1, anomaly: {anomaly} }}, action: drop }} ]"
        );
        Change::PutRule(policy(&text).rules()[0].clone())
    };
    let two = [anomaly("a", "bad_fragment"), anomaly("b", "invalid")];
    let both = effects(&Policy::default(), &two).0;
    assert_eq!(both.rules().len(), 2);
    assert_eq!(effects(&both, &two).0, both, "idempotent");
    // One rule may ask for either; posted over the first it takes its place.
    let (merged, done) = effects(
        &both,
        &[
            anomaly("a", "[bad_fragment, invalid]"),
            Change::RemoveRule(id("b")),
        ],
    );
    assert_eq!(done, [Effect::Replaced, Effect::Removed]);
    let bits = merged.rules()[0].matches.anomaly.unwrap();
    assert!(bits.bad_fragment && bits.invalid);
}

#[test]
fn r43_every_change_that_cannot_be_made_is_named() {
    let before = policy(
        "sets: { bad: { entries: [203.0.113.7] } }
rules:
  - { id: old, match: { src: '@bad' }, action: drop }
",
    );
    let mut ports = from("ports", "203.0.113.1", Action::Drop);
    ports.matches.protocol = Some(xdpgate::policy::Ranges::single(1));
    ports.matches.dport = Some(xdpgate::policy::Ranges::single(80));
    let changes = [
        Change::CreateRule(from("old", "@bad", Action::Pass)),
        Change::CreateRule(from("fine", "203.0.113.1", Action::Drop)),
        Change::PutRule(ports),
        Change::PutRule(from("nowhere", "@worse", Action::Drop)),
        Change::AddEntries(name("none"), entries(["203.0.113.1"])),
        Change::RemoveSet(name("bad")),
        Change::CreateRule(from("fine", "203.0.113.2", Action::Drop)),
        Change::CreateSet(name("empty"), AddressSet::default()),
    ];
    let want = [
        (
            0,
            AlreadyExists,
            "change 0: rule old: id: a rule with this id is there; put it, to replace what is there",
        ),
        (
            2,
            Invalid(PolicyErrorKind::Contradiction),
            "change 2: rule ports: match.dport: the protocol has no ports; ports are of tcp, udp, dccp, sctp and udplite",
        ),
        (
            3,
            Invalid(PolicyErrorKind::UnknownSet),
            "change 3: rule nowhere: match.src: there is no set \"worse\"; define it under \"sets\"",
        ),
        (
            4,
            NotFound,
            "change 4: set none: there is no such set; create the set first",
        ),
        (
            5,
            InUse,
            "change 5: rule old: match.src: there is no set \"bad\"; take it out of the rule first",
        ),
        (
            6,
            AlreadyExists,
            "change 6: rule fine: id: a rule with this id is there; put it, to replace what is there",
        ),
        (
            7,
            Invalid(PolicyErrorKind::InvalidValue),
            "change 7: set empty: the set has no entry; give it entries or leave it out",
        ),
    ];
    let got = errors(&before, &changes);
    for (got, want) in got.iter().zip(&want) {
        assert_eq!((got.0, got.1, got.2.as_str()), *want);
    }
    assert_eq!(got.len(), want.len());

    // In part: what can be made is made, and the same is said of the rest.
    let changed = before.change(&changes, Partial).unwrap();
    assert_eq!(changed.policy.rules().len(), 2);
    for (index, effect) in changed.effects.iter().enumerate() {
        let refused = want.iter().find(|w| w.0 == index);
        assert_eq!(
            effect.as_ref().err().map(|e| e.kind()),
            refused.map(|w| w.1),
            "{index}"
        );
    }
}

#[test]
fn r43_nobody_is_refused_for_what_another_did() {
    // An entry that cannot be, and one that can, in the same set.
    let before = policy(
        "sets: { s: { entries: [203.0.113.7] } }
rules:
  - { id: r1, match: { src: '@s', dst: 198.51.100.1 }, action: drop }
",
    );
    let too_early = Some(Timestamp::from_second(-1).unwrap());
    let changes = [
        Change::AddEntries(name("s"), vec![(prefix("203.0.113.1"), too_early)]),
        Change::AddEntries(name("s"), entries(["203.0.113.2"])),
    ];
    let got = errors(&before, &changes);
    assert_eq!((got.len(), got[0].0), (1, 0), "{got:?}");
    assert!(got[0].2.contains("expires before 1970"), "{got:?}");
    let changed = before.change(&changes, Partial).unwrap();
    assert_eq!(changed.effects[1], Ok(Effect::Entries(1)));

    // A rule that is right as long as the set is what it was, and stays so.
    let mut pair = from("r2", "@s", Action::Drop);
    pair.matches.dst.clone_from(&before.rules()[0].matches.dst);
    let changes = [
        Change::PutSet(name("s"), set(["2001:db8::1"])),
        Change::PutRule(pair),
        Change::PutRule(from("nowhere", "@nowhere", Action::Drop)),
    ];
    let got = errors(&before, &changes);
    assert_eq!(
        got.iter().map(|e| e.0).collect::<Vec<_>>(),
        [0, 2],
        "{got:?}"
    );
    let changed = before.change(&changes, Partial).unwrap();
    assert_eq!(changed.effects[1], Ok(Effect::Created));
    assert_eq!(changed.policy.rules().len(), 2);
    assert_eq!(changed.policy.sets(), before.sets());
}

#[test]
fn many_faults_are_found_at_once() {
    let mut text = String::from("sets:\n");
    let mut rules = String::from("rules:\n");
    for n in 0..2000 {
        text += &format!("  s{n}: {{ entries: [203.0.113.7] }}\n");
        rules += &format!("  - {{ id: r{n}, match: {{ src: '@s{n}' }}, action: drop }}\n");
    }
    let before = policy(&(text + &rules));
    let removals: Vec<Change> = (0..2000)
        .map(|n| Change::RemoveSet(name(&format!("s{n}"))))
        .collect();
    // One round for each would take minutes.
    let got = errors(&before, &removals);
    assert_eq!(got.len(), 2000);
    assert!(got.iter().all(|e| e.1 == ChangeErrorKind::InUse));
}

#[test]
fn a_set_that_no_longer_fits_a_rule_is_refused() {
    let before = policy(
        "sets: { bad: { entries: [203.0.113.7] } }
rules:
  - { id: pair, match: { src: '@bad', dst: 198.51.100.1 }, action: drop }
",
    );
    let got = errors(
        &before,
        &[Change::PutSet(name("bad"), set(["2001:db8::1"]))],
    );
    assert_eq!((got.len(), got[0].0), (1, 0));
    assert!(matches!(got[0].1, ChangeErrorKind::Invalid(_)), "{got:?}");
    assert!(got[0].2.contains("rule pair"), "{got:?}");
    let emptied = errors(
        &before,
        &[Change::RemoveEntries(
            name("bad"),
            vec![prefix("203.0.113.7")],
        )],
    );
    assert!(
        emptied[0].2.contains("set bad: the set has no entry"),
        "{emptied:?}"
    );
}

#[test]
fn r104_an_entry_lasts_as_long_as_the_longest_that_was_asked_for() {
    let at = |second| Some(Timestamp::from_second(second).unwrap());
    let add = |expires| Change::AddEntries(name("s"), vec![(prefix("203.0.113.7"), expires)]);
    let start = Change::CreateSet(name("s"), set(["192.0.2.1"]));
    let mut policy = effects(&Policy::default(), &[start]).0;
    for (expires, effect, lasts) in [
        (at(100), Effect::Entries(1), at(100)),
        (at(50), Effect::Unchanged, at(100)),
        (at(200), Effect::Entries(1), at(200)),
        (None, Effect::Entries(1), None),
        (at(300), Effect::Unchanged, None),
    ] {
        let (next, done) = effects(&policy, &[add(expires)]);
        assert_eq!(done, [effect], "{expires:?}");
        let entry = next.sets()[&name("s")]
            .entries()
            .find(|(p, _)| *p == prefix("203.0.113.7"));
        assert_eq!(entry.unwrap().1, lasts);
        policy = next;
    }
    // Out and in again within one list: shorter.
    let gone = Change::RemoveEntries(name("s"), vec![prefix("203.0.113.7")]);
    let (next, done) = effects(&policy, &[gone.clone(), add(at(10))]);
    assert_eq!(done, [Effect::Entries(1), Effect::Entries(1)]);
    assert_eq!(next.sets()[&name("s")].expiring().count(), 1);
    assert_eq!(
        effects(&next, &[gone]).1,
        [Effect::Entries(1)],
        "those that expire go as well"
    );
}
