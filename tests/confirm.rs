//! Options of a change without a kernel: deadlines, generations, keys, the way back.
#![cfg(feature = "kernel")]

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use xdpgate::policy::{Change, Policy, RuleId};
use xdpgate::{
    ApplyError, ApplyOptions, AtDeadline, ConfirmError, Enforcement, EnforcementError, Firewall,
    Generation, Operation, Previous, RollbackError, RolledBack, TransactionError,
    TransactionOptions,
};

fn policy(id: &str) -> Policy {
    let rules = format!("rules: [{{ id: {id}, match: {{ src: 203.0.113.0/24 }}, action: drop }}]");
    Policy::from_yaml(&format!("version: 1\n{rules}\n")).unwrap()
}

fn within(time: Duration) -> ApplyOptions {
    ApplyOptions::default().confirm_within(time)
}

const LONG: Duration = Duration::from_secs(600);

#[test]
fn one_change_waits_at_a_time() {
    let (firewall, rehearsal) = Firewall::loader().rehearse();
    assert!(matches!(
        firewall.rollback().unwrap_err(),
        RollbackError::NothingToRollBack
    ));
    let first = firewall.apply(&policy("first")).unwrap();
    let second = firewall
        .apply_with(&policy("second"), within(LONG))
        .unwrap();
    let pending = firewall.pending().unwrap();
    assert_eq!(pending.generation, second.generation);
    assert!(pending.left <= LONG && pending.left > LONG / 2);
    let shown = |error: String| {
        assert!(
            error.contains("confirm it or roll it back first"),
            "{error}"
        );
        assert!(error.contains("generation 2"), "{error}");
    };
    let third = policy("third");
    let error = firewall.apply(&third).unwrap_err();
    assert!(matches!(error, ApplyError::Pending(_)));
    shown(error.to_string());
    let options = ApplyOptions::default().expect_generation(second.generation);
    shown(
        firewall
            .apply_with(&third, options)
            .unwrap_err()
            .to_string(),
    );
    let changes = [Change::RemoveRule(RuleId::new("second").unwrap())];
    let options = TransactionOptions::default();
    shown(
        firewall
            .transact(&changes, options)
            .unwrap_err()
            .to_string(),
    );
    let published = rehearsal.operations();
    let published = published
        .iter()
        .filter(|o| matches!(o, Operation::Publish { .. }));
    assert_eq!(published.count(), 2, "nothing of it was done");
    // The mode is another thing, as long as it waits for nothing.
    let error = firewall
        .set_enforcement(Enforcement::Enforce, Some(LONG))
        .unwrap_err();
    assert!(matches!(error, EnforcementError::Pending(_)), "{error}");
    firewall
        .set_enforcement(Enforcement::Enforce, None)
        .unwrap();
    assert!(firewall.pending().is_some());

    firewall.confirm(second.generation).unwrap();
    let back = firewall.rollback().unwrap();
    let RolledBack::Policy(applied) = back else {
        panic!("{back:?}")
    };
    assert!(applied.generation > second.generation && second.generation > first.generation);
    assert_eq!(*firewall.policy().unwrap(), policy("first"));
}

#[test]
fn r110_transactions_wait_as_well() {
    let (firewall, _) = Firewall::loader().rehearse();
    firewall.apply(&policy("first")).unwrap();
    let changes = [Change::RemoveRule(RuleId::new("first").unwrap())];
    let short = TransactionOptions::default().confirm_within(Duration::from_millis(100));
    let done = firewall.transact(&changes, short.clone()).unwrap();
    assert_eq!(firewall.pending().map(|p| p.generation), done.generation);
    assert!(firewall.policy().unwrap().rules().is_empty());
    let started = Instant::now();
    while firewall.pending().is_some() {
        assert!(started.elapsed() < Duration::from_secs(20));
        thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(*firewall.policy().unwrap(), policy("first"));
    // What changes nothing waits for nothing.
    let nothing = [Change::RemoveRule(RuleId::new("gone").unwrap())];
    let done = firewall.transact(&nothing, short).unwrap();
    assert_eq!((done.applied, firewall.pending()), (None, None));
}

#[test]
fn deadlines_out_of_range_are_refused() {
    let (firewall, _) = Firewall::loader().rehearse();
    for time in [
        Duration::ZERO,
        Duration::MAX,
        Duration::from_secs(32 * 86_400),
    ] {
        let error = firewall
            .apply_with(&policy("any"), within(time))
            .unwrap_err();
        assert!(matches!(error, TransactionError::Within { .. }), "{error}");
        let error = firewall
            .set_enforcement(Enforcement::Enforce, Some(time))
            .unwrap_err();
        assert!(matches!(error, EnforcementError::Within { .. }), "{error}");
    }
    assert_eq!(firewall.policy(), None);
    assert_eq!(firewall.enforcement(), Enforcement::DryRun);
}

#[test]
fn the_first_policy_can_be_expected_to_be_the_first() {
    let (firewall, _) = Firewall::loader().rehearse();
    let first = ApplyOptions::default().expect_generation(0.into());
    firewall
        .apply_with(&policy("first"), first.clone())
        .unwrap();
    let error = firewall.apply_with(&policy("second"), first).unwrap_err();
    assert!(
        error.to_string().contains("generation 0 was expected"),
        "{error}"
    );
    let next = ApplyOptions::default().expect_generation(Generation::new(1));
    firewall.apply_with(&policy("second"), next).unwrap();
}

#[test]
fn a_key_is_for_one_request() {
    let (firewall, _) = Firewall::loader().rehearse();
    let keyed = || ApplyOptions::default().key("k").expect_generation(0.into());
    let first = firewall.apply_with(&policy("first"), keyed()).unwrap();
    firewall.apply(&policy("second")).unwrap();
    let again = firewall.apply_with(&policy("first"), keyed()).unwrap();
    assert_eq!((again.generation, again.repeated), (first.generation, true));
    assert_eq!(*firewall.policy().unwrap(), policy("second"));
    let longer = keyed().confirm_within(LONG);
    let error = firewall.apply_with(&policy("first"), longer).unwrap_err();
    let TransactionError::KeyUsed { key, generation } = error else {
        panic!("{error}")
    };
    assert_eq!((key.as_str(), generation), ("k", first.generation));
    // A repeated request is answered while another change waits, too.
    firewall.apply_with(&policy("third"), within(LONG)).unwrap();
    assert!(
        firewall
            .apply_with(&policy("first"), keyed())
            .unwrap()
            .repeated
    );
}

fn wait_for_the_deadline(firewall: &Firewall) {
    let started = Instant::now();
    while firewall.pending().is_some() {
        assert!(started.elapsed() < Duration::from_secs(20));
        thread::sleep(Duration::from_millis(2));
    }
}

/// Who was shut out and asks again must neither hear that it is in force nor be shut out once more.
#[test]
fn r110_a_key_whose_change_was_taken_back_is_answered_so() {
    let (firewall, _) = Firewall::loader().rehearse();
    let first = ApplyOptions::default().key("first");
    firewall
        .apply_with(&policy("first"), first.clone())
        .unwrap();
    let long = || within(LONG).key("waits");
    let waits = firewall.apply_with(&policy("waits"), long()).unwrap();
    let again = firewall.apply_with(&policy("waits"), long()).unwrap();
    assert!(again.repeated, "it waits still");
    assert_eq!(again.generation, waits.generation);
    firewall.rollback().unwrap();
    let short = |key: &str| within(Duration::from_millis(50)).key(key);
    let second = firewall.apply_with(&policy("second"), short("second"));
    let second = second.unwrap().generation;
    wait_for_the_deadline(&firewall);
    let error = firewall.apply_with(&policy("second"), short("second"));
    let TransactionError::KeyTakenBack { key, generation } = error.unwrap_err() else {
        panic!("another error")
    };
    assert_eq!((&*key, generation), ("second", second));
    assert_eq!(*firewall.policy().unwrap(), policy("first"));
    // By hand it is the same, and for transactions.
    let changes = [Change::RemoveRule(RuleId::new("first").unwrap())];
    let options = TransactionOptions::default()
        .confirm_within(LONG)
        .key("third");
    firewall.transact(&changes, options.clone()).unwrap();
    firewall.rollback().unwrap();
    let error = firewall.transact(&changes, options).unwrap_err();
    assert!(error.to_string().contains("is taken back"), "{error}");
    // What was not taken back is known as ever; so is what was confirmed.
    assert!(
        firewall
            .apply_with(&policy("first"), first)
            .unwrap()
            .repeated
    );
    let fourth = || within(LONG).key("fourth");
    let applied = firewall.apply_with(&policy("fourth"), fourth()).unwrap();
    firewall.confirm(applied.generation).unwrap();
    assert!(
        firewall
            .apply_with(&policy("fourth"), fourth())
            .unwrap()
            .repeated
    );
}

/// A mode has the generation of the policy that stays, and of its key.
#[test]
fn r72_a_mode_that_is_taken_back_leaves_keys_alone() {
    let (firewall, _) = Firewall::loader().rehearse();
    let keyed = || ApplyOptions::default().key("first");
    firewall.apply_with(&policy("first"), keyed()).unwrap();
    firewall
        .set_enforcement(Enforcement::Enforce, Some(Duration::from_millis(50)))
        .unwrap();
    wait_for_the_deadline(&firewall);
    assert!(
        firewall
            .apply_with(&policy("first"), keyed())
            .unwrap()
            .repeated
    );
}

/// Before anybody listens it is kept, and then it is told as it happens.
#[test]
fn r110_what_is_done_at_a_deadline_is_told() {
    let (firewall, _) = Firewall::loader().rehearse();
    firewall.apply(&policy("first")).unwrap();
    let short = Duration::from_millis(50);
    let second = firewall.apply_with(&policy("second"), within(short));
    let second = second.unwrap().generation;
    wait_for_the_deadline(&firewall);
    let (sender, told) = mpsc::channel();
    firewall.on_deadline(move |done| sender.send(done.clone()).unwrap());
    let long = Duration::from_secs(20);
    let AtDeadline::TakenBack { generation, back } = told.recv_timeout(long).unwrap() else {
        panic!("another event")
    };
    let RolledBack::Policy(applied) = back else {
        panic!("{back:?}")
    };
    assert_eq!(generation, second);
    assert_eq!(Some(applied.generation), firewall.generation());
    firewall
        .set_enforcement(Enforcement::Enforce, Some(short))
        .unwrap();
    let done = told.recv_timeout(long).unwrap();
    let expected = AtDeadline::TakenBack {
        generation: applied.generation,
        back: RolledBack::Enforcement(Enforcement::DryRun),
    };
    assert_eq!(done, expected);
    // What somebody takes back by hand he knows.
    firewall
        .apply_with(&policy("second"), within(LONG))
        .unwrap();
    firewall.rollback().unwrap();
    assert!(told.try_recv().is_err());
}

/// Whoever is told may be wrong: the deadlines after it are kept all the same, and told.
#[test]
fn r110_a_panic_of_who_is_told_ends_nothing() {
    let (firewall, _) = Firewall::loader().rehearse();
    firewall.apply(&policy("first")).unwrap();
    let (sender, told) = mpsc::channel();
    firewall.on_deadline(move |_| {
        sender.send(()).unwrap();
        panic!("wanted by the test");
    });
    for id in ["second", "third"] {
        let short = within(Duration::from_millis(50));
        firewall.apply_with(&policy(id), short).unwrap();
        told.recv_timeout(Duration::from_secs(20)).unwrap();
        assert_eq!(*firewall.policy().unwrap(), policy("first"), "{id}");
    }
}

/// A plan of what was done starts from it, whoever else changed the policy meanwhile.
#[test]
fn what_was_replaced_is_told_of_each_change() {
    let (firewall, _) = Firewall::loader().rehearse();
    let apply = |number: usize| {
        let applied = firewall.apply(&policy(&format!("p{number}"))).unwrap();
        (number, applied)
    };
    let mut done: Vec<_> = thread::scope(|scope| {
        let threads = [0, 1000]
            .map(|from| scope.spawn(move || (from..from + 100).map(apply).collect::<Vec<_>>()));
        threads
            .into_iter()
            .flat_map(|t| t.join().unwrap())
            .collect()
    });
    done.sort_by_key(|(_, applied)| applied.generation);
    assert_eq!(done[0].1.previous, None);
    for pair in done.windows(2) {
        let (number, _) = &pair[0];
        let previous = pair[1].1.previous.as_deref();
        assert_eq!(previous, Some(&policy(&format!("p{number}"))));
    }
}

#[test]
fn r72_that_enforcement_was_taken_back_is_known_until_a_mode_is_chosen() {
    use Enforcement::{DryRun, Enforce, Pass};
    let (firewall, _) = Firewall::loader().rehearse();
    firewall.apply(&policy("first")).unwrap();
    for (chosen, expected) in [(DryRun, false), (Pass, true), (Enforce, false)] {
        firewall.set_enforcement(DryRun, None).unwrap();
        assert!(!firewall.enforcement_taken_back());
        let short = Some(Duration::from_millis(50));
        firewall.set_enforcement(Enforce, short).unwrap();
        wait_for_the_deadline(&firewall);
        assert!(firewall.enforcement_taken_back());
        firewall.set_enforcement(chosen, None).unwrap();
        assert_eq!(firewall.enforcement_taken_back(), expected, "{chosen}");
    }
    firewall.set_enforcement(DryRun, None).unwrap();
    firewall.set_enforcement(Enforce, Some(LONG)).unwrap();
    firewall.rollback().unwrap();
    assert!(firewall.enforcement_taken_back());
    firewall.set_enforcement(Enforce, Some(LONG)).unwrap();
    firewall.confirm(firewall.generation().unwrap()).unwrap();
    assert!(!firewall.enforcement_taken_back());
}

#[test]
fn r72_a_mode_that_waits_is_taken_back_alone() {
    let (firewall, _) = Firewall::loader().rehearse();
    firewall.apply(&policy("first")).unwrap();
    assert_eq!(firewall.chosen_enforcement(), None);
    firewall
        .set_enforcement(Enforcement::Enforce, Some(LONG))
        .unwrap();
    let pending = firewall.pending().unwrap();
    assert_eq!(pending.previous, Previous::Enforcement(Enforcement::DryRun));
    assert_eq!(Some(pending.generation), firewall.generation());
    assert_eq!(firewall.chosen_enforcement(), Some(Enforcement::Enforce));
    let back = firewall.rollback().unwrap();
    assert_eq!(back, RolledBack::Enforcement(Enforcement::DryRun));
    assert_eq!(firewall.enforcement(), Enforcement::DryRun);
    assert_eq!(*firewall.policy().unwrap(), policy("first"));

    // What drops nothing need not wait, and ends the waiting.
    firewall
        .set_enforcement(Enforcement::Enforce, Some(LONG))
        .unwrap();
    firewall.set_enforcement(Enforcement::Pass, None).unwrap();
    assert_eq!(firewall.pending(), None);
    firewall.set_dry_run(false);
    assert_eq!(firewall.enforcement(), Enforcement::Pass);
    firewall.set_enforcement(Enforcement::DryRun, None).unwrap();
    firewall.set_dry_run(false);
    assert_eq!(firewall.enforcement(), Enforcement::Enforce);
    assert_eq!(firewall.chosen_enforcement(), Some(Enforcement::DryRun));
}

#[test]
fn r72_a_deadline_for_what_is_in_force_already_changes_nothing() {
    let (firewall, rehearsal) = Firewall::loader().dry_run(false).rehearse();
    firewall.apply(&policy("first")).unwrap();
    let done = rehearsal.operations().len();
    firewall
        .set_enforcement(Enforcement::Enforce, Some(LONG))
        .unwrap();
    assert_eq!(firewall.pending(), None);
    assert_eq!(firewall.enforcement(), Enforcement::Enforce);
    assert_eq!(firewall.chosen_enforcement(), None, "it does not last");
    assert_eq!(rehearsal.operations().len(), done);
}

#[test]
fn r110_what_was_confirmed_says_nothing_of_a_later_change() {
    let (firewall, _) = Firewall::loader().rehearse();
    let first = firewall.apply_with(&policy("first"), within(LONG)).unwrap();
    firewall.confirm(first.generation).unwrap();
    firewall.confirm(first.generation).unwrap();
    // The mode has the generation of the policy in force, and is taken back.
    let short = Some(Duration::from_millis(50));
    firewall
        .set_enforcement(Enforcement::Enforce, short)
        .unwrap();
    let started = Instant::now();
    while firewall.pending().is_some() {
        assert!(started.elapsed() < Duration::from_secs(20));
        thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(firewall.enforcement(), Enforcement::DryRun);
    let late = firewall.confirm(first.generation).unwrap_err();
    assert!(matches!(late, ConfirmError::NothingPending), "{late}");
}

#[test]
fn a_key_has_a_longest_length() {
    let (firewall, _) = Firewall::loader().rehearse();
    let key = |bytes| ApplyOptions::default().key("k".repeat(bytes));
    firewall
        .apply_with(&policy("first"), key(ApplyOptions::LONGEST_KEY))
        .unwrap();
    for bytes in [0, ApplyOptions::LONGEST_KEY + 1] {
        let error = firewall
            .apply_with(&policy("second"), key(bytes))
            .unwrap_err();
        assert!(error.to_string().contains("1 to 128"), "{error}");
    }
}

#[test]
fn r110_a_rollback_goes_back_from_what_the_caller_saw() {
    let (firewall, _) = Firewall::loader().rehearse();
    firewall.apply(&policy("first")).unwrap();
    let second = firewall.apply(&policy("second")).unwrap();
    let short = within(Duration::from_millis(50));
    let third = firewall.apply_with(&policy("third"), short).unwrap();
    let started = Instant::now();
    while firewall.pending().is_some() {
        assert!(started.elapsed() < Duration::from_secs(20));
        thread::sleep(Duration::from_millis(2));
    }
    // Taken back already: it would be the first now.
    for seen in [Generation::new(0), second.generation, third.generation] {
        let error = firewall.rollback_from(seen).unwrap_err();
        let RollbackError::Generation { expected, actual } = error else {
            panic!("{error}")
        };
        assert_eq!((expected, actual), (seen, firewall.generation()));
        assert_eq!(*firewall.policy().unwrap(), policy("second"));
    }
    firewall
        .rollback_from(firewall.generation().unwrap())
        .unwrap();
    assert_eq!(*firewall.policy().unwrap(), policy("first"));
}

#[test]
fn a_policy_and_its_generation_belong_together() {
    let (firewall, _) = Firewall::loader().rehearse();
    assert_eq!(firewall.in_force(), None);
    thread::scope(|scope| {
        let changes = scope.spawn(|| {
            // Odd generations are those of the one, even ones of the other.
            for id in ["odd", "even"].into_iter().cycle().take(300) {
                firewall.apply(&policy(id)).unwrap();
            }
        });
        while !changes.is_finished() {
            if let Some((policy, generation)) = firewall.in_force() {
                let id = policy.rules()[0].id.as_str();
                let expected = ["even", "odd"][(generation.get() % 2) as usize];
                assert_eq!(id, expected, "generation {generation}");
            }
        }
    });
    assert_eq!(firewall.in_force().map(|(_, g)| g), firewall.generation());
}
