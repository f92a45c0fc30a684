//! What the servers of xdpgate share, `xdpgated` and `xdpgate-controller`: configuration, command line,
//! failures, files with secrets, tables, durations, the log, and what the service manager is told. Not for others: it changes as they do.

pub mod config;
pub mod duration;
mod failure;
pub mod files;
pub mod logging;
pub mod notify;
pub mod table;
mod usage;

pub use failure::Failure;
pub use usage::parse;
