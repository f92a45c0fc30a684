//! What several tests of the controller need.

#![allow(
    dead_code,
    unused_imports,
    unused_macros,
    unreachable_pub,
    reason = "each test file uses a part of it"
)]

pub mod conformance;
pub mod controller;
pub mod controllers;
pub mod core;
pub mod etcd;
pub mod rollout;
