//! The state directory: killed at any moment, full, read-only, of another version; generations and keys
//! go on.
#![cfg(feature = "kernel")]

#[allow(dead_code, unreachable_pub, reason = "shared with other tests")]
mod common {
    pub mod child;
    pub mod live;
    pub mod netns;
    pub mod packet;
    pub mod random;
}

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use common::child::{self, Places, Process, judged, number_of, policy};
use common::netns;
use common::random::Random;
use nix::mount::{MsFlags, mount};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use xdpgate::policy::{Change, Policy, RuleId};
use xdpgate::{
    ApplyOptions, ConfirmError, Enforcement, Firewall, LoadError, RolledBack, TransactionError,
    TransactionOptions, unpin,
};

#[test]
fn child() {
    child::serve();
}

fn record(dir: &Path) -> serde_json::Value {
    let text = fs::read_to_string(dir.join("state.json")).expect("state.json");
    serde_json::from_str(&text).expect("a record")
}

/// What `sha256sum` prints.
fn hash(text: &str) -> String {
    let digest = Sha256::digest(text);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A hundred times: what the kernel judges, `policy.yaml` and what the next process begins with is the
/// last policy that was answered or the one that was being put in force, and never a third.
#[test]
fn r129_killed_at_random_moments() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        let (places, _state) = Places::new("state-kill");
        let mut random = Random::new(129);
        let (mut process, state) = Process::start(&places);
        assert_eq!(state.generation, 0);
        process.tell("mode enforce");
        process.tell("apply 0");
        let (mut last, mut generation) = (0, 0);
        let (mut waited, mut changes) = (0, 0);
        for kill in 0..100 {
            process.order(&format!("change {last}"));
            let first = last;
            // So that all moments come: at the beginning, and after some changes.
            thread::sleep(Duration::from_micros(random.below(250_000).into()));
            process.kill();
            let mut answered = last;
            while let Some(line) = process.line() {
                let (what, number) = line.split_once(' ').unwrap();
                // One that waits is in force, but need not last.
                if what == "lasts" {
                    answered = number.parse().unwrap();
                }
            }
            changes += answered - first;
            let allowed = [answered % 256, (answered + 1) % 256];
            let context = format!("kill {kill}: {answered} was answered");
            let in_kernel = places.judged();
            assert!(
                allowed.contains(&in_kernel),
                "{context}, {in_kernel} judges"
            );
            let on_disk = places.saved("policy.yaml");
            assert!(allowed.contains(&on_disk), "{context}, {on_disk} is saved");
            let record = record(&places.state);
            let hashes = ["policy.yaml", "pending.yaml"].map(|file| hash(&places.text(file)));
            if let Some(pending) = record["pending"]["change"]["policy"]["hash"].as_str() {
                assert!(hashes.iter().any(|h| h == pending), "{context}: {record}");
            }
            let (next, state) = Process::start(&places);
            process = next;
            assert!(allowed.contains(&state.judged), "{context}, then {state:?}");
            assert_eq!(places.judged(), state.judged, "{context}: after the start");
            assert_eq!(state.mode, "enforce", "{context}");
            assert!(
                state.generation > generation,
                "{context}: {state:?} after {generation}"
            );
            generation = state.generation;
            last = if state.judged == allowed[1] {
                answered + 1
            } else {
                answered
            };
            if state.pending != 0 {
                waited += 1;
                assert_eq!(
                    on_disk, allowed[0],
                    "{context}: not confirmed, so not saved"
                );
                process.tell(&format!("confirm {}", state.pending));
                assert_eq!(places.saved("policy.yaml"), state.judged);
            }
        }
        println!("{changes} changes, {waited} of 100 kills while one waited");
        assert!(
            changes > 100 && waited > 0,
            "{changes} changes, {waited} waited"
        );
        // Nothing is left of what was cut off.
        let names = fs::read_dir(&places.state).unwrap();
        let names: Vec<String> = names
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        assert!(names.iter().all(|n| !n.starts_with('.')), "{names:?}");
        assert!(
            names.iter().filter(|n| n.starts_with("previous-")).count() <= 1,
            "{names:?}"
        );
    });
}

#[test]
fn r129_a_full_disk() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        let scratch = TempDir::new().unwrap();
        netns::mount_private();
        let (kind, none) = (Some("tmpfs"), MsFlags::empty());
        mount(kind, scratch.path(), kind, none, Some("size=64k")).unwrap();
        let firewall = Firewall::loader().state_dir(scratch.path());
        let firewall = firewall.load().unwrap();
        firewall.apply(&policy(1)).unwrap();
        let pending = ApplyOptions::default().confirm_within(Duration::from_secs(60));
        let waits = firewall.apply_with(&policy(2), pending.clone()).unwrap();
        let full = scratch.path().join("full");
        let fill = || {
            let _ = fs::write(&full, vec![1; 1 << 20]);
        };
        fill();
        let before = fs::read_to_string(scratch.path().join("policy.yaml")).unwrap();

        // A confirmation that would be forgotten is none; the deadline stands.
        let error = firewall.confirm(waits.generation).unwrap_err();
        assert!(matches!(error, ConfirmError::NotSaved { .. }), "{error}");
        assert_eq!(firewall.pending().unwrap().generation, waits.generation);
        fs::remove_file(&full).unwrap();
        firewall.confirm(waits.generation).unwrap();
        fill();

        // A deadline that would be forgotten is refused, and nothing changed.
        let error = firewall.apply_with(&policy(3), pending).unwrap_err();
        assert!(
            matches!(error, TransactionError::NotSaved { .. }),
            "{error}"
        );
        assert!(error.to_string().contains("No space left"), "{error}");
        assert_eq!((judged(&firewall), firewall.pending()), (2, None));
        // Without one the policy is in force, and it is said that it is not saved.
        let applied = firewall.apply(&policy(4)).unwrap();
        let reason = applied.not_saved.unwrap();
        assert!(reason.contains("No space left"), "{reason}");
        assert_eq!(judged(&firewall), 4);
        assert_eq!(firewall.saved().unwrap_err().reason, reason);
        let saved = fs::read_to_string(scratch.path().join("policy.yaml")).unwrap();
        assert_eq!(Policy::from_yaml(&saved).unwrap(), policy(2), "whole");
        assert_ne!(saved, before);

        // Back in memory, though it could not be saved either.
        firewall.rollback().unwrap();
        assert_eq!(judged(&firewall), 2);
        firewall.apply(&policy(4)).unwrap();
        // With room again it is saved by itself.
        fs::remove_file(&full).unwrap();
        let started = std::time::Instant::now();
        while firewall.saved().is_err() {
            assert!(
                started.elapsed() < Duration::from_secs(60),
                "not tried again"
            );
            thread::sleep(Duration::from_millis(100));
        }
        drop(firewall);
        let firewall = Firewall::loader().state_dir(scratch.path()).load().unwrap();
        assert_eq!(judged(&firewall), 4);
        assert!(matches!(
            firewall.rollback().unwrap(),
            RolledBack::Policy(_)
        ));
        assert_eq!(judged(&firewall), 2);
    });
}

#[test]
fn r129_a_directory_that_becomes_read_only() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        let scratch = TempDir::new().unwrap();
        netns::mount_private();
        let (kind, none) = (Some("tmpfs"), MsFlags::empty());
        mount(kind, scratch.path(), kind, none, None::<&str>).unwrap();
        let remount = |flags| {
            let none = None::<&str>;
            mount(
                none,
                scratch.path(),
                none,
                MsFlags::MS_REMOUNT | flags,
                none,
            )
            .unwrap();
        };
        let firewall = Firewall::loader().state_dir(scratch.path());
        let firewall = firewall.load().unwrap();
        firewall.set_enforcement(Enforcement::Pass, None).unwrap();
        firewall.apply(&policy(1)).unwrap();
        remount(MsFlags::MS_RDONLY);
        let within = Some(Duration::from_secs(60));
        // Pass mode would come back with the next process.
        let error = firewall
            .set_enforcement(Enforcement::Enforce, None)
            .unwrap_err();
        assert!(error.to_string().contains("Read-only"), "{error}");
        let error = firewall
            .set_enforcement(Enforcement::Enforce, within)
            .unwrap_err();
        assert!(error.to_string().contains("Read-only"), "{error}");
        assert_eq!(firewall.enforcement(), Enforcement::Pass);
        let applied = firewall.apply(&policy(2)).unwrap();
        assert!(
            applied
                .not_saved
                .unwrap()
                .contains("policy.yaml: Read-only")
        );
        assert_eq!(judged(&firewall), 2);

        remount(MsFlags::empty());
        firewall
            .set_enforcement(Enforcement::Enforce, None)
            .unwrap();
        firewall.saved().unwrap();
        remount(MsFlags::MS_RDONLY);
        // What helps in need is never refused.
        firewall.set_enforcement(Enforcement::Pass, None).unwrap();
        assert_eq!(firewall.enforcement(), Enforcement::Pass);
        firewall.saved().unwrap_err();
        remount(MsFlags::empty());
        firewall.apply(&policy(3)).unwrap();
        firewall.saved().unwrap();
        assert!(
            scratch.path().join("pass").exists(),
            "marked with the next change"
        );
        drop(firewall);
    });
}

#[test]
fn r129_generations_and_keys_go_on() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        let (places, _state) = Places::new("state-keys");
        let firewall = places.loader().load().unwrap();
        let keyed = |key: &str| ApplyOptions::default().key(key);
        let first = firewall.apply_with(&policy(1), keyed("one")).unwrap();
        assert!(!first.repeated);
        let again = firewall.apply_with(&policy(1), keyed("one")).unwrap();
        assert_eq!((again.generation, again.repeated), (first.generation, true));
        let error = firewall.apply_with(&policy(2), keyed("one")).unwrap_err();
        assert!(error.to_string().contains("key \"one\""), "{error}");
        let gone = [Change::RemoveRule(RuleId::new("n1-0").unwrap())];
        let options = TransactionOptions::default().key("two");
        let options = options.expect_generation(first.generation);
        let second = firewall.transact(&gone, options.clone()).unwrap();
        assert_eq!((judged(&firewall), second.repeated), (0, false));
        for number in 0..300 {
            firewall
                .apply_with(&policy(4), keyed(&format!("many-{number}")))
                .ok();
            if number == 200 {
                break;
            }
        }
        let last = firewall.generation().unwrap();
        drop(firewall);

        // Over a restart, and one of the machine: the generation that was expected is long gone.
        for _ in 0..2 {
            let firewall = places.loader().load().unwrap();
            assert!(firewall.generation().unwrap() > last);
            let again = firewall.transact(&gone, options.clone()).unwrap();
            assert_eq!(
                (again.generation, again.repeated),
                (second.generation, true)
            );
            let again = firewall.apply_with(&policy(1), keyed("one")).unwrap();
            assert_eq!((again.generation, again.repeated), (first.generation, true));
            assert_eq!(judged(&firewall), 4, "nothing is done twice");
            let error = firewall.apply_with(&policy(1), keyed("two")).unwrap_err();
            assert!(matches!(error, TransactionError::KeyUsed { .. }), "{error}");
            drop(firewall);
            unpin(&places.pins).unwrap();
        }
        let keys = record(&places.state)["keys"].as_array().unwrap().len();
        assert_eq!(keys, 203);
        let firewall = places.loader().load().unwrap();
        for number in 0..60 {
            let key = format!("more-{number}");
            firewall
                .transact(&gone, TransactionOptions::default().key(key))
                .unwrap();
        }
        let kept = record(&places.state);
        let kept = kept["keys"].as_array().unwrap();
        assert_eq!(kept.len(), 256, "the oldest are forgotten");
        assert_eq!(kept[255]["key"], "more-59");
        for key in ["", "k".repeat(129).as_str()] {
            let error = firewall.apply_with(&policy(1), keyed(key)).unwrap_err();
            assert!(
                matches!(error, TransactionError::KeyLength { .. }),
                "{error}"
            );
        }
        // The policy before the present one is known after all that.
        firewall.apply(&policy(9)).unwrap();
        drop(firewall);
        let firewall = places.loader().load().unwrap();
        firewall.rollback().unwrap();
        assert_eq!(number_of(&firewall.policy().unwrap()), 4);
    });
}

/// The process was killed while the change waited, and the next one takes it back before or after it is
/// there.
#[test]
fn r110_a_key_whose_change_was_taken_back_over_a_restart() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        for after in [false, true] {
            let (places, _state) = Places::new(&format!("state-key-back-{after}"));
            let firewall = places.loader().load().unwrap();
            firewall.apply(&policy(1)).unwrap();
            let within = Duration::from_millis(if after { 3000 } else { 100 });
            let options = || ApplyOptions::default().confirm_within(within).key("k");
            let waits = firewall.apply_with(&policy(2), options()).unwrap();
            drop(firewall);
            if !after {
                thread::sleep(2 * within);
            }
            for start in 0..2 {
                let firewall = places.loader().load().unwrap();
                netns::wait_until("the deadline", || firewall.pending().is_none());
                let error = firewall.apply_with(&policy(2), options()).unwrap_err();
                let TransactionError::KeyTakenBack { generation, .. } = error else {
                    panic!("{error}")
                };
                assert_eq!(generation, waits.generation, "start {start}");
                assert_eq!(judged(&firewall), 1);
                netns::wait_until("the record", || record(&places.state)["pending"].is_null());
            }
        }
    });
}

#[test]
fn r129_a_record_that_is_not_understood_is_refused_and_the_filter_stays() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        let (places, _state) = Places::new("state-version");
        let firewall = places.loader().load().unwrap();
        firewall
            .set_enforcement(Enforcement::Enforce, None)
            .unwrap();
        firewall.apply(&policy(5)).unwrap();
        drop(firewall);
        let file = places.state.join("state.json");
        for (text, reason) in [
            ("{\"version\": 2, \"more\": []}", "version 2 is not known"),
            ("{\"version\": 1}", "missing field"),
            ("", "EOF"),
        ] {
            fs::write(&file, text).unwrap();
            let error = places.loader().load().unwrap_err();
            assert!(matches!(error, LoadError::SavedState { .. }), "{error}");
            let text = error.to_string();
            assert!(
                text.contains("state.json") && text.contains(reason),
                "{text}"
            );
            assert_eq!(places.judged(), 5);
        }
        // What it says to do helps.
        fs::remove_file(&file).unwrap();
        let firewall = places.loader().load().unwrap();
        assert_eq!((judged(&firewall), places.judged()), (5, 5));
    });
}
