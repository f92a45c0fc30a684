//! Row 121: several controllers over etcd, as real processes, with simulated nodes.

#[path = "../common/mod.rs"]
mod common;

mod chaos;
mod fanout;
mod rollouts;
