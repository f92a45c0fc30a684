//! Real rule sets: the kernel names the rule that the oracle names, for every header of the
//! ClassBench traces, whichever way the rules are found.
#![cfg(feature = "kernel")]

mod common;

use std::net::IpAddr;

use common::classbench::{self, Header, SIZES};
use common::live::in_guest;
use common::netns::skipped;
use common::packet::addressed;
use jiff::Timestamp;
use xdpgate::compile::ROWS_UP_TO;
use xdpgate::oracle::Oracle;
use xdpgate::policy::Policy;
use xdpgate::{Evaluation, Firewall};

/// Rows hold so many rules.
const MOST_ROWED: usize = 4096;

/// More than any set has.
const ROWS_ONLY: usize = usize::MAX;

/// How many headers are drawn from the rules of a set that has no trace.
const DRAWN: usize = 3000;

fn frame(header: &Header) -> Vec<u8> {
    let packet = addressed(IpAddr::V4(header.src), IpAddr::V4(header.dst));
    match header.protocol {
        6 => packet.tcp(header.sport, header.dport).build(),
        17 => packet.udp(header.sport, header.dport).build(),
        other => packet.protocol(other).payload(&[0; 8]).build(),
    }
}

/// What the oracle says of each frame.
fn wanted(policy: &Policy, frames: &[Vec<u8>]) -> Vec<Evaluation> {
    let mut oracle = Oracle::new(policy);
    let judge = |frame: &Vec<u8>| oracle.evaluate(frame, Timestamp::UNIX_EPOCH, None);
    frames.iter().map(judge).collect()
}

/// Compares kernel and oracle over one set, with each border between rows and pairs.
fn compare(seed: &str, (count, size): (usize, &str), borders: &[usize]) {
    if skipped() || (in_guest() && count > 1000) {
        return;
    }
    let filters = classbench::filters(seed, (count, size));
    let trace = classbench::trace(seed, size);
    let mut headers = trace.unwrap_or_else(|| classbench::draw(&filters, DRAWN));
    headers.sort_unstable();
    headers.dedup();
    let frames: Vec<Vec<u8>> = headers.iter().map(frame).collect();
    let policy = classbench::policy(&filters).expect("a policy");
    let want = wanted(&policy, &frames);
    let by_rules = want.iter().filter(|w| w.rule.is_some()).count();
    assert!(by_rules * 10 > frames.len() * 9, "headers come from rules");
    for rows_up_to in borders {
        let loader = Firewall::loader().dry_run(false).rows_up_to(*rows_up_to);
        let firewall = loader.max_rules(1 << 18).load().expect("load");
        let applied = firewall.apply(&policy).expect("apply");
        println!(
            "{seed} {size}, rows up to {rows_up_to}: {} rules, {} headers; compile {:?}, publish {:?}",
            filters.len(),
            frames.len(),
            applied.compile,
            applied.publish
        );
        for ((frame, want), header) in frames.iter().zip(&want).zip(&headers) {
            let got = firewall.evaluate(frame).expect("evaluate");
            assert_eq!(
                &got, want,
                "kernel, oracle: rows up to {rows_up_to}, {header:?}"
            );
        }
    }
}

const SMALL: &[usize] = &[ROWS_UP_TO, ROWS_ONLY, 0];
const LARGE: &[usize] = &[ROWS_UP_TO, 0];

#[test]
fn r101_classbench_acl1_1k() {
    compare("acl1", SIZES[0], SMALL);
}

#[test]
fn r101_classbench_fw1_1k() {
    compare("fw1", SIZES[0], SMALL);
}

#[test]
fn r101_classbench_ipc1_1k() {
    compare("ipc1", SIZES[0], SMALL);
}

#[test]
fn r101_classbench_acl1_10k() {
    compare("acl1", SIZES[1], LARGE);
}

#[test]
fn r101_classbench_fw1_10k() {
    compare("fw1", SIZES[1], LARGE);
}

#[test]
fn r101_classbench_ipc1_10k() {
    compare("ipc1", SIZES[1], LARGE);
}

#[test]
fn r101_classbench_acl1_100k() {
    compare("acl1", SIZES[2], &[ROWS_UP_TO]);
}

#[test]
fn r101_classbench_fw1_100k() {
    compare("fw1", SIZES[2], &[ROWS_UP_TO]);
}

#[test]
fn r101_classbench_ipc1_100k() {
    compare("ipc1", SIZES[2], &[ROWS_UP_TO]);
}

#[test]
fn r101_classbench_10k_is_too_much_for_rows_alone() {
    if skipped() {
        return;
    }
    let firewall = Firewall::loader().rows_up_to(ROWS_ONLY).load().unwrap();
    for seed in classbench::SEEDS {
        let policy = classbench::policy(&classbench::filters(seed, SIZES[1])).expect("a policy");
        let error = firewall.apply(&policy).expect_err(seed).to_string();
        let limit = format!("the limit is {MOST_ROWED}");
        assert!(error.contains(&limit), "{error}");
        assert!(error.contains("address set"), "it names a mend: {error}");
    }
    assert_eq!(firewall.generation(), None, "nothing was applied");
}
