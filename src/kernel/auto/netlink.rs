//! Links and addresses over rtnetlink.
//!
//! Two sockets: one that only listens, and one for dumps, so that what the kernel tells of its own
//! accord and what it answers do not mix. The plain socket of neli is used because an overrun
//! (ENOBUFS) must be seen here: it is the only sign that messages were lost.

use std::io::{self, Cursor};
use std::os::fd::{AsFd, OwnedFd};

use neli::attr::Attribute;
use neli::consts::nl::NlmF;
use neli::consts::rtnl::{Iff, Ifla, IflaInfo, RtAddrFamily, RtScope, Rtm};
use neli::consts::socket::NlFamily;
use neli::nl::{NlPayload, Nlmsghdr, NlmsghdrBuilder};
use neli::rtnl::{Ifaddrmsg, IfaddrmsgBuilder, Ifinfomsg, IfinfomsgBuilder, Rtattr};
use neli::socket::synchronous::NlSocketHandle;
use neli::types::Buffer;
use neli::utils::Groups;
use neli::{FromBytesWithInput, Size, ToBytes};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::sockopt::{RcvBuf, RcvBufForce};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socket};

use super::super::ifindex::IfIndex;
use super::super::sys::{self, netlink_error};
use super::interface::{Interface, OperState};
use super::selector::Family;

/// What the kernel told.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// An interface is there, or changed.
    Link(Box<Interface>),
    /// An interface went: deleted, or to another namespace.
    Gone(IfIndex),
    /// An address came or went.
    Address,
}

/// What came of listening once.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Received {
    Messages(Vec<Message>),
    /// Messages were lost.
    Overrun,
    /// There is nothing to receive.
    Nothing,
}

/// All interfaces at one moment.
#[derive(Debug)]
pub(super) struct Dump {
    pub interfaces: Vec<Interface>,
    /// Whether interfaces came or went meanwhile, so that some may be missing.
    pub interrupted: bool,
}

/// The sockets, in the network namespace of the thread that opened them.
pub(super) struct Netlink {
    listening: NlSocketHandle,
    asking: NlSocketHandle,
    ioctls: OwnedFd,
    sequence: u32,
}

/// Multicast groups (`enum rtnetlink_groups`, `linux/rtnetlink.h`).
const RTNLGRP_LINK: u32 = 1;
const RTNLGRP_IPV4_IFADDR: u32 = 5;
const RTNLGRP_IPV6_IFADDR: u32 = 9;

/// Since 5.14, and newer than neli.
const IFLA_PARENT_DEV_NAME: u16 = 56;
/// Inside of `IFLA_XDP`: the number of the program if there is one, or that of each mode.
const IFLA_XDP_PROG_IDS: std::ops::RangeInclusive<u16> = 4..=7;

impl Netlink {
    /// Listens from now on: to links, and to addresses of one family if that is asked for.
    pub(super) fn open(family: Option<Family>, receive_buffer: usize) -> io::Result<Self> {
        let groups: &[u32] = match family {
            None => &[RTNLGRP_LINK],
            Some(Family::Ipv4) => &[RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR],
            Some(Family::Ipv6) => &[RTNLGRP_LINK, RTNLGRP_IPV6_IFADDR],
        };
        let connect = |groups| {
            NlSocketHandle::connect(NlFamily::Route, None, groups).map_err(|e| netlink_error(&e))
        };
        let listening = connect(Groups::empty())?;
        let fd = sys::netlink_fd(&listening);
        // Beyond net.core.rmem_max if this process may (CAP_NET_ADMIN of the machine's own user
        // namespace), up to it if not.
        if setsockopt(&fd, RcvBufForce, &receive_buffer).is_err() {
            setsockopt(&fd, RcvBuf, &receive_buffer)?;
        }
        fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let joined = listening.add_mcast_membership(Groups::new_groups(groups));
        joined.map_err(|e| netlink_error(&e))?;
        Ok(Self {
            listening,
            asking: connect(Groups::empty())?,
            ioctls: socket(
                AddressFamily::Inet,
                SockType::Datagram,
                SockFlag::SOCK_CLOEXEC,
                None,
            )?,
            sequence: 0,
        })
    }

    /// Readable when there is something to receive.
    pub(super) fn listening(&self) -> impl AsFd {
        sys::netlink_fd(&self.listening)
    }

    /// Takes one datagram. Does not wait.
    pub(super) fn receive(&self) -> io::Result<Received> {
        let (messages, _) = match self.listening.recv::<Rtm, Buffer>() {
            Ok(received) => received,
            Err(error) => {
                match Errno::from_raw(netlink_error(&error).raw_os_error().unwrap_or(0)) {
                    Errno::EAGAIN | Errno::EINTR => return Ok(Received::Nothing),
                    Errno::ENOBUFS => return Ok(Received::Overrun),
                    _ => return Err(netlink_error(&error)),
                }
            }
        };
        let mut parsed = Vec::new();
        for message in messages {
            match message {
                Ok(message) => parsed.extend(parse(&message)),
                // Whatever it said, a dump says it too.
                Err(error) => {
                    log::warn!("a netlink message that makes no sense: {error}");
                    return Ok(Received::Overrun);
                }
            }
        }
        Ok(Received::Messages(parsed))
    }

    /// Forgets what was told so far.
    pub(super) fn discard(&self) -> io::Result<()> {
        // A storm may tell faster than this forgets; the rest is listened to as ever.
        for _ in 0..MOST_DISCARDED {
            if self.receive()? == Received::Nothing {
                break;
            }
        }
        Ok(())
    }

    /// All interfaces.
    pub(super) fn links(&mut self) -> io::Result<Dump> {
        let request = IfinfomsgBuilder::default()
            .ifi_family(RtAddrFamily::Unspecified)
            .build()
            .map_err(io::Error::other)?;
        let mut interfaces = Vec::new();
        let interrupted = self.dump(Rtm::Getlink, request, |message| {
            if let Some(Message::Link(interface)) = parse(message) {
                interfaces.push(*interface);
            }
        })?;
        Ok(Dump {
            interfaces,
            interrupted,
        })
    }

    /// The interfaces that have an address of a family beside those of the link, which all have.
    pub(super) fn with_address(&mut self, family: Family) -> io::Result<Vec<IfIndex>> {
        let family = match family {
            Family::Ipv4 => RtAddrFamily::Inet,
            Family::Ipv6 => RtAddrFamily::Inet6,
        };
        let request = IfaddrmsgBuilder::default()
            .ifa_family(family)
            .ifa_prefixlen(0)
            .ifa_scope(RtScope::Universe)
            .ifa_index(0)
            .build()
            .map_err(io::Error::other)?;
        let mut interfaces = Vec::new();
        self.dump(Rtm::Getaddr, request, |message| {
            if let Some(address) = payload::<Ifaddrmsg>(message)
                && *address.ifa_scope() != RtScope::Link
            {
                interfaces.extend(IfIndex::new(*address.ifa_index()));
            }
        })?;
        Ok(interfaces)
    }

    /// Fills in what netlink does not say: the driver, and before 5.14 the device.
    pub(super) fn describe(&self, interface: &mut Interface) {
        let Ok((driver, bus)) = sys::driver_info(self.ioctls.as_fd(), &interface.name) else {
            return;
        };
        let some = |word: String| (!word.is_empty()).then_some(word);
        interface.driver = some(driver);
        if interface.kind.is_none() && interface.parent.is_none() {
            interface.parent = some(bus);
        }
    }

    /// Asks for all of something; returns whether it changed meanwhile.
    fn dump<P: Size + ToBytes + std::fmt::Debug>(
        &mut self,
        kind: Rtm,
        request: P,
        mut each: impl FnMut(&Nlmsghdr<Rtm, Buffer>),
    ) -> io::Result<bool> {
        self.sequence = self.sequence.wrapping_add(1);
        let request = NlmsghdrBuilder::default()
            .nl_type(kind)
            .nl_flags(NlmF::REQUEST | NlmF::DUMP)
            .nl_seq(self.sequence)
            .nl_payload(NlPayload::Payload(request))
            .build()
            .map_err(io::Error::other)?;
        self.asking.send(&request).map_err(|e| netlink_error(&e))?;
        let mut interrupted = false;
        loop {
            let (messages, _) = match self.asking.recv::<Rtm, Buffer>() {
                Err(error) if netlink_error(&error).kind() == io::ErrorKind::Interrupted => {
                    continue;
                }
                received => received.map_err(|e| netlink_error(&e))?,
            };
            for message in messages {
                let message = message.map_err(|e| netlink_error(&e))?;
                if *message.nl_seq() != self.sequence {
                    continue;
                }
                interrupted |= message.nl_flags().contains(NlmF::DUMP_INTR);
                match message.nl_payload() {
                    NlPayload::Payload(_) => each(&message),
                    NlPayload::Err(error) => {
                        return Err(io::Error::from_raw_os_error(-*error.error()));
                    }
                    NlPayload::Ack(_) | NlPayload::DumpExtAck(_) | NlPayload::Empty => {
                        return Ok(interrupted);
                    }
                }
            }
        }
    }
}

const MOST_DISCARDED: usize = 10_000;

fn payload<P: FromBytesWithInput<Input = usize>>(message: &Nlmsghdr<Rtm, Buffer>) -> Option<P> {
    let bytes = message.get_payload()?.as_ref();
    P::from_bytes_with_input(&mut Cursor::new(bytes), bytes.len()).ok()
}

fn parse(message: &Nlmsghdr<Rtm, Buffer>) -> Option<Message> {
    match message.nl_type() {
        Rtm::Newlink => link(&payload(message)?).map(|i| Message::Link(Box::new(i))),
        Rtm::Dellink => gone(&payload(message)?),
        Rtm::Newaddr | Rtm::Deladdr => Some(Message::Address),
        _ => None,
    }
}

/// Bridges tell of their ports by messages of their own family, in the same group: a port that
/// leaves is deleted there, and stays an interface.
fn is_of_link(message: &Ifinfomsg) -> bool {
    *message.ifi_family() == RtAddrFamily::Unspecified
}

fn gone(message: &Ifinfomsg) -> Option<Message> {
    let ifindex = u32::try_from(*message.ifi_index()).ok()?;
    is_of_link(message).then_some(Message::Gone(IfIndex::new(ifindex)?))
}

fn link(message: &Ifinfomsg) -> Option<Interface> {
    if !is_of_link(message) {
        return None;
    }
    let ifindex = IfIndex::new(u32::try_from(*message.ifi_index()).ok()?)?;
    let mut interface = Interface::new(ifindex, "");
    interface.up = message.ifi_flags().contains(Iff::UP);
    interface.loopback = message.ifi_flags().contains(Iff::LOOPBACK);
    let mut lower = None;
    for attribute in message.rtattrs().iter() {
        match attribute.rta_type() {
            Ifla::Ifname => interface.name = text(attribute)?,
            Ifla::Mtu => interface.mtu = attribute.get_payload_as().ok()?,
            Ifla::Master => interface.master = IfIndex::new(attribute.get_payload_as().ok()?),
            Ifla::Link => lower = IfIndex::new(attribute.get_payload_as().ok()?),
            Ifla::LinkNetnsid => interface.lower_namespace = attribute.get_payload_as().ok(),
            Ifla::Operstate => {
                interface.oper_state = OperState::from_number(attribute.get_payload_as().ok()?);
            }
            Ifla::Linkinfo => kinds(attribute, &mut interface),
            Ifla::Xdp => interface.program_id = program_id(attribute),
            other if u16::from(other) == IFLA_PARENT_DEV_NAME => interface.parent = text(attribute),
            _ => {}
        }
    }
    // The number of an interface in another namespace means nothing here.
    interface.lower = lower.filter(|l| interface.lower_namespace.is_none() && *l != ifindex);
    (!interface.name.is_empty()).then_some(interface)
}

fn text<T>(attribute: &Rtattr<T, Buffer>) -> Option<String>
where
    Rtattr<T, Buffer>: Attribute<T>,
{
    let bytes = attribute.payload().as_ref();
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    Some(String::from_utf8_lossy(&bytes[..end]).into_owned())
}

fn kinds(attribute: &Rtattr<Ifla, Buffer>, interface: &mut Interface) {
    let Ok(nested) = attribute.get_attr_handle::<IflaInfo>() else {
        return;
    };
    for attribute in nested.iter() {
        match attribute.rta_type() {
            IflaInfo::Kind => interface.kind = text(attribute),
            IflaInfo::SlaveKind => interface.slave_kind = text(attribute),
            _ => {}
        }
    }
}

fn program_id(attribute: &Rtattr<Ifla, Buffer>) -> Option<u32> {
    let nested = attribute.get_attr_handle::<u16>().ok()?;
    let mut attributes = nested.iter();
    let id = attributes.find(|a| IFLA_XDP_PROG_IDS.contains(a.rta_type()))?;
    id.get_payload_as().ok()
}
