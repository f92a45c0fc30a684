//! A change that nobody confirmed and that the kernel refuses to take back: it is tried again, a policy
//! that is applied gets through, and at last everything passes.
#![cfg(feature = "kernel")]

#[allow(dead_code, unreachable_pub, reason = "shared with other tests")]
mod common {
    pub mod child;
    pub mod live;
    pub mod netns;
    pub mod packet;
}

use std::thread;
use std::time::{Duration, Instant};

use common::child::{self, Places, Process, judged, number, policy};
use common::live::Entry;
use common::netns::{self, sh};
use xdpgate::policy::{Change, RuleId};
use xdpgate::{
    ApplyError, ApplyOptions, ConfirmError, Enforcement, Firewall, HealthError, Previous,
    TransactionError, TransactionOptions,
};

#[test]
fn child() {
    child::serve();
}

/// The kernel gives the process no descriptor any more, and so no map and no program; or again.
fn refuse(process: &Process, refuse: bool) {
    let descriptors = if refuse { 3 } else { 1024 };
    sh(&format!(
        "prlimit --pid {} --nofile={descriptors}:",
        process.id()
    ));
}

#[test]
fn r110_a_take_back_that_the_kernel_refuses_is_tried_again() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        let (places, _state) = Places::new("overdue-again");
        let (mut process, _) = Process::start(&places);
        process.tell("mode enforce");
        process.tell("apply 1");
        process.tell("try 2 3000");
        refuse(&process, true);
        netns::wait_until("a refusal", || process.tell("state").refused >= 2);
        assert_eq!(places.judged(), 2, "it stays whole");
        refuse(&process, false);
        netns::wait_until("the policy before", || process.tell("state").pending == 0);
        let state = process.tell("state");
        assert_eq!(
            (state.judged, &*state.mode, state.refused),
            (1, "enforce", 0)
        );
        assert_eq!((places.judged(), places.saved("policy.yaml")), (1, 1));
    });
}

#[test]
fn r110_what_cannot_be_taken_back_lets_everything_pass_and_gives_way() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        let (places, _state) = Places::new("overdue-open");
        let (mut process, _) = Process::start(&places);
        process.tell("mode enforce");
        process.tell("apply 1");
        process.tell("try 2 3000");
        refuse(&process, true);
        netns::wait_until("pass mode", || {
            let state = process.tell("state");
            assert!(
                state.mode != "pass" || state.refused >= 4,
                "not at once: {state:?}"
            );
            // The fifth is told when all of it is done.
            state.mode == "pass" && state.refused >= 5
        });
        let state = process.tell("state");
        assert!(state.pending > 0, "{state:?}");
        assert_eq!(places.judged(), 0);

        // Long before it is tried the next time a policy gets through, in place of the one that waited.
        refuse(&process, false);
        let state = process.tell("apply 4");
        assert_eq!((state.judged, state.pending), (4, 0));
        assert_eq!(places.saved("policy.yaml"), 4);
        assert!(!places.state.join("pending.yaml").exists());
        // Who opened it ends it.
        assert_eq!((&*state.mode, places.judged()), ("pass", 0));
        assert!(places.state.join("pass").exists());
        process.tell("mode enforce");
        assert_eq!(places.judged(), 4);
        // Before it was the last one that lasted.
        assert_eq!(process.tell("rollback").judged, 1);
        process.kill();
        let (_process, state) = Process::start(&places);
        assert_eq!(
            (state.judged, &*state.mode, state.pending),
            (1, "enforce", 0)
        );
    });
}

/// A start with too few places for the rules of the policy before: what the process before left judges
/// until everything passes.
#[test]
fn r110_what_a_start_cannot_take_back() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        let (places, _state) = Places::new("overdue-start");
        let firewall = places.loader().load().unwrap();
        firewall
            .set_enforcement(Enforcement::Enforce, None)
            .unwrap();
        firewall.apply(&policy(255)).unwrap();
        let within = |milliseconds| {
            ApplyOptions::default().confirm_within(Duration::from_millis(milliseconds))
        };
        let waits = firewall.apply_with(&policy(1), within(2000)).unwrap();
        drop(firewall);
        thread::sleep(Duration::from_millis(2100));

        let former = Entry::pinned(&places.pins.join("1/xdpgate"));
        let former = || number(|frame| former.receive(frame));
        assert_eq!(former(), 1, "there was nobody");
        let firewall = places.loader().max_rules(4).load().unwrap();
        assert_eq!(firewall.in_force(), None);
        let pending = firewall.pending().unwrap();
        assert_eq!(pending.generation, waits.generation);
        assert_eq!(pending.previous, Previous::Policy(policy(255).into()));
        let refused = pending.refused.unwrap();
        assert!(refused.reason.contains("8 rules"), "{refused:?}");

        // All that speaks of it says so.
        let error = firewall.health().unwrap_err();
        assert!(matches!(error, HealthError::TakeBack { .. }), "{error}");
        let error = firewall.confirm(waits.generation).unwrap_err();
        assert!(matches!(error, ConfirmError::Overdue { .. }), "{error}");
        let gone = [Change::RemoveRule(RuleId::new("n1-0").unwrap())];
        let error = firewall.transact(&gone, TransactionOptions::default());
        let error = error.unwrap_err();
        assert!(
            matches!(error, TransactionError::Apply(ApplyError::Pending(_))),
            "{error}"
        );
        assert!(
            error.to_string().contains("apply a whole policy"),
            "{error}"
        );

        let refused = |firewall: &Firewall| firewall.pending().unwrap().refused.unwrap();
        netns::wait_until("pass mode", || refused(&firewall).opened);
        assert_eq!((former(), firewall.enforcement()), (0, Enforcement::Pass));
        netns::wait_until("its mark", || places.state.join("pass").exists());

        // It is opened once, and the next process knows that.
        let opened = || places.text("state.json").contains("\"opened\": true");
        netns::wait_until("what was done on disk", opened);
        firewall
            .set_enforcement(Enforcement::Enforce, None)
            .unwrap();
        drop(firewall);
        let firewall = places.loader().max_rules(4).load().unwrap();
        assert!(refused(&firewall).opened);
        netns::wait_until("five more", || refused(&firewall).tries >= 5);
        assert_eq!(firewall.enforcement(), Enforcement::Enforce);

        // One that waits itself falls back to the last that lasted, not to the one that it replaced.
        let waits = firewall.apply_with(&policy(2), within(60_000)).unwrap();
        let pending = firewall.pending().unwrap();
        assert_eq!(
            (pending.generation, pending.refused),
            (waits.generation, None)
        );
        assert_eq!(pending.previous, Previous::Policy(policy(255).into()));
        firewall.confirm(waits.generation).unwrap();
        firewall.health().unwrap();
        assert_eq!(judged(&firewall), 2);
    });
}

/// Neither what waits nor what was before has room, and the deadline is not past: what the process before
/// left judges until then, and then it is as ever.
#[test]
fn r110_a_start_before_the_deadline_that_can_put_nothing_in_force() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        let (places, _state) = Places::new("overdue-early");
        let firewall = places.loader().load().unwrap();
        firewall
            .set_enforcement(Enforcement::Enforce, None)
            .unwrap();
        firewall.apply(&policy(255)).unwrap();
        let within = Duration::from_secs(20);
        let begun = Instant::now();
        let options = ApplyOptions::default().confirm_within(within);
        let waits = firewall.apply_with(&policy(127), options).unwrap();
        drop(firewall);

        let former = Entry::pinned(&places.pins.join("1/xdpgate"));
        let firewall = places.loader().max_rules(4).load().unwrap();
        assert_eq!(firewall.in_force(), None);
        let judges = number(|frame| former.receive(frame));
        assert_eq!(judges, 127, "as it was left");
        let pending = firewall.pending().unwrap();
        assert_eq!(pending.generation, waits.generation);
        let refused = pending.refused.unwrap();
        assert_eq!((refused.tries, refused.opened), (1, false));
        assert!(begun.elapsed() < within, "this test took too long");
        let error = firewall.confirm(waits.generation).unwrap_err();
        assert!(matches!(error, ConfirmError::NotInForce { .. }), "{error}");
        // With room again, before the deadline, all is as it was to be.
        drop(firewall);
        let firewall = places.loader().load().unwrap();
        assert_eq!(judged(&firewall), 127);
        assert_eq!(firewall.pending().unwrap().refused, None);
        drop(firewall);

        let firewall = places.loader().max_rules(4).load().unwrap();
        let tries = || firewall.pending().unwrap().refused.unwrap().tries;
        thread::sleep(within.saturating_sub(begun.elapsed()));
        netns::wait_until("a try at the deadline", || tries() >= 2);
        // The way out.
        firewall.apply(&policy(2)).unwrap();
        assert_eq!((firewall.pending(), judged(&firewall)), (None, 2));
    });
}
