//! Commit-confirm and pass mode: what nobody confirmed is taken back by itself, also when the process
//! was killed meanwhile, and pass mode stays until somebody ends it.
#![cfg(feature = "kernel")]

#[allow(dead_code, unreachable_pub, reason = "shared with other tests")]
mod common {
    pub mod child;
    pub mod live;
    pub mod netns;
    pub mod packet;
}

use std::env;
use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use common::child::{self, Places, Process, judged, policy};
use common::live::Entry;
use common::netns::{self, sh};
use common::packet::udp_from;
use tempfile::TempDir;
use xdpgate::{
    ApplyOptions, ConfirmError, Enforcement, EnforcementError, Firewall, Generation, PassAllError,
    Previous, RolledBack, TransactionError, Verdict, pass_all, unpin,
};

#[test]
fn child() {
    child::serve();
}

fn within(milliseconds: u64) -> ApplyOptions {
    ApplyOptions::default().confirm_within(Duration::from_millis(milliseconds))
}

#[test]
fn r72_r110_what_nobody_confirms_is_taken_back() {
    if netns::skipped() {
        return;
    }
    // In memory only, and with a state directory.
    let state = TempDir::new().unwrap();
    for loader in [
        Firewall::loader(),
        Firewall::loader().state_dir(state.path()),
    ] {
        let firewall = loader.dry_run(false).load().unwrap();
        let entry = Entry::of(&firewall);
        firewall.apply(&policy(1)).unwrap();
        let started = Instant::now();
        let applied = firewall.apply_with(&policy(2), within(400)).unwrap();
        assert_eq!(judged(&firewall), 2);
        assert_eq!(entry.receive(&udp_from("192.0.2.1")), Verdict::Drop);
        let pending = firewall.pending().unwrap();
        assert_eq!(pending.generation, applied.generation);
        let Previous::Policy(previous) = &pending.previous else {
            panic!("{pending:?}")
        };
        assert_eq!(**previous, policy(1));
        // Meanwhile there is no other change.
        let refused = firewall.apply(&policy(3)).unwrap_err().to_string();
        assert!(refused.contains("confirm it or roll it back"), "{refused}");

        netns::wait_until("the policy before", || firewall.pending().is_none());
        assert!(started.elapsed() >= Duration::from_millis(400), "early");
        assert_eq!(judged(&firewall), 1);
        assert_eq!(entry.receive(&udp_from("192.0.2.1")), Verdict::Pass);
        assert_eq!(entry.receive(&udp_from("192.0.2.0")), Verdict::Drop);
        assert!(firewall.generation().unwrap() > applied.generation);
        let late = firewall.confirm(applied.generation).unwrap_err();
        assert!(matches!(late, ConfirmError::NothingPending), "{late}");

        // Confirmed it stays.
        let applied = firewall.apply_with(&policy(4), within(400)).unwrap();
        let other = firewall.confirm(Generation::new(99)).unwrap_err();
        assert!(matches!(other, ConfirmError::Generation { .. }), "{other}");
        firewall.confirm(applied.generation).unwrap();
        firewall.confirm(applied.generation).unwrap();
        thread::sleep(Duration::from_millis(700));
        assert_eq!(judged(&firewall), 4);
        assert_eq!(firewall.generation(), Some(applied.generation));

        // Also after that it can be taken back, and that as well.
        for number in [1, 4, 1] {
            let back = firewall.rollback().unwrap();
            assert!(matches!(back, RolledBack::Policy(_)), "{back:?}");
            assert_eq!(judged(&firewall), number);
        }
        // While it waits a rollback does not wait.
        firewall.apply_with(&policy(5), within(60_000)).unwrap();
        firewall.rollback().unwrap();
        assert_eq!((judged(&firewall), firewall.pending()), (1, None));
        firewall.saved().unwrap();
    }
    assert_eq!(
        Places {
            pins: state.path().into(),
            state: state.path().into()
        }
        .saved("policy.yaml"),
        1
    );
}

#[test]
fn r110_before_the_first_policy_everything_passes_again() {
    if netns::skipped() {
        return;
    }
    let firewall = Firewall::loader().load().unwrap();
    let options = within(200).expect_generation(Generation::new(0));
    let first = firewall.apply_with(&policy(255), options.clone()).unwrap();
    assert_eq!(firewall.pending().unwrap().previous, Previous::NoPolicy);
    netns::wait_until("no policy", || firewall.pending().is_none());
    assert_eq!(judged(&firewall), 0);
    let error = firewall.apply_with(&policy(255), options).unwrap_err();
    let TransactionError::Generation { actual, .. } = error else {
        panic!("{error}")
    };
    assert!(actual > Some(first.generation));
}

#[test]
fn r110_killed_while_it_waits() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        let (places, _state) = Places::new("confirm-kill");
        let (mut process, _) = Process::start(&places);
        process.tell("mode enforce");
        process.tell("apply 1");
        let started = Instant::now();
        let waits = process.tell("try 2 3000");
        process.kill();
        // Nobody is there, and what was pinned judges.
        assert_eq!(places.judged(), 2);
        assert_eq!(places.saved("policy.yaml"), 1);
        assert_eq!(places.saved("pending.yaml"), 2);

        // The next one waits for the rest.
        let (mut process, state) = Process::start(&places);
        assert_eq!(
            (state.judged, state.pending),
            (2, waits.pending),
            "{state:?}"
        );
        assert_eq!(
            places.saved("policy.yaml"),
            1,
            "what lasts is still the one before"
        );
        netns::wait_until("the policy before", || places.judged() == 1);
        assert!(started.elapsed() >= Duration::from_millis(3000), "early");
        assert!(started.elapsed() < Duration::from_secs(10), "late");
        // The process says so a moment later than the kernel judges so.
        netns::wait_until("its word", || process.tell("state").pending == 0);
        assert_eq!(process.tell("state").judged, 1);

        // And one that comes after the deadline begins with the policy before.
        process.tell("try 4 300");
        process.kill();
        thread::sleep(Duration::from_millis(400));
        assert_eq!(places.judged(), 4, "there was nobody");
        let (mut process, state) = Process::start(&places);
        assert_eq!((state.judged, state.pending), (1, 0));
        assert_eq!(places.judged(), 1);
        assert!(!places.state.join("pending.yaml").exists());

        // What was answered before the kill can be confirmed after it.
        let waits = process.tell("try 8 60000");
        process.kill();
        let (mut process, state) = Process::start(&places);
        assert!(state.generation > waits.generation, "{state:?}");
        let state = process.tell(&format!("confirm {}", waits.generation));
        assert_eq!((state.judged, state.pending), (8, 0));
        process.kill();
        let (_process, state) = Process::start(&places);
        assert_eq!((state.judged, state.pending), (8, 0));
    });
}

/// A clock that nobody can set goes on in a namespace of its own: an hour later.
#[test]
fn r110_r129_the_clock_of_the_boot_jumps() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        let (places, _state) = Places::new("confirm-clock");
        let later = |seconds: u32| {
            let mut command = Command::new("unshare");
            command
                .args(["--time", "--boottime", &seconds.to_string(), "--fork"])
                .args(["--kill-child", "--"])
                .arg(env::current_exe().unwrap());
            command
        };
        let (mut process, _) = Process::start(&places);
        process.tell("apply 1");
        process.tell("try 2 60000");
        process.kill();
        // Not yet, if it is only little later.
        let (mut process, state) = Process::start_by(later(10), &places);
        assert_eq!((state.judged, state.pending > 0), (2, true));
        process.kill();
        netns::wait_until("the end of the process", || !is_locked(&places));
        let (_process, state) = Process::start_by(later(3600), &places);
        assert_eq!((state.judged, state.pending), (1, 0), "an hour later");
    });
}

/// Whether a process uses the state directory: the one below `unshare` ends a moment after it.
fn is_locked(places: &Places) -> bool {
    let status = Command::new("flock")
        .arg("-n")
        .arg(&places.state)
        .arg("true")
        .status();
    !status.unwrap().success()
}

#[test]
fn r110_r129_over_a_restart_of_the_machine() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        let (places, _state) = Places::new("confirm-boot");
        let state_file = places.state.join("state.json");
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        for (wall, pending) in [("still", true), ("2001-01-01T00:00:00Z", false)] {
            let (mut process, _) = Process::start(&places);
            process.tell("apply 1");
            let before = process.tell("try 2 600000");
            process.kill();
            // No pins, and the record is of another boot.
            unpin(&places.pins).unwrap();
            let mut text = fs::read_to_string(&state_file).unwrap();
            assert!(text.contains(boot.trim()), "{text}");
            text = text.replace(boot.trim(), "00000000-0000-0000-0000-000000000000");
            if wall != "still" {
                let at = text.find("\"wall\": \"").unwrap() + 9;
                let end = at + text[at..].find('"').unwrap();
                text.replace_range(at..end, wall);
            }
            fs::write(&state_file, text).unwrap();
            let (mut process, after) = Process::start(&places);
            assert!(after.generation > before.generation, "{before:?} {after:?}");
            let expected = if pending { 2 } else { 1 };
            assert_eq!(
                (after.judged, after.pending > 0),
                (expected, pending),
                "{wall}"
            );
            if pending {
                process.tell(&format!("confirm {}", after.pending));
            }
        }
    });
}

#[test]
fn r72_r110_enforcement_that_nobody_confirms() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        let (places, _state) = Places::new("confirm-mode");
        let (mut process, state) = Process::start(&places);
        assert_eq!(state.mode, "dryrun", "a first start");
        process.tell("apply 7");
        assert_eq!(places.judged(), 0, "dry run");
        let state = process.tell("mode enforce 1500");
        assert_eq!(
            (state.mode.as_str(), state.pending),
            ("enforce", state.generation)
        );
        assert_eq!(places.judged(), 7);
        process.kill();
        let (mut process, state) = Process::start(&places);
        assert_eq!((state.mode.as_str(), state.pending > 0), ("enforce", true));
        netns::wait_until("dry run", || places.judged() == 0);
        assert_eq!(process.tell("state").mode, "dryrun");

        // Past the deadline when the next one starts.
        process.tell("mode enforce 200");
        process.kill();
        thread::sleep(Duration::from_millis(300));
        assert_eq!(places.judged(), 7);
        let (mut process, state) = Process::start(&places);
        assert_eq!((state.mode.as_str(), state.pending), ("dryrun", 0));
        assert_eq!(places.judged(), 0);

        // Confirmed it stays, also where nothing is pinned any more.
        let state = process.tell("mode enforce 60000");
        process.tell(&format!("confirm {}", state.pending));
        process.kill();
        unpin(&places.pins).unwrap();
        let (_process, state) = Process::start(&places);
        assert_eq!((state.mode.as_str(), state.pending), ("enforce", 0));
        assert_eq!(places.judged(), 7);
    });
}

#[test]
fn r72_pass_mode_stays_until_it_is_ended() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        let (places, _state) = Places::new("pass");
        let firewall = places.loader().load().unwrap();
        firewall
            .set_enforcement(Enforcement::Enforce, None)
            .unwrap();
        firewall.apply(&policy(7)).unwrap();
        assert_eq!(places.judged(), 7);
        // From outside, while the process that owns it does nothing.
        pass_all(&places.pins, Some(&places.state)).unwrap();
        assert_eq!(places.judged(), 0);
        assert_eq!(firewall.enforcement(), Enforcement::Pass);
        assert!(firewall.dry_run());
        firewall.set_dry_run(false);
        firewall.set_dry_run(true);
        assert_eq!(firewall.enforcement(), Enforcement::Pass);
        // A policy can be mended meanwhile.
        firewall.apply(&policy(3)).unwrap();
        assert_eq!(places.judged(), 0);
        drop(firewall);

        // Neither a restart ends it, nor one of the machine.
        for _ in 0..2 {
            let firewall = places.loader().dry_run(false).load().unwrap();
            assert_eq!(firewall.enforcement(), Enforcement::Pass);
            assert_eq!((judged(&firewall), places.judged()), (3, 0));
            drop(firewall);
            unpin(&places.pins).unwrap();
        }
        let firewall = places.loader().load().unwrap();
        let error = firewall.set_enforcement(Enforcement::DryRun, Some(Duration::from_secs(1)));
        let nothing = EnforcementError::NothingToConfirm {
            mode: Enforcement::DryRun,
        };
        assert_eq!(error.unwrap_err().to_string(), nothing.to_string());
        firewall
            .set_enforcement(Enforcement::Enforce, None)
            .unwrap();
        assert_eq!(places.judged(), 3);
        drop(firewall);
        let firewall = places.loader().load().unwrap();
        assert_eq!(firewall.enforcement(), Enforcement::Enforce);

        // Without a state directory the pins remember it; without pins it is an error.
        pass_all(&places.pins, None).unwrap();
        drop(firewall);
        fs::remove_dir_all(&places.state).unwrap();
        let firewall = places.loader().dry_run(false).load().unwrap();
        assert_eq!(firewall.enforcement(), Enforcement::Pass);
        assert!(places.state.join("pass").exists(), "it is marked now");
        drop(firewall);
        sh(&format!("rm -r {}", places.state.display()));
        unpin(&places.pins).unwrap();
        let error = pass_all(&places.pins, None).unwrap_err().to_string();
        assert!(error.contains("no pins there"), "{error}");
        assert!(!error.contains("marked"), "{error}");
    });
}

/// Maps that cannot be opened do not keep others from being switched.
#[test]
fn r72_pass_mode_for_all_that_can_be_switched() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        let (places, _state) = Places::new("pass-broken");
        let firewall = places.loader().load().unwrap();
        firewall
            .set_enforcement(Enforcement::Enforce, None)
            .unwrap();
        firewall.apply(&policy(7)).unwrap();
        assert_eq!(places.judged(), 7);
        // Newer ones, without the map of the mode.
        let broken = places.pins.join("9");
        fs::create_dir(&broken).unwrap();
        fs::hard_link(places.pins.join("1/layout"), broken.join("layout")).unwrap();
        let error = pass_all(&places.pins, Some(&places.state)).unwrap_err();
        assert!(error.to_string().contains("9/control"), "{error}");
        assert!(
            matches!(&error, PassAllError::Pins { marked: Some(dir), .. } if *dir == places.state),
            "{error}"
        );
        assert_eq!(firewall.enforcement(), Enforcement::Pass);
        // Each half is told.
        let nowhere = places.state.join("nowhere");
        let error = pass_all(&places.pins, Some(&nowhere)).unwrap_err();
        assert!(matches!(error, PassAllError::Both { .. }), "{error}");
        fs::remove_dir_all(&broken).unwrap();
        let error = pass_all(&places.pins, Some(&nowhere)).unwrap_err();
        assert!(matches!(error, PassAllError::Mark { .. }), "{error}");
        assert!(error.to_string().contains("nowhere/pass"), "{error}");
        assert_eq!(places.judged(), 0);
        assert!(places.state.join("pass").exists());
    });
}

/// The end of pass mode is saved whole or not at all.
#[test]
fn r72_pass_mode_whose_end_cannot_be_saved_stays() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        let (places, _state) = Places::new("pass-full");
        let firewall = places.loader().load().unwrap();
        firewall
            .set_enforcement(Enforcement::Enforce, None)
            .unwrap();
        firewall.apply(&policy(7)).unwrap();
        firewall.set_enforcement(Enforcement::Pass, None).unwrap();
        // In its place nothing can be put.
        let (record, aside) = (places.state.join("state.json"), places.state.join("aside"));
        fs::rename(&record, &aside).unwrap();
        fs::create_dir(&record).unwrap();
        let error = firewall.set_enforcement(Enforcement::DryRun, None);
        let error = error.unwrap_err();
        assert!(
            matches!(error, EnforcementError::NotSaved { .. }),
            "{error}"
        );
        assert_eq!(firewall.enforcement(), Enforcement::Pass);
        assert_eq!(places.judged(), 0);
        assert!(firewall.saved().is_err());
        drop(firewall);
        // The next process knows no better.
        fs::remove_dir(&record).unwrap();
        fs::rename(&aside, &record).unwrap();
        unpin(&places.pins).unwrap();
        let firewall = places.loader().load().unwrap();
        assert_eq!(firewall.enforcement(), Enforcement::Pass);
        firewall.set_enforcement(Enforcement::DryRun, None).unwrap();
        drop(firewall);
        unpin(&places.pins).unwrap();
        let firewall = places.loader().load().unwrap();
        assert_eq!(firewall.enforcement(), Enforcement::DryRun);
    });
}

/// What came after a deadline was set is not undone by it.
#[test]
fn r72_a_deadline_does_not_end_pass_mode() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        let (places, _state) = Places::new("pass-deadline");
        let firewall = places.loader().load().unwrap();
        firewall.apply(&policy(7)).unwrap();
        let within = Some(Duration::from_millis(500));
        firewall
            .set_enforcement(Enforcement::Enforce, within)
            .unwrap();
        assert_eq!(places.judged(), 7);
        pass_all(&places.pins, Some(&places.state)).unwrap();
        netns::wait_until("the deadline", || firewall.pending().is_none());
        assert_eq!(firewall.enforcement(), Enforcement::Pass);
        assert!(places.state.join("pass").exists());
    });
}

/// Enforcement after pass mode, at each step of its confirmation: whenever the process is killed the next
/// one begins in pass mode, until all is on disk.
#[test]
fn r72_r110_pass_mode_until_its_end_is_confirmed_on_disk() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        // What cannot be put in its place: the record, which is first, or the mark.
        for file in ["state.json", "pass"] {
            let (places, _state) = Places::new(&format!("pass-confirm-{file}"));
            let (mut process, _) = Process::start(&places);
            process.tell("mode enforce");
            process.tell("apply 7");
            process.tell("mode pass");
            let waits = process.tell("mode enforce 60000");
            assert_eq!((&*waits.mode, places.judged()), ("enforce", 7));
            let (broken, aside) = (places.state.join(file), places.state.join("aside"));
            fs::rename(&broken, &aside).unwrap();
            fs::create_dir(&broken).unwrap();
            let said = process.tell(&format!("not-confirm {}", waits.pending));
            assert_eq!(said.pending, waits.pending, "{file}: the deadline stands");
            process.kill();
            fs::remove_dir(&broken).unwrap();
            fs::rename(&aside, &broken).unwrap();
            let (mut process, state) = Process::start(&places);
            assert_eq!((&*state.mode, places.judged()), ("pass", 0), "{file}");

            // And with a disk that does what it should.
            let waits = process.tell("mode enforce 60000");
            process.tell(&format!("confirm {}", waits.pending));
            process.kill();
            let (_process, state) = Process::start(&places);
            assert_eq!((&*state.mode, places.judged()), ("enforce", 7), "{file}");
        }
    });
}
