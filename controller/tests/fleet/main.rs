//! The controller's service of nodes against nodes that speak the real protocol over real sockets.

mod board;
mod bounds;
#[path = "../common/mod.rs"]
mod common;
mod delivery;
mod elsewhere;
mod health;
mod numbers;
mod own;
mod real;
mod restart;

use common::core;
