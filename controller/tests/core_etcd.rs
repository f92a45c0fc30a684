//! Core and rollouts over etcd: the suites that run over SQLite elsewhere.

#[path = "core_fleet.rs"]
mod core_fleet;
#[path = "core_follow.rs"]
mod core_follow;
#[path = "core_rules.rs"]
mod core_rules;
#[path = "rollout.rs"]
mod rollout;
#[path = "rollout_again.rs"]
mod rollout_again;
