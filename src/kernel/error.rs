//! What can go wrong with the kernel half, by area: loading, policies, attaching, health.

mod calls;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::attach::AttachMode;
use super::confirm::PendingError;
use super::foreign::ForeignProgram;
use super::ifindex::IfIndex;
use super::program::ProgramError;
use super::publish::Generation;
use super::transact::ApplyOptions;
use crate::policy::{ChangeErrors, PolicyError};

pub use calls::{BanError, EntryCountersError, EvaluateError, EventError, PassAllError, PinError};

/// What is needed to load and attach.
pub(super) const CAPABILITIES: &str = "CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN";

/// What the kernel's verifier said, instruction by instruction: many lines, shown by `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct VerifierLog(pub(super) String);

impl VerifierLog {
    /// The log as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for VerifierLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for VerifierLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifierLog({} lines)", self.0.lines().count())
    }
}

/// Why the firewall could not be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The process may not load XDP programs.
    #[error("no permission to load XDP programs: {0} are needed; run as root")]
    Capability(&'static str),
    /// The kernel lacks what Linux 5.10 brought.
    #[error("the kernel is older than Linux 5.10, by its calls: it has no {0}; run 5.10 or newer")]
    OldKernel(&'static str),
    /// The kernel is built without its type information, and cannot verify functions that take a
    /// packet without it.
    #[error(
        "the kernel has no type information (BTF): {} is missing; run a kernel that is built with \
         CONFIG_DEBUG_INFO_BTF=y", .path.display()
    )]
    NoBtf {
        /// The file that would hold it.
        path: PathBuf,
    },
    /// A size that the kernel cannot hold.
    #[error("{knob}({value}) is out of range: {reason}")]
    Limit {
        /// The method of [`Loader`](crate::Loader) that sets it.
        knob: &'static str,
        /// What was asked for.
        value: u64,
        /// What it must be.
        reason: String,
    },
    /// The programs were to take frames in several buffers, and the kernel cannot.
    #[error(
        "frags(Require): the kernel has no xdp.frags programs, they need Linux 5.18; load with \
         Frags::Auto or Frags::Off"
    )]
    NoFrags,
    /// The network namespace cannot be entered.
    #[error(
        "{}: cannot enter this network namespace: {source}; it takes CAP_SYS_ADMIN, and a file such \
         as /run/netns/NAME or /proc/PID/ns/net", .path.display()
    )]
    Namespace {
        /// The file that was to be the namespace.
        path: PathBuf,
        /// The error.
        source: io::Error,
    },
    /// The kernel's verifier refused the entry program: a bug of xdpgate or of the compiler.
    #[error("the kernel's verifier refused the entry program: {summary}; please report this")]
    Verifier {
        /// The verifier's reason.
        summary: String,
        /// All that the verifier said.
        log: VerifierLog,
    },
    /// The pins by which the firewall is to outlive this process cannot be made or taken over.
    #[error("cannot pin: {0}")]
    Pin(#[from] PinError),
    /// An interface of an earlier process cannot be taken over.
    #[error("taking over an interface: {0}")]
    Attach(AttachError),
    /// The directory where the policy is to be saved cannot be made.
    #[error("state_dir: {}: {source}", .dir.display())]
    StateDir {
        /// The directory.
        dir: PathBuf,
        /// The error.
        source: io::Error,
    },
    /// What an earlier process saved beside the policy cannot be understood.
    #[error(
        "{}: {reason}; mend the file, or remove it: generations, mode, keys and a pending change are \
         forgotten then", .path.display()
    )]
    SavedState {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The policy of an earlier process cannot be put in force again.
    #[error("{}: {source}; mend the file or remove it", .path.display())]
    SavedPolicy {
        /// The file where it was saved.
        path: PathBuf,
        /// What is wrong.
        source: SavedPolicyError,
    },
    /// Another system call failed.
    #[error("{call}: {source}")]
    Syscall {
        /// The call.
        call: &'static str,
        /// Its error.
        source: io::Error,
    },
}

/// Why a saved policy cannot be put in force.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SavedPolicyError {
    /// The file cannot be read.
    #[error(transparent)]
    Read(io::Error),
    /// It is not a policy.
    #[error(transparent)]
    Policy(PolicyError),
    /// The kernel does not take it.
    #[error(transparent)]
    Apply(ApplyError),
}

/// Why a policy was not applied; what was in force before is still in force.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// The policy cannot be compiled.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The policy is larger than what the firewall was loaded for.
    #[error(
        "the policy and the one it replaces have {count} {what} together, the firewall was loaded \
         for {limit}: load it with {knob}({count}) or more"
    )]
    Limit {
        /// What there are too many of.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// How many there may be.
        limit: u32,
        /// The method of [`Loader`](crate::Loader) that sets the limit.
        knob: &'static str,
    },
    /// The kernel's verifier refused the program for this policy: a bug of xdpgate.
    #[error(
        "the kernel's verifier refused the program for this policy: {summary}; please report this"
    )]
    Verifier {
        /// The verifier's reason.
        summary: String,
        /// All that the verifier said.
        log: VerifierLog,
    },
    /// Another change waits for its confirmation.
    #[error(transparent)]
    Pending(#[from] PendingError),
    /// Another system call failed.
    #[error("{call}: {source}; the policy in force is unchanged")]
    Syscall {
        /// The call.
        call: &'static str,
        /// Its error.
        source: io::Error,
    },
}

/// Why an interface was not attached or detached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// There is no interface with this number.
    #[error("there is no interface with index {0}; `ip link` lists them")]
    NoSuchInterface(IfIndex),
    /// There is no interface with this name.
    #[error("there is no interface {name:?}; `ip link` lists them")]
    NoSuchName {
        /// The name.
        name: String,
    },
    /// Another XDP program runs on the interface; it is never replaced.
    #[error("{interface} already runs {program}; {}", removal(.program))]
    Foreign {
        /// The interface.
        interface: String,
        /// The program there, and whose it is.
        program: Box<ForeignProgram>,
    },
    /// This firewall is attached there already.
    #[error("{interface} is attached already; detach it first to change its mode")]
    AlreadyAttached {
        /// The interface.
        interface: String,
    },
    /// The interface is a port of a bridge, which is attached as a whole.
    #[error("{interface} is a port of a bridge: take that down with unbridge first")]
    InBridge {
        /// The interface.
        interface: String,
    },
    /// This firewall is not attached there.
    #[error("the interface with index {0} is not attached")]
    NotAttached(IfIndex),
    /// The interface cannot run XDP in this mode, and no other mode was allowed.
    #[error("{interface} cannot run XDP in {mode} mode: {reason}")]
    ModeUnsupported {
        /// The interface.
        interface: String,
        /// The last mode that was tried.
        mode: AttachMode,
        /// What the error of the kernel means here, and what mends it if that is known.
        reason: String,
        /// The error of the kernel.
        source: io::Error,
    },
    /// All interface slots are taken.
    #[error(
        "no counters left for {interface}: load the firewall with more than max_interfaces({limit})"
    )]
    Full {
        /// The interface.
        interface: String,
        /// How many interfaces there may be.
        limit: u16,
    },
    /// The process may not attach XDP programs.
    #[error("no permission to attach to {interface}: {needed} are needed; run as root")]
    Capability {
        /// The interface.
        interface: String,
        /// The capabilities.
        needed: &'static str,
    },
    /// Another system call failed.
    #[error("{interface}: {call}: {source}")]
    Syscall {
        /// The interface.
        interface: String,
        /// The call.
        call: &'static str,
        /// Its error.
        source: io::Error,
    },
}

fn removal(program: &ForeignProgram) -> String {
    match &program.removal {
        Some(command) => format!("its owner can remove it with `{command}`"),
        None => "stop its owner".to_owned(),
    }
}

/// What is broken, so that packets are not judged by the policy that should.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HealthError {
    /// The program of the policy in force is not the one that is jumped to.
    #[error(
        "the policy in force does not judge: its program {expected} was taken out of the map \
         policy_slot, which holds {}; apply the policy again", match .found {
            Some(id) => format!("program {id}"),
            None => "nothing, so that every packet passes".to_owned(),
        }
    )]
    NotJudging {
        /// The program that should judge.
        expected: u32,
        /// The one that does.
        found: Option<u32>,
    },
    /// An interface still runs the program of the process before, by its policy and its bans.
    #[error(
        "{interface} still runs program {program} of the process before, and is judged by its \
         policy; apply the policy again, or detach it"
    )]
    Former {
        /// The interface.
        interface: String,
        /// The program.
        program: u32,
    },
    /// A change that was not confirmed cannot be taken back; see
    /// [`TakeBackRefused`](crate::TakeBackRefused).
    #[error(
        "generation {generation} was not confirmed, and the policy before cannot be put in force: \
         {reason}; apply a whole policy, which replaces it"
    )]
    TakeBack {
        /// The generation that is to be taken back.
        generation: Generation,
        /// Why it is not.
        reason: String,
    },
    /// A system call failed.
    #[error("{call}: {source}")]
    Syscall {
        /// The call.
        call: &'static str,
        /// Its error.
        source: io::Error,
    },
}

impl From<ProgramError> for LoadError {
    fn from(error: ProgramError) -> Self {
        match error {
            ProgramError::Syscall { source, .. }
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                Self::Capability(CAPABILITIES)
            }
            ProgramError::Verifier { summary, log } => Self::Verifier { summary, log },
            ProgramError::Syscall { call, source } => Self::Syscall { call, source },
        }
    }
}

/// Why the policy in force was not changed by [`Firewall::transact`](crate::Firewall::transact).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransactionError {
    /// Some changes cannot be made.
    #[error(transparent)]
    Changes(#[from] ChangeErrors),
    /// Somebody else changed the policy.
    #[error(
        "generation {expected} was expected to be in force, but {} is: look at the policy again",
        .actual.map_or_else(|| "none".to_owned(), |g| g.to_string())
    )]
    Generation {
        /// The generation that the caller knew.
        expected: Generation,
        /// That in force.
        actual: Option<Generation>,
    },
    /// The deadline for a confirmation is none.
    #[error(
        "confirm_within({within:?}) is out of range: it must be more than 0 and at most 31 days"
    )]
    Within {
        /// What was asked for.
        within: Duration,
    },
    /// The deadline for a confirmation cannot be written down, so that a crash would make the change
    /// last.
    #[error(
        "the policy is unchanged, because its deadline cannot be saved: {source}; make room or mend \
         the directory"
    )]
    NotSaved {
        /// The error.
        source: io::Error,
    },
    /// The key was the name of another request.
    #[error(
        "key {key:?} was used for another request, answered with generation {generation}: choose \
         another key"
    )]
    KeyUsed {
        /// The key.
        key: String,
        /// What that request was answered with.
        generation: Generation,
    },
    /// The key's change was made, and taken back because nobody confirmed it. Nothing was done now:
    /// who was shut out by it and asks again would be shut out again.
    #[error(
        "the change of key {key:?}, generation {generation}, was not confirmed in time and is taken back: \
         choose another key to make it again"
    )]
    KeyTakenBack {
        /// The key.
        key: String,
        /// The generation that was taken back.
        generation: Generation,
    },
    /// The key is no name.
    #[error(
        "key: it has {bytes} bytes, it must have 1 to {}",
        ApplyOptions::LONGEST_KEY
    )]
    KeyLength {
        /// How long it is.
        bytes: usize,
    },
    /// The changed policy cannot be put in force.
    #[error(transparent)]
    Apply(#[from] ApplyError),
}

impl From<ProgramError> for ApplyError {
    fn from(error: ProgramError) -> Self {
        match error {
            ProgramError::Verifier { summary, log } => Self::Verifier { summary, log },
            ProgramError::Syscall { call, source } => Self::Syscall { call, source },
        }
    }
}
