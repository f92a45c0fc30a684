//! The compiled image, read in Rust, says what the oracle says. The kernel's side of the same
//! claim is `root_oracle.rs`.

mod common;

use common::equal::{assert_equal, options};
use common::{frame_strategy, policy_strategy, pool};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use xdpgate::compile::{ROWS_UP_TO, compile};
use xdpgate::policy::Policy;

fn rows_up_to() -> impl Strategy<Value = usize> {
    select(vec![0, ROWS_UP_TO])
}

fn times() -> impl Strategy<Value = Vec<i64>> {
    vec(0i64..4_000_000_000, 1..5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(800)))]

    #[test]
    fn r101_the_image_equals_the_oracle(
        policy in policy_strategy::compilable_policy(),
        frames in vec(frame_strategy::frame(), 100),
        times in times(),
        seed in any::<[u64; 2]>(),
        rows_up_to in rows_up_to(),
        management in any::<bool>(),
    ) {
        let mut options = options(&policy, seed, rows_up_to);
        if management {
            options.management = pool::management();
        }
        assert_equal(&policy, &frames, &times, &options);
    }

    #[test]
    fn r101_many_rules_about_few_addresses(
        policy in policy_strategy::crowded_policy(),
        frames in vec(frame_strategy::frame(), 100),
        times in times(),
        rows_up_to in rows_up_to(),
    ) {
        assert_equal(&policy, &frames, &times, &options(&policy, [1, 2], rows_up_to));
    }

    #[test]
    fn the_same_policy_gives_the_same_bytes(
        policy in policy_strategy::compilable_policy(),
        rows_up_to in rows_up_to(),
    ) {
        let again = Policy::from_yaml(&policy.to_yaml()).unwrap();
        let options = options(&policy, [1, 2], rows_up_to);
        let (one, two) = (compile(&policy, &options), compile(&again, &options));
        prop_assert_eq!(one, two);
    }
}
