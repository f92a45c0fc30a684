//! What the fuzz targets share: the strategies of the tests, and policies that ask for everything.
#![allow(
    dead_code,
    missing_docs,
    reason = "every target uses a part of what the tests share"
)]

#[path = "../../tests/common"]
mod common {
    pub mod equal;
    pub mod frame_strategy;
    pub mod packet;
    pub mod policy_strategy;
    pub mod pool;
}

pub use common::{equal, frame_strategy, packet, policy_strategy, pool};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use xdpgate::Policy;

/// A value of a strategy, drawn with the input as seed. (With the input as the random numbers
/// themselves, strategies that reject values draw forever once it is used up.) `None` where the seed
/// leads to no value.
pub fn draw<S: Strategy>(strategy: &S, input: &[u8]) -> Option<S::Value> {
    let mut seed = [0; 32];
    for (i, word) in seed.chunks_exact_mut(8).enumerate() {
        let hash = input
            .iter()
            .fold(0xcbf2_9ce4_8422_2325 ^ i as u64, |hash: u64, byte| {
                (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
            });
        word.copy_from_slice(&hash.to_le_bytes());
    }
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    Some(strategy.new_tree(&mut runner).ok()?.current())
}

/// One rule for each field of the language, about addresses of the pools.
const EVERY_FIELD: &str = "
version: 1
default: drop
malformed: drop
failsafe: { ssh_from: [192.0.2.0/24, '2001:db8::/32'] }
sets:
  a: { entries: [10.1.2.3, 10.1.2.0/23, '2001:db8::/32', '2001:db8:1::1'] }
  b: { entries: [10.1.0.0/16, 192.0.2.7, 198.51.100.0/31, '2001:db8:1::/64', '2001:db8:1:2::5'] }
rules:
  - { id: r01, match: { src: '@a', dst: '@b' }, action: drop }
  - { id: r02, match: { src: { not: '@a' }, protocol: gre }, action: drop }
  - { id: r03, match: { src: 10.200.0.0/13 }, action: drop, expires: 2090-01-01T00:00:00Z }
  - { id: r04, match: { dst: 10.1.2.128/25 }, action: pass }
  - { id: r05, match: { protocol: udp, sport: 53 }, action: pass }
  - { id: r06, match: { protocol: tcp, dport: [80, 443, 8000-8999] }, action: pass }
  - { id: r07, match: { protocol: tcp, tcp_flags: 'SYN,!ACK' }, action: drop }
  - { id: r08, match: { protocol: icmp, icmp: { type: 8, code: 0 } }, action: pass }
  - { id: r09, match: { length: 40-60 }, action: drop }
  - { id: r10, match: { fragment: any }, action: drop }
  - { id: r11, match: { anomaly: [bad_fragment, invalid] }, action: drop }
  - { id: r12, match: { vlan: [1, 10] }, action: pass }
  - { id: r13, match: { ttl: 0-1 }, action: drop }
  - { id: r14, match: { dscp: [46] }, action: pass }
  - { id: r15, match: { src: '@b', protocol: tcp }, action: count }
  - { id: r16, match: { dst: '@a', protocol: tcp }, action: drop, mode: monitor }
  - { id: r17, match: { protocol: udp, dport: 53 }, action: drop, expires: 2100-01-01T00:00:00Z }
  - { id: r18, match: { src: 10.1.2.3, dst: 10.1.2.4, protocol: tcp, sport: 1, dport: 80 }, action: drop }
";

/// Policies of every shape: nothing, one address, a list, every field.
pub fn policies() -> Vec<Policy> {
    let texts = [
        "{ version: 1, default: drop, failsafe: none }",
        "{ version: 1, rules: [ { id: r, match: { src: 10.1.2.3 }, action: drop } ] }",
        "{ version: 1, sets: { a: { entries: [10.0.0.0/8, 10.1.2.0/25, 10.1.2.200, '2001:db8::/32', '2001:db8:1::1'] } }, \
         rules: [ { id: r, match: { src: '@a' }, action: drop }, { id: s, match: { dst: '@a' }, action: drop } ] }",
        EVERY_FIELD,
    ];
    let parse = |text: &str| Policy::from_yaml(text).expect("a policy");
    texts.into_iter().map(parse).collect()
}
