//! What the servers of xdpgate share, `xdpgated` and `xdpgate-controller`: configuration, command line,
//! failures, files with secrets, tables, durations, manual pages, the log, what is told of the process and to the service manager. Not for others: it
//! changes as they do.

pub mod config;
pub mod duration;
mod failure;
pub mod files;
pub mod logging;
pub mod notify;
pub mod process;
pub mod shell;
pub mod table;
mod usage;

pub use failure::Failure;
pub use usage::parse;
