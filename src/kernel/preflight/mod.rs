//! What stands in the way of an attachment, said before it: facts, then findings, each with the
//! command that mends it.

mod finding;
mod findings;
mod limits;
#[cfg(test)]
mod tests;

use std::fmt;

pub use finding::{Finding, FindingKind, Severity};

use super::attach::{AttachMode, ModePreference};
use super::device::{self, DeviceFacts};
use super::error::AttachError;
use super::foreign::{self, ForeignProgram};
use super::frags::Frags;
use super::ifindex::IfIndex;

pub(super) use findings::of as findings;

/// What an attachment is to be like; see [`preflight`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PreflightOptions {
    preference: ModePreference,
    frags: Frags,
}

impl PreflightOptions {
    /// The mode that is wanted; [`ModePreference::BestAvailable`] unless set.
    pub fn mode(self, preference: ModePreference) -> Self {
        Self { preference, ..self }
    }

    /// The form of the programs; [`Frags::Auto`] unless set.
    pub fn frags(self, frags: Frags) -> Self {
        Self { frags, ..self }
    }
}

/// What is known of an interface and of an attachment to it that has not been made.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Preflight {
    /// The interface.
    pub ifindex: IfIndex,
    /// Its name now.
    pub name: String,
    /// The mode that is wanted.
    pub preference: ModePreference,
    /// Whether the programs take frames in several buffers.
    pub frags: bool,
    /// What is known of the device.
    pub device: DeviceFacts,
    /// What is to be said, the gravest first.
    pub findings: Vec<Finding>,
}

impl Preflight {
    /// The mode that the attachment will come to be in as far as is known; `None` if it will be
    /// refused. [`Severity::MayBlockNative`] is not counted as a hindrance.
    pub fn expected_mode(&self) -> Option<AttachMode> {
        let worst = self.findings.iter().map(|finding| finding.severity).max();
        if worst == Some(Severity::BlocksAttach) {
            return None;
        }
        let native = worst != Some(Severity::BlocksNative);
        match self.preference {
            ModePreference::BestAvailable if native => Some(AttachMode::Native),
            ModePreference::BestAvailable => Some(AttachMode::Generic),
            ModePreference::Exactly(AttachMode::Native) => native.then_some(AttachMode::Native),
            ModePreference::Exactly(AttachMode::Generic) => Some(AttachMode::Generic),
            ModePreference::Exactly(AttachMode::Offload) => None,
        }
    }
}

impl fmt::Display for Preflight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.expected_mode() {
            Some(mode) => write!(f, "{}: would be attached in {mode} mode", self.name)?,
            None => write!(f, "{}: would not be attached", self.name)?,
        }
        for finding in &self.findings {
            write!(f, "\n  {finding}")?;
        }
        Ok(())
    }
}

/// Looks at an interface without changing anything: what an attachment would come to, and why.
///
/// Nothing need be loaded. [`Firewall::preflight`](crate::Firewall::preflight) does the same and
/// knows the form of its programs, and which interfaces are its own. It looks in the network
/// namespace of the calling thread. XDP features are known since Linux 6.3; what is not known is
/// not reported, so that no findings are no promise.
///
/// ```no_run
/// use xdpgate::{IfIndex, PreflightOptions, preflight};
///
/// let report = preflight(IfIndex::from_name("eth0")?, PreflightOptions::default())?;
/// for finding in &report.findings {
///     println!("{finding}");
///     if let Some(command) = &finding.mend {
///         println!("    {command}");
///     }
/// }
/// # Ok::<(), xdpgate::AttachError>(())
/// ```
///
/// # Errors
/// There is no such interface.
pub fn preflight(ifindex: IfIndex, options: PreflightOptions) -> Result<Preflight, AttachError> {
    // Who may load nothing cannot probe: then the kernel is taken to have no xdp.frags.
    let frags = options.frags.resolve().unwrap_or(false);
    let name = ifindex
        .name()
        .ok_or(AttachError::NoSuchInterface(ifindex))?;
    let occupant = foreign::on(ifindex, &name);
    Ok(assess(
        ifindex,
        name,
        device::gather(ifindex),
        occupant.as_ref(),
        options.preference,
        frags,
    ))
}

/// From facts to findings.
pub(super) fn assess(
    ifindex: IfIndex,
    name: String,
    device: DeviceFacts,
    occupant: Option<&ForeignProgram>,
    preference: ModePreference,
    frags: bool,
) -> Preflight {
    let mut findings = findings::of(&name, &device, frags);
    if preference == ModePreference::Exactly(AttachMode::Generic) {
        findings.retain(|finding| !finding.severity.is_of_native_mode());
    }
    findings.extend(occupant.map(findings::occupied));
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    Preflight {
        ifindex,
        name,
        preference,
        frags,
        device,
        findings,
    }
}
