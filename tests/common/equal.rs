//! The compiled image, read in Rust, beside the oracle.

use globset::Glob;
use jiff::Timestamp;
use xdpgate::compile::{CompileOptions, active_rules, compile};
use xdpgate::image::{Image, ImageReader, Surroundings};
use xdpgate::oracle::Oracle;
use xdpgate::packet::Parsed;
use xdpgate::policy::{Mode, Policy};
use xdpgate::{Management, Reason, Verdict};

use super::pool;

/// Ticks are nanoseconds since 1970. Rows for all rules, or for those only that need them.
pub fn options(policy: &Policy, seed: [u64; 2], rows_up_to: usize) -> CompileOptions {
    CompileOptions {
        seed,
        counter_slots: (0..active_rules(policy).len() as u32).collect(),
        rows_up_to,
        ..CompileOptions::default()
    }
}

/// Panics where image and oracle differ.
pub fn assert_equal(policy: &Policy, frames: &[Vec<u8>], times: &[i64], options: &CompileOptions) {
    let image = compile(policy, options).expect("a policy that can be compiled");
    assert_image(&image, policy, frames, times, &options.management);
}

/// Panics where the image of a policy and the oracle differ.
pub fn assert_image(
    image: &Image,
    policy: &Policy,
    frames: &[Vec<u8>],
    times: &[i64],
    management: &[Management],
) {
    let reader = ImageReader::new(image).expect("a fresh image");
    let mut oracle = Oracle::new(policy).management(management);
    let is_monitor = |n: &&u32| active_rules(policy)[**n as usize].mode == Mode::Monitor;
    let interfaces = pool::INTERFACES.iter().cycle();
    for ((frame, at), interface) in frames.iter().zip(times.iter().cycle()).zip(interfaces) {
        let parsed = Parsed::from_frame(frame);
        let around = Surroundings {
            ticks: *at as u64 * 1_000_000_000,
            scopes: scopes(image, interface),
        };
        let at = Timestamp::from_second(*at).expect("a time");
        let want = oracle.judge(&parsed, frame.len(), at, Some(interface));
        // An image has no budgets: it answers as if none were ever spent.
        let (verdict, reason) = match want.reason {
            Reason::RateLimit => (Verdict::Pass, Reason::Rule),
            reason => (want.verdict, reason),
        };
        let said = reader.judge(&parsed, around);
        let name = |n: &u32| image.rules()[*n as usize].clone();
        assert_eq!(
            (
                said.verdict,
                said.reason,
                said.rule.as_ref().map(name),
                said.passed.iter().filter(is_monitor).map(name).collect()
            ),
            (verdict, reason, want.rule, want.monitored),
            "image, oracle at {at}\n{parsed:?}\n{}",
            policy.to_yaml()
        );
    }
}

/// The bits of the scopes that an interface is in.
fn scopes(image: &Image, interface: &str) -> u64 {
    let fits = |glob: &String| {
        Glob::new(glob)
            .unwrap()
            .compile_matcher()
            .is_match(interface)
    };
    let scopes = (0..).zip(image.scopes());
    scopes
        .filter(|(_, globs)| globs.iter().any(fits))
        .fold(0, |bits, (bit, _)| bits | 1 << bit)
}
