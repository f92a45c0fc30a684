//! How interfaces are attached: modes, fallback, and what came of it.

use std::fmt;
use std::io;

use nix::errno::Errno;

use super::backend::{Backend, XdpLink};
use super::error::{AttachError, CAPABILITIES};
use super::ifindex::IfIndex;
use super::preflight::{self, Finding, FindingKind, Severity};

/// Where in the receive path the program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AttachMode {
    /// In the driver, before the kernel allocates anything for the packet.
    Native,
    /// In the network stack: works on every interface, at a fraction of the speed.
    Generic,
    /// On the device itself. No kernel up to now can do it for this program: it jumps between
    /// programs, and the array for that is made on no device.
    Offload,
}

impl AttachMode {
    /// The name used in output and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Offload => "offload",
        }
    }
}

impl fmt::Display for AttachMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which modes an attachment may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ModePreference {
    /// Offload where the device says that it can, then native, then generic. Why a better one was
    /// not to be had is said in [`Attachment::fallbacks`].
    #[default]
    BestAvailable,
    /// This one or none.
    Exactly(AttachMode),
}

impl ModePreference {
    /// The name used in output: `best`, or that of the mode.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BestAvailable => "best",
            Self::Exactly(mode) => mode.as_str(),
        }
    }

    /// The modes to be tried, in order. Few devices offer offload, so without their word it is
    /// tried only if it is demanded; the word is there since Linux 6.3.
    fn modes(self, offload: Option<bool>) -> &'static [AttachMode] {
        use AttachMode::{Generic, Native, Offload};
        match (self, offload) {
            (Self::BestAvailable, Some(true)) => &[Offload, Native, Generic],
            (Self::BestAvailable, _) => &[Native, Generic],
            (Self::Exactly(Native), _) => &[Native],
            (Self::Exactly(Generic), _) => &[Generic],
            (Self::Exactly(Offload), _) => &[Offload],
        }
    }
}

impl ModePreference {
    /// The number by which it is kept for a later process.
    pub(super) fn number(self) -> u8 {
        match self {
            Self::BestAvailable => 0,
            Self::Exactly(AttachMode::Native) => 1,
            Self::Exactly(AttachMode::Generic) => 2,
            Self::Exactly(AttachMode::Offload) => 3,
        }
    }

    pub(super) fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Exactly(AttachMode::Native),
            2 => Self::Exactly(AttachMode::Generic),
            3 => Self::Exactly(AttachMode::Offload),
            _ => Self::BestAvailable,
        }
    }
}

impl fmt::Display for ModePreference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An attached interface: what was asked for, what the kernel did, and why it is not the same.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attachment {
    /// The interface.
    pub ifindex: IfIndex,
    /// Its name when it was attached.
    pub name: String,
    /// What was asked for.
    pub requested: ModePreference,
    /// The mode that the program runs in.
    pub mode: AttachMode,
    /// The better modes that were tried first, and why they were not to be had.
    pub fallbacks: Vec<Fallback>,
    /// The number of the program, as in `bpftool prog`.
    pub program_id: u32,
    /// The number of the link, as in `bpftool link`.
    pub link_id: u32,
    /// Whether nothing is dropped here, whatever the mode of the firewall is: see
    /// [`Firewall::set_interface_dry_run`](crate::Firewall::set_interface_dry_run).
    pub dry_run: bool,
}

impl Attachment {
    /// Why it is not in a better mode, in words; `None` if none was tried before.
    pub fn why(&self) -> Option<String> {
        let reasons: Vec<String> = self.fallbacks.iter().map(Fallback::to_string).collect();
        (!reasons.is_empty()).then(|| reasons.join("; "))
    }
}

/// A mode that an interface does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fallback {
    /// The mode that was tried.
    pub from: AttachMode,
    /// The error number that the kernel gave.
    pub errno: i32,
    /// What that means here, and what mends it if that is known.
    pub reason: String,
}

impl fmt::Display for Fallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let error = io::Error::from_raw_os_error(self.errno);
        write!(f, "no {} mode: {} ({error})", self.from, self.reason)
    }
}

/// A link and the mode that it came to be in.
pub(super) type Linked = (Box<dyn XdpLink>, AttachMode, Vec<Fallback>);

/// Tries the modes in order. Only an error that says "not in this mode" leads to the next one.
pub(super) fn link(
    backend: &dyn Backend,
    ifindex: IfIndex,
    interface: &str,
    preference: ModePreference,
) -> Result<Linked, AttachError> {
    let offload = match preference {
        ModePreference::BestAvailable => backend.xdp_features(ifindex).map(|xdp| xdp.offload),
        ModePreference::Exactly(_) => None,
    };
    let modes = preference.modes(offload);
    let mut fallbacks = Vec::new();
    for mode in modes {
        let source = match backend.link(ifindex, *mode) {
            Ok(link) => return Ok((link, *mode, fallbacks)),
            Err(source) => source,
        };
        let errno = source.raw_os_error().unwrap_or(0);
        let Some(meaning) = unsupported(*mode, errno) else {
            return Err(refused(backend, ifindex, interface, source));
        };
        let reason = reason(backend, ifindex, interface, *mode, meaning);
        if modes.last() == Some(mode) {
            let (interface, mode) = (interface.to_owned(), *mode);
            return Err(AttachError::ModeUnsupported {
                interface,
                mode,
                reason,
                source,
            });
        }
        fallbacks.push(Fallback {
            from: *mode,
            errno,
            reason,
        });
    }
    unreachable!("every preference has a mode")
}

/// ENOTSUPP, which the kernel keeps to itself but some drivers return.
const ENOTSUPP: i32 = 524;

/// What an error number of an attachment says about the mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Meaning {
    text: &'static str,
    /// What may be behind it.
    kinds: &'static [FindingKind],
}

/// `None` if the error is about something else than the mode.
fn unsupported(mode: AttachMode, errno: i32) -> Option<Meaning> {
    use FindingKind::{GroHw, Lro, Mtu, NoNative, Queues};
    if errno == ENOTSUPP {
        return unsupported(mode, Errno::EOPNOTSUPP as i32);
    }
    let (text, kinds): (_, &[FindingKind]) = match (mode, Errno::from_raw(errno)) {
        // Somebody else's program, no interface, or no permission.
        (
            AttachMode::Offload,
            Errno::EBUSY
            | Errno::EEXIST
            | Errno::ENODEV
            | Errno::ENXIO
            | Errno::EPERM
            | Errno::EACCES,
        ) => return None,
        // What devices answer is known of none: any other error leads on to native mode.
        (AttachMode::Offload, _) => ("the device cannot run this program itself", &[]),
        (_, Errno::EOPNOTSUPP | Errno::ENOSYS) => (
            "the driver does not offer it",
            &[NoNative, Queues, Mtu, Lro, GroHw],
        ),
        (_, Errno::ERANGE) => ("the MTU is larger than it allows", &[Mtu]),
        (AttachMode::Native, Errno::EINVAL) => (
            "the driver refuses it as configured, often for MTU or offloads",
            &[Mtu, Queues, Lro, GroHw],
        ),
        (AttachMode::Native, Errno::ENOMEM | Errno::ENOSPC) => {
            ("the device has not enough queues for it", &[Queues])
        }
        (AttachMode::Native, Errno::ENOTCONN) => ("the other end is gone", &[]),
        _ => return None,
    };
    Some(Meaning { text, kinds })
}

/// What the error number means on this device: the number alone does not tell which of several.
fn reason(
    backend: &dyn Backend,
    ifindex: IfIndex,
    interface: &str,
    mode: AttachMode,
    meaning: Meaning,
) -> String {
    let Meaning { text, kinds } = meaning;
    if mode != AttachMode::Native || kinds.is_empty() {
        return text.to_owned();
    }
    let device = backend.device(ifindex);
    let findings = preflight::findings(interface, &device, backend.takes_frags());
    match likely(&findings, kinds) {
        Some(finding) => explained(text, finding),
        None => text.to_owned(),
    }
}

/// The finding that is most likely behind an error: the gravest, of several the first kind.
fn likely<'f>(findings: &'f [Finding], kinds: &[FindingKind]) -> Option<&'f Finding> {
    let place = |finding: &Finding| kinds.iter().position(|kind| *kind == finding.kind);
    findings
        .iter()
        .filter(|finding| finding.severity > Severity::Hint)
        .filter_map(|finding| Some((finding, place(finding)?)))
        .min_by_key(|(finding, place)| (std::cmp::Reverse(finding.severity), *place))
        .map(|(finding, _)| finding)
}

fn explained(text: &str, finding: &Finding) -> String {
    // Nothing to be added.
    if finding.kind == FindingKind::NoNative {
        return text.to_owned();
    }
    let likely = match finding.severity {
        Severity::BlocksNative => "",
        _ => "likely because ",
    };
    let mend = match &finding.mend {
        Some(command) => format!("; mend it with `{command}`"),
        None => String::new(),
    };
    format!("{text}: {likely}{}{mend}", finding.message)
}

fn refused(
    backend: &dyn Backend,
    ifindex: IfIndex,
    interface: &str,
    source: io::Error,
) -> AttachError {
    let name = interface.to_owned();
    match Errno::from_raw(source.raw_os_error().unwrap_or(0)) {
        Errno::EBUSY | Errno::EEXIST => {
            if let Some(program) = backend.occupant(ifindex, interface) {
                return AttachError::Foreign {
                    interface: name,
                    program: Box::new(program),
                };
            }
        }
        Errno::ENODEV | Errno::ENXIO => return AttachError::NoSuchInterface(ifindex),
        Errno::EPERM | Errno::EACCES => {
            return AttachError::Capability {
                interface: name,
                needed: CAPABILITIES,
            };
        }
        _ => {}
    }
    AttachError::Syscall {
        interface: name,
        call: "bpf(BPF_LINK_CREATE)",
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::device::XdpFeatures;
    use crate::kernel::recorder::Recorder;

    #[test]
    fn only_errors_about_the_mode_lead_to_a_fallback() {
        let native = |errno: Errno| unsupported(AttachMode::Native, errno as i32);
        for errno in [
            Errno::EOPNOTSUPP,
            Errno::ERANGE,
            Errno::EINVAL,
            Errno::ENOMEM,
            Errno::ENOSPC,
            Errno::ENOTCONN,
        ] {
            assert!(native(errno).is_some(), "{errno}");
        }
        for errno in [Errno::EBUSY, Errno::EEXIST, Errno::EPERM, Errno::ENODEV] {
            assert!(native(errno).is_none(), "{errno}");
        }
        assert!(unsupported(AttachMode::Generic, Errno::EINVAL as i32).is_none());
        let offload = |errno: Errno| unsupported(AttachMode::Offload, errno as i32);
        for errno in [Errno::EINVAL, Errno::EOPNOTSUPP, Errno::EIO] {
            assert!(offload(errno).is_some(), "{errno}");
        }
        for errno in [Errno::EBUSY, Errno::EPERM, Errno::ENODEV] {
            assert!(offload(errno).is_none(), "{errno}");
        }
        assert!(unsupported(AttachMode::Native, ENOTSUPP).is_some());
    }

    #[test]
    fn r50_offload_is_tried_where_the_device_offers_it() {
        use AttachMode::{Generic, Native, Offload};
        let best = ModePreference::BestAvailable;
        assert_eq!(best.modes(Some(true)), [Offload, Native, Generic]);
        assert_eq!(best.modes(Some(false)), [Native, Generic]);
        // Before 6.3.
        assert_eq!(best.modes(None), [Native, Generic]);
        for mode in [Native, Generic, Offload] {
            for offload in [None, Some(false), Some(true)] {
                assert_eq!(ModePreference::Exactly(mode).modes(offload), [mode]);
            }
        }
    }

    #[test]
    fn r50_a_device_that_offers_offload_and_refuses_it_goes_native() {
        let mut offers = Recorder::default();
        offers.device.xdp = Some(XdpFeatures {
            native: true,
            offload: true,
            ..XdpFeatures::default()
        });
        let eth0 = IfIndex::new(7).unwrap();
        let link = |backend: &Recorder| {
            let linked = link(backend, eth0, "eth0", ModePreference::BestAvailable);
            let (_, mode, fallbacks) = linked.unwrap();
            (mode, fallbacks)
        };
        let (mode, fallbacks) = link(&offers);
        assert_eq!(mode, AttachMode::Native);
        assert_eq!(fallbacks.len(), 1);
        assert_eq!(
            fallbacks[0].to_string(),
            "no offload mode: the device cannot run this program itself (Operation not supported \
             (os error 95))"
        );
        assert_eq!(link(&Recorder::default()), (AttachMode::Native, vec![]));
    }

    fn finding(kind: FindingKind, severity: Severity) -> Finding {
        Finding {
            kind,
            severity,
            message: format!("{kind} is so"),
            mend: Some(format!("mend {kind}")),
        }
    }

    #[test]
    fn r50_of_several_findings_the_gravest_explains_an_error() {
        use FindingKind::{Lro, Mtu, NoNative, Queues, VlanTags};
        let findings = [
            finding(VlanTags, Severity::BlocksNative),
            finding(Lro, Severity::MayBlockNative),
            finding(Mtu, Severity::MayBlockNative),
            finding(Queues, Severity::Hint),
        ];
        let meaning = |errno: Errno| unsupported(AttachMode::Native, errno as i32).unwrap();
        let explain = |errno| {
            let Meaning { text, kinds } = meaning(errno);
            likely(&findings, kinds).map(|finding| explained(text, finding))
        };
        assert_eq!(
            explain(Errno::EINVAL).unwrap(),
            "the driver refuses it as configured, often for MTU or offloads: likely because mtu is \
             so; mend it with `mend mtu`"
        );
        assert_eq!(explain(Errno::ENOSPC), None, "a hint is no reason");
        let blocks = finding(Lro, Severity::BlocksNative);
        let found = [finding(Mtu, Severity::MayBlockNative), blocks.clone()];
        let kinds = meaning(Errno::EINVAL).kinds;
        assert_eq!(likely(&found, kinds), Some(&blocks));
        let nothing_new = finding(NoNative, Severity::BlocksNative);
        assert_eq!(explained("the text", &nothing_new), "the text");
    }
}
