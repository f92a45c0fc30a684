//! Trie blocks of every number of runs, packed and not, judged by image and oracle. The kernel's
//! side is `root_prefixes.rs`.

mod common;

use common::equal::{assert_equal, options};
use common::runs::{self, Case};

fn check(cases: Vec<Case>) {
    for (policy, frames) in cases {
        assert_equal(&policy, &frames, &[0], &options(&policy, [3, 4], 256));
    }
}

#[test]
fn r06_runs_in_a_16() {
    check(runs::in_a_16());
}

#[test]
fn r06_runs_in_a_24() {
    check(runs::in_a_24());
}

#[test]
fn r06_blocks_within_blocks() {
    check(runs::within_blocks());
}
