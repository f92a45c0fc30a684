//! The attacker's hour: the real program on loopback, and what somebody tries who means it harm.

#[path = "../common/controller.rs"]
#[allow(dead_code, unreachable_pub, reason = "each test uses a part of it")]
mod controller;
mod flood;
mod fuzz;
mod nodes;
mod peer;
mod web;
