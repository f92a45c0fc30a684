//! Errors of single calls: bans, evaluation, events, counters of entries, pins.

use std::io;
use std::path::{Path, PathBuf};

use super::VerifierLog;
use crate::kernel::program::ProgramError;
use crate::policy::{Prefix, SetName};

/// Why a prefix was not banned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BanError {
    /// The prefix is all addresses of a family.
    #[error(
        "a ban of {prefix} would shut out every address of its family, whoever manages this machine \
         among them: call ban_whole_family if that is meant"
    )]
    WholeFamily {
        /// The prefix.
        prefix: Prefix,
    },
    /// The table of bans is full.
    #[error(
        "no room for a ban of {prefix}: {count} are in force and the firewall was loaded for \
         {limit}: load it with more than {knob}({limit}), or put the prefix into an address set"
    )]
    Full {
        /// The prefix.
        prefix: Prefix,
        /// How many bans are in force.
        count: u32,
        /// How many there may be.
        limit: u32,
        /// The method of [`Loader`](crate::Loader) that sets the limit.
        knob: &'static str,
    },
    /// Bans of too many prefix lengths.
    #[error(
        "a ban of {prefix} would need one prefix length more than {limit} (in use: {in_use:?}): \
         put the prefix into an address set, which may have all lengths"
    )]
    Lengths {
        /// The prefix.
        prefix: Prefix,
        /// The lengths in use for its family and direction.
        in_use: Vec<u8>,
        /// How many there may be.
        limit: usize,
    },
}

/// Why a frame was not evaluated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvaluateError {
    /// The kernel takes test frames up to less than a page only.
    #[error("a frame of {bytes} bytes is too long to be evaluated: the limit is {limit}")]
    TooLong {
        /// The length of the frame.
        bytes: usize,
        /// The longest frame that is taken.
        limit: usize,
    },
    /// The kernel's verifier refused the evaluating program: a bug of xdpgate.
    #[error("the kernel's verifier refused the evaluating program: {summary}; please report this")]
    Verifier {
        /// The verifier's reason.
        summary: String,
        /// All that the verifier said.
        log: VerifierLog,
    },
    /// The program gave an answer that makes no sense: a bug of xdpgate.
    #[error(
        "the evaluating program answered reason {reason} and rule number {rule}; please report this"
    )]
    Answer {
        /// The number of the reason.
        reason: u32,
        /// The number of the rule.
        rule: u32,
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

/// Why no stream of events was opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EventError {
    /// An option is out of range.
    #[error("{option}({value}) is out of range: it must be 1 to {most}")]
    Limit {
        /// The method of [`EventOptions`](crate::EventOptions) that sets it.
        option: &'static str,
        /// What was asked for.
        value: usize,
        /// The most that it may be.
        most: usize,
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

/// Why pins were not made or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PinError {
    /// The directory is not on a BPF file system.
    #[error("{}: not on a BPF file system; mount one there: mount -t bpf bpf /sys/fs/bpf", .dir.display())]
    NotBpffs {
        /// The directory.
        dir: PathBuf,
    },
    /// The directory holds something that is not a pin of xdpgate.
    #[error("{}: holds {name:?}, which is not ours: choose another directory", .dir.display())]
    Foreign {
        /// The directory.
        dir: PathBuf,
        /// The first such entry.
        name: String,
    },
    /// The directory holds pins already.
    #[error("{}: holds pins already; remove them with `xdpgate unload --pin {}`", .dir.display(), .dir.display())]
    Exists {
        /// The directory.
        dir: PathBuf,
    },
    /// The map by which pins are known as ours is not there, or is another one.
    #[error("{}: has no pin \"layout\" that xdpgate made: its pins are not ours", .dir.display())]
    NoLayout {
        /// The directory.
        dir: PathBuf,
    },
    /// Another process has pinned its firewall there, and runs.
    #[error("{}: another process uses these pins: stop it first, or choose another directory", .dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// There is no such directory.
    #[error("{}: no pins there: no such directory", .dir.display())]
    NotPinned {
        /// The directory.
        dir: PathBuf,
    },
    /// Another system call failed.
    #[error("{}: {source}", .path.display())]
    Syscall {
        /// The file.
        path: PathBuf,
        /// The error.
        source: io::Error,
    },
}

/// What [`pass_all`](crate::pass_all) did not do, and what it did all the same.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PassAllError {
    /// Not all pins could be switched, or there are none. Those that could be are.
    #[error("switching the pins: {source}{}", marked_text(.marked.as_deref()))]
    Pins {
        /// Why.
        source: PinError,
        /// The state directory, if one was given: it is marked, so that the next start of its process begins in
        /// pass mode.
        marked: Option<PathBuf>,
    },
    /// The pins are switched: pass mode is in force. The state directory could not be marked.
    #[error(
        "the pins are switched, so pass mode is in force, but does not outlive a restart of the machine: \
         marking the state directory: {source}"
    )]
    Mark {
        /// Why.
        source: io::Error,
    },
    /// Neither was done.
    #[error("switching the pins: {pins}; and marking the state directory: {mark}")]
    Both {
        /// Why not all pins could be switched. Those that could be are.
        #[source]
        pins: PinError,
        /// Why the state directory could not be marked.
        mark: io::Error,
    },
}

fn marked_text(marked: Option<&Path>) -> String {
    match marked {
        Some(dir) => format!(
            "; {} is marked all the same: the next start there begins in pass mode",
            dir.display()
        ),
        None => String::new(),
    }
}

/// Why there are no counters of a set's entries.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EntryCountersError {
    /// The policy in force has no such set.
    #[error("no set {0} in the policy in force")]
    NoSuchSet(SetName),
    /// The set counts only as a whole, by the rules that name it.
    #[error("set {0} does not count its entries: write `counters: entry` in the set")]
    NotCounted(SetName),
}

impl From<ProgramError> for EvaluateError {
    fn from(error: ProgramError) -> Self {
        match error {
            ProgramError::Verifier { summary, log } => Self::Verifier { summary, log },
            ProgramError::Syscall { call, source } => Self::Syscall { call, source },
        }
    }
}
