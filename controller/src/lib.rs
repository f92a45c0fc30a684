//! The fleet controller of xdpgate: one desired state for many nodes. docs/fleet.md tells the whole.

pub mod auth;
pub mod content;
pub mod core;
pub mod domain;
pub mod fleet;
pub mod http;
pub mod store;
