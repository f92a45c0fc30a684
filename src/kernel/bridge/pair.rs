//! What a bridge is, and what it did.

use std::fmt;

use super::port::PreparedPort;
use crate::kernel::attach::{AttachMode, Attachment, ModePreference};
use crate::kernel::backend::Backend;
use crate::kernel::ifindex::IfIndex;
use crate::kernel::layout::{INTERFACE_PORT, INTERFACE_UNFILTERED};
use crate::kernel::stats::{Count, Disposition, InterfaceStats, Stats, VerdictCounts};
use crate::verdict::Reason;

/// Which direction of a bridge is judged. Frames of the other one are forwarded unjudged, and counted
/// with the reason [`Unfiltered`](Reason::Unfiltered).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Filter {
    /// Frames that come in by the outer port.
    Inbound,
    /// Frames that come in by the inner port.
    Outbound,
    /// Both.
    #[default]
    Both,
}

impl Filter {
    /// The name used in output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
            Self::Both => "both",
        }
    }

    fn judges_inbound(self) -> bool {
        self != Self::Outbound
    }

    fn judges_outbound(self) -> bool {
        self != Self::Inbound
    }

    /// The flags of the outer port and of the inner one in the table of interfaces.
    pub(super) fn interface_flags(self) -> [u16; 2] {
        [self.judges_inbound(), self.judges_outbound()].map(|is_judged| match is_judged {
            true => INTERFACE_PORT,
            false => INTERFACE_PORT | INTERFACE_UNFILTERED,
        })
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A bridge to be made by [`Firewall::bridge`](crate::Firewall::bridge): which two ports, which
/// direction is judged, and in which mode. Unless said both directions are judged, in the best mode
/// that each port has.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a description: Firewall::bridge makes it"]
pub struct Bridge {
    pub(super) outer: IfIndex,
    pub(super) inner: IfIndex,
    pub(super) filter: Filter,
    pub(super) mode: ModePreference,
}

impl Bridge {
    /// A bridge between the port to the outside and that to what is protected.
    pub fn new(outer: IfIndex, inner: IfIndex) -> Self {
        Self {
            outer,
            inner,
            filter: Filter::default(),
            mode: ModePreference::default(),
        }
    }

    /// Which direction is judged.
    pub fn filter(self, filter: Filter) -> Self {
        Self { filter, ..self }
    }

    /// The mode of both ports. Native is many times faster. If one port has no native mode, both are
    /// attached in generic mode: a driver that has none takes no frames from a native port either.
    /// A port in generic mode must have no local peer that sends packets in one piece that are
    /// longer than the MTU.
    pub fn mode(self, mode: ModePreference) -> Self {
        Self { mode, ..self }
    }
}

/// A bridge that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BridgeInfo {
    /// The port to the outside.
    pub outer: BridgePort,
    /// The port to what is protected.
    pub inner: BridgePort,
    /// Which direction is judged.
    pub filter: Filter,
    /// Frames that came in by the outer port since the bridge was made.
    pub inbound: DirectionStats,
    /// Frames that came in by the inner port since then.
    pub outbound: DirectionStats,
}

/// A port of a bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BridgePort {
    /// How it was attached when the bridge was made.
    pub attachment: Attachment,
    /// Whether it is attached still. If not, its interface is gone; frames that come in by the
    /// other port are dropped then, as [`NoPartner`](Reason::NoPartner). The bridge must be taken
    /// down and made anew once there is an interface again.
    pub attached: bool,
    /// Whether its driver takes frames that another one received, in native mode: `false` means that
    /// all that is forwarded to it is lost. A veth takes them if its peer has GRO on or runs an XDP
    /// program. `None` if the kernel does not tell (before 6.3), and in generic mode, which does not
    /// need it.
    pub takes_frames: Option<bool>,
}

/// What became of the frames of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct DirectionStats {
    /// Handed to the partner's driver, those included that only dry run let pass. What the driver
    /// refused afterwards is not known here.
    pub forwarded: Count,
    /// Discarded, for whatever reason.
    pub dropped: Count,
    /// Of these, those for which there was no partner.
    pub no_partner: Count,
}

impl DirectionStats {
    fn of(counts: &VerdictCounts) -> Self {
        let mut forwarded = counts.passed();
        forwarded += counts.would_drop();
        Self {
            forwarded,
            dropped: counts.dropped(),
            no_partner: counts.get(Reason::NoPartner, Disposition::Dropped),
        }
    }

    fn since(self, before: Self) -> Self {
        let since = |now: Count, before: Count| Count {
            packets: now.packets.wrapping_sub(before.packets),
            bytes: now.bytes.wrapping_sub(before.bytes),
        };
        Self {
            forwarded: since(self.forwarded, before.forwarded),
            dropped: since(self.dropped, before.dropped),
            no_partner: since(self.no_partner, before.no_partner),
        }
    }
}

/// A bridge that was made.
#[derive(Debug)]
pub(super) struct Pair {
    /// The outer one, the inner one.
    pub sides: [Side; 2],
    pub filter: Filter,
}

/// A port of it.
#[derive(Debug)]
pub(super) struct Side {
    pub ifindex: IfIndex,
    pub name: String,
    pub port: Box<dyn PreparedPort>,
    /// `None` until it is attached.
    pub attachment: Option<Attachment>,
    /// Whether it was attached before it became a port.
    pub stays_attached: bool,
    /// As what an earlier process left it: its flags and its partner.
    pub former: Option<(u16, Option<IfIndex>)>,
    /// What its interface had counted before.
    before: DirectionStats,
}

impl Side {
    pub(super) fn new(
        ifindex: IfIndex,
        name: String,
        port: Box<dyn PreparedPort>,
        before: &Stats,
    ) -> Self {
        let mut interfaces = before.interfaces.iter();
        let counted = interfaces.find(|i| (i.ifindex, &i.name) == (ifindex, &name));
        let before = counted.map(|i| DirectionStats::of(&i.counts));
        Self {
            ifindex,
            name,
            port,
            attachment: None,
            stays_attached: false,
            former: None,
            before: before.unwrap_or_default(),
        }
    }

    pub(super) fn mode(&self) -> Option<AttachMode> {
        Some(self.attachment.as_ref()?.mode)
    }
}

impl Pair {
    pub(super) fn has(&self, port: IfIndex) -> bool {
        self.sides.iter().any(|side| side.ifindex == port)
    }

    /// `None`: as it is just made.
    pub(super) fn info(&self, backend: &dyn Backend, stats: Option<&Stats>) -> BridgeInfo {
        let [outer, inner] = &self.sides;
        let (outer, inbound) = side_info(backend, outer, stats);
        let (inner, outbound) = side_info(backend, inner, stats);
        BridgeInfo {
            outer,
            inner,
            filter: self.filter,
            inbound,
            outbound,
        }
    }
}

fn side_info(
    backend: &dyn Backend,
    side: &Side,
    stats: Option<&Stats>,
) -> (BridgePort, DirectionStats) {
    let attachment = side.attachment.clone();
    let attachment = attachment.expect("both sides of a pair are attached");
    let is_it = |i: &&InterfaceStats| (i.ifindex, &i.name) == (side.ifindex, &side.name);
    let found = stats.and_then(|s| s.interfaces.iter().find(is_it));
    let attached = stats.is_none() || found.is_some_and(|i| i.attached);
    let takes_frames = match attachment.mode {
        // Of a driver without any feature the kernel tells none, and native mode is one.
        AttachMode::Native if attached => {
            let features = backend.xdp_features(side.ifindex);
            features.filter(|xdp| xdp.native).map(|xdp| xdp.transmit)
        }
        _ => None,
    };
    let port = BridgePort {
        attachment,
        attached,
        takes_frames,
    };
    let counted = found.map(|i| DirectionStats::of(&i.counts).since(side.before));
    (port, counted.unwrap_or_default())
}
