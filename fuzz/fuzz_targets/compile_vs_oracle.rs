//! Policies and frames out of the input: the compiled image says what the oracle says.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proptest::collection::vec;
use proptest::strategy::Strategy;
use xdpgate::compile::ROWS_UP_TO;
use xdpgate_fuzz::equal::{assert_equal, options};
use xdpgate_fuzz::policy_strategy::{compilable_policy, crowded_policy};
use xdpgate_fuzz::{draw, frame_strategy::frame};

fuzz_target!(|input: &[u8]| {
    let Some((kind, input)) = input.split_first() else {
        return;
    };
    let policies = match kind & 1 {
        0 => compilable_policy().boxed(),
        _ => crowded_policy().boxed(),
    };
    let rows_up_to = if kind & 2 == 0 { 0 } else { ROWS_UP_TO };
    // Frames take their numbers from the end, so that changes of one do not move the other.
    let (for_policy, for_frames) = input.split_at(input.len() / 2);
    let (Some(policy), Some(frames)) = (
        draw(&policies, for_policy),
        draw(&vec(frame(), 20), for_frames),
    ) else {
        return;
    };
    let times = [0, 1, 1_893_456_000];
    let seed = [u64::from(*kind), 7];
    assert_equal(
        &policy,
        &frames,
        &times,
        &options(&policy, seed, rows_up_to),
    );
});
