//! Management traffic of a host, which no policy may cut off.

use crate::packet::Packet;
use crate::policy::{Failsafe, Prefix};

/// TCP of a peer that manages this host. It passes before any ban and rule, whatever the policy is,
/// unless that says `failsafe: none`.
///
/// What belongs to the host and not to a policy: the port of the API of a daemon, the link to a
/// controller. SSH is in the policy ([`Failsafe::ssh_from`]).
///
/// It is not stateful: whatever TCP the peer sends by this port passes, SYN floods too, so name few
/// peers. Fragments behind the first have no ports and do not pass by it.
///
/// ```
/// use xdpgate::{Management, ManagementPort};
///
/// let api = Management::new("192.0.2.0/24".parse()?, ManagementPort::Local(50051));
/// let controller = Management::new("198.51.100.7".parse()?, ManagementPort::Remote(443));
/// assert_eq!(api.to_string(), "TCP from 192.0.2.0/24 to port 50051");
/// assert_eq!(controller.to_string(), "TCP from 198.51.100.7 port 443");
/// # Ok::<(), xdpgate::policy::PrefixParseError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Management {
    /// Where it comes from.
    pub peer: Prefix,
    /// By which port.
    pub port: ManagementPort,
}

/// The port of management traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "a connection has two ends")]
pub enum ManagementPort {
    /// A port of this host, to which the peer connects: the destination port.
    Local(u16),
    /// A port of the peer, to which this host connects: the source port.
    Remote(u16),
}

impl Management {
    /// How many of them a host may have: they are compared one by one.
    pub const MAX: usize = 16;

    /// Traffic of this peer by this port.
    pub fn new(peer: Prefix, port: ManagementPort) -> Self {
        Self { peer, port }
    }

    fn holds(&self, packet: &Packet) -> bool {
        let port = |(source, destination)| match self.port {
            ManagementPort::Local(port) => destination == port,
            ManagementPort::Remote(port) => source == port,
        };
        packet.protocol == Some(TCP)
            && packet.ports.is_some_and(port)
            && self.peer.contains(packet.src)
    }
}

impl std::fmt::Display for Management {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.port {
            ManagementPort::Local(port) => write!(f, "TCP from {} to port {port}", self.peer),
            ManagementPort::Remote(port) => write!(f, "TCP from {} port {port}", self.peer),
        }
    }
}

const TCP: u8 = 6;
const SSH: u16 = 22;

/// All management traffic by TCP: that of a policy, which is SSH, and that of the host.
pub(crate) fn of<'a>(
    failsafe: &'a Failsafe,
    of_host: &'a [Management],
) -> impl Iterator<Item = Management> + 'a {
    let ssh = |peer: &Prefix| Management::new(*peer, ManagementPort::Local(SSH));
    let all = failsafe
        .ssh_from
        .iter()
        .map(ssh)
        .chain(of_host.iter().copied());
    all.filter(|_| failsafe.enabled)
}

/// Whether the packet is such traffic.
pub(crate) fn passes(failsafe: &Failsafe, of_host: &[Management], packet: &Packet) -> bool {
    of(failsafe, of_host).any(|flow| flow.holds(packet))
}
