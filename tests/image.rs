//! The compiled image, read in Rust, says what the oracle says. The kernel's side of the same
//! claim is `root_oracle.rs`.

mod common;

use common::{frame_strategy, policy_strategy};
use jiff::Timestamp;
use proptest::collection::vec;
use proptest::prelude::*;
use xdpgate::compile::{Clock, CompileOptions, active_rules, compile};
use xdpgate::image::ImageReader;
use xdpgate::oracle::Oracle;
use xdpgate::packet::Parsed;
use xdpgate::policy::Policy;

fn options(policy: &Policy, seed: [u64; 2]) -> CompileOptions {
    CompileOptions {
        seed,
        counter_slots: (0..active_rules(policy).len() as u32).collect(),
        clock: Clock::default(),
    }
}

/// Panics where image and oracle differ.
fn assert_equal(policy: &Policy, frames: &[Vec<u8>], seed: [u64; 2]) {
    let image = compile(policy, &options(policy, seed)).expect("a policy of the subset");
    let reader = ImageReader::new(&image).expect("a fresh image");
    let mut oracle = Oracle::new(policy);
    for frame in frames {
        let parsed = Parsed::from_frame(frame);
        let want = oracle.judge(&parsed, frame.len(), Timestamp::UNIX_EPOCH, None);
        let (verdict, reason, rule) = reader.judge(&parsed);
        let rule = rule.map(|n| image.rules()[n as usize].clone());
        assert_eq!(
            (verdict, reason, &rule),
            (want.verdict, want.reason, &want.rule),
            "image, oracle\n{parsed:?}\n{}",
            policy.to_yaml()
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(800))]

    #[test]
    fn r101_the_image_equals_the_oracle(
        policy in policy_strategy::compilable_policy(),
        frames in vec(frame_strategy::frame(), 100),
        seed in any::<[u64; 2]>(),
    ) {
        assert_equal(&policy, &frames, seed);
    }

    #[test]
    fn the_same_policy_gives_the_same_bytes(policy in policy_strategy::compilable_policy()) {
        let again = Policy::from_yaml(&policy.to_yaml()).unwrap();
        let options = options(&policy, [1, 2]);
        let (one, two) = (compile(&policy, &options), compile(&again, &options));
        prop_assert_eq!(one, two);
    }
}
