//! An embeddable XDP firewall: packets judged at the network driver, under the control of a program.
//!
//! ```text
//!  YAML or code        pure, any OS                       feature `kernel`, Linux 5.10 or newer
//! +------------+   +-----------+   +---------+   +----------------------------------------------+
//! |   Policy   |-->|  compile  |-->|  Image  |-->| Firewall::apply: mmap, load, one atomic slot |
//! +------------+   +-----------+   +---------+   +----------------------------------------------+
//!        |                              |                                |
//!        v                              v                                v
//!     Oracle  ------- equal -----  ImageReader  ------- equal -----  XDP program
//! ```
//!
//! A [`Policy`] is a default verdict, named address sets and rules; **the first rule that matches
//! wins, always**: nested prefixes, overlapping sets and both address families obey priority. The
//! compiler makes one flat [image](image::Image) of it, and a [`Firewall`] publishes the image to
//! all its interfaces in one atomic step. The naive [oracle](oracle::Oracle) says what must come
//! out, and the kernel is tested to say the same.
//!
//! ```no_run
//! # #[cfg(feature = "kernel")]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use xdpgate::{Firewall, IfIndex, ModePreference, Policy};
//!
//! let firewall = Firewall::loader().dry_run(true).load()?;
//! let policy = Policy::from_file("policy.yaml")?; // errors carry line, rule, field and the mend
//! println!("{}", firewall.plan(&policy)?); // what would change, in words
//! firewall.apply(&policy)?; // atomic: each packet sees the old policy or the new one
//! let attachment = firewall.attach(IfIndex::from_name("eth0")?, ModePreference::BestAvailable)?;
//! println!("{} in {} mode", attachment.name, attachment.mode);
//! firewall.set_dry_run(false);
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "kernel"))]
//! # fn main() {}
//! ```
//!
//! # What it does not do
//!
//! It keeps no connections and does no NAT; it judges what comes in, not what goes out; it never
//! replaces or detaches an XDP program that is not its own. It installs no logger and no exporter:
//! it speaks through the `log` and `metrics` facades.
//!
//! # Features
//!
//! - `kernel` (default): loading, publishing and attaching through libbpf, by hand or as interfaces
//!   appear ([`Firewall::auto_attach`]). Without it the pure half
//!   stays: policies, compiler, plan, oracle. It needs no root, no clang and no Linux.
//! - `pcap` (default): [`PcapngWriter`], which writes sampled drops to a pcapng file.
//! - `static`: links libelf and zlib statically, for one binary that runs on any host.
#![deny(unsafe_code)]

mod abi;
pub mod compile;
pub mod image;
#[cfg(feature = "kernel")]
mod kernel;
mod management;
pub mod oracle;
pub mod packet;
#[cfg(feature = "pcap")]
mod pcapng;
mod plan;
pub mod policy;
mod verdict;

#[cfg(feature = "kernel")]
pub use kernel::{
    Altered, Applied, ApplyError, ApplyOptions, AtDeadline, AttachError, AttachMode, AttachedBy,
    Attachment, AutoAttach, AutoAttachError, AutoAttachOptions, AutoEvent, AutoEvents,
    AutoInterface, AutoStats, Ban, BanError, BanScope, Bridge, BridgeError, BridgeInfo, BridgePort,
    BuildInfo, Channels, ConfirmError, Count, Decision, DetachReason, DeviceFacts, DirectionStats,
    Disposition, Enforcement, EnforcementError, EntryCountersError, EntryStats, Estimate,
    EvaluateError, Event, EventError, EventOptions, EventStats, EventStream, Fallback, Family,
    Filter, Finding, FindingKind, Firewall, ForeignProgram, Frags, Generation, HealthError, Holder,
    IfIndex, Interface, InterfaceClass, InterfaceRates, InterfaceStats, LoadError, Loader,
    MetricsOptions, ModePreference, NextError, NotSaved, OffloadState, OperState, Operation,
    PassAllError, Peer, Pending, PendingError, PinError, Pinning, Preflight, PreflightOptions,
    Previous, ProgramFacts, ProgramInfo, Rate, Rates, Rehearsal, RestoreOutcome, Restored, Resync,
    RollbackError, RolledBack, RuleRates, RuleStats, SavedPolicyError, Selector, SelectorError,
    Severity, SkipReason, Stats, TakeBackRefused, Transaction, TransactionError,
    TransactionOptions, VerdictCount, VerdictCounts, VerdictRates, Verified, VerifierLog,
    XdpFeatures, build_info, describe_metrics, pass_all, preflight, restore_interfaces, unpin,
};
pub use management::{Management, ManagementPort};
#[cfg(feature = "pcap")]
pub use pcapng::{PcapngFrame, PcapngWriter};
pub use plan::{Plan, SetChange, SetChangeKind};
pub use policy::{Policy, PolicyError, Verdict};
pub use verdict::{Evaluation, Reason};
