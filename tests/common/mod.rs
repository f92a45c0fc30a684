//! What several test binaries share; each uses a part of it.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "every test binary compiles all of it"
)]

pub mod classbench;
pub mod corpus;
#[cfg(feature = "kernel")]
pub mod cpus;
pub mod data;
pub mod equal;
pub mod frame_strategy;
#[cfg(feature = "kernel")]
pub mod live;
#[cfg(feature = "kernel")]
pub mod netns;
pub mod packet;
pub mod policy_strategy;
pub mod pool;
pub mod random;
pub mod rows;
pub mod runs;
pub mod tuple;
