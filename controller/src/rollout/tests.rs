use jiff::{SignedDuration, Timestamp};

use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds)
}

fn stage(reach: Reach, bake_seconds: u32) -> Stage {
    Stage {
        reach,
        bake_seconds,
    }
}

/// A canary, a tenth, zone b, all.
fn rollout() -> Rollout {
    Rollout {
        id: "r-1".to_owned(),
        policy: "edge".to_owned(),
        from: 3,
        to: 4,
        stages: vec![
            stage(Reach::Nodes(vec!["n-canary".to_owned()]), 60),
            stage(Reach::Percent(10), 30),
            stage(Reach::Selector("zone=b".to_owned()), 0),
            stage(Reach::All, 0),
        ],
        gates: Gates::default(),
        state: State::Running,
        stage: 0,
        since: at(1000),
        reason: None,
    }
}

fn well(reached: u64) -> Observed {
    Observed {
        reached,
        applied: reached,
        ..Observed::default()
    }
}

fn one(example: &str) -> Seen {
    Seen {
        count: 1,
        example: Some(example.to_owned()),
    }
}

#[test]
fn r120_stages_come_one_after_the_other_and_not_before_their_time() {
    let mut rollout = rollout();
    let waits = |rollout: &Rollout, observed: &Observed, now| {
        matches!(step(rollout, observed, at(now)), Step::Wait(_))
    };
    let pending = Observed {
        pending: 1,
        reached: 1,
        ..Observed::default()
    };
    assert!(waits(&rollout, &pending, 9999), "nobody has answered");
    assert!(waits(&rollout, &well(1), 1059), "it bakes");
    assert!(waits(&rollout, &well(0), 1060), "it reached nobody");
    assert_eq!(step(&rollout, &well(1), at(1060)), Step::Advance);
    for stage in 1..3 {
        rollout.stage = stage;
        assert_eq!(step(&rollout, &well(9), at(1060)), Step::Advance);
    }
    rollout.stage = 3;
    assert_eq!(step(&rollout, &well(9), at(1060)), Step::Finish);
    rollout.state = State::Paused;
    assert!(waits(&rollout, &well(9), 9999));
}

#[test]
fn r120_each_gate_rolls_back_and_says_why() {
    let rollout = rollout();
    let cases: [(&str, fn(&mut Observed, Seen)); 4] = [
        ("max_refused", |o, s| o.refused = s),
        ("max_lost", |o, s| o.lost = s),
        ("max_unhealthy", |o, s| o.unhealthy = s),
        ("max_dropping", |o, s| o.dropping = s),
    ];
    for (gate, set) in cases {
        let mut observed = well(1);
        set(&mut observed, one("n-7: because"));
        // Whatever else is still to come.
        observed.pending = 1;
        let Step::RollBack(trouble) = step(&rollout, &observed, at(1001)) else {
            panic!("{gate} does not roll back");
        };
        assert_eq!(
            trouble.to_string(),
            format!("{gate}: 1 nodes, 0 are allowed: n-7: because")
        );
    }
    let lenient = Rollout {
        gates: Gates {
            max_refused: 1,
            ..Gates::default()
        },
        ..rollout
    };
    let mut observed = well(1);
    observed.refused = one("n-7");
    assert_eq!(step(&lenient, &observed, at(1060)), Step::Advance);
}

#[test]
fn a_drop_is_measured_by_what_the_node_dropped_before() {
    let gates = Gates::default();
    assert!(!gates.drops_too_much(0.0, 0.05), "below the floor");
    assert!(gates.drops_too_much(0.0, 0.051));
    assert!(!gates.drops_too_much(0.25, 0.75), "three times is allowed");
    assert!(gates.drops_too_much(0.25, 0.76));
}

#[test]
fn who_is_reached_follows_from_the_record_alone() {
    let mut rollout = rollout();
    let selects = |zone: &'static str| move |selector: &str| selector == format!("zone={zone}");
    let nodes: Vec<String> = (0..10_000).map(|n| format!("n-{n}")).collect();
    let reached = |rollout: &Rollout| -> Vec<&String> {
        let all = nodes.iter();
        all.filter(|node| rollout.reaches(node, selects("a")))
            .collect()
    };
    assert!(rollout.reaches("n-canary", selects("a")));
    assert!(reached(&rollout).is_empty());
    rollout.stage = 1;
    let tenth = reached(&rollout);
    assert!((900..1100).contains(&tenth.len()), "{}", tenth.len());
    // Others go first in another rollout.
    let other = Rollout {
        id: "r-2".to_owned(),
        ..rollout.clone()
    };
    let both = reached(&other).iter().filter(|n| tenth.contains(n)).count();
    assert!(both < tenth.len() / 4, "{both}");
    rollout.stage = 2;
    assert_eq!(reached(&rollout), tenth, "none of them is in zone b");
    assert!(rollout.reaches("n-x", selects("b")));
    rollout.stage = 3;
    assert_eq!(reached(&rollout).len(), nodes.len());
    for (state, all) in [
        (State::Done, true),
        (State::Aborted, false),
        (State::RolledBack, false),
    ] {
        rollout.state = state;
        assert_eq!(rollout.reaches("n-canary", selects("b")), all);
        assert!(!rollout.is_active());
    }
}
