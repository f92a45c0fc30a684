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
        version: 1,
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
        in_force: true,
        stage: 0,
        since: at(1000),
        paused_at: None,
        reason: None,
        events: Vec::new(),
        events_left_out: 0,
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
        matches!(
            step(rollout, observed, Some(at(1000)), at(now)),
            Step::Wait(_)
        )
    };
    let pending = Observed {
        pending: 1,
        reached: 1,
        ..Observed::default()
    };
    assert!(waits(&rollout, &pending, 9999), "nobody has answered");
    assert!(waits(&rollout, &well(1), 1059), "it bakes");
    assert!(waits(&rollout, &well(0), 1060), "it reached nobody");
    let away = Observed {
        offline: 1,
        ..Observed::default()
    };
    assert!(waits(&rollout, &away, 1060), "none of them was here");
    assert_eq!(
        step(&rollout, &well(1), Some(at(1000)), at(1060)),
        Step::Advance
    );
    for stage in 1..3 {
        rollout.stage = stage;
        assert_eq!(
            step(&rollout, &well(9), Some(at(1000)), at(1060)),
            Step::Advance
        );
    }
    rollout.stage = 3;
    assert_eq!(
        step(&rollout, &well(9), Some(at(1000)), at(1060)),
        Step::Finish
    );
    rollout.state = State::Paused;
    assert!(waits(&rollout, &well(9), 9999));
}

#[test]
fn r120_a_stage_bakes_from_when_its_nodes_have_it() {
    let rollout = rollout();
    let waits = |taken, now| matches!(step(&rollout, &well(1), taken, at(now)), Step::Wait(_));
    // The canary came back an hour after the begin.
    assert!(waits(Some(at(4600)), 4659));
    assert_eq!(
        step(&rollout, &well(1), Some(at(4600)), at(4660)),
        Step::Advance
    );
    assert!(waits(None, 9999), "not looked at before");
    // A pause ended after that.
    let resumed = Rollout {
        since: at(5000),
        ..rollout.clone()
    };
    let step = |now| step(&resumed, &well(1), Some(at(4600)), at(now));
    assert!(matches!(step(5059), Step::Wait(_)));
    assert_eq!(step(5060), Step::Advance);
}

#[test]
fn r120_gates_are_shares_of_what_was_reached_too() {
    let rollout = rollout();
    let lost = |reached, count| {
        let mut observed = well(reached);
        observed.lost.count = count;
        step(&rollout, &observed, Some(at(1000)), at(1060))
    };
    assert!(matches!(lost(99, 1), Step::RollBack(_)));
    assert_eq!(lost(100_000, 1_000), Step::Advance);
    let Step::RollBack(trouble) = lost(100_000, 1_001) else {
        panic!("it goes on");
    };
    assert_eq!(
        (trouble.gate.as_str(), trouble.allowed),
        ("max_lost", 1_000)
    );
}

#[test]
fn r120_each_gate_rolls_back_and_says_why() {
    let rollout = rollout();
    type Set = fn(&mut Observed, Seen);
    let cases: [(&str, Set); 4] = [
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
        let Step::RollBack(trouble) = step(&rollout, &observed, Some(at(1000)), at(1001)) else {
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
    assert_eq!(
        step(&lenient, &observed, Some(at(1000)), at(1060)),
        Step::Advance
    );
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

#[test]
fn r120_a_pause_does_not_count_as_baking() {
    let mut rollout = rollout();
    let mut change = |change: Change, now| rollout.change(&change, "ada", "lunch", at(now));
    assert_eq!(change(Change::Pause, 1010), Ok(true));
    assert_eq!(change(Change::Pause, 1020), Ok(false), "it is paused");
    let step = Change::Advance(0, well(1));
    assert!(change(step, 1020).is_err(), "it does not run");
    assert_eq!(change(Change::Resume, 2010), Ok(true));
    assert_eq!(rollout.since, at(2000));
    assert_eq!(rollout.paused_at, None);
    let words: Vec<_> = rollout
        .events
        .iter()
        .map(|event| event.what.word())
        .collect();
    assert_eq!(words, ["pause", "resume"]);
    assert_eq!(rollout.version, 3);
}

#[test]
fn r120_no_stage_is_skipped_or_made_twice_whoever_tries() {
    let mut rollout = rollout();
    let advance = |rollout: &mut Rollout, from| {
        let change = Change::Advance(from, well(1));
        rollout.change(&change, "rollout", "", at(1100))
    };
    assert_eq!(advance(&mut rollout, 0), Ok(true));
    assert!(advance(&mut rollout, 0).is_err(), "made already");
    assert!(advance(&mut rollout, 2).is_err(), "not there yet");
    let finish = |from| Change::Finish(from, well(1));
    assert!(rollout.change(&finish(1), "rollout", "", at(1100)).is_err());
    assert_eq!(advance(&mut rollout, 1), Ok(true));
    assert_eq!(advance(&mut rollout, 2), Ok(true));
    assert!(advance(&mut rollout, 3).is_err(), "it is the last");
    assert_eq!(
        rollout.change(&finish(3), "rollout", "", at(1100)),
        Ok(true)
    );
    assert_eq!(rollout.state, State::Done);
    let error = rollout.change(&Change::Abort, "ada", "", at(1100));
    assert_eq!(error, Err("it is done, so it cannot be aborted".to_owned()));
}

#[test]
fn the_history_stays_bounded_and_keeps_how_it_began() {
    let mut rollout = rollout();
    for n in 0..200 {
        let change = [Change::Pause, Change::Resume][n % 2].clone();
        rollout.change(&change, "ada", "x", at(1000)).unwrap();
    }
    assert_eq!(rollout.events.len(), MAX_EVENTS);
    assert_eq!(rollout.events_left_out, 100);
    assert_eq!(rollout.events[0].what, What::Paused);
    assert!(serde_json::to_vec(&rollout).unwrap().len() < crate::store::MAX_VALUE / 4);
}

#[test]
fn a_plan_that_cannot_be_followed_is_refused_with_the_field() {
    let plan = |reaches: &[Planned]| Plan {
        stages: reaches
            .iter()
            .map(|reach| PlannedStage {
                reach: reach.clone(),
                bake_seconds: 0,
            })
            .collect(),
        gates: Gates::default(),
    };
    assert_eq!(Plan::default().check(), Ok(()));
    use Planned::{All, Count, Nodes, Percent};
    for (reaches, field) in [
        (&[][..], "stages"),
        (&[Count(1)], "stages[0].reach"),
        (&[Count(0), All], "stages[0].reach"),
        (&[All, All], "stages[0].reach"),
        (&[Percent(50), Percent(50), All], "stages[1].reach"),
        (&[Percent(0), All], "stages[0].reach"),
        (&[Nodes(Vec::new()), All], "stages[0].reach"),
        (&[Planned::Selector("=".to_owned()), All], "stages[0].reach"),
    ] {
        let error = plan(reaches).check().expect_err(field);
        assert_eq!(error.field, field, "{error}");
    }
    let mut infinite = Plan::default();
    infinite.gates.drop_ratio_factor = f64::NAN;
    assert!(infinite.check().is_err());
}

#[test]
fn a_number_becomes_those_that_are_first_by_rank() {
    let nodes: Vec<String> = (0..100).map(|n| format!("n-{n}")).collect();
    let plan = Plan {
        stages: vec![
            PlannedStage {
                reach: Planned::Count(2),
                bake_seconds: 7,
            },
            PlannedStage {
                reach: Planned::Percent(10),
                bake_seconds: 0,
            },
            PlannedStage {
                reach: Planned::Percent(100),
                bake_seconds: 0,
            },
        ],
        gates: Gates::default(),
    };
    let start = Start {
        id: "r-9",
        policy: "edge",
        from: 1,
        to: 2,
        plan: &plan,
        by: "ada",
        why: "",
        now: at(0),
    };
    let rollout = Rollout::start(&start, nodes.iter().map(String::as_str)).unwrap();
    let mut ranked = nodes.clone();
    ranked.sort_by_key(|node| rank("r-9", node));
    let mut first = ranked[..2].to_vec();
    first.sort();
    assert_eq!(rollout.stages[0].reach, Reach::Nodes(first));
    assert_eq!(rollout.stages[2].reach, Reach::All);
    let labels = crate::domain::Labels::new();
    let preview = Reached::new(rollout.into()).preview(nodes.iter().map(|n| (n.as_str(), &labels)));
    assert_eq!(preview[0].more, 2);
    assert_eq!(preview[2].nodes, 100);
    assert!(
        Rollout::start(&start, [].into_iter()).is_err(),
        "nobody has it"
    );
}
