//! What the servers of xdpgate share, `xdpgated` and `xdpgate-controller`: configuration, command line,
//! failures, the log, and what the service manager is told. Not for others: it changes as they do.

pub mod config;
mod failure;
pub mod logging;
pub mod notify;
mod usage;

pub use failure::Failure;
pub use usage::parse;
