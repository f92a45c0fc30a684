//! Trie blocks of every number of runs, packed and not, judged by kernel and oracle.
#![cfg(feature = "kernel")]

mod common;

use common::live::in_guest;
use common::netns::skipped;
use common::runs::{self, Case};
use jiff::Timestamp;
use xdpgate::Firewall;
use xdpgate::oracle::Oracle;

fn check(cases: impl FnOnce() -> Vec<Case>) {
    if skipped() {
        return;
    }
    let firewall = Firewall::loader().dry_run(false).load().expect("load");
    let step = if in_guest() { 7 } else { 1 };
    for (policy, frames) in cases().into_iter().step_by(step) {
        firewall.apply(&policy).expect("apply");
        let mut oracle = Oracle::new(&policy);
        for frame in &frames {
            let got = firewall.evaluate(frame).expect("evaluate");
            let want = oracle.evaluate(frame, Timestamp::UNIX_EPOCH, None);
            assert_eq!(
                got,
                want,
                "kernel, oracle: {frame:02x?}\n{}",
                policy.to_yaml()
            );
        }
    }
}

#[test]
fn r06_runs_in_a_16() {
    check(runs::in_a_16);
}

#[test]
fn r06_runs_in_a_24() {
    check(runs::in_a_24);
}

#[test]
fn r06_blocks_within_blocks() {
    check(runs::within_blocks);
}
