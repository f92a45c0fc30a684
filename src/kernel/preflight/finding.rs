//! One finding.

use std::fmt;

/// Something about an interface that bears on its attachment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// What it is about.
    pub kind: FindingKind,
    /// What comes of it.
    pub severity: Severity,
    /// What is so, and why it matters, in one sentence.
    pub message: String,
    /// The command that mends it, if one does. For the peer of a veth in a network namespace without
    /// a name it is to be run there, which the message says.
    pub mend: Option<String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.severity, self.message)?;
        match &self.mend {
            Some(command) => write!(f, "; mend it with `{command}`"),
            None => Ok(()),
        }
    }
}

/// What a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FindingKind {
    /// Another XDP program runs there.
    Occupied,
    /// The driver has no native mode.
    NoNative,
    /// Frames may be longer than one buffer.
    Mtu,
    /// Too few queues, too many, or of the wrong kind.
    Queues,
    /// Packets are put together by the device.
    Lro,
    /// The same, as GRO-HW.
    GroHw,
    /// VLAN tags are not in the frames.
    VlanTags,
    /// The device offers to run programs itself.
    Offload,
}

impl FindingKind {
    /// The name used in output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Occupied => "occupied",
            Self::NoNative => "no-native",
            Self::Mtu => "mtu",
            Self::Queues => "queues",
            Self::Lro => "lro",
            Self::GroHw => "gro-hw",
            Self::VlanTags => "vlan-tags",
            Self::Offload => "offload",
        }
    }
}

impl fmt::Display for FindingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What comes of a finding, the gravest last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Severity {
    /// Good to know.
    Hint,
    /// It works, but not as well, or rules see less than is there.
    Degrades,
    /// Native mode may be refused: it depends on the driver, of which too little is known.
    MayBlockNative,
    /// Native mode is refused; generic mode remains.
    BlocksNative,
    /// No mode is to be had.
    BlocksAttach,
}

impl Severity {
    /// The name used in output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hint => "hint",
            Self::Degrades => "degrades",
            Self::MayBlockNative => "may block native mode",
            Self::BlocksNative => "blocks native mode",
            Self::BlocksAttach => "blocks",
        }
    }

    pub(super) fn is_of_native_mode(self) -> bool {
        matches!(self, Self::MayBlockNative | Self::BlocksNative)
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
