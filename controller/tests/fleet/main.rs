//! The controller's service of nodes against nodes that speak the real protocol over real sockets.

mod board;
mod bounds;
#[allow(dead_code, unreachable_pub, reason = "this file uses a part of it")]
#[path = "../common/core.rs"]
mod core;
mod delivery;
mod health;
mod numbers;
mod real;
mod restart;
