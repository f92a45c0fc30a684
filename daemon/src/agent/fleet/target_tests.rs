use sha2::{Digest, Sha256};
use xdpgate_api::fleet::v1::{Chunk, Entries, SetChunks};
use xdpgate_api::v1;

use super::*;

const BASE: &str = "
version: 1
sets: { bad: { entries: [203.0.113.7, 203.0.113.8] } }
rules: [{ id: bad, match: { src: '@bad' }, action: drop }]
";
const NEXT: &str = "
version: 1
default: drop
sets: { bad: { entries: [203.0.113.8, { entry: 203.0.113.9, expires: 2099-01-01T00:00:00Z }] } }
rules:
  - { id: bad, match: { src: '@bad' }, action: drop }
  - { id: web, match: { protocol: tcp, dport: 80 }, action: pass }
";

struct Bench {
    target: Target,
    chunks: Chunks,
    _scratch: tempfile::TempDir,
}

fn bench() -> Bench {
    let scratch = tempfile::tempdir().expect("a directory");
    let files = Files::new(scratch.path());
    let (firewall, _) = Firewall::loader().rehearse();
    Bench {
        chunks: Chunks::new(files.chunks()),
        target: Target::new(Arc::new(firewall), files, Held::default()),
        _scratch: scratch,
    }
}

fn policy(text: &str) -> Policy {
    Policy::from_yaml(text).expect("a policy")
}

fn state(sequence: u64, text: &str, mode: Mode) -> State {
    State {
        epoch: "e".to_owned(),
        sequence,
        hash: policy(text).hash().as_bytes().to_vec(),
        mode: mode.into(),
        signature: Vec::new(),
    }
}

fn entry(prefix: &str, expires: Option<&str>) -> SetEntries {
    let at = |text: &str| text.parse::<jiff::Timestamp>().expect("a time");
    SetEntries {
        entries: vec![v1::SetEntry {
            prefix: prefix.to_owned(),
            expires: expires.map(|text| prost_types::Timestamp {
                seconds: at(text).as_second(),
                nanos: 0,
            }),
        }],
        ..Default::default()
    }
}

/// From `BASE` to `NEXT`.
fn delta(sequence: u64) -> Delta {
    let change = |change| v1::Change {
        change: Some(change),
    };
    let of = |change| v1_fleet::Change {
        change: Some(change),
    };
    Delta {
        to: Some(state(sequence, NEXT, Mode::Unspecified)),
        from_hash: policy(BASE).hash().as_bytes().to_vec(),
        changes: vec![
            of(Is::Entries(Entries {
                set: "bad".to_owned(),
                remove: Some(entry("203.0.113.7", None)),
                add: Some(entry("203.0.113.9", Some("2099-01-01T00:00:00Z"))),
            })),
            of(Is::Policy(change(v1::change::Change::PutRule(
                "{ id: web, priority: 20, match: { protocol: tcp, dport: 80 }, action: pass }"
                    .to_owned(),
            )))),
            of(Is::Policy(change(v1::change::Change::DefaultVerdict(
                v1::Verdict::Drop.into(),
            )))),
        ],
    }
}

use xdpgate_api::fleet::v1 as v1_fleet;

/// What sets the mode of a node that has this policy, and nothing else.
fn mode_alone(text: &str, mode: Mode) -> Delta {
    let to = state(0, text, mode);
    Delta {
        from_hash: to.hash.clone(),
        to: Some(to),
        changes: Vec::new(),
    }
}

#[test]
fn a_state_about_the_mode_alone_leaves_the_policy_and_is_not_kept() {
    let Bench { target, .. } = bench();
    target.firewall.apply(&policy(BASE)).expect("room");
    let enforce = target.firewall.set_enforcement(Enforcement::Enforce, None);
    enforce.expect("nothing waits");
    let dry = mode_alone(BASE, Mode::DryRun);
    target.delta(&dry, None).expect("taken");
    assert_eq!(target.firewall.enforcement(), Enforcement::DryRun);
    assert_eq!(target.hash(), Some(policy(BASE).hash()));
    assert_eq!(
        (target.held_message().state, target.held()),
        (None, Held::default())
    );
    // Meant for a node that has another policy.
    let other = mode_alone(NEXT, Mode::Enforce);
    let refusal = target.delta(&other, None).expect_err("another policy");
    assert_eq!(refusal.reason, Reason::Base);
    assert_eq!(target.firewall.enforcement(), Enforcement::DryRun);
    // Once the fleet has given it a policy, it is older than that.
    target.delta(&delta(3), None).expect("taken");
    let refusal = target.delta(&mode_alone(NEXT, Mode::Enforce), None);
    assert_eq!(refusal.expect_err("old").reason, Reason::Stale);
}

#[test]
fn pass_mode_that_was_set_here_holds_and_states_are_taken() {
    let Bench { target, .. } = bench();
    target.firewall.apply(&policy(BASE)).expect("room");
    let set = |mode| {
        target
            .firewall
            .set_enforcement(mode, None)
            .expect("nothing waits")
    };
    set(Enforcement::Pass);
    let mut enforced = delta(3);
    enforced.to.as_mut().expect("one").mode = Mode::Enforce.into();
    target.delta(&enforced, None).expect("taken");
    assert!(target.is_panic_off());
    assert_eq!(target.firewall.enforcement(), Enforcement::Pass);
    assert_eq!(target.hash(), Some(policy(NEXT).hash()));
    let held = target.held_message();
    assert_eq!(held.mode(), Mode::Pass);
    assert_eq!(held.state.expect("kept").mode(), Mode::Enforce);
    // Taken back here, the fleet's word counts again.
    set(Enforcement::DryRun);
    assert!(!target.is_panic_off());
    enforced.from_hash = policy(NEXT).hash().as_bytes().to_vec();
    target.delta(&enforced, None).expect("taken");
    assert_eq!(target.firewall.enforcement(), Enforcement::Enforce);
}

/// A snapshot of `NEXT`, and the contents of its chunks.
fn snapshot(sequence: u64) -> (Snapshot, Vec<Vec<u8>>) {
    let next = policy(NEXT);
    let rules: Vec<Vec<u8>> = next
        .rules()
        .iter()
        .map(|rule| {
            Rules {
                rules: vec![rule.to_json()],
            }
            .encode_to_vec()
        })
        .collect();
    let entries = [
        entry("203.0.113.8", None),
        entry("203.0.113.9", Some("2099-01-01T00:00:00Z")),
    ]
    .map(|entries| entries.encode_to_vec());
    let chunk = |content: &Vec<u8>| Chunk {
        digest: Sha256::digest(content).to_vec(),
        size: content.len() as u32,
    };
    let snapshot = Snapshot {
        to: Some(state(sequence, NEXT, Mode::Enforce)),
        frame: "{ version: 1, default: drop }".to_owned(),
        rules: rules.iter().map(chunk).collect(),
        sets: vec![SetChunks {
            set: "bad".to_owned(),
            count_entries: false,
            chunks: entries.iter().map(chunk).collect(),
        }],
    };
    (snapshot, [rules, entries.to_vec()].concat())
}

impl Bench {
    fn in_force(&self) -> Option<(Policy, u64)> {
        let (policy, generation) = self.target.firewall.in_force()?;
        Some(((*policy).clone(), generation.get()))
    }

    #[track_caller]
    fn refused(&self, done: Result<(), Refusal>, reason: Reason, word: &str) {
        let refusal = done.expect_err("refused");
        assert_eq!(refusal.reason, reason, "{refusal:?}");
        assert!(refusal.error.contains(word), "{refusal:?}");
        assert!(!refusal.error.contains('\n'), "{refusal:?}");
    }
}

#[test]
fn a_delta_is_put_in_force_as_a_whole_or_not_at_all() {
    let bench = bench();
    bench.target.firewall.apply(&policy(BASE)).expect("room");
    let untouched = bench.in_force();
    let delta = delta(5);

    let mut wrong = delta.clone();
    wrong.from_hash[0] ^= 1;
    bench.refused(bench.target.delta(&wrong, None), Reason::Base, "snapshot");
    let mut wrong = delta.clone();
    wrong.changes.pop();
    bench.refused(bench.target.delta(&wrong, None), Reason::Hash, "promised");
    let mut wrong = delta.clone();
    wrong.changes[1] = v1_fleet::Change { change: None };
    bench.refused(
        bench.target.delta(&wrong, None),
        Reason::Policy,
        "changes[1]",
    );
    let mut wrong = delta.clone();
    wrong.changes[0] = v1_fleet::Change {
        change: Some(Is::Entries(Entries {
            set: "none".to_owned(),
            add: Some(entry("203.0.113.9", None)),
            ..Default::default()
        })),
    };
    bench.refused(bench.target.delta(&wrong, None), Reason::Policy, "none");
    let key = ed25519_dalek::SigningKey::from_bytes(&[1; 32]).verifying_key();
    bench.refused(
        bench.target.delta(&delta, Some(&key)),
        Reason::Signature,
        "signature",
    );
    assert_eq!(bench.in_force(), untouched);
    assert_eq!(bench.target.held(), Held::default());

    bench.target.delta(&delta, None).expect("put in force");
    assert_eq!(bench.in_force(), Some((policy(NEXT), 2)));
    let held = bench.target.held_message();
    assert_eq!(held.state.map(|s| s.sequence), Some(5));
    assert_eq!(held.policy_hash, policy(NEXT).hash().as_bytes());
    // Once more: nothing is published.
    bench.target.delta(&delta, None).expect("repeated");
    assert_eq!(bench.in_force(), Some((policy(NEXT), 2)));
    let stale = self::delta(4);
    bench.refused(
        bench.target.delta(&stale, None),
        Reason::Stale,
        "older than 5",
    );
    // What is kept is on disk.
    let files = &bench.target.files;
    assert_eq!(files.held(), Ok(bench.target.held()));
}

#[test]
fn a_delta_begins_from_nothing_too() {
    for from_hash in [Vec::new(), Policy::default().hash().as_bytes().to_vec()] {
        let bench = bench();
        let text = "{ version: 1, default: drop }";
        let change = v1::change::Change::DefaultVerdict(v1::Verdict::Drop.into());
        let delta = Delta {
            to: Some(state(1, text, Mode::Unspecified)),
            from_hash,
            changes: vec![v1_fleet::Change {
                change: Some(Is::Policy(v1::Change {
                    change: Some(change),
                })),
            }],
        };
        assert!(bench.target.held_message().policy_hash.is_empty());
        bench.target.delta(&delta, None).expect("put in force");
        assert_eq!(bench.in_force(), Some((policy(text), 1)));
    }
}

#[test]
fn a_snapshot_needs_all_its_chunks_and_sets_the_mode() {
    let bench = bench();
    let (snapshot, contents) = snapshot(7);
    let missing = bench.chunks.begin(&snapshot).expect("room").concat();
    assert_eq!(missing.len(), contents.len());
    let put = |index: usize| bench.chunks.put(&missing[index], &contents[index]);
    (1..contents.len()).for_each(|index| put(index).expect("room"));
    let take = || bench.target.snapshot(&snapshot, &bench.chunks, None);
    bench.refused(take(), Reason::Chunks, "chunks");
    assert_eq!(bench.in_force(), None);
    assert!(bench.target.firewall.dry_run());
    put(0).expect("room");
    take().expect("put in force");
    assert_eq!(bench.in_force(), Some((policy(NEXT), 1)));
    assert!(!bench.target.firewall.dry_run());

    // A state that is refused leaves the mode too.
    let mut wrong = snapshot.clone();
    wrong.frame = "{ version: 1, default: pass }".to_owned();
    let to = wrong.to.as_mut().expect("one");
    (to.sequence, to.mode) = (8, Mode::DryRun.into());
    to.hash[0] ^= 1;
    let done = bench.target.snapshot(&wrong, &bench.chunks, None);
    bench.refused(done, Reason::Hash, "promised");
    assert!(!bench.target.firewall.dry_run());
    assert_eq!(bench.in_force(), Some((policy(NEXT), 1)));
    // The mode alone.
    let mut dry = snapshot.clone();
    let to = dry.to.as_mut().expect("one");
    (to.sequence, to.mode) = (9, Mode::DryRun.into());
    bench
        .target
        .snapshot(&dry, &bench.chunks, None)
        .expect("put in force");
    assert!(bench.target.firewall.dry_run());
    assert_eq!(bench.in_force(), Some((policy(NEXT), 1)));
}

#[test]
fn a_change_that_waits_for_its_confirmation_is_in_the_way_and_says_so() {
    let bench = bench();
    bench.target.firewall.apply(&policy(BASE)).expect("room");
    let within = ApplyOptions::default().confirm_within(std::time::Duration::from_secs(600));
    let text = "{ version: 1 }";
    bench
        .target
        .firewall
        .apply_with(&policy(text), within)
        .expect("room");
    let mut delta = delta(5);
    delta.from_hash = policy(text).hash().as_bytes().to_vec();
    delta.changes.remove(0);
    let to = delta.to.as_mut().expect("one");
    let after = "{ version: 1, default: drop, rules: [{ id: web, priority: 20, match: { protocol: tcp, dport: 80 }, action: pass }] }";
    to.hash = policy(after).hash().as_bytes().to_vec();
    let done = bench.target.delta(&delta, None);
    bench.refused(done, Reason::Node, "confirm");
    assert_eq!(
        bench.in_force().map(|(policy, _)| policy),
        Some(policy(text))
    );
}
