//! The kernel half: loading, publishing, attaching, counting.
//!
//! ```text
//! Loader -> Firewall -> Backend (the one seam) -> live: programs and maps in the kernel
//!                                              -> recorder: what would have been done
//! ```

mod at_deadline;
mod attach;
mod attacher;
mod auto;
mod backend;
mod ban_table;
mod bans;
mod bridge;
mod confirm;
mod core;
mod counters;
mod deadline;
mod device;
mod enforcement;
mod entry_counters;
mod error;
mod estimate;
mod evaluate;
mod events;
mod firewall;
mod foreign;
mod frags;
mod grace;
mod ifindex;
mod inheritance;
mod interfaces;
mod keeper;
mod layout;
mod link;
mod live;
mod loader;
mod management;
mod memory;
mod metrics;
mod namespace;
mod overdue;
mod pin;
mod pin_root;
mod preflight;
mod probe;
mod program;
mod publish;
mod published;
mod rates;
mod realtime;
mod recorder;
mod resume;
mod scopes;
mod shared_maps;
mod shell;
mod skeleton;
mod slot_memory;
mod slots;
mod snapshot;
mod state_dir;
mod stats;
mod sys;
mod transact;
mod verify;
mod wall;

pub use at_deadline::AtDeadline;
pub use attach::{AttachMode, Attachment, Fallback, ModePreference};
pub use auto::{
    AutoAttach, AutoAttachError, AutoAttachOptions, AutoEvent, AutoEvents, AutoInterface,
    AutoStats, Decision, DetachReason, Family, Interface, InterfaceClass, OperState, Resync,
    Selector, SelectorError, SkipReason,
};
pub use bans::{Ban, BanScope};
pub use bridge::{
    Bridge, BridgeError, BridgeInfo, BridgePort, DirectionStats, Filter, RestoreOutcome, Restored,
    restore_interfaces,
};
pub use confirm::{ConfirmError, Pending, PendingError, Previous, RollbackError, RolledBack};
pub use device::{Channels, DeviceFacts, OffloadState, Peer, XdpFeatures};
pub use enforcement::{Enforcement, EnforcementError, pass_all};
pub use entry_counters::EntryStats;
pub use error::{
    ApplyError, AttachError, BanError, EntryCountersError, EvaluateError, EventError, HealthError,
    LoadError, PassAllError, PinError, SavedPolicyError, TransactionError, VerifierLog,
};
pub use estimate::Estimate;
pub use events::{Event, EventOptions, EventStats, EventStream, NextError};
pub use firewall::Firewall;
pub use foreign::{AttachedBy, ForeignProgram, Holder};
pub use frags::Frags;
pub use ifindex::IfIndex;
pub use loader::Loader;
pub use memory::NotSaved;
pub use metrics::{MetricsOptions, describe_metrics};
pub use overdue::TakeBackRefused;
pub use pin::unpin;
pub use pin_root::Pinning;
pub use preflight::{Finding, FindingKind, Preflight, PreflightOptions, Severity, preflight};
pub use publish::{Applied, Generation};
pub use rates::{InterfaceRates, Rate, Rates, RuleRates, VerdictRates};
pub use recorder::{Operation, Rehearsal};
pub use stats::{
    Count, Disposition, InterfaceStats, ProgramFacts, ProgramInfo, RuleStats, Stats, VerdictCount,
    VerdictCounts,
};
pub use transact::{ApplyOptions, Transaction, TransactionOptions};
pub use verify::{Altered, Verified};

/// What this library was built from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct BuildInfo {
    /// The version of the library.
    pub version: &'static str,
    /// The version of the clang that compiled the XDP program.
    pub clang: &'static str,
    /// The version of the layout of policy images.
    pub image_layout: u32,
}

/// What this library was built from.
pub fn build_info() -> BuildInfo {
    BuildInfo {
        version: env!("CARGO_PKG_VERSION"),
        clang: env!("XDPGATE_CLANG"),
        image_layout: crate::abi::IMAGE_LAYOUT,
    }
}
