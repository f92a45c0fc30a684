//! xdpgate (crate documentation to come)
#![deny(unsafe_code)]

mod abi;
pub mod compile;
pub mod image;
#[cfg(feature = "kernel")]
mod kernel;
pub mod oracle;
pub mod packet;
mod plan;
pub mod policy;
mod verdict;

#[cfg(feature = "kernel")]
pub use kernel::{
    Applied, ApplyError, AttachError, AttachMode, Attachment, BuildInfo, Count, Disposition,
    EvaluateError, Fallback, Firewall, Generation, IfIndex, InterfaceStats, LoadError, Loader,
    ModePreference, Operation, PinError, ProgramFacts, ProgramInfo, Rehearsal, RuleStats, Stats,
    VerdictCount, VerdictCounts, VerifierLog, build_info, unpin,
};
pub use plan::{Plan, SetChange, SetChangeKind};
pub use policy::{Policy, PolicyError, Verdict};
pub use verdict::{Evaluation, Reason};
