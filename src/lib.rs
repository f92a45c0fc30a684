//! xdpgate (crate documentation to come)
mod abi;
pub mod compile;
pub mod image;
pub mod oracle;
pub mod packet;
pub mod policy;
mod verdict;

pub use policy::{Policy, PolicyError, Verdict};
pub use verdict::{Evaluation, Reason};
