//! Frames through the XDP program in the running kernel: it says what the oracle says. Needs root.
//!
//! Behind a first byte that is a multiple of 4 come the bytes of the frame; else a frame is drawn with
//! the input as seed.
#![no_main]

use std::cell::RefCell;

use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use xdpgate::oracle::Oracle;
use xdpgate::{Firewall, Policy};
use xdpgate_fuzz::{draw, frame_strategy, policies};

/// The longest frame that is evaluated.
const LONGEST: usize = 3072;

thread_local! {
    static FIREWALLS: RefCell<Vec<(Firewall, Oracle<'static>)>> = RefCell::new(load());
}

fn load() -> Vec<(Firewall, Oracle<'static>)> {
    let policies: &'static [Policy] = policies().leak();
    let mut loaded = Vec::new();
    for rows_up_to in [0, 1000] {
        for policy in policies {
            let loader = Firewall::loader().rows_up_to(rows_up_to);
            let firewall = loader.load().expect("load: it needs root");
            firewall.apply(policy).expect("apply");
            loaded.push((firewall, Oracle::new(policy)));
        }
    }
    loaded
}

fuzz_target!(|input: &[u8]| {
    let Some((kind, input)) = input.split_first() else {
        return;
    };
    let drawn = if kind % 4 == 0 {
        Some(input.to_vec())
    } else {
        draw(&frame_strategy::frame(), input)
    };
    let Some(frame) = drawn.filter(|f| f.len() <= LONGEST) else {
        return;
    };
    FIREWALLS.with_borrow_mut(|firewalls| {
        for (firewall, oracle) in firewalls {
            let want = oracle.evaluate(&frame, Timestamp::now(), None);
            let got = firewall.evaluate(&frame).expect("evaluate");
            assert_eq!(got, want, "kernel, oracle: {frame:02x?}");
        }
    });
});
